//! Sends a snapshot, and takes what comes back.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    cli::{
        client::Client,
        exit::{Exit, Failure},
        output::number,
    },
    proto::v1::{
        self as pb, compare_request::Request as Part, compare_response::Response as Answer,
    },
    reconcile::files::Rows,
};

/// Lines of one message.
const LINES: usize = 4_096;
/// Batches that are read ahead, and messages that are sent ahead.
const AHEAD: usize = 4;
/// Most problems that are told one by one.
const PROBLEMS_TOLD_MAX: u64 = 20;
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is to be sent.
pub(super) struct Snapshot {
    /// Of the file, for messages.
    pub(super) name: String,
    pub(super) header: pb::SnapshotHeader,
    pub(super) rows: Box<dyn Rows>,
    /// Its size, if it is known.
    pub(super) bytes: Option<u64>,
    pub(super) quiet: bool,
    pub(super) skip_bad: bool,
}

/// Lines read together.
#[derive(Default)]
struct Batch {
    lines: Vec<pb::SnapshotLine>,
    /// What is wrong with others: line, field, reason.
    bad: Vec<(u64, String, String)>,
    bytes_read: u64,
}

/// Compares a snapshot; hands over what was found, line by line, largest first.
///
/// # Errors
/// If the file cannot be read to its end, has bad lines that are not to be skipped, or the server
/// does not compare it. Nothing was corrected then, unless it was the connection that broke.
pub(super) async fn send(
    client: &Client,
    snapshot: Snapshot,
    mut found: impl FnMut(pb::ReportLine) -> Result<(), Failure>,
) -> Result<pb::Report, Failure> {
    let Snapshot {
        name,
        header,
        rows,
        bytes,
        quiet,
        skip_bad,
    } = snapshot;
    let progress = Progress::new(bytes, quiet);
    let mut batches = read(name.clone(), rows);
    let (requests, queue) = mpsc::channel(AHEAD);
    let feed = Feed {
        requests,
        progress,
        name,
        skip_bad,
        sent: 0,
        bad: 0,
    };
    // A call begins with its first message, and it has no time limit: it takes as long as the file.
    feed.part(Part::Header(header)).await;
    let mut service = client.reconciliation();
    let call = service.compare(tonic::Request::new(ReceiverStream::new(queue)));
    let mut answers = call.await?.into_inner();
    let mut feed = Some(feed);
    loop {
        tokio::select! {
            biased;
            answer = answers.message() => {
                let Some(answer) = answer? else {
                    return Err(Failure::new(Exit::Unavailable, "the server ended without a report")
                        .hint("run the same command again: what was corrected counts once"));
                };
                match answer.response {
                    Some(Answer::Progress(told)) => {
                        if let Some(feed) = &mut feed {
                            feed.progress.tell(told.variance);
                        }
                    }
                    Some(Answer::Found(lines)) => {
                        for line in lines.lines {
                            found(line)?;
                        }
                    }
                    Some(Answer::Report(report)) => return Ok(report),
                    None => {}
                }
            }
            batch = batches.recv(), if feed.is_some() => {
                let own = feed.as_mut().expect("just looked at");
                match batch {
                    Some(batch) => own.send(batch?).await,
                    None => {
                        own.end().await?;
                        feed = None;
                    }
                }
            }
        }
    }
}

/// Reads rows on a thread of its own: one that waits on stdin would keep the runtime from ending.
fn read(name: String, mut rows: Box<dyn Rows>) -> mpsc::Receiver<Result<Batch, Failure>> {
    let (batches, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        loop {
            let batch = next_batch(&name, &mut *rows);
            let ended = match &batch {
                Ok(batch) => batch.lines.is_empty() && batch.bad.is_empty(),
                Err(_) => true,
            };
            let is_end = ended && batch.is_ok();
            if is_end || batches.blocking_send(batch).is_err() || ended {
                return;
            }
        }
    });
    receiver
}

fn next_batch(name: &str, rows: &mut dyn Rows) -> Result<Batch, Failure> {
    let mut batch = Batch::default();
    while batch.lines.len() < LINES && batch.bad.len() < LINES {
        let row = rows.next_row();
        let Some(row) = row.map_err(|error| Failure::usage(format!("{name}: {error}")))? else {
            break;
        };
        match row.read {
            Ok(line) => batch.lines.push(line),
            Err(invalid) => batch.bad.push((row.line, invalid.field, invalid.reason)),
        }
    }
    batch.bytes_read = rows.bytes_read();
    Ok(batch)
}

struct Feed {
    requests: mpsc::Sender<pb::CompareRequest>,
    progress: Progress,
    name: String,
    skip_bad: bool,
    sent: u64,
    bad: u64,
}

impl Feed {
    async fn part(&self, part: Part) {
        let request = pb::CompareRequest {
            request: Some(part),
        };
        // If the call has ended, its answers say why.
        let _ = self.requests.send(request).await;
    }

    async fn send(&mut self, batch: Batch) {
        for (line, field, reason) in batch.bad {
            self.bad += 1;
            if self.bad <= PROBLEMS_TOLD_MAX {
                let Self { name, progress, .. } = self;
                progress.say(&format!("{name}, line {line}: {field}: {reason}"));
            } else if self.bad == PROBLEMS_TOLD_MAX + 1 {
                self.progress
                    .say("more lines are wrong; they are only counted from here on");
            }
        }
        self.sent += batch.lines.len() as u64;
        // Without its end nothing of it counts, so what follows a bad line need not be sent.
        if !batch.lines.is_empty() && (self.bad == 0 || self.skip_bad) {
            let lines = pb::SnapshotLines { lines: batch.lines };
            self.part(Part::Lines(lines)).await;
        }
        self.progress
            .advance(self.sent + self.bad, batch.bytes_read);
    }

    async fn end(&mut self) -> Result<(), Failure> {
        self.progress.finish();
        if self.bad > 0 && !self.skip_bad {
            let what = match self.bad {
                1 => "a line cannot be read".to_owned(),
                many => format!("{} lines cannot be read", number(many)),
            };
            let failure = Failure::usage(format!("{}: {what}; nothing was compared", self.name));
            return Err(failure.hint("correct them, or compare the others with --skip-bad"));
        }
        self.part(Part::End(pb::SnapshotEnd {
            lines: self.sent,
            skipped_lines: self.bad,
        }))
        .await;
        Ok(())
    }
}

/// A bar on a terminal, a line now and then elsewhere, or nothing.
enum Progress {
    None,
    Bar(ProgressBar, u64),
    Lines(Instant, u64),
}

impl Progress {
    fn new(total: Option<u64>, quiet: bool) -> Self {
        use std::io::IsTerminal;
        if quiet {
            return Self::None;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(Instant::now(), 0);
        }
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{bar:32} {percent:>3} %  {msg}  {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
        };
        bar.enable_steady_tick(Duration::from_millis(200));
        let style = ProgressStyle::with_template(template);
        Self::Bar(
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
            0,
        )
    }

    /// So many variances so far.
    fn tell(&mut self, found: u64) {
        match self {
            Self::None => {}
            Self::Bar(_, variances) | Self::Lines(_, variances) => *variances = found,
        }
    }

    fn advance(&mut self, lines: u64, bytes: u64) {
        match self {
            Self::None => {}
            Self::Bar(bar, variances) => {
                bar.set_position(bytes);
                bar.set_message(told(lines, *variances));
            }
            Self::Lines(last, variances) if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                eprintln!("{}", told(lines, *variances));
            }
            Self::Lines(..) => {}
        }
    }

    fn say(&self, line: &str) {
        match self {
            Self::Bar(bar, _) => bar.suspend(|| eprintln!("{line}")),
            _ => eprintln!("{line}"),
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}

fn told(lines: u64, variances: u64) -> String {
    format!("{} lines, {} variances", number(lines), number(variances))
}
