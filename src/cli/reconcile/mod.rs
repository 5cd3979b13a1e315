//! `reconcile`: snapshots of the ERP against the books.

mod export;
mod report;
mod send;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use prost_types::Timestamp;
use serde_json::json;

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    output::{self, number},
};
use crate::{
    limits::CLOCK_TOLERANCE_MS_MAX,
    proto::v1::{self as pb, snapshot_header::Moment},
    reconcile::files::{self, FileError, Format, Rows},
    wire,
};
use export::Export;
use report::By;

/// Examples for `sellable reconcile --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable reconcile stock.csv --as-of 2026-11-20T22:00:00Z --scope '*' --tolerance 2s
  sellable reconcile stock.csv --watermark erp/m-4711 --policy correct --up-to 5
  zcat stock.ndjson.gz | sellable reconcile - --format ndjson --snapshot monday --as-of …
  sellable reconcile show monday --location store-7 --export store-7.csv
  sellable reconcile approve monday --location store-7 --note 'counted'

CSV has a header row: sku, location, and at least one of good, quarantined, damaged and
return_pending. A field that is empty is not stated. NDJSON and Parquet have the same names; null
is not stated. Parquet has whole numbers, as INT32 or INT64; its lines are its rows, from 1.

Comparing a snapshot again is safe: what was corrected counts once. Exits with 7 if variances are
left, and with 5 if lines were skipped and none is.";

/// Lines that are shown, if the user does not say.
const LIMIT_DEFAULT: usize = 20;

/// Arguments of `sellable reconcile`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ReconcileArgs {
    #[command(subcommand)]
    command: Option<ReconcileCommand>,
    #[command(flatten)]
    compare: CompareArgs,
}

#[derive(Debug, Subcommand)]
enum ReconcileCommand {
    /// The last comparisons, newest first
    Reports {
        /// Only those of this source
        #[arg(long, default_value = "", hide_default_value = true)]
        source: String,
        #[command(flatten)]
        server: Server,
    },
    /// What a comparison found
    Show(ShowArgs),
    /// Post corrections that are held
    Approve(ApproveArgs),
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// The snapshot; `-` reads stdin
    file: Option<PathBuf>,
    /// Its form; without it, by the end of its name
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The moment of which it tells, as 2026-11-20T22:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "watermark")]
    as_of: Option<Timestamp>,
    /// The last movement that is in it, instead of a moment
    #[arg(long, value_name = "SOURCE/ID", value_parser = watermark)]
    watermark: Option<(String, String)>,
    /// Its id, by which it is the same if it is compared again; without it, the file's name
    #[arg(long)]
    snapshot: Option<String>,
    /// The system that states it [default: that of the watermark, or erp]
    #[arg(long)]
    source: Option<String>,
    /// Locations of which it is complete, by name or pattern; may be given several times
    #[arg(long, value_name = "PATTERN")]
    scope: Vec<String>,
    /// How far clocks may be apart, as 2s or 500ms
    #[arg(long, default_value = "0s", value_parser = tolerance_ms)]
    tolerance: i64,
    /// What is to be done about variances
    #[arg(long, value_enum, default_value_t = Policy::Report)]
    policy: Policy,
    /// Correct variances of up to so many units; hold the others
    #[arg(long, value_name = "UNITS")]
    up_to: Option<i64>,
    /// Correct variances of up to this share of the books; with --up-to, both have to hold
    #[arg(long, value_name = "PERCENT")]
    up_to_percent: Option<u32>,
    /// Compare the other lines if some cannot be read
    #[arg(long)]
    skip_bad: bool,
    /// Who has it compared
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    actor: String,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
struct Shown {
    /// Sum variances up
    #[arg(long, value_enum, default_value_t = By::Location)]
    by: By,
    /// Show at most so many lines
    #[arg(long, default_value_t = LIMIT_DEFAULT)]
    limit: usize,
    /// Write all lines to this file: .csv, .json or .ndjson
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// A report, or a snapshot by its id
    report: String,
    #[command(flatten)]
    which: Which,
    /// Only lines of this verdict; may be given several times
    #[arg(long, value_parser = report::verdict_of, value_name = "VERDICT")]
    verdict: Vec<pb::ReconciliationVerdict>,
    /// Only lines with this outcome; may be given several times
    #[arg(long, value_parser = report::action_of, value_name = "ACTION")]
    action: Vec<pb::ReconciliationAction>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
struct Which {
    /// Only about this SKU
    #[arg(long, default_value = "", hide_default_value = true)]
    sku: String,
    /// Only about this location
    #[arg(long, default_value = "", hide_default_value = true)]
    location: String,
}

#[derive(Debug, Args)]
struct ApproveArgs {
    /// A report, or a snapshot by its id
    report: String,
    #[command(flatten)]
    which: Which,
    /// Only about this condition
    #[arg(long, value_parser = report::condition_of)]
    condition: Option<pb::Condition>,
    /// Why
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    /// Who approves
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    actor: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// Report them
    Report,
    /// Correct those within the limits, and hold the others
    Correct,
}

fn time(text: &str) -> Result<Timestamp, String> {
    wire::parse_time(text)
}

fn watermark(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((source, id)) if !source.is_empty() && !id.is_empty() => {
            Ok((source.to_owned(), id.to_owned()))
        }
        _ => Err("write it as source/id, e.g. erp/m-4711".to_owned()),
    }
}

fn tolerance_ms(text: &str) -> Result<i64, String> {
    let wrong = || {
        let seconds_max = CLOCK_TOLERANCE_MS_MAX / 1_000;
        format!("write it as 2s or 500ms, up to {seconds_max}s")
    };
    let split = text.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = text.split_at(split.ok_or_else(wrong)?);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        _ => return Err(wrong()),
    };
    let ms = digits.parse::<i64>().ok();
    ms.and_then(|ms| ms.checked_mul(unit_ms))
        .filter(|ms| *ms <= CLOCK_TOLERANCE_MS_MAX)
        .ok_or_else(wrong)
}

/// Runs `sellable reconcile`.
///
/// # Errors
/// If the file cannot be read, or the server does not compare it.
pub async fn run(args: ReconcileArgs, context: &Context) -> Result<Exit, Failure> {
    match (args.command, args.compare) {
        (None, args) => compare(args, context).await,
        (Some(ReconcileCommand::Reports { source, server }), _) => {
            reports(source, &server, context).await
        }
        (Some(ReconcileCommand::Show(args)), _) => show(args, context).await,
        (Some(ReconcileCommand::Approve(args)), _) => approve(args, context).await,
    }
}

async fn compare(args: CompareArgs, context: &Context) -> Result<Exit, Failure> {
    let path = args.file.clone().ok_or_else(|| {
        Failure::usage("no file is named")
            .hint("name the file of a snapshot, or - to read it from stdin")
    })?;
    let header = header(&args, &path)?;
    let name = path.display().to_string();
    let format = args
        .format
        .or_else(|| Format::of_name(&name))
        .ok_or_else(|| {
            Failure::usage(format!("the form of {name} does not follow from its name"))
                .hint("say --format csv, ndjson or parquet")
        })?;
    let (rows, bytes) = open(&path, format)?;
    // Before anything is written, so that a wrong address leaves no file behind.
    let client = args.server.connect().await?;
    let mut export = Export::to(args.shown.export.as_deref())?;
    let snapshot = send::Snapshot {
        name,
        header,
        rows,
        bytes,
        quiet: args.quiet,
        skip_bad: args.skip_bad,
    };
    let mut lines = Vec::new();
    let report = send::send(&client, snapshot, |line| {
        export.add(&line)?;
        if lines.len() < args.shown.limit {
            lines.push(line);
        }
        Ok(())
    })
    .await?;
    export.finish()?;
    tell(&report, &lines, args.shown.by, context)?;
    Ok(report::exit(&report))
}

fn tell(
    report: &pb::Report,
    lines: &[pb::ReportLine],
    by: By,
    context: &Context,
) -> Result<(), Failure> {
    if context.json {
        return output::print_json(&report::to_json(report, Some(lines)));
    }
    output::print(&report::to_text(report, lines, by))
}

fn header(args: &CompareArgs, path: &Path) -> Result<pb::SnapshotHeader, Failure> {
    let snapshot = match &args.snapshot {
        Some(snapshot) => snapshot.clone(),
        None if path == Path::new("-") => {
            let failure = Failure::usage("a snapshot from stdin has no name");
            return Err(failure.hint("give it an id with --snapshot"));
        }
        None => {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }
    };
    let (source, moment) = match (&args.watermark, args.as_of) {
        (Some((source, _)), _) if args.source.as_ref().is_some_and(|own| own != source) => {
            let failure = Failure::usage("--source is another one than that of --watermark");
            return Err(failure.hint("a watermark is of the source that states the snapshot"));
        }
        (Some((source, id)), _) => (source.clone(), Moment::Watermark(id.clone())),
        (None, None) => {
            let failure = Failure::usage("of which moment does it tell?");
            return Err(failure.hint("say --as-of TIME, or --watermark SOURCE/ID"));
        }
        (None, Some(as_of)) => {
            let source = args.source.clone().unwrap_or_else(|| "erp".to_owned());
            (source, Moment::AsOf(as_of))
        }
    };
    let correct = args.policy == Policy::Correct;
    if !correct && (args.up_to.is_some() || args.up_to_percent.is_some()) {
        let failure = Failure::usage("--up-to is about corrections, and --policy is report");
        return Err(failure.hint("say --policy correct"));
    }
    Ok(pb::SnapshotHeader {
        snapshot,
        source,
        moment: Some(moment),
        clock_tolerance_ms: args.tolerance,
        scope: args.scope.clone(),
        policy: match correct {
            true => pb::ReconciliationPolicy::Correct.into(),
            false => pb::ReconciliationPolicy::Report.into(),
        },
        up_to_units: args.up_to,
        up_to_percent: args.up_to_percent,
        skip_bad_lines: args.skip_bad,
        actor: args.actor.clone(),
    })
}

/// Opens the file; its size in bytes, if it has one.
fn open(path: &Path, format: Format) -> Result<(Box<dyn Rows>, Option<u64>), Failure> {
    let unreadable = |error: FileError| Failure::usage(format!("{}: {error}", path.display()));
    if path == Path::new("-") {
        let rows = files::open(std::io::stdin(), format).map_err(unreadable)?;
        return Ok((rows, None));
    }
    let next = "name the file of a snapshot, or - to read it from stdin";
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|error| {
        Failure::usage(format!("cannot read {}: {error}", path.display())).hint(next)
    })?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!("{} is a directory", path.display())).hint(next));
    }
    let bytes = metadata.is_file().then_some(metadata.len());
    let rows = files::open_file(file, format).map_err(unreadable)?;
    Ok((rows, bytes))
}

async fn reports(source: String, server: &Server, context: &Context) -> Result<Exit, Failure> {
    let client = server.connect().await?;
    let request = client.request(pb::ListReportsRequest {
        source,
        ..pb::ListReportsRequest::default()
    });
    let reports = client.reconciliation().list_reports(request).await?;
    let reports = reports.into_inner().reports;
    if context.json {
        for report in &reports {
            output::print_json(&report::to_json(report, None))?;
        }
    } else {
        output::print(&report::list(&reports))?;
    }
    Ok(Exit::Done)
}

async fn show(args: ShowArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let mut export = Export::to(args.shown.export.as_deref())?;
    let wanted = match &args.shown.export {
        Some(_) => usize::MAX,
        None => args.shown.limit,
    };
    let (mut lines, mut seen, mut page_token) = (Vec::new(), 0, String::new());
    let report = loop {
        let request = client.request(pb::GetReportRequest {
            report: args.report.clone(),
            sku: args.which.sku.clone(),
            location: args.which.location.clone(),
            verdicts: args.verdict.iter().map(|own| (*own).into()).collect(),
            actions: args.action.iter().map(|own| (*own).into()).collect(),
            page_token,
            ..pb::GetReportRequest::default()
        });
        let page = client.reconciliation().get_report(request).await?;
        let page = page.into_inner();
        seen += page.lines.len();
        for line in page.lines {
            export.add(&line)?;
            if lines.len() < args.shown.limit {
                lines.push(line);
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() || seen >= wanted {
            break page.report.unwrap_or_default();
        }
    };
    export.finish()?;
    tell(&report, &lines, args.shown.by, context)?;
    Ok(Exit::Done)
}

async fn approve(args: ApproveArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    // Corrections are posted and compared: that takes as long as it takes.
    let request = tonic::Request::new(pb::ApproveRequest {
        report: args.report,
        sku: args.which.sku,
        location: args.which.location,
        condition: args.condition.unwrap_or_default().into(),
        actor: args.actor,
        note: args.note,
    });
    let approved = client.reconciliation().approve(request).await?.into_inner();
    if context.json {
        let lines: Vec<_> = approved.lines.iter().map(report::line_to_json).collect();
        output::print_json(&json!({
            "corrected": approved.corrected,
            "parked": approved.parked,
            "settled": approved.settled,
            "too_large": approved.too_large,
            "position": approved.position,
            "lines": lines,
        }))?;
    } else {
        let mut text = output::pairs(vec![
            ("corrected", number(approved.corrected)),
            ("parked", number(approved.parked)),
            ("settled before", number(approved.settled)),
            ("too large", number(approved.too_large)),
            ("position", approved.position.to_string()),
        ]);
        let lines = &approved.lines[..approved.lines.len().min(LIMIT_DEFAULT)];
        text.push('\n');
        text.push_str(&report::lines(lines));
        output::print(&text)?;
    }
    Ok(match approved.parked + approved.too_large {
        0 => Exit::Done,
        _ => Exit::Variance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_and_watermarks_are_read() {
        assert_eq!(tolerance_ms("2s"), Ok(2_000));
        assert_eq!(tolerance_ms("0s"), Ok(0));
        assert_eq!(tolerance_ms("250ms"), Ok(250));
        assert_eq!(tolerance_ms("60m"), Ok(3_600_000));
        for wrong in [
            "2",
            "s",
            "-1s",
            "1.5s",
            "3601s",
            "2h",
            "99999999999999999999s",
        ] {
            assert!(tolerance_ms(wrong).is_err(), "{wrong}");
        }
        let read = watermark("erp/a/b").expect("right");
        assert_eq!(read, ("erp".to_owned(), "a/b".to_owned()));
        assert!(watermark("erp").is_err() && watermark("/7").is_err());
    }
}
