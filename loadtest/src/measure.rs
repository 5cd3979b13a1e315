//! Counts and latencies of each kind of call, in all and over time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::latency::{LATENCY_NS_MAX, Latencies};

/// Most stretches of time that are told apart: longer runs have longer ones, so that memory stays
/// bounded however long a run is.
pub const STRETCHES_MAX: u64 = 600;
/// Most codes of errors told apart for each kind; gRPC has 16.
const CODES_MAX: usize = 24;
/// Latencies over time are kept to two digits, in microseconds.
const DIGITS_OVER_TIME: u8 = 2;

/// Kinds of calls, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `Availability.Get`.
    Query,
    /// A cart that is reserved.
    Reserve,
    /// `Reservations.Confirm`.
    Confirm,
    /// `Reservations.Release`.
    Release,
    /// Shipments of an order, as movements.
    Ship,
    /// Messages of movements that stores and warehouses report, and recorded ones.
    Movements,
    /// Returns: received, inspected, restocked.
    Return,
    /// From the planned send of a movement until a query shows it.
    Freshness,
    /// From the planned send of a movement until a watcher has been told.
    Pushed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Query,
        Self::Reserve,
        Self::Confirm,
        Self::Release,
        Self::Ship,
        Self::Movements,
        Self::Return,
        Self::Freshness,
        Self::Pushed,
    ];

    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Reserve => "reserve",
            Self::Confirm => "confirm",
            Self::Release => "release",
            Self::Ship => "ship",
            Self::Movements => "movements",
            Self::Return => "return",
            Self::Freshness => "freshness",
            Self::Pushed => "pushed",
        }
    }
}

/// One stretch of time of one kind.
#[derive(Debug, Clone, Default)]
pub struct Stretch {
    /// Calls that were due in it.
    pub planned: u64,
    /// Calls that were answered in it.
    pub answered: u64,
    /// Calls that were due in it and failed or were dropped.
    pub failed: u64,
    /// Latencies of those that were due in it and answered, in microseconds.
    latency: Option<Box<Histogram<u32>>>,
}

impl Stretch {
    /// A percentile of its latencies, in milliseconds; none if nothing was answered.
    pub fn percentile_ms(&self, quantile: f64) -> Option<f64> {
        let latency = self
            .latency
            .as_ref()
            .filter(|latency| !latency.is_empty())?;
        Some(latency.value_at_quantile(quantile) as f64 / 1_000.0)
    }

    fn record(&mut self, latency: Duration) {
        let latencies = self.latency.get_or_insert_with(|| {
            let histogram = Histogram::new(DIGITS_OVER_TIME);
            Box::new(histogram.expect("the digits are a constant that it takes"))
        });
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        // It grows as is needed, up to an hour; so there is no error.
        let _ = latencies.record(us.min(LATENCY_NS_MAX / 1_000));
    }
}

/// What came of one kind of call, over what is measured.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Calls that were due.
    pub planned: u64,
    /// Calls answered.
    pub answered: u64,
    /// Calls whose first answer was an error.
    pub failed: u64,
    /// Calls that were due and never sent.
    pub dropped: u64,
    /// Calls that had nothing to be about: their cart was refused, or failed.
    pub passed_over: u64,
    /// Failed calls by code: how many, and what the first one said.
    pub errors: BTreeMap<String, (u64, String)>,
    /// From when a call was due to its answer.
    pub latency: Latencies,
    /// Part of it that passed before the call was handed to its connection.
    pub delay: Latencies,
    /// Over time, the warm-up included.
    pub stretches: Vec<Stretch>,
}

/// Takes what happens, from all tasks.
#[derive(Debug)]
pub struct Recorder {
    stretch: Duration,
    stretches: usize,
    measured_from: Duration,
    kinds: [Mutex<Tally>; Kind::ALL.len()],
}

impl Recorder {
    /// For a run of so many seconds, of which the first are not measured.
    pub fn new(seconds: u64, warm_up_seconds: u64) -> Self {
        let stretch = seconds.div_ceil(STRETCHES_MAX).max(1);
        Self {
            stretch: Duration::from_secs(stretch),
            // One more, for what comes after the end.
            stretches: (seconds.div_ceil(stretch) + 1) as usize,
            measured_from: Duration::from_secs(warm_up_seconds),
            kinds: Default::default(),
        }
    }

    /// Length of a stretch of time.
    pub fn stretch(&self) -> Duration {
        self.stretch
    }

    /// A call is due.
    pub fn planned(&self, kind: Kind, due: Duration) {
        let mut tally = self.tally(kind);
        tally.planned += u64::from(due >= self.measured_from);
        self.at(&mut tally, due).planned += 1;
    }

    /// A call was handed to its connection.
    pub fn sent(&self, kind: Kind, due: Duration, now: Duration) {
        if due >= self.measured_from {
            self.tally(kind).delay.record(now.saturating_sub(due));
        }
    }

    /// A call was answered.
    pub fn answered(&self, kind: Kind, due: Duration, now: Duration) {
        let latency = now.saturating_sub(due);
        let mut tally = self.tally(kind);
        if due >= self.measured_from {
            tally.answered += 1;
            tally.latency.record(latency);
        }
        self.at(&mut tally, due).record(latency);
        self.at(&mut tally, now).answered += 1;
    }

    /// The first answer to a call was an error, or none came.
    pub fn failed(&self, kind: Kind, due: Duration, code: &str, message: &str) {
        let mut tally = self.tally(kind);
        self.at(&mut tally, due).failed += 1;
        if due < self.measured_from {
            return;
        }
        tally.failed += 1;
        let code = match tally.errors.len() < CODES_MAX || tally.errors.contains_key(code) {
            true => code,
            false => "OTHER",
        };
        let error = tally.errors.entry(code.to_owned());
        error.or_insert_with(|| (0, message.to_owned())).0 += 1;
    }

    /// A call was due and is never sent.
    pub fn dropped(&self, kind: Kind, due: Duration) {
        let mut tally = self.tally(kind);
        let measured = u64::from(due >= self.measured_from);
        tally.planned += measured;
        tally.dropped += measured;
        let stretch = self.at(&mut tally, due);
        stretch.planned += 1;
        stretch.failed += 1;
    }

    /// A call has nothing to be about, so it is none.
    pub fn passed_over(&self, kind: Kind, due: Duration) {
        let mut tally = self.tally(kind);
        tally.passed_over += u64::from(due >= self.measured_from);
    }

    /// What came of a kind so far.
    pub fn tally(&self, kind: Kind) -> MutexGuard<'_, Tally> {
        // Counters are whole at any time, so a panic elsewhere spoils none.
        self.kinds[kind as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn at<'a>(&self, tally: &'a mut Tally, time: Duration) -> &'a mut Stretch {
        if tally.stretches.is_empty() {
            tally.stretches.resize(self.stretches, Stretch::default());
        }
        let at = (time.as_secs() / self.stretch.as_secs()) as usize;
        &mut tally.stretches[at.min(self.stretches - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn latencies_belong_to_the_time_at_which_a_call_was_due() {
        let recorder = Recorder::new(10, 0);
        recorder.planned(Kind::Query, 1_500 * MS);
        recorder.answered(Kind::Query, 1_500 * MS, 3_500 * MS);
        let tally = recorder.tally(Kind::Query);
        assert_eq!((tally.planned, tally.answered), (1, 1));
        assert_eq!(tally.stretches[1].planned, 1);
        assert_eq!(tally.stretches[3].answered, 1);
        let p50 = tally.stretches[1].percentile_ms(0.5).expect("one");
        assert!((1_980.0..2_020.0).contains(&p50), "{p50}");
        assert_eq!(tally.stretches[3].percentile_ms(0.5), None);
    }

    #[test]
    fn the_warm_up_is_shown_over_time_and_not_counted() {
        let recorder = Recorder::new(10, 2);
        for due in [1_999 * MS, 2_000 * MS] {
            recorder.planned(Kind::Reserve, due);
            recorder.failed(Kind::Reserve, due, "UNAVAILABLE", "gone");
            recorder.dropped(Kind::Reserve, due);
        }
        let tally = recorder.tally(Kind::Reserve);
        assert_eq!((tally.planned, tally.failed, tally.dropped), (2, 1, 1));
        assert_eq!(tally.errors["UNAVAILABLE"], (1, "gone".to_owned()));
        assert_eq!(tally.stretches[1].failed, 2);
    }

    #[test]
    fn memory_does_not_grow_with_the_length_of_a_run() {
        let recorder = Recorder::new(86_400, 0);
        recorder.planned(Kind::Query, Duration::from_secs(90_000));
        let stretches = recorder.tally(Kind::Query).stretches.len() as u64;
        assert!(stretches <= STRETCHES_MAX + 1);
    }
}
