//! Reports, for people and for scripts.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    cli::{
        exit::Exit,
        output::{self, json_moment, moment, number},
    },
    proto::v1::{
        self as pb, ReconciliationAction as Action, ReconciliationPolicy as Policy,
        ReconciliationVerdict as Verdict,
    },
};

/// By what variances are summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// By location
    Location,
    /// By SKU
    Sku,
    /// By condition
    Condition,
}

const VERDICTS: [(&str, Verdict); 5] = [
    ("matched", Verdict::Matched),
    ("timing", Verdict::Timing),
    ("variance", Verdict::Variance),
    ("missing_in_snapshot", Verdict::MissingInSnapshot),
    ("missing_in_books", Verdict::MissingInBooks),
];

const ACTIONS: [(&str, Action); 6] = [
    ("none", Action::None),
    ("reported", Action::Reported),
    ("held", Action::Held),
    ("corrected", Action::Corrected),
    ("parked", Action::Parked),
    ("approved", Action::Approved),
];

const CONDITIONS: [(&str, pb::Condition); 4] = [
    ("good", pb::Condition::Good),
    ("quarantined", pb::Condition::Quarantined),
    ("damaged", pb::Condition::Damaged),
    ("return_pending", pb::Condition::ReturnPending),
];

fn by_name<T: Copy>(name: &str, all: &[(&'static str, T)]) -> Result<T, String> {
    let plain = name.replace('-', "_");
    let found = all.iter().find(|(own, _)| *own == plain);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn name_of<T: Copy + PartialEq>(value: T, all: &[(&'static str, T)]) -> &'static str {
    let found = all.iter().find(|(_, own)| *own == value);
    found.map_or("unknown", |(name, _)| *name)
}

/// A verdict by its name.
pub(super) fn verdict_of(name: &str) -> Result<Verdict, String> {
    by_name(name, &VERDICTS)
}

/// An action by its name.
pub(super) fn action_of(name: &str) -> Result<Action, String> {
    by_name(name, &ACTIONS)
}

/// A condition by its name.
pub(super) fn condition_of(name: &str) -> Result<pb::Condition, String> {
    by_name(name, &CONDITIONS)
}

pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    name_of(verdict, &VERDICTS)
}

pub(super) fn action_name(action: Action) -> &'static str {
    name_of(action, &ACTIONS)
}

pub(super) fn condition_name(condition: pb::Condition) -> &'static str {
    name_of(condition, &CONDITIONS)
}

/// The exit code that a report gives.
pub(super) fn exit(report: &pb::Report) -> Exit {
    let summary = report.summary.clone().unwrap_or_default();
    if summary.reported + summary.held + summary.parked > 0 || summary.too_many_variances {
        Exit::Variance
    } else if summary.bad_lines > 0 {
        Exit::Partial
    } else {
        Exit::Done
    }
}

/// A report, for people: what it is about, its counts, sums, and its largest lines.
pub(super) fn to_text(report: &pb::Report, lines: &[pb::ReportLine], by: By) -> String {
    let summary = report.summary.clone().unwrap_or_default();
    let mut out = output::pairs(vec![
        ("snapshot", format!("{}/{}", report.source, report.snapshot)),
        ("as of", as_of(report)),
        ("report", report.report.clone()),
    ]);
    out.push('\n');
    out.push_str(&output::pairs(counts(&summary)));
    if summary.too_many_variances {
        out.push_str(
            "\nThere are more variances than `reconciliation.variances_max`: none was opened or \
             corrected. Is it a snapshot of these books, as of this moment?\n",
        );
    }
    let (what, groups) = match by {
        By::Location => ("location", &summary.by_location),
        By::Sku => ("sku", &summary.by_sku),
        By::Condition => ("condition", &summary.by_condition),
    };
    if !groups.is_empty() {
        out.push('\n');
        out.push_str(&sums(what, groups));
    }
    if !lines.is_empty() {
        out.push('\n');
        out.push_str(&self::lines(lines));
    }
    for (count, what) in [
        (
            summary.held,
            "held: `sellable reconcile approve` posts their corrections",
        ),
        (
            summary.parked,
            "parked: `sellable exceptions --source reconciliation` says why, and releases them",
        ),
    ] {
        if count > 0 {
            out.push_str(&format!("\n{} {what}.\n", number(count)));
        }
    }
    out
}

fn as_of(report: &pb::Report) -> String {
    let at = moment(report.as_of.as_ref());
    match report.watermark.as_str() {
        "" => at,
        id => format!("{at} (up to movement {id})"),
    }
}

fn counts(summary: &pb::ReportSummary) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("cells compared", number(summary.cells)),
        ("matched", number(summary.matched)),
        ("timing", number(summary.timing)),
        ("variance", number(summary.variance)),
    ];
    let mut more = |name, count: u64| {
        if count > 0 {
            rows.push((name, number(count)));
        }
    };
    more("  missing in the snapshot", summary.missing_in_snapshot);
    more("  missing in the books", summary.missing_in_books);
    more("  corrected", summary.corrected);
    more("  held for approval", summary.held);
    more("  approved", summary.approved);
    more("  parked", summary.parked);
    more("open before, and over", summary.closed);
    more("lines skipped", summary.bad_lines);
    rows.push((
        "units",
        format!(
            "{} more and {} fewer in the snapshot",
            number(summary.units_over),
            number(summary.units_short)
        ),
    ));
    rows.push((
        "without its moment",
        format!(
            "{} cells would differ; {} false alarms avoided",
            number(summary.without_as_of),
            number(summary.false_alarms_avoided)
        ),
    ));
    rows
}

fn sums(what: &'static str, groups: &[pb::ReportGroup]) -> String {
    let rows = groups.iter().take(20).map(|group| {
        [
            group.name.clone(),
            number(group.lines),
            number(group.units_over),
            number(group.units_short),
        ]
    });
    output::table([what, ">variances", ">more", ">fewer"], rows.collect())
}

/// Lines as a table.
pub(super) fn lines(lines: &[pb::ReportLine]) -> String {
    let row = |line: &pb::ReportLine| {
        let condition = condition_name(line.condition()).to_owned();
        let verdict = verdict_name(line.verdict()).replace('_', " ");
        [
            line.sku.clone(),
            line.location.clone(),
            condition,
            number(line.stated),
            number(line.book),
            number(line.variance),
            verdict,
            action_name(line.action()).to_owned(),
        ]
    };
    output::table(
        [
            "sku",
            "location",
            "condition",
            ">stated",
            ">book",
            ">variance",
            "verdict",
            "action",
        ],
        lines.iter().map(row).collect(),
    )
}

/// Reports as a table.
pub(super) fn list(reports: &[pb::Report]) -> String {
    if reports.is_empty() {
        return "No snapshot has been compared.\n".to_owned();
    }
    let row = |report: &pb::Report| {
        let summary = report.summary.clone().unwrap_or_default();
        [
            moment(report.compared_at.as_ref()),
            format!("{}/{}", report.source, report.snapshot),
            moment(report.as_of.as_ref()),
            number(summary.cells),
            number(summary.variance),
            number(summary.held),
            report.report.clone(),
        ]
    };
    output::table(
        [
            "compared",
            "snapshot",
            "as of",
            ">cells",
            ">variance",
            ">held",
            "report",
        ],
        reports.iter().map(row).collect(),
    )
}

/// A report as JSON, with lines if there are to be any.
pub(super) fn to_json(report: &pb::Report, lines: Option<&[pb::ReportLine]>) -> Value {
    let s = report.summary.clone().unwrap_or_default();
    let groups = |groups: &[pb::ReportGroup]| -> Value {
        let group = |own: &pb::ReportGroup| {
            json!({
                "name": own.name,
                "lines": own.lines,
                "units_over": own.units_over,
                "units_short": own.units_short,
            })
        };
        groups.iter().map(group).collect()
    };
    let policy = match report.policy() {
        Policy::Correct => "correct",
        _ => "report",
    };
    let mut value = json!({
        "report": report.report,
        "source": report.source,
        "snapshot": report.snapshot,
        "as_of": json_moment(report.as_of.as_ref()),
        "watermark": report.watermark,
        "clock_tolerance_ms": report.clock_tolerance_ms,
        "scope": report.scope,
        "policy": policy,
        "up_to_units": report.up_to_units,
        "up_to_percent": report.up_to_percent,
        "actor": report.actor,
        "compared_at": json_moment(report.compared_at.as_ref()),
        "position": report.position,
        "lines_kept": report.lines_kept,
        "summary": {
            "cells": s.cells,
            "matched": s.matched,
            "timing": s.timing,
            "variance": s.variance,
            "missing_in_snapshot": s.missing_in_snapshot,
            "missing_in_books": s.missing_in_books,
            "lines_over": s.lines_over,
            "lines_short": s.lines_short,
            "units_over": s.units_over,
            "units_short": s.units_short,
            "reported": s.reported,
            "corrected": s.corrected,
            "held": s.held,
            "parked": s.parked,
            "approved": s.approved,
            "closed": s.closed,
            "without_as_of": s.without_as_of,
            "false_alarms_avoided": s.false_alarms_avoided,
            "bad_lines": s.bad_lines,
            "too_many_variances": s.too_many_variances,
            "by_location": groups(&s.by_location),
            "by_sku": groups(&s.by_sku),
            "by_condition": groups(&s.by_condition),
        },
    });
    if let Some(lines) = lines {
        value["lines"] = lines.iter().map(line_to_json).collect();
    }
    value
}

/// A line as JSON.
pub(super) fn line_to_json(line: &pb::ReportLine) -> Value {
    json!({
        "sku": line.sku,
        "location": line.location,
        "condition": condition_name(line.condition()),
        "stated": line.stated,
        "book": line.book,
        "variance": line.variance,
        "verdict": verdict_name(line.verdict()),
        "action": action_name(line.action()),
        "line": line.line,
        "reason": line.reason,
        "correction": line.correction,
    })
}
