//! Queries on a schedule, sent and counted.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status, transport::Channel};

use super::{
    draw::Queries,
    report::{Tally, WRONG_ANSWER},
};
use crate::{
    Failure,
    pacer::{self, Due, Load, Sent, Stop},
    proto::{GetRequest, availability_client::AvailabilityClient},
    schedule::Schedule,
    words::code_name,
};

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most calls in flight, over all connections.
    pub in_flight: usize,
    /// How long one call may take from when it is sent.
    pub timeout: Duration,
}

/// How far a run is, for who watches it.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
}

impl Progress {
    /// Calls that have ended, in any way.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Of these, calls that failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Calls in flight, or nearly: the counters are not read at one moment.
    pub fn in_flight(&self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        sent.saturating_sub(self.ended())
    }
}

/// One connection, and what came back on it.
#[derive(Debug)]
struct Connection {
    client: AvailabilityClient<Channel>,
    tally: Mutex<Tally>,
}

impl Connection {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counters are whole at any time, so a panic elsewhere spoils none.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks once on each connection, uncounted: a channel that the server does not know, say, is told
/// at once instead of a million times, and no counted call pays for opening a connection.
///
/// # Errors
/// If any is not answered.
pub async fn try_once(
    channels: &[Channel],
    query: &GetRequest,
    timeout: Duration,
) -> Result<(), Failure> {
    for channel in channels {
        let mut client = AvailabilityClient::new(channel.clone());
        if let Err(status) = get(&mut client, query.clone(), timeout).await {
            let message = format!(
                "the server refuses the first query: {}: {}",
                code_name(status.code()),
                status.message()
            );
            return Err(match status.code() {
                Code::Unavailable => Failure::unavailable(message),
                _ => Failure::failed(message),
            });
        }
    }
    Ok(())
}

/// Runs the schedule to its end, or until it is told to stop, and waits for all calls sent.
///
/// # Errors
/// If the pacer cannot be started, or has panicked.
pub async fn run(
    channels: Vec<Channel>,
    schedule: Schedule,
    queries: Queries,
    limits: Limits,
    progress: Arc<Progress>,
    stop: Stop,
) -> Result<(Sent, Tally), Failure> {
    let connections: Vec<Arc<Connection>> = channels
        .into_iter()
        .map(|channel| {
            Arc::new(Connection {
                client: AvailabilityClient::new(channel),
                tally: Mutex::default(),
            })
        })
        .collect();
    let end = Duration::from_secs(schedule.seconds());
    let asking = Asking {
        schedule,
        queries,
        connections: connections.clone(),
        timeout: limits.timeout,
        progress,
    };
    let (sent, _) = pacer::run(asking, Instant::now(), end, limits.in_flight, stop).await?;
    let mut tally = Tally::default();
    for connection in &connections {
        tally.add(&connection.tally());
    }
    Ok((sent, tally))
}

/// Queries on a schedule.
struct Asking {
    schedule: Schedule,
    queries: Queries,
    connections: Vec<Arc<Connection>>,
    timeout: Duration,
    progress: Arc<Progress>,
}

impl Load for Asking {
    type Call = GetRequest;

    fn next(&mut self) -> Option<(Duration, GetRequest)> {
        let due = self.schedule.next()?;
        Some((due, self.queries.draw()))
    }

    fn send(&mut self, n: u64, due: Due, query: GetRequest, permit: OwnedSemaphorePermit) {
        // The remainder is below the number of connections, so it fits.
        let connection = self.connections[(n % self.connections.len() as u64) as usize].clone();
        let progress = self.progress.clone();
        let (timeout, Due { start, at: due }) = (self.timeout, due);
        progress.sent.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let mut client = connection.client.clone();
            let asked = query.skus.len();
            let delay = start.elapsed().saturating_sub(due);
            let answer = get(&mut client, query, timeout).await;
            let end = start.elapsed();
            let mut tally = connection.tally();
            tally.delay.record(delay);
            tally.last = tally.last.max(end);
            let failed = match answer {
                Ok(answer) if answer.items.len() == asked => {
                    tally.answered += 1;
                    tally.latency.record(end.saturating_sub(due));
                    let unknown = answer.items.iter().filter(|item| !item.known).count();
                    tally.skus_unknown += unknown as u64;
                    false
                }
                Ok(answer) => {
                    let message = format!("{} items for {asked} SKUs", answer.items.len());
                    tally.fail(WRONG_ANSWER, &message);
                    true
                }
                Err(status) => {
                    tally.fail_with(&status);
                    true
                }
            };
            drop(tally);
            progress
                .failed
                .fetch_add(u64::from(failed), Ordering::Relaxed);
            progress.ended.fetch_add(1, Ordering::Relaxed);
            // Last, since the run is over when all permits are back.
            drop(permit);
        });
    }

    fn dropped(&mut self, _: Duration, _: GetRequest) {}
}

/// One call with a limit that also holds while its answer is read, or the run might not end.
async fn get(
    client: &mut AvailabilityClient<Channel>,
    query: GetRequest,
    timeout: Duration,
) -> Result<crate::proto::GetResponse, Status> {
    match tokio::time::timeout(timeout, client.get(query)).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} ms",
            timeout.as_millis()
        ))),
    }
}

#[cfg(test)]
mod tests;
