//! Reports of snapshots that were compared, as their records in the log say: the same on every
//! instance.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use prost::Message;

use crate::{
    domain::{
        balances::Account,
        movement::TimeUs,
        reconcile::Statement,
        saved::{Broken, Input, Output},
    },
    limits::{REPORT_LINES_KEPT_MAX, REPORTS_KEPT_MAX, REPORTS_UNFINISHED_MAX},
    log::Position,
    proto::v1 as pb,
    wire::movement::timestamp,
};

/// A report whose records have all come.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What it says as a whole.
    pub head: pb::Report,
    /// Its largest lines, largest first: at most [`REPORT_LINES_KEPT_MAX`].
    pub lines: Vec<pb::ReportLine>,
}

/// The last reports, newest first. Reading costs no lock.
#[derive(Debug, Default)]
pub struct ReportBook {
    reports: ArcSwap<Vec<Arc<Report>>>,
    /// Some of their parts are still to come; the oldest is first.
    unfinished: Mutex<VecDeque<Unfinished>>,
}

#[derive(Debug, Clone)]
struct Unfinished {
    id: String,
    head: Option<pb::Report>,
    /// By part, the head's being the first.
    lines: Vec<Option<Vec<pb::ReportLine>>>,
}

impl ReportBook {
    /// All that are kept, newest first.
    pub fn all(&self) -> Guard<Arc<Vec<Arc<Report>>>> {
        self.reports.load()
    }

    /// The report of this identity, or else the newest about a snapshot of this id.
    pub fn find(&self, name: &str) -> Option<Arc<Report>> {
        let reports = self.reports.load();
        let by_id = reports.iter().find(|report| report.head.report == name);
        let found = by_id.or_else(|| reports.iter().find(|own| own.head.snapshot == name));
        found.cloned()
    }

    /// Takes what a record says. Records come in the order of the log, one after the other.
    pub(crate) fn take(&self, record: pb::Comparison, position: Position, time_us: TimeUs) {
        match record.approval {
            Some(approval) => self.approve(&record.report, approval),
            None => self.take_part(record, position, time_us),
        }
    }

    fn take_part(&self, record: pb::Comparison, position: Position, time_us: TimeUs) {
        let parts = record.parts as usize;
        let part = record.part as usize;
        // No instance writes such a record; every instance passes over it alike.
        if part >= parts || parts > PARTS_MAX || (part == 0) != record.head.is_some() {
            tracing::error!(position, "a comparison's record cannot be read: no report");
            return;
        }
        let mut unfinished = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let same = |own: &Unfinished| own.id == record.report && own.lines.len() == parts;
        let place = unfinished.iter().position(same).unwrap_or_else(|| {
            // Whoever wrote the oldest has crashed in the middle, or it is about to be written anew.
            if unfinished.len() >= REPORTS_UNFINISHED_MAX {
                unfinished.pop_front();
            }
            unfinished.push_back(Unfinished {
                id: record.report.clone(),
                head: None,
                lines: vec![None; parts],
            });
            unfinished.len() - 1
        });
        let own = &mut unfinished[place];
        if let Some(mut head) = record.head {
            head.position = position;
            head.compared_at = Some(timestamp(time_us));
            own.head = Some(head);
        }
        let mut lines = record.lines;
        // The parts before this one hold no fewer lines than a part can, so these come too late.
        let before: usize = own.lines[..part].iter().flatten().map(Vec::len).sum();
        lines.truncate(REPORT_LINES_KEPT_MAX.saturating_sub(before));
        own.lines[part] = Some(lines);
        if own.lines.iter().any(Option::is_none) {
            return;
        }
        let Unfinished { head, lines, .. } = unfinished.remove(place).expect("just looked at");
        drop(unfinished);
        let mut lines: Vec<_> = lines.into_iter().flatten().flatten().collect();
        lines.truncate(REPORT_LINES_KEPT_MAX);
        if let Some(mut head) = head {
            head.lines_kept = lines.len() as u64;
            self.put(Report { head, lines });
        }
    }

    /// What a checkpoint has of it: saved by whoever takes that, as it is now.
    pub(crate) fn begin_saving(&self) -> impl FnOnce() -> Output + Send + 'static {
        let reports = self.reports.load_full();
        let unfinished = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        move || {
            let mut output = Output::new();
            output.count(reports.len());
            for report in reports.iter() {
                output.bytes(&report.head.encode_to_vec());
                save_lines(&report.lines, &mut output);
            }
            output.count(unfinished.len());
            for own in &unfinished {
                output.text(&own.id);
                let head = own.head.as_ref();
                output.bytes(&head.map(Message::encode_to_vec).unwrap_or_default());
                output.count(own.lines.len());
                for part in &own.lines {
                    output.count(part.iter().len());
                    part.iter().for_each(|lines| save_lines(lines, &mut output));
                }
            }
            output
        }
    }

    /// Takes it back.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let head = |input: &mut Input<'_>| -> Result<Option<pb::Report>, Broken> {
            match input.bytes()? {
                [] => Ok(None),
                bytes => decoded(bytes).map(Some),
            }
        };
        let reports = (0..input.count()?).map(|_| {
            let head = head(input)?.unwrap_or_default();
            let lines = load_lines(input)?;
            Ok(Arc::new(Report { head, lines }))
        });
        let reports = reports.collect::<Result<Vec<_>, Broken>>()?;
        let unfinished = (0..input.count()?).map(|_| {
            let (id, head) = (input.text()?.to_owned(), head(input)?);
            let lines = (0..input.count()?).map(|_| match input.count()? {
                0 => Ok(None),
                _ => load_lines(input).map(Some),
            });
            let lines = lines.collect::<Result<_, Broken>>()?;
            Ok(Unfinished { id, head, lines })
        });
        let unfinished = unfinished.collect::<Result<_, Broken>>()?;
        Ok(Self {
            reports: ArcSwap::from_pointee(reports),
            unfinished: Mutex::new(unfinished),
        })
    }

    fn put(&self, report: Report) {
        let mut reports = Vec::clone(&self.reports.load());
        // The same findings again are the same report, only newer.
        reports.retain(|own| own.head.report != report.head.report);
        reports.insert(0, Arc::new(report));
        reports.truncate(REPORTS_KEPT_MAX);
        self.reports.store(Arc::new(reports));
    }

    fn approve(&self, id: &str, approval: pb::ComparisonApproval) {
        let mut reports = Vec::clone(&self.reports.load());
        let Some(report) = reports.iter_mut().find(|own| own.head.report == id) else {
            return;
        };
        let report = Arc::make_mut(report);
        let held = pb::ReconciliationAction::Held;
        for line in approval.lines {
            let same = |own: &&mut pb::ReportLine| {
                (&own.sku, &own.location, own.condition)
                    == (&line.sku, &line.location, line.condition)
            };
            let own = report.lines.iter_mut().find(same);
            let Some(own) = own.filter(|own| own.action() == held) else {
                continue;
            };
            let Some(summary) = &mut report.head.summary else {
                continue;
            };
            match line.action() {
                pb::ReconciliationAction::Approved => summary.approved += 1,
                pb::ReconciliationAction::Parked => summary.parked += 1,
                // It has settled by itself.
                pb::ReconciliationAction::None => {}
                _ => continue,
            }
            summary.held = summary.held.saturating_sub(1);
            own.action = line.action;
            own.reason = line.reason;
            own.correction = line.correction;
        }
        self.reports.store(Arc::new(reports));
    }
}

fn save_lines(lines: &[pb::ReportLine], output: &mut Output) {
    output.count(lines.len());
    let save = |line: &pb::ReportLine| output.bytes(&line.encode_to_vec());
    lines.iter().for_each(save);
}

fn load_lines(input: &mut Input<'_>) -> Result<Vec<pb::ReportLine>, Broken> {
    (0..input.count()?)
        .map(|_| decoded(input.bytes()?))
        .collect()
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> Result<M, Broken> {
    M::decode(bytes).map_err(|_| Broken("it has a report that cannot be read"))
}

/// Parts of one report: a million lines of the greatest length fit with ease.
const PARTS_MAX: usize = 10_000;

/// What a record has the shards open and close: variances, and what matches where one was open.
pub(crate) fn statements(record: &pb::Comparison) -> Vec<Statement> {
    if record.listed_only {
        return Vec::new();
    }
    let snapshot = format!("{}/{}", record.source, record.snapshot);
    let statement = |line: &pb::ReportLine| {
        // Timing says nothing about what was open before.
        let takes_effect = !matches!(
            line.verdict(),
            pb::ReconciliationVerdict::Timing | pb::ReconciliationVerdict::Unspecified
        );
        let condition = account(line.condition()).filter(|_| takes_effect)?;
        Some(Statement {
            sku: line.sku.as_str().into(),
            location: line.location.as_str().into(),
            condition,
            as_of_us: record.as_of_us,
            snapshot: snapshot.as_str().into(),
            stated: line.stated,
        })
    };
    record.lines.iter().filter_map(statement).collect()
}

/// The account of a condition; `None` if it is none.
pub(crate) fn account(condition: pb::Condition) -> Option<Account> {
    Some(match condition {
        pb::Condition::Unspecified => return None,
        pb::Condition::Good => Account::Good,
        pb::Condition::Quarantined => Account::Quarantined,
        pb::Condition::Damaged => Account::Damaged,
        pb::Condition::ReturnPending => Account::ReturnPending,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::{ReconciliationAction as Action, ReconciliationVerdict as Verdict};

    fn line(sku: &str, variance: i64, verdict: Verdict, action: Action) -> pb::ReportLine {
        pb::ReportLine {
            sku: sku.into(),
            location: "dc".into(),
            condition: pb::Condition::Good.into(),
            stated: variance,
            variance,
            verdict: verdict.into(),
            action: action.into(),
            ..pb::ReportLine::default()
        }
    }

    fn head(id: &str, snapshot: &str, parts: u32) -> pb::Comparison {
        pb::Comparison {
            head: Some(pb::Report {
                report: id.into(),
                snapshot: snapshot.into(),
                summary: Some(pb::ReportSummary {
                    held: 2,
                    ..pb::ReportSummary::default()
                }),
                ..pb::Report::default()
            }),
            ..part(id, 0, parts, Vec::new())
        }
    }

    fn part(id: &str, part: u32, parts: u32, lines: Vec<pb::ReportLine>) -> pb::Comparison {
        pb::Comparison {
            report: id.into(),
            part,
            parts,
            source: "erp".into(),
            snapshot: "s".into(),
            as_of_us: 9,
            lines,
            ..pb::Comparison::default()
        }
    }

    fn skus(report: &Report) -> Vec<&str> {
        report.lines.iter().map(|line| line.sku.as_str()).collect()
    }

    #[test]
    fn a_report_is_there_once_all_its_parts_are_in_any_order_and_however_often() {
        let one = |sku| vec![line(sku, 1, Verdict::Variance, Action::Reported)];
        let parts = || {
            [
                head("r", "s", 3),
                part("r", 1, 3, one("A")),
                part("r", 2, 3, one("B")),
            ]
        };
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let book = ReportBook::default();
            let parts = parts();
            for (done, at) in order.into_iter().enumerate() {
                assert!(book.find("r").is_none(), "{done}");
                // As if two instances wrote it, with the log not telling them apart.
                book.take(parts[at].clone(), 7, 1_000_000);
                if done < 2 {
                    book.take(parts[at].clone(), 8, 1_000_000);
                }
            }
            let report = book.find("r").expect("complete");
            assert_eq!(skus(&report), ["A", "B"]);
            assert_eq!(report.head.lines_kept, 2);
            assert!(report.head.position >= 7 && report.head.compared_at.is_some());
        }
    }

    #[test]
    fn the_last_reports_are_kept_newest_first_and_found_by_their_snapshot() {
        let book = ReportBook::default();
        for n in 0..=REPORTS_KEPT_MAX {
            book.take(
                head(&format!("r{n}"), &format!("s{}", n % 2), 1),
                n as u64,
                1,
            );
        }
        assert_eq!(book.all().len(), REPORTS_KEPT_MAX);
        assert!(book.find("r0").is_none());
        assert_eq!(book.all()[0].head.report, format!("r{REPORTS_KEPT_MAX}"));
        let newest = book.find("s1").expect("a report of that snapshot");
        assert_eq!(newest.head.report, format!("r{}", REPORTS_KEPT_MAX - 1));
        // The same once more is the newest, and no other.
        book.take(head("r5", "s1", 1), 99, 1);
        assert_eq!(book.all().len(), REPORTS_KEPT_MAX);
        assert_eq!(book.all()[0].head.position, 99);
    }

    #[test]
    fn the_largest_lines_are_kept_and_unfinished_reports_are_few() {
        let book = ReportBook::default();
        let many = |from: usize, count: usize| {
            (from..from + count)
                .map(|n| line(&n.to_string(), 1, Verdict::Variance, Action::Reported))
                .collect::<Vec<_>>()
        };
        let half = REPORT_LINES_KEPT_MAX / 2 + 1;
        for record in [
            part("r", 1, 3, many(0, half)),
            part("r", 2, 3, many(half, half)),
            head("r", "s", 3),
        ] {
            book.take(record, 1, 1);
        }
        let report = book.find("r").expect("complete");
        assert_eq!(report.lines.len(), REPORT_LINES_KEPT_MAX);
        assert_eq!(report.lines[half].sku, half.to_string());

        for n in 0..=REPORTS_UNFINISHED_MAX {
            book.take(head(&format!("u{n}"), "u", 2), 1, 1);
        }
        book.take(part("u0", 1, 2, Vec::new()), 1, 1);
        assert!(book.find("u0").is_none(), "its head was let go");
        book.take(part("u2", 1, 2, Vec::new()), 1, 1);
        assert!(book.find("u2").is_some());
        // What no instance writes changes nothing.
        book.take(part("x", 3, 2, Vec::new()), 1, 1);
        book.take(part("x", 0, 1, Vec::new()), 1, 1);
        book.take(part("x", 0, u32::MAX, Vec::new()), 1, 1);
        assert!(book.find("x").is_none());
    }

    #[test]
    fn a_checkpoint_has_all_of_it() {
        let book = ReportBook::default();
        let one = |sku| vec![line(sku, 1, Verdict::Variance, Action::Reported)];
        for record in [
            head("r", "s", 2),
            part("r", 1, 2, one("A")),
            head("q", "s", 1),
            part("u", 2, 3, one("B")),
            head("u", "s", 3),
        ] {
            book.take(record, 4, 5);
        }
        let saved = book.begin_saving();
        // What comes afterwards is not in it.
        book.take(part("u", 1, 3, one("C")), 6, 7);
        let bytes = saved().into_bytes();
        let loaded = ReportBook::load(&mut Input::new(&bytes)).expect("sound");
        assert!(loaded.find("u").is_none());
        assert_eq!(loaded.all()[..], book.all()[1..]);
        loaded.take(part("u", 1, 3, one("C")), 6, 7);
        assert_eq!(loaded.all()[..], book.all()[..]);
        for cut in 0..bytes.len() {
            let cut = ReportBook::load(&mut Input::new(&bytes[..cut]));
            assert!(cut.is_err(), "a report that is cut off is broken");
        }
    }

    #[test]
    fn approved_lines_are_held_no_more() {
        let book = ReportBook::default();
        book.take(head("r", "s", 2), 1, 1);
        let held = |sku| line(sku, 1, Verdict::Variance, Action::Held);
        book.take(part("r", 1, 2, vec![held("A"), held("B")]), 1, 1);
        let approval = |sku: &str, action| pb::Comparison {
            report: "r".into(),
            approval: Some(pb::ComparisonApproval {
                lines: vec![line(sku, 1, Verdict::Variance, action)],
                ..pb::ComparisonApproval::default()
            }),
            ..pb::Comparison::default()
        };
        for _ in 0..2 {
            book.take(approval("A", Action::Approved), 2, 1);
        }
        book.take(approval("B", Action::None), 3, 1);
        let report = book.find("r").expect("there");
        let summary = report.head.summary.as_ref().expect("a summary");
        assert_eq!((summary.held, summary.approved), (0, 1));
        assert_eq!(report.lines[0].action(), Action::Approved);
        assert_eq!(report.lines[1].action(), Action::None);
    }

    #[test]
    fn statements_are_made_of_what_opens_and_what_closes() {
        let lines = || {
            vec![
                line("A", 3, Verdict::Variance, Action::Held),
                line("B", 3, Verdict::Timing, Action::None),
                line("C", 3, Verdict::Matched, Action::None),
                line("D", 3, Verdict::MissingInBooks, Action::Reported),
                pb::ReportLine {
                    condition: 77,
                    ..line("E", 3, Verdict::Variance, Action::Held)
                },
            ]
        };
        let found = statements(&part("r", 1, 2, lines()));
        let told: Vec<_> = found.iter().map(|own| (&*own.sku, own.stated)).collect();
        assert_eq!(told, [("A", 3), ("C", 3), ("D", 3)]);
        assert_eq!((&*found[0].snapshot, found[0].as_of_us), ("erp/s", 9));
        let listed = pb::Comparison {
            listed_only: true,
            ..part("r", 1, 2, lines())
        };
        assert!(statements(&listed).is_empty());
    }
}
