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

/// Combinations that are looked at, at the most; with more, whatever lies between the least and the
/// most that could be is taken for explained.
const COMBINATIONS_MAX: usize = 4_096;

/// Which of the differences between a snapshot and the books the movements explain that may be in
/// it or not. Each of `unsure` is one such movement, or several that depend on each other: by how
/// much the books could be other than they are, beside not at all.
///
/// One and the same combination has to explain all conditions of a cell: a reclassification is in,
/// or it is not. If none explains all, that which explains the most counts, and the rest is
/// variance.
pub fn explain(variances: &StatedUnits, unsure: &[Vec<Physical>]) -> [Option<Verdict>; 4] {
    let stated = variances.map(|variance| variance.is_some());
    let mut reachable: Vec<Physical> = vec![Physical::default()];
    for alternatives in unsure {
        let mut more: Vec<Physical> = reachable
            .iter()
            .flat_map(|sum| {
                alternatives.iter().map(|by| {
                    // Of a condition that is not stated, nothing is to be explained.
                    std::array::from_fn(|at| if stated[at] { sum[at] + by[at] } else { 0 })
                })
            })
            .collect();
        more.extend_from_slice(&reachable);
        more.sort_unstable();
        more.dedup();
        reachable = more;
        if reachable.len() > COMBINATIONS_MAX {
            return between(variances, unsure);
        }
    }
    let fits = |sum: &Physical, at: usize| variances[at].is_none_or(|units| units == sum[at]);
    let best = reachable.iter().max_by_key(|sum| {
        let fitting = (0..4).filter(|at| fits(sum, *at)).count();
        let rest: i64 = (0..4)
            .map(|at| variances[at].map_or(0, |units| (units - sum[at]).abs()))
            .sum();
        (
            fitting,
            std::cmp::Reverse(rest),
            **sum == Physical::default(),
        )
    });
    let best = best.expect("not at all is one of them");
    std::array::from_fn(|at| {
        variances[at].map(|units| match units {
            0 => Verdict::Matched,
            _ if fits(best, at) => Verdict::Timing,
            _ => Verdict::Variance,
        })
    })
}

/// The same by the least and the most that could be.
fn between(variances: &StatedUnits, unsure: &[Vec<Physical>]) -> [Option<Verdict>; 4] {
    std::array::from_fn(|at| {
        let sum = |choose: fn(i64, i64) -> i64| -> i64 {
            let each = unsure.iter().map(|alternatives| {
                let units = alternatives.iter().map(|by| by[at]);
                units.fold(0, choose)
            });
            each.sum()
        };
        variances[at].map(|units| match units {
            0 => Verdict::Matched,
            _ if (sum(i64::min)..=sum(i64::max)).contains(&units) => Verdict::Timing,
            _ => Verdict::Variance,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{
        Verdict::{Matched, Timing, Variance},
        *,
    };

    fn explained(variances: [i64; 4], unsure: &[&[Physical]]) -> [Verdict; 4] {
        let unsure: Vec<Vec<Physical>> = unsure.iter().map(|all| all.to_vec()).collect();
        explain(&variances.map(Some), &unsure).map(|verdict| verdict.expect("all were stated"))
    }

    #[test]
    fn some_movements_may_be_in_or_not() {
        let out = |units: i64| [-units, 0, 0, 0];
        let sales: [&[Physical]; 3] = [&[out(1)], &[out(2)], &[out(5)]];
        for (variance, verdict) in [
            (-1, Timing),
            (-3, Timing),
            (-4, Variance),
            (-8, Timing),
            (-9, Variance),
            (1, Variance),
            (0, Matched),
        ] {
            let told = explained([variance, 0, 0, 0], &sales);
            assert_eq!(told, [verdict, Matched, Matched, Matched], "{variance}");
        }
    }

    #[test]
    fn one_movement_is_in_for_all_conditions_or_for_none() {
        let moved: &[Physical] = &[[-1, 0, 1, 0]];
        assert_eq!(
            explained([-1, 0, 1, 0], &[moved]),
            [Timing, Matched, Timing, Matched]
        );
        let told = explained([-1, 0, 0, 0], &[moved]);
        assert_eq!(
            told.iter().filter(|verdict| **verdict == Variance).count(),
            1
        );
        // What is not stated explains nothing and is in nobody's way.
        let told = explain(&[Some(-1), None, None, None], &[moved.to_vec()]);
        assert_eq!(told, [Some(Timing), None, None, None]);
    }

    #[test]
    fn movements_that_depend_on_each_other_are_alternatives() {
        let line: &[Physical] = &[[0, 0, 0, 2], [2, 0, 0, 0]];
        assert_eq!(explained([2, 0, 0, 0], &[line])[0], Timing);
        assert_eq!(
            explained([2, 0, 0, 2], &[line])
                .iter()
                .filter(|v| **v == Variance)
                .count(),
            1
        );
    }

    #[test]
    fn very_many_are_told_by_their_bounds() {
        let many: Vec<Vec<Physical>> = (0..40).map(|n| vec![[1 << n, 0, 0, 0]]).collect();
        let told = |units| explain(&[Some(units), None, None, None], &many)[0];
        assert_eq!(told(12_345_678), Some(Timing));
        assert_eq!(told((1 << 40) - 1), Some(Timing));
        assert_eq!(told(1 << 40), Some(Variance));
        assert_eq!(told(-1), Some(Variance));
    }
}
