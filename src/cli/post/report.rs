//! What posting tells while it goes on, and at its end.

use std::{
    fs::File,
    io::{BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::input::{Batch, Reject};
use crate::{
    cli::{
        exit::{Exit, Failure},
        output::{self, kind_name, number},
    },
    proto::v1 as pb,
};

/// Most problems that are told one by one; beyond it they are counted, and in the file of rejects.
const PROBLEMS_TOLD_MAX: usize = 20;
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What became of the movements so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the log and applied.
    pub applied: u64,
    /// Known before; changed nothing.
    pub duplicate: u64,
    /// In the log, but for a person to decide.
    pub parked: u64,
    /// No movements, or refused.
    pub invalid: u64,
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.applied + self.duplicate + self.parked + self.invalid
    }
}

/// Counts, shows progress, tells problems, keeps rejects.
pub struct Report {
    counts: Counts,
    start: Instant,
    progress: Progress,
    rejects: Option<Rejects>,
    answers: u64,
    position: u64,
    problems: Vec<Value>,
    tell: bool,
}

enum Progress {
    None,
    Bar(ProgressBar),
    Lines(Instant),
}

struct Rejects {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Report {
    /// With a bar over `total` units of progress (or none, if it is not known) on a terminal; with
    /// a line now and then elsewhere; or quiet.
    pub fn new(total: Option<u64>, quiet: bool) -> Self {
        let progress = if quiet {
            Progress::None
        } else if std::io::stderr().is_terminal() {
            Progress::Bar(bar(total))
        } else {
            Progress::Lines(Instant::now())
        };
        Self {
            counts: Counts::default(),
            start: Instant::now(),
            progress,
            rejects: None,
            answers: 0,
            position: 0,
            problems: Vec::new(),
            tell: true,
        }
    }

    /// Does not tell problems one by one.
    pub fn without_problems(mut self) -> Self {
        self.tell = false;
        self
    }

    /// Writes rejects to this file, after `header`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_rejects(&mut self, path: &Path, header: &[u8]) -> Result<(), Failure> {
        let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
        let mut rejects = Rejects {
            path: path.to_owned(),
            file: BufWriter::new(file),
        };
        rejects.write(header)?;
        self.rejects = Some(rejects);
        Ok(())
    }

    /// Answers so far, of any number of movements each.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// What became of the movements so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Rows that are no movements.
    ///
    /// # Errors
    /// If they cannot be kept.
    pub fn rejected(&mut self, rejects: Vec<Reject>) -> Result<(), Failure> {
        for reject in rejects {
            self.counts.invalid += 1;
            self.keep(&reject.raw)?;
            self.problem(
                reject.line,
                "invalid",
                &reject.invalid.field,
                &reject.invalid.reason,
            );
        }
        Ok(())
    }

    /// The server's answer to a batch.
    ///
    /// # Errors
    /// If rejects cannot be kept.
    pub fn answered(&mut self, batch: Batch, answer: &pb::PostResponse) -> Result<(), Failure> {
        self.answers += 1;
        self.position = self.position.max(answer.position);
        for (item, outcome) in batch.items.iter().zip(&answer.outcomes) {
            match outcome.outcome() {
                pb::Outcome::Applied if outcome.duplicate => self.counts.duplicate += 1,
                pb::Outcome::Applied => self.counts.applied += 1,
                pb::Outcome::Parked => {
                    self.counts.parked += 1;
                    let kind = format!("parked as {}", kind_name(outcome.parked_as));
                    self.problem(item.line, &kind, "", &outcome.reason);
                }
                pb::Outcome::Invalid | pb::Outcome::Unspecified => {
                    self.counts.invalid += 1;
                    self.keep(&item.raw)?;
                    self.problem(item.line, "invalid", &outcome.field, &outcome.reason);
                }
            }
        }
        self.advance(batch.progress);
        Ok(())
    }

    /// So far it has come.
    pub fn advance(&mut self, progress: u64) {
        let told = format!(
            "{} movements, {}/s",
            number(self.counts.total()),
            number(self.rate())
        );
        match &mut self.progress {
            Progress::None => {}
            Progress::Bar(bar) => {
                // A total that was only estimated may turn out too small.
                if bar.length().is_some_and(|length| progress > length) {
                    bar.set_length(progress);
                }
                bar.set_position(progress);
                bar.set_message(told);
            }
            Progress::Lines(last) => {
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    eprintln!("{told}");
                }
            }
        }
    }

    /// The connection was lost.
    pub fn waiting(&self, failure: &Failure, delay: Duration) {
        self.say(&format!(
            "{}; trying again in {} ms",
            failure.message,
            delay.as_millis()
        ));
    }

    fn keep(&mut self, raw: &[u8]) -> Result<(), Failure> {
        match &mut self.rejects {
            None => Ok(()),
            Some(rejects) => {
                rejects.write(raw)?;
                // The last line of a file may have no end.
                if raw.ends_with(b"\n") {
                    Ok(())
                } else {
                    rejects.write(b"\n")
                }
            }
        }
    }

    fn problem(&mut self, line: u64, what: &str, field: &str, reason: &str) {
        if !self.tell {
            return;
        }
        let told = self.problems.len();
        if told < PROBLEMS_TOLD_MAX {
            self.problems.push(json!({
                "line": line,
                "problem": what,
                "field": field,
                "reason": reason,
            }));
            let field = if field.is_empty() {
                String::new()
            } else {
                format!("{field}: ")
            };
            self.say(&format!("line {line}: {what}: {field}{reason}"));
        } else if self.counts.invalid + self.counts.parked == PROBLEMS_TOLD_MAX as u64 + 1 {
            self.say("more problems follow; they are only counted from here on");
        }
    }

    fn say(&self, line: &str) {
        match &self.progress {
            Progress::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            _ => eprintln!("{line}"),
        }
    }

    fn rate(&self) -> u64 {
        let milliseconds = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.counts.total() * 1_000 / milliseconds.max(1)
    }

    /// Takes the progress away and flushes the rejects.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn finish(&mut self) -> Result<(), Failure> {
        if let Progress::Bar(bar) = &self.progress {
            bar.finish_and_clear();
        }
        match &mut self.rejects {
            None => Ok(()),
            Some(rejects) => {
                let flushed = rejects.file.flush();
                flushed.map_err(|error| cannot_write(&rejects.path, &error))
            }
        }
    }

    /// The exit code that the counts give.
    pub fn exit(&self) -> Exit {
        if self.counts.invalid + self.counts.parked > 0 {
            Exit::Partial
        } else {
            Exit::Done
        }
    }

    /// The end, for people.
    pub fn to_text(&self) -> String {
        let counts = self.counts;
        let seconds = self.start.elapsed().as_secs_f64();
        let mut rows = vec![
            ("applied", number(counts.applied)),
            ("duplicate", number(counts.duplicate)),
            ("parked", number(counts.parked)),
            ("invalid", number(counts.invalid)),
            (
                "in all",
                format!(
                    "{} in {seconds:.1} s, {}/s",
                    number(counts.total()),
                    number(self.rate())
                ),
            ),
        ];
        if self.position > 0 {
            rows.push(("position", self.position.to_string()));
        }
        let mut out = output::pairs(rows);
        if counts.parked > 0 {
            out.push_str("\nParked movements are listed by `sellable exceptions`.\n");
        }
        if let (Some(rejects), 1..) = (&self.rejects, counts.invalid) {
            out.push_str(&format!(
                "\nInvalid ones are in {}: correct them, and post that file.\n",
                rejects.path.display()
            ));
        }
        out
    }

    /// The end, as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "applied": self.counts.applied,
            "duplicate": self.counts.duplicate,
            "parked": self.counts.parked,
            "invalid": self.counts.invalid,
            "total": self.counts.total(),
            "per_second": self.rate(),
            "elapsed_ms": u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            "position": self.position,
            "problems": self.problems,
        })
    }
}

impl Rejects {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| cannot_write(&self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("cannot write {}: {error}", path.display()),
    )
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:32} {percent:>3} %  {msg}  {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::post::input::Item, domain::movement::Invalid};

    #[test]
    fn outcomes_are_counted_and_rejects_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rejects.ndjson");
        let mut report = Report::new(None, true);
        report.keep_rejects(&path, b"head\n").expect("opens");
        report
            .rejected(vec![Reject {
                line: 1,
                raw: b"one\n".to_vec(),
                invalid: Invalid::new("id", "is empty"),
            }])
            .expect("keeps");
        let outcomes = [
            (pb::Outcome::Applied, false),
            (pb::Outcome::Applied, true),
            (pb::Outcome::Parked, false),
            (pb::Outcome::Invalid, false),
        ];
        let items = (2..6)
            .map(|line| Item {
                line,
                raw: format!("row {line}").into_bytes(),
                movement: pb::Movement::default(),
            })
            .collect();
        let batch = Batch {
            items,
            ..Batch::default()
        };
        let answer = pb::PostResponse {
            outcomes: outcomes
                .iter()
                .map(|(outcome, duplicate)| pb::MovementOutcome {
                    outcome: (*outcome).into(),
                    duplicate: *duplicate,
                    ..pb::MovementOutcome::default()
                })
                .collect(),
            position: 9,
            ..pb::PostResponse::default()
        };
        report.answered(batch, &answer).expect("keeps");
        report.finish().expect("flushes");
        assert_eq!(
            report.counts(),
            Counts {
                applied: 1,
                duplicate: 1,
                parked: 1,
                invalid: 2
            }
        );
        assert_eq!(report.exit(), Exit::Partial);
        assert_eq!(report.to_json()["problems"][0]["line"], 1);
        let kept = std::fs::read_to_string(&path).expect("is there");
        assert_eq!(kept, "head\none\nrow 5\n");
    }
}
