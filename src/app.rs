//! The service: wiring, the order in which things start, and the order in which they stop.

mod files;
mod webhooks;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    api::{self, serving::Serving},
    config::{Config, JournalSync, NatsFeed, SnapshotPolicy},
    domain::admission::Horizon,
    feed::{self, Feeds},
    instance::{CheckpointOptions, Instance, Options, StartError},
    intake::PostError,
    limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    log::{
        Log, LogError,
        embedded::{self, EmbeddedLog, FsyncPolicy},
        jetstream::{self, JetStreamLog},
    },
    ops::{self, Calls, Probe},
    reconcile::{self, objects},
};

pub use files::Document;
use files::Files;

/// Names of the services whose health is told.
const SERVICES: [&str; 8] = [
    "",
    "sellable.v1.Availability",
    "sellable.v1.Feeds",
    "sellable.v1.Movements",
    "sellable.v1.Operations",
    "sellable.v1.Reconciliation",
    "sellable.v1.Reservations",
    "sellable.v1.Rules",
];

/// Appends under way at once: one syncs while the next is gathered.
const EMBEDDED_APPENDS_MAX: usize = 2;
/// The same for commands, whose appends are under way until they are decided: so all that come in
/// meanwhile share the next record, its sync, and every hand-over from thread to thread. With 64
/// callers on two cores, one record had 29 commands where two at once had 19, and a reservation
/// took a sixth less processor time (`benches/reserve.rs`).
pub const EMBEDDED_COMMAND_APPENDS_MAX: usize = 1;
/// Appends under way at once: each waits for the server's acknowledgement.
pub const JETSTREAM_APPENDS_MAX: usize = 64;
/// The same for commands, of which a record should have many: with 64 callers on two cores, 64
/// gave a median latency of 2.6 ms where one to eight gave 1.6 to 1.8 ms (`benches/reserve.rs`).
pub const JETSTREAM_COMMAND_APPENDS_MAX: usize = 2;

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
    /// A file of rules or source authority cannot be read, or what it says is wrong.
    #[error("the {document} in {path} (`{}`): {reason}", .document.key())]
    Document {
        /// Which of them.
        document: Document,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is sound, but the log did not take it.
    #[error("the {document} of `{}` cannot be put in force: {error}", .document.key())]
    NotPut {
        /// Which of them.
        document: Document,
        /// Why.
        error: PostError,
    },
    /// The file of webhooks cannot be read, what it says is wrong, or it cannot be done here.
    #[error("the webhooks in {path} (`feeds.webhooks_file`): {reason}")]
    Webhooks {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
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
    let files = Files::of(&config);
    // Before anything is opened: a typing error should not cost a start.
    files.check()?;
    let webhooks = webhooks::read(&config)?;
    let log = open_log(&config).await?;
    let instance = Instance::start(log, &instance_options(&config, cores)).await?;

    let calls = Calls::default();
    // Before anybody can ask.
    instance.set_rules_pending(!files.is_empty());
    let feeds = Feeds::start(&instance, feed_options(&config));
    let webhooks = webhooks::start(&feeds, &config, webhooks)?;
    let probe = Probe::new(&instance, &feeds, &calls);
    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, ServingStatus::NotServing).await;
    let options = api::Options {
        min_position_wait_max: Duration::from_millis(config.query_min_position_wait_ms_max),
        message_bytes_max: config.grpc_message_bytes_max,
        reconcile: reconcile_options(&config),
    };
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(config.grpc_concurrent_streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .layer(calls);
    let routes = api::routes(&instance, &feeds, options, health_service);
    let serve_callers = move |incoming, drains| {
        let router = server.clone().add_routes(routes.clone());
        router.serve_with_incoming_shutdown(incoming, drains)
    };
    let mut callers =
        Serving::start(grpc, cores, "grpc", serve_callers).map_err(AppError::Thread)?;
    // Until the very end: while calls under way end, `/readyz` says no and `/livez` yes.
    let http_server = axum::serve(http, ops::router(probe.clone()));
    let http_server = tokio::spawn(async move { http_server.await });

    let snapshots = snapshot_settings(&config)
        .map(|settings| tokio::spawn(objects::follow(Arc::clone(&instance), settings)));

    let nats_feed = nats_feed_settings(&config)
        .map(|settings| tokio::spawn(feed::nats::follow(Arc::clone(&feeds), settings)));

    let ended = {
        let serving = serve(&instance, &probe, &health, &files);
        tokio::select! {
            () = shutdown => Ok(()),
            error = instance.failure() => Err(error.into()),
            error = serving => Err(error),
            ended = callers.ended() => Err(server_failed(ended)),
        }
    };

    // Another instance takes what it was at.
    if let Some(snapshots) = snapshots {
        snapshots.abort();
    }
    if let Some(nats_feed) = nats_feed {
        nats_feed.abort();
    }
    instance.begin_to_drain();
    set_health(&health, ServingStatus::NotServing).await;
    let grace = Duration::from_millis(config.drain_grace_ms);
    // Streams do not end by themselves.
    feeds.stop();
    // Webhooks, too, while the log still takes how far they got.
    let (ended_in_time, ()) = tokio::join!(callers.drain(grace), webhooks.stop(grace));
    if !ended_in_time {
        tracing::warn!(
            ?grace,
            "calls under way did not end in time; they are cut off"
        );
    }
    instance.stop().await;
    http_server.abort();
    tracing::info!("stopped");
    ended
}

/// Once caught up, puts the files in force and says that it serves; then reads them again at every
/// SIGHUP. Ends only with an error.
async fn serve(
    instance: &Instance,
    probe: &Probe,
    health: &HealthReporter,
    files: &Files,
) -> AppError {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return AppError::Server(format!("cannot listen for signals: {error}")),
    };
    instance.caught_up().await;
    for file in files.all() {
        if let Err(error) = file.put(instance).await {
            return error;
        }
    }
    instance.set_rules_pending(false);
    set_health(health, ServingStatus::Serving).await;
    probe.serve();
    while hangups.recv().await.is_some() {
        if files.is_empty() {
            tracing::warn!("SIGHUP, but neither `rules.file` nor `authority.file` is set");
        }
        for file in files.all() {
            // What is in force stays, whatever is wrong with the file.
            if let Err(error) = file.put(instance).await {
                tracing::error!(%error, "the {} in force stay", file.document());
            }
        }
    }
    std::future::pending().await
}

fn nats_options(config: &Config) -> Option<jetstream::Options> {
    let url = config.nats_url.as_ref()?;
    Some(jetstream::Options {
        stream: config.nats_stream.clone(),
        credentials: config.nats_credentials_file.clone(),
        replicas: config.nats_replicas as usize,
        ..jetstream::Options::new(url)
    })
}

/// How snapshots from the object store are treated, if they are to be taken.
fn snapshot_settings(config: &Config) -> Option<objects::Settings> {
    let nats = nats_options(config).filter(|_| config.reconciliation_enabled)?;
    let up_to_units = i64::try_from(config.reconciliation_up_to_units).unwrap_or(i64::MAX);
    Some(objects::Settings {
        nats,
        up_to_units: match config.reconciliation_policy {
            SnapshotPolicy::Report => None,
            SnapshotPolicy::Correct => Some(up_to_units),
        },
        tolerance_ms: i64::try_from(config.reconciliation_tolerance_ms).unwrap_or(i64::MAX),
        options: reconcile_options(config),
    })
}

/// How feeds are written to NATS, if they are.
fn nats_feed_settings(config: &Config) -> Option<feed::nats::Settings> {
    let form = match config.feeds_nats {
        NatsFeed::Off => return None,
        NatsFeed::Protobuf => feed::nats::Form::Protobuf,
        NatsFeed::Json => feed::nats::Form::Json,
    };
    Some(feed::nats::Settings {
        nats: nats_options(config)?,
        form,
        max_age: Duration::from_secs(config.feeds_nats_max_age_hours * 3_600),
    })
}

fn feed_options(config: &Config) -> feed::Options {
    feed::Options {
        interval: Duration::from_millis(config.feeds_interval_ms),
        kept_max: config.feeds_kept_max,
        heartbeat: Duration::from_secs(config.feeds_heartbeat_seconds),
    }
}

fn reconcile_options(config: &Config) -> reconcile::Options {
    reconcile::Options {
        variances_max: config.reconciliation_variances_max,
    }
}

/// Opens the log that the settings name.
pub(crate) async fn open_log(config: &Config) -> Result<Arc<dyn Log>, LogError> {
    if let Some(options) = nats_options(config) {
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

/// How an instance is run with these settings, on so many cores.
pub(crate) fn instance_options(config: &Config, cores: usize) -> Options {
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
        command_appends_max: match config.nats_url {
            None => EMBEDDED_COMMAND_APPENDS_MAX,
            Some(_) => JETSTREAM_COMMAND_APPENDS_MAX,
        },
        gather_wait: Duration::from_micros(config.intake_gather_wait_us),
        parked_kept_max: config.exceptions_kept_max,
        waiting_commands_max: config.intake_queue_commands_max,
        lines_retain_us: match config.lines_retain_hours {
            0 => config.ids_horizon_hours,
            hours => hours,
        } as i64
            * 3_600
            * 1_000_000,
        feeds: true,
        checkpoints: (config.checkpoint_keep > 0).then(|| CheckpointOptions {
            dir: config.checkpoints_in(),
            keep: config.checkpoint_keep,
            every_records: config.checkpoint_every_records,
            every: Duration::from_secs(config.checkpoint_every_seconds),
            trim: config.checkpoint_trim,
            bootstrap: config.checkpoint_bootstrap.clone(),
            publish: config.checkpoint_publish,
        }),
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

fn server_failed(ended: Result<(), tonic::transport::Error>) -> AppError {
    AppError::Server(match ended {
        Ok(()) => "it ended by itself".into(),
        Err(error) => error.to_string(),
    })
}
