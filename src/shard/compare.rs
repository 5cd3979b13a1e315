//! Snapshots, as the shards see them: lines to compare, and what comparisons found.

use std::sync::{Arc, OnceLock};

use super::{books::ShardBooks, locations::Locations};
use crate::{
    domain::{
        balances::Loc,
        keys::SkuHash,
        ledger::Ledger,
        reconcile::{AsOf, Chunk, Compared, StatedLine, Statement},
    },
    limits::PREFETCH_POSTINGS,
};

/// Lines of a snapshot that are compared at one position; each shard fills in its own.
pub(crate) struct Comparing {
    chunk: Arc<Chunk>,
    as_of: AsOf,
    /// By shard: which lines are its own.
    lines: Box<[Vec<u32>]>,
    /// By shard: what came of them.
    compared: Box<[OnceLock<Vec<Compared>>]>,
}

impl Comparing {
    pub(crate) fn new(chunk: Arc<Chunk>, as_of: AsOf, shards: usize) -> Self {
        let mut lines = vec![Vec::with_capacity(chunk.lines.len() / shards + 16); shards];
        for (place, line) in (0..).zip(&chunk.lines) {
            lines[line.sku.shard(shards)].push(place);
        }
        Self {
            chunk,
            as_of,
            lines: lines.into(),
            compared: (0..shards).map(|_| OnceLock::new()).collect(),
        }
    }

    pub(crate) fn as_of(&self) -> &AsOf {
        &self.as_of
    }

    /// Compares the lines of shard `number`.
    pub(super) fn compare(&self, ledger: &Ledger<ShardBooks>, number: usize) {
        let own = &self.lines[number];
        let line = |place: &u32| &self.chunk.lines[*place as usize];
        let mut compared = Vec::with_capacity(own.len());
        let mut groups = own.chunks(PREFETCH_POSTINGS).peekable();
        while let Some(group) = groups.next() {
            ledger.prefetch_cells(group.iter().map(|place| cell(line(place))));
            if let Some(next) = groups.peek() {
                ledger.prefetch_skus(next.iter().map(|place| line(place).sku));
            }
            compared.extend(group.iter().map(|place| {
                let line = line(place);
                let name = self.chunk.sku(line);
                ledger.compare(line.sku, name, line.at, &line.units, &self.as_of)
            }));
        }
        let told = self.compared[number].set(compared);
        told.expect("each shard compares once");
    }

    /// What came of all lines, in their order, once every shard has compared its own.
    pub(crate) fn result(&self) -> Vec<Compared> {
        let mut all = vec![None; self.chunk.lines.len()];
        for (places, compared) in self.lines.iter().zip(&self.compared) {
            let compared = compared.get().expect("every shard has compared");
            for (place, compared) in places.iter().zip(compared) {
                all[*place as usize] = Some(*compared);
            }
        }
        let all = all.into_iter().map(|line| line.expect("it is in a shard"));
        all.collect()
    }
}

fn cell(line: &StatedLine) -> (SkuHash, Option<Loc>) {
    (line.sku, line.at)
}

/// What a comparison found about a cell, for its shard.
pub(crate) struct StatedCell {
    pub(crate) sku: SkuHash,
    pub(crate) at: Loc,
    pub(crate) statement: Statement,
}

/// By shard, what a comparison found about its cells.
pub(crate) type Statements = Box<[Vec<StatedCell>]>;

/// Gives each statement to the shard of its SKU.
pub(crate) fn by_shard(
    statements: Vec<Statement>,
    shards: usize,
    locations: &Locations,
) -> Statements {
    let mut by_shard: Vec<Vec<StatedCell>> = (0..shards).map(|_| Vec::new()).collect();
    for statement in statements {
        let sku = SkuHash::of(&statement.sku);
        by_shard[sku.shard(shards)].push(StatedCell {
            sku,
            at: locations.number(&statement.location),
            statement,
        });
    }
    by_shard.into()
}
