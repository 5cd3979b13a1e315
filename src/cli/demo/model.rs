//! What the generator works on: the plan, stock, order lines, and things at a time.

use crate::domain::movement::TimeUs;

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Another seed, another retailer.
    pub seed: u64,
    /// No movement occurs after this.
    pub now_us: TimeUs,
    /// Articles.
    pub skus: usize,
    /// Sales, orders, damages and corrections, in all.
    pub events: u64,
    /// Articles in one store that are sold at the counter after they were promised online.
    pub oversold: usize,
}

impl Plan {
    /// The retailer at a size, in thousandths: 1,000 is 20,000 articles and some 600,000 movements.
    pub fn new(seed: u64, scale_milli: u64, now_us: TimeUs) -> Self {
        let scaled = |full: u64| full * scale_milli / 1_000;
        Self {
            seed,
            now_us,
            // Bounded by the command line's range.
            skus: scaled(20_000).max(200) as usize,
            events: scaled(205_000).max(1_000),
            oversold: scaled(12).max(3) as usize,
        }
    }

    /// Movements to expect, repeats included; for a progress bar.
    pub fn movements_estimate(&self) -> u64 {
        let stocked = self.skus as u64 * 39 / 4;
        stocked + self.events * 188 / 100
    }
}

/// Stock of one article at one location, as the retailer itself knows it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cell {
    pub(super) carried: bool,
    pub(super) good: u32,
    /// Promised, not shipped.
    pub(super) reserved: u32,
    /// Of these, taken from the shelf: nobody else can sell it.
    pub(super) picked: u32,
}

impl Cell {
    pub(super) fn free(&self) -> u32 {
        self.good.saturating_sub(self.reserved)
    }
}

/// A line of an online order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) channel: &'static str,
    pub(super) order: u64,
    pub(super) line: u8,
    pub(super) sku: usize,
    pub(super) location: usize,
    pub(super) quantity: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Pick(Line),
    Pack(Line),
    Ship(Line),
    Release(Line),
    Reassign(Line),
    Replenish { sku: usize, location: usize },
    Scrap { sku: usize, location: usize },
    Oversell(usize),
}

/// Something at a time; of equal times the first planned comes first.
#[derive(Debug)]
pub(super) struct At<T> {
    pub(super) time_us: TimeUs,
    pub(super) number: u64,
    pub(super) what: T,
}

impl<T> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.time_us, self.number) == (other.time_us, other.number)
    }
}

impl<T> Eq for At<T> {}

impl<T> PartialOrd for At<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for At<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time_us, self.number).cmp(&(other.time_us, other.number))
    }
}
