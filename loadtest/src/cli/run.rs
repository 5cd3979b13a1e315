//! `sellable-loadtest run`: a scenario, and a check of every number afterwards.

use std::{
    fs::File,
    io::BufReader,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;

use super::{CONNECTIONS_MAX, Exit, IN_FLIGHT_MAX, Target, bar::Bar, host, now, prepare, print};
use crate::{
    Failure,
    drive::{Patience, World, setup::Progress},
    outcome::{Outcome, Setup, Verdict},
    pacer::Stop,
    process::{Launch, Process},
    replay::Recording,
    report,
    scenario::{
        ReserveVia, Scenario, Via,
        builtin::{self, RECORDING},
    },
    session::{Access, Session},
};

const TIMEOUT_SECONDS_MAX: u64 = 600;
const SETTLE_SECONDS_MAX: u64 = 3_600;

pub(super) const EXAMPLES: &str = "\
Examples:
  sellable-loadtest run black_friday
  sellable-loadtest run flash_sale --server-binary target/release/sellable --report flash_sale.html
  sellable-loadtest run my_day.toml --seed 7 --json > my_day.json
  sellable-loadtest run replay --replay movements.ndjson
  sellable-loadtest scenarios steady_day > my_day.toml";

/// What is run, and where.
#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// Name of a built-in scenario, or path of a .toml file
    scenario: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    clients: Clients,
    /// Start this server for the run, on loopback with an empty log, instead of using one that runs
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    server_binary: Option<PathBuf>,
    /// A setting of the server that is started, KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "server_binary")]
    server_set: Vec<String>,
    /// Recording to replay (NDJSON), instead of the scenario's own
    #[arg(long, value_name = "FILE")]
    replay: Option<String>,
    /// How movements travel, instead of the scenario's own way: grpc or nats
    #[arg(long, value_parser = ["grpc", "nats"])]
    via: Option<String>,
    /// How carts are reserved, instead of the scenario's own way: calls or stream
    #[arg(long, value_parser = ["calls", "stream"])]
    reserve_via: Option<String>,
    /// Multiply every rate of the scenario
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = factor)]
    times: f64,
    /// Begins every name of the run; by default one that no run had before
    #[arg(long, value_name = "NAME", value_parser = prefix)]
    prefix: Option<String>,
    /// Write the report as a web page that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The callers.
#[derive(Debug, Clone, Args)]
pub(super) struct Clients {
    /// Replace the server's channel rules by those of the scenario
    #[arg(long)]
    pub(super) put_rules: bool,
    /// NATS server that takes movements, for `via = "nats"`; a server that is started follows it
    #[arg(long, value_name = "URL")]
    pub(super) nats: Option<String>,
    /// Connections, taken in turn
    #[arg(long, default_value_t = 4, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    pub(super) connections: u64,
    /// Most calls in flight; beyond it calls are held back, and their time counts
    #[arg(long, default_value_t = 2_000, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    pub(super) in_flight: u64,
    /// How long one call may take, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_SECONDS_MAX))]
    pub(super) timeout: u64,
    /// How long a write without an answer is asked about again, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=SETTLE_SECONDS_MAX))]
    pub(super) settle: u64,
    /// Another seed, other times, SKUs and carts
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

impl Clients {
    /// How they reach a server.
    pub(super) fn access(&self, address: crate::server::Address, allow_remote: bool) -> Access {
        Access {
            address,
            // Their ranges let these fit.
            connections: self.connections as usize,
            in_flight: self.in_flight as usize,
            patience: Patience {
                timeout: Duration::from_secs(self.timeout),
                settle: Duration::from_secs(self.settle),
            },
            nats: self.nats.clone(),
            allow_remote,
            put_rules: self.put_rules,
            server_pid: None,
        }
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (0.001..=1_000.0).contains(&factor) => Ok(factor),
        _ => Err("it takes a number from 0.001 to 1000".to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=24).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("it takes 1 to 24 of A-Z a-z 0-9 - _".to_owned())
}

/// A name that no run had before, unless two start within a millisecond.
pub(super) fn new_prefix() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    format!("lt{ms:x}")
}

/// Runs, checks, prints, and writes the report.
pub(super) async fn run(args: RunArgs, json: bool, stop: Stop) -> Result<Exit, Failure> {
    let scenario = scenario(&args)?;
    // Before it takes minutes to find out.
    if let Some(file) = &args.report {
        report::can_be_written(file)?;
    }
    let server = prepare(&stop, start(&args)).await?;
    let address = match &server {
        Some(server) => server.address.clone(),
        None => args.target.address().await?,
    };
    let access = Access {
        server_pid: server.as_ref().and_then(Process::id),
        ..args.clients.access(address, args.target.allow_remote)
    };
    let outcome = carry_out(&args, &scenario, access, stop).await;
    if let Some(server) = server {
        server.stop().await;
    }
    let outcome = outcome?;
    if let Some(file) = &args.report {
        report::write(file, &report::of_run(&outcome))?;
    }
    let text = match json {
        true => {
            serde_json::to_string(&outcome)
                .map_err(|error| Failure::failed(format!("cannot write the report: {error}")))?
                .to_owned()
                + "\n"
        }
        false => outcome.to_text(),
    };
    print(&text)?;
    Ok(match outcome.judgement.verdict {
        Verdict::Held => Exit::Done,
        Verdict::Missed => Exit::Missed,
        Verdict::Failed => Exit::Failed,
        Verdict::Wrong => Exit::Wrong,
    })
}

fn scenario(args: &RunArgs) -> Result<Scenario, Failure> {
    let mut scenario = builtin::load(&args.scenario)?;
    for phase in &mut scenario.phases {
        for rate in [
            &mut phase.queries,
            &mut phase.reserves,
            &mut phase.movements,
            &mut phase.returns,
            &mut phase.probes,
        ] {
            *rate = rate.times(args.times);
        }
    }
    if let Some(via) = &args.via {
        scenario.movements.via = match via.as_str() {
            "nats" => Via::Nats,
            _ => Via::Grpc,
        };
    }
    if let Some(via) = &args.reserve_via {
        scenario.shopping.reserve_via = match via.as_str() {
            "stream" => ReserveVia::Stream,
            _ => ReserveVia::Calls,
        };
    }
    scenario.check(&args.scenario)?;
    Ok(scenario)
}

async fn start(args: &RunArgs) -> Result<Option<Process>, Failure> {
    let Some(binary) = &args.server_binary else {
        return Ok(None);
    };
    let launch = Launch {
        binary: std::path::absolute(binary).unwrap_or_else(|_| binary.clone()),
        nats: args.clients.nats.clone(),
        settings: args.server_set.clone(),
        ..Launch::default()
    };
    launch.start().await.map(Some)
}

async fn carry_out(
    args: &RunArgs,
    scenario: &Scenario,
    access: Access,
    stop: Stop,
) -> Result<Outcome, Failure> {
    let prefix = args.prefix.clone().unwrap_or_else(new_prefix);
    let recording = recording(args, scenario, &prefix)?;
    let open = Session::open(access.clone(), scenario, &prefix, args.clients.seed);
    let mut session = prepare(&stop, open).await?;
    let progress = Arc::new(Progress::default());
    {
        let posted = progress.clone();
        let count = session.opening_movements();
        let _bar = Bar::show("posting the opening stock", count, move || posted.posted());
        prepare(&stop, session.set_up(scenario, &progress)).await?;
    }
    let started_at = now();
    let mut bar = None;
    let show = |world: &Arc<World>| bar = Some(Bar::show_time(scenario, world.clone()));
    let ran = session.run(scenario, "", recording, show, stop).await;
    drop(bar);
    let ran = ran?;
    {
        let _bar = Bar::spin("checking every number");
        session.verify(scenario, &ran).await;
    }
    let setup = Setup {
        server: access.address.url.clone(),
        server_version: session.status.version.clone(),
        log_engine: session.status.log_engine.clone(),
        shards: session.status.shards,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        prefix,
        seed: args.clients.seed,
        connections: access.connections,
        in_flight_max: access.in_flight,
        timeout_seconds: args.clients.timeout,
        started_at,
        host: host(),
    };
    Ok(Outcome::new(setup, scenario, &ran))
}

fn recording(
    args: &RunArgs,
    scenario: &Scenario,
    prefix: &str,
) -> Result<Option<Arc<Recording>>, Failure> {
    let Some(replay) = &scenario.replay else {
        return match &args.replay {
            None => Ok(None),
            Some(_) => Err(Failure::usage("--replay: the scenario has no [replay]")
                .hint("`sellable-loadtest scenarios replay` prints one that has")),
        };
    };
    let file = args.replay.as_ref().unwrap_or(&replay.file);
    if file.is_empty() {
        return Err(Failure::usage("replay.file is not set").hint("name one with --replay FILE"));
    }
    // The built-in scenario brings its recording along.
    if args.replay.is_none() && args.scenario == "replay" {
        return Recording::read(RECORDING.as_bytes(), file, prefix).map(|all| Some(Arc::new(all)));
    }
    let open = File::open(file)
        .map_err(|error| Failure::usage(format!("cannot read the recording {file}: {error}")))?;
    Recording::read(BufReader::new(open), file, prefix).map(|all| Some(Arc::new(all)))
}
