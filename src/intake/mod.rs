//! Intake: the way of movements from callers into the log, and from the log to the shards.
//!
//! [`gather`] puts many callers' movements or commands into one record and appends it. [`follow`]
//! reads the log in order and decodes it. [`sequencer`] lets each movement in once and hands it to
//! the shard of its SKU, and [`commands`] to the shards of their lines. [`authority`] says what a
//! source may post, [`parked`] keeps what is not applied, and
//! [`reports`] what came of comparing snapshots, [`deliveries`] how far webhooks have got.

pub mod authority;
pub(crate) mod commands;
pub(crate) mod decode;
pub mod deliveries;
pub(crate) mod follow;
pub(crate) mod following;
pub(crate) mod gather;
pub mod parked;
pub mod reports;
mod resolve;
pub(crate) mod saving;
pub(crate) mod sequencer;
pub(crate) mod sequencing;

pub use authority::{AuthorityBook, AuthorityInForce};
pub use commands::{
    Allocation, CommandOutcome, CommandReceipt, CommandVerdict, Refusal, ReservationView, ShortLine,
};
pub(crate) use commands::{Told, allocation, short_lines};
pub use deliveries::{DeadLetter, DeliveryBook, Reported, Standing, Standings};
pub use gather::PostError;
pub(crate) use gather::{Deciding, MOVEMENT_BYTES_MAX};
pub use parked::{Parked, ParkedList};
pub use reports::{Report, ReportBook};
pub use resolve::Resolved;
pub use sequencer::Cut;
