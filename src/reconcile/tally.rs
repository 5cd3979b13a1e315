//! What a comparison found: counted, and ranked. Pure.

use std::{cmp::Reverse, collections::HashMap, hash::Hash, sync::Arc};

use pb::{ReconciliationAction as Action, ReconciliationVerdict as Found};

use crate::{
    domain::{
        balances::Account,
        reconcile::{Compared, Physical, StatedUnits, Verdict},
    },
    limits::{REPORT_GROUPS_MAX, REPORT_LINES_KEPT_MAX, REPORT_TIMING_LINES_MAX},
    proto::v1 as pb,
};

/// A cell that was compared.
#[derive(Debug)]
pub(super) struct Cell<'c> {
    pub(super) sku: &'c str,
    pub(super) location: &'c Arc<str>,
    /// Number of its line; 0: the snapshot lacks it.
    pub(super) line: u64,
    pub(super) stated: StatedUnits,
    pub(super) compared: &'c Compared,
    /// What the books hold now; `None`: no movement ever touched it.
    pub(super) now: Option<Physical>,
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) sku: Box<str>,
    pub(super) location: Arc<str>,
    pub(super) condition: Account,
    pub(super) stated: i64,
    pub(super) book: i64,
    pub(super) found: Found,
    pub(super) action: Action,
    pub(super) line: u64,
    /// Why its correction is parked.
    pub(super) reason: &'static str,
}

impl Finding {
    pub(super) fn variance(&self) -> i64 {
        self.stated.saturating_sub(self.book)
    }

    pub(super) fn is_variance(&self) -> bool {
        is_variance(self.found)
    }

    /// The place in the report: the largest first; then by name, so that all instances rank alike.
    fn rank(&self) -> (Reverse<u64>, &str, &str, Account) {
        let size = Reverse(self.stated.abs_diff(self.book));
        (size, &self.sku, &self.location, self.condition)
    }

    /// As it is sent and logged.
    pub(super) fn to_proto(&self, correction: String) -> pb::ReportLine {
        pb::ReportLine {
            sku: self.sku.to_string(),
            location: self.location.to_string(),
            condition: condition(self.condition).into(),
            stated: self.stated,
            book: self.book,
            variance: self.variance(),
            verdict: self.found.into(),
            action: self.action.into(),
            line: self.line,
            reason: self.reason.to_owned(),
            correction,
        }
    }
}

/// Whether nothing explains the difference.
pub(super) fn is_variance(found: Found) -> bool {
    matches!(
        found,
        Found::Variance | Found::MissingInSnapshot | Found::MissingInBooks
    )
}

/// The condition of a physical account.
pub(super) fn condition(account: Account) -> pb::Condition {
    match account {
        Account::Quarantined => pb::Condition::Quarantined,
        Account::Damaged => pb::Condition::Damaged,
        Account::ReturnPending => pb::Condition::ReturnPending,
        _ => pb::Condition::Good,
    }
}

/// Counts cells as they are compared, and keeps what is to be told of them.
#[derive(Debug)]
pub(super) struct Tally {
    variances_max: usize,
    variances: usize,
    findings: Vec<Finding>,
    timing: Vec<Finding>,
    summary: pb::ReportSummary,
    by_location: HashMap<Arc<str>, pb::ReportGroup>,
    by_sku: HashMap<Box<str>, pb::ReportGroup>,
    by_condition: [pb::ReportGroup; 4],
}

impl Tally {
    /// One that opens at most so many variances.
    pub(super) fn new(variances_max: usize) -> Self {
        Self {
            variances_max,
            variances: 0,
            findings: Vec::new(),
            timing: Vec::new(),
            summary: pb::ReportSummary::default(),
            by_location: HashMap::new(),
            by_sku: HashMap::new(),
            by_condition: Default::default(),
        }
    }

    /// Cells with a variance so far.
    pub(super) fn cells_with_variance(&self) -> u64 {
        self.summary.variance
    }

    /// There are more variances than may be opened.
    pub(super) fn overflows(&self) -> bool {
        self.variances > self.variances_max
    }

    /// Counts a cell.
    pub(super) fn feed(&mut self, cell: &Cell<'_>) {
        let (mut timing, mut variance, mut differs_now) = (false, false, false);
        for (at, account) in Account::PHYSICAL.into_iter().enumerate() {
            let (Some(stated), Some(verdict)) = (cell.stated[at], cell.compared.verdicts[at])
            else {
                continue;
            };
            differs_now |= stated != cell.now.map_or(0, |now| now[at]);
            let found = match verdict {
                Verdict::Matched if cell.compared.open[at] => Found::Matched,
                Verdict::Matched => continue,
                Verdict::Timing => Found::Timing,
                Verdict::Variance if cell.line == 0 => Found::MissingInSnapshot,
                Verdict::Variance if cell.now.is_none() => Found::MissingInBooks,
                Verdict::Variance => Found::Variance,
            };
            timing |= found == Found::Timing;
            variance |= is_variance(found);
            self.take(Finding {
                sku: cell.sku.into(),
                location: Arc::clone(cell.location),
                condition: account,
                stated,
                book: cell.compared.book[at],
                found,
                action: Action::None,
                line: cell.line,
                reason: "",
            });
        }
        let summary = &mut self.summary;
        let is_listed = cell.line > 0;
        if is_listed || variance || timing {
            summary.cells += 1;
            match (variance, timing) {
                (true, _) => summary.variance += 1,
                (false, true) => summary.timing += 1,
                (false, false) => summary.matched += 1,
            }
        }
        summary.missing_in_snapshot += u64::from(variance && !is_listed);
        summary.missing_in_books += u64::from(variance && is_listed && cell.now.is_none());
        summary.without_as_of += u64::from(differs_now);
        summary.false_alarms_avoided += u64::from(differs_now && !variance);
    }

    fn take(&mut self, finding: Finding) {
        if finding.found == Found::Timing {
            self.timing.push(finding);
            if self.timing.len() >= 2 * REPORT_TIMING_LINES_MAX {
                largest(&mut self.timing, REPORT_TIMING_LINES_MAX);
            }
            return;
        }
        if finding.is_variance() {
            self.variances += 1;
            self.group(&finding);
        }
        self.findings.push(finding);
        // Beyond what may be opened, only the largest are listed.
        if self.overflows() && self.findings.len() >= 2 * REPORT_LINES_KEPT_MAX {
            largest(&mut self.findings, REPORT_LINES_KEPT_MAX);
        }
    }

    fn group(&mut self, finding: &Finding) {
        let units = finding.variance();
        let summary = &mut self.summary;
        if units > 0 {
            summary.lines_over += 1;
            summary.units_over = summary.units_over.saturating_add(units);
        } else {
            summary.lines_short += 1;
            summary.units_short = summary.units_short.saturating_sub(units);
        }
        add(&mut self.by_condition[finding.condition as usize], units);
        let room = !self.overflows();
        add_to(&mut self.by_location, &finding.location, units, true);
        // There may be millions of them.
        add_to(&mut self.by_sku, &finding.sku, units, room);
    }

    /// Lines largest first, and the summary without what is done about them.
    pub(super) fn finish(mut self) -> (Vec<Finding>, pb::ReportSummary) {
        largest(&mut self.timing, REPORT_TIMING_LINES_MAX);
        let kept = match self.overflows() {
            true => REPORT_LINES_KEPT_MAX,
            false => usize::MAX,
        };
        largest(&mut self.findings, kept);
        let mut lines = self.findings;
        lines.append(&mut self.timing);
        largest(&mut lines, usize::MAX);
        let mut summary = self.summary;
        summary.too_many_variances = self.variances > self.variances_max;
        summary.by_location = top(self.by_location);
        summary.by_sku = top(self.by_sku);
        let conditions = Account::PHYSICAL.into_iter().zip(self.by_condition);
        summary.by_condition = top(conditions.map(|(account, group)| (account.name(), group)));
        (lines, summary)
    }
}

/// Counts what was done.
pub(super) fn count_actions(findings: &[Finding], summary: &mut pb::ReportSummary) {
    for finding in findings {
        match finding.action {
            Action::Reported => summary.reported += 1,
            Action::Held => summary.held += 1,
            Action::Corrected => summary.corrected += 1,
            Action::Parked => summary.parked += 1,
            Action::Approved => summary.approved += 1,
            Action::None => summary.closed += u64::from(finding.found == Found::Matched),
        }
    }
}

fn largest(findings: &mut Vec<Finding>, count: usize) {
    findings.sort_unstable_by(|one, other| one.rank().cmp(&other.rank()));
    findings.truncate(count);
}

fn add(group: &mut pb::ReportGroup, units: i64) {
    group.lines += 1;
    let side = match units {
        0.. => &mut group.units_over,
        _ => &mut group.units_short,
    };
    *side = side.saturating_add(units.saturating_abs());
}

fn add_to<K: Hash + Eq + Clone>(
    groups: &mut HashMap<K, pb::ReportGroup>,
    key: &K,
    units: i64,
    room: bool,
) {
    match groups.get_mut(key) {
        Some(group) => add(group, units),
        None if room => add(groups.entry(key.clone()).or_default(), units),
        None => {}
    }
}

/// Those with the most units.
fn top<K: AsRef<str>>(
    groups: impl IntoIterator<Item = (K, pb::ReportGroup)>,
) -> Vec<pb::ReportGroup> {
    let groups = groups.into_iter().filter(|(_, group)| group.lines > 0);
    let mut groups: Vec<pb::ReportGroup> = groups
        .map(|(name, group)| pb::ReportGroup {
            name: name.as_ref().to_owned(),
            ..group
        })
        .collect();
    groups.sort_unstable_by(|one, other| {
        let units = |group: &pb::ReportGroup| group.units_over.saturating_add(group.units_short);
        (Reverse(units(one)), &one.name).cmp(&(Reverse(units(other)), &other.name))
    });
    groups.truncate(REPORT_GROUPS_MAX);
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Good stock alone is stated.
    fn compared(stated: i64, book: i64, verdict: Verdict, open: bool) -> Compared {
        assert!((stated == book) == (verdict == Verdict::Matched));
        Compared {
            book: [book, 7, 7, 7],
            verdicts: [Some(verdict), None, None, None],
            open: [open, false, false, false],
        }
    }

    fn feed(tally: &mut Tally, line: u64, stated: i64, compared: &Compared, now: Option<i64>) {
        tally.feed(&Cell {
            sku: &format!("S{}", stated - compared.book[0]),
            location: &format!("L{line}").into(),
            line,
            stated: [Some(stated), None, None, None],
            compared,
            now: now.map(|now| [now, 0, 0, 0]),
        });
    }

    #[test]
    fn every_cell_is_counted_once_by_the_worst_of_it() {
        let mut tally = Tally::new(100);
        use Verdict::{Matched, Timing, Variance};
        let mut put = |line, stated, book, verdict, open, now| {
            feed(
                &mut tally,
                line,
                stated,
                &compared(stated, book, verdict, open),
                now,
            );
        };
        put(1, 5, 5, Matched, false, Some(5));
        // It moved since: a false alarm that is avoided.
        put(2, 5, 5, Matched, false, Some(3));
        put(3, 5, 5, Matched, true, Some(5));
        put(4, 6, 5, Timing, false, Some(6));
        put(5, 9, 5, Variance, false, Some(9));
        put(6, 5, 15, Variance, true, Some(1));
        put(7, 2, 0, Variance, false, None);
        put(0, 0, 3, Variance, false, Some(3));
        // Nothing is there, and nothing is stated.
        put(0, 0, 0, Matched, false, Some(0));
        let (mut lines, mut summary) = tally.finish();
        for line in lines.iter_mut().filter(|line| line.is_variance()) {
            line.action = Action::Reported;
        }
        count_actions(&lines, &mut summary);
        let order: Vec<_> = lines
            .iter()
            .map(|own| (own.variance(), own.found))
            .collect();
        assert_eq!(
            order,
            [
                (-10, Found::Variance),
                (4, Found::Variance),
                (-3, Found::MissingInSnapshot),
                (2, Found::MissingInBooks),
                (1, Found::Timing),
                (0, Found::Matched),
            ]
        );
        let group = |name: &str, lines, units_over, units_short| pb::ReportGroup {
            name: name.into(),
            lines,
            units_over,
            units_short,
        };
        assert_eq!(summary.by_condition, [group("good", 4, 6, 13)]);
        assert_eq!(summary.by_location[0], group("L6", 1, 0, 10));
        assert_eq!(summary.by_sku[1], group("S4", 1, 4, 0));
        summary.by_location.clear();
        summary.by_sku.clear();
        summary.by_condition.clear();
        assert_eq!(
            summary,
            pb::ReportSummary {
                cells: 8,
                matched: 3,
                timing: 1,
                variance: 4,
                missing_in_snapshot: 1,
                missing_in_books: 1,
                lines_over: 2,
                lines_short: 2,
                units_over: 6,
                units_short: 13,
                reported: 4,
                closed: 1,
                without_as_of: 4,
                false_alarms_avoided: 1,
                ..pb::ReportSummary::default()
            }
        );
    }

    #[test]
    fn beyond_the_limit_only_the_largest_are_listed() {
        for (variances_max, too_many) in [(30_000, false), (29_999, true)] {
            let mut tally = Tally::new(variances_max);
            for n in 1..=30_000 {
                let compared = compared(n, 0, Verdict::Variance, false);
                feed(&mut tally, n as u64, n, &compared, Some(0));
            }
            let (lines, summary) = tally.finish();
            assert_eq!(summary.too_many_variances, too_many);
            assert_eq!(summary.lines_over, 30_000);
            let kept = if too_many {
                REPORT_LINES_KEPT_MAX
            } else {
                30_000
            };
            assert_eq!(lines.len(), kept);
            assert_eq!(lines[0].variance(), 30_000);
            assert_eq!(lines[kept - 1].variance(), 30_001 - kept as i64);
            assert_eq!(summary.by_location.len(), REPORT_GROUPS_MAX);
        }
    }

    proptest! {
        #[test]
        fn no_order_changes_what_is_told(
            cells in prop::collection::vec((1..4i64, -3..4i64, 0..3u8, any::<bool>()), 0..40),
            turn in 0..40usize,
        ) {
            let told = |from: usize| {
                let mut tally = Tally::new(10);
                for at in 0..cells.len() {
                    let at = (at + from) % cells.len();
                    let (stated, difference, verdict, listed) = cells[at];
                    let verdict = match verdict {
                        _ if difference == 0 => Verdict::Matched,
                        0 => Verdict::Timing,
                        _ => Verdict::Variance,
                    };
                    let compared = compared(stated, stated - difference, verdict, at.is_multiple_of(2));
                    let line = if listed { at as u64 + 1 } else { 0 };
                    tally.feed(&Cell {
                        sku: &at.to_string(),
                        location: &format!("L{}", at % 3).into(),
                        line,
                        stated: [Some(stated), None, None, None],
                        compared: &compared,
                        now: Some([1, 0, 0, 0]),
                    });
                }
                tally.finish()
            };
            let (lines, summary) = told(0);
            let (other_lines, mut other) = told(turn % cells.len().max(1));
            prop_assert_eq!(&lines, &other_lines);
            if summary.too_many_variances {
                // By SKU, only those that came before it was too many.
                other.by_sku.clone_from(&summary.by_sku);
            }
            prop_assert_eq!(&summary, &other);
            let groups = &summary.by_location;
            prop_assert_eq!(summary.units_over, groups.iter().map(|own| own.units_over).sum::<i64>());
            prop_assert_eq!(summary.units_short, groups.iter().map(|own| own.units_short).sum::<i64>());
            prop_assert_eq!(summary.cells, summary.matched + summary.timing + summary.variance);
        }
    }
}
