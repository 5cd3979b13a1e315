//! How far the log has been applied, for those who wait for it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
};

use tokio::sync::oneshot;

use crate::{domain::movement::TimeUs, log::Position};

/// The last position that every shard has applied, and the log's time there.
#[derive(Debug, Default)]
pub struct Progress {
    position: AtomicU64,
    time_us: AtomicI64,
    waiting: AtomicU64,
    waiters: Mutex<BTreeMap<Position, Vec<oneshot::Sender<()>>>>,
}

impl Progress {
    /// The last position applied.
    #[inline]
    pub fn position(&self) -> Position {
        self.position.load(SeqCst)
    }

    /// The log's time there.
    pub fn time_us(&self) -> TimeUs {
        self.time_us.load(SeqCst)
    }

    /// Everything up to `position` is applied and visible.
    pub(crate) fn reach(&self, position: Position, time_us: TimeUs) {
        // Two batches may come here at once, the later one first; neither steps back.
        self.time_us.fetch_max(time_us, SeqCst);
        self.position.fetch_max(position, SeqCst);
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let later = waiters.split_off(&(self.position() + 1));
        let reached = std::mem::replace(&mut *waiters, later);
        drop(waiters);
        for waiter in reached.into_values().flatten() {
            self.waiting.fetch_sub(1, SeqCst);
            // One that gave up waiting is not there any more.
            let _ = waiter.send(());
        }
    }

    /// Waits until `position` is applied. Bound it with a time-out.
    pub async fn wait_for(&self, position: Position) {
        if self.position() >= position {
            return;
        }
        let (reached, wait) = oneshot::channel();
        self.waiting.fetch_add(1, SeqCst);
        {
            let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            waiters.entry(position).or_default().push(reached);
        }
        // It may have been reached before anyone could see that we wait.
        if self.position() >= position {
            self.reach(self.position(), 0);
        }
        let _ = wait.await;
    }
}
