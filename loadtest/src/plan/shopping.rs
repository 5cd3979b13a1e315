//! What people look at, and what they put into their carts.

use std::time::Duration;

use super::Op;
use crate::{
    orders::{Fate, OrderNumber},
    random::Random,
    scenario::{self, Scenario, Span},
    zipf::Zipf,
};

/// How often a SKU that is in the list already is drawn anew before its neighbor is taken.
const REDRAWS_MAX: u32 = 16;
const QUERY_STREAM: u128 = 0x0A11;
const CART_STREAM: u128 = 0x0CA7;

/// A cart that is to be reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart {
    /// Its number.
    pub order: OrderNumber,
    /// Number of the channel.
    pub channel: usize,
    /// Different SKUs.
    pub lines: Vec<CartLine>,
    /// What becomes of it, if it is granted.
    pub fate: Fate,
}

/// A line of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CartLine {
    /// The SKU.
    pub sku: u32,
    /// Units, at least 1.
    pub units: u32,
}

/// Draws queries and carts. Each from numbers of its own, so that more queries do not change the
/// carts.
#[derive(Debug)]
pub(super) struct Shopping {
    config: scenario::Shopping,
    channels: u64,
    popularity: Zipf,
    skus: u32,
    looks: Random,
    buys: Random,
    orders: OrderNumber,
}

impl Shopping {
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let config = scenario.shopping.clone();
        Self {
            popularity: Zipf::new(scenario.catalogue.skus as usize, config.zipf),
            channels: scenario.catalogue.channels.len() as u64,
            skus: scenario.catalogue.skus,
            looks: Random::new(seed, QUERY_STREAM),
            buys: Random::new(seed, CART_STREAM),
            orders: 0,
            config,
        }
    }

    pub(super) fn query(&mut self) -> Op {
        let count = draw(&mut self.looks, self.config.skus_per_query);
        Op::Query {
            channel: self.looks.below(self.channels) as usize,
            skus: different(&self.popularity, self.skus, count, &mut self.looks),
        }
    }

    pub(super) fn cart(&mut self) -> Cart {
        let random = &mut self.buys;
        let lines = self.config.cart_lines;
        // The smaller of two draws: most carts are small, and some are as large as they get.
        let count = draw(random, lines).min(draw(random, lines));
        let channel = random.below(self.channels) as usize;
        let lines = different(&self.popularity, self.skus, count, random)
            .into_iter()
            .map(|sku| CartLine {
                sku,
                units: draw(random, self.config.units_per_line),
            })
            .collect();
        let percent = random.below(100) as u32;
        let shipped = (random.below(100) as u32) < self.config.ship_percent;
        let fate = if percent < self.config.confirm_percent {
            if shipped {
                Fate::Shipped
            } else {
                Fate::Ordered
            }
        } else if percent < self.config.confirm_percent + self.config.release_percent {
            Fate::Released
        } else {
            Fate::Left
        };
        self.orders += 1;
        Cart {
            order: self.orders - 1,
            channel,
            lines,
            fate,
        }
    }

    pub(super) fn think(&mut self) -> Duration {
        let ms = draw(&mut self.buys, self.config.think_ms);
        Duration::from_millis(u64::from(ms))
    }

    pub(super) fn pack(&mut self) -> Duration {
        let ms = draw(&mut self.buys, self.config.pack_ms);
        Duration::from_millis(u64::from(ms))
    }
}

/// From a range, all alike.
pub(super) fn draw(random: &mut Random, span: Span) -> u32 {
    // Below the width of the range, so it fits.
    span.from + random.below(u64::from(span.to - span.from) + 1) as u32
}

/// Different SKUs by their popularity.
fn different(popularity: &Zipf, skus: u32, count: u32, random: &mut Random) -> Vec<u32> {
    let mut drawn: Vec<u32> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut sku = popularity.draw(random) as u32;
        for _ in 0..REDRAWS_MAX {
            if !drawn.contains(&sku) {
                break;
            }
            sku = popularity.draw(random) as u32;
        }
        while drawn.contains(&sku) {
            sku = (sku + 1) % skus;
        }
        drawn.push(sku);
    }
    drawn
}
