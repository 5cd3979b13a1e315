//! How deliveries stand: counters and times that others may read.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

use hdrhistogram::Histogram;

use super::Update;
use crate::{domain::movement::TimeUs, instance::now_us, log::Position, proto::v1 as pb};

pub use pb::delivery_status::{State, Way};

/// Times that something took, in microseconds.
#[derive(Debug)]
pub struct Times(Mutex<Histogram<u64>>);

/// Longer times count as this one: a day.
const LONGEST_US: u64 = 86_400_000_000;

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(LONGEST_US, 2);
        Self(Mutex::new(histogram.expect("these bounds are valid")))
    }
}

impl Times {
    /// Something that began at `from_us` is done at `now_us`, by this machine's clock.
    pub fn record(&self, from_us: TimeUs, now_us: TimeUs) {
        self.record_each(std::iter::once(from_us), now_us);
    }

    /// Several things that began at these times are done at `now_us`.
    pub fn record_each(&self, from_us: impl Iterator<Item = TimeUs>, now_us: TimeUs) {
        let mut times = self.lock();
        for from_us in from_us {
            // Clocks of different machines may differ.
            let took = u64::try_from(now_us.saturating_sub(from_us)).unwrap_or(0);
            times.saturating_record(took.clamp(1, LONGEST_US));
        }
    }

    /// What people look at.
    pub fn summary(&self) -> pb::Freshness {
        let times = self.lock();
        let count = times.len();
        let at = |quantile| {
            if count == 0 {
                0
            } else {
                times.value_at_quantile(quantile)
            }
        };
        pb::Freshness {
            count,
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
        }
    }

    /// How many took at most each of these times, and how long all took together, in seconds.
    pub fn cumulative(&self, bounds_us: &[u64]) -> (Vec<u64>, u64, f64) {
        let times = self.lock();
        let up_to = |bound: &u64| times.count_between(0, *bound);
        let sum_s = times.mean() * times.len() as f64 / 1e6;
        (
            bounds_us.iter().map(up_to).collect(),
            times.len(),
            if times.is_empty() { 0.0 } else { sum_s },
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One way of delivery of one channel.
#[derive(Debug)]
pub struct Delivery {
    /// By what.
    pub way: Way,
    /// Name of the webhook; empty for the others.
    pub name: String,
    state: AtomicU8,
    /// Callers of `Watch` now; 0 or 1 for the others.
    pub subscribers: AtomicU64,
    position: AtomicU64,
    /// SKUs that wait.
    pub waiting: AtomicU64,
    messages: AtomicU64,
    numbers: AtomicU64,
    /// Changes that a newer one took the place of before they were delivered.
    pub conflated: AtomicU64,
    failures: AtomicU64,
    /// Numbers refused for good, and still owed.
    pub dead_letters: AtomicU64,
    last_error: Mutex<String>,
    /// From occurrence to delivery, of the oldest change of each message.
    pub occurred: Times,
    /// From the append to the log to delivery, likewise.
    pub logged: Times,
}

impl Delivery {
    /// One that has delivered nothing yet.
    pub fn new(way: Way, name: &str) -> Arc<Self> {
        Arc::new(Self {
            way,
            name: name.to_owned(),
            state: AtomicU8::new(State::Delivering as u8),
            subscribers: AtomicU64::new(0),
            position: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            conflated: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            last_error: Mutex::default(),
            occurred: Times::default(),
            logged: Times::default(),
        })
    }

    /// An update was delivered.
    pub fn delivered(&self, update: &Update) {
        self.delivered_numbers(update.numbers.len() as u64, update.oldest_us());
    }

    /// A message with so many numbers was delivered, whose oldest change occurred and was logged
    /// then, if it was one.
    pub fn delivered_numbers(&self, numbers: u64, oldest_us: Option<(TimeUs, TimeUs)>) {
        self.messages.fetch_add(1, Relaxed);
        self.numbers.fetch_add(numbers, Relaxed);
        if let Some((occurred_us, logged_us)) = oldest_us {
            let now_us = now_us();
            self.occurred.record(occurred_us, now_us);
            self.logged.record(logged_us, now_us);
        }
    }

    /// Everything up to here was delivered.
    pub fn reached(&self, position: Position) {
        self.position.fetch_max(position, Relaxed);
    }

    /// Everything up to where was delivered.
    pub fn position(&self) -> Position {
        self.position.load(Relaxed)
    }

    /// An attempt failed.
    pub fn failed(&self, why: &str) {
        self.failures.fetch_add(1, Relaxed);
        *self.lock_error() = why.to_owned();
    }

    /// How it stands; an error is over once it delivers again.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
        if state == State::Delivering {
            self.lock_error().clear();
        }
    }

    /// What people look at.
    pub fn status(&self) -> pb::DeliveryStatus {
        pb::DeliveryStatus {
            way: self.way.into(),
            name: self.name.clone(),
            state: i32::from(self.state.load(Relaxed)),
            subscribers: self.subscribers.load(Relaxed),
            position: self.position.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            messages: self.messages.load(Relaxed),
            numbers: self.numbers.load(Relaxed),
            conflated: self.conflated.load(Relaxed),
            failures: self.failures.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            last_error: self.lock_error().clone(),
            occurred_to_delivered: Some(self.occurred.summary()),
            logged_to_delivered: Some(self.logged.summary()),
        }
    }

    fn lock_error(&self) -> std::sync::MutexGuard<'_, String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
