//! Intake: the way of movements from callers into the log, and from the log to the shards.
//!
//! [`gather`] puts many callers' movements into one record and appends it. [`follow`] reads the
//! log in order and decodes it. [`sequencer`] lets each movement in once and hands it to the
//! shard of its SKU. [`parked`] keeps what is not applied.

pub(crate) mod decode;
pub(crate) mod follow;
pub(crate) mod gather;
pub mod parked;
pub(crate) mod sequencer;

pub(crate) use gather::MOVEMENT_BYTES_MAX;
pub use gather::PostError;
pub use parked::{Parked, ParkedList};
