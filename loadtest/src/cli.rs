//! Options, exit codes, wiring.

use std::{
    io::Write,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    Failure,
    queries::{self, Queries, SKUS_PER_CALL_MAX, ZIPF_MAX},
    report::{Report, Setup},
    run::{self, Limits, Progress, Stop},
    schedule::{RATE_MAX, SECONDS_MAX, Schedule},
    server::Address,
};

/// Done: every call was answered.
pub const EXIT_DONE: u8 = 0;
/// A call failed or was dropped, or the run was interrupted.
pub const EXIT_FAILED: u8 = 1;
/// Bad usage or bad input.
pub const EXIT_USAGE: u8 = 2;
/// Nobody answers.
pub const EXIT_UNAVAILABLE: u8 = 4;

const IN_FLIGHT_MAX: u64 = 100_000;
const CONNECTIONS_MAX: u64 = 1_000;
const TIMEOUT_SECONDS_MAX: u64 = 3_600;
const REDRAW: Duration = Duration::from_millis(200);

const AFTER_HELP: &str = "\
Examples, against `sellable demo --json > demo.json`:
  jq -r '.answers[].sku' demo.json > skus.txt
  sellable-loadtest --channel web --skus skus.txt --skus-per-call 5 --rate 2000
  jq -r '.answers[].sku' demo.json | sellable-loadtest --channel web --skus - --skus-per-call 1 --json

Exit codes:
  0  every call was answered
  1  a call failed or was dropped, or the run was interrupted
  2  bad usage or bad input
  4  no server, or one that cannot answer now";

/// Open-loop load on the queries of a Sellable server: calls are sent when they are due, whether or
/// not earlier ones have been answered, and latencies count from when each call was due.
#[derive(Debug, Clone, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    /// Where the server answers
    #[arg(long, default_value = "http://127.0.0.1:7420", value_name = "URL")]
    server: String,
    /// Put load on a server that is not on this machine
    #[arg(long)]
    allow_remote: bool,
    /// Channel to ask for
    #[arg(long)]
    channel: String,
    /// File with one SKU a line, the most popular first; - reads stdin
    #[arg(long, value_name = "FILE")]
    skus: String,
    /// Different SKUs of each call
    #[arg(long, default_value_t = 10, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=SKUS_PER_CALL_MAX as u64))]
    skus_per_call: u64,
    /// How steeply popularity falls: the weight of the n-th SKU is 1 / n^EXPONENT; 0 draws all alike
    #[arg(long, default_value_t = 1.0, value_name = "EXPONENT", value_parser = exponent)]
    zipf: f64,
    /// Calls per second
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
    /// How long calls are sent
    #[arg(long, default_value_t = 10, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Connections, taken in turn
    #[arg(long, default_value_t = 2, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Most calls in flight; beyond it calls are held back, and their time counts
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    in_flight: u64,
    /// How long one call may take, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_SECONDS_MAX))]
    timeout: u64,
    /// Another seed, other times and other SKUs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The report as one JSON object
    #[arg(long)]
    json: bool,
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=ZIPF_MAX).contains(&exponent) => Ok(exponent),
        _ => Err(format!("it takes a number from 0 to {ZIPF_MAX}")),
    }
}

/// Runs, prints the report on stdout, and gives the exit code.
pub fn run(cli: Cli) -> ExitCode {
    let json = cli.json;
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
        .and_then(|runtime| runtime.block_on(load(cli)))
        .and_then(|report| print(&report, json));
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

fn print(report: &Report, json: bool) -> Result<u8, Failure> {
    let mut text = if json {
        serde_json::to_string(report)
            .map_err(|error| Failure::failed(format!("cannot write the report: {error}")))?
    } else {
        report.to_text()
    };
    if json {
        text.push('\n');
    }
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::failed(format!("cannot write the report: {error}")))?;
    Ok(if report.is_clean() {
        EXIT_DONE
    } else {
        EXIT_FAILED
    })
}

async fn load(cli: Cli) -> Result<Report, Failure> {
    // Before anything is read or opened.
    let address = Address::parse(&cli.server)?;
    if !cli.allow_remote {
        address.ensure_loopback().await?;
    }
    // Their ranges let these three fit.
    let (skus_per_call, connections, in_flight) = (
        cli.skus_per_call as usize,
        cli.connections as usize,
        cli.in_flight as usize,
    );
    let skus = queries::read_skus(&cli.skus)?;
    let mut first = Queries::new(
        cli.channel.clone(),
        skus.clone(),
        skus_per_call,
        cli.zipf,
        cli.seed,
    )?;
    let timeout = Duration::from_secs(cli.timeout);
    let channels = address.connect(connections).await?;
    run::try_once(&channels, &first.draw(), timeout).await?;
    let setup = Setup {
        server: address.url,
        channel: cli.channel.clone(),
        skus: skus.len(),
        skus_per_call,
        zipf: cli.zipf,
        rate: cli.rate,
        seconds: cli.seconds,
        connections,
        in_flight_max: in_flight,
        timeout_seconds: cli.timeout,
        seed: cli.seed,
        started_at: now(),
        host: host(),
    };
    // The counted calls begin with the seed's first query, whatever was asked before.
    let queries = Queries::new(cli.channel, skus, skus_per_call, cli.zipf, cli.seed)?;
    let schedule = Schedule::new(cli.rate, cli.seconds, cli.seed);
    let limits = Limits { in_flight, timeout };
    let progress = Arc::new(Progress::default());
    let bar = Bar::show(schedule.calls(), progress.clone());
    let stop = stop_at_signal();
    let ended = run::run(channels, schedule, queries, limits, progress, stop).await;
    bar.clear();
    let (sent, tally) = ended?;
    Ok(Report::new(setup, sent, &tally))
}

/// Holds when the first Ctrl-C came; a second one ends the process as if there were no first.
fn stop_at_signal() -> Stop {
    let (stop, stopped) = watch::channel(None);
    tokio::spawn(async move {
        // Without signals there is no stop, and the run ends by itself.
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.send_replace(Some(Instant::now()));
        } else {
            stop.closed().await;
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    stopped
}

/// The progress bar; only on a terminal.
struct Bar {
    bar: ProgressBar,
    redraws: JoinHandle<()>,
}

impl Bar {
    fn show(calls: u64, progress: Arc<Progress>) -> Self {
        let bar = ProgressBar::with_draw_target(Some(calls), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} calls, {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        let drawn = bar.clone();
        let redraws = tokio::spawn(async move {
            loop {
                drawn.set_position(progress.ended());
                drawn.set_message(format!(
                    "{} in flight, {} failed",
                    progress.in_flight(),
                    progress.failed()
                ));
                tokio::time::sleep(REDRAW).await;
            }
        });
        Self { bar, redraws }
    }

    fn clear(self) {
        self.redraws.abort();
        self.bar.finish_and_clear();
    }
}

fn now() -> String {
    let mut now = prost_types::Timestamp::from(SystemTime::now());
    now.nanos = 0;
    now.to_string()
}

fn host() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{} {}, {processors} processors",
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
    fn options_have_their_limits() {
        let parse = |more: &[&str]| {
            let base = ["sellable-loadtest", "--channel", "web", "--skus", "-"];
            Cli::try_parse_from(base.iter().chain(more)).map(|_| ())
        };
        assert!(parse(&[]).is_ok());
        for bad in [
            ["--rate", "0"],
            ["--rate", "1000001"],
            ["--seconds", "0"],
            ["--skus-per-call", "1001"],
            ["--zipf", "-1"],
            ["--zipf", "NaN"],
            ["--zipf", "5.1"],
            ["--in-flight", "0"],
            ["--connections", "0"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
        assert!(parse(&["--zipf", "0"]).is_ok());
    }

    #[test]
    fn every_exit_code_is_documented() {
        for exit in [EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE] {
            assert!(AFTER_HELP.contains(&format!("\n  {exit}  ")));
        }
    }

    #[tokio::test]
    async fn a_remote_server_is_refused_before_anything_is_read() {
        let cli = Cli::parse_from([
            "sellable-loadtest",
            "--channel=web",
            "--skus=/nowhere",
            "--server=10.0.0.1:7420",
        ]);
        let failure = load(cli).await.expect_err("remote");
        assert_eq!(failure.exit, EXIT_USAGE);
        assert!(failure.hint.contains("--allow-remote"));
    }
}
