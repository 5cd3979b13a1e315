//! The log, whatever the engine, and what instances leave for each other beside it.
//!
//! `log_embedded.rs` is a program of its own. It lets go of directories and takes them again, and a
//! process that another test starts just then holds a copy of the lock until it runs; here, a NATS
//! server is started for nearly every test.

#[path = "../support/nats.rs"]
mod nats;

mod checkpoints;
mod conformance;
mod jetstream;
