//! The atomics that the lock-free hand-off is built on. `tests/seqlock_model.rs` puts those of a
//! model checker in their place.

pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Waits a moment for another thread.
pub(crate) fn pause() {
    std::hint::spin_loop();
}
