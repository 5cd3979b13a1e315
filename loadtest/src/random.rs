//! Random numbers that stay the same for a seed, on every machine and in every version.

use rand_pcg::{Pcg64, rand_core::RngCore};

/// A PCG XSL RR 128/64 generator: its output is fixed by its publication, and only its raw
/// numbers are used.
#[derive(Debug, Clone)]
pub struct Random(Pcg64);

impl Random {
    /// Equal seeds of different streams yield unrelated numbers, so that what is asked does not
    /// depend on when it is asked.
    pub fn new(seed: u64, stream: u128) -> Self {
        Self(Pcg64::new(u128::from(seed), stream))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 to `bound - 1`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a wide product; its bias is below 2^-32 for the bounds used here.
        let wide = u128::from(self.number()) * u128::from(bound);
        (wide >> 64) as u64
    }
}
