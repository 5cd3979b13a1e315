//! An open-loop load generator for Sellable that knows the public contract and nothing else.
//!
//! | where | what |
//! |---|---|
//! | [`cli`] | options, exit codes, wiring |
//! | [`schedule`] | when each call is due |
//! | [`queries`] | what each call asks |
//! | [`server`] | which address may be loaded, and the connections to it |
//! | [`run`] | sends each call when it is due, and waits for what is under way |
//! | [`report`] | what came of it |
//! | [`random`] | numbers that stay the same for a seed |
//!
//! Two invariants: a call's latency counts from the time at which it was *due*, so a server that
//! stalls cannot hide the callers it would have kept waiting; and every call that was due is in
//! the report, as answered, failed or dropped.

pub mod cli;
pub mod queries;
pub mod random;
pub mod report;
pub mod run;
pub mod schedule;
pub mod server;

/// The public contract, generated from `proto/sellable/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    tonic::include_proto!("sellable.v1");
}

use std::fmt;

/// Why there was no run, or no report: what happened, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit code of the process.
    pub exit: u8,
    /// One line.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl Failure {
    /// For a reason that is neither of the others.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(cli::EXIT_FAILED, message)
    }

    /// Bad usage or bad input.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(cli::EXIT_USAGE, message)
    }

    /// Nobody answers.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(cli::EXIT_UNAVAILABLE, message)
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    fn new(exit: u8, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: String::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if self.hint.is_empty() {
            return Ok(());
        }
        write!(f, "\nnext: {}", self.hint)
    }
}

impl std::error::Error for Failure {}
