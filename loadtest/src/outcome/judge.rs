//! Did it hold? A wrong result goes before everything, then what failed, then what was slow.

use std::fmt;

use serde::Serialize;

use super::{Outcome, Point};
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
    /// What was in the way of a run that was too slow, and what to do next.
    pub advice: Vec<String>,
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
        advice: advice(outcome, verdict),
    }
}

fn missed(outcome: &Outcome, kind: Kind, limit: f64) -> Option<String> {
    // A scenario may ask for what it does not do.
    let Some(p99) = outcome.kind(kind)?.latency_ns.p99 else {
        return Some(format!(
            "{}: too few answers to tell their p99",
            kind.name()
        ));
    };
    let times = p99 as f64 / 1e6 / limit;
    (times > 1.0).then(|| {
        format!(
            "{}: p99 {} ms, the objective is {limit} ms: {times:.1} times as long{}",
            kind.name(),
            milliseconds(p99),
            when(outcome, kind, limit)
        )
    })
}

/// In how much of the time it was over a limit, and where most of all.
fn when(outcome: &Outcome, kind: Kind, limit: f64) -> String {
    let over_time = &outcome.over_time;
    let series = over_time.kinds.iter().find(|series| series.kind == kind);
    let phase_at = |second| {
        let mut phases = over_time.phases.iter();
        phases.find(|phase| (phase.from_seconds..phase.to_seconds).contains(&second))
    };
    let points: Vec<&Point> = series.map_or_else(Vec::new, |series| {
        let measured = |point: &&Point| phase_at(point.second).is_some_and(|phase| !phase.warm_up);
        series.points.iter().filter(measured).collect()
    });
    let is_over = |point: &&Point| point.p99_ms.is_some_and(|p99| p99 > limit);
    let over = points.iter().filter(|point| is_over(point)).count() as u64;
    let longest = points
        .split(|point| !is_over(point))
        .max_by_key(|span| span.len());
    let Some([first, ..]) = longest else {
        return String::new();
    };
    let each = over_time.stretch_seconds;
    let lasted = longest.map_or(0, <[_]>::len) as u64 * each;
    let phase = phase_at(first.second).map_or("", |phase| &phase.name);
    format!(
        "; over it in {} of {} s, the longest for {lasted} s from second {} on ({phase})",
        over * each,
        points.len() as u64 * each,
        first.second,
    )
}

fn advice(outcome: &Outcome, verdict: Verdict) -> Vec<String> {
    let dropped = outcome.kinds.iter().any(|kind| kind.dropped > 0);
    let interrupted = outcome.interrupted_after_seconds.is_some();
    if verdict != Verdict::Missed && (!dropped || interrupted) {
        return Vec::new();
    }
    let mut advice = Vec::new();
    if let Some(others) = outcome.busy.spoilt_by() {
        advice.push(format!(
            "other programs took {others:.1} of the {} processors meanwhile: end them, and run it \
             again before anything else is concluded",
            outcome.busy.there_are
        ));
    }
    let delays = outcome
        .kinds
        .iter()
        .filter_map(|kind| kind.send_delay_ns.p99);
    let delay = delays.max().unwrap_or(0);
    let objective = &outcome.scenario.objective;
    let limits = [
        objective.query_p99_ms,
        objective.reserve_p99_ms,
        objective.freshness_p99_ms,
    ];
    let tightest = limits.into_iter().flatten().fold(f64::MAX, f64::min);
    if outcome.held_back > 0 {
        advice.push(format!(
            "{} calls had to wait until one of the {} under way was answered: the server answered \
             more slowly than calls came; a higher --in-flight would only let more of them wait",
            number(outcome.held_back),
            number(outcome.setup.in_flight_max as u64)
        ));
    } else if dropped || delay as f64 / 1e6 > tightest / 2.0 {
        advice.push(format!(
            "the generator itself fell behind: it sent calls {} ms late (99th percentile), and \
             that counts; give it processors of its own, on another machine (--allow-remote)",
            milliseconds(delay)
        ));
    } else {
        advice.push(format!(
            "the generator kept its times (99th percentile: {} ms late), so this is the server's",
            milliseconds(delay)
        ));
    }
    if outcome.busy.all_are() {
        advice.push(format!(
            "this machine has no more to give: {}",
            outcome.busy.to_text()
        ));
    }
    advice.push(
        "--times 0.5 halves every rate; `sellable-loadtest capacity` finds the rate that holds, \
         and with --sizes processors=… what more of them would bring"
            .to_owned(),
    );
    advice
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
        assert_eq!(
            judgement.reasons,
            [
                "query: p99 495 ms, the objective is 20 ms: 24.8 times as long; over it in 2 of \
                 2 s, the longest for 2 s from second 0 on (only)"
            ]
        );
        assert!(judgement.advice[0].contains("the generator itself fell behind"));
        let mut outcome = sound();
        outcome.scenario.objective.query_p99_ms = None;
        assert_eq!(judge(&outcome).verdict, Verdict::Held);
        assert!(judge(&outcome).reasons.is_empty());
        assert!(judge(&outcome).advice.is_empty());
    }

    #[test]
    fn what_was_in_the_way_is_told() {
        let mut outcome = sound();
        outcome.held_back = 7;
        assert!(judge(&outcome).advice[0].contains("7 calls had to wait"));
        outcome.held_back = 0;
        outcome.kinds[0].send_delay_ns.p99 = Some(9_000_000);
        assert!(judge(&outcome).advice[0].contains("the generator kept its times"));
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
