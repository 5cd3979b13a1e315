//! A sequence lock: one writer, any number of readers that never make it wait.
//!
//! The data itself lies in atomics that are read and written relaxed; the sequence says whether
//! what was read belongs together. After H.-J. Boehm, "Can seqlocks get along with programming
//! language memory models?" (MSPC 2012). Model-checked by `tests/seqlock_model.rs`.

use crate::sync::{AtomicU32, Ordering, fence, pause};

/// The sequence: even while the data is at rest, odd while it is written.
#[derive(Debug)]
pub(crate) struct SeqLock(AtomicU32);

impl SeqLock {
    /// A sequence at rest.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Writes with `write`. Only ever from one thread at a time.
    #[inline]
    pub(crate) fn write<R>(&self, write: impl FnOnce() -> R) -> R {
        let sequence = self.0.load(Ordering::Relaxed);
        debug_assert!(sequence.is_multiple_of(2), "a second writer");
        self.0.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // The odd sequence is visible before any of the data is.
        fence(Ordering::Release);
        let result = write();
        self.0.store(sequence.wrapping_add(2), Ordering::Release);
        result
    }

    /// Reads with `read`, again and again until nothing was written meanwhile.
    #[inline]
    pub(crate) fn read<R>(&self, mut read: impl FnMut() -> R) -> R {
        loop {
            let before = self.0.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let result = read();
                // The data is read before the sequence is read again.
                fence(Ordering::Acquire);
                if self.0.load(Ordering::Relaxed) == before {
                    return result;
                }
            }
            pause();
        }
    }
}
