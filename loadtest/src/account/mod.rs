//! The generator's own books: what every acknowledged call has to have done.

mod history;

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use crate::catalogue::PROBE_SKUS;
pub use history::{Entry, History, Shortfall};

/// Books of every cell of a run, and of every probe.
#[derive(Debug)]
pub struct Account {
    cells: Vec<Cell>,
    history: Mutex<History>,
    granted_units: AtomicU64,
    returned_units: AtomicU64,
    /// By probe SKU: units acknowledged, the opening one included.
    probes: Vec<AtomicI64>,
}

/// Balances of one cell, in units.
#[derive(Debug, Default)]
struct Cell {
    good: AtomicI64,
    reserved: AtomicI64,
    touched: AtomicBool,
}

/// Balances of one cell as they have to be, in units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// On the shelf, what is reserved included.
    pub good: i64,
    /// Promised, not shipped.
    pub reserved: i64,
}

impl Account {
    /// Empty books of so many cells, of which a history of at most so many entries is kept.
    pub fn new(cells: usize, history_max: usize) -> Self {
        Self {
            cells: (0..cells).map(|_| Cell::default()).collect(),
            history: Mutex::new(History::new(history_max)),
            granted_units: AtomicU64::new(0),
            returned_units: AtomicU64::new(0),
            probes: (0..PROBE_SKUS).map(|_| AtomicI64::new(1)).collect(),
        }
    }

    /// The opening stock of a cell.
    pub fn open(&self, cell: usize, units: i64) {
        self.cells[cell].good.fetch_add(units, Ordering::Relaxed);
    }

    /// Units came in (positive) or went (negative), at this position of the log; 0: unknown.
    pub fn move_good(&self, cell: usize, units: i64, position: u64) {
        let books = self.touch(cell);
        books.good.fetch_add(units, Ordering::Relaxed);
        self.remember(cell, units, position);
    }

    /// The same of a store's shelf, whose history is not followed.
    pub fn move_shelf(&self, cell: usize, units: i64) {
        self.touch(cell).good.fetch_add(units, Ordering::Relaxed);
    }

    /// A probe was acknowledged: gives the units that its SKU has to show from now on.
    pub fn count_probe(&self, number: u64) -> i64 {
        let sku = (number % u64::from(PROBE_SKUS)) as usize;
        self.probes[sku].fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Units were promised (positive) or given back (negative).
    pub fn move_reserved(&self, cell: usize, units: i64, position: u64) {
        let books = self.touch(cell);
        books.reserved.fetch_add(units, Ordering::Relaxed);
        let count = match units > 0 {
            true => &self.granted_units,
            false => &self.returned_units,
        };
        count.fetch_add(units.unsigned_abs(), Ordering::Relaxed);
        self.remember(cell, -units, position);
    }

    /// Units were promised to a cart that is left to expire: when, nobody tells, so its place in
    /// the history is left out, which hides no other shortfall and raises no false one.
    pub fn hold_for_a_while(&self, cell: usize, units: i64) {
        let books = self.touch(cell);
        books.reserved.fetch_add(units, Ordering::Relaxed);
        self.granted_units
            .fetch_add(units.unsigned_abs(), Ordering::Relaxed);
    }

    /// Such units are free again.
    pub fn expire(&self, cell: usize, units: i64) {
        self.cells[cell]
            .reserved
            .fetch_sub(units, Ordering::Relaxed);
        self.returned_units
            .fetch_add(units.unsigned_abs(), Ordering::Relaxed);
    }

    /// Promised units left the building: neither reserved nor on the shelf any more, so what is
    /// free stays the same.
    pub fn ship(&self, cell: usize, units: i64) {
        let books = self.touch(cell);
        books.good.fetch_sub(units, Ordering::Relaxed);
        books.reserved.fetch_sub(units, Ordering::Relaxed);
    }

    /// What a cell has to hold.
    pub fn expected(&self, cell: usize) -> Expected {
        let books = &self.cells[cell];
        Expected {
            good: books.good.load(Ordering::Relaxed),
            reserved: books.reserved.load(Ordering::Relaxed),
        }
    }

    /// True if anything but the opening stock happened to it.
    pub fn is_touched(&self, cell: usize) -> bool {
        self.cells[cell].touched.load(Ordering::Relaxed)
    }

    /// Units that were granted to carts, in all.
    pub fn granted_units(&self) -> u64 {
        self.granted_units.load(Ordering::Relaxed)
    }

    /// Of these, units that were released, or that expired.
    pub fn returned_units(&self) -> u64 {
        self.returned_units.load(Ordering::Relaxed)
    }

    /// Goes through the history in the log's order, see [`History::shortfalls`].
    pub fn shortfalls(&self, opening: impl Fn(usize) -> i64) -> (u64, Vec<Shortfall>, bool) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.shortfalls(opening)
    }

    fn touch(&self, cell: usize) -> &Cell {
        let books = &self.cells[cell];
        books.touched.store(true, Ordering::Relaxed);
        books
    }

    fn remember(&self, cell: usize, free: i64, position: u64) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.add(Entry {
            position,
            // Checked with the scenario: at most ten million cells.
            cell: cell as u32,
            free: free as i32,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_follow_every_step_of_an_order() {
        let account = Account::new(2, 100);
        account.open(1, 10);
        assert!(!account.is_touched(1));
        account.move_reserved(1, 4, 5);
        account.ship(1, 3);
        account.move_reserved(1, -1, 6);
        account.move_good(1, 3, 7);
        let expected = Expected {
            good: 10,
            reserved: 0,
        };
        assert_eq!(account.expected(1), expected);
        assert_eq!(account.granted_units(), 4);
        assert!(account.is_touched(1) && !account.is_touched(0));
    }
}
