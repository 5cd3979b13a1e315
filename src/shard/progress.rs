//! How far the log has been applied, for those who wait for it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
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
    waiters: Mutex<Waiters>,
}

/// Who waits, by position, and by a number that no other has.
#[derive(Debug, Default)]
struct Waiters {
    by_position: BTreeMap<(Position, u64), oneshot::Sender<()>>,
    last_number: u64,
}

/// Removes one that waits when it is woken, and when it gives up.
struct Entry<'p> {
    progress: &'p Progress,
    key: (Position, u64),
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.progress.lock().by_position.remove(&self.key);
        self.progress.waiting.fetch_sub(1, SeqCst);
    }
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
        let mut waiters = self.lock();
        let later = waiters.by_position.split_off(&(self.position() + 1, 0));
        let reached = std::mem::replace(&mut waiters.by_position, later);
        drop(waiters);
        for waiter in reached.into_values() {
            // One that gave up waiting is not there any more.
            let _ = waiter.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `position` is applied. Bound it with a time-out.
    pub async fn wait_for(&self, position: Position) {
        if self.position() >= position {
            return;
        }
        let (reached, wait) = oneshot::channel();
        self.waiting.fetch_add(1, SeqCst);
        let _entry = {
            let mut waiters = self.lock();
            waiters.last_number += 1;
            let key = (position, waiters.last_number);
            waiters.by_position.insert(key, reached);
            Entry {
                progress: self,
                key,
            }
        };
        // It may have been reached before anyone could see that we wait.
        if self.position() >= position {
            self.reach(self.position(), 0);
        }
        let _ = wait.await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind() {
        let progress = Progress::default();
        for _ in 0..3 {
            // Polled once, then dropped, as by a time-out.
            assert!(progress.wait_for(u64::MAX).now_or_never().is_none());
        }
        assert_eq!(progress.waiting.load(SeqCst), 0);
        assert!(progress.lock().by_position.is_empty());
    }

    #[tokio::test]
    async fn all_who_wait_for_a_position_are_woken_by_it_or_a_later_one() {
        let progress = Progress::default();
        let (mut one, mut two) = (
            Box::pin(progress.wait_for(1)),
            Box::pin(progress.wait_for(2)),
        );
        let mut three = Box::pin(progress.wait_for(3));
        assert!((&mut one).now_or_never().is_none());
        assert!((&mut two).now_or_never().is_none());
        assert!((&mut three).now_or_never().is_none());
        progress.reach(2, 20);
        one.await;
        two.await;
        assert!((&mut three).now_or_never().is_none());
        progress.reach(4, 40);
        three.await;
        assert_eq!(progress.waiting.load(SeqCst), 0);
    }
}
