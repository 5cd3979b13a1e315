//! Will it hold on the day? An open-loop load generator for Sellable that knows the public contract
//! and nothing else.
//!
//! | where | what |
//! |---|---|
//! | [`cli`] | options, exit codes, wiring |
//! | [`scenario`] | what a run does, as a TOML file; those that come with the program |
//! | [`catalogue`], [`replay`] | SKUs, locations, stock and rules; recorded movements |
//! | [`plan`] | which call is due when: a function of the scenario and its seed |
//! | [`pacer`], [`ramps`], [`schedule`] | keeps the time |
//! | [`session`], [`drive`], [`orders`] | sets a server up, carries the plan out |
//! | [`account`], [`verify`], [`findings`] | the own books, and the server's against them |
//! | [`measure`], [`latency`] | counts and latencies, in all and over time |
//! | [`outcome`], [`report`] | what came of it, for terminals, scripts and as a web page |
//! | [`capacity`] | the highest rate that holds |
//! | [`process`], [`processors`] | servers started for a run; what they and this program take |
//! | [`queries`] | the smallest load: queries of one channel at one rate |
//! | [`server`] | which address may be loaded, and the connections to it |
//! | [`random`], [`zipf`], [`words`] | numbers that stay the same for a seed; how they are written |
//!
//! Invariants:
//!
//! - A call's latency counts from the time at which it was *due*, so a server that stalls cannot
//!   hide the callers it would have kept waiting.
//! - Every call that was due is in the report, as answered, failed or dropped.
//! - What is planned depends on the scenario and its seed, and never on an answer.
//! - A write whose outcome is unknown is asked about again, with the same id, until it is known; so
//!   the own books are exact, and whatever differs from them is the server's.

pub mod account;
pub mod capacity;
pub mod catalogue;
pub mod cli;
pub mod drive;
pub mod findings;
pub mod latency;
pub mod measure;
pub mod orders;
pub mod outcome;
pub mod pacer;
pub mod plan;
pub mod process;
pub mod processors;
pub mod queries;
pub mod ramps;
pub mod random;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod server;
pub mod session;
#[cfg(test)]
mod stub;
pub mod verify;
pub mod words;
pub mod zipf;

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
