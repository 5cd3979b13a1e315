//! The service: wiring, the order in which things start, and the order in which they stop.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tonic::transport::server::TcpIncoming;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    api,
    config::{Config, JournalSync},
    domain::{admission::Horizon, rules::Rules},
    instance::{Instance, Options, StartError},
    intake::PostError,
    log::{
        Log, LogError,
        embedded::{self, EmbeddedLog, FsyncPolicy},
        jetstream::{self, JetStreamLog},
    },
    ops::{self, Calls, Probe},
    proto::v1 as pb,
};

/// Names of the services whose health is told.
const SERVICES: [&str; 5] = [
    "",
    "sellable.v1.Availability",
    "sellable.v1.Movements",
    "sellable.v1.Operations",
    "sellable.v1.Rules",
];

/// Appends under way at once: one syncs while the next is gathered.
const EMBEDDED_APPENDS_MAX: usize = 2;
/// Appends under way at once: each waits for the server's acknowledgement.
const JETSTREAM_APPENDS_MAX: usize = 64;

/// Why the service could not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (`{key}`): {error}")]
    Listen {
        /// Which setting says so.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The log cannot be opened or followed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The rules file cannot be put in force at the start.
    #[error("the rules in {path} (`rules.file`): {reason}")]
    Rules {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The rules are sound, but the log did not take them.
    #[error("the rules of `rules.file` are not put in force: {0}")]
    NotPut(PostError),
    /// A server ended by itself.
    #[error("the server failed: {0}")]
    Server(String),
}

impl From<StartError> for AppError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Log(error) => Self::Log(error),
            StartError::Thread(error) => Self::Thread(error),
        }
    }
}

/// Runs the service until `shutdown` resolves, then drains it. `cores` is what the process may
/// use.
///
/// Starting: listen (so that a port in use is told before any work), open the log, follow it, and
/// answer; queries are refused until the log is caught up with. Stopping: `/readyz` says no,
/// calls under way end, the instance stops, the log is closed.
///
/// # Errors
/// See [`AppError`].
pub async fn run(
    config: Config,
    cores: usize,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AppError> {
    let grpc = listen("listen", config.listen).await?;
    let http = listen("http.listen", config.http_listen).await?;
    let rules_file = config.rules_file.as_deref();
    if let Some(path) = rules_file {
        // Before anything is opened: a typing error should not cost a start.
        read_rules(path)?;
    }
    let log = open_log(&config).await?;
    let instance = Instance::start(log, &instance_options(&config, cores)).await?;

    let calls = Calls::default();
    // Before anybody can ask.
    instance.set_rules_pending(rules_file.is_some());
    let probe = Probe::new(&instance, &calls);
    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, ServingStatus::NotServing).await;
    let (stop, stopped) = watch::channel(false);
    let options = api::Options {
        min_position_wait_max: Duration::from_millis(config.query_min_position_wait_ms_max),
        message_bytes_max: config.grpc_message_bytes_max,
    };
    let grpc_server = tonic::transport::Server::builder()
        .max_concurrent_streams(config.grpc_concurrent_streams_max)
        .layer(calls)
        .add_routes(api::routes(&instance, options, health_service))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(grpc).with_nodelay(Some(true)),
            until(stopped),
        );
    let mut grpc_server = tokio::spawn(grpc_server);
    // Until the very end: while calls under way end, `/readyz` says no and `/livez` yes.
    let http_server = axum::serve(http, ops::router(probe.clone()));
    let http_server = tokio::spawn(async move { http_server.await });

    let ended = {
        let serving = serve(&instance, &probe, &health, rules_file);
        tokio::select! {
            () = shutdown => Ok(()),
            error = instance.failure() => Err(error.into()),
            error = serving => Err(error),
            ended = &mut grpc_server => Err(server_failed(ended)),
        }
    };

    probe.drain();
    set_health(&health, ServingStatus::NotServing).await;
    stop.send_replace(true);
    let grace = Duration::from_millis(config.drain_grace_ms);
    if tokio::time::timeout(grace, &mut grpc_server).await.is_err() {
        tracing::warn!(
            ?grace,
            "calls under way did not end in time; they are cut off"
        );
        grpc_server.abort();
    }
    instance.stop().await;
    http_server.abort();
    tracing::info!("stopped");
    ended
}

/// Once caught up, puts the rules file in force and says that it serves; then reads the file
/// again at every SIGHUP. Ends only with an error.
async fn serve(
    instance: &Instance,
    probe: &Probe,
    health: &HealthReporter,
    rules: Option<&Path>,
) -> AppError {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return AppError::Server(format!("cannot listen for signals: {error}")),
    };
    instance.caught_up().await;
    if let Some(path) = rules
        && let Err(error) = put_rules(instance, path).await
    {
        return error;
    }
    instance.set_rules_pending(false);
    set_health(health, ServingStatus::Serving).await;
    probe.serve();
    while hangups.recv().await.is_some() {
        let Some(path) = rules else {
            tracing::warn!("SIGHUP, but no `rules.file` is set");
            continue;
        };
        // The rules in force stay, whatever is wrong with the file.
        if let Err(error) = put_rules(instance, path).await {
            tracing::error!(%error, "the rules in force stay");
        }
    }
    std::future::pending().await
}

async fn put_rules(instance: &Instance, path: &Path) -> Result<(), AppError> {
    let (toml, rules) = read_rules(path)?;
    if *instance.view().rulebook().in_force().rules == rules {
        tracing::info!(path = %path.display(), "the rules in force are those of the file");
        return Ok(());
    }
    let put = pb::RulesPut {
        toml,
        actor: "rules.file".into(),
        note: String::new(),
        expected_version: None,
    };
    let version = instance.put_rules(put).await.map_err(AppError::NotPut)?;
    tracing::info!(path = %path.display(), version, "rules put in force");
    Ok(())
}

fn read_rules(path: &Path) -> Result<(String, Rules), AppError> {
    let wrong = |reason: String| AppError::Rules {
        path: path.into(),
        reason,
    };
    let toml = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let (rules, warnings) = Rules::parse(&toml).map_err(|error| wrong(error.to_string()))?;
    for warning in warnings {
        tracing::warn!(path = %path.display(), "{warning}");
    }
    Ok((toml, rules))
}

async fn open_log(config: &Config) -> Result<Arc<dyn Log>, LogError> {
    if let Some(url) = &config.nats_url {
        let options = jetstream::Options {
            stream: config.nats_stream.clone(),
            credentials: config.nats_credentials_file.clone(),
            replicas: config.nats_replicas as usize,
            ..jetstream::Options::new(url)
        };
        return Ok(Arc::new(JetStreamLog::open(options).await?));
    }
    let interval = Duration::from_millis(config.journal_sync_interval_ms);
    let options = embedded::Options {
        fsync: match config.journal_sync {
            JournalSync::Always => FsyncPolicy::Always,
            JournalSync::Interval => FsyncPolicy::Interval(interval),
            JournalSync::Os => FsyncPolicy::Os,
        },
        ..embedded::Options::new(&config.data_dir)
    };
    // Opening reads what is there.
    let opened = tokio::task::spawn_blocking(|| EmbeddedLog::open(options)).await;
    Ok(Arc::new(opened.expect("opening does not panic")?))
}

fn instance_options(config: &Config, cores: usize) -> Options {
    Options {
        shards: config.shard_count(cores),
        horizon: Horizon {
            us: config.ids_horizon_hours as i64 * 3_600 * 1_000_000,
            ids_max: config.ids_max,
        },
        waiting_movements_max: config.intake_queue_movements_max,
        record_movements_max: config.intake_record_movements_max,
        appends_max: match config.nats_url {
            None => EMBEDDED_APPENDS_MAX,
            Some(_) => JETSTREAM_APPENDS_MAX,
        },
        gather_wait: Duration::from_micros(config.intake_gather_wait_us),
        parked_kept_max: config.exceptions_kept_max,
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| AppError::Listen {
            key,
            address,
            error,
        })
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn server_failed(
    ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>,
) -> AppError {
    AppError::Server(match ended {
        Ok(Ok(())) => "it ended by itself".into(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    })
}
