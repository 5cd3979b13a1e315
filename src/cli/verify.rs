//! `verify`: rebuilds the state from the log and compares it with every checkpoint.

use std::{io::IsTerminal, path::Path, sync::Arc};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::{
    Context,
    exit::{Exit, Failure},
    output::{self, number},
    settings::SettingFlags,
};
use crate::{
    app::{AppError, instance_options, open_log},
    bench::Pipeline,
    checkpoint::{format::Contents, store},
    instance::Options,
    limits::FOLLOW_ENTRIES_MAX,
    log::{Bounds, Log, LogError, Position},
    shard::Audit,
};

/// Examples for `sellable verify --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable verify                                      the journal in ./data; its server is stopped
  sellable verify --nats nats://localhost:4222         a stream; servers may go on
  sellable verify --json | jq .digest

It begins at the beginning of the log or, if that was trimmed, at the oldest checkpoint that can be
read, applies every record, and at the position of each checkpoint loads that one and compares.

Exits with 0 if everything is as it should be; with 1 if a checkpoint is damaged or holds another
state than the log gives, or if units were made or lost; with 3 if there is nothing to verify.";

/// Arguments of `sellable verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    settings: SettingFlags,
}

/// How a checkpoint compares.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It gives what the log gives.
    Same,
    /// What was rebuilt begins with it: there is nothing before to compare it with.
    Beginning,
    /// It is of another log, or lies before what the log still holds.
    NotOfThis(String),
    /// It cannot be used.
    Wrong(String),
}

struct Found {
    file: String,
    position: Position,
    bytes: u64,
    verdict: Verdict,
}

/// Runs `sellable verify`.
///
/// # Errors
/// If the log cannot be read, or anything is not as it should be.
pub async fn run(args: VerifyArgs, context: &Context) -> Result<Exit, Failure> {
    let config = args.settings.load(context)?.config;
    let failed = |error: LogError| Failure::from(AppError::Log(error));
    let dir = config.checkpoints_in();
    let options = Options {
        shards: 1,
        ..instance_options(&config, 1)
    };
    let log = open_log(&config).await.map_err(failed)?;
    let bounds = log.bounds().await.map_err(failed)?;
    let mut verify = Verify::new(log, bounds, options, &dir)?;
    let audit = verify.run(!context.json).await?;
    verify.tell(&audit, context.json)?;
    verify.judge(&audit)
}

struct Verify {
    log: Arc<dyn Log>,
    bounds: Bounds,
    options: Options,
    /// By position.
    waiting: std::collections::VecDeque<(Position, Contents)>,
    found: Vec<Found>,
    /// What the rebuilt state begins with: a position, 0 for the beginning.
    from: Position,
}

impl Verify {
    fn new(
        log: Arc<dyn Log>,
        bounds: Bounds,
        options: Options,
        dir: &Path,
    ) -> Result<Self, Failure> {
        let files = store::list(dir).map_err(|error| {
            Failure::usage(format!("cannot read {}: {error}", dir.display()))
                .hint("check `checkpoint.dir`")
        })?;
        if bounds.last == 0 && files.is_empty() {
            let message = "the log is empty, and there are no checkpoints";
            return Err(Failure::new(Exit::NotFound, message).hint("check `data_dir`"));
        }
        let mut verify = Self {
            bounds,
            options,
            waiting: std::collections::VecDeque::new(),
            found: Vec::new(),
            from: 0,
            log,
        };
        let identity = verify.log.identity();
        for (position, path) in files.into_iter().rev() {
            let file = path.display().to_string();
            match Contents::open(&path).and_then(|contents| contents.check().map(|()| contents)) {
                Err(reason) => {
                    let bytes = path.metadata().map_or(0, |file| file.len());
                    verify.found.push(Found {
                        file,
                        position,
                        bytes,
                        verdict: Verdict::Wrong(reason.to_string()),
                    });
                }
                Ok(contents) if !contents.meta.is_of(&identity) => {
                    let of = format!("it is of another log, {}", contents.meta.log_name);
                    verify.add(&contents, Verdict::NotOfThis(of));
                }
                Ok(contents) if contents.meta.position() > bounds.last => {
                    let lost = format!("the log ends at {}, before it", bounds.last);
                    verify.add(&contents, Verdict::Wrong(lost));
                }
                Ok(contents) => verify
                    .waiting
                    .push_back((contents.meta.position(), contents)),
            }
        }
        Ok(verify)
    }

    fn add(&mut self, contents: &Contents, verdict: Verdict) {
        self.found.push(Found {
            file: contents.path.display().to_string(),
            position: contents.meta.position(),
            bytes: contents.bytes,
            verdict,
        });
    }

    /// The state to begin with.
    async fn begin(&mut self) -> Result<Pipeline, Failure> {
        if self.bounds.first <= 1 {
            return Ok(Pipeline::with_options(&self.options));
        }
        while let Some((position, contents)) = self.waiting.pop_front() {
            if position + 1 < self.bounds.first {
                let what = format!("the log begins at {}, after it", self.bounds.first);
                self.add(&contents, Verdict::NotOfThis(what));
                continue;
            }
            if let Err(error) = self.log.check(contents.meta.anchor).await {
                self.add(&contents, Verdict::Wrong(error.to_string()));
                continue;
            }
            match Pipeline::restore(&contents, &self.options) {
                Ok(pipeline) => {
                    self.add(&contents, Verdict::Beginning);
                    self.from = position;
                    return Ok(pipeline);
                }
                Err(reason) => self.add(&contents, Verdict::Wrong(reason.to_string())),
            }
        }
        Err(Failure::new(
            Exit::Failed,
            format!(
                "the log begins at position {}, and no checkpoint can be read from which to go on",
                self.bounds.first
            ),
        )
        .hint("copy a checkpoint of another instance into the directory of checkpoints"))
    }

    /// Applies the whole log, and compares on the way.
    async fn run(&mut self, progress: bool) -> Result<Audit, Failure> {
        let failed = |error: LogError| Failure::from(AppError::Log(error));
        let mut pipeline = self.begin().await?;
        let (mut next, last) = (self.from + 1, self.bounds.last);
        let bar = bar(last - self.from, progress);
        if next <= last {
            let mut reader = self.log.reader(next).await.map_err(failed)?;
            while next <= last {
                let target = self.waiting.front().map_or(last, |(position, _)| *position);
                let many = (target.min(last) + 1 - next).min(FOLLOW_ENTRIES_MAX as u64);
                let entries = reader.next(many as usize).await.map_err(failed)?;
                let end = entries.last().map(|entry| entry.anchor());
                next += entries.len() as u64;
                bar.inc(entries.len() as u64);
                let batch = pipeline.decode(entries).map_err(failed)?;
                pipeline.apply(batch);
                let Some(end) = end.filter(|end| end.position == target) else {
                    continue;
                };
                let is_here = |(position, _): &(Position, Contents)| *position == target;
                if !self.waiting.front().is_some_and(is_here) {
                    continue;
                }
                let (_, contents) = self.waiting.pop_front().expect("it was just seen");
                let verdict = if end == contents.meta.anchor {
                    compare(&contents, &pipeline.audit(), &self.options)
                } else {
                    let what = "the log holds another entry at its position";
                    Verdict::Wrong(what.to_owned())
                };
                self.add(&contents, verdict);
            }
        }
        bar.finish_and_clear();
        Ok(pipeline.audit())
    }

    fn tell(&self, audit: &Audit, json: bool) -> Result<(), Failure> {
        let verdict = |verdict: &Verdict| match verdict {
            Verdict::Same => ("same", String::new()),
            Verdict::Beginning => ("beginning", String::new()),
            Verdict::NotOfThis(reason) => ("not_of_this", reason.clone()),
            Verdict::Wrong(reason) => ("wrong", reason.clone()),
        };
        if json {
            let checkpoints: Vec<Value> = self
                .found
                .iter()
                .map(|found| {
                    let (verdict, reason) = verdict(&found.verdict);
                    json!({
                        "file": found.file,
                        "position": found.position,
                        "bytes": found.bytes,
                        "verdict": verdict,
                        "reason": reason,
                    })
                })
                .collect();
            return output::print_json(&json!({
                "from": self.from,
                "position": self.bounds.last,
                "digest": audit.digest.to_string(),
                "cells": audit.cells,
                "order_lines": audit.order_lines,
                "units": audit.units,
                "conservation_violations": audit.conservation_violations,
                "checkpoints": checkpoints,
            }));
        }
        let from = match self.from {
            0 => "the beginning of the log".to_owned(),
            position => format!("the checkpoint at position {}", number(position)),
        };
        let mut text = output::pairs(vec![
            ("rebuilt from", from),
            ("position", number(self.bounds.last)),
            ("digest", audit.digest.to_string()),
            ("cells", number(audit.cells)),
            ("lines followed", number(audit.order_lines)),
            ("units", number(audit.units)),
            ("violations", number(audit.conservation_violations)),
        ]);
        if !self.found.is_empty() {
            let row = |found: &Found| {
                let told = match &found.verdict {
                    Verdict::Same => "gives the state that the log gives".to_owned(),
                    Verdict::Beginning => "whole; the state was rebuilt from it".to_owned(),
                    Verdict::NotOfThis(reason) => format!("not compared: {reason}"),
                    Verdict::Wrong(reason) => format!("WRONG: {reason}"),
                };
                let (position, bytes) = (number(found.position), number(found.bytes));
                [position, bytes, told, found.file.clone()]
            };
            let rows = self.found.iter().map(row).collect();
            let headings = ["position", "bytes", "checkpoint", "file"];
            text.push_str(&output::table(headings, rows));
        }
        output::print(&text)
    }

    fn judge(&self, audit: &Audit) -> Result<Exit, Failure> {
        let is_wrong = |found: &&Found| matches!(found.verdict, Verdict::Wrong(_));
        let wrong = self.found.iter().filter(is_wrong).count();
        if audit.conservation_violations > 0 {
            let many = audit.conservation_violations;
            let message = format!("of {many} SKUs units were made or lost: this is a bug");
            return Err(Failure::new(Exit::Failed, message).hint("please report it"));
        }
        if wrong > 0 {
            let message = format!("{wrong} of {} checkpoints are wrong", self.found.len());
            return Err(Failure::new(Exit::Failed, message)
                .hint("remove them: an instance does not use them, and the log has everything"));
        }
        Ok(Exit::Done)
    }
}

fn compare(contents: &Contents, rebuilt: &Audit, options: &Options) -> Verdict {
    let own = &contents.meta;
    if (own.horizon, own.lines_retain_us) != (options.horizon, options.lines_retain_us) {
        let what = "it was taken with other settings (`ids.…`, `lines.…`); verify with those";
        return Verdict::NotOfThis(what.to_owned());
    }
    let mut restored = match Pipeline::restore(contents, options) {
        Ok(restored) => restored,
        Err(reason) => return Verdict::Wrong(reason.to_string()),
    };
    let loaded = restored.audit();
    if loaded == *rebuilt {
        return Verdict::Same;
    }
    Verdict::Wrong(format!(
        "it gives {} cells and digest {}, the log {} and {}",
        number(loaded.cells),
        loaded.digest,
        number(rebuilt.cells),
        rebuilt.digest
    ))
}

fn bar(records: u64, shown: bool) -> ProgressBar {
    let target = if shown && std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(records), target);
    let template = "{bar:30} {human_pos} of {human_len} records, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
