//! Snapshots of others' books, compared with those of their own time: what differs is reported,
//! corrected, held and approved.

#[path = "../support/bad.rs"]
mod bad;
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/parquet_file.rs"]
mod parquet_file;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/snapshots.rs"]
mod snapshots;

mod files;
mod in_time;
mod over_nats;
mod reconciliation;
