//! The obvious books: ordered maps.

use std::collections::BTreeMap;

use super::{Books, CellChange, Posted};
use crate::domain::{
    balances::{Balances, Loc, LocationNames},
    digest::{Digest, Digester},
    keys::SkuHash,
    recent::Trail,
};

/// The obvious books: ordered maps. For tests and tools, not for speed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PlainBooks {
    /// Balances by SKU and location.
    pub cells: BTreeMap<(String, Loc), Balances>,
    /// Units in less units out, by SKU.
    pub net_in: BTreeMap<String, i64>,
    last: BTreeMap<(String, Loc), Trail>,
}

impl Books for PlainBooks {
    fn post(
        &mut self,
        _sku: SkuHash,
        name: &str,
        changes: &[CellChange],
        net_in: i64,
        last: Option<(Loc, Trail)>,
    ) -> Posted {
        let mut posted = Posted::default();
        for change in changes {
            let cell = self.cells.entry((name.to_owned(), change.at)).or_default();
            posted.wrong |= cell.is_wrong();
            *cell += change.by;
            posted.wrong |= cell.is_wrong();
        }
        *self.net_in.entry(name.to_owned()).or_default() += net_in;
        if let Some((at, last)) = last {
            let before = self.last.insert((name.to_owned(), at), last);
            posted.before = before.unwrap_or_default();
        }
        posted
    }

    fn cell(&self, _sku: SkuHash, name: &str, at: Loc) -> (Balances, Trail) {
        let key = (name.to_owned(), at);
        let balances = self.cells.get(&key).copied().unwrap_or_default();
        (balances, self.last.get(&key).copied().unwrap_or_default())
    }

    fn swap_trail(&mut self, sku: SkuHash, at: Loc, last: Trail) -> Option<Trail> {
        let names = self.cells.keys();
        let mut names = names.filter(|(name, place)| *place == at && SkuHash::of(name) == sku);
        let cell = names.next()?.clone();
        self.last.insert(cell, last).or(Some(Trail::NONE))
    }
}

impl PlainBooks {
    /// Digest of all cells.
    pub fn digest(&self, names: &impl LocationNames) -> Digest {
        let mut digester = Digester::default();
        let mut digest = Digest::default();
        for ((sku, at), balances) in &self.cells {
            digest += digester.cell(sku, names.name(*at), balances);
        }
        digest
    }
}
