//! The program: parse the command line, run, give the exit code.

use std::process::ExitCode;

use clap::Parser;
use sellable_loadtest::cli::{self, Cli};

/// The generator shares its machine with what it measures, so what it takes itself counts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
