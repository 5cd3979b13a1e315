//! The way of work to a shard's writer: through a queue to the thread of the shard, or, if there is
//! little to do and the thread has nothing else, done at once by who hands it over.
//!
//! To wake a thread, and to be woken by it, costs as much as some dozens of reservations. So a
//! record of a few commands goes through sequencer and shard on the thread that read it from the
//! log; what takes longer is done side by side.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, TryLockError,
    atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use crossbeam::channel::Sender;

use super::{
    commands::Command,
    worker::{Work, Writer},
};
use crate::limits::AT_ONCE_LINES_MAX;

/// What has been handed over and is not finished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unfinished(Arc<AtomicUsize>);

impl Unfinished {
    /// One more is handed over.
    pub(crate) fn begin(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One is finished; all that it did is seen by who finds that there are none.
    pub(crate) fn finish(&self) {
        self.0.fetch_sub(1, Release);
    }

    /// True if there are none.
    pub(crate) fn are_none(&self) -> bool {
        self.0.load(Acquire) == 0
    }
}

/// Hands work over to a shard. There is one for each shard, and so one order of its work.
pub(crate) struct ShardQueue {
    queue: Sender<Work>,
    unfinished: Unfinished,
    /// Its writer, if it may be used by who hands work over: shards that vote need each a thread.
    writer: Option<Arc<Mutex<Writer>>>,
}

/// The shard has ended.
#[derive(Debug)]
pub(crate) struct Ended;

impl ShardQueue {
    /// To a writer whose thread takes work from the queue, and finishes it there.
    pub(crate) fn new(
        queue: Sender<Work>,
        unfinished: Unfinished,
        writer: Option<Arc<Mutex<Writer>>>,
    ) -> Self {
        Self {
            queue,
            unfinished,
            writer,
        }
    }

    /// Whether the next work, if it is little, is done at once.
    pub(crate) fn is_idle(&self) -> bool {
        self.writer.is_some() && self.unfinished.are_none()
    }

    /// Has the work done after all that was handed over before. Waits if the queue is full.
    ///
    /// # Errors
    /// If the shard has ended.
    pub(crate) fn hand_over(&self, work: Work) -> Result<(), Ended> {
        if work.is_little()
            && self.unfinished.are_none()
            && let Some(mut writer) = self.writer.as_deref().and_then(try_lock)
        {
            writer.work(work);
            return Ok(());
        }
        self.unfinished.begin();
        self.queue.send(work).map_err(|_| Ended)
    }
}

/// Whether commands have so few lines that handing them over would take longer.
pub(crate) fn are_few<'c>(lines: impl Iterator<Item = &'c Command>) -> bool {
    let lines = lines.map(|command| match command {
        Command::Reserve(reservation) | Command::Prolong(reservation, _) => reservation.lines.len(),
        Command::Release(release) => release.lines.len(),
    });
    lines.sum::<usize>() <= AT_ONCE_LINES_MAX
}

/// Locks, unless another thread has it. A thread that panicked with it has ended the process.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Locks. A thread that panicked with it has ended the process.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
