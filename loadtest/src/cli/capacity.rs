//! `sellable-loadtest capacity`: the highest rate that holds, and how it grows.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};

use super::{
    Exit, Target, host, now, print,
    run::{Clients, new_prefix},
    stop_at_signal,
};
use crate::{
    Failure,
    capacity::{self, Capacity, Dimension, Found, Question, Size, Variation},
    outcome::Setup,
    pacer::Stop,
    process::Launch,
    report,
    scenario::Objective,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  sellable-loadtest capacity --server-binary target/release/sellable
  sellable-loadtest capacity --server-binary target/release/sellable \\
    --sizes skus=1000,100000 --sizes shards=1,2 --report capacity.html
  sellable-loadtest capacity --query-p99-ms 10 --skus-per-query 30 --reserves-per-query 0.05";

/// What is asked, and where.
#[derive(Debug, Clone, Args)]
pub(super) struct CapacityArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    clients: Clients,
    /// Start this server for each size, on loopback with an empty log
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    server_binary: Option<PathBuf>,
    /// A setting of the servers that are started, KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "server_binary")]
    server_set: Vec<String>,
    /// Also measure with one number of the size varied, as skus=1000,100000; may be repeated:
    /// skus, locations, channels, shards, processors
    #[arg(long, value_name = "NAME=VALUES", requires = "server_binary")]
    sizes: Vec<Variation>,
    /// SKUs
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    skus: u32,
    /// Locations of each SKU
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    locations: u16,
    /// Online channels
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=200))]
    channels: u16,
    /// Objective: 99th percentile of queries, in milliseconds
    #[arg(long, default_value_t = 5.0, value_name = "MS", value_parser = limit)]
    query_p99_ms: f64,
    /// Objective: 99th percentile of freshness, in milliseconds
    #[arg(long, default_value_t = 50.0, value_name = "MS", value_parser = limit)]
    freshness_p99_ms: f64,
    /// Objective: 99th percentile of reservations, in milliseconds; without it none
    #[arg(long, value_name = "MS", value_parser = limit)]
    reserve_p99_ms: Option<f64>,
    /// Movements for each query
    #[arg(long, default_value_t = 0.2, value_name = "NUMBER", value_parser = part)]
    movements_per_query: f64,
    /// Carts for each query, each confirmed and shipped, or released
    #[arg(long, default_value_t = 0.02, value_name = "NUMBER", value_parser = part)]
    reserves_per_query: f64,
    /// SKUs of one query: from 1 to this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    skus_per_query: u32,
    /// Queries per second of the first step
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    rate_first: u32,
    /// Queries per second beyond which is not searched
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    rate_max: u32,
    /// Seconds of each step that are not measured
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=600))]
    warm_up: u32,
    /// Seconds of each step that are measured
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..=3_600))]
    measure: u32,
    /// Search until what holds and what does not are so near, in percent
    #[arg(long, default_value_t = 10, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    within: u32,
    /// Part of the capacity that is to stay free, in percent
    #[arg(long, default_value_t = 40, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=90))]
    headroom: u32,
    /// Write the report as a web page that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn limit(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ms) if (0.001..=3_600_000.0).contains(&ms) => Ok(ms),
        _ => Err("it takes milliseconds, from 0.001 to 3600000".to_owned()),
    }
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..=100.0).contains(&part) => Ok(part),
        _ => Err("it takes a number from 0 to 100".to_owned()),
    }
}

/// Searches, prints, and writes the report.
pub(super) async fn run(args: CapacityArgs, json: bool) -> Result<Exit, Failure> {
    if let Some(file) = &args.report {
        report::can_be_written(file)?;
    }
    let question = args.question();
    let stop = stop_at_signal();
    let started_at = now();
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.enable_steady_tick(super::REDRAW);
    let mut found = Vec::new();
    let mut setup = None;
    for (varied, size) in args.sizes() {
        let one = args
            .one(&question, (size, varied), &bar, stop.clone())
            .await;
        let (one, about) = one?;
        setup.get_or_insert(about);
        let wrong = !one.wrong.is_empty();
        found.push(one);
        if wrong {
            break;
        }
    }
    bar.finish_and_clear();
    let capacity = Capacity {
        setup: Setup {
            started_at,
            ..setup.unwrap_or_default()
        },
        question,
        found,
    };
    if let Some(file) = &args.report {
        report::write(file, &report::of_capacity(&capacity))?;
    }
    let text = match json {
        true => {
            serde_json::to_string(&capacity)
                .map_err(|error| Failure::failed(format!("cannot write the report: {error}")))?
                + "\n"
        }
        false => capacity.to_text(),
    };
    print(&text)?;
    Ok(exit(&capacity.found))
}

fn exit(found: &[Found]) -> Exit {
    if found.iter().any(|one| !one.wrong.is_empty()) {
        Exit::Wrong
    } else if found.iter().any(|one| one.sustainable == 0.0) {
        Exit::Missed
    } else {
        Exit::Done
    }
}

impl CapacityArgs {
    fn question(&self) -> Question {
        Question {
            objective: Objective {
                query_p99_ms: Some(self.query_p99_ms),
                freshness_p99_ms: Some(self.freshness_p99_ms),
                reserve_p99_ms: self.reserve_p99_ms,
            },
            rate_first: f64::from(self.rate_first.min(self.rate_max)),
            rate_max: f64::from(self.rate_max),
            movements_per_query: self.movements_per_query,
            reserves_per_query: self.reserves_per_query,
            skus_per_query: self.skus_per_query,
            // Enough for a 99th percentile in any measured time.
            probes: 100.0,
            warm_up_seconds: self.warm_up,
            measure_seconds: self.measure,
            within_percent: self.within,
            headroom_percent: self.headroom,
        }
    }

    /// The base, then each variation.
    fn sizes(&self) -> Vec<(Option<Dimension>, Size)> {
        let base = Size {
            skus: self.skus,
            locations: self.locations,
            channels: self.channels,
            shards: 0,
            processors: 0,
        };
        let varied = self
            .sizes
            .iter()
            .flat_map(|Variation { dimension, values }| {
                let sizes = values
                    .iter()
                    .filter(|value| base.get(*dimension) != **value);
                sizes.map(|value| (Some(*dimension), base.with(*dimension, *value)))
            });
        std::iter::once((None, base)).chain(varied).collect()
    }

    async fn one(
        &self,
        question: &Question,
        (size, varied): (Size, Option<Dimension>),
        bar: &ProgressBar,
        stop: Stop,
    ) -> Result<(Found, Setup), Failure> {
        let server = match &self.server_binary {
            None => None,
            Some(binary) => {
                let launch = Launch {
                    binary: std::path::absolute(binary).unwrap_or_else(|_| binary.clone()),
                    shards: (size.shards > 0).then_some(size.shards),
                    processors: (size.processors > 0).then(|| format!("0-{}", size.processors - 1)),
                    settings: self.server_set.clone(),
                };
                Some(launch.start().await?)
            }
        };
        let address = match &server {
            Some(server) => server.address.clone(),
            None => self.target.address().await?,
        };
        let access = self.clients.access(address, self.target.allow_remote);
        let prefix = new_prefix();
        let mut setup = Setup {
            server: access.address.url.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            prefix: prefix.clone(),
            seed: self.clients.seed,
            connections: access.connections,
            in_flight_max: access.in_flight,
            timeout_seconds: self.clients.timeout,
            host: host(),
            ..Setup::default()
        };
        let tell = |what: String| bar.set_message(what);
        let names = (prefix.as_str(), self.clients.seed);
        let found = capacity::search(question, (&size, varied), access, names, &tell, stop).await;
        if let Some(server) = server {
            server.stop().await;
        }
        let found = found?;
        setup.shards = found.size.shards;
        setup.server_version.clone_from(&found.server_version);
        setup.log_engine.clone_from(&found.log_engine);
        Ok((found, setup))
    }
}
