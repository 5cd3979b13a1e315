//! Sends each call when it is due, and waits for what is under way.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    Failure,
    proto::{GetRequest, availability_client::AvailabilityClient},
    queries::Queries,
    report::{Sent, Tally, WRONG_ANSWER, code_name},
    schedule::Schedule,
};

/// How long calls that are overdue may still be sent after the end of the schedule.
pub const OVERTIME: Duration = Duration::from_secs(2);
/// How soon the pacer notices that it is to stop, at the latest.
const STOP_NOTICED: Duration = Duration::from_millis(50);

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most calls in flight, over all connections.
    pub in_flight: usize,
    /// How long one call may take from when it is sent.
    pub timeout: Duration,
}

/// Holds the time at which the run was told to stop, once it was.
pub type Stop = watch::Receiver<Option<Instant>>;

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
    let in_flight = Arc::new(Semaphore::new(limits.in_flight));
    let pacer = Pacer {
        start: Instant::now(),
        connections: connections.clone(),
        in_flight: in_flight.clone(),
        timeout: limits.timeout,
        progress,
        stop,
        runtime: Handle::current(),
    };
    let (done, sent) = oneshot::channel();
    // A thread and not a task: the runtime's timer has a resolution of a millisecond, which would
    // be most of the latency of a fast server.
    thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || done.send(pacer.run(schedule, queries)))
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
    let sent = sent
        .await
        .map_err(|_| Failure::failed("the pacer ended unexpectedly"))?;
    // Whoever holds all permits knows that no call is under way. Each call has its timeout, so
    // this ends.
    let all = u32::try_from(limits.in_flight).unwrap_or(u32::MAX);
    let _none_in_flight = in_flight
        .acquire_many(all)
        .await
        .map_err(|_| Failure::failed("the limit of calls in flight was lifted"))?;
    let mut tally = Tally::default();
    for connection in &connections {
        tally.add(&connection.tally());
    }
    Ok((sent, tally))
}

/// What the thread that keeps the time holds.
struct Pacer {
    start: Instant,
    connections: Vec<Arc<Connection>>,
    in_flight: Arc<Semaphore>,
    timeout: Duration,
    progress: Arc<Progress>,
    stop: Stop,
    runtime: Handle,
}

impl Pacer {
    fn run(mut self, mut schedule: Schedule, mut queries: Queries) -> Sent {
        let end = Duration::from_secs(schedule.seconds()) + OVERTIME;
        let mut sent = Sent::default();
        let mut not_sent = None;
        for due in schedule.by_ref() {
            // Drawn ahead of time, so that drawing delays no call.
            let query = queries.draw();
            let permit = if self.wait_until(due) {
                self.permit(end, &mut sent.held_back)
            } else {
                None
            };
            let Some(permit) = permit else {
                not_sent = Some(due);
                break;
            };
            self.send(sent.sent, due, query, permit);
            sent.sent += 1;
        }
        if not_sent.is_some() {
            let stopped = *self.stop.borrow();
            sent.interrupted = stopped.map(|at| at.saturating_duration_since(self.start));
        }
        // What came to be due only after a stop was not to be sent.
        let until = sent.interrupted.unwrap_or(end);
        let left = not_sent.into_iter().chain(schedule);
        sent.dropped = left.take_while(|due| *due <= until).count() as u64;
        sent
    }

    /// False if it is to stop instead.
    fn wait_until(&self, due: Duration) -> bool {
        loop {
            if self.stop.borrow().is_some() {
                return false;
            }
            let left = due.saturating_sub(self.start.elapsed());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left.min(STOP_NOTICED));
        }
    }

    /// Leave for one more call in flight, waited for if need be; none if the run ends first.
    fn permit(&mut self, end: Duration, held_back: &mut u64) -> Option<OwnedSemaphorePermit> {
        // Also without any limit reached: the pacer itself may be what cannot keep up.
        if self.start.elapsed() >= end {
            return None;
        }
        let in_flight = self.in_flight.clone();
        if let Ok(permit) = in_flight.clone().try_acquire_owned() {
            return Some(permit);
        }
        let end = tokio::time::Instant::from_std(self.start + end);
        let stop = &mut self.stop;
        let permit = self.runtime.block_on(async {
            tokio::select! {
                permit = in_flight.acquire_owned() => permit.ok(),
                () = tokio::time::sleep_until(end) => None,
                _ = stop.wait_for(Option::is_some) => None,
            }
        });
        *held_back += u64::from(permit.is_some());
        permit
    }

    fn send(&self, n: u64, due: Duration, query: GetRequest, permit: OwnedSemaphorePermit) {
        // The remainder is below the number of connections, so it fits.
        let connection = self.connections[(n % self.connections.len() as u64) as usize].clone();
        let progress = self.progress.clone();
        let (start, timeout) = (self.start, self.timeout);
        progress.sent.fetch_add(1, Ordering::Relaxed);
        self.runtime.spawn(async move {
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
