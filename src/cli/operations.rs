//! `status`, `exceptions` and `digest`.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    output::{self, json_moment, json_original, kind_name, moment, number, span},
};
use crate::proto::v1 as pb;

/// Examples for `sellable status --help`.
pub const STATUS_EXAMPLES: &str = "\
Examples:
  sellable status
  sellable status --wait 60          until it is ready, e.g. in a script
  sellable status --json | jq .cells";

/// Examples for `sellable exceptions --help`.
pub const EXCEPTIONS_EXAMPLES: &str = "\
Examples:
  sellable exceptions
  sellable exceptions --kind conflicting-duplicate --all --json | jq -r .id";

/// Most exceptions in one answer of the server.
const PAGE_MAX: u32 = 1_000;

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
    if context.json {
        output::print_json(&status_json(&status))?;
    } else {
        output::print(&status_text(&status))?;
    }
    Ok(Exit::Done)
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
        ("order lines", number(status.order_lines)),
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
    ])
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
    })
}

/// Kinds of exceptions, as they are written on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExceptionKind {
    Malformed,
    ConflictingDuplicate,
    Stale,
}

/// Arguments of `sellable exceptions`.
#[derive(Debug, Args)]
pub struct ExceptionsArgs {
    /// Only of this kind; may be given several times
    #[arg(long, value_enum)]
    kind: Vec<ExceptionKind>,
    /// At most so many
    #[arg(long, default_value_t = 100, conflicts_with = "all")]
    limit: u32,
    /// However many there are
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable exceptions`.
///
/// # Errors
/// If the server cannot answer.
pub async fn exceptions(args: ExceptionsArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let mut operations = client.operations();
    let kinds: Vec<i32> = args
        .kind
        .iter()
        .map(|kind| match kind {
            ExceptionKind::Malformed => pb::ExceptionKind::Malformed.into(),
            ExceptionKind::ConflictingDuplicate => pb::ExceptionKind::ConflictingDuplicate.into(),
            ExceptionKind::Stale => pb::ExceptionKind::Stale.into(),
        })
        .collect();
    let mut left = if args.all { u32::MAX } else { args.limit };
    let mut rows = Vec::new();
    let mut page_token = String::new();
    let mut total = 0;
    while left > 0 {
        let request = client.request(pb::ListExceptionsRequest {
            kinds: kinds.clone(),
            page_size: left.min(PAGE_MAX),
            page_token,
        });
        let page = operations.list_exceptions(request).await?.into_inner();
        total = page.total;
        left = left.saturating_sub(u32::try_from(page.exceptions.len()).unwrap_or(u32::MAX));
        for exception in &page.exceptions {
            if context.json {
                output::print_json(&exception_json(exception))?;
            } else {
                rows.push(exception_row(exception));
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if !context.json {
        output::print(&exceptions_text(rows, total))?;
    }
    Ok(Exit::Done)
}

fn exceptions_text(rows: Vec<[String; 7]>, total: u64) -> String {
    if rows.is_empty() {
        return format!("{} open exceptions.\n", number(total));
    }
    let shown = rows.len() as u64;
    let mut text = output::table(
        [
            "first seen",
            "kind",
            "source",
            "id",
            ">position",
            ">times",
            "reason",
        ],
        rows,
    );
    text.push_str(&match total.saturating_sub(shown) {
        0 => format!("\n{} open exceptions.\n", number(total)),
        more => format!("\n{} more; --all shows them.\n", number(more)),
    });
    text
}

fn exception_row(exception: &pb::Exception) -> [String; 7] {
    [
        moment(exception.first_seen.as_ref()),
        kind_name(exception.kind),
        exception.source.clone(),
        exception.id.clone(),
        format!("{}/{}", exception.position, exception.index),
        number(exception.occurrences),
        exception.reason.clone(),
    ]
}

fn exception_json(exception: &pb::Exception) -> serde_json::Value {
    json!({
        "kind": kind_name(exception.kind),
        "position": exception.position,
        "index": exception.index,
        "first_seen": json_moment(exception.first_seen.as_ref()),
        "source": exception.source,
        "id": exception.id,
        "reason": exception.reason,
        "occurrences": exception.occurrences,
        "content_type": exception.content_type,
        "original": json_original(exception),
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
            ("order lines", number(digest.order_lines)),
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
