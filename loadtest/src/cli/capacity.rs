//! `sellable-loadtest capacity`: the highest rate that holds, and how it grows.

use std::path::PathBuf;

use clap::Args;

use super::{
    Exit, Target,
    bar::Bar,
    host, now, prepare, print,
    run::{Clients, new_prefix},
};
use crate::{
    Failure,
    capacity::{self, Capacity, Dimension, Found, Question, Size, Told, Variation},
    outcome::Setup,
    pacer::Stop,
    process::{Launch, Process},
    processors, report,
    scenario::Objective,
    session::Access,
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
pub(super) async fn run(args: CapacityArgs, json: bool, stop: Stop) -> Result<Exit, Failure> {
    if let Some(file) = &args.report {
        report::can_be_written(file)?;
    }
    let question = args.question();
    let sizes = args.sizes()?;
    // Before it takes minutes to find out.
    for (_, size) in &sizes {
        question
            .scenario(size, question.rate_first)
            .check("capacity")?;
    }
    let started_at = now();
    let mut setup = None;
    let mut found: Vec<Found> = Vec::new();
    // What is known of some sizes is told, whatever becomes of the next one.
    let mut ended = Ok(());
    let bar = Bar::spin("starting");
    for (varied, size) in sizes {
        if found.iter().any(|known| known.size == size) {
            continue;
        }
        let one = args.one(&question, (size, varied), &bar, stop.clone());
        match one.await {
            Ok(Some((one, about))) => {
                setup.get_or_insert(about);
                found.push(one);
            }
            Ok(None) => {}
            Err(failure) => ended = Err(failure),
        }
        let wrong = found.last().is_some_and(|one| !one.wrong.is_empty());
        if wrong || ended.is_err() || stop.borrow().is_some() {
            break;
        }
    }
    drop(bar);
    let Some(setup) = setup else {
        return ended.and(Err(Failure::failed("interrupted before the first step")));
    };
    let capacity = Capacity {
        setup: Setup {
            started_at,
            ..setup
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
    ended?;
    Ok(exit(&capacity.found, &stop))
}

fn exit(found: &[Found], stop: &Stop) -> Exit {
    if found.iter().any(|one| !one.wrong.is_empty()) {
        Exit::Wrong
    } else if stop.borrow().is_some() {
        Exit::Failed
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
    fn sizes(&self) -> Result<Vec<(Option<Dimension>, Size)>, Failure> {
        // A server that is started may use what this program may; of another one it is not known.
        let there_are = processors::allowed("self").len() as u32;
        let base = Size {
            skus: self.skus,
            locations: self.locations,
            channels: self.channels,
            shards: 0,
            processors: self.server_binary.as_ref().map_or(0, |_| there_are),
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
        let sizes: Vec<_> = std::iter::once((None, base)).chain(varied).collect();
        match sizes.iter().find(|(_, size)| size.processors > there_are) {
            None => Ok(sizes),
            Some((_, size)) => Err(Failure::usage(format!(
                "--sizes processors={}: this program may use {there_are}",
                size.processors
            ))
            .hint("vary up to as many, or run it on a larger machine")),
        }
    }

    /// None if it was stopped before its first step.
    async fn one(
        &self,
        question: &Question,
        (size, varied): (Size, Option<Dimension>),
        bar: &Bar,
        stop: Stop,
    ) -> Result<Option<(Found, Setup)>, Failure> {
        let server = match &self.server_binary {
            None => None,
            Some(binary) => {
                let launch = Launch {
                    binary: std::path::absolute(binary).unwrap_or_else(|_| binary.clone()),
                    shards: (size.shards > 0).then_some(size.shards),
                    processors: (varied == Some(Dimension::Processors)).then_some(size.processors),
                    nats: self.clients.nats.clone(),
                    settings: self.server_set.clone(),
                };
                Some(prepare(&stop, launch.start()).await?)
            }
        };
        let address = match &server {
            Some(server) => server.address.clone(),
            None => self.target.address().await?,
        };
        let access = Access {
            server_pid: server.as_ref().and_then(Process::id),
            ..self.clients.access(address, self.target.allow_remote)
        };
        let size = Size {
            // What the system says, and not what was asked for.
            processors: server.as_ref().and_then(Process::processors).unwrap_or(0),
            ..size
        };
        let prefix = new_prefix();
        let setup = Setup {
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
        let tell = |told| match told {
            Told::Begins(what) => bar.now(what),
            Told::Ended(what) => bar.line(&what),
        };
        let names = (prefix.as_str(), self.clients.seed);
        let found = capacity::search(question, (&size, varied), access, names, &tell, stop).await;
        if let Some(server) = server {
            server.stop().await;
        }
        Ok(found?.map(|found| {
            let setup = Setup {
                shards: found.size.shards,
                server_version: found.server_version.clone(),
                log_engine: found.log_engine.clone(),
                ..setup
            };
            (found, setup)
        }))
    }
}
