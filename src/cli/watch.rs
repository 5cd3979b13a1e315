//! `watch`.

use std::{collections::HashMap, io::IsTerminal, pin::pin, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    output::{self, json_moment, number},
};
use crate::proto::v1::{self as pb, availability_update::Kind};

/// Examples for `sellable watch --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable watch --channel web
  sellable watch --channel web 2731415926538 4006381333931
  sellable watch --channel web --changes               without the state
  sellable watch --channel web --resume 4711 --json    what changed after a position, one line a number

A connection that is lost is made again, and goes on after the last position. Ctrl-C ends it, and says
from where to resume.";

/// Arguments of `sellable watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The channel
    #[arg(long)]
    channel: String,
    /// Only these SKUs; none: all
    skus: Vec<String>,
    /// Go on after this log position instead of beginning with the state
    #[arg(long, value_name = "POSITION")]
    resume: Option<u64>,
    /// Do not print the state
    #[arg(long)]
    changes: bool,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable watch`.
///
/// # Errors
/// If the server cannot answer, or the channel is gone.
pub async fn run(args: WatchArgs, context: &Context) -> Result<Exit, Failure> {
    let mut watching = Watching {
        position: args.resume,
        log: String::new(),
        shown: HashMap::new(),
        json: context.json,
        states_too: !args.changes,
        colored: std::io::stdout().is_terminal() && !context.json,
    };
    let limit = args.seconds.map(Duration::from_secs);
    let mut end = pin!(async move {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    });
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        let ended = tokio::select! {
            ended = watching.watch(&args) => ended,
            () = &mut end => break,
            _ = &mut interrupted => break,
        };
        let Err(failure) = ended else { continue };
        // What was seen before may go on elsewhere, or here after a restart.
        if failure.exit != Exit::Unavailable || watching.position.is_none() {
            return Err(failure);
        }
        if !context.json {
            eprintln!("{}; trying again", failure.message);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = &mut end => break,
            _ = &mut interrupted => break,
        }
    }
    if let (Some(position), false) = (watching.position, context.json) {
        eprintln!("resume with --resume {position}");
    }
    Ok(Exit::Done)
}

struct Watching {
    /// Everything up to here was printed.
    position: Option<u64>,
    log: String,
    /// Units by SKU, as printed last.
    shown: HashMap<String, i64>,
    json: bool,
    states_too: bool,
    colored: bool,
}

impl Watching {
    /// Watches until the stream ends.
    async fn watch(&mut self, args: &WatchArgs) -> Result<(), Failure> {
        let client = args.server.connect().await?;
        let request = client.stream(pb::WatchRequest {
            channel: args.channel.clone(),
            skus: args.skus.clone(),
            resume_position: self.position,
            resume_log: self.log.clone(),
        });
        let mut updates = client.feeds().watch(request).await?.into_inner();
        while let Some(update) = updates.message().await? {
            self.print(&update)?;
            if update.position > 0 {
                self.position = Some(update.position);
            }
            self.log = update.log;
        }
        Ok(())
    }

    fn print(&mut self, update: &pb::AvailabilityUpdate) -> Result<(), Failure> {
        let is_state = update.kind() == Kind::State;
        let mut text = String::new();
        for own in &update.numbers {
            let before = self.shown.insert(own.sku.clone(), own.units);
            if is_state && !self.states_too {
                continue;
            }
            text += &if self.json {
                format!("{}\n", line_json(update, own, before))
            } else {
                self.line(update, own, before)
            };
        }
        if !self.json && is_state && update.position > 0 && self.states_too {
            text += &format!(
                "-- {} SKUs at position {}; changes follow --\n",
                number(self.shown.len() as u64),
                number(update.position)
            );
        }
        output::print(&text)
    }

    fn line(
        &self,
        update: &pb::AvailabilityUpdate,
        own: &pb::PublishedNumber,
        before: Option<i64>,
    ) -> String {
        let (sign, color) = match before {
            _ if update.kind() == Kind::State => (" ", ""),
            _ if own.units == 0 => ("✗", "\x1b[31m"),
            Some(before) if own.units < before => ("▼", "\x1b[33m"),
            Some(before) if own.units > before => ("▲", "\x1b[32m"),
            None => ("•", ""),
            Some(_) => ("=", ""),
        };
        let (color, plain) = match self.colored && !color.is_empty() {
            true => (color, "\x1b[0m"),
            false => ("", ""),
        };
        let by = match before.filter(|_| update.kind() == Kind::Changes) {
            Some(before) if before != own.units => format!("{:+}", own.units - before),
            _ => String::new(),
        };
        let at = update
            .oldest_logged_at
            .and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok())
            .map_or_else(String::new, |at| at.strftime("%H:%M:%S%.3f").to_string());
        let line = format!(
            "{color}{at:12}  {sign} {:>10}  {by:>8}{plain}  {}",
            number(own.units),
            own.sku
        );
        format!("{}\n", line.trim_end())
    }
}

fn line_json(
    update: &pb::AvailabilityUpdate,
    own: &pb::PublishedNumber,
    before: Option<i64>,
) -> Value {
    json!({
        "kind": update.kind().as_str_name().to_ascii_lowercase(),
        "channel": update.channel,
        "sku": own.sku,
        "units": own.units,
        "before": before,
        "position": update.position,
        "as_of_position": update.as_of_position,
        "oldest_occurred_at": json_moment(update.oldest_occurred_at.as_ref()),
        "oldest_logged_at": json_moment(update.oldest_logged_at.as_ref()),
        "log": update.log,
    })
}
