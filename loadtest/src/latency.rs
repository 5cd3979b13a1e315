//! Latencies and their percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart, in nanoseconds: an hour.
pub const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Latencies are kept to three digits.
const DIGITS: u8 = 3;
/// Points of a curve for each halving of what is left above it.
const TICKS_PER_HALVING: u32 = 4;

/// Latencies, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS);
        Self(histogram.expect("the bounds are constants that it takes"))
    }
}

impl Latencies {
    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX);
        self.0.saturating_record(ns);
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("all histograms have the same bounds");
    }

    /// The whole distribution: quantile (0 to 1) and latency in milliseconds, denser towards its
    /// end, up to what so many latencies can tell.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let told = 1.0 - 1.0 / self.0.len().max(1) as f64;
        let steps = self.0.iter_quantiles(TICKS_PER_HALVING);
        steps
            .map(|step| (step.quantile_iterated_to(), step.value_iterated_to()))
            .take_while(|(quantile, _)| *quantile <= told)
            .map(|(quantile, ns)| (quantile, ns as f64 / 1e6))
            .collect()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles that so many latencies can tell.
    pub fn percentiles(&self) -> Percentiles {
        // One in a thousand is an estimate only if there are a thousand; with fewer, the number
        // would be the maximum under another name.
        let at = |quantile: f64, one_in: u64| {
            (self.0.len() >= one_in).then(|| self.0.value_at_quantile(quantile))
        };
        Percentiles {
            p50: at(0.5, 2),
            p90: at(0.9, 10),
            p99: at(0.99, 100),
            p99_9: at(0.999, 1_000),
            p99_99: at(0.9999, 10_000),
            max: at(1.0, 1),
        }
    }
}

/// Percentiles in nanoseconds; one is absent if there are too few values to tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: Option<u64>,
    /// All but one in 10.
    pub p90: Option<u64>,
    /// All but one in 100.
    pub p99: Option<u64>,
    /// All but one in 1,000.
    pub p99_9: Option<u64>,
    /// All but one in 10,000.
    pub p99_99: Option<u64>,
    /// The greatest.
    pub max: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(ns: Option<u64>, expected: u64) {
        let ns = ns.expect("there are enough");
        assert!(
            ns.abs_diff(expected) * 1_000 <= expected,
            "{ns}, expected {expected}"
        );
    }

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut latencies = Latencies::default();
        for n in 1..=10_000 {
            latencies.record(Duration::from_micros(n));
        }
        let found = latencies.percentiles();
        assert_near(found.p50, 5_000_000);
        assert_near(found.p90, 9_000_000);
        assert_near(found.p99, 9_900_000);
        assert_near(found.p99_9, 9_990_000);
        assert_near(found.p99_99, 9_999_000);
        assert_near(found.max, 10_000_000);
    }

    #[test]
    fn a_percentile_that_cannot_be_told_is_not_told() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles().max, None);
        for _ in 0..999 {
            latencies.record(Duration::from_millis(1));
        }
        let found = latencies.percentiles();
        assert!(found.p99.is_some() && found.max.is_some());
        assert_eq!((found.p99_9, found.p99_99), (None, None));
        latencies.record(Duration::from_millis(1));
        assert!(latencies.percentiles().p99_9.is_some());
    }

    #[test]
    fn latencies_beyond_the_scale_count_as_its_end() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(90_000));
        latencies.record(Duration::ZERO);
        assert_near(latencies.percentiles().max, LATENCY_NS_MAX);
    }
}
