//! Did it hold? A wrong result goes before everything, then what failed, then what was slow.

use std::fmt;

use serde::Serialize;

use super::Outcome;
use crate::{
    cli::{EXIT_DONE, EXIT_FAILED, EXIT_MISSED, EXIT_WRONG},
    measure::Kind,
    words::{milliseconds, number},
};

/// In a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was answered, right, and as fast as the objective asks.
    #[default]
    Held,
    /// Everything was answered and right, but not as fast as the objective asks.
    Missed,
    /// A call failed or was dropped, or the run was interrupted.
    Failed,
    /// The server gave a wrong result.
    Wrong,
}

impl Verdict {
    /// Exit code of the process.
    pub const fn exit(self) -> u8 {
        match self {
            Self::Held => EXIT_DONE,
            Self::Missed => EXIT_MISSED,
            Self::Failed => EXIT_FAILED,
            Self::Wrong => EXIT_WRONG,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Missed => "missed",
            Self::Failed => "failed",
            Self::Wrong => "wrong",
        })
    }
}

/// In a word, in a line, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// In a word.
    pub verdict: Verdict,
    /// In a line.
    pub headline: String,
    /// Each reason why it is not `held`.
    pub reasons: Vec<String>,
}

/// Judges a run by all of its numbers.
pub(super) fn judge(outcome: &Outcome) -> Judgement {
    let mut found: Vec<(Verdict, String)> = Vec::new();
    for check in &outcome.checks {
        if check.wrong > 0 {
            let what = format!("{}: {} wrong", check.what, number(check.wrong));
            found.push((Verdict::Wrong, what));
        }
    }
    if let Some(after) = outcome.interrupted_after_seconds {
        let what = format!("interrupted after {after:.1} s");
        found.push((Verdict::Failed, what));
    }
    for kind in &outcome.kinds {
        let name = kind.kind.name();
        for (code, errors) in &kind.errors {
            let count = number(errors.count);
            let what = format!("{name}: {count} × {code}, first: {}", errors.first);
            found.push((Verdict::Failed, what));
        }
        if kind.dropped > 0 {
            let what = format!("{name}: {} never sent", number(kind.dropped));
            found.push((Verdict::Failed, what));
        }
    }
    let objective = &outcome.scenario.objective;
    for (kind, limit) in [
        (Kind::Query, objective.query_p99_ms),
        (Kind::Reserve, objective.reserve_p99_ms),
        (Kind::Freshness, objective.freshness_p99_ms),
    ] {
        if let Some(limit) = limit
            && let Some(why) = missed(outcome, kind, limit)
        {
            found.push((Verdict::Missed, why));
        }
    }
    found.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    let verdict = found.first().map_or(Verdict::Held, |(verdict, _)| *verdict);
    Judgement {
        verdict,
        headline: headline(outcome, verdict),
        reasons: found.into_iter().map(|(_, why)| why).collect(),
    }
}

fn missed(outcome: &Outcome, kind: Kind, limit: f64) -> Option<String> {
    let name = kind.name();
    // A scenario may ask for what it does not do.
    let kind = outcome.kind(kind)?;
    // Whoever reads it has to know which of the two was slow.
    let unsent = match kind.send_delay_ns.p99 {
        Some(delay) if delay as f64 / 1e6 > limit / 2.0 => format!(
            "; the generator alone took {} ms to send: it needs more processor, or --in-flight",
            milliseconds(delay)
        ),
        _ => String::new(),
    };
    match kind.latency_ns.p99 {
        Some(p99) if p99 as f64 / 1e6 <= limit => None,
        Some(p99) => {
            let p99 = milliseconds(p99);
            Some(format!(
                "{name}: p99 {p99} ms, the objective is {limit} ms{unsent}"
            ))
        }
        None => Some(format!("{name}: too few answers to tell their p99")),
    }
}

fn headline(outcome: &Outcome, verdict: Verdict) -> String {
    let calls: u64 = outcome.kinds.iter().map(|kind| kind.due).sum();
    let checked: u64 = outcome.checks.iter().map(|check| check.checked).sum();
    let p99 = |kind: Kind| {
        let p99 = outcome.kind(kind)?.latency_ns.p99?;
        Some(format!("{} p99 {} ms", kind.name(), milliseconds(p99)))
    };
    let figures: Vec<String> = [Kind::Query, Kind::Reserve, Kind::Freshness]
        .into_iter()
        .filter_map(p99)
        .collect();
    let figures = figures.join(", ");
    let (calls, checked) = (number(calls), number(checked));
    match verdict {
        Verdict::Held => {
            format!("{calls} calls, all answered; {checked} checks, none wrong; {figures}")
        }
        Verdict::Missed => {
            format!("Right, but too slow: {calls} calls; {checked} checks, none wrong; {figures}")
        }
        Verdict::Failed => {
            format!("Not all of {calls} calls were answered, or the run was stopped")
        }
        Verdict::Wrong => "The server gave wrong results; how fast it was does not matter".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::fixture::outcome;

    /// Everything answered, right, and a 99th percentile of 495 ms.
    fn sound() -> Outcome {
        let mut outcome = outcome();
        outcome.checks[0].wrong = 0;
        outcome
    }

    #[test]
    fn what_is_answered_and_right_holds() {
        let judgement = judge(&sound());
        // The scenario asks for 20 ms.
        assert_eq!(judgement.verdict, Verdict::Missed);
        assert!(judgement.reasons[0].contains("the objective is 20 ms"));
        let mut outcome = sound();
        outcome.scenario.objective.query_p99_ms = None;
        assert_eq!(judge(&outcome).verdict, Verdict::Held);
        assert!(judge(&outcome).reasons.is_empty());
    }

    #[test]
    fn wrong_goes_before_failed_and_failed_before_slow() {
        let mut outcome = sound();
        outcome.kinds[0].dropped = 1;
        assert_eq!(judge(&outcome).verdict, Verdict::Failed);
        outcome.checks[0].wrong = 1;
        let judgement = judge(&outcome);
        assert_eq!(judgement.verdict, Verdict::Wrong);
        assert_eq!(judgement.reasons.len(), 3, "{judgement:?}");
    }

    #[test]
    fn an_interrupted_run_has_not_held() {
        let mut outcome = sound();
        outcome.interrupted_after_seconds = Some(1.0);
        assert_eq!(judge(&outcome).verdict, Verdict::Failed);
    }
}
