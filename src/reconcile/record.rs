//! What was found, as records of the log. Pure.

use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use super::{
    comparison::is_posted,
    correction::{self, Of},
    tally::Finding,
};
use crate::{
    limits::{ACTOR_BYTES_MAX, ID_BYTES_MAX, NOTE_BYTES_MAX, RECORD_BYTES_MAX, SOURCE_BYTES_MAX},
    proto::v1 as pb,
};

/// Most bytes of encoded lines in one part: what else a part has is far smaller than the rest.
const LINES_BYTES_MAX: usize = RECORD_BYTES_MAX - 4_096;
const _: () = assert!(ID_BYTES_MAX + SOURCE_BYTES_MAX + ACTOR_BYTES_MAX + NOTE_BYTES_MAX < 3_072);

/// A finding as it is sent and logged.
pub(super) fn line(of: &Of<'_>, finding: &Finding) -> pb::ReportLine {
    let correction = match is_posted(finding) {
        true => correction::id(of, finding, 0),
        false => String::new(),
    };
    finding.to_proto(correction)
}

/// The report with its identity, and its records, each with the name under which it is written
/// once. Whoever finds the same makes the same identity and the same parts.
pub(super) fn parts(
    mut report: pb::Report,
    of: &Of<'_>,
    findings: &[Finding],
) -> (pb::Report, Vec<(String, pb::Comparison)>) {
    report.report = identity(&report, findings);
    let listed_only = report
        .summary
        .as_ref()
        .is_some_and(|summary| summary.too_many_variances);
    let part = |lines: Vec<pb::ReportLine>| pb::Comparison {
        report: report.report.clone(),
        source: of.source.to_owned(),
        snapshot: of.snapshot.to_owned(),
        as_of_us: of.as_of_us,
        lines,
        listed_only,
        ..pb::Comparison::default()
    };
    let lines = findings.iter().map(|finding| line(of, finding));
    let mut parts = vec![pb::Comparison {
        head: Some(report.clone()),
        ..part(Vec::new())
    }];
    parts.extend(by_size(lines).map(part));
    let count = parts.len() as u32;
    let named = parts.into_iter().enumerate().map(|(number, mut part)| {
        part.part = number as u32;
        part.parts = count;
        (format!("comparison-{}-{number}", part.report), part)
    });
    let named = named.collect();
    (report, named)
}

/// What became of held lines, as records.
pub(super) fn approvals(
    report: &str,
    actor: &str,
    note: &str,
    lines: impl Iterator<Item = pb::ReportLine>,
) -> Vec<(String, pb::Comparison)> {
    let part = |lines: Vec<pb::ReportLine>| {
        let approval = pb::ComparisonApproval {
            actor: actor.to_owned(),
            note: note.to_owned(),
            lines,
        };
        let mut hash = Xxh3::new();
        hash.update(&approval.encode_to_vec());
        let name = format!("approval-{report}-{:032x}", hash.digest128());
        let record = pb::Comparison {
            report: report.to_owned(),
            approval: Some(approval),
            ..pb::Comparison::default()
        };
        (name, record)
    };
    by_size(lines).map(part).collect()
}

/// Lines in groups that fit a record each, in order.
fn by_size(
    lines: impl Iterator<Item = pb::ReportLine>,
) -> impl Iterator<Item = Vec<pb::ReportLine>> {
    let mut lines = lines.peekable();
    std::iter::from_fn(move || {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = lines.next_if(|next| {
            // Its key, and a length of up to three bytes.
            bytes += next.encoded_len() + 4;
            bytes <= LINES_BYTES_MAX
        }) {
            group.push(next);
        }
        (!group.is_empty()).then_some(group)
    })
}

/// Hash of what was found about which snapshot; not of when, or at which position.
fn identity(report: &pb::Report, findings: &[Finding]) -> String {
    let mut hash = Xxh3::new();
    let mut about = report.clone();
    if let Some(summary) = &mut about.summary {
        // What the books hold now has nothing to do with what was found.
        (summary.without_as_of, summary.false_alarms_avoided) = (0, 0);
    }
    hash.update(&about.encode_to_vec());
    for finding in findings {
        for text in [&*finding.sku, &*finding.location, finding.reason] {
            hash.update(text.as_bytes());
            hash.update(&[0]);
        }
        hash.update(&[finding.condition as u8]);
        for number in [finding.stated, finding.book, finding.line as i64] {
            hash.update(&number.to_le_bytes());
        }
        for number in [finding.found as i32, finding.action as i32] {
            hash.update(&number.to_le_bytes());
        }
    }
    format!("{:032x}", hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::balances::Account;

    const OF: Of<'_> = Of {
        source: "erp",
        snapshot: "s",
        as_of_us: 5,
        actor: "",
    };

    fn finding(n: usize) -> Finding {
        Finding {
            sku: format!("sku-{n:090}").into(),
            location: "dc".into(),
            condition: Account::Good,
            stated: n as i64,
            book: -1,
            found: pb::ReconciliationVerdict::Variance,
            action: pb::ReconciliationAction::Reported,
            line: n as u64,
            reason: "",
        }
    }

    fn report(without_as_of: u64, cells: u64) -> pb::Report {
        pb::Report {
            source: "erp".into(),
            snapshot: "s".into(),
            summary: Some(pb::ReportSummary {
                cells,
                without_as_of,
                ..pb::ReportSummary::default()
            }),
            ..pb::Report::default()
        }
    }

    #[test]
    fn many_lines_become_several_records_that_fit_the_log() {
        let findings: Vec<Finding> = (0..30_000).map(finding).collect();
        let (head, parts) = super::parts(report(0, 0), &OF, &findings);
        assert!(parts.len() > 3, "{}", parts.len());
        let mut lines = Vec::new();
        for (number, (name, part)) in parts.iter().enumerate() {
            let record = pb::Record {
                version: 1,
                instance: u64::MAX,
                token: u64::MAX,
                body: Some(pb::record::Body::Comparison(part.clone())),
            };
            assert!(record.encoded_len() <= RECORD_BYTES_MAX);
            assert_eq!(part.head.is_some(), number == 0);
            assert_eq!((part.part, part.parts), (number as u32, parts.len() as u32));
            assert_eq!(*name, format!("comparison-{}-{number}", head.report));
            lines.extend(part.lines.iter().map(|line| line.stated));
        }
        assert!(lines.into_iter().eq(0..30_000));
    }

    #[test]
    fn the_same_findings_are_the_same_report_whenever_they_are_made() {
        let of = |report, findings: &[Finding]| parts(report, &OF, findings).0.report;
        let one = of(report(0, 9), &[finding(1)]);
        assert_eq!(of(report(7, 9), &[finding(1)]), one);
        assert_eq!(one.len(), 32);
        assert_ne!(of(report(0, 8), &[finding(1)]), one);
        assert_ne!(of(report(0, 9), &[finding(2)]), one);
        assert_ne!(of(report(0, 9), &[]), one);
    }
}
