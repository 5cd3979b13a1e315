//! Corrections that were held, and that a person approves.

use std::sync::Arc;

use pb::{ReconciliationAction as Action, ReconciliationVerdict as Found};

use super::{
    comparison::ReconcileError,
    correction::Of,
    policy::is_one_movement,
    record,
    settle::{compare_again, settle},
    tally::Finding,
};
use crate::{
    domain::reconcile::{AsOf, Verdict},
    instance::Instance,
    intake::reports::account,
    limits::SNAPSHOT_CHUNK_LINES,
    log::Position,
    proto::v1 as pb,
    wire::movement::optional_time_us,
};

/// Which of the corrections that are held; an empty one takes all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of this SKU.
    pub sku: String,
    /// Of this location.
    pub location: String,
    /// Of this condition, unless it is unspecified.
    pub condition: pb::Condition,
}

impl Selection {
    fn takes(&self, line: &pb::ReportLine) -> bool {
        let same = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        same(&self.sku, &line.sku)
            && same(&self.location, &line.location)
            && (self.condition == pb::Condition::Unspecified || self.condition == line.condition())
    }
}

/// What became of them, in lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Approved {
    /// Corrected.
    pub corrected: u64,
    /// Posted, but parked.
    pub parked: u64,
    /// Nothing differs any more.
    pub settled: u64,
    /// Too large for one movement.
    pub too_large: u64,
    /// All of them, as they are now.
    pub lines: Vec<pb::ReportLine>,
    /// Position by which they count.
    pub position: Position,
}

/// Posts corrections that are held, as far as they are still due.
///
/// # Errors
/// If there is no such report, nothing of it is held, or its moment is too long ago by now.
pub async fn approve(
    instance: &Arc<Instance>,
    report: &str,
    selection: &Selection,
    actor: &str,
    note: &str,
) -> Result<Approved, ReconcileError> {
    let kept = instance.reports().find(report);
    let kept = kept.ok_or_else(|| ReconcileError::UnknownReport(report.to_owned()))?;
    let head = &kept.head;
    let held = kept
        .lines
        .iter()
        .filter(|line| line.action() == Action::Held && selection.takes(line));
    let mut findings: Vec<Finding> = held.filter_map(finding).collect();
    if findings.is_empty() {
        return Err(ReconcileError::NothingHeld(head.report.clone()));
    }
    // Nothing is ambiguous any more: by now, what was under way has arrived.
    let as_of_us = optional_time_us("as_of", head.as_of.as_ref())
        .ok()
        .flatten();
    let as_of = AsOf::exactly(as_of_us.unwrap_or_default());
    let of = Of {
        source: &head.source,
        snapshot: &head.snapshot,
        as_of_us: as_of.us,
        actor,
    };
    for part in findings.chunks_mut(SNAPSHOT_CHUNK_LINES) {
        let again: Vec<&Finding> = part.iter().collect();
        let compared = compare_again(instance, as_of, &again).await?;
        for (finding, compared) in part.iter_mut().zip(compared) {
            let condition = finding.condition as usize;
            finding.book = compared.book[condition];
            if compared.verdicts[condition] == Some(Verdict::Matched) {
                finding.found = Found::Matched;
                finding.action = Action::None;
            }
        }
    }
    settle(instance, &of, as_of, &mut findings, |_| true).await?;
    let mut approved = Approved::default();
    for finding in &mut findings {
        match finding.action {
            Action::Corrected => {
                finding.action = Action::Approved;
                approved.corrected += 1;
            }
            Action::Parked => approved.parked += 1,
            Action::None => approved.settled += 1,
            _ if !is_one_movement(finding.stated, finding.book) => approved.too_large += 1,
            _ => {}
        }
    }
    approved.lines = findings.iter().map(|own| record::line(&of, own)).collect();
    let changed = approved
        .lines
        .iter()
        .filter(|line| line.action() != Action::Held);
    let records = record::approvals(&head.report, actor, note, changed.cloned());
    approved.position = instance.put_comparison(records).await?;
    Ok(approved)
}

/// The finding of a line; `None` if it is of no condition that is known.
fn finding(line: &pb::ReportLine) -> Option<Finding> {
    Some(Finding {
        sku: line.sku.as_str().into(),
        location: line.location.as_str().into(),
        condition: account(line.condition())?,
        stated: line.stated,
        book: line.book,
        found: line.verdict(),
        action: line.action(),
        line: line.line,
        reason: "",
    })
}
