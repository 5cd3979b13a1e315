//! When each call of one kind is due, over phases whose rates may rise and fall.

use std::time::Duration;

use crate::{random::Random, scenario::Rate};

/// Yields the time from the start at which each call is due, in order.
///
/// As in [`crate::schedule`], each call has a slot and is due at a random time within it. In a
/// phase in which the rate rises, slots get shorter.
#[derive(Debug, Clone)]
pub struct Ramps {
    phases: Vec<Phase>,
    at: usize,
    next: u64,
    random: Random,
}

#[derive(Debug, Clone)]
struct Phase {
    begin: f64,
    seconds: f64,
    rate: Rate,
    calls: u64,
}

impl Ramps {
    /// For phases of so many seconds with these rates.
    pub fn new(phases: &[(u32, Rate)], random: Random) -> Self {
        let mut begin = 0.0;
        let phases = phases
            .iter()
            .map(|(seconds, rate)| {
                let seconds = f64::from(*seconds);
                let phase = Phase {
                    begin,
                    seconds,
                    rate: *rate,
                    // Rates are at most a million, so it fits.
                    calls: ((rate.from + rate.to) / 2.0 * seconds).round() as u64,
                };
                begin += seconds;
                phase
            })
            .collect();
        Self {
            phases,
            at: 0,
            next: 0,
            random,
        }
    }

    /// Calls in all.
    pub fn calls(&self) -> u64 {
        self.phases.iter().map(|phase| phase.calls).sum()
    }
}

impl Phase {
    /// Where the slot of the n-th call begins: when so many calls are due by the rate. Scaled so
    /// that the last slot ends with the phase, although the number of calls is rounded.
    fn slot(&self, n: u64) -> f64 {
        let Rate { from, to } = self.rate;
        let due = n as f64 / self.calls as f64 * (from + to) / 2.0 * self.seconds;
        let growth = (to - from) / self.seconds;
        let after = if growth == 0.0 {
            due / from
        } else {
            // The calls due by t are from·t + growth·t²/2.
            let root = (from * from + 2.0 * growth * due).max(0.0).sqrt();
            2.0 * due / (from + root)
        };
        // Of no calls at the very start of a ramp from 0, the quotient is none.
        self.begin + if after.is_finite() { after } else { 0.0 }
    }
}

impl Iterator for Ramps {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        while self.next == self.phases.get(self.at)?.calls {
            self.at += 1;
            self.next = 0;
        }
        let phase = &self.phases[self.at];
        let (from, to) = (phase.slot(self.next), phase.slot(self.next + 1));
        self.next += 1;
        let from_ns = (from * 1e9) as u64;
        let to_ns = (to * 1e9) as u64;
        let within = self.random.below(to_ns.saturating_sub(from_ns));
        Some(Duration::from_nanos(from_ns + within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(phases: &[(u32, Rate)]) -> Vec<f64> {
        let ramps = Ramps::new(phases, Random::new(1, 1));
        let calls = ramps.calls();
        let due: Vec<f64> = ramps.map(|due| due.as_secs_f64()).collect();
        assert_eq!(due.len() as u64, calls);
        assert!(due.is_sorted());
        due
    }

    fn between(due: &[f64], from: f64, to: f64) -> usize {
        due.iter().filter(|at| (from..to).contains(*at)).count()
    }

    #[test]
    fn a_constant_rate_is_exact_in_every_second() {
        let due = due(&[(3, Rate::constant(100.0)), (2, Rate::constant(40.0))]);
        for second in 0..3 {
            let from = f64::from(second);
            assert_eq!(between(&due, from, from + 1.0), 100);
        }
        assert_eq!(between(&due, 3.0, 5.0), 80);
    }

    #[test]
    fn a_ramp_rises_evenly_from_nothing_and_falls_to_it() {
        let up = Rate {
            from: 0.0,
            to: 100.0,
        };
        let down = Rate {
            from: 100.0,
            to: 0.0,
        };
        let due = due(&[(10, up), (10, down)]);
        assert_eq!(due.len(), 1_000);
        // Half of the time has a quarter of the calls.
        assert_eq!(between(&due, 0.0, 5.0), 125);
        assert_eq!(between(&due, 5.0, 15.0), 750);
        assert!(due.last().is_some_and(|last| *last < 20.0));
    }

    #[test]
    fn phases_without_calls_are_passed_over() {
        let none = (7, Rate::default());
        let due = due(&[none, (1, Rate::constant(3.0)), none]);
        assert_eq!(between(&due, 7.0, 8.0), 3);
        assert_eq!(Ramps::new(&[none], Random::new(1, 1)).next(), None);
    }
}
