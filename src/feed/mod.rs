//! What each channel may sell, pushed as it changes: to callers of `Watch`, to NATS, to webhooks.
//!
//! The writers of the shards keep each channel's *published number* of a SKU, a function of the log
//! alone, and note which of them changed. [`hub`] takes what changed, at one position of the log,
//! and keeps the last change of each SKU ([`recent`]); each receiver goes through these at its own
//! pace ([`subscription`]), so that one that is slow gets newer numbers and holds nobody up.

mod delivery;
mod hub;
pub mod json;
pub mod nats;
pub mod read_back;
mod recent;
mod state;
mod subscription;
mod update;
pub mod webhook;

pub use delivery::{Delivery, State, Times, Way};
pub use hub::{Feeds, Options, SubscribeError};
pub use state::PageError;
pub use subscription::{Ended, Start, Subscription};
pub use update::{Number, Update, UpdateKind};
