//! How popular each of many is.

use crate::random::Random;

/// Steepest popularity: beyond it, one would be nearly all.
pub const EXPONENT_MAX: f64 = 5.0;
/// Most ranks.
pub const RANKS_MAX: usize = 10_000_000;

const _: () = assert!(RANKS_MAX < u32::MAX as usize);

/// Draws ranks by Zipf's law: rank r (from 1) has a weight of 1 / r^exponent.
///
/// An alias table (Vose): a draw takes two numbers and one look, however many ranks there are, so
/// that drawing stays small beside sending.
#[derive(Debug)]
pub struct Zipf {
    /// By column: below which number the column itself is taken, else its alias.
    columns: Vec<(u64, u32)>,
}

impl Zipf {
    /// For `count` ranks, at least one and at most [`RANKS_MAX`]. An exponent of 0 draws all alike.
    pub fn new(count: usize, exponent: f64) -> Self {
        assert!((1..=RANKS_MAX).contains(&count), "{count} ranks");
        let mut weights: Vec<f64> = (1..=count).map(|r| (r as f64).powf(-exponent)).collect();
        let mean = weights.iter().sum::<f64>() / count as f64;
        for weight in &mut weights {
            *weight /= mean;
        }
        // A column that roundings leave over has a weight of 1, as near as can be told.
        let mut columns: Vec<(u64, u32)> = (0..count as u32).map(|n| (u64::MAX, n)).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..count as u32).partition(|n| weights[*n as usize] < 1.0);
        while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
            let share = weights[low as usize];
            columns[low as usize] = ((share * u64::MAX as f64) as u64, high);
            weights[high as usize] -= 1.0 - share;
            if weights[high as usize] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self { columns }
    }

    /// A rank, from 0.
    pub fn draw(&self, random: &mut Random) -> usize {
        let column = random.below(self.columns.len() as u64) as usize;
        let (own_below, alias) = self.columns[column];
        if random.number() < own_below {
            column
        } else {
            alias as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(count: usize, exponent: f64, draws: usize) -> Vec<usize> {
        let zipf = Zipf::new(count, exponent);
        let mut random = Random::new(7, 0x0A5C);
        let mut counts = vec![0; count];
        for _ in 0..draws {
            counts[zipf.draw(&mut random)] += 1;
        }
        counts
    }

    /// Within five standard deviations, which a fixed seed either is or is not.
    fn assert_near(count: usize, expected: f64) {
        let off = (count as f64 - expected).abs();
        assert!(
            off < 5.0 * expected.sqrt(),
            "{count}, expected {expected:.0}"
        );
    }

    #[test]
    fn every_rank_is_drawn_as_often_as_its_weight_says() {
        let draws = 400_000;
        for exponent in [0.0, 0.5, 1.0, 1.5] {
            let weights: Vec<f64> = (1..=50).map(|r| f64::from(r).powf(-exponent)).collect();
            let sum: f64 = weights.iter().sum();
            for (count, weight) in drawn(50, exponent, draws).into_iter().zip(&weights) {
                assert_near(count, draws as f64 * weight / sum);
            }
        }
    }

    #[test]
    fn one_rank_is_always_drawn() {
        assert_eq!(drawn(1, 1.0, 100), [100]);
    }
}
