//! The embedded log: a journal of segment files, written by one thread.
//!
//! Callers hand their records to the writer and wait. It takes all that have gathered, writes them
//! with one call, syncs once, and answers everyone: the sync is shared, and while it runs the next
//! group gathers.
//!
//! Why not a store: an append-only log with one writer needs none of what a tree offers, and the
//! stores at hand do not tell a crash from damage. `benches/log_engines.rs` shows what each of
//! them costs, and what it says about a flipped byte.
//!
//! # What a restart finds
//!
//! After a kill at any moment: every acknowledged record. What was under way is either there whole
//! or cut off. After damage to stored bytes: an error, never a shorter log. Two things see to
//! that: each frame says what was on disk when it was written, see `segment.rs`, and the file
//! `synced` says up to where the log had been synced at least, so that not even the last entry can
//! disappear unnoticed.

mod directory;
mod segment;

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use crossbeam::channel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use self::{
    directory::{SyncedMark, identify, setup, take},
    segment::{Cursor, HEADER_BYTES, Segment},
};
use super::{
    AppendError, Attend, Bounds, Entry, Identity, Lane, Log, LogError, OnFailure, Position, Reader,
};
use crate::{domain::movement::TimeUs, limits};

/// When an append is answered, and so what it promises.
///
/// | | process killed | power failure, kernel crash |
/// |---|---|---|
/// | `Always` | nothing is lost | nothing is lost |
/// | `Interval` | nothing is lost | up to the interval is lost |
/// | `Os` | nothing is lost | what the kernel had not yet written is lost, some 30 s |
///
/// "Nothing" supposes that the disk keeps what it said it had written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FsyncPolicy {
    /// After `fdatasync`.
    #[default]
    Always,
    /// After the write; `fdatasync` follows at most this much later.
    Interval(Duration),
    /// After the write; the kernel syncs when it likes.
    Os,
}

/// How to open an embedded log.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its directory; created if absent.
    pub dir: PathBuf,
    /// What an acknowledgement promises.
    pub fsync: FsyncPolicy,
    /// Size of one file, [`limits::SEGMENT_BYTES`] if not for a test. At least twice
    /// [`limits::RECORD_BYTES_MAX`].
    pub segment_bytes: u64,
    /// Most bytes of recent entries kept in memory, [`limits::TAIL_BYTES_MAX`].
    pub tail_bytes_max: usize,
}

impl Options {
    /// The defaults, for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            fsync: FsyncPolicy::default(),
            segment_bytes: limits::SEGMENT_BYTES,
            tail_bytes_max: limits::TAIL_BYTES_MAX,
        }
    }
}

/// The embedded log. Dropping it writes and syncs what was handed to it, and frees the directory.
#[derive(Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    queue: Option<channel::Sender<Request>>,
    queue_kib: Arc<Semaphore>,
    durable: watch::Receiver<Position>,
    writer: Option<thread::JoinHandle<()>>,
}

/// What the writer and the readers have in common.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    identity: Identity,
    segments: Mutex<Vec<Segment>>,
    /// Held while segments are removed.
    trimming: Mutex<()>,
    tail: Mutex<Tail>,
    poison: OnceLock<String>,
    /// Who follows on the writer's thread.
    follower: Mutex<Option<Weak<dyn Attend>>>,
}

struct Request {
    record: Bytes,
    reply: Reply,
    _room: OwnedSemaphorePermit,
}

/// Who asked for an append.
enum Reply {
    /// It waits for the position.
    Position(oneshot::Sender<Result<Position, AppendError>>),
    /// It is told only of a failure.
    Failure(IfNot),
}

impl Reply {
    fn tell(self, appended: Result<Position, AppendError>) {
        match (self, appended) {
            (Self::Position(reply), appended) => {
                let _ = reply.send(appended);
            }
            (Self::Failure(mut failed), Ok(_)) => failed.0 = None,
            (Self::Failure(failed), Err(error)) => failed.tell(error),
        }
    }
}

/// Tells that a record was not appended, even if nobody can say so any more.
struct IfNot(Option<OnFailure>);

impl IfNot {
    fn tell(mut self, error: AppendError) {
        if let Some(failed) = self.0.take() {
            failed(error);
        }
    }
}

impl Drop for IfNot {
    fn drop(&mut self) {
        if let Some(failed) = self.0.take() {
            failed(writer_stopped());
        }
    }
}

fn writer_stopped() -> AppendError {
    AppendError::Poisoned("its writer has stopped".into())
}

/// The most recent entries, so that an instance reads what it appends without touching the disk.
#[derive(Debug)]
struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.payload.len();
        self.entries.push_back(entry);
        while self.bytes > self.bytes_max || self.entries.len() > limits::TAIL_ENTRIES_MAX {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.payload.len();
        }
    }

    /// Entries from `from` to `last`; nothing if `from` is no longer here.
    fn get(&self, from: Position, last: Position, entries_max: usize) -> Vec<Entry> {
        let Some(first) = self.entries.front().map(|entry| entry.position) else {
            return Vec::new();
        };
        if from < first {
            return Vec::new();
        }
        let start = (from - first) as usize;
        let end = self.entries.len().min((last + 1 - first) as usize);
        let end = end.min(start.saturating_add(entries_max));
        if start >= end {
            return Vec::new();
        }
        self.entries.range(start..end).cloned().collect()
    }
}

/// A panic elsewhere cannot leave these half changed, so a poisoned lock is as good as a sound one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_us() -> TimeUs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as TimeUs)
}

impl EmbeddedLog {
    /// Opens the log of a directory, or creates it. Reads and writes files, so an async caller
    /// wraps it in `spawn_blocking`.
    pub fn open(options: Options) -> Result<Self, LogError> {
        let Options { dir, fsync, .. } = options;
        assert!(options.segment_bytes >= 2 * limits::RECORD_BYTES_MAX as u64);
        fs::create_dir_all(&dir).map_err(|error| setup(&dir, "create", &error))?;
        let lock = take(&dir)?;
        let mut segments = segment::list(&dir).map_err(|error| setup(&dir, "read", &error))?;
        let identity = identify(&dir, &segments)?;
        let (mark, synced) = SyncedMark::open(&dir, identity.id)?;

        if segments.is_empty() && synced == 0 {
            let created = segment::create(&dir, identity.id, 1, options.segment_bytes);
            let (first, _) = created.map_err(|error| setup(&dir, "create a file in", &error))?;
            segments.push(first);
        }
        let active = segments.last().cloned().ok_or_else(|| {
            LogError::Corrupt(format!("{}: all its entries are missing", dir.display()))
        })?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&active.path)
            .map_err(|error| setup(&active.path, "open", &error))?;
        segment::check_header(&active, &file, identity.id)?;
        let end = segment::recover(&active, &file)?;
        let last = end.position - 1;
        if last < synced {
            return Err(LogError::Corrupt(format!(
                "{}: it ends at position {last}, though position {synced} had been stored; \
                 restore it from a backup",
                dir.display()
            )));
        }
        // A crash may have come between sealing this file and creating the next. And what was
        // written before a kill need not have been synced.
        file.set_len(options.segment_bytes.max(end.offset))
            .and_then(|()| file.sync_all())
            .and_then(|()| mark.set(last))
            .map_err(|error| setup(&active.path, "write", &error))?;

        let shared = Arc::new(Shared {
            dir,
            identity,
            segments: Mutex::new(segments),
            trimming: Mutex::default(),
            tail: Mutex::new(Tail {
                entries: VecDeque::new(),
                bytes: 0,
                bytes_max: options.tail_bytes_max,
            }),
            poison: OnceLock::new(),
            follower: Mutex::default(),
        });
        let (durable_sender, durable) = watch::channel(last);
        let (queue, requests) = channel::unbounded();
        let writer = Writer {
            shared: shared.clone(),
            requests,
            durable: durable_sender,
            fsync,
            segment_bytes: options.segment_bytes,
            file,
            mark,
            offset: end.offset,
            allocated: end.offset,
            next: end.position,
            synced: last,
            synced_at: Instant::now(),
            buffer: Vec::new(),
            _lock: lock,
        };
        let writer = thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| LogError::Setup(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            shared,
            queue: Some(queue),
            queue_kib: Arc::new(Semaphore::new(limits::QUEUE_BYTES_MAX >> 10)),
            durable,
            writer: Some(writer),
        })
    }

    /// Waits until there is room for a record in the queue.
    async fn room_for(&self, record: &Bytes) -> Result<OwnedSemaphorePermit, AppendError> {
        if record.len() > limits::RECORD_BYTES_MAX {
            return Err(AppendError::TooLarge {
                bytes: record.len(),
                bytes_max: limits::RECORD_BYTES_MAX,
            });
        }
        let kib = u32::try_from(record.len() >> 10).unwrap_or(u32::MAX) + 1;
        let room = self.queue_kib.clone().acquire_many_owned(kib).await;
        Ok(room.expect("the semaphore is never closed"))
    }

    /// Hands a record to the writer.
    fn enqueue(&self, record: Bytes, reply: Reply, room: OwnedSemaphorePermit) {
        let request = Request {
            record,
            reply,
            _room: room,
        };
        let queue = self.queue.as_ref().expect("taken only when dropped");
        if let Err(channel::SendError(request)) = queue.send(request) {
            request.reply.tell(Err(writer_stopped()));
        }
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        // Closing the queue ends the writer, after it has written what is in it.
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    fn identity(&self) -> Identity {
        self.shared.identity.clone()
    }

    async fn append(&self, record: Bytes) -> Result<Position, AppendError> {
        let room = self.room_for(&record).await?;
        let (reply, position) = oneshot::channel();
        self.enqueue(record, Reply::Position(reply), room);
        position.await.map_err(|_| writer_stopped())?
    }

    async fn send(&self, record: Bytes, failed: OnFailure) {
        match self.room_for(&record).await {
            Ok(room) => self.enqueue(record, Reply::Failure(IfNot(Some(failed))), room),
            Err(error) => failed(error),
        }
    }

    fn attended_by(&self, follower: Weak<dyn Attend>) {
        *lock(&self.shared.follower) = Some(follower);
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        let last = *self.durable.borrow();
        Ok(Bounds {
            first: self.shared.first(),
            last,
        })
    }

    async fn reader(&self, from: Position) -> Result<Box<dyn Reader>, LogError> {
        assert!(from >= 1, "the first position is 1");
        let Bounds { first, last } = self.bounds().await?;
        super::check_from(from, first, last)?;
        Ok(Box::new(EmbeddedReader {
            shared: self.shared.clone(),
            durable: self.durable.clone(),
            next: from,
            place: None,
            ready: VecDeque::new(),
        }))
    }

    async fn trim(&self, below: Position) -> Result<(), LogError> {
        let shared = self.shared.clone();
        let removed = tokio::task::spawn_blocking(move || shared.trim(below)).await;
        removed.map_err(|error| LogError::Unavailable(error.to_string()))?
    }

    fn not_writable(&self) -> Option<String> {
        self.shared.poison.get().cloned()
    }
}

impl Shared {
    fn first(&self) -> Position {
        lock(&self.segments).first().map_or(1, |first| first.first)
    }

    /// Removes the segments that hold nothing from `below` on; never the last one.
    fn trim(&self, below: Position) -> Result<(), LogError> {
        // The oldest goes first, of whoever trims; and nobody waits for the disk to look where the log
        // begins.
        let _trims = lock(&self.trimming);
        let mut removed = false;
        while let Some(oldest) = self.take_oldest(below) {
            removed = true;
            if let Err(error) = fs::remove_file(&oldest.path) {
                return Err(setup(&oldest.path, "remove", &error));
            }
        }
        if removed {
            segment::sync_dir(&self.dir).map_err(|error| setup(&self.dir, "sync", &error))?;
        }
        Ok(())
    }

    /// Takes out the first segment, unless it holds something from `below` on or is the last.
    fn take_oldest(&self, below: Position) -> Option<Segment> {
        let mut segments = lock(&self.segments);
        let is_old = segments.get(1).is_some_and(|second| second.first <= below);
        is_old.then(|| segments.remove(0))
    }

    /// The segment that holds `position`, if it is stored.
    fn segment_of(&self, position: Position) -> Option<Segment> {
        let segments = lock(&self.segments);
        let after = segments.partition_point(|segment| segment.first <= position);
        Some(segments[after.checked_sub(1)?].clone())
    }
}

/// The one thread that writes.
struct Writer {
    shared: Arc<Shared>,
    requests: channel::Receiver<Request>,
    durable: watch::Sender<Position>,
    fsync: FsyncPolicy,
    segment_bytes: u64,
    file: File,
    mark: SyncedMark,
    offset: u64,
    /// The file has blocks on the disk up to here.
    allocated: u64,
    next: Position,
    synced: Position,
    synced_at: Instant,
    buffer: Vec<u8>,
    _lock: File,
}

impl Writer {
    fn run(mut self) {
        let mut group = Vec::new();
        loop {
            match self.receive() {
                Ok(request) => group.push(request),
                Err(channel::RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.sync() {
                        self.poison(&error);
                    }
                    continue;
                }
                Err(channel::RecvTimeoutError::Disconnected) => break,
            }
            let mut bytes = group[0].record.len();
            while group.len() < limits::GROUP_RECORDS_MAX && bytes < limits::GROUP_BYTES_MAX {
                let Ok(request) = self.requests.try_recv() else {
                    break;
                };
                bytes += request.record.len();
                group.push(request);
            }
            self.commit(&mut group);
        }
        if self.shared.poison.get().is_none()
            && let Err(error) = self.sync()
        {
            self.poison(&error);
        }
    }

    /// Waits for a request, but not longer than until a sync is due.
    fn receive(&self) -> Result<Request, channel::RecvTimeoutError> {
        match self.fsync {
            FsyncPolicy::Interval(interval)
                if self.synced + 1 < self.next && self.shared.poison.get().is_none() =>
            {
                self.requests.recv_deadline(self.synced_at + interval)
            }
            _ => Ok(self.requests.recv()?),
        }
    }

    /// Stores a group and answers it.
    fn commit(&mut self, group: &mut Vec<Request>) {
        let stored = match self.shared.poison.get() {
            None => self.store(group),
            Some(_) => Ok(()),
        };
        if let Err(error) = stored {
            self.poison(&error);
        }
        if let Some(poison) = self.shared.poison.get() {
            for request in group.drain(..) {
                let poisoned = AppendError::Poisoned(poison.clone());
                request.reply.tell(Err(poisoned));
            }
            return;
        }
        let first = self.next - group.len() as u64;
        let mut publish = || {
            self.durable.send_replace(self.next - 1);
            for (position, request) in (first..).zip(group.drain(..)) {
                request.reply.tell(Ok(position));
            }
        };
        match self.follower() {
            Some(follower) => follower.attend(&mut publish),
            None => publish(),
        }
    }

    /// Who follows on this thread, if what was just stored is little: more is applied side by side
    /// with the next sync.
    fn follower(&self) -> Option<Arc<dyn Attend>> {
        if self.buffer.len() > limits::ATTENDED_BYTES_MAX {
            return None;
        }
        let follower = lock(&self.shared.follower);
        follower.as_ref()?.upgrade()
    }

    fn store(&mut self, group: &[Request]) -> io::Result<()> {
        let bytes: usize = group
            .iter()
            .map(|request| segment::frame_bytes(&request.record))
            .sum();
        if self.offset > HEADER_BYTES && self.offset + bytes as u64 > self.segment_bytes {
            self.rotate()?;
        }
        let time_us = now_us();
        self.buffer.clear();
        for (position, request) in (self.next..).zip(group) {
            segment::encode(
                &mut self.buffer,
                position,
                time_us,
                self.synced,
                &request.record,
            );
        }
        let end = self.offset + self.buffer.len() as u64;
        if end > self.allocated {
            self.allocate(end);
        }
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.buffer.truncate((end - self.offset) as usize);
        self.offset = end;
        let first = self.next;
        self.next += group.len() as u64;
        match self.fsync {
            FsyncPolicy::Always => self.sync()?,
            FsyncPolicy::Interval(interval) if self.synced_at.elapsed() >= interval => {
                self.sync()?;
            }
            FsyncPolicy::Interval(_) | FsyncPolicy::Os => {}
        }
        let mut tail = lock(&self.shared.tail);
        for (position, request) in (first..).zip(group) {
            tail.push(Entry {
                position,
                time_us,
                lane: Lane::Record,
                payload: request.record.clone(),
            });
        }
        Ok(())
    }

    /// Writes zeros behind a small group, where the next ones will be: a sync that has no new blocks
    /// to note in the file system's journal takes two thirds of the time. A large group needs none.
    fn allocate(&mut self, end: u64) {
        self.allocated = end;
        if self.fsync != FsyncPolicy::Os && self.buffer.len() < limits::ALLOCATED_BYTES / 4 {
            let ahead = end.next_multiple_of(limits::ALLOCATED_BYTES as u64);
            self.allocated = ahead.min(self.segment_bytes).max(end);
        }
        let bytes = (self.allocated - self.offset) as usize;
        self.buffer.resize(bytes, 0);
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.next - 1;
        self.synced_at = Instant::now();
        self.mark.set(self.synced)
    }

    /// Seals the file and starts the next.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.set_len(self.offset)?;
        self.file.sync_all()?;
        self.sync()?;
        let Shared { dir, identity, .. } = &*self.shared;
        let (segment, file) = segment::create(dir, identity.id, self.next, self.segment_bytes)?;
        self.file = file;
        self.offset = HEADER_BYTES;
        self.allocated = HEADER_BYTES;
        lock(&self.shared.segments).push(segment);
        Ok(())
    }

    /// What a failed write or sync left in the file is unknown, and a later sync that succeeds
    /// would prove nothing: only reading the file anew, after a restart, tells.
    fn poison(&self, error: &io::Error) {
        let dir = self.shared.dir.display();
        let reason = format!("writing to {dir} failed: {error}; correct it and restart");
        tracing::error!("{reason}");
        let _ = self.shared.poison.set(reason);
    }
}

/// Where a reader is in the files.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    file: Arc<File>,
    cursor: Cursor,
}

struct EmbeddedReader {
    shared: Arc<Shared>,
    durable: watch::Receiver<Position>,
    next: Position,
    place: Option<Place>,
    /// Entries from `next` on that were read from a file together with ones handed out.
    ready: VecDeque<Entry>,
}

#[async_trait]
impl Reader for EmbeddedReader {
    async fn next(&mut self, entries_max: usize) -> Result<Vec<Entry>, LogError> {
        assert!(entries_max > 0);
        loop {
            let last = *self.durable.borrow_and_update();
            if last < self.next {
                let closed = |_| LogError::Unavailable("it was closed".into());
                self.durable.changed().await.map_err(closed)?;
                continue;
            }
            let first = self.shared.first();
            if self.next < first {
                let wanted = self.next;
                return Err(LogError::Trimmed { wanted, first });
            }
            let mut entries = Vec::new();
            if self.ready.is_empty() {
                entries = lock(&self.shared.tail).get(self.next, last, entries_max);
            }
            if entries.is_empty() {
                if self.ready.is_empty() {
                    let (shared, next) = (self.shared.clone(), self.next);
                    let place = self.place.take();
                    // Dropped while this runs, the reader only loses its place in the file.
                    let read = move || read(&shared, next, last, place);
                    let read = tokio::task::spawn_blocking(read).await;
                    let (read, place) =
                        read.map_err(|error| LogError::Unavailable(error.to_string()))??;
                    self.place = Some(place);
                    self.ready = read.into();
                }
                let taken = entries_max.min(self.ready.len());
                entries.extend(self.ready.drain(..taken));
            }
            self.next += entries.len() as u64;
            return Ok(entries);
        }
    }
}

/// Reads entries from `next` on, which is known to be stored, to at most `last` from the files.
fn read(
    shared: &Shared,
    next: Position,
    last: Position,
    mut place: Option<Place>,
) -> Result<(Vec<Entry>, Place), LogError> {
    if place
        .as_ref()
        .is_some_and(|place| place.cursor.position > next)
    {
        place = None;
    }
    let mut opened = false;
    loop {
        let mut here = match place.take() {
            Some(place) => place,
            None => {
                opened = true;
                open_at(shared, next)?
            }
        };
        let entries = here.cursor.read(&here.file, last);
        let mut entries = entries.map_err(|error| setup(&here.path, "read", &error))?;
        if entries.is_empty() {
            // The end of a sealed file; the entry then starts the next one.
            if !opened {
                continue;
            }
            return Err(LogError::Corrupt(format!(
                "{}: the entry at position {} (byte {}) is damaged; restore this file from a \
                 backup",
                here.path.display(),
                here.cursor.position,
                here.cursor.offset,
            )));
        }
        if here.cursor.position <= next {
            place = Some(here);
            continue;
        }
        entries.retain(|entry| entry.position >= next);
        return Ok((entries, here));
    }
}

fn open_at(shared: &Shared, next: Position) -> Result<Place, LogError> {
    let trimmed = || LogError::Trimmed {
        wanted: next,
        first: shared.first(),
    };
    let segment = shared.segment_of(next).ok_or_else(trimmed)?;
    let file = match File::open(&segment.path) {
        Ok(file) => file,
        // It may have been trimmed in between.
        Err(error) if error.kind() == io::ErrorKind::NotFound && next < shared.first() => {
            return Err(trimmed());
        }
        Err(error) => return Err(setup(&segment.path, "open", &error)),
    };
    segment::check_header(&segment, &file, shared.identity.id)?;
    Ok(Place {
        cursor: Cursor::start(&segment),
        path: segment.path,
        file: Arc::new(file),
    })
}
