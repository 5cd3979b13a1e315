//! `serve`, and the one place where the command line meets the service: [`service`].

use std::{future::Future, io::IsTerminal, time::Duration};

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    operations,
    settings::SettingFlags,
};
use crate::{
    app::AppError,
    config::{Config, TraceFormat},
    log::LogError,
};

/// Examples for `sellable serve --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable serve                                       the log is a journal in ./data
  sellable serve --nats nats://localhost:4222          the log is a JetStream stream
  sellable serve --config /etc/sellable.toml --set journal.sync=interval

SIGTERM or Ctrl-C drains: calls under way end, for at most `drain.grace_ms`. A second one does not
wait. SIGHUP reads `rules.file` and `authority.file` again.";

/// Longest replay of a log that the announcement waits for.
const READY_WITHIN: Duration = Duration::from_secs(24 * 3_600);

/// Arguments of `sellable serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    settings: SettingFlags,
}

/// Runs `sellable serve` until it is told to stop.
///
/// # Errors
/// If the settings are wrong, or the service fails.
pub fn run(args: ServeArgs, context: &Context) -> Result<Exit, Failure> {
    let config = args.settings.load(context)?.config;
    start_tracing(&config)?;
    runtime()?.block_on(async {
        let announcement = tokio::spawn(announce(config.clone()));
        let ended = service(config, stop_signal()?).await;
        announcement.abort();
        ended.map(|()| Exit::Done)
    })
}

/// Runs the service with these settings until `shutdown` resolves, and drains it.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub async fn service(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    crate::app::run(config, cores(), shutdown)
        .await
        .map_err(Failure::from)
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let message = error.to_string();
        match error {
            AppError::Listen { key, error, .. } => {
                let in_use = error.kind() == std::io::ErrorKind::AddrInUse;
                let hint = if in_use {
                    format!("another process listens there; stop it, or set `{key}` to another")
                } else {
                    format!("set `{key}` to an address of this host")
                };
                Failure::usage(message).hint(hint)
            }
            AppError::Log(LogError::Unavailable(_)) => Failure::new(Exit::Unavailable, message),
            AppError::Log(LogError::Setup(_)) => Failure::usage(message),
            AppError::Document { document, .. } => Failure::usage(message)
                .hint(format!("correct it; `{}` checks it", document.command())),
            AppError::Webhooks { .. } => Failure::usage(message)
                .hint("correct it; all of it is read again at the next start"),
            AppError::NotPut { .. } => {
                Failure::new(Exit::Unavailable, message).hint("start it again")
            }
            AppError::Log(_) | AppError::Thread(_) | AppError::Server(_) => {
                Failure::new(Exit::Failed, message)
            }
        }
    }
}

/// A runtime for the service: as many threads as there are cores.
///
/// # Errors
/// If the operating system gives none.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error}")))
}

/// Starts the program's own log, on stderr.
///
/// # Errors
/// If `trace.filter` is no filter.
pub fn start_tracing(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.trace_filter).map_err(|error| {
        Failure::usage(format!(
            "`trace.filter` is {:?}: {error}",
            config.trace_filter
        ))
        .hint("write a level, as info, or targets with levels, as info,sellable::log=warn")
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.trace_format {
        TraceFormat::Text => lines.try_init(),
        TraceFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(Exit::Failed, format!("cannot log: {error}")))
}

/// Resolves at the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// If the operating system does not let signals be handled.
pub fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    use tokio::signal::unix::{SignalKind, signal};

    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"))
        })
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; a second signal does not wait for calls under way");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(i32::from(Exit::Failed as u8));
        });
    })
}

/// Says where the service listens once it can be asked, the way its users ask it.
async fn announce(config: Config) {
    tracing::info!(
        engine = ?config.engine(),
        shards = config.shard_count(cores()),
        "starting"
    );
    if operations::wait_until_ready(&Server::of(&config), READY_WITHIN)
        .await
        .is_ok()
    {
        tracing::info!(grpc = %config.listen, http = %config.http_listen, "ready");
    }
}

/// Cores of this host that the process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
