//! `status`, `digest` and `checkpoint`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    feeds::{feed_json, time},
    output::{self, json_moment, moment, number, span},
};
use crate::proto::v1 as pb;

/// Examples for `sellable status --help`.
pub const STATUS_EXAMPLES: &str = "\
Examples:
  sellable status
  sellable status --wait 60          until it is ready, e.g. in a script
  sellable status --json | jq .cells";

/// Arguments of `sellable status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Wait at most so long until the server answers and has caught up with its log
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable status`.
///
/// # Errors
/// If the server cannot answer.
pub async fn status(args: StatusArgs, context: &Context) -> Result<Exit, Failure> {
    let status = match args.wait {
        None => ask(&args.server).await?,
        Some(seconds) => wait_until_ready(&args.server, Duration::from_secs(seconds)).await?,
    };
    let client = args.server.connect().await?;
    let request = client.request(pb::ListFeedsRequest::default());
    let feeds = client.feeds().list(request).await?.into_inner().feeds;
    if context.json {
        let mut json = status_json(&status);
        json["feeds"] = feeds.iter().map(feed_json).collect();
        output::print_json(&json)?;
    } else {
        output::print(&(status_text(&status) + &feeds_text(&feeds)))?;
    }
    Ok(Exit::Done)
}

/// How fresh each channel is, in a line.
fn feeds_text(feeds: &[pb::FeedStatus]) -> String {
    let line = |feed: &pb::FeedStatus| {
        let (occurred, logged) = (
            feed.occurred_to_published.unwrap_or_default(),
            feed.logged_to_published.unwrap_or_default(),
        );
        let mut text = match logged.count {
            0 => format!("{}: nothing has changed since the start", feed.channel),
            count => format!(
                "{}: {} changes published, half within {} of their append and 99 % within {}, \
                 {} of their occurrence",
                feed.channel,
                number(count),
                time(logged.p50_us, count),
                time(logged.p99_us, count),
                time(occurred.p99_us, occurred.count),
            ),
        };
        for own in &feed.deliveries {
            let logged = own.logged_to_delivered.unwrap_or_default();
            if logged.count > 0 {
                text += &format!(
                    "; by {} within {}",
                    own.way().as_str_name().to_ascii_lowercase(),
                    time(logged.p99_us, logged.count)
                );
            }
        }
        ("feed", text)
    };
    output::pairs_as_wide_as("checkpoint", feeds.iter().map(line).collect())
}

async fn ask(server: &Server) -> Result<pb::StatusResponse, Failure> {
    let client = server.connect().await?;
    let request = client.request(pb::StatusRequest {});
    Ok(client.operations().status(request).await?.into_inner())
}

/// Asks again and again until the server is ready.
///
/// # Errors
/// If it is not within that time; the last reason why.
pub async fn wait_until_ready(
    server: &Server,
    at_most: Duration,
) -> Result<pb::StatusResponse, Failure> {
    let start = Instant::now();
    loop {
        let failure = match ask(server).await {
            Ok(status) if status.ready => return Ok(status),
            Ok(status) => Failure::new(
                Exit::Unavailable,
                format!(
                    "the server is catching up with its log: position {} of {}",
                    status.applied_position, status.log_position
                ),
            )
            .hint("try again, or wait longer"),
            Err(failure) if failure.exit != Exit::Unavailable => return Err(failure),
            Err(failure) => failure,
        };
        if start.elapsed() >= at_most {
            return Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn status_text(status: &pb::StatusResponse) -> String {
    let state = match (status.ready, status.not_writable_because.as_str()) {
        (true, "") => "ready".to_owned(),
        (true, why) => format!("ready to be asked, but takes no movements: {why}"),
        (false, "") => "catching up with its log, or about to put its rules in force".to_owned(),
        (false, why) => format!("not ready, and takes no movements: {why}"),
    };
    let lag = status.log_position.saturating_sub(status.applied_position);
    let channels = match status.channels.as_slice() {
        [] => "none; put rules in force with `sellable rules put FILE`".to_owned(),
        channels => channels.join(", "),
    };
    let ids = match &status.ids_forgotten_before {
        None => "none forgotten".to_owned(),
        at => format!("those before {} forgotten", moment(at.as_ref())),
    };
    output::pairs(vec![
        ("state", state),
        (
            "instance",
            format!(
                "{}, version {}, up {}",
                status.instance,
                status.version,
                span(status.uptime_ms)
            ),
        ),
        (
            "log",
            format!("{}, {}", status.log_engine, status.log_identity),
        ),
        (
            "position",
            format!(
                "{} applied, {} behind, log time {}",
                number(status.applied_position),
                number(lag),
                moment(status.log_time.as_ref())
            ),
        ),
        ("shards", number(status.shards)),
        (
            "stock",
            format!(
                "{} SKUs at {} locations, {} cells",
                number(status.skus),
                number(status.locations),
                number(status.cells)
            ),
        ),
        ("lines", format!("{} followed", number(status.order_lines))),
        (
            "movements",
            format!(
                "{} applied, {} duplicate, {} parked",
                number(status.movements_applied),
                number(status.movements_duplicate),
                number(status.movements_parked)
            ),
        ),
        (
            "ids",
            format!("{} remembered, {ids}", number(status.ids_remembered)),
        ),
        (
            "rules",
            format!("version {}, channels: {channels}", status.rules_version),
        ),
        ("checkpoint", checkpoint_text(status.checkpoints.as_ref())),
    ])
}

fn checkpoint_text(own: Option<&pb::CheckpointStatus>) -> String {
    let Some(own) = own else {
        return "none are kept".to_owned();
    };
    let replay = format!("a restart reads {} records", number(own.replay_records));
    let failed = match own.failed {
        0 => String::new(),
        many => format!("; {} failed, the server's log says why", number(many)),
    };
    match own.position {
        0 => format!("none yet; {replay}{failed}"),
        position => format!(
            "at position {}, {} old, {} bytes; {replay}{failed}",
            number(position),
            span(own.age_ms),
            number(own.bytes)
        ),
    }
}

fn checkpoint_json(own: Option<&pb::CheckpointStatus>) -> serde_json::Value {
    own.map_or(serde_json::Value::Null, |own| {
        json!({
            "position": own.position,
            "taken_at": json_moment(own.taken_at.as_ref()),
            "age_ms": own.age_ms,
            "bytes": own.bytes,
            "duration_ms": own.duration_ms,
            "replay_records": own.replay_records,
            "started_from": own.started_from,
            "taken": own.taken,
            "failed": own.failed,
        })
    })
}

fn status_json(status: &pb::StatusResponse) -> serde_json::Value {
    json!({
        "version": status.version,
        "instance": status.instance,
        "log_engine": status.log_engine,
        "log_identity": status.log_identity,
        "log_position": status.log_position,
        "applied_position": status.applied_position,
        "log_time": json_moment(status.log_time.as_ref()),
        "ready": status.ready,
        "shards": status.shards,
        "skus": status.skus,
        "cells": status.cells,
        "locations": status.locations,
        "order_lines": status.order_lines,
        "ids_remembered": status.ids_remembered,
        "ids_forgotten_before": json_moment(status.ids_forgotten_before.as_ref()),
        "movements_applied": status.movements_applied,
        "movements_duplicate": status.movements_duplicate,
        "movements_parked": status.movements_parked,
        "rules_version": status.rules_version,
        "channels": status.channels,
        "not_writable_because": status.not_writable_because,
        "uptime_ms": status.uptime_ms,
        "checkpoints": checkpoint_json(status.checkpoints.as_ref()),
    })
}

/// Arguments of `sellable digest`.
#[derive(Debug, Args)]
pub struct DigestArgs {
    /// Wait until this log position is applied
    #[arg(long, default_value_t = 0, value_name = "POSITION")]
    min_position: u64,
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable digest`. Fails if units were made or lost.
///
/// # Errors
/// If the server cannot answer, or the conservation check fails.
pub async fn digest(args: DigestArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let request = client.request(pb::DigestRequest {
        min_position: args.min_position,
    });
    let digest = client.operations().digest(request).await?.into_inner();
    if context.json {
        output::print_json(&json!({
            "digest": digest.digest,
            "position": digest.position,
            "cells": digest.cells,
            "order_lines": digest.order_lines,
            "units": digest.units,
            "conservation_violations": digest.conservation_violations,
        }))?;
    } else {
        output::print(&output::pairs(vec![
            ("digest", digest.digest.clone()),
            ("position", number(digest.position)),
            ("cells", number(digest.cells)),
            ("lines followed", number(digest.order_lines)),
            ("units", number(digest.units)),
            ("violations", number(digest.conservation_violations)),
        ]))?;
    }
    match digest.conservation_violations {
        0 => Ok(Exit::Done),
        many => Err(Failure::new(
            Exit::Failed,
            format!("of {many} SKUs the units in and out do not give the balances: this is a bug"),
        )
        .hint("please report it, with the data directory or the stream if you can")),
    }
}

/// Seconds that a checkpoint may take at least, whatever the timeout of calls: it rests most of the
/// time, and takes some 15 s for 10 million cells, longer where others are at work.
const CHECKPOINT_TIMEOUT_MIN_S: u64 = 600;

/// Arguments of `sellable checkpoint`.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable checkpoint`.
///
/// # Errors
/// If the server takes none.
pub async fn checkpoint(mut args: CheckpointArgs, context: &Context) -> Result<Exit, Failure> {
    args.server.timeout = args.server.timeout.max(CHECKPOINT_TIMEOUT_MIN_S);
    let client = args.server.connect().await?;
    let request = client.request(pb::CheckpointRequest {});
    let taken = client.operations().checkpoint(request).await?.into_inner();
    if context.json {
        output::print_json(&json!({
            "position": taken.position,
            "bytes": taken.bytes,
            "duration_ms": taken.duration_ms,
            "digest": taken.digest,
            "file": taken.file,
        }))?;
    } else {
        output::print(&output::pairs(vec![
            ("position", number(taken.position)),
            ("bytes", number(taken.bytes)),
            ("took", format!("{} ms", number(taken.duration_ms))),
            ("digest", taken.digest),
            ("file", taken.file),
        ]))?;
    }
    Ok(Exit::Done)
}
