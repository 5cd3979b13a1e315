//! Reconciliation: compares what the ERP states with the books, corrects or reports what differs.
//!
//! A [`Comparison`] takes a snapshot line by line and hands it, in chunks, to the shards, which
//! compare it with the books of its own time. What is found is counted and ranked ([`tally`]),
//! treated by a [`Policy`], corrected by movements ([`correction`], [`settle`]), and written into
//! the log as a report ([`record`]), so that every instance shows the same.

mod approve;
mod cells;
mod comparison;
mod correction;
pub mod files;
mod missing;
pub mod objects;
mod policy;
mod record;
mod settle;
mod tally;

pub use approve::{Approved, Selection, approve};
pub use comparison::{BadLine, Comparison, Finished, Options, ReconcileError};
pub use correction::SOURCE;
pub use policy::{Policy, Tolerance};
