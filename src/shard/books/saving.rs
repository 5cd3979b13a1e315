//! Saving blocks for a checkpoint while they are written and read, and taking them back.
//!
//! Each block has a mark that says whether it was saved already. The writer goes through the index
//! in slices, and saves a block that it is about to change before its turn has come. New blocks have
//! the mark from the start. Sums are not saved: the rules give them.
//!
//! A block in bytes: hash of the SKU (8), length of its name (1), whether balances have 64 bits (1),
//! number of cells (4), number of channels whose published numbers follow (4), units in from outside
//! less units out (8), the name; then published numbers (8 each), the numbers of the locations (4
//! each), where the last recent movement of each is (4 each), and the balances, seven of 32 or 64
//! bits for each cell. A published number follows from the balances, and is left out, unless the rules
//! let small changes pass.

use std::sync::atomic::Ordering::Relaxed;

use crossbeam::epoch;

use super::{ShardBooks, with_room};
use crate::{
    domain::{
        balances::{ACCOUNTS, Balances, Loc},
        keys::SkuHash,
        recent::Trail,
        saved::{Broken, Input, Output, text_of},
    },
    shard::{
        block::{Block, Shape},
        index::Place,
    },
};

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// The mark that blocks have once they are saved, and all when nothing is under way.
    pub(super) mark: bool,
    /// Where to go on; `None`: nothing is under way.
    next: Option<Place>,
    /// So many channels have published numbers that do not follow from the balances: all or none.
    pub(super) published: usize,
    output: Output,
}

impl Saving {
    /// Saves a block as it is, unless that was done.
    #[inline]
    pub(super) fn save_once(&mut self, block: &Block) {
        if block.mark() != self.mark {
            self.save(block);
        }
    }

    #[cold]
    fn save(&mut self, block: &Block) {
        put(&mut self.output, block, self.published);
        block.set_mark(self.mark);
    }
}

impl ShardBooks {
    /// All blocks, as they are now, are to be saved.
    ///
    /// # Panics
    /// If that is under way already.
    pub(crate) fn begin_saving(&mut self) {
        let saving = &mut self.desk.saving;
        assert!(saving.next.is_none(), "blocks are being saved already");
        saving.mark = !saving.mark;
        saving.next = Some(Place::default());
    }

    /// Saves some more. True if there are more.
    pub(crate) fn save_slice(&mut self) -> bool {
        let Self { index, desk } = self;
        let Some(place) = desk.saving.next else {
            return false;
        };
        let saving = &mut desk.saving;
        saving.next = index.visit_some(place, |block| saving.save_once(block));
        saving.next.is_some()
    }

    /// Saves what is left, at once: all blocks are about to change.
    pub(super) fn save_all(&mut self) {
        while self.save_slice() {}
    }

    /// What was saved and not yet taken.
    pub(crate) fn saved(&mut self) -> &mut Output {
        &mut self.desk.saving.output
    }

    /// Takes back those saved blocks that belong to this one of so many shards.
    pub(crate) fn take_back(
        &mut self,
        bytes: &[u8],
        (shard, shards): (usize, usize),
        own: bool,
    ) -> Result<(), Broken> {
        let mut blocks = SavedBlocks::new(bytes);
        while let Some(saved) = blocks.next()? {
            if saved.hash.shard(shards) != shard {
                continue;
            }
            if saved.hash != SkuHash::of(saved.name) {
                return Err(Broken("it has a SKU whose hash is not that of its name"));
            }
            self.put_back(&saved, own);
        }
        Ok(())
    }

    fn put_back(&mut self, saved: &SavedBlock<'_>, own: bool) {
        let Self { index, desk } = self;
        let shape = Shape {
            cells_max: (saved.cells as u32).max(1),
            channels: desk.channels(),
            wide: saved.wide,
        };
        let shape = with_room(saved.name, shape);
        let made = Block::allocate(saved.hash, saved.name, shape);
        // SAFETY: just allocated, and handed over below.
        let block = unsafe { made.as_ref() };
        block.set_mark(desk.saving.mark);
        block.add_net_in(saved.net_in);
        for (cell, (at, trail, balances)) in saved.cells().enumerate() {
            block.append(cell, at, &balances);
            // Another number of shards keeps its recent movements elsewhere.
            if own {
                block.set_trail(cell, trail);
            }
        }
        desk.make_sums(block);
        desk.take_published(block, saved.published());
        desk.counts.skus.fetch_add(1, Relaxed);
        desk.counts.cells.fetch_add(saved.cells as u64, Relaxed);
        let bytes = block.bytes() as u64;
        desk.counts.block_bytes.fetch_add(bytes, Relaxed);
        // SAFETY: as in `Books::post`.
        let guard = unsafe { epoch::unprotected() };
        index.get_or_insert(saved.hash, saved.name, guard, || made);
    }
}

fn put(output: &mut Output, block: &Block, published: usize) {
    let shape = block.shape();
    output.u64(block.hash().0);
    output.u8(block.name().len() as u8);
    output.flag(shape.wide);
    output.u32(block.cells() as u32);
    output.u32(published as u32);
    output.i64(block.net_in());
    output.raw(block.name().as_bytes());
    for channel in 0..published {
        output.i64(block.published(channel).units);
    }
    for cell in 0..block.cells() {
        output.u32(block.location(cell).0);
    }
    for cell in 0..block.cells() {
        output.u32(block.trail(cell).0);
    }
    for cell in 0..block.cells() {
        for units in block.balances(cell).0 {
            if shape.wide {
                output.i64(units);
            } else {
                output.i32(units as i32);
            }
        }
    }
}

/// Reads saved blocks one by one.
struct SavedBlocks<'a> {
    input: Input<'a>,
}

/// One saved block.
struct SavedBlock<'a> {
    pub(crate) hash: SkuHash,
    pub(crate) name: &'a str,
    pub(crate) net_in: i64,
    wide: bool,
    cells: usize,
    published: &'a [u8],
    locations: &'a [u8],
    trails: &'a [u8],
    balances: &'a [u8],
}

impl<'a> SavedBlocks<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            input: Input::new(bytes),
        }
    }

    /// The next one; `None`: that was all.
    pub(crate) fn next(&mut self) -> Result<Option<SavedBlock<'a>>, Broken> {
        let input = &mut self.input;
        if input.is_empty() {
            return Ok(None);
        }
        let hash = SkuHash(input.u64()?);
        let name_len = usize::from(input.u8()?);
        let wide = input.flag()?;
        let cells = input.count()?;
        let channels = input.count()?;
        let net_in = input.i64()?;
        Ok(Some(SavedBlock {
            hash,
            name: text_of(input.exactly(name_len)?)?,
            net_in,
            wide,
            cells,
            published: input.exactly(channels * size_of::<i64>())?,
            locations: input.exactly(cells * size_of::<u32>())?,
            trails: input.exactly(cells * size_of::<u32>())?,
            balances: input.exactly(cells * ACCOUNTS * if wide { 8 } else { 4 })?,
        }))
    }
}

impl SavedBlock<'_> {
    /// What its channels were told, if that does not follow from the balances.
    pub(crate) fn published(&self) -> impl ExactSizeIterator<Item = i64> {
        let (published, _) = self.published.as_chunks::<8>();
        published.iter().map(|units| i64::from_le_bytes(*units))
    }

    /// Its cells, by number of location.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (Loc, Trail, Balances)> {
        let (locations, _) = self.locations.as_chunks::<4>();
        let unit = if self.wide { 8 } else { 4 };
        let balances = self.balances.chunks_exact(ACCOUNTS * unit);
        let wide = self.wide;
        let (trails, _) = self.trails.as_chunks::<4>();
        let places = locations.iter().zip(trails);
        places.zip(balances).map(move |((at, trail), units)| {
            let mut balances = Balances::ZERO;
            if wide {
                let (units, _) = units.as_chunks::<8>();
                for (balance, units) in balances.0.iter_mut().zip(units) {
                    *balance = i64::from_le_bytes(*units);
                }
            } else {
                let (units, _) = units.as_chunks::<4>();
                for (balance, units) in balances.0.iter_mut().zip(units) {
                    *balance = i64::from(i32::from_le_bytes(*units));
                }
            }
            let trail = Trail(u32::from_le_bytes(*trail));
            (Loc(u32::from_le_bytes(*at)), trail, balances)
        })
    }
}

/// Visits all cells of saved blocks, with the name of their SKU; gives the number of SKUs.
pub(crate) fn cells_of(
    bytes: &[u8],
    mut visit: impl FnMut(&str, Loc, &Balances),
) -> Result<u64, Broken> {
    let mut blocks = SavedBlocks::new(bytes);
    let mut skus = 0;
    while let Some(block) = blocks.next()? {
        skus += 1;
        for (at, _, balances) in block.cells() {
            visit(block.name, at, &balances);
        }
    }
    Ok(skus)
}
