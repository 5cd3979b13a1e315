//! Recent movements: what `book(T)` is computed from.
//!
//! Every movement with a physical effect is kept for as long as its id is remembered, in the order
//! of arrival. Those of one cell form a chain: each points to the one before, and the cell to its
//! last. Nothing is ever unlinked: what was forgotten lies before the oldest kept, and there a
//! chain ends.

use std::{collections::VecDeque, sync::Arc};

use super::{
    balances::{Account, Balances, Loc},
    keys::{LineKey, SkuHash},
    lifecycle::DISPOSITIONS,
    movement::{Disposition, TimeUs},
    posting::{Effect, Fact, Milestone, Posting},
    prefetch,
};

/// Entries of a page. Whole pages are never changed again, and are forgotten whole.
const PAGE: usize = 4_096;

/// Where an entry is; they are numbered in order of arrival, round and round. 0: nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trail(pub u32);

impl Trail {
    /// The cell has no recent movements.
    pub const NONE: Self = Self(0);
}

/// The physical effect of a movement on one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Physical {
    /// This many units more of an account; negative: less.
    By(Account, i32),
    /// Units from one account to another.
    Within(Account, Account, i32),
    /// Units of a return line were received here.
    Returned(LineKey, i32),
    /// Units of a return line were inspected here.
    Inspected(LineKey, Disposition, i32),
}

impl Physical {
    /// Of a posting, and where; `None` if it has none.
    #[inline]
    pub fn of(posting: &Posting) -> Option<(Loc, Self)> {
        let units = posting.quantity;
        Some(match posting.effect {
            Effect::In { at, to } => (at, Self::By(to, units)),
            Effect::Out { at, from } => (at, Self::By(from, -units)),
            Effect::Within { at, from, to } => (at, Self::Within(from, to, units)),
            Effect::Line { line, milestone } => match milestone {
                Milestone::Shipped(at) | Milestone::Dispatched { from: at, .. } => {
                    (at, Self::By(Account::Good, -units))
                }
                Milestone::Received { at, to } | Milestone::Arrived { at, to } => {
                    (at, Self::By(to, units))
                }
                Milestone::Returned(at) => (at, Self::Returned(line, units)),
                Milestone::Inspected { at, disposition } => {
                    (at, Self::Inspected(line, disposition, units))
                }
                _ => return None,
            },
            Effect::Count { .. } | Effect::None => return None,
        })
    }

    /// The change of the cell. What a return line changes depends on what else is known of it: not
    /// told here.
    #[inline]
    pub fn by(&self) -> Balances {
        match *self {
            Self::By(account, units) => Balances::of(account, i64::from(units)),
            Self::Within(from, to, units) => {
                let mut by = Balances::of(from, -i64::from(units));
                by[to] += i64::from(units);
                by
            }
            Self::Returned(..) | Self::Inspected(..) => Balances::ZERO,
        }
    }
}

/// One entry, as it is kept: 40 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Entry {
    /// Of the second entry of a return: the first half of the line's key.
    occurred_us: TimeUs,
    /// Of the second entry of a return: the second half of the line's key.
    id: u64,
    source: u32,
    /// Half of the SKU's hash, to be sure that a chain stays within its cell.
    sku: u32,
    at: u32,
    before: u32,
    quantity: i32,
    tag: [u8; 4],
}

const _: () = assert!(size_of::<Entry>() == 40);

const BY: u8 = 0;
const WITHIN: u8 = 1;
const RETURNED: u8 = 2;
const INSPECTED: u8 = 3;

/// A recent movement, as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recent {
    /// The movement.
    pub fact: Fact,
    /// What it did.
    pub physical: Physical,
}

/// Entries in order of arrival, and when the last of them arrived.
#[derive(Debug, Clone)]
struct Page {
    entries: Arc<Vec<Entry>>,
    arrived_us: TimeUs,
}

/// The recent movements of a shard.
#[derive(Debug, Default)]
pub struct RecentMovements {
    /// All but the last are full.
    pages: VecDeque<Page>,
    /// Pages forgotten so far.
    forgotten: u64,
}

impl RecentMovements {
    /// How many are kept. A movement of a return line counts twice.
    pub fn len(&self) -> usize {
        let last = self.pages.back().map_or(0, |page| page.entries.len());
        self.pages.len().saturating_sub(1) * PAGE + last
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<Entry>()
    }

    /// Where the next entry will be.
    pub fn next(&mut self, physical: &Physical) -> Trail {
        let places = match physical {
            Physical::By(..) | Physical::Within(..) => 1,
            Physical::Returned(..) | Physical::Inspected(..) => 2,
        };
        let room = self
            .pages
            .back()
            .map_or(0, |page| PAGE - page.entries.len());
        if room < places {
            if let Some(last) = self.pages.back_mut() {
                // A page is full, so that the place of an entry is found by its number alone.
                let blank = Entry {
                    occurred_us: TimeUs::MIN,
                    id: 0,
                    source: 0,
                    sku: 0,
                    at: u32::MAX,
                    before: 0,
                    quantity: 0,
                    tag: [BY, 0, 0, 0],
                };
                Arc::make_mut(&mut last.entries).resize(PAGE, blank);
            }
            self.pages.push_back(Page {
                entries: Arc::new(Vec::with_capacity(PAGE)),
                arrived_us: TimeUs::MIN,
            });
        }
        let last = self.pages.back().expect("there is one").entries.len() as u64;
        self.trail((self.forgotten + self.pages.len() as u64 - 1) * PAGE as u64 + last)
    }

    /// The name of the place `number`, counted from the first entry ever.
    fn trail(&self, number: u64) -> Trail {
        // 0 means none, so one number of a round is left out.
        Trail((number % u64::from(u32::MAX)) as u32 + 1)
    }

    /// Keeps a movement at the place that [`RecentMovements::next`] told. `before` is where the
    /// cell's last one is. The log's time is `now_us`.
    pub fn push(&mut self, sku: SkuHash, at: Loc, recent: &Recent, before: Trail, now_us: TimeUs) {
        let Recent { fact, physical } = *recent;
        let (quantity, tag, line) = match physical {
            Physical::By(account, units) => (units, [BY, account as u8, 0, 0], None),
            Physical::Within(from, to, units) => (units, [WITHIN, from as u8, to as u8, 0], None),
            Physical::Returned(line, units) => (units, [RETURNED, 0, 0, 0], Some(line)),
            Physical::Inspected(line, disposition, units) => {
                (units, [INSPECTED, disposition as u8, 0, 0], Some(line))
            }
        };
        let entry = Entry {
            occurred_us: fact.occurred_us,
            id: fact.id,
            source: fact.source,
            sku: sku.0 as u32,
            at: at.0,
            before: before.0,
            quantity,
            tag,
        };
        let page = self.pages.back_mut().expect("`next` made room");
        page.arrived_us = now_us;
        // Nearly never shared: only while someone looks for a movement, or a checkpoint is taken.
        let entries = Arc::make_mut(&mut page.entries);
        entries.push(entry);
        if let Some(LineKey([first, second])) = line {
            entries.push(Entry {
                occurred_us: first as i64,
                id: second,
                at: u32::MAX,
                ..entry
            });
        }
    }

    /// Forgets what arrived before `before_us`, as far as whole pages did.
    pub fn forget(&mut self, before_us: TimeUs) {
        while let Some(page) = self.pages.front()
            && page.entries.len() == PAGE
            && page.arrived_us < before_us
        {
            self.pages.pop_front();
            self.forgotten += 1;
        }
    }

    /// Brings an entry into the cache.
    pub fn prefetch(&self, trail: Trail) {
        if let Some((page, place)) = self.find(trail) {
            prefetch(&raw const page.entries[place]);
        }
    }

    /// The chain of a cell, the last to arrive first.
    pub fn chain(&self, sku: SkuHash, at: Loc, last: Trail) -> impl Iterator<Item = Recent> {
        let mut next = last;
        std::iter::from_fn(move || {
            let (page, place) = self.find(next)?;
            let entry = &page.entries[place];
            // Of a cell that was not touched for a whole round of numbers, another cell's.
            if (entry.sku, entry.at) != (sku.0 as u32, at.0) {
                return None;
            }
            next = Trail(entry.before);
            Some(told(&page.entries, place))
        })
    }

    #[inline]
    fn find(&self, trail: Trail) -> Option<(&Page, usize)> {
        let number = u64::from(trail.0.checked_sub(1)?);
        let first = self.forgotten * PAGE as u64 % u64::from(u32::MAX);
        let behind = (number + u64::from(u32::MAX) - first) % u64::from(u32::MAX);
        let page = self.pages.get(behind as usize / PAGE)?;
        let place = behind as usize % PAGE;
        (place < page.entries.len()).then_some((page, place))
    }

    /// All of them, to be looked through elsewhere: what is kept from now on is not among them.
    pub fn view(&self) -> RecentView {
        RecentView(
            self.pages
                .iter()
                .map(|page| Arc::clone(&page.entries))
                .collect(),
        )
    }
}

/// Recent movements, as they were.
#[derive(Debug, Clone)]
pub struct RecentView(Vec<Arc<Vec<Entry>>>);

impl RecentView {
    /// When the movement occurred whose key begins so, and which `source` reported. The last to
    /// arrive, if there are several: a person has released a conflicting duplicate.
    pub fn occurred_us(&self, id: u64, source: u32) -> Option<TimeUs> {
        let entries = self.0.iter().rev().flat_map(|page| page.iter().rev());
        entries
            .filter(|entry| entry.at != u32::MAX)
            .find(|entry| entry.id == id && entry.source == source)
            .map(|entry| entry.occurred_us)
    }
}

fn told(entries: &[Entry], place: usize) -> Recent {
    let entry = &entries[place];
    let line = || {
        let second = &entries[place + 1];
        LineKey([second.occurred_us as u64, second.id])
    };
    let [tag, first, second, _] = entry.tag;
    let physical = match tag {
        BY => Physical::By(account(first), entry.quantity),
        WITHIN => Physical::Within(account(first), account(second), entry.quantity),
        RETURNED => Physical::Returned(line(), entry.quantity),
        _ => {
            let is = |known: &&Disposition| **known as u8 == first;
            let disposition = DISPOSITIONS.iter().find(is);
            let disposition = disposition.expect("only known ones are kept");
            Physical::Inspected(line(), *disposition, entry.quantity)
        }
    };
    Recent {
        fact: Fact {
            occurred_us: entry.occurred_us,
            id: entry.id,
            source: entry.source,
        },
        physical,
    }
}

fn account(number: u8) -> Account {
    Account::PHYSICAL[usize::from(number)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::keys::{Keyer, LineKind};

    fn keep(recent: &mut RecentMovements, cell: (u64, u32), last: Trail, what: Recent) -> Trail {
        let trail = recent.next(&what.physical);
        let now_us = what.fact.occurred_us;
        recent.push(SkuHash(cell.0), Loc(cell.1), &what, last, now_us);
        trail
    }

    fn movement(n: i64, physical: Physical) -> Recent {
        Recent {
            fact: Fact {
                occurred_us: n,
                id: n as u64,
                source: 7,
            },
            physical,
        }
    }

    #[test]
    fn a_chain_tells_what_was_kept_of_its_cell_until_it_is_forgotten() {
        let mut recent = RecentMovements::default();
        let line = Keyer::new().line(LineKind::Return, "r", "1", "A");
        let mut last = [Trail::NONE; 3];
        let mut kept: [Vec<Recent>; 3] = Default::default();
        for n in 1..=20_000i64 {
            let cell = (n * n % 3) as usize;
            let units = n as i32;
            let what = movement(
                n,
                match n % 4 {
                    0 => Physical::By(Account::Good, -units),
                    1 => Physical::Within(Account::Good, Account::Damaged, units),
                    2 => Physical::Returned(line, units),
                    _ => Physical::Inspected(line, Disposition::Restock, units),
                },
            );
            last[cell] = keep(&mut recent, (9, cell as u32), last[cell], what);
            kept[cell].push(what);
        }
        for cell in 0..3u32 {
            let at = cell as usize;
            let told: Vec<Recent> = recent.chain(SkuHash(9), Loc(cell), last[at]).collect();
            let wanted: Vec<Recent> = kept[at].iter().rev().copied().collect();
            assert_eq!(told, wanted);
            assert_eq!(recent.chain(SkuHash(8), Loc(cell), last[at]).count(), 0);
        }
        let (before, all) = (recent.len(), recent.view());
        recent.forget(10_000);
        assert!(recent.len() < before);
        for cell in 0..3u32 {
            let at = cell as usize;
            let told: Vec<Recent> = recent.chain(SkuHash(9), Loc(cell), last[at]).collect();
            let since = told.last().expect("some are kept").fact.occurred_us;
            assert!(since < 10_000, "no more is forgotten than may be");
            let wanted = kept[at].iter().rev().copied();
            let wanted: Vec<Recent> = wanted
                .take_while(|what| what.fact.occurred_us >= since)
                .collect();
            assert_eq!(told, wanted);
        }
        assert_eq!(all.occurred_us(5, 7), Some(5));
        assert_eq!(recent.view().occurred_us(5, 7), None);
        assert_eq!(recent.view().occurred_us(19_999, 7), Some(19_999));
        assert_eq!(recent.view().occurred_us(19_999, 8), None);
    }

    #[test]
    fn numbers_go_round() {
        // Close to the end of a round.
        let forgotten = u64::from(u32::MAX) / PAGE as u64 - 1;
        let mut recent = RecentMovements {
            forgotten,
            ..RecentMovements::default()
        };
        let mut last = Trail::NONE;
        for n in 1..=20_000 {
            let what = movement(n, Physical::By(Account::Good, 1));
            last = keep(&mut recent, (1, 1), last, what);
            assert_ne!(last, Trail::NONE);
        }
        let told = recent.chain(SkuHash(1), Loc(1), last);
        let occurred = told.map(|what| what.fact.occurred_us);
        assert!(occurred.eq((1..=20_000).rev()));
    }
}
