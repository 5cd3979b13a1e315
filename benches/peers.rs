//! Sellable beside what teams use for the same: Redis with scripts, and PostgreSQL; and beside an
//! empty handler of its own framework.
//!
//! Every side is a process of its own on this machine, reached over loopback TCP from callers in
//! this one, who share its cores; each has one call under way. All do the same: reserve, once for
//! each id, durable before the answer where that is said, and never more than there is. That is
//! checked before anything is measured, and afterwards each server has to hold exactly what the
//! callers were granted.
//!
//! Prints Markdown (`benches/RESULTS.md` is that), or JSON with `--json`; progress goes to the
//! standard error. `benches/peers.sh` installs what is needed, runs this and `intake`, and writes
//! the file.
//!
//! `--skus` (20,000 at 10 locations), `--callers` (64), `--many` (200, to repeat the reservations
//! of one line with, in three rounds; 0: not at all), `--line-callers` (16, of 100 lines each),
//! `--ms` of one measurement (1,000), `--rounds` (5), `--only carts|reserve|lines|memory`,
//! `--intake FILE` (what that benchmark printed, to be told with the rest).

#[path = "support/empty.rs"]
mod empty;
#[path = "support/grpc.rs"]
mod grpc;
#[path = "peers/host.rs"]
mod host;
#[path = "support/lane.rs"]
mod lane;
#[path = "peers/load.rs"]
mod load;
#[path = "../tests/support/nats.rs"]
mod nats;
#[path = "peers/ours.rs"]
mod ours;
#[path = "peers/postgres.rs"]
mod postgres;
#[path = "peers/process.rs"]
mod process;
#[path = "../tests/support/process.rs"]
mod program;
#[path = "peers/redis.rs"]
mod redis;
#[path = "peers/report.rs"]
mod report;
#[path = "peers/store.rs"]
mod store;
#[path = "support/mod.rs"]
mod support;
#[path = "peers/workloads.rs"]
mod workloads;

use std::{process::ExitCode, sync::atomic::AtomicUsize, time::Duration};

use host::Host;
use load::Load;
use report::Report;
use workloads::Servers;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds with many callers.
const MANY_ROUNDS: usize = 3;

const WORKLOADS: [&str; 4] = ["carts", "reserve", "lines", "memory"];

fn main() -> ExitCode {
    if !support::is_bench() {
        return ExitCode::SUCCESS;
    }
    let empty = support::size(ours::EMPTY_NAME, 0);
    if empty > 0 {
        ours::serve_empty(empty);
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(report) if std::env::args().any(|arg| arg == "--json") => {
            println!("{:#}", report.json());
            ExitCode::SUCCESS
        }
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Report, String> {
    let only = text("only");
    if let Some(only) = &only
        && !WORKLOADS.contains(&only.as_str())
    {
        return Err(format!("--only {only}: one of {}", WORKLOADS.join(", ")));
    }
    let wants = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let wants_servers = WORKLOADS[..3].iter().any(|name| wants(name));
    look_for_peers(wants_servers)?;
    let intake = text("intake").map(|file| intake(&file)).transpose()?;

    let skus = support::size("skus", 20_000);
    let callers = support::size("callers", 64);
    let many = support::size("many", 200);
    let line_callers = support::size("line-callers", 16);
    let rounds = support::size("rounds", 5);
    let time = Duration::from_millis(support::size("ms", 1_000) as u64);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let runtime = grpc::runtime("caller");
    let runs = AtomicUsize::new(0);
    let load = |rounds| Load {
        runtime: &runtime,
        rounds,
        time,
        runs: &runs,
    };
    let mut report = Report {
        host: Host::look(dir.path(), [true, wants_servers]),
        how: format!(
            "{rounds} rounds of {} ms each, {MANY_ROUNDS} with {many} callers; {} SKUs",
            time.as_millis(),
            support::figure(skus as f64)
        ),
        sections: Vec::new(),
        memory: Vec::new(),
        intake,
    };
    if wants_servers {
        let servers = runtime.block_on(Servers::start(dir.path(), skus));
        let (load, load_many) = (load(rounds), load(MANY_ROUNDS.min(rounds)));
        if wants("carts") {
            report
                .sections
                .push(workloads::carts(&servers, &load, callers));
        }
        if wants("reserve") {
            for is_hot in [false, true] {
                let section = workloads::one_line(&servers, &load, callers, is_hot);
                report.sections.push(section);
            }
            for is_hot in [false, true] {
                if many > 0 {
                    let section = workloads::one_line(&servers, &load_many, many, is_hot);
                    report.sections.push(section);
                }
            }
        }
        if wants("lines") {
            let section = workloads::many_lines(&servers, &load, line_callers);
            report.sections.push(section);
        }
    }
    if wants("memory") {
        eprintln!("filling Redis to see its memory");
        report.memory = runtime.block_on(workloads::memory(dir.path()));
    }
    Ok(report)
}

/// Nothing is left out silently.
fn look_for_peers(wants_servers: bool) -> Result<(), String> {
    let missing = |name, program: Option<_>| match program {
        Some(_) => None,
        None => Some(name),
    };
    let mut all = vec![missing("redis-server", redis::program())];
    if wants_servers {
        all.push(missing("postgres", postgres::program("postgres")));
        all.push(missing("initdb", postgres::program("initdb")));
    }
    all.push(missing("setpriv", process::find("setpriv", &[])));
    let all: Vec<&str> = all.into_iter().flatten().collect();
    match all.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "not installed: {}. On Debian, benches/peers.sh installs them; elsewhere, put them on \
             the PATH (setpriv is part of util-linux).",
            all.join(", ")
        )),
    }
}

/// The table in what `intake` printed, and the version of NATS that it runs with.
fn intake(file: &str) -> Result<(String, String), String> {
    let printed = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let table: Vec<&str> = printed
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    let server = nats::NatsServer::start();
    let version = grpc::runtime("nats").block_on(async {
        let client = async_nats::connect(server.url()).await;
        client.expect("it answers").server_info().version
    });
    Ok((table.join("\n"), version))
}

/// The word behind `--name`.
fn text(name: &str) -> Option<String> {
    let flag = format!("--{name}");
    std::env::args().skip_while(|arg| *arg != flag).nth(1)
}
