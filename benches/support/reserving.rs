//! What benchmarks of reservations share: an instance with stock, and callers that reserve of it.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use prost::Message;
use sellable::{
    api,
    instance::{self, Instance},
    log::Log,
    ops::Calls,
    proto::v1::{self as pb, reservations_client::ReservationsClient},
};
use tokio::sync::mpsc;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Server},
};

use crate::{
    grpc::{Undecoded, serve},
    lane::Lane,
    support::{self, Random},
};

pub(crate) const LOCATIONS: usize = 10;
/// At each location: more than there are calls.
const UNITS: i64 = 100_000_000;
const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";

/// Of microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds")
}

/// An instance on this log, which serves as `sellable serve` does, with stock of each SKU.
pub(crate) async fn start(
    log: Arc<dyn Log>,
    skus: usize,
    options: &instance::Options,
) -> (Arc<Instance>, SocketAddr) {
    let instance = Instance::start(log, options).await.expect("it starts");
    instance.caught_up().await;
    let put = pb::RulesPut {
        toml: RULES.into(),
        ..pb::RulesPut::default()
    };
    instance.put_rules(put).await.expect("rules");
    let mut id = 0;
    for first in (0..skus).step_by(100) {
        let mut movements = Vec::new();
        for sku in first..skus.min(first + 100) {
            for at in 0..LOCATIONS {
                id += 1;
                let (sku, at) = (support::sku(sku), support::location(at));
                let movement = support::received(id, sku, UNITS, at);
                movements.push(movement.encode_to_vec().into());
            }
        }
        instance.post(movements).await.expect("stock");
    }
    let (_, health) = tonic_health::server::health_reporter();
    let options = api::Options {
        min_position_wait_max: Duration::from_secs(1),
        message_bytes_max: 4 << 20,
        reconcile: Default::default(),
    };
    let feeds = sellable::feed::Feeds::start(&instance, Default::default());
    let routes = api::routes(&instance, &feeds, options, health);
    let address = serve!(Server::builder().layer(Calls::default()), routes);
    (instance, address)
}

/// One call is granted.
pub(crate) async fn check(channel: &Channel) {
    let request = request("check".into(), std::iter::once(support::sku(0)));
    let answer = ReservationsClient::new(channel.clone())
        .reserve(request)
        .await;
    let answer = answer.expect("an answer").into_inner();
    assert!(
        answer.granted && answer.allocations.len() == 1,
        "{answer:?}"
    );
}

fn request(id: String, skus: impl Iterator<Item = String>) -> pb::ReserveRequest {
    let line = |sku| pb::ReserveLine {
        sku,
        quantity: 1,
        ..pb::ReserveLine::default()
    };
    pb::ReserveRequest {
        id,
        channel: "web".into(),
        lines: skus.map(line).collect(),
        ..pb::ReserveRequest::default()
    }
}

/// What one measurement came to.
pub(crate) struct Done {
    pub(crate) calls: u64,
    pub(crate) elapsed: Duration,
    /// In microseconds.
    pub(crate) latencies: Histogram<u64>,
}

/// Callers of which each has one call under way at most.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) skus: usize,
    /// Of a call.
    pub(crate) lines: usize,
    /// Callers of a connection share one stream, instead of a call for each.
    pub(crate) streamed: bool,
    pub(crate) callers: usize,
    /// Calls that are due in a second, of all callers together, whose latency counts from when they
    /// are due; none: each caller calls again as soon as it is answered.
    pub(crate) per_second: Option<f64>,
    pub(crate) time: Duration,
    pub(crate) next_id: Arc<AtomicU64>,
    pub(crate) run: String,
}

impl Load {
    /// Runs it to its end.
    pub(crate) async fn run(&self, channels: &[Channel]) -> Done {
        let mut lanes = Vec::new();
        if self.streamed {
            for channel in channels {
                lanes.push(Lane::open(channel.clone(), Undecoded).await);
            }
        }
        let ends = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let mut tasks = Vec::new();
        let mut due = Vec::new();
        for caller in 0..self.callers {
            let mut turns = self.per_second.map(|_| {
                let (turn, turns) = mpsc::unbounded_channel();
                due.push(turn);
                turns
            });
            let mut client = Grpc::new(channels[caller % channels.len()].clone());
            let (ends, next_id) = (Arc::clone(&ends), Arc::clone(&self.next_id));
            let (skus, lines, run) = (self.skus, self.lines, self.run.clone());
            let lane = self.streamed.then(|| lanes[caller % lanes.len()].clone());
            tasks.push(tokio::spawn(async move {
                let path = PathAndQuery::from_static("/sellable.v1.Reservations/Reserve");
                let mut random = Random(caller as u64 + 1);
                let mut latencies = histogram();
                while !ends.load(Relaxed) {
                    let since = match &mut turns {
                        None => None,
                        Some(turns) => match turns.recv().await {
                            Some(due) => Some(due),
                            None => break,
                        },
                    };
                    let id = next_id.fetch_add(1, Relaxed);
                    let skus = (0..lines).map(|_| support::sku(random.below(skus)));
                    let request = request(format!("{run}-{id}"), skus);
                    let request = Bytes::from(request.encode_to_vec());
                    let sent = since.unwrap_or_else(Instant::now);
                    if let Some(lane) = &lane {
                        lane.call(request).await;
                    } else {
                        client.ready().await.expect("connected");
                        let request = Request::new(request);
                        let answer = client.unary(request, path.clone(), Undecoded).await;
                        answer.expect("an answer");
                    }
                    let us = sent.elapsed().as_micros() as u64;
                    latencies.saturating_record(us.max(1));
                }
                // Calls that were due and had no turn: they waited longest.
                if let Some(turns) = &mut turns {
                    while let Ok(due) = turns.try_recv() {
                        let us = due.elapsed().as_micros() as u64;
                        latencies.saturating_record(us.max(1));
                    }
                }
                latencies
            }));
        }
        let pacer = self.per_second.map(|per_second| {
            let ends = Arc::clone(&ends);
            std::thread::spawn(move || pace(started, per_second, &due, &ends))
        });
        tokio::time::sleep(self.time).await;
        ends.store(true, Relaxed);
        if let Some(pacer) = pacer {
            pacer.join().expect("it does not panic");
        }
        let mut latencies = histogram();
        for task in tasks {
            let one = task.await.expect("callers do not panic");
            latencies.add(one).expect("the same range");
        }
        Done {
            calls: latencies.len(),
            elapsed: started.elapsed(),
            latencies,
        }
    }
}

/// Tells callers in turn when a call is due; a thread, since the runtime's timers are only accurate
/// to a millisecond.
#[allow(
    clippy::disallowed_methods,
    reason = "it has nothing else to do, and no runtime to hold up"
)]
fn pace(
    started: Instant,
    per_second: f64,
    callers: &[mpsc::UnboundedSender<Instant>],
    ends: &AtomicBool,
) {
    for (number, caller) in callers.iter().cycle().enumerate() {
        let due = started + Duration::from_secs_f64(number as f64 / per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if ends.load(Relaxed) {
            return;
        }
        // A caller that ended at this moment is not there any more.
        let _ = caller.send(due);
    }
}
