//! What stores sell over the counter, and what arrives.

use super::{Op, shopping::draw};
use crate::{
    catalogue::Catalogue,
    random::Random,
    scenario::{self, Scenario},
    zipf::Zipf,
};

const STREAM: u128 = 0x0057_0C8A;
/// What arrives at a store whose shelf is planned to be empty, in units.
const REFILL_UNITS: u32 = 50;

/// A movement of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The SKU.
    pub sku: u32,
    /// Slot of its location.
    pub slot: u32,
    /// Units, at least 1.
    pub units: u32,
    /// What happened.
    pub change: Change,
}

/// What happened to a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Came in.
    Received,
    /// Went over the counter.
    Sold,
}

/// Draws movements. Only stores sell over the counter, and only what they have by plan; online
/// channels sell from centres, where nothing but orders takes units away. So whatever the order in
/// which movements arrive, a promise or a balance below zero at the end is the server's doing.
#[derive(Debug)]
pub(super) struct Stock {
    config: scenario::Movements,
    popularity: Zipf,
    random: Random,
    centres: u32,
    stores: u32,
    /// Units on the shelves by plan, by SKU and store.
    shelves: Vec<u32>,
    moved: u64,
}

impl Stock {
    pub(super) fn new(scenario: &Scenario, catalogue: &Catalogue, seed: u64) -> Self {
        let stores = catalogue.width() - catalogue.centres();
        // Checked with the scenario: at most a million.
        let opening = scenario.catalogue.store_units as u32;
        Self {
            config: scenario.movements.clone(),
            popularity: Zipf::new(catalogue.skus() as usize, scenario.shopping.zipf),
            random: Random::new(seed, STREAM),
            centres: catalogue.centres(),
            stores,
            shelves: vec![opening; (catalogue.skus() * stores) as usize],
            moved: 0,
        }
    }

    /// The next message.
    pub(super) fn draw(&mut self) -> Op {
        let moves: Vec<Move> = (0..self.config.batch).map(|_| self.draw_one()).collect();
        let first = self.moved;
        self.moved += moves.len() as u64;
        Op::Move { first, moves }
    }

    fn draw_one(&mut self) -> Move {
        let random = &mut self.random;
        let sku = self.popularity.draw(random) as u32;
        let units = draw(random, self.config.units);
        let sold = random.below(100) < u64::from(self.config.sold_percent);
        if sold && self.stores > 0 {
            let store = random.below(u64::from(self.stores)) as u32;
            let shelf = &mut self.shelves[(sku * self.stores + store) as usize];
            let slot = self.centres + store;
            if *shelf >= units {
                *shelf -= units;
                return Move {
                    sku,
                    slot,
                    units,
                    change: Change::Sold,
                };
            }
            *shelf += REFILL_UNITS.max(units);
            return Move {
                sku,
                slot,
                units: REFILL_UNITS.max(units),
                change: Change::Received,
            };
        }
        Move {
            sku,
            slot: random.below(u64::from(self.centres)) as u32,
            units,
            change: Change::Received,
        }
    }
}
