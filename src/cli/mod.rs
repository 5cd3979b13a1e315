//! The command line. Clients talk gRPC to a server; `serve` and `demo` are one.
//!
//! Every command prints tables for people, and JSON with `--json`: one document, or one line for
//! each element where there may be many. Exit codes are in [`exit`].

pub mod authority;
pub mod client;
pub mod demo;
pub mod document;
pub mod exceptions;
pub mod exit;
pub mod feeds;
pub mod operations;
pub mod output;
pub mod post;
pub mod query;
pub mod reconcile;
pub mod reserve;
pub mod rules;
pub mod serve;
pub mod settings;
pub mod verify;
pub mod watch;

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};

use exit::{EXIT_CODES, Exit, Failure};

/// How many units of this SKU may this channel sell right now?
#[derive(Debug, Parser)]
#[command(name = "sellable", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Print JSON: one document, or one line for each element of a list
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::ServeArgs),
    /// See it at work: run the service with a made-up retailer of 50 stores
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::DemoArgs),
    /// Post the movements of a file (NDJSON or CSV)
    #[command(after_help = post::EXAMPLES)]
    Post(post::PostArgs),
    /// How many units a channel may sell now
    #[command(after_help = query::EXAMPLES)]
    Query(query::QueryArgs),
    /// Why it is that many: every term of the answer
    #[command(after_help = query::EXPLAIN_EXAMPLES)]
    Explain(query::ExplainArgs),
    /// Watch what a channel may sell: the state first, then every change as it is published
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// The feeds: how fresh they are, webhooks, dead letters, read-back
    #[command(after_help = feeds::EXAMPLES)]
    Feeds(feeds::FeedsArgs),
    /// Channel rules: read, check, compare, put in force
    #[command(after_help = rules::EXAMPLES)]
    Rules(rules::RulesArgs),
    /// Source authority, who may post what: read, check, put in force
    #[command(after_help = authority::EXAMPLES)]
    Authority(authority::AuthorityArgs),
    /// Reserve stock for a cart or an order, all of it or nothing
    #[command(after_help = reserve::RESERVE_EXAMPLES)]
    Reserve(reserve::ReserveArgs),
    /// A reservation: look at it, confirm, extend, release
    #[command(after_help = reserve::RESERVATION_EXAMPLES)]
    Reservation(reserve::ReservationArgs),
    /// Compare a snapshot of the ERP with the books of its own time; reports, approval
    #[command(after_help = reconcile::EXAMPLES)]
    Reconcile(Box<reconcile::ReconcileArgs>),
    /// How the server stands
    #[command(after_help = operations::STATUS_EXAMPLES)]
    Status(operations::StatusArgs),
    /// What needs a person, oldest first: facts that do not fit, and parked movements
    #[command(after_help = exceptions::EXAMPLES)]
    Exceptions(exceptions::ExceptionsArgs),
    /// Digest of the whole state, and the check that no unit was made or lost
    Digest(operations::DigestArgs),
    /// Take a checkpoint of a running server now
    Checkpoint(operations::CheckpointArgs),
    /// Rebuild the state from the log, without a server, and compare it with every checkpoint
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
    /// Print the settings: every key with its documentation, or the values in force
    #[command(after_help = settings::EXAMPLES)]
    Config(settings::ConfigArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    /// Print JSON.
    pub json: bool,
    /// The environment, for the settings.
    pub env: BTreeMap<String, String>,
}

/// Runs a command to its end. Failures go to stderr.
pub fn run(cli: Cli, env: BTreeMap<String, String>) -> ExitCode {
    let context = Context {
        json: cli.json,
        env,
    };
    let exit = dispatch(cli.command, &context).unwrap_or_else(|failure| {
        if context.json {
            eprintln!("{}", failure.to_json());
        } else {
            eprint!("{}", failure.to_text());
        }
        failure.exit
    });
    ExitCode::from(exit as u8)
}

fn dispatch(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Serve(args) => serve::run(args, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Config(args) => settings::run(args, context),
        Command::Completions(args) => completions(args.shell),
        Command::Post(args) => block_on(post::run(args, context)),
        Command::Query(args) => block_on(query::run(args, context)),
        Command::Explain(args) => block_on(query::explain(args, context)),
        Command::Watch(args) => block_on(watch::run(args, context)),
        Command::Feeds(args) => block_on(feeds::run(args, context)),
        Command::Rules(args) => block_on(rules::run(args, context)),
        Command::Authority(args) => block_on(authority::run(args, context)),
        Command::Status(args) => block_on(operations::status(args, context)),
        Command::Reserve(args) => block_on(reserve::reserve(args, context)),
        Command::Reservation(args) => block_on(reserve::reservation(args, context)),
        Command::Reconcile(args) => block_on(reconcile::run(*args, context)),
        Command::Exceptions(args) => block_on(exceptions::run(args, context)),
        Command::Digest(args) => block_on(operations::digest(args, context)),
        Command::Checkpoint(args) => block_on(operations::checkpoint(args, context)),
        Command::Verify(args) => block_on(verify::run(args, context)),
    }
}

/// A client needs no more than this thread.
fn block_on(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error}")))?
        .block_on(command)
}

fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sellable", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_parse() {
        for line in [
            "sellable serve --listen 0.0.0.0:7420 --data-dir /tmp/x --set ids.max=5000",
            "sellable demo --scale 0.1 --seed 7 --exit",
            "sellable post - --format ndjson --rejects bad.ndjson --json",
            "sellable query --channel web A B --locations --min-position 4",
            "sellable query --channel web -",
            "sellable explain --channel web A --server http://other:7420",
            "sellable watch --channel web A B --resume 7 --for 5",
            "sellable watch --channel web --changes --json",
            "sellable feeds",
            "sellable feeds status --channel web --json",
            "sellable feeds shown shown.csv --channel web --settle 30s --report-only",
            "sellable feeds dead-letters shop",
            "sellable feeds retry shop A B",
            "sellable rules put rules.toml --dry-run --note test",
            "sellable rules diff rules.toml",
            "sellable rules get --version 4",
            "sellable rules check --offline rules.toml",
            "sellable authority get --version 4 --json",
            "sellable authority check --offline authority.toml",
            "sellable authority put authority.toml --expect 4 --note test --actor me",
            "sellable status --wait 30",
            "sellable exceptions --kind stale --kind malformed --all",
            "sellable exceptions --kind oversold --sku A --location dc --source wms --new",
            "sellable exceptions ack 12ab --note seen --actor kim",
            "sellable exceptions release 12ab --disposition vendor_return",
            "sellable exceptions discard 12ab --json",
            "sellable reserve --channel web A=1 B=2@dc --ttl 15m --id cart --split",
            "sellable reservation get cart",
            "sellable reservation confirm cart --id c1",
            "sellable reservation extend cart --ttl 90s",
            "sellable reservation release cart 1 2=3",
            "sellable reconcile stock.csv --as-of 2026-11-20T22:00:00Z --tolerance 2s --scope *",
            "sellable reconcile - --format ndjson --watermark erp/m-77 --snapshot s --skip-bad --quiet",
            "sellable reconcile a.csv --as-of 2026-11-20T22:00:00Z --policy correct --up-to 5 --by sku",
            "sellable reconcile reports --json",
            "sellable reconcile show s --location dc --limit 5 --export out.csv",
            "sellable reconcile approve s --sku A --condition return_pending --note counted",
            "sellable digest",
            "sellable checkpoint --json",
            "sellable verify --data-dir /tmp/x --json",
            "sellable config --effective --shards 3 --json",
            "sellable completions bash",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn bad_usage_is_refused() {
        for line in [
            "sellable",
            "sellable query A",
            "sellable query --channel web",
            "sellable post",
            "sellable exceptions --kind nonsense",
            "sellable exceptions --new ack 12ab",
            "sellable reconcile stock.csv --as-of yesterday",
            "sellable reconcile stock.csv --as-of 2026-11-20T22:00:00Z --watermark erp/1",
            "sellable reconcile approve",
            "sellable reserve --channel web A",
            "sellable reserve --channel web A=1 --ttl soon",
            "sellable demo --scale 0",
            "sellable serve --set shards",
            "sellable authority put authority.toml --dry-run",
            "sellable authority diff authority.toml",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
