//! Posting corrections until the books hold what is stated.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pb::ReconciliationAction as Action;

use super::{
    comparison::{ReconcileError, not_compared},
    correction::{self, Of},
    policy::{Plan, Policy, is_one_movement},
    tally::Finding,
};
use crate::{
    domain::{
        exceptions::Outcome,
        reconcile::{AsOf, Chunk, Compared, Verdict},
    },
    instance::Instance,
    intake::PostError,
    limits::{BATCH_MOVEMENTS_MAX, SNAPSHOT_CHUNK_LINES},
    proto::v1 as pb,
};

/// How often what still differs is corrected once more. It does only if something else arrives
/// in between, or another instance corrects by other numbers at the same moment.
const ROUNDS_MAX: usize = 4;
/// How long corrections wait for room at the intake.
const FULL_WAIT_MAX: Duration = Duration::from_secs(30);
const FULL_RETRY: Duration = Duration::from_millis(50);

/// Why a correction that was applied has changed nothing.
const COUNTED: &str =
    "a count of the same moment says otherwise, and stands against any correction";

/// Says of every variance what is to become of it.
pub(super) fn plan_of(findings: &mut [Finding], policy: Policy) {
    for finding in findings.iter_mut().filter(|own| own.is_variance()) {
        finding.action = match policy.plan(finding.stated, finding.book) {
            Plan::Report => Action::Reported,
            // Until it is corrected.
            Plan::Hold | Plan::Correct => Action::Held,
        };
    }
}

/// A finding on its way.
struct Work {
    at: usize,
    /// What the books hold at the moment, as far as known.
    book: i64,
    /// How often a correction of just this was known already, and yet the books differ.
    repeats: u32,
}

/// Posts corrections of those findings that may be corrected, and looks whether the books hold what
/// is stated then. If a late movement came in between, or two instances corrected at once by
/// different numbers, they do not: what still differs is corrected again, as far as it may be.
///
/// Says of each what became of it: corrected, parked, or held as before.
///
/// # Errors
/// If corrections cannot be posted, or cells not be compared.
pub(super) async fn settle(
    instance: &Arc<Instance>,
    of: &Of<'_>,
    as_of: AsOf,
    findings: &mut [Finding],
    may_correct: impl Fn(&Finding) -> bool,
) -> Result<(), ReconcileError> {
    let due = |at: usize, book: i64, findings: &[Finding]| {
        let now = Finding {
            book,
            ..findings[at].clone()
        };
        let due = now.is_variance() && is_one_movement(now.stated, book) && may_correct(&now);
        due.then_some(now)
    };
    let mut todo: Vec<Work> = (0..findings.len())
        .filter(|at| findings[*at].action == Action::Held)
        .filter(|at| due(*at, findings[*at].book, findings).is_some())
        .map(|at| Work {
            at,
            book: findings[at].book,
            repeats: 0,
        })
        .collect();
    for _ in 0..ROUNDS_MAX {
        if todo.is_empty() {
            break;
        }
        let mut next = Vec::new();
        for works in todo.chunks(BATCH_MOVEMENTS_MAX) {
            let movements = works.iter().map(|work| {
                let now = Finding {
                    book: work.book,
                    ..findings[work.at].clone()
                };
                correction::encoded(of, &now, work.repeats)
            });
            let outcomes = post(instance, movements.collect()).await?;
            let mut posted = Vec::new();
            for (work, (outcome, duplicate)) in works.iter().zip(outcomes) {
                let finding = &mut findings[work.at];
                match outcome {
                    Outcome::Applied => {
                        finding.action = Action::Corrected;
                        finding.reason = "";
                        posted.push((work, duplicate));
                    }
                    Outcome::Parked(kind) => {
                        finding.action = Action::Parked;
                        finding.reason = kind.advice();
                    }
                }
            }
            for part in posted.chunks(SNAPSHOT_CHUNK_LINES) {
                let again: Vec<&Finding> =
                    part.iter().map(|(work, _)| &findings[work.at]).collect();
                let compared = compare_again(instance, as_of, &again).await?;
                for ((work, duplicate), compared) in part.iter().zip(compared) {
                    let condition = findings[work.at].condition as usize;
                    if compared.verdicts[condition] != Some(Verdict::Variance) {
                        continue;
                    }
                    findings[work.at].action = Action::Held;
                    let book = compared.book[condition];
                    if !*duplicate && book == work.book {
                        // Just what was counted at the same moment: it includes all up to then.
                        findings[work.at].reason = COUNTED;
                        continue;
                    }
                    if due(work.at, book, findings).is_some() {
                        let same = *duplicate && book == work.book;
                        next.push(Work {
                            at: work.at,
                            book,
                            repeats: if same { work.repeats + 1 } else { 0 },
                        });
                    }
                }
            }
        }
        todo = next;
    }
    Ok(())
}

/// Compares single conditions of cells once more.
pub(super) async fn compare_again(
    instance: &Arc<Instance>,
    as_of: AsOf,
    findings: &[&Finding],
) -> Result<Vec<Compared>, ReconcileError> {
    let mut chunk = Chunk::default();
    for finding in findings {
        let mut units = [None; 4];
        units[finding.condition as usize] = Some(finding.stated);
        let at = instance.locations().get(&finding.location);
        chunk.push(&finding.sku, at, units);
    }
    let compared = instance.compare(Arc::new(chunk), as_of).await;
    let (compared, _) = compared.map_err(|error| not_compared(error, as_of))?;
    Ok(compared)
}

/// Posts, and waits while intake is full, but not for ever.
async fn post(
    instance: &Instance,
    movements: Vec<bytes::Bytes>,
) -> Result<Vec<(Outcome, bool)>, PostError> {
    let started = Instant::now();
    loop {
        match instance.post(movements.clone()).await {
            Ok(receipt) => return Ok(receipt.outcomes),
            Err(PostError::Full { .. }) if started.elapsed() < FULL_WAIT_MAX => {
                tokio::time::sleep(FULL_RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}
