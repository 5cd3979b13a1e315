//! What is free of each cell, step by step in the log's order.
//!
//! Balances at the end do not show a promise that was too large when it was made, if stock came in
//! later. Every acknowledgement tells its position in the log, so that the run can be gone through
//! again in the order in which the server decided.

/// Something that changed what is free of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Position in the log; 0: unknown.
    pub position: u64,
    /// The cell.
    pub cell: u32,
    /// Units: more are free (positive), or fewer.
    pub free: i32,
}

/// A cell of which less than nothing was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// The cell.
    pub cell: usize,
    /// Position in the log after which it was so, first.
    pub position: u64,
    /// What was free then.
    pub free: i64,
}

/// Entries up to a number; beyond it the history is incomplete, and says so.
#[derive(Debug)]
pub struct History {
    entries: Vec<Entry>,
    max: usize,
    complete: bool,
}

impl History {
    /// Of at most so many entries, 16 bytes each.
    pub fn new(max: usize) -> Self {
        Self {
            entries: Vec::new(),
            max,
            complete: true,
        }
    }

    /// One more.
    pub fn add(&mut self, entry: Entry) {
        if self.entries.len() == self.max {
            self.complete = false;
        } else {
            self.entries.push(entry);
        }
    }

    /// Goes through it in the log's order. Gives how many entries were gone through, every cell
    /// of which less than nothing was free at some position, and whether the history is complete;
    /// if it is not, no cell can be told, since what would have come in may be missing.
    ///
    /// Entries of one position are taken together, those that free units first: their order within
    /// a record of the log is not told. What has no position counts from the beginning if it came
    /// in. Either can hide a shortfall, and neither raises a false one.
    pub fn shortfalls(&mut self, opening: impl Fn(usize) -> i64) -> (u64, Vec<Shortfall>, bool) {
        if !self.complete {
            return (0, Vec::new(), false);
        }
        self.entries
            .sort_unstable_by_key(|entry| (entry.cell, entry.position, -entry.free));
        let mut found = Vec::new();
        for entries in self.entries.chunk_by(|one, next| one.cell == next.cell) {
            let cell = entries[0].cell as usize;
            let mut free = opening(cell);
            let unknown_out = |entry: &&Entry| entry.position > 0 || entry.free > 0;
            for entry in entries.iter().filter(unknown_out) {
                free += i64::from(entry.free);
                if free < 0 {
                    found.push(Shortfall {
                        cell,
                        position: entry.position,
                        free,
                    });
                    break;
                }
            }
        }
        (self.entries.len() as u64, found, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(u64, u32, i32)]) -> History {
        let mut history = History::new(100);
        for (position, cell, free) in entries {
            history.add(Entry {
                position: *position,
                cell: *cell,
                free: *free,
            });
        }
        history
    }

    #[test]
    fn a_promise_that_was_too_large_is_found_although_stock_came_later() {
        let mut history = history(&[(9, 1, 100), (7, 1, -4), (8, 1, -4), (8, 2, -5)]);
        let (entries, found, complete) = history.shortfalls(|_| 5);
        assert!(complete);
        assert_eq!(entries, 4);
        let expected = Shortfall {
            cell: 1,
            position: 8,
            free: -3,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn within_a_record_what_frees_units_comes_first() {
        assert!(
            history(&[(7, 0, -5), (7, 0, 5)])
                .shortfalls(|_| 0)
                .1
                .is_empty()
        );
        assert!(
            history(&[(0, 0, 5), (3, 0, -5), (0, 0, -1)])
                .shortfalls(|_| 0)
                .1
                .is_empty()
        );
    }

    #[test]
    fn an_incomplete_history_tells_nothing() {
        let mut history = History::new(1);
        for position in 1..3 {
            history.add(Entry {
                position,
                cell: 0,
                free: -1,
            });
        }
        assert_eq!(history.shortfalls(|_| 0), (0, Vec::new(), false));
    }
}
