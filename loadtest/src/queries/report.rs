//! What came of a run: counts, latencies, and how both are shown.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde::Serialize;
use tonic::Status;

use crate::{
    latency::{Latencies, Percentiles},
    pacer::Sent,
    words::{code_name, number},
};

/// Code of an answer that has not one item for each SKU.
pub const WRONG_ANSWER: &str = "WRONG_ANSWER";

/// Failures of one code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// What the first one said.
    pub first: String,
}

/// Counts the calls of one connection as they end.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Calls that were answered.
    pub answered: u64,
    /// Failed calls by code.
    pub errors: BTreeMap<String, Errors>,
    /// SKUs that were answered and that the server does not know.
    pub skus_unknown: u64,
    /// From when it was due to its answer, of the answered calls.
    pub latency: Latencies,
    /// From when it was due to when it was handed to its connection, of all calls sent.
    pub delay: Latencies,
    /// When the last call ended, from the start.
    pub last: Duration,
}

impl Tally {
    /// Counts a failed call.
    pub fn fail(&mut self, code: &str, message: &str) {
        let errors = self.errors.entry(code.to_owned()).or_insert(Errors {
            count: 0,
            first: message.to_owned(),
        });
        errors.count += 1;
    }

    /// Counts a call that ended with this status.
    pub fn fail_with(&mut self, status: &Status) {
        self.fail(&code_name(status.code()), status.message());
    }

    /// Adds what another connection counted.
    pub fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.skus_unknown += other.skus_unknown;
        self.latency.add(&other.latency);
        self.delay.add(&other.delay);
        self.last = self.last.max(other.last);
        for (code, errors) in &other.errors {
            match self.errors.get_mut(code) {
                Some(own) => own.count += errors.count,
                None => {
                    self.errors.insert(code.clone(), errors.clone());
                }
            }
        }
    }

    /// Failed calls of all codes.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }
}

/// What was run: all that it takes to run it again.
#[derive(Debug, Clone, Serialize)]
pub struct Setup {
    /// Address of the server.
    pub server: String,
    /// Channel that was asked for.
    pub channel: String,
    /// SKUs in the list.
    pub skus: usize,
    /// SKUs of each call.
    pub skus_per_call: usize,
    /// Exponent of their popularity; 0: all alike.
    pub zipf: f64,
    /// Calls per second.
    pub rate: u64,
    /// Length of the run.
    pub seconds: u64,
    /// Connections.
    pub connections: usize,
    /// Most calls in flight.
    pub in_flight_max: usize,
    /// How long a call may take, in seconds.
    pub timeout_seconds: u64,
    /// The seed.
    pub seed: u64,
    /// When it started, UTC.
    pub started_at: String,
    /// Where the generator ran: operating system, architecture, processors.
    pub host: String,
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was run.
    pub setup: Setup,
    /// Calls that were due: `sent` + `dropped`.
    pub due: u64,
    /// Calls sent: `answered` + `failed`.
    pub sent: u64,
    /// Calls answered.
    pub answered: u64,
    /// Calls that failed, in any way.
    pub failed: u64,
    /// Calls that were never sent: too many were in flight, or the generator could not keep up.
    pub dropped: u64,
    /// Calls that were sent, after they had waited for the limit of calls in flight.
    pub held_back: u64,
    /// True if the run was stopped before its end; what was not yet due then is not counted.
    pub interrupted: bool,
    /// From the start to the end of the run, or of the last call if that was later.
    pub elapsed_seconds: f64,
    /// Calls answered per second of `elapsed_seconds`.
    pub rate_reached: f64,
    /// Failed calls by code.
    pub errors: BTreeMap<String, Errors>,
    /// Of the SKUs answered: those that the server does not know.
    pub skus_unknown: u64,
    /// From when a call was due to its answer, of the answered calls.
    pub latency_ns: Percentiles,
    /// Part of it that passed before the call was handed to its connection, of all calls sent.
    pub send_delay_ns: Percentiles,
}

impl Report {
    /// Puts together what was sent and what came back.
    pub fn new(setup: Setup, sent: Sent, tally: &Tally) -> Self {
        // Time in which nothing was due counts as well: it belongs to the rate.
        let run = Duration::from_secs(setup.seconds);
        let elapsed = sent.interrupted.unwrap_or(run).max(tally.last);
        Self {
            setup,
            due: sent.sent + sent.dropped,
            sent: sent.sent,
            answered: tally.answered,
            failed: tally.failed(),
            dropped: sent.dropped,
            held_back: sent.held_back,
            interrupted: sent.interrupted.is_some(),
            elapsed_seconds: elapsed.as_secs_f64(),
            // An interruption may come before anything else.
            rate_reached: tally.answered as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            errors: tally.errors.clone(),
            skus_unknown: tally.skus_unknown,
            latency_ns: tally.latency.percentiles(),
            send_delay_ns: tally.delay.percentiles(),
        }
    }

    /// True if the run went to its end and every call that was due was answered.
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.dropped == 0 && !self.interrupted
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let setup = &self.setup;
        let spread = match setup.zipf {
            0.0 => "all alike".to_owned(),
            exponent => format!("by Zipf, exponent {exponent}"),
        };
        let mut rows = vec![
            ("server", setup.server.clone()),
            (
                "query",
                format!(
                    "channel {}, {} of {} SKUs {spread}",
                    setup.channel,
                    setup.skus_per_call,
                    number(setup.skus as u64)
                ),
            ),
            (
                "load",
                format!(
                    "{}/s for {} s, connections {}, in flight at most {}, seed {}",
                    number(setup.rate),
                    number(setup.seconds),
                    setup.connections,
                    number(setup.in_flight_max as u64),
                    setup.seed
                ),
            ),
            ("from", format!("{}, {}", setup.host, setup.started_at)),
            ("", String::new()),
            ("due", number(self.due)),
            ("answered", number(self.answered)),
            ("failed", number(self.failed)),
            ("dropped", number(self.dropped)),
            (
                "rate reached",
                format!(
                    "{}/s over {:.2} s",
                    number(self.rate_reached.round() as u64),
                    self.elapsed_seconds
                ),
            ),
        ];
        if self.held_back > 0 {
            rows.push(("held back", number(self.held_back)));
        }
        if self.skus_unknown > 0 {
            rows.push(("SKUs unknown", number(self.skus_unknown)));
        }
        let mut out = String::new();
        for (name, value) in rows {
            let line = format!("{name:<14}{value}");
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out.push_str("\nMilliseconds, counted from when each call was due:\n\n");
        out.push_str(&table(&[
            ("latency", &self.latency_ns),
            ("sent after", &self.send_delay_ns),
        ]));
        self.write_notes(&mut out);
        out
    }

    /// What would be overlooked in the numbers.
    fn write_notes(&self, out: &mut String) {
        let mut notes = Vec::new();
        if self.interrupted {
            notes.push("Interrupted: calls that were not yet due are not counted.".to_owned());
        }
        if self.failed + self.dropped > 0 {
            notes.push(
                "The latencies are those of the answered calls only; callers saw worse.".to_owned(),
            );
        }
        if self.dropped > 0 {
            notes.push(
                "Calls were dropped since they could not be sent in time: the rate is beyond what \
                 the server, this machine, or the limit of calls in flight allows."
                    .to_owned(),
            );
        }
        if self.skus_unknown > 0 {
            notes.push(
                "SKUs that the server does not know cost it less than others: is it the right \
                 list?"
                    .to_owned(),
            );
        }
        for (code, errors) in &self.errors {
            notes.push(format!(
                "{} × {code}, first: {}",
                number(errors.count),
                errors.first
            ));
        }
        if !notes.is_empty() {
            out.push('\n');
        }
        for note in notes {
            // Writing into a string cannot fail.
            let _ = writeln!(out, "{note}");
        }
    }
}

fn table(rows: &[(&str, &Percentiles)]) -> String {
    let mut out = format!("{:<12}", "");
    for heading in ["p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        out.push_str(&format!("{heading:>11}"));
    }
    out.push('\n');
    for (name, of) in rows {
        out.push_str(&format!("{name:<12}"));
        for value in [of.p50, of.p90, of.p99, of.p99_9, of.p99_99, of.max] {
            out.push_str(&format!("{:>11}", milliseconds(value)));
        }
        out.push('\n');
    }
    out
}

fn milliseconds(ns: Option<u64>) -> String {
    match ns {
        Some(ns) => format!("{:.3}", ns as f64 / 1e6),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> Setup {
        Setup {
            server: "http://127.0.0.1:7420".to_owned(),
            channel: "web".to_owned(),
            skus: 20_000,
            skus_per_call: 10,
            zipf: 1.0,
            rate: 1_000,
            seconds: 10,
            connections: 2,
            in_flight_max: 1_000,
            timeout_seconds: 10,
            seed: 1,
            started_at: "2026-01-02T03:04:05Z".to_owned(),
            host: "linux x86_64, 2 processors".to_owned(),
        }
    }

    fn assert_near(ns: Option<u64>, expected: u64) {
        let ns = ns.expect("there are enough");
        assert!(
            ns.abs_diff(expected) * 1_000 <= expected,
            "{ns}, expected {expected}"
        );
    }

    #[test]
    fn connections_add_up() {
        let mut one = Tally {
            answered: 2,
            skus_unknown: 1,
            last: Duration::from_secs(3),
            ..Tally::default()
        };
        one.latency.record(Duration::from_millis(1));
        one.fail("NOT_FOUND", "first");
        let mut other = Tally {
            answered: 5,
            last: Duration::from_secs(2),
            ..Tally::default()
        };
        other.latency.record(Duration::from_millis(9));
        other.fail("NOT_FOUND", "second");
        other.fail_with(&Status::deadline_exceeded("late"));
        one.add(&other);
        assert_eq!((one.answered, one.skus_unknown, one.failed()), (7, 1, 3));
        assert_eq!(one.last, Duration::from_secs(3));
        assert_near(one.latency.percentiles().max, 9_000_000);
        assert_eq!(one.errors["NOT_FOUND"].count, 2);
        assert_eq!(one.errors["NOT_FOUND"].first, "first");
        assert_eq!(one.errors["DEADLINE_EXCEEDED"].count, 1);
    }

    #[test]
    fn the_rate_counts_answers_over_the_whole_time() {
        let tally = |last| Tally {
            answered: 5_000,
            last: Duration::from_secs(last),
            ..Tally::default()
        };
        let sent = Sent {
            sent: 5_000,
            ..Sent::default()
        };
        // All answers came early: the time that was planned counts.
        assert_eq!(Report::new(setup(), sent, &tally(4)).rate_reached, 500.0);
        // The last one came late.
        assert_eq!(Report::new(setup(), sent, &tally(20)).rate_reached, 250.0);
        let stopped = Sent {
            interrupted: Some(Duration::from_secs(5)),
            ..sent
        };
        let report = Report::new(setup(), stopped, &tally(4));
        assert_eq!(report.rate_reached, 1_000.0);
        assert!(!report.is_clean());
    }

    #[test]
    fn nothing_that_was_due_gets_lost() {
        let mut tally = Tally {
            answered: 90,
            ..Tally::default()
        };
        tally.fail("UNAVAILABLE", "shutting down");
        let sent = Sent {
            sent: 91,
            dropped: 9,
            ..Sent::default()
        };
        let report = Report::new(setup(), sent, &tally);
        assert_eq!(report.due, 100);
        assert_eq!(report.answered + report.failed + report.dropped, report.due);
        assert!(!report.is_clean());
        let text = report.to_text();
        assert!(text.contains("\ndropped       9\n"), "{text}");
        assert!(
            text.contains("1 × UNAVAILABLE, first: shutting down\n"),
            "{text}"
        );
        assert!(text.contains("those of the answered calls only"), "{text}");
    }

    #[test]
    fn scripts_get_numbers_or_null() {
        let report = Report::new(setup(), Sent::default(), &Tally::default());
        assert!(report.is_clean());
        let json = serde_json::to_value(&report).expect("it has only plain fields");
        assert_eq!(json["setup"]["seed"], 1);
        assert_eq!(json["latency_ns"]["p99_99"], serde_json::Value::Null);
        assert_eq!(json["dropped"], 0);
    }

    #[test]
    fn milliseconds_have_three_digits() {
        assert_eq!(milliseconds(Some(1_234_567)), "1.235");
        assert_eq!(milliseconds(None), "-");
    }
}
