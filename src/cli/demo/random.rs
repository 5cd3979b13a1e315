//! Random numbers that stay the same for a seed, on every machine and in every version.

use rand_pcg::{Pcg64, rand_core::RngCore};

/// A PCG XSL RR 128/64 generator: its output is fixed by its publication. Only the raw numbers
/// are taken from the library; how they become choices is decided here, in integers, so that
/// neither an update nor a platform's rounding changes the generated retailer.
#[derive(Debug, Clone)]
pub struct Random(Pcg64);

impl Random {
    /// One stream for each seed.
    pub fn new(seed: u64) -> Self {
        Self(Pcg64::new(u128::from(seed), 0x5E11_AB1E))
    }

    /// From 0 to `bound - 1`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a wide product; its bias is below 2^-32 for the bounds used here.
        let wide = u128::from(self.0.next_u64()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// An index below `bound`.
    pub fn index(&mut self, bound: usize) -> usize {
        // Below `bound`, so it fits.
        self.below(bound as u64) as usize
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `per_mille` times of a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

/// Zipf demand over ranks: few articles sell much, most sell little.
#[derive(Debug)]
pub struct Zipf {
    cumulative: Vec<u64>,
}

impl Zipf {
    /// For ranks 0 to `count - 1`, each with weight 1 / (rank + 20).
    pub fn new(count: usize) -> Self {
        let mut sum = 0;
        let cumulative = (0..count as u64)
            .map(|rank| {
                sum += 1_000_000_000 / (rank + 20);
                sum
            })
            .collect();
        Self { cumulative }
    }

    /// A rank.
    pub fn sample(&self, random: &mut Random) -> usize {
        let at = random.below(self.cumulative.last().copied().unwrap_or(0));
        self.cumulative.partition_point(|sum| *sum <= at)
    }
}
