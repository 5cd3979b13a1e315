//! `post`: movements from a file.

pub mod input;
pub mod report;
pub mod send;

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use tokio::sync::mpsc;

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    output,
};
use input::{Batches, Format};
use report::Report;

/// Examples for `sellable post --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable post movements.ndjson
  sellable post movements.csv --source wms --rejects rejects.csv
  zcat movements.ndjson.gz | sellable post - --format ndjson --quiet

A line of NDJSON is an object like
  {\"type\":\"received\",\"id\":\"r-1\",\"source\":\"wms\",\"occurred_at\":\"2026-01-31T09:30:00Z\",
   \"sku\":\"2412345678901\",\"quantity\":12,\"location\":\"dc-east\"}
and CSV has the same names in its header row.

Posting a file again is safe: every movement has an id, and counts once. After an interruption,
run the same command again. Exits with 5 if some movements were invalid or parked.";

/// Batches that are read ahead of those in flight.
const READ_AHEAD: usize = 8;

/// Arguments of `sellable post`.
#[derive(Debug, Args)]
pub struct PostArgs {
    /// The file; `-` reads stdin
    file: PathBuf,
    /// Its form; without it, by the end of its name
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Source of movements that name none
    #[arg(long)]
    source: Option<String>,
    /// Write invalid lines to this file, as they came
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// Give up if nothing has been answered for so long
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable post`.
///
/// # Errors
/// If the file cannot be read, or the server does not take it.
pub async fn run(args: PostArgs, context: &Context) -> Result<Exit, Failure> {
    let (file, bytes) = open(&args.file)?;
    let batches = Batches::new(file, format(&args)?, args.source.clone())?;
    // Before anything is written, so that a wrong address leaves no file behind.
    args.server.connect().await?;
    let mut report = Report::new(bytes, args.quiet);
    if let Some(path) = &args.rejects {
        if same_file(path, &args.file) {
            return Err(Failure::usage("--rejects names the file that is posted"));
        }
        report.keep_rejects(path, &batches.header())?;
    }
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    // A thread of its own and not a task of the runtime: one that waits on stdin would keep the
    // runtime from ending after a failure.
    std::thread::spawn(move || {
        for batch in batches {
            if sender.blocking_send(batch).is_err() {
                break;
            }
        }
    });
    let patience = Duration::from_secs(args.patience);
    let sent = send::send(&args.server, receiver, &mut report, patience).await;
    report.finish()?;
    if context.json {
        output::print_json(&report.to_json())?;
    } else {
        output::print(&report.to_text())?;
    }
    match sent {
        Ok(()) => Ok(report.exit()),
        Err(failure) if failure.exit == Exit::Unavailable => {
            Err(failure.hint("run the same command again: what is stored already counts once"))
        }
        Err(failure) => Err(failure),
    }
}

fn format(args: &PostArgs) -> Result<Format, Failure> {
    args.format
        .or_else(|| Format::of_name(&args.file.to_string_lossy()))
        .ok_or_else(|| {
            Failure::usage(format!(
                "the form of {} does not follow from its name",
                args.file.display()
            ))
            .hint("say --format ndjson or --format csv")
        })
}

/// Opens the file; its size in bytes, if it has one.
fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let name = path.display();
    let next = "name a file of movements, or - to read them from stdin";
    let (metadata, file) = opened
        .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")).hint(next))?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!("{name} is a directory")).hint(next));
    }
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(BufReader::with_capacity(1 << 16, file)), bytes))
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
