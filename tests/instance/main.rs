//! Whole instances inside the process of the tests: their limits, their checkpoints, and a retailer's
//! day.
//!
//! They are not with tests that start processes over and over: one that is being started holds a copy
//! of every lock of this process for a moment, and a directory that a test has just let go of would
//! seem to be in use. `log_embedded.rs` is alone for the same reason.

mod checkpoints;
mod limits;
mod scenarios;
