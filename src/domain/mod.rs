//! The domain: pure and deterministic. No clock, no I/O, no randomness, no floats, no hash-order
//! iteration. It depends on nothing else of this crate but [`crate::limits`]; a test enforces it.

pub mod movement;
pub mod rules;
