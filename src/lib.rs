//! Sellable answers one question, fast and truthfully: how many units of this SKU may this
//! channel sell right now?
//!
//! `ARCHITECTURE.md` is the map; start there.

pub mod api;
pub mod app;
#[doc(hidden)]
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod domain;
pub mod feed;
pub mod instance;
pub mod intake;
mod kept;
pub mod limits;
pub mod log;
pub mod ops;
pub mod proto;
pub mod reconcile;
pub mod shard;
mod sync;
pub mod wire;
