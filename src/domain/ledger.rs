//! The ledger: applies postings to the books and follows the order lines.

use super::{
    balances::{Account, Balances, Loc, LocationNames},
    digest::{Digest, Digester},
    keys::{LineKey, SkuHash},
    lines::Lines,
    posting::{Effect, Milestone, Posting},
};

/// A change of one cell, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellChange {
    /// Where.
    pub at: Loc,
    /// By how much, in each account.
    pub by: Balances,
}

/// Where balances are kept. The ledger decides what changes; the books add it up.
///
/// Two stand behind this interface: [`PlainBooks`], the obvious one, and that of
/// `crate::shard`, which is compact and can be read while it is written.
pub trait Books {
    /// Adds `changes` to the cells of a SKU, all at once for any reader, and `net_in` to what
    /// came in from outside less what went out. Cells and SKUs that are not there begin at 0.
    fn post(&mut self, sku: SkuHash, name: &str, changes: &[CellChange], net_in: i64);

    /// Brings the place of a SKU in the index into the cache.
    fn prefetch_index(&self, _sku: SkuHash) {}

    /// Brings the SKU itself into the cache; its place in the index should be there already.
    fn prefetch_sku(&self, _sku: SkuHash) {}

    /// Brings a cell of the SKU into the cache; the SKU itself should be there already.
    fn prefetch_cell(&self, _sku: SkuHash, _at: Loc) {}
}

/// Units that crossed the border to outside, for the check of double entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outside {
    /// Units that came in.
    pub units_in: i128,
    /// Units that went out.
    pub units_out: i128,
}

/// A ledger: books and lifecycles.
#[derive(Debug, Default)]
pub struct Ledger<B> {
    books: B,
    lines: Lines,
    outside: Outside,
}

impl<B: Books> Ledger<B> {
    /// A ledger with these books, which must be empty.
    pub fn new(books: B) -> Self {
        Self {
            books,
            lines: Lines::default(),
            outside: Outside::default(),
        }
    }

    /// Applies one posting. A fact is never refused: the goods moved.
    pub fn apply(&mut self, posting: &Posting, sku: &str, names: &impl LocationNames) {
        let units = i64::from(posting.quantity);
        match posting.effect {
            Effect::In { at, to } => self.physical(posting, sku, at, to, units),
            Effect::Out { at, from } => self.physical(posting, sku, at, from, -units),
            Effect::Within { at, from, to } => {
                let mut by = Balances::of(from, -units);
                by[to] += units;
                self.books
                    .post(posting.sku, sku, &[CellChange { at, by }], 0);
            }
            Effect::OrderLine { line, milestone } => {
                self.order_line(posting, sku, line, milestone, units, names);
            }
            Effect::None => self.books.post(posting.sku, sku, &[], 0),
        }
    }

    fn physical(&mut self, posting: &Posting, sku: &str, at: Loc, account: Account, units: i64) {
        self.count_outside(units);
        let by = Balances::of(account, units);
        self.books
            .post(posting.sku, sku, &[CellChange { at, by }], units);
    }

    fn order_line(
        &mut self,
        posting: &Posting,
        sku: &str,
        key: LineKey,
        milestone: Milestone,
        units: i64,
        names: &impl LocationNames,
    ) {
        let (before, after) = self.lines.record(key, milestone, units, names);
        let mut changes = Changes::default();
        for (at, claim) in before {
            changes.add(at, Account::Reserved, -claim);
        }
        for (at, claim) in after {
            changes.add(at, Account::Reserved, claim);
        }
        let mut net_in = 0;
        if let Milestone::Shipped(at) = milestone {
            changes.add(at, Account::Good, -units);
            self.count_outside(-units);
            net_in = -units;
        }
        changes.0.retain(|change| !change.by.is_zero());
        // Also if nothing changes: whether a SKU is known must not depend on the order of facts.
        self.books.post(posting.sku, sku, &changes.0, net_in);
    }

    fn count_outside(&mut self, units: i64) {
        if units >= 0 {
            self.outside.units_in += i128::from(units);
        } else {
            self.outside.units_out -= i128::from(units);
        }
    }

    /// Brings into the cache what [`Ledger::prefetch`] begins with.
    pub fn prefetch_index<'p>(&self, postings: impl Iterator<Item = &'p Posting>) {
        for posting in postings {
            self.books.prefetch_index(posting.sku);
        }
    }

    /// Brings into the cache what a group of postings will touch, in waves, so that their cache
    /// misses overlap; each wave follows what the one before brought. [`Ledger::prefetch_index`]
    /// should have been called a while ago.
    pub fn prefetch<'p>(&self, postings: impl Iterator<Item = &'p Posting> + Clone) {
        for posting in postings.clone() {
            self.books.prefetch_sku(posting.sku);
        }
        for posting in postings.clone() {
            if let Effect::OrderLine { line, .. } = posting.effect {
                self.lines.touch(line);
            }
        }
        for posting in postings {
            if let Some(at) = posting.effect.location() {
                self.books.prefetch_cell(posting.sku, at);
            }
        }
    }

    /// The books.
    pub fn books(&self) -> &B {
        &self.books
    }

    /// The books, to set them up or maintain them.
    pub fn books_mut(&mut self) -> &mut B {
        &mut self.books
    }

    /// The order lines.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// What crossed the border to outside.
    pub fn outside(&self) -> Outside {
        self.outside
    }

    /// Digest of the order lines.
    pub fn lines_digest(&self, names: &impl LocationNames) -> Digest {
        let mut digester = Digester::default();
        let mut digest = Digest::default();
        self.lines
            .for_each(|key, line| digest += digester.order_line(key, line, names));
        digest
    }
}

/// Changes of a few cells, one entry for each.
#[derive(Default)]
struct Changes(smallvec::SmallVec<[CellChange; 2]>);

impl Changes {
    fn add(&mut self, at: Loc, account: Account, units: i64) {
        match self.0.iter_mut().find(|change| change.at == at) {
            Some(change) => change.by[account] += units,
            None => self.0.push(CellChange {
                at,
                by: Balances::of(account, units),
            }),
        }
    }
}

/// The obvious books: ordered maps. For tests and tools, not for speed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PlainBooks {
    /// Balances by SKU and location.
    pub cells: std::collections::BTreeMap<(String, Loc), Balances>,
    /// Units in less units out, by SKU.
    pub net_in: std::collections::BTreeMap<String, i64>,
}

impl Books for PlainBooks {
    fn post(&mut self, _sku: SkuHash, name: &str, changes: &[CellChange], net_in: i64) {
        for change in changes {
            *self.cells.entry((name.to_owned(), change.at)).or_default() += change.by;
        }
        *self.net_in.entry(name.to_owned()).or_default() += net_in;
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
