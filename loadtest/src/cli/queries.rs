//! `sellable-loadtest queries`: `Availability.Get` at one rate.

use std::{sync::Arc, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use super::{CONNECTIONS_MAX, Exit, IN_FLIGHT_MAX, REDRAW, Target, host, now, print};
use crate::{
    Failure,
    pacer::Stop,
    queries::{
        draw::{self, Queries, SKUS_PER_CALL_MAX},
        report::{Report, Setup},
        run::{self, Limits, Progress},
    },
    schedule::{RATE_MAX, SECONDS_MAX, Schedule},
    zipf::EXPONENT_MAX,
};

const TIMEOUT_SECONDS_MAX: u64 = 3_600;

pub(super) const EXAMPLES: &str = "\
Examples, against `sellable demo --json > demo.json`:
  jq -r '.answers[].sku' demo.json > skus.txt
  sellable-loadtest queries --channel web --skus skus.txt --skus-per-call 5 --rate 2000
  jq -r '.answers[].sku' demo.json | sellable-loadtest queries --channel web --skus - --skus-per-call 1 --json";

/// How queries are sent.
#[derive(Debug, Clone, Args)]
pub(super) struct QueriesArgs {
    #[command(flatten)]
    target: Target,
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
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=EXPONENT_MAX).contains(&exponent) => Ok(exponent),
        _ => Err(format!("it takes a number from 0 to {EXPONENT_MAX}")),
    }
}

/// Runs, and prints the report.
pub(super) async fn run(args: QueriesArgs, json: bool, stop: Stop) -> Result<Exit, Failure> {
    let report = load(args, stop).await?;
    let text = if json {
        serde_json::to_string(&report)
            .map_err(|error| Failure::failed(format!("cannot write the report: {error}")))?
            + "\n"
    } else {
        report.to_text()
    };
    print(&text)?;
    Ok(if report.is_clean() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn load(cli: QueriesArgs, stop: Stop) -> Result<Report, Failure> {
    // Before anything is read or opened.
    let address = cli.target.address().await?;
    // Their ranges let these three fit.
    let (skus_per_call, connections, in_flight) = (
        cli.skus_per_call as usize,
        cli.connections as usize,
        cli.in_flight as usize,
    );
    let skus = draw::read_skus(&cli.skus)?;
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
    let ended = run::run(channels, schedule, queries, limits, progress, stop).await;
    bar.clear();
    let (sent, tally) = ended?;
    Ok(Report::new(setup, sent, &tally))
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, EXIT_USAGE};

    fn args(more: &[&str]) -> Result<QueriesArgs, clap::Error> {
        let base = ["sellable-loadtest", "queries", "--channel=web"];
        let cli = Cli::try_parse_from(base.iter().chain(more))?;
        match cli.command {
            Command::Queries(args) => Ok(args),
            _ => unreachable!("`queries` was named"),
        }
    }

    #[test]
    fn options_have_their_limits() {
        let parse = |more: &[&str]| args(&[&["--skus=-"], more].concat());
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

    #[tokio::test]
    async fn a_remote_server_is_refused_before_anything_is_read() {
        let cli = args(&["--skus=/nowhere", "--server=10.0.0.1:7420"]).expect("options");
        let (_keep, stop) = tokio::sync::watch::channel(None);
        let failure = load(cli, stop).await.expect_err("remote");
        assert_eq!(failure.exit, EXIT_USAGE);
        assert!(failure.hint.contains("--allow-remote"));
    }
}
