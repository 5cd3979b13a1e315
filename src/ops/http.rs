//! `/metrics`, `/livez`, `/readyz`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};

use super::{Calls, metrics};
use crate::{feed::Feeds, instance::Instance};

/// What the probes answer from.
#[derive(Clone)]
pub struct Probe {
    instance: Arc<Instance>,
    /// Its rules are in force.
    serving: Arc<AtomicBool>,
    metrics: Arc<prometheus_client::registry::Registry>,
}

impl Probe {
    /// Probes of an instance whose calls are counted by `calls`.
    pub fn new(instance: &Arc<Instance>, feeds: &Arc<Feeds>, calls: &Calls) -> Self {
        Self {
            instance: Arc::clone(instance),
            serving: Arc::default(),
            metrics: Arc::new(metrics::registry(instance, feeds, calls)),
        }
    }

    /// From now on `/readyz` may say yes: all that a start has to do is done.
    pub fn serve(&self) {
        self.serving.store(true, SeqCst);
    }
}

/// The pages.
pub fn router(probe: Probe) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(probe)
}

/// Alive, as long as it can follow its log: a restart helps against nothing else.
async fn livez(State(probe): State<Probe>) -> (StatusCode, String) {
    match probe.instance.failed() {
        None => (StatusCode::OK, "alive\n".into()),
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn readyz(State(probe): State<Probe>) -> (StatusCode, String) {
    let instance = &probe.instance;
    if instance.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into());
    }
    if !instance.ready() {
        let message = instance.not_ready_because();
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{message}\n"));
    }
    if !probe.serving.load(SeqCst) {
        // By rules of before, or none, it would give answers that nobody wants.
        let message = "putting the files of rules and source authority in force\n";
        return (StatusCode::SERVICE_UNAVAILABLE, message.into());
    }
    match instance.not_writable() {
        None => (StatusCode::OK, "ready\n".into()),
        // It still answers queries, and says so in `Operations.Status`.
        Some(reason) => (
            StatusCode::OK,
            format!("ready, but takes no writes: {reason}\n"),
        ),
    }
}

async fn show_metrics(State(probe): State<Probe>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &probe.metrics) {
        Ok(()) => (
            StatusCode::OK,
            [(
                CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        ),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain; charset=utf-8")],
            "the metrics cannot be written\n".into(),
        ),
    }
}
