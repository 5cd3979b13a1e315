//! When each call is due.
//!
//! Open loop: fixed before the first call is sent, and untouched by how fast answers come. A
//! closed loop, which sends the next call when the last one is answered, slows down together with
//! the server and so leaves out just the calls that would have waited.

use std::time::Duration;

use crate::random::Random;

/// Highest rate, in calls per second: beyond it, a call's slot would be shorter than it takes to
/// send it.
pub const RATE_MAX: u64 = 1_000_000;
/// Longest run, in seconds.
pub const SECONDS_MAX: u64 = 86_400;

const STREAM: u128 = 0x0005_C4ED;
const SECOND_NS: u128 = 1_000_000_000;

/// Yields the time from the start at which each call is due, in order.
///
/// Each call has a slot of 1 / rate, and is due at a random time within it: the rate is exact over
/// any whole number of slots, and calls do not fall into step with a timer or a collection of
/// either side, which an even spacing might always meet or always miss.
#[derive(Debug, Clone)]
pub struct Schedule {
    rate: u64,
    calls: u64,
    next: u64,
    random: Random,
}

impl Schedule {
    /// `rate` calls in each of `seconds` seconds; both are at least 1 and at most [`RATE_MAX`] and
    /// [`SECONDS_MAX`].
    pub fn new(rate: u64, seconds: u64, seed: u64) -> Self {
        assert!((1..=RATE_MAX).contains(&rate), "rate {rate}");
        assert!((1..=SECONDS_MAX).contains(&seconds), "seconds {seconds}");
        Self {
            rate,
            calls: rate * seconds,
            next: 0,
            random: Random::new(seed, STREAM),
        }
    }

    /// Calls that are still to come.
    pub fn calls(&self) -> u64 {
        self.calls - self.next
    }

    /// Length of the whole schedule, in seconds.
    pub fn seconds(&self) -> u64 {
        self.calls / self.rate
    }

    /// Where the slot of the n-th call begins. From `n` and not from the slot before, so that
    /// roundings do not add up.
    fn slot_ns(&self, n: u64) -> u64 {
        // Within `SECONDS_MAX`, so it fits.
        (u128::from(n) * SECOND_NS / u128::from(self.rate)) as u64
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.next == self.calls {
            return None;
        }
        let from_ns = self.slot_ns(self.next);
        let to_ns = self.slot_ns(self.next + 1);
        self.next += 1;
        Some(Duration::from_nanos(
            from_ns + self.random.below(to_ns - from_ns),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_exactly_its_calls() {
        for rate in [1, 3, 7, 1_000, 99_991] {
            let mut by_second = [0_u64; 5];
            for due in Schedule::new(rate, 5, 42) {
                // A panic beyond the end is a failed test.
                by_second[due.as_secs() as usize] += 1;
            }
            assert_eq!(by_second, [rate; 5], "rate {rate}");
        }
    }

    #[test]
    fn each_call_is_due_within_its_slot_and_in_order() {
        let rate = 333;
        let mut before = Duration::ZERO;
        for (n, due) in Schedule::new(rate, 9, 1).enumerate() {
            let n = n as u128;
            let from_ns = n * SECOND_NS / u128::from(rate);
            let to_ns = (n + 1) * SECOND_NS / u128::from(rate);
            assert!((from_ns..to_ns).contains(&due.as_nanos()), "call {n}");
            assert!(due >= before);
            before = due;
        }
    }

    #[test]
    fn equal_seeds_are_equal_and_others_are_not() {
        let one: Vec<_> = Schedule::new(500, 2, 9).collect();
        assert_eq!(one, Schedule::new(500, 2, 9).collect::<Vec<_>>());
        assert_ne!(one, Schedule::new(500, 2, 10).collect::<Vec<_>>());
    }

    #[test]
    fn a_seed_gives_the_same_times_in_every_version() {
        let first: Vec<u128> = Schedule::new(1_000, 1, 1)
            .take(3)
            .map(|due| due.as_nanos())
            .collect();
        // As computed from the generator's publication, apart from this code.
        assert_eq!(first, [199_574, 1_682_077, 2_931_035]);
    }

    #[test]
    fn it_says_what_is_left() {
        let mut schedule = Schedule::new(10, 3, 1);
        assert_eq!(schedule.calls(), 30);
        schedule.next();
        assert_eq!(schedule.calls(), 29);
        assert_eq!(schedule.by_ref().count(), 29);
        assert_eq!(schedule.calls(), 0);
    }
}
