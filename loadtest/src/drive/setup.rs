//! What there has to be before the first call: rules and opening stock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use futures::{StreamExt, TryStreamExt, stream};
use prost_types::Timestamp;
use tonic::{Code, Status};

use super::Link;
use crate::{
    Failure,
    account::Account,
    catalogue::Catalogue,
    proto::{
        GetRequest, GetRulesRequest, Movement, Outcome, PostRequest, PutRulesRequest,
        StatusRequest, StatusResponse,
    },
    words::code_name,
};

/// Movements of one message of the opening stock, the most there may be.
const BATCH: usize = 1_000;
/// Messages of it under way at once.
const BATCHES: usize = 16;
const READY_MAX: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(100);

/// How far the setup is, for who watches it.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// Movements posted.
    pub fn posted(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How the server stands, once it is ready.
///
/// # Errors
/// If it does not get ready.
pub async fn ready(link: &Link) -> Result<StatusResponse, Failure> {
    let asked = std::time::Instant::now();
    loop {
        let status = link.operations().status(StatusRequest {}).await;
        let status = status.map_err(|status| told("the server's status", &status))?;
        let status = status.into_inner();
        if status.ready {
            return Ok(status);
        }
        if asked.elapsed() > READY_MAX {
            return Err(Failure::unavailable(format!(
                "the server is still catching up with its log, at position {} of {}",
                status.applied_position, status.log_position
            ))
            .hint("try again when `sellable status` says that it is ready"));
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

/// Puts rules for the scenario's channels in force, if the server has none, or if it is told to.
///
/// # Errors
/// If the server has other rules, which lack one of the channels, or if it refuses these.
pub async fn rules(
    link: &Link,
    catalogue: &Catalogue,
    status: &StatusResponse,
    put: bool,
) -> Result<(), Failure> {
    if status.rules_version == 0 || put {
        let request = PutRulesRequest {
            toml: catalogue.rules(),
            actor: "sellable-loadtest".to_owned(),
            note: "channels of a load test".to_owned(),
            ..PutRulesRequest::default()
        };
        let answer = link.rules().put(request).await;
        answer.map_err(|status| told("the rules of the scenario", &status))?;
        return Ok(());
    }
    let in_force = link.rules().get(GetRulesRequest::default()).await;
    let in_force = in_force.map_err(|status| told("the rules in force", &status))?;
    if in_force.into_inner().toml == catalogue.rules() {
        return Ok(());
    }
    let missing = |channel: &&String| !status.channels.contains(channel);
    match catalogue.channels().iter().find(missing) {
        None => Ok(()),
        Some(channel) => Err(Failure::usage(format!(
            "catalogue.channels: the server's rules have no channel {channel:?}, only {}",
            status.channels.join(", ")
        ))
        .hint("name channels that it has, or replace its rules with --put-rules")),
    }
}

/// Posts the opening stock and enters it into the books.
///
/// # Errors
/// If any of it is not applied.
pub async fn stock(
    links: &[Link],
    catalogue: &Catalogue,
    account: &Account,
    progress: &Progress,
) -> Result<(), Failure> {
    // All of it at one time, a moment ago.
    let at = Timestamp::from(SystemTime::now());
    let mut movements = catalogue.opening_movements();
    let batches = std::iter::from_fn(|| {
        let batch: Vec<Movement> = (&mut movements)
            .take(BATCH)
            .map(|movement| Movement {
                occurred_at: Some(at),
                ..movement
            })
            .collect();
        (!batch.is_empty()).then_some(batch)
    });
    stream::iter(batches.zip(links.iter().cycle()))
        .map(|(batch, link)| async move {
            let count = batch.len() as u64;
            let answer = link.moving.ask(PostRequest { movements: batch }).await;
            let answer = answer.map_err(|status| told("the opening stock", &status))?;
            let bad = answer
                .outcomes
                .iter()
                .find(|outcome| outcome.outcome() != Outcome::Applied);
            if let Some(bad) = bad {
                return Err(Failure::failed(format!(
                    "the opening stock is not applied: {:?}, {}",
                    bad.outcome(),
                    bad.reason
                )));
            }
            progress.0.fetch_add(count, Ordering::Relaxed);
            Ok(())
        })
        .buffer_unordered(BATCHES)
        .try_collect::<()>()
        .await?;
    for cell in 0..catalogue.cells() {
        let slot = cell as u32 % catalogue.width();
        account.open(cell, catalogue.opening(slot));
    }
    Ok(())
}

/// Asks once on each connection and for each channel, uncounted: what is wrong is told at once
/// instead of a million times, and no counted call pays for opening a connection.
///
/// # Errors
/// If any is not answered, or sells nothing of what is there.
pub async fn try_once(links: &[Link], catalogue: &Catalogue) -> Result<(), Failure> {
    for (n, link) in links.iter().enumerate() {
        let channel = &catalogue.channels()[n % catalogue.channels().len()];
        let request = GetRequest {
            channel: channel.clone(),
            skus: vec![catalogue.sku(0)],
            ..GetRequest::default()
        };
        let answer = link.availability().get(request).await;
        let answer = answer.map_err(|status| told("the first query", &status))?;
        let sells = answer.into_inner().items.iter().any(|item| item.ats > 0);
        if n == 0 && !sells {
            return Err(Failure::usage(format!(
                "channel {channel:?} sells nothing of the opening stock by the server's rules"
            ))
            .hint("its sources have to have lt-dc-*; or replace the rules with --put-rules"));
        }
    }
    Ok(())
}

fn told(what: &str, status: &Status) -> Failure {
    let message = format!(
        "the server refuses {what}: {}: {}",
        code_name(status.code()),
        status.message()
    );
    match status.code() {
        Code::Unavailable => Failure::unavailable(message),
        _ => Failure::failed(message),
    }
}
