//! What was counted of cells, and what snapshots state of them.
//!
//! In parts by the SKU's hash: a checkpoint saves one part after the other, and a part that is about
//! to change before its turn has come is saved first.

use std::collections::HashMap;

use crate::domain::{
    balances::{Account, Loc, LocationNames},
    digest::{Digest, Digester},
    keys::SkuHash,
    movement::TimeUs,
    saved::{Broken, Input, Output},
};

/// Conditions of a cell, in the order of [`Account::PHYSICAL`].
pub(super) const CONDITIONS: usize = Account::PHYSICAL.len();

/// So many that saving one of them takes no time that a reservation would notice.
const PARTS: usize = 256;

type Part = HashMap<(SkuHash, Loc), CountedCell>;

/// Cells of which a count or a snapshot says something.
#[derive(Debug)]
pub struct CountedCells {
    parts: Box<[Part]>,
    len: usize,
    /// Parts that are still to be saved.
    unsaved: Vec<usize>,
    saved: Output,
}

impl Default for CountedCells {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Part::new()).collect(),
            len: 0,
            unsaved: Vec::new(),
            saved: Output::new(),
        }
    }
}

fn part_of(sku: SkuHash) -> usize {
    // The lowest bits choose a place in the part, the highest the shard.
    (sku.0 >> 24) as usize % PARTS
}

impl CountedCells {
    /// Whether anything is said of a cell.
    #[inline]
    pub(super) fn contains(&self, sku: SkuHash, at: Loc) -> bool {
        self.len > 0 && self.parts[part_of(sku)].contains_key(&(sku, at))
    }

    pub(super) fn get(&self, sku: SkuHash, at: Loc) -> Option<&CountedCell> {
        if self.len == 0 {
            return None;
        }
        self.parts[part_of(sku)].get(&(sku, at))
    }

    pub(super) fn get_mut(&mut self, sku: SkuHash, at: Loc) -> Option<&mut CountedCell> {
        self.save_first(part_of(sku));
        self.parts[part_of(sku)].get_mut(&(sku, at))
    }

    /// The cell, which is new if nothing was said of it.
    pub(super) fn of(&mut self, sku: SkuHash, name: &str, at: Loc) -> &mut CountedCell {
        self.save_first(part_of(sku));
        let Self { parts, len, .. } = self;
        parts[part_of(sku)].entry((sku, at)).or_insert_with(|| {
            *len += 1;
            CountedCell::new(name)
        })
    }

    /// Lets go of what no fact can change any more, and nobody can ask for.
    pub(super) fn forget(&mut self, before_us: TimeUs) {
        for part in 0..PARTS {
            if self.parts[part].is_empty() {
                continue;
            }
            self.save_first(part);
            self.parts[part].retain(|_, cell| {
                cell.forget(before_us);
                !cell.is_empty()
            });
        }
        self.len = self.parts.iter().map(Part::len).sum();
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Loc, &CountedCell)> {
        let cells = self.parts.iter().flatten();
        cells.map(|((_, at), cell)| (*at, cell))
    }

    pub(super) fn begin_saving(&mut self) {
        let parts = (0..PARTS).rev();
        self.unsaved = parts.filter(|part| !self.parts[*part].is_empty()).collect();
    }

    /// Saves another part. True if there are more.
    pub(super) fn save_slice(&mut self) -> bool {
        if let Some(part) = self.unsaved.pop() {
            put(&self.parts[part], &mut self.saved);
        }
        !self.unsaved.is_empty()
    }

    /// What was saved and not yet taken.
    pub(super) fn saved(&mut self) -> &mut Output {
        &mut self.saved
    }

    /// Takes back what belongs to this one of so many shards.
    pub(super) fn take_back(
        &mut self,
        bytes: &[u8],
        (shard, shards): (usize, usize),
    ) -> Result<(), Broken> {
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let (at, cell) = CountedCell::load(&mut input)?;
            let sku = SkuHash::of(&cell.sku);
            if sku.shard(shards) == shard {
                self.parts[part_of(sku)].insert((sku, at), cell);
                self.len += 1;
            }
        }
        Ok(())
    }

    fn save_first(&mut self, part: usize) {
        if self.unsaved.is_empty() {
            return;
        }
        if let Some(place) = self.unsaved.iter().position(|unsaved| *unsaved == part) {
            self.unsaved.remove(place);
            put(&self.parts[part], &mut self.saved);
        }
    }
}

fn put(part: &Part, output: &mut Output) {
    for ((_, at), cell) in part {
        cell.save(*at, output);
    }
}

/// Visits all cells that were saved.
///
/// # Errors
/// If these bytes were not saved so.
pub fn each_counted(bytes: &[u8], mut visit: impl FnMut(Loc, &CountedCell)) -> Result<(), Broken> {
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let (at, cell) = CountedCell::load(&mut input)?;
        visit(at, &cell);
    }
    Ok(())
}

/// What counts and snapshots say of a cell, by condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedCell {
    pub(super) sku: Box<str>,
    /// Oldest first.
    pub(super) counts: [Vec<Count>; CONDITIONS],
    pub(super) stated: [Option<Stated>; CONDITIONS],
}

/// A count of one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) as_of_us: TimeUs,
    /// Id and source of the movement, by which counts of one moment go.
    pub(super) id: Box<str>,
    pub(super) source: Box<str>,
    pub(super) units: i64,
    /// `plain` as of the moment.
    pub(super) plain: i64,
}

/// What the latest snapshot that did not match says of one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) as_of_us: TimeUs,
    pub(super) snapshot: Box<str>,
    pub(super) units: i64,
    pub(super) plain: i64,
    /// The variance that is open; 0 if none is.
    pub(super) open: i64,
}

impl Count {
    pub(super) fn order(&self) -> (TimeUs, &str, &str) {
        (self.as_of_us, &self.id, &self.source)
    }

    pub(super) fn shift(&self) -> i64 {
        self.units - self.plain
    }
}

impl CountedCell {
    pub(super) fn new(sku: &str) -> Self {
        Self {
            sku: sku.into(),
            counts: Default::default(),
            stated: Default::default(),
        }
    }

    /// By how much the balance now is shifted.
    pub(super) fn shift(&self, condition: usize) -> i64 {
        self.counts[condition].last().map_or(0, Count::shift)
    }

    /// The count that is in force as of `us`.
    pub(super) fn in_force(&self, condition: usize, us: TimeUs) -> Option<&Count> {
        let counts = self.counts[condition].iter().rev();
        counts.into_iter().find(|count| count.as_of_us <= us)
    }

    /// `plain(A)` of everything that was said of the cell, and the `A` of each.
    pub(super) fn plains(&mut self) -> impl Iterator<Item = (usize, TimeUs, &mut i64)> {
        let counts = self.counts.iter_mut().enumerate().flat_map(|(at, counts)| {
            let counts = counts.iter_mut();
            counts.map(move |count| (at, count.as_of_us, &mut count.plain))
        });
        let stated = self.stated.iter_mut().enumerate();
        let stated = stated.filter_map(|(at, stated)| {
            let stated = stated.as_mut()?;
            Some((at, stated.as_of_us, &mut stated.plain))
        });
        counts.chain(stated)
    }

    pub(super) fn put(&mut self, condition: usize, count: Count) {
        let counts = &mut self.counts[condition];
        match counts.binary_search_by(|known| known.order().cmp(&count.order())) {
            // A person has released another count under the id of this one.
            Ok(place) => counts[place] = count,
            Err(place) => counts.insert(place, count),
        }
    }

    /// Lets go of what no fact can change any more, and nobody can ask for.
    pub(super) fn forget(&mut self, before_us: TimeUs) {
        for counts in &mut self.counts {
            let over = counts.partition_point(|count| count.as_of_us < before_us);
            // The latest of them is still in force after that.
            counts.drain(..over.saturating_sub(1));
        }
        for stated in &mut self.stated {
            if stated
                .as_ref()
                .is_some_and(|stated| stated.open == 0 && stated.as_of_us < before_us)
            {
                *stated = None;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.iter().all(Vec::is_empty) && self.stated.iter().all(Option::is_none)
    }
}

impl CountedCell {
    /// Of the latest counts, and of the variances that are open.
    pub fn digest(&self, at: Loc, names: &impl LocationNames, digester: &mut Digester) -> Digest {
        let mut digest = Digest::default();
        for condition in 0..CONDITIONS {
            let about = (&*self.sku, names.name(at), condition as u8);
            if let Some(count) = self.counts[condition].last() {
                let by = [&*count.id, &*count.source];
                digest += digester.said(about, by, count.as_of_us, count.units);
            }
            if let Some(stated) = &self.stated[condition]
                && stated.open != 0
            {
                let by = [&*stated.snapshot, ""];
                digest += digester.said(about, by, stated.as_of_us, stated.units);
            }
        }
        digest
    }

    fn save(&self, at: Loc, output: &mut Output) {
        output.text(&self.sku);
        output.u32(at.0);
        for counts in &self.counts {
            output.count(counts.len());
            for count in counts {
                output.i64(count.as_of_us);
                output.text(&count.id);
                output.text(&count.source);
                output.i64(count.units);
                output.i64(count.plain);
            }
        }
        for stated in &self.stated {
            output.option(stated.as_ref(), |output, stated| {
                output.i64(stated.as_of_us);
                output.text(&stated.snapshot);
                output.i64(stated.units);
                output.i64(stated.plain);
                output.i64(stated.open);
            });
        }
    }

    fn load(input: &mut Input<'_>) -> Result<(Loc, Self), Broken> {
        let mut cell = Self::new(input.text()?);
        let at = Loc(input.u32()?);
        for counts in &mut cell.counts {
            for _ in 0..input.count()? {
                counts.push(Count {
                    as_of_us: input.i64()?,
                    id: input.text()?.into(),
                    source: input.text()?.into(),
                    units: input.i64()?,
                    plain: input.i64()?,
                });
            }
        }
        for stated in &mut cell.stated {
            *stated = input.option(|input| {
                Ok(Stated {
                    as_of_us: input.i64()?,
                    snapshot: input.text()?.into(),
                    units: input.i64()?,
                    plain: input.i64()?,
                    open: input.i64()?,
                })
            })?;
        }
        Ok((at, cell))
    }
}
