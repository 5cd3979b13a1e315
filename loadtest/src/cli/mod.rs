//! Options, exit codes, wiring.

mod bar;
mod capacity;
mod queries;
mod run;
mod scenarios;
mod signals;

use std::{
    io::Write,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use tokio::sync::watch;

use crate::{Failure, pacer::Stop, server::Address};
use signals::Signals;

/// Done: every call was answered, every number was right, every objective was reached.
pub const EXIT_DONE: u8 = 0;
/// A call failed or was dropped, or the run was interrupted.
pub const EXIT_FAILED: u8 = 1;
/// Bad usage or bad input.
pub const EXIT_USAGE: u8 = 2;
/// The server gave a wrong result.
pub const EXIT_WRONG: u8 = 3;
/// Nobody answers.
pub const EXIT_UNAVAILABLE: u8 = 4;
/// Everything was answered and right, but not as fast as the objective asks.
pub const EXIT_MISSED: u8 = 5;
/// Interrupted twice, so that there is no report; as shells say it of Ctrl-C.
pub const EXIT_AT_ONCE: u8 = 130;

const IN_FLIGHT_MAX: u64 = 100_000;
const CONNECTIONS_MAX: u64 = 1_000;
const REDRAW: Duration = Duration::from_millis(200);

const EXIT_CODES: &str = "\
Exit codes:
  0  every call was answered, every number was right, every objective was reached
  1  a call failed or was dropped, or the run was interrupted
  2  bad usage or bad input
  3  the server gave a wrong result, however fast it was
  4  no server, or one that cannot answer now
  5  answered and right, but not as fast as the objective asks
  130  interrupted twice: ended at once, without a report

Ctrl-C, SIGTERM and SIGHUP end a run sooner: what was run is checked and reported. The second one
ends the program at once. A server that was started for the run ends with it either way.";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = EXIT_DONE as isize,
    Failed = EXIT_FAILED as isize,
    Wrong = EXIT_WRONG as isize,
    Missed = EXIT_MISSED as isize,
}

/// Will it hold on the day? Open-loop load on a Sellable server, through its public interfaces.
///
/// Calls are sent when they are due, whether or not earlier ones have been answered, and latencies
/// count from when each call was due.
#[derive(Debug, Clone, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    /// The report as one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Run a scenario, and check every number afterwards
    #[command(after_help = run::EXAMPLES)]
    Run(run::RunArgs),
    /// Find the rate at which an objective breaks, and how it grows with the size
    #[command(after_help = capacity::EXAMPLES)]
    Capacity(capacity::CapacityArgs),
    /// Queries of one channel at one rate
    #[command(after_help = queries::EXAMPLES)]
    Queries(queries::QueriesArgs),
    /// List the built-in scenarios, or print one
    Scenarios(scenarios::ScenariosArgs),
}

/// Which server is loaded.
#[derive(Debug, Clone, Args)]
struct Target {
    /// Where the server answers
    #[arg(long, default_value = "http://127.0.0.1:7420", value_name = "URL")]
    server: String,
    /// Put load on a server that is not on this machine
    #[arg(long)]
    allow_remote: bool,
}

impl Target {
    /// The address, if load is welcome there.
    async fn address(&self) -> Result<Address, Failure> {
        let address = Address::parse(&self.server)?;
        if !self.allow_remote {
            address.ensure_loopback().await?;
        }
        Ok(address)
    }
}

/// Runs, prints the report on stdout, and gives the exit code.
pub fn run(cli: Cli) -> ExitCode {
    let json = cli.json;
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
        .and_then(|runtime| {
            let ended = runtime.block_on(until_interrupted_twice(cli));
            // Calls that are still under way are not waited for.
            runtime.shutdown_background();
            ended
        });
    match ended {
        Ok(exit) => ExitCode::from(exit),
        Err(failure) if json => {
            let error = json!({
                "exit_code": failure.exit,
                "message": failure.message,
                "next": failure.hint,
            });
            eprintln!("{}", json!({ "error": error }));
            ExitCode::from(failure.exit)
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit)
        }
    }
}

/// Gives the exit code.
async fn until_interrupted_twice(cli: Cli) -> Result<u8, Failure> {
    let (stop, stopped) = watch::channel(None);
    let signals = Signals::listen()
        .map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))?;
    tokio::select! {
        ended = dispatch(cli, stopped) => ended.map(|exit| exit as u8),
        // What is dropped here ends the server that was started.
        () = signals.twice(stop) => Ok(EXIT_AT_ONCE),
    }
}

async fn dispatch(cli: Cli, stop: Stop) -> Result<Exit, Failure> {
    match cli.command {
        Command::Run(args) => run::run(args, cli.json, stop).await,
        Command::Capacity(args) => capacity::run(args, cli.json, stop).await,
        Command::Queries(args) => queries::run(args, cli.json, stop).await,
        Command::Scenarios(args) => scenarios::run(&args, cli.json),
    }
}

/// On stdout.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::failed(format!("cannot write the report: {error}")))
}

/// Does what comes before the first call, of which there is nothing to report if it is stopped.
async fn prepare<T>(
    stop: &Stop,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => done,
        _ = stop.wait_for(Option::is_some) => {
            Err(Failure::failed("interrupted before the first call was sent"))
        }
    }
}

fn now() -> String {
    let mut now = prost_types::Timestamp::from(SystemTime::now());
    now.nanos = 0;
    now.to_string()
}

/// Where the generator runs: operating system, architecture, processors and their name.
fn host() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let name = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(format!(" ({})", line.split_once(':')?.1.trim()))
        })
        .unwrap_or_default();
    format!(
        "{} {}, {processors} processors{name}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn options_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_documented() {
        for exit in [
            EXIT_DONE,
            EXIT_FAILED,
            EXIT_USAGE,
            EXIT_WRONG,
            EXIT_UNAVAILABLE,
            EXIT_MISSED,
            EXIT_AT_ONCE,
        ] {
            assert!(EXIT_CODES.contains(&format!("\n  {exit}  ")));
        }
    }
}
