//! The gatherer: puts the movements, or the commands, of many callers into one record, so that
//! they share one append and one sync.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use dashmap::DashMap;
use smallvec::SmallVec;
use tokio::{
    runtime::{self, Handle},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
};

use super::{
    commands::Told,
    sequencer::{Pending, Waiting},
};
use crate::{
    limits::{MOVEMENTS_WEIGHT_BESIDE_COMMANDS, RECORD_BYTES_MAX},
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
    type Receipt = Told;

    fn waiting(_: Vec<usize>, told: Receipts<Told>) -> Waiting {
        Waiting::Commands(told)
    }

    fn encode<'a>(instance: u64, token: u64, frames: impl Iterator<Item = &'a [u8]>) -> Bytes {
        encode_commands(instance, token, frames)
    }
}

/// Movements or a command of one caller.
struct Request<G: Gathered> {
    frames: Frames,
    bytes: usize,
    /// Movements, or lines of the command.
    lines: usize,
    answer: oneshot::Sender<Result<G::Receipt, PostError>>,
    /// Held until they are applied.
    room: Option<OwnedSemaphorePermit>,
}

/// Encoded movements, or one command.
type Frames = SmallVec<[Bytes; 1]>;

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
    /// Appends under way at once, on each runtime; more come together behind them, until a record is
    /// full.
    pub(crate) appends_max: usize,
    /// Whether an append is under way until it is applied.
    pub(crate) until_applied: bool,
    /// A record of so many movements, or lines of commands, goes before other appends have ended:
    /// to wait for more would only delay it.
    pub(crate) full_lines: usize,
    /// Movements, or lines of commands, of all runtimes that are on their way into the log, or in it
    /// and not applied. What is decided at its place in the log waits for what is before it, so this
    /// bounds how long.
    pub(crate) unapplied_lines_max: usize,
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
    waiters: Waiters,
    unapplied: Unapplied,
    options: GatherOptions,
}

/// What is on its way into the log, or in it and not applied.
#[derive(Clone)]
struct Unapplied {
    lines: Arc<Semaphore>,
    lines_max: usize,
    /// Whom this goes out of the way of.
    before: Option<Waiters>,
}

impl Unapplied {
    /// Waits until there is room for a record of so many lines. One that has more than there may be
    /// waits until nothing else is unapplied.
    async fn room_for(&self, lines: usize) -> OwnedSemaphorePermit {
        let counted = match &self.before {
            Some(before) if before.count() > 0 => {
                // As many records as with lighter lines: one at a time would wait for the disk.
                let share = self.lines_max / MOVEMENTS_WEIGHT_BESIDE_COMMANDS;
                lines.max(share.min(lines * MOVEMENTS_WEIGHT_BESIDE_COMMANDS))
            }
            _ => lines,
        };
        let counted = counted.min(self.lines_max) as u32;
        let room = Arc::clone(&self.lines).acquire_many_owned(counted).await;
        room.expect("the semaphore is never closed")
    }
}

/// Those who wait for what they handed to a gatherer.
#[derive(Clone)]
pub(crate) struct Waiters {
    room: Arc<Semaphore>,
    max: usize,
}

impl Waiters {
    /// How many there are.
    fn count(&self) -> usize {
        self.max - self.room.available_permits()
    }
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
        let (token, mut forget) = self.expect(waiting);
        self.log.append(record(token)).await?;
        forget.token = None;
        Ok(())
    }

    /// The same, for who needs to be told only of a failure: then `waiting` is given up, and
    /// `failure` says why. May resolve before either is known.
    async fn send(
        &self,
        waiting: Waiting,
        record: impl FnOnce(u64) -> Bytes,
        failure: &Arc<OnceLock<AppendError>>,
    ) {
        let (token, mut forget) = self.expect(waiting);
        let (pending, failure) = (Arc::clone(&self.pending), Arc::clone(failure));
        let failed = move |error| {
            let _ = failure.set(error);
            pending.remove(token);
        };
        self.log.send(record(token), Box::new(failed)).await;
        forget.token = None;
    }

    /// The token of a record that `waiting` waits for from now on: before it is appended, since the
    /// log may be read faster than the append returns.
    fn expect(&self, waiting: Waiting) -> (u64, Forget<'_>) {
        let token = self.tokens.fetch_add(1, Relaxed);
        self.pending.insert(token, waiting);
        let forget = Forget {
            pending: &self.pending,
            token: Some(token),
        };
        (token, forget)
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
    /// One that nobody has used yet. When it is dropped, what waits is still written. While there are
    /// any of those `before`, who wait for another, less of this one's is unapplied at once.
    pub(crate) fn new(writer: Writer, options: GatherOptions, before: Option<Waiters>) -> Self {
        Self {
            writer,
            lanes: DashMap::new(),
            waiters: Waiters {
                room: Arc::new(Semaphore::new(options.waiting_max)),
                max: options.waiting_max,
            },
            unapplied: Unapplied {
                lines: Arc::new(Semaphore::new(options.unapplied_lines_max)),
                lines_max: options.unapplied_lines_max,
                before,
            },
            options,
        }
    }

    /// Those who wait for what they handed to this one.
    pub(crate) fn waiters(&self) -> Waiters {
        self.waiters.clone()
    }

    /// Movements, or commands, that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiters.count()
    }

    /// Room for so many callers' frames, or none is taken.
    fn take_room(&self, frames: usize) -> Result<OwnedSemaphorePermit, PostError> {
        Arc::clone(&self.waiters.room)
            .try_acquire_many_owned(frames as u32)
            .map_err(|_| PostError::Full {
                waiting_max: self.options.waiting_max,
            })
    }

    fn enqueue(
        &self,
        frames: Frames,
        bytes: usize,
        lines: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Result<G::Receipt, PostError>>, PostError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            frames,
            bytes,
            lines,
            answer,
            room,
        };
        let runtime = Handle::current();
        let sent = match self.lanes.get(&runtime.id()) {
            Some(lane) => lane.send(request),
            None => self.start(&runtime).send(request),
        };
        sent.map_err(|_| PostError::Stopping)?;
        Ok(answered)
    }

    /// Starts to gather what comes in on a runtime.
    fn start(&self, runtime: &Handle) -> Lane<G> {
        let lane = self.lanes.entry(runtime.id()).or_insert_with(|| {
            let (lane, requests) = mpsc::unbounded_channel();
            let unapplied = self.unapplied.clone();
            let gathers = gather(self.writer.clone(), self.options, unapplied, requests);
            runtime.spawn(task_or_abort(gathers));
            lane
        });
        lane.clone()
    }
}

impl Gatherer<OfMovements> {
    /// Writes encoded movements into the log, and waits until they are applied and visible. Each must
    /// have been checked. They may be split into several records.
    ///
    /// # Errors
    /// See [`PostError`].
    pub(crate) async fn post(&self, movements: Vec<Bytes>) -> Result<Receipt, PostError> {
        let mut room = self.take_room(movements.len())?;
        let parts = split(movements, self.options.record_movements_max);
        // All of them, or none is taken.
        parts.iter().try_for_each(|(_, bytes)| fits(*bytes))?;
        let mut answers = Vec::with_capacity(parts.len());
        for (movements, bytes) in parts {
            let count = movements.len();
            let room = room.split(count);
            answers.push(self.enqueue(movements.into(), bytes, count, room)?);
        }
        let mut whole: Option<Receipt> = None;
        for answer in answers {
            let receipt = answer.await.map_err(|_| PostError::Stopping)??;
            match &mut whole {
                None => whole = Some(receipt),
                Some(whole) => {
                    whole.position = whole.position.max(receipt.position);
                    whole.time_us = whole.time_us.max(receipt.time_us);
                    whole.outcomes.extend(receipt.outcomes);
                }
            }
        }
        Ok(whole.expect("there is at least one part"))
    }
}

impl Gatherer<OfCommands> {
    /// Has an encoded command of so many lines written into the log; resolves when it is decided,
    /// applied and visible. It must have been checked.
    ///
    /// # Errors
    /// See [`PostError`].
    pub(crate) fn decide(&self, command: Bytes, lines: usize) -> Result<Deciding, PostError> {
        let room = self.take_room(1)?;
        let bytes = framed_bytes(command.len());
        fits(bytes)?;
        let frames = SmallVec::from([command]);
        let decided = self.enqueue(frames, bytes, lines, Some(room))?;
        Ok(Deciding(decided))
    }
}

/// A command on its way. Who drops it misses the answer, and nothing else.
pub(crate) struct Deciding(oneshot::Receiver<Result<Told, PostError>>);

impl Future for Deciding {
    type Output = Result<Told, PostError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let decided = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(decided.map_err(|_| PostError::Stopping).flatten())
    }
}

/// Whether so many framed bytes fit a record.
fn fits(bytes: usize) -> Result<(), AppendError> {
    if bytes <= FRAMED_BYTES_MAX {
        return Ok(());
    }
    Err(AppendError::TooLarge {
        bytes,
        bytes_max: FRAMED_BYTES_MAX,
    })
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

/// Requests that go into one record.
struct Gathering<G: Gathered> {
    requests: Vec<Request<G>>,
    frames: usize,
    bytes: usize,
    lines: usize,
}

impl<G: Gathered> Gathering<G> {
    fn new(first: Request<G>) -> Self {
        Self {
            frames: first.frames.len(),
            bytes: first.bytes,
            lines: first.lines,
            requests: vec![first],
        }
    }

    /// Adds a request, or gives it back if it has no room.
    fn add(&mut self, request: Request<G>, options: &GatherOptions) -> Option<Request<G>> {
        let frames = self.frames + request.frames.len();
        let bytes = self.bytes + request.bytes;
        if frames > options.record_movements_max || bytes > FRAMED_BYTES_MAX {
            return Some(request);
        }
        (self.frames, self.bytes) = (frames, bytes);
        self.lines += request.lines;
        self.requests.push(request);
        None
    }

    /// Adds all that wait, or until one has no room, which is given back.
    fn add_waiting(
        &mut self,
        requests: &mut mpsc::UnboundedReceiver<Request<G>>,
        options: &GatherOptions,
    ) -> Option<Request<G>> {
        while self.lines < options.full_lines {
            let request = requests.try_recv().ok()?;
            let left_over = self.add(request, options);
            if left_over.is_some() {
                return left_over;
            }
        }
        None
    }
}

async fn gather<G: Gathered>(
    writer: Writer,
    options: GatherOptions,
    unapplied: Unapplied,
    mut requests: mpsc::UnboundedReceiver<Request<G>>,
) {
    let appends = Arc::new(Semaphore::new(options.appends_max));
    let never_closed = "the semaphore is never closed";
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(request) => request,
            None => match requests.recv().await {
                Some(request) => request,
                None => break,
            },
        };
        let mut record = Gathering::new(first);
        let append = loop {
            if left_over.is_none() {
                left_over = record.add_waiting(&mut requests, &options);
            }
            if record.lines >= options.full_lines {
                break None;
            }
            if left_over.is_some() {
                let append = Arc::clone(&appends).acquire_owned().await;
                break Some(append.expect(never_closed));
            }
            // While all appends are under way, more requests come together behind the first.
            tokio::select! {
                biased;
                append = Arc::clone(&appends).acquire_owned() => {
                    if options.wait.is_zero() {
                        // Others whose calls came in together with the first go before.
                        tokio::task::yield_now().await;
                    } else {
                        tokio::time::sleep(options.wait).await;
                    }
                    left_over = record.add_waiting(&mut requests, &options);
                    break Some(append.expect(never_closed));
                }
                Some(request) = requests.recv() => {
                    left_over = record.add(request, &options);
                }
            }
        };
        let under_way = UnderWay {
            append,
            until_applied: options.until_applied,
            _room: unapplied.room_for(record.lines).await,
        };
        let writer = writer.clone();
        tokio::spawn(task_or_abort(async move {
            write(&writer, record.requests, under_way).await;
        }));
    }
    // Records that were not full are written before the gatherer ends.
    let _ = appends.acquire_many(options.appends_max as u32).await;
}

/// What a record holds while it is under way.
struct UnderWay {
    append: Option<OwnedSemaphorePermit>,
    until_applied: bool,
    _room: OwnedSemaphorePermit,
}

/// Writes a record, and answers those whose frames it has once they are applied. They are woken
/// one after the other by this one task, and not from the shard's thread: so their answers leave
/// together, with one system call for each connection.
async fn write<G: Gathered>(writer: &Writer, requests: Vec<Request<G>>, mut under_way: UnderWay) {
    let (tell, mut told) = oneshot::channel();
    let counts = requests.iter().map(|request| request.frames.len());
    let waiting = G::waiting(counts.collect(), tell);
    let frames = requests.iter().flat_map(|request| &request.frames);
    let applied = async {
        let record = |token| G::encode(writer.instance, token, frames.map(AsRef::as_ref));
        if !under_way.until_applied {
            writer.append(waiting, record).await?;
            under_way.append.take();
            return told.await.map_err(|_| PostError::Stopping);
        }
        let failure = Arc::default();
        let told = tokio::select! {
            biased;
            // What is applied was appended.
            told = &mut told => told,
            () = writer.send(waiting, record, &failure) => told.await,
        };
        told.map_err(|_| {
            failure
                .get()
                .cloned()
                .map_or(PostError::Stopping, PostError::Log)
        })
    };
    let mut failed = writer.failed.clone();
    let applied = tokio::select! {
        applied = applied => applied,
        _ = failed.wait_for(Option::is_some) => Err(PostError::Stopping),
    };
    // The next record may go.
    drop(under_way);
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

    /// How many records of so many movements are under way at once, with so many commands waiting.
    fn under_way_at_once(movements: usize, commands: u32) -> usize {
        let waiters = Waiters {
            room: Arc::new(Semaphore::new(10)),
            max: 10,
        };
        let room = Arc::clone(&waiters.room).try_acquire_many_owned(commands);
        let _waiting = room.expect("there is room");
        let unapplied = Unapplied {
            lines: Arc::new(Semaphore::new(4_096)),
            lines_max: 4_096,
            before: Some(waiters),
        };
        let rooms = std::iter::from_fn(|| unapplied.room_for(movements).now_or_never());
        // Each is held, until one has to wait.
        rooms.collect::<Vec<_>>().len()
    }

    #[test]
    fn movements_go_out_of_the_way_of_commands_that_wait() {
        assert_eq!(under_way_at_once(256, 0), 16);
        assert_eq!(under_way_at_once(256, 1), 4);
        // However large they are, some are under way; what is larger than all goes by itself.
        assert_eq!(under_way_at_once(1_000, 0), 4);
        assert_eq!(under_way_at_once(1_000, 9), 4);
        assert_eq!(under_way_at_once(2_000, 1), 2);
        assert_eq!(under_way_at_once(9_000, 1), 1);
    }

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
