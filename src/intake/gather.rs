//! The gatherer: puts the movements, or the commands, of many callers into one record, so that
//! they share one append and one sync.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::{
    runtime::{self, Handle},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
};

use super::{
    commands::CommandReceipt,
    sequencer::{Pending, Waiting},
};
use crate::{
    limits::RECORD_BYTES_MAX,
    log::{AppendError, Log, LogError},
    shard::{
        Receipt,
        worker::{Receipts, task_or_abort},
    },
    wire::record::{RECORD_HEADER_BYTES_MAX, encode_commands, encode_record, framed_bytes},
};

/// Why movements, commands, or a document were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// Too many wait already. Nothing was stored; try again a little later.
    #[error("intake is full: {waiting_max} of its kind wait already; try again a little later")]
    Full {
        /// How many may wait.
        waiting_max: usize,
    },
    /// The log did not take them, or did not say so.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// The instance is stopping. Whether they were stored is unknown.
    #[error("this instance is stopping; whether it was stored is unknown, send it again")]
    Stopping,
}

/// What is gathered into records.
pub(crate) trait Gathered: Send + Sync + 'static {
    /// What a caller gets.
    type Receipt: Send + 'static;

    /// What waits for a record whose callers have so many frames each, in its order.
    fn waiting(frames: Vec<usize>, told: Receipts<Self::Receipt>) -> Waiting;

    /// The record of encoded frames.
    fn encode<'a>(instance: u64, token: u64, frames: impl Iterator<Item = &'a [u8]>) -> Bytes;
}

/// Encoded `Movement`s.
pub(crate) struct OfMovements;

impl Gathered for OfMovements {
    type Receipt = Receipt;

    fn waiting(frames: Vec<usize>, told: Receipts) -> Waiting {
        Waiting::Movements(frames, told)
    }

    fn encode<'a>(instance: u64, token: u64, frames: impl Iterator<Item = &'a [u8]>) -> Bytes {
        encode_record(instance, token, frames)
    }
}

/// Encoded `Command`s, one for each caller.
pub(crate) struct OfCommands;

impl Gathered for OfCommands {
    type Receipt = CommandReceipt;

    fn waiting(_: Vec<usize>, told: Receipts<CommandReceipt>) -> Waiting {
        Waiting::Commands(told)
    }

    fn encode<'a>(instance: u64, token: u64, frames: impl Iterator<Item = &'a [u8]>) -> Bytes {
        encode_commands(instance, token, frames)
    }
}

/// Movements or a command of one caller.
struct Request<G: Gathered> {
    frames: Vec<Bytes>,
    bytes: usize,
    answer: oneshot::Sender<Result<G::Receipt, PostError>>,
    /// Held until they are applied.
    room: Option<OwnedSemaphorePermit>,
}

/// Most bytes of framed movements in one record.
const FRAMED_BYTES_MAX: usize = RECORD_BYTES_MAX - RECORD_HEADER_BYTES_MAX;
/// Longest encoded movement that fits a record: its frame is a key and a length of three bytes.
pub(crate) const MOVEMENT_BYTES_MAX: usize = FRAMED_BYTES_MAX - 4;
const _: () = assert!(framed_bytes(MOVEMENT_BYTES_MAX) == FRAMED_BYTES_MAX);

/// How much is gathered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatherOptions {
    /// Movements that may wait.
    pub(crate) waiting_max: usize,
    /// Movements of one record, at most.
    pub(crate) record_movements_max: usize,
    /// Appends under way at once, on each runtime.
    pub(crate) appends_max: usize,
    /// Whether an append is under way until it is applied, so that more comes together meanwhile.
    pub(crate) until_applied: bool,
    /// How long a record waits for more movements, once it has one.
    pub(crate) wait: std::time::Duration,
}

/// Hands movements or commands to the gatherer.
///
/// Those of callers that are served by one runtime are gathered there, so that neither a call nor
/// its answer is handed from thread to thread by itself; the log puts them together again.
pub(crate) struct Gatherer<G: Gathered> {
    writer: Writer,
    lanes: DashMap<runtime::Id, Lane<G>>,
    room: Arc<Semaphore>,
    options: GatherOptions,
}

/// Requests of one runtime. Not bounded by itself: the room is.
type Lane<G> = mpsc::UnboundedSender<Request<G>>;

/// What a record is written with.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) instance: u64,
    pub(crate) tokens: Arc<AtomicU64>,
    pub(crate) pending: Arc<Pending>,
    /// Why the log can be followed no more.
    pub(crate) failed: watch::Receiver<Option<LogError>>,
}

impl Writer {
    /// Appends one record that `waiting` waits for.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub(crate) async fn append(
        &self,
        waiting: Waiting,
        record: impl FnOnce(u64) -> Bytes,
    ) -> Result<(), AppendError> {
        let token = self.tokens.fetch_add(1, Relaxed);
        // Before it is appended: the log may be read faster than the append returns.
        self.pending.insert(token, waiting);
        let mut forget = Forget {
            pending: &self.pending,
            token: Some(token),
        };
        self.log.append(record(token)).await?;
        forget.token = None;
        Ok(())
    }
}

/// Removes who waits for a record that was not appended, or whose append was given up.
struct Forget<'w> {
    pending: &'w Pending,
    token: Option<u64>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.pending.remove(token);
        }
    }
}

impl<G: Gathered> Gatherer<G> {
    /// One that nobody has used yet. When it is dropped, what waits is still written.
    pub(crate) fn new(writer: Writer, options: GatherOptions) -> Self {
        Self {
            writer,
            lanes: DashMap::new(),
            room: Arc::new(Semaphore::new(options.waiting_max)),
            options,
        }
    }

    /// Movements that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.options.waiting_max - self.room.available_permits()
    }

    /// Writes encoded frames into the log, and waits until they are applied and visible. Each must
    /// have been checked. Gives a receipt for each record that they were split into; at least one.
    ///
    /// # Errors
    /// See [`PostError`].
    pub(crate) async fn send(&self, frames: Vec<Bytes>) -> Result<Vec<G::Receipt>, PostError> {
        // Room for all of them, or none is taken.
        let mut room = Arc::clone(&self.room)
            .try_acquire_many_owned(frames.len() as u32)
            .map_err(|_| PostError::Full {
                waiting_max: self.options.waiting_max,
            })?;
        let parts = split(frames, self.options.record_movements_max);
        if let Some((_, bytes)) = parts.iter().find(|(_, bytes)| *bytes > FRAMED_BYTES_MAX) {
            return Err(PostError::Log(AppendError::TooLarge {
                bytes: *bytes,
                bytes_max: FRAMED_BYTES_MAX,
            }));
        }
        let mut answers = Vec::with_capacity(parts.len());
        for (frames, bytes) in parts {
            let room = room.split(frames.len());
            answers.push(self.enqueue(frames, bytes, room)?);
        }
        let mut receipts = Vec::with_capacity(answers.len());
        for answer in answers {
            receipts.push(answer.await.map_err(|_| PostError::Stopping)??);
        }
        Ok(receipts)
    }

    fn enqueue(
        &self,
        frames: Vec<Bytes>,
        bytes: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Result<G::Receipt, PostError>>, PostError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            frames,
            bytes,
            answer,
            room,
        };
        let runtime = Handle::current();
        let lane = self
            .lanes
            .entry(runtime.id())
            .or_insert_with(|| self.start(&runtime));
        lane.send(request).map_err(|_| PostError::Stopping)?;
        Ok(answered)
    }

    /// Starts to gather what comes in on a runtime.
    fn start(&self, runtime: &Handle) -> Lane<G> {
        let (lane, requests) = mpsc::unbounded_channel();
        let gathers = gather(self.writer.clone(), self.options, requests);
        runtime.spawn(task_or_abort(gathers));
        lane
    }
}

impl Gatherer<OfMovements> {
    /// The same, with one receipt for all.
    ///
    /// # Errors
    /// See [`PostError`].
    pub(crate) async fn post(&self, movements: Vec<Bytes>) -> Result<Receipt, PostError> {
        let mut receipts = self.send(movements).await?.into_iter();
        let mut whole = receipts.next().expect("there is at least one part");
        for receipt in receipts {
            whole.position = whole.position.max(receipt.position);
            whole.time_us = whole.time_us.max(receipt.time_us);
            whole.outcomes.extend(receipt.outcomes);
        }
        Ok(whole)
    }
}

/// Splits movements into parts that fit a record. At least one part.
fn split(movements: Vec<Bytes>, count_max: usize) -> Vec<(Vec<Bytes>, usize)> {
    let framed = |movement: &Bytes| framed_bytes(movement.len());
    let total: usize = movements.iter().map(framed).sum();
    if total <= FRAMED_BYTES_MAX && movements.len() <= count_max {
        return vec![(movements, total)];
    }
    let mut parts = vec![(Vec::new(), 0)];
    for movement in movements {
        let bytes = framed(&movement);
        let (part, so_far) = parts.last_mut().expect("there is always one");
        if !part.is_empty() && (*so_far + bytes > FRAMED_BYTES_MAX || part.len() >= count_max) {
            parts.push((vec![movement], bytes));
        } else {
            part.push(movement);
            *so_far += bytes;
        }
    }
    parts
}

async fn gather<G: Gathered>(
    writer: Writer,
    options: GatherOptions,
    mut requests: mpsc::UnboundedReceiver<Request<G>>,
) {
    let appends = Arc::new(Semaphore::new(options.appends_max));
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(request) => request,
            None => match requests.recv().await {
                Some(request) => request,
                None => break,
            },
        };
        // While all appends are under way, more requests come together behind the first.
        let append = Arc::clone(&appends)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        if options.wait.is_zero() {
            // Others whose calls came in together with the first go before.
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(options.wait).await;
        }
        let (mut count, mut bytes) = (first.frames.len(), first.bytes);
        let mut record = vec![first];
        while let Ok(request) = requests.try_recv() {
            if count + request.frames.len() > options.record_movements_max
                || bytes + request.bytes > FRAMED_BYTES_MAX
            {
                left_over = Some(request);
                break;
            }
            count += request.frames.len();
            bytes += request.bytes;
            record.push(request);
        }
        let writer = writer.clone();
        tokio::spawn(task_or_abort(async move {
            write(&writer, record, append, options.until_applied).await;
        }));
    }
    // What is under way is written before the gatherer ends.
    let _ = appends.acquire_many(options.appends_max as u32).await;
}

/// Writes a record, and answers those whose frames it has once they are applied. They are woken
/// one after the other by this one task, and not from the shard's thread: so their answers leave
/// together, with one system call for each connection.
async fn write<G: Gathered>(
    writer: &Writer,
    requests: Vec<Request<G>>,
    append: OwnedSemaphorePermit,
    until_applied: bool,
) {
    let (tell, told) = oneshot::channel();
    let counts = requests.iter().map(|request| request.frames.len());
    let waiting = G::waiting(counts.collect(), tell);
    let frames = requests.iter().flat_map(|request| &request.frames);
    let applied = async {
        let record = |token| G::encode(writer.instance, token, frames.map(AsRef::as_ref));
        writer.append(waiting, record).await?;
        // Dropped here, or when it is applied.
        let _append = until_applied.then_some(append);
        told.await.map_err(|_| PostError::Stopping)
    };
    let mut failed = writer.failed.clone();
    let applied = tokio::select! {
        applied = applied => applied,
        _ = failed.wait_for(Option::is_some) => Err(PostError::Stopping),
    };
    let mut receipts = applied.map(Vec::into_iter);
    for request in requests {
        let receipt = match &mut receipts {
            Ok(receipts) => receipts.next().flatten().ok_or(PostError::Stopping),
            Err(error) => Err(error.clone()),
        };
        // Before its answer, so that who has that finds room for the next.
        drop(request.room);
        // A caller that went away misses its answer and nothing else.
        let _ = request.answer.send(receipt);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::log::memory::{Faults, MemoryLog};

    #[test]
    fn who_gives_up_an_append_leaves_nothing_behind() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let _entered = runtime.as_ref().expect("a runtime").enter();
        let log = MemoryLog::with_faults(Faults {
            ack_delay_max: std::time::Duration::from_secs(3_600),
            ..Faults::default()
        });
        let writer = Writer {
            log: Arc::new(log),
            instance: 1,
            tokens: Arc::default(),
            pending: Arc::default(),
            failed: watch::channel(None).1,
        };
        let (caller, _in_force) = oneshot::channel();
        let append = writer.append(Waiting::Document(caller), |_| Bytes::new());
        // Polled once, then dropped.
        assert!(append.now_or_never().is_none());
        assert!(writer.pending.is_empty());
    }
}
