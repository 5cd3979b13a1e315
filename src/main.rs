//! The program: parse the command line, run the command, give its exit code.

use std::process::ExitCode;

use clap::Parser;
use sellable::cli::{self, Cli};

/// Many small, long-lived allocations over many threads are what it is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Other variables may hold bytes that are no text; ours may not, and are then as if not set.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    cli::run(Cli::parse(), env)
}
