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
    saved::{Broken, Input, Output},
};

/// Entries of a page, of 128 KiB: an allocator has room of just that size. Whole pages are never
/// changed again, and are forgotten whole.
const PAGE: usize = (128 << 10) / size_of::<Entry>();

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
    /// The cell: to be sure that a chain stays within it, and to know whose it is.
    sku: u64,
    at: u32,
    before: u32,
    quantity: i32,
    /// Number of the source, 24 bits; what it is, 2; accounts, or the disposition, twice 3.
    packed: u32,
}

const _: () = assert!(size_of::<Entry>() == 40);

const BY: u8 = 0;
const WITHIN: u8 = 1;
const RETURNED: u8 = 2;
const INSPECTED: u8 = 3;
/// In the place of a location: this is the second entry of a return, or fills a page up.
const NOWHERE: u32 = u32::MAX;
/// Numbers of sources that are told apart.
const SOURCES_MAX: u32 = (1 << 24) - 1;

impl Entry {
    const BLANK: Self = Self {
        occurred_us: TimeUs::MIN,
        id: 0,
        sku: 0,
        at: NOWHERE,
        before: 0,
        quantity: 0,
        packed: 0,
    };

    fn pack(source: u32, [tag, first, second]: [u8; 3]) -> u32 {
        // Only a watermark asks for the source; of one with a number so great it finds nothing.
        let source = source.min(SOURCES_MAX);
        source << 8 | u32::from(tag) << 6 | u32::from(first) << 3 | u32::from(second)
    }

    fn source(&self) -> u32 {
        self.packed >> 8
    }

    fn tag(&self) -> [u8; 3] {
        let packed = self.packed as u8;
        [packed >> 6, packed >> 3 & 7, packed & 7]
    }

    /// As it is saved: the fields in their order.
    fn to_bytes(self) -> [u8; size_of::<Entry>()] {
        let mut bytes = [0; size_of::<Entry>()];
        bytes[..8].copy_from_slice(&self.occurred_us.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sku.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.at.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.before.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.quantity.to_le_bytes());
        bytes[36..].copy_from_slice(&self.packed.to_le_bytes());
        bytes
    }

    fn is_of_return(&self) -> bool {
        matches!(self.tag()[0], RETURNED | INSPECTED)
    }
}

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
                Arc::make_mut(&mut last.entries).resize(PAGE, Entry::BLANK);
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
            Physical::By(account, units) => (units, [BY, account as u8, 0], None),
            Physical::Within(from, to, units) => (units, [WITHIN, from as u8, to as u8], None),
            Physical::Returned(line, units) => (units, [RETURNED, 0, 0], Some(line)),
            Physical::Inspected(line, disposition, units) => {
                (units, [INSPECTED, disposition as u8, 0], Some(line))
            }
        };
        let entry = Entry {
            occurred_us: fact.occurred_us,
            id: fact.id,
            sku: sku.0,
            at: at.0,
            before: before.0,
            quantity,
            packed: Entry::pack(fact.source, tag),
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
                at: NOWHERE,
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
            if (entry.sku, entry.at) != (sku.0, at.0) {
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
        RecentView {
            pages: self.pages.iter().cloned().collect(),
            forgotten: self.forgotten,
        }
    }

    /// Takes back a page that this shard saved, when its cells know their last movements.
    ///
    /// # Errors
    /// If these bytes were not saved so, or not in this order.
    pub fn take_back_page(&mut self, input: &mut Input<'_>) -> Result<(), Broken> {
        let (number, arrived_us, count) = (input.u64()?, input.i64()?, input.count()?);
        if self.pages.is_empty() {
            self.forgotten = number;
        }
        if count > PAGE || number != self.forgotten + self.pages.len() as u64 {
            return Err(Broken("a page of recent movements is missing"));
        }
        let mut entries = Vec::with_capacity(PAGE);
        for _ in 0..count {
            entries.push(load(input)?);
        }
        self.pages.push_back(Page {
            entries: Arc::new(entries),
            arrived_us,
        });
        Ok(())
    }

    /// Takes back a page that was saved by one of another number of shards, as far as it belongs to
    /// this one. `last` is to put where the last recent movement of a cell is, and to tell where it
    /// was.
    ///
    /// # Errors
    /// If these bytes were not saved so.
    pub fn take_back_share(
        &mut self,
        input: &mut Input<'_>,
        (shard, shards): (usize, usize),
        mut last: impl FnMut(SkuHash, Loc, Trail) -> Result<Trail, Broken>,
    ) -> Result<(), Broken> {
        let (_, arrived_us, mut left) = (input.u64()?, input.i64()?, input.count()?);
        let mut entries = Vec::with_capacity(2);
        while left > 0 {
            entries.clear();
            entries.push(load(input)?);
            if entries[0].is_of_return() {
                entries.push(load(input)?);
            }
            left = left.checked_sub(entries.len()).ok_or(CUT_OFF)?;
            let (sku, at) = (SkuHash(entries[0].sku), Loc(entries[0].at));
            if at.0 == NOWHERE || sku.shard(shards) != shard {
                continue;
            }
            let recent = told(&entries, 0);
            let place = self.next(&recent.physical);
            let before = last(sku, at, place)?;
            self.push(sku, at, &recent, before, arrived_us);
        }
        Ok(())
    }
}

const CUT_OFF: Broken = Broken("a movement of a return line is cut off");

fn load(input: &mut Input<'_>) -> Result<Entry, Broken> {
    let entry = Entry {
        occurred_us: input.i64()?,
        id: input.u64()?,
        sku: input.u64()?,
        at: input.u32()?,
        before: input.u32()?,
        quantity: input.i32()?,
        packed: input.u32()?,
    };
    let [tag, first, second] = entry.tag();
    let known = match tag {
        BY | WITHIN => usize::from(first.max(second)) < Account::PHYSICAL.len(),
        RETURNED => true,
        _ => DISPOSITIONS.iter().any(|known| *known as u8 == first),
    };
    if !known {
        return Err(Broken("a recent movement is of no kind that there is"));
    }
    Ok(entry)
}

/// Recent movements, as they were.
#[derive(Debug, Clone, Default)]
pub struct RecentView {
    pages: VecDeque<Page>,
    /// Pages forgotten before the first of them.
    forgotten: u64,
}

impl RecentView {
    /// When the movement occurred whose key begins so, and which `source` reported. The last to
    /// arrive, if there are several: a person has released a conflicting duplicate.
    pub fn occurred_us(&self, id: u64, source: u32) -> Option<TimeUs> {
        let pages = self.pages.iter().rev();
        let entries = pages.flat_map(|page| page.entries.iter().rev());
        entries
            .filter(|entry| entry.at != NOWHERE)
            .find(|entry| entry.id == id && entry.source() == source)
            .map(|entry| entry.occurred_us)
    }

    /// Takes the oldest page of what is left, and saves it. False if nothing is left.
    pub fn save_next(&mut self, output: &mut Output) -> bool {
        let Some(page) = self.pages.pop_front() else {
            return false;
        };
        output.u64(self.forgotten);
        self.forgotten += 1;
        output.i64(page.arrived_us);
        output.count(page.entries.len());
        page.entries
            .iter()
            .for_each(|entry| output.raw(&entry.to_bytes()));
        true
    }
}

fn told(entries: &[Entry], place: usize) -> Recent {
    let entry = &entries[place];
    let line = || {
        let second = &entries[place + 1];
        LineKey([second.occurred_us as u64, second.id])
    };
    let [tag, first, second] = entry.tag();
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
            source: entry.source(),
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
            let cell = (n % 3) as usize;
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
