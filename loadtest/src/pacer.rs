//! Sends each call when it is due, whatever became of those before it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
};

use crate::Failure;

/// How long calls that are overdue may still be sent after the end of the schedule.
pub const OVERTIME: Duration = Duration::from_secs(2);
/// How soon the pacer notices that it is to stop, at the latest.
const STOP_NOTICED: Duration = Duration::from_millis(50);

/// Holds the time at which the run was told to stop, once it was.
pub type Stop = watch::Receiver<Option<Instant>>;

/// What is to be sent, and how.
pub trait Load: Send + 'static {
    /// One call.
    type Call;

    /// The next call and when it is due, in order of time from the start.
    fn next(&mut self) -> Option<(Duration, Self::Call)>;

    /// Starts the n-th call and returns at once. The call is under way for as long as the permit
    /// is held.
    fn send(&mut self, n: u64, due: Due, call: Self::Call, permit: OwnedSemaphorePermit);

    /// Is told of each call that was due and is never sent.
    fn dropped(&mut self, due: Duration, call: Self::Call);
}

/// When a call is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The start of the run.
    pub start: Instant,
    /// From the start.
    pub at: Duration,
}

/// What the sending side knows when the last call has been sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Calls sent.
    pub sent: u64,
    /// Calls that were due and never sent.
    pub dropped: u64,
    /// Calls that had to wait for the limit of calls in flight.
    pub held_back: u64,
    /// When sending was stopped, if it was.
    pub interrupted: Option<Duration>,
}

/// Sends all of a load, which ends `end` after the start, or until it is told to stop, and waits
/// until none is under way.
///
/// # Errors
/// If the thread that keeps the time cannot be started, or has panicked.
pub async fn run<L: Load>(
    load: L,
    start: Instant,
    end: Duration,
    in_flight: usize,
    stop: Stop,
) -> Result<(Sent, L), Failure> {
    let permits = Arc::new(Semaphore::new(in_flight));
    let pacer = Pacer {
        start,
        end: end + OVERTIME,
        in_flight: permits.clone(),
        stop,
        runtime: Handle::current(),
    };
    let (done, ended) = oneshot::channel();
    // A thread and not a task: the runtime's timer has a resolution of a millisecond, which would
    // be most of the latency of a fast server.
    thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || done.send(pacer.run(load)))
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
    let ended = ended
        .await
        .map_err(|_| Failure::failed("the pacer ended unexpectedly"))?;
    // Whoever holds all permits knows that no call is under way. Each call has its timeout, so
    // this ends.
    let all = u32::try_from(in_flight).unwrap_or(u32::MAX);
    let _none_in_flight = permits
        .acquire_many(all)
        .await
        .map_err(|_| Failure::failed("the limit of calls in flight was lifted"))?;
    Ok(ended)
}

/// What the thread that keeps the time holds.
struct Pacer {
    start: Instant,
    end: Duration,
    in_flight: Arc<Semaphore>,
    stop: Stop,
    runtime: Handle,
}

impl Pacer {
    fn run<L: Load>(mut self, mut load: L) -> (Sent, L) {
        let runtime = self.runtime.clone();
        // Loads start tasks.
        let _inside = runtime.enter();
        let mut sent = Sent::default();
        // Drawn ahead of time, so that drawing delays no call.
        while let Some((due, call)) = load.next() {
            let permit = if self.wait_until(due) {
                self.permit(&mut sent.held_back)
            } else {
                None
            };
            let Some(permit) = permit else {
                self.drop_rest(&mut load, (due, call), &mut sent);
                break;
            };
            let at = Due {
                start: self.start,
                at: due,
            };
            load.send(sent.sent, at, call, permit);
            sent.sent += 1;
        }
        (sent, load)
    }

    fn drop_rest<L: Load>(&self, load: &mut L, first: (Duration, L::Call), sent: &mut Sent) {
        let stopped = *self.stop.borrow();
        sent.interrupted = stopped.map(|at| at.saturating_duration_since(self.start));
        // What came to be due only after a stop was not to be sent.
        let until = sent.interrupted.unwrap_or(self.end);
        let mut next = Some(first);
        while let Some((due, call)) = next.filter(|(due, _)| *due <= until) {
            load.dropped(due, call);
            sent.dropped += 1;
            next = load.next();
        }
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
    fn permit(&mut self, held_back: &mut u64) -> Option<OwnedSemaphorePermit> {
        // Also without any limit reached: the pacer itself may be what cannot keep up.
        if self.start.elapsed() >= self.end {
            return None;
        }
        let in_flight = self.in_flight.clone();
        if let Ok(permit) = in_flight.clone().try_acquire_owned() {
            return Some(permit);
        }
        let end = tokio::time::Instant::from_std(self.start + self.end);
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
}
