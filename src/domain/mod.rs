//! The domain: pure and deterministic. No clock, no I/O, no randomness, no floats, no hash-order
//! iteration. It depends on nothing else of this crate but [`crate::limits`]; a test enforces it.
//!
//! The way of a fact through it: a [`movement::Movement`] is checked, reduced to a
//! [`posting::Posting`], let in once by [`admission::Admission`], and applied by a
//! [`ledger::Ledger`] to its [`ledger::Books`].

pub mod admission;
pub mod authority;
pub mod balances;
pub mod digest;
pub mod document;
pub mod exceptions;
pub mod keys;
pub mod ledger;
pub mod lifecycle;
pub mod lines;
pub mod movement;
pub mod posting;
mod prefetch;
pub mod recent;
pub mod reconcile;
pub mod remembered;
pub mod reserve;
pub mod rules;
pub mod saved;
mod sweep;

pub(crate) use prefetch::read as prefetch;
