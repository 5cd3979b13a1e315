//! Comparing a snapshot of the ERP with the books as they stood at its own time.
//!
//! A snapshot states balances as of a moment and arrives later. Comparing it with the books *now*
//! raises false alarms for all that moved in between. So it is compared with `book(T)`: what the
//! facts that occurred up to `T`, alone, give, however late or disordered they came.

use super::{
    balances::{Account, Loc},
    keys::SkuHash,
    movement::TimeUs,
};

/// Units by physical condition, in the order of [`Account::PHYSICAL`].
pub type Physical = [i64; 4];

/// What a snapshot states of a cell, in the same order; `None`: it does not say.
pub type StatedUnits = [Option<i64>; 4];

/// The moment of which a snapshot tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    /// The moment: facts that occurred up to it are in.
    pub us: TimeUs,
    /// How far clocks may be apart, in microseconds, at least 0: what occurred no farther than this
    /// from the moment may be in the snapshot or not.
    pub tolerance_us: i64,
    /// The number of a source whose movements are in exactly if they occurred up to the moment: the
    /// snapshot's own watermark says so.
    pub exact_source: Option<u32>,
}

impl AsOf {
    /// Exactly this moment.
    pub const fn exactly(us: TimeUs) -> Self {
        Self {
            us,
            tolerance_us: 0,
            exact_source: None,
        }
    }
}

/// What came of comparing one condition of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The snapshot states what the books held.
    Matched,
    /// Some of the movements within the tolerance, in or out, explain the difference.
    Timing,
    /// Nothing explains it.
    Variance,
}

/// What came of comparing one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// What the books held at the moment.
    pub book: Physical,
    /// By condition; `None` where the snapshot does not say.
    pub verdicts: [Option<Verdict>; 4],
    /// A variance of an earlier or the same snapshot is open here, by condition: if this one
    /// matches, it is over.
    pub open: [bool; 4],
}

/// A line of a snapshot, as a shard compares it. Names lie in those of its [`Chunk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatedLine {
    /// The SKU's hash.
    pub sku: SkuHash,
    /// Where its name begins, and its bytes.
    pub sku_name: (u32, u8),
    /// The location; `None` if no movement ever named it.
    pub at: Option<Loc>,
    /// What is stated.
    pub units: StatedUnits,
}

/// Lines of a snapshot that are compared at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Names of SKUs.
    pub names: String,
    /// The lines.
    pub lines: Vec<StatedLine>,
}

impl Chunk {
    /// Adds a line. `at` is the location's number, if any movement ever named it.
    ///
    /// # Panics
    /// If the name of the SKU is longer than [`crate::limits::SKU_BYTES_MAX`], or the chunk
    /// outgrows 4 GiB.
    pub fn push(&mut self, sku: &str, at: Option<Loc>, units: StatedUnits) {
        let from = u32::try_from(self.names.len()).expect("a chunk is far smaller than 4 GiB");
        let len = u8::try_from(sku.len()).expect("names of SKUs were checked");
        self.names.push_str(sku);
        self.lines.push(StatedLine {
            sku: SkuHash::of(sku),
            sku_name: (from, len),
            at,
            units,
        });
    }

    /// The name of a line's SKU.
    pub fn sku(&self, line: &StatedLine) -> &str {
        let (from, len) = line.sku_name;
        &self.names[from as usize..from as usize + usize::from(len)]
    }
}

/// A finding of a comparison that the log has: by it every instance shows the same variances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The SKU.
    pub sku: Box<str>,
    /// The location.
    pub location: Box<str>,
    /// The condition: one of [`Account::PHYSICAL`].
    pub condition: Account,
    /// The moment of which the snapshot tells.
    pub as_of_us: TimeUs,
    /// The snapshot, as `source/id`.
    pub snapshot: Box<str>,
    /// What it states.
    pub stated: i64,
}
