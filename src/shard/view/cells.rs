//! Cells as such, without any channel: for comparing snapshots.

use crossbeam::epoch;

use super::{Reading, View, cells_of};
use crate::{
    domain::{
        balances::{Balances, Loc},
        keys::SkuHash,
        reconcile::Chunk,
    },
    limits::PREFETCH_QUERIES,
    shard::{block::LINES_TO_POST, index::SEGMENTS},
};

impl Reading<'_> {
    /// The balances now of the cell of each line, in order; `None` if no movement ever touched it.
    pub fn cells(&self, chunk: &Chunk, mut answer: impl FnMut(Option<Balances>)) {
        for group in chunk.lines.chunks(PREFETCH_QUERIES) {
            // In waves, so that the cache misses of a group overlap.
            for line in group {
                self.index(line.sku).prefetch_slot(line.sku, &self.guard);
            }
            for line in group {
                self.index(line.sku)
                    .prefetch_block(line.sku, LINES_TO_POST, &self.guard);
            }
            for line in group {
                let block = self
                    .index(line.sku)
                    .get(line.sku, chunk.sku(line), &self.guard);
                let found = block.zip(line.at).and_then(|(block, at)| {
                    block.read(|| block.find(at).ok().map(|cell| block.balances(cell)))
                });
                answer(found);
            }
        }
    }
}

impl View {
    /// Parts of all cells, to be walked over one by one: a reader that is at work for long would
    /// keep outgrown memory from being freed.
    pub fn parts(&self) -> usize {
        self.shards.len() * SEGMENTS
    }

    /// Visits the SKUs of one of the [`View::parts`], in no order, each with its cells as they
    /// belong together. What comes in meanwhile may be missed.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn cells_of_part(
        &self,
        part: usize,
        mut visit: impl FnMut(&str, SkuHash, &[(Loc, Balances)]),
    ) {
        let guard = epoch::pin();
        let (index, _) = &self.shards[part / SEGMENTS];
        index.for_each_of(part % SEGMENTS, &guard, |block| {
            visit(block.name(), block.hash(), &cells_of(block));
        });
    }
}
