//! When to try again: soon after a failure, then later and later, and only now and then once a
//! receiver failed so often that it is most likely down.

use std::time::{Duration, Instant};

/// Failures in a row that open the circuit.
pub const FAILURES_MAX: u32 = 5;

/// See the module. It has no clock and no chance of its own: the caller brings both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    wait_min: Duration,
    wait_max: Duration,
    failures: u32,
    state: Circuit,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// The last attempt went well, or there was none.
    Closed,
    /// It failed, and is tried again from then on.
    Retrying(Instant),
    /// It is probed from then on: a success closes it, a failure opens it anew.
    Open(Instant),
}

impl Breaker {
    /// Closed. The first wait is up to `wait_min`, the longest up to `wait_max`.
    pub fn new(wait_min: Duration, wait_max: Duration) -> Self {
        Self {
            wait_min,
            wait_max,
            failures: 0,
            state: Circuit::Closed,
        }
    }

    /// How it stands.
    pub fn circuit(&self) -> Circuit {
        self.state
    }

    /// From when on something may be tried; none: now.
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            Circuit::Closed => None,
            Circuit::Retrying(until) | Circuit::Open(until) => Some(until),
        }
    }

    /// An attempt went well.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.state = Circuit::Closed;
    }

    /// An attempt failed. `asked`: the receiver wants to be left alone for so long, which counts even
    /// if it is longer than the longest wait. `chance` is a random number.
    ///
    /// The wait is drawn evenly from zero to a bound that doubles with each failure: so senders that
    /// failed together do not come back together. An open circuit waits half of it at least, which is
    /// what gives a receiver its rest.
    pub fn failed(&mut self, now: Instant, asked: Option<Duration>, chance: u64) {
        self.failures = self.failures.saturating_add(1);
        let open = self.failures >= FAILURES_MAX;
        let bound = if open {
            self.wait_max
        } else {
            let factor = 1 << (self.failures - 1);
            self.wait_min.saturating_mul(factor).min(self.wait_max)
        };
        let mut wait = part_of(bound, chance);
        if open {
            wait = bound / 2 + wait / 2;
        }
        let until = now + wait.max(asked.unwrap_or_default());
        self.state = match open {
            true => Circuit::Open(until),
            false => Circuit::Retrying(until),
        };
    }

    /// There is no use in trying soon: opens the circuit, however few failures there were.
    pub fn gone(&mut self, now: Instant, asked: Option<Duration>, chance: u64) {
        self.failures = self.failures.max(FAILURES_MAX);
        self.failed(now, asked, chance);
    }
}

/// An even part of `whole`, by a random number.
fn part_of(whole: Duration, chance: u64) -> Duration {
    let ns = ((whole.as_nanos() + 1) * u128::from(chance)) >> 64;
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);

    fn waits(breaker: &Breaker, now: Instant) -> Duration {
        breaker.until().expect("it failed") - now
    }

    #[test]
    fn waits_grow_to_a_bound_and_then_the_circuit_opens() {
        let now = Instant::now();
        let mut longest = Breaker::new(MIN, MAX);
        let mut shortest = longest.clone();
        for n in 0..FAILURES_MAX - 1 {
            longest.failed(now, None, u64::MAX);
            shortest.failed(now, None, 0);
            assert_eq!(waits(&longest, now), MIN * (1 << n));
            assert_eq!(waits(&shortest, now), Duration::ZERO);
            assert!(matches!(longest.circuit(), Circuit::Retrying(_)));
        }
        for _ in 0..100 {
            longest.failed(now, None, u64::MAX);
            shortest.failed(now, None, 0);
            assert_eq!(waits(&longest, now), MAX);
            assert_eq!(waits(&shortest, now), MAX / 2, "a rest");
            assert!(matches!(longest.circuit(), Circuit::Open(_)));
        }
        longest.succeeded();
        assert_eq!(longest, Breaker::new(MIN, MAX));
    }

    #[test]
    fn what_a_receiver_asks_for_counts() {
        let now = Instant::now();
        let mut breaker = Breaker::new(MIN, MAX);
        breaker.failed(now, Some(2 * MAX), 0);
        assert_eq!(waits(&breaker, now), 2 * MAX);
        breaker.failed(now, Some(Duration::ZERO), u64::MAX);
        assert_eq!(waits(&breaker, now), 2 * MIN, "but never less than ours");
    }

    #[test]
    fn an_endpoint_that_is_gone_is_only_probed() {
        let now = Instant::now();
        let mut breaker = Breaker::new(MIN, MAX);
        breaker.gone(now, None, u64::MAX);
        assert_eq!(breaker.circuit(), Circuit::Open(now + MAX));
    }

    #[test]
    fn waits_cannot_overflow() {
        let now = Instant::now();
        let mut breaker = Breaker::new(MAX, MAX);
        for _ in 0..50 {
            breaker.failed(now, None, u64::MAX);
            assert!(waits(&breaker, now) <= MAX);
        }
    }
}
