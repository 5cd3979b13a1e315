//! Feeds under load: many callers of `Watch` on three channels while movements come in as fast as
//! they are taken.
//!
//! The server is a process of its own, so that its memory and its processor time are its own. In each
//! round the same load runs four times: nobody watches; one caller for each channel does; all do; all
//! do, and ten of them do not read. Told are movements a second, numbers delivered and conflated, and
//! the time from the append to the log until an update is in the caller's hands, of the oldest change
//! in it. Memory of a subscriber is that of the server with all of them, once each has the state, less
//! that before they came; and what it grows by under the load, less what it grows by for as many
//! movements when nobody watches.
//!
//! `--subscribers` (1,000), `--skus` (10,000), `--seconds` (5, of each load), `--rounds` (3),
//! `--connections` (20).

#[path = "../tests/support/server.rs"]
mod server;
#[path = "support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hdrhistogram::Histogram;
use prost_types::Timestamp;
use sellable::proto::v1::{self as pb, feeds_client::FeedsClient};
use server::{Client, Server, Setup, patiently, received};
use support::{CHANNELS, Goal, RULES, Random, Rounds};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Callers that do not read.
const STALLED: usize = 10;
/// Movements of one call, and calls under way.
const BATCH: usize = 1_000;
const POSTERS: usize = 4;

fn main() {
    if !support::is_bench() {
        return;
    }
    let sizes = Sizes {
        subscribers: support::size("subscribers", 1_000),
        skus: support::size("skus", 10_000),
        seconds: support::size("seconds", 5) as u64,
        connections: support::size("connections", 20),
    };
    let rounds = support::size("rounds", 3);
    support::introduce(&format!(
        "feeds: {} subscribers over {} channels, {} SKUs, movements as fast as they are taken",
        sizes.subscribers,
        CHANNELS.len(),
        sizes.skus
    ));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(&sizes, rounds));
}

struct Sizes {
    subscribers: usize,
    skus: usize,
    seconds: u64,
    connections: usize,
}

/// What came of one load.
struct Load {
    movements_per_s: f64,
    delivered: u64,
    conflated: u64,
    latencies: Histogram<u64>,
    movements: u64,
    /// Memory of the server: what subscribers took, and what came under the load.
    bytes_taken: f64,
    bytes_grown: f64,
}

async fn run(sizes: &Sizes, rounds: usize) {
    let setup = Setup::new().rules(RULES).set("journal.sync", "os");
    let server = setup
        .set("checkpoint.keep", 0)
        .set("grpc.concurrent_streams_max", 10_000)
        .set("intake.queue_movements_max", 1_000_000)
        .start();
    let client = server.connect().await;
    let mut stock = Stock {
        random: Random(7),
        skus: sizes.skus,
        next: 0,
    };
    for _ in 0..sizes.skus.div_ceil(BATCH) * 2 {
        client.post(stock.batch()).await;
    }
    let kinds = [
        ("nobody", 0, 0),
        ("one a channel", CHANNELS.len(), 0),
        ("all", sizes.subscribers, 0),
        ("all, ten of which do not read", sizes.subscribers, STALLED),
    ];
    let mut all: Vec<Vec<Load>> = kinds.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for ((_, subscribers, stalled), loads) in kinds.iter().zip(&mut all) {
            let load = load(&server, &client, sizes, &mut stock, *subscribers, *stalled).await;
            loads.push(load);
        }
    }
    println!();
    println!(
        "{:<30} {:>12} {:>14} {:>14} {:>9} {:>9} {:>12} {:>12}",
        "who watches",
        "movements/s",
        "delivered/s",
        "conflated/s",
        "p50 ms",
        "p99 ms",
        "bytes each",
        "under load"
    );
    let grown = |load: &Load| load.bytes_grown / load.movements as f64;
    let for_a_movement = support::median(&all[0].iter().map(grown).collect::<Vec<_>>());
    for ((what, subscribers, _), loads) in kinds.iter().zip(&all) {
        let of = |value: &dyn Fn(&Load) -> f64| {
            support::median(&loads.iter().map(value).collect::<Vec<_>>())
        };
        let ms =
            |quantile| of(&|load: &Load| load.latencies.value_at_quantile(quantile) as f64 / 1e3);
        let of_watchers = |text: String| if *subscribers == 0 { "-".into() } else { text };
        println!(
            "{what:<30} {:>12} {:>14} {:>14} {:>9} {:>9} {:>12} {:>12}",
            support::figure(of(&|load| load.movements_per_s)),
            of_watchers(support::figure(of(
                &|load| load.delivered as f64 / sizes.seconds as f64
            ))),
            of_watchers(support::figure(of(
                &|load| load.conflated as f64 / sizes.seconds as f64
            ))),
            of_watchers(format!("{:.1}", ms(0.5))),
            of_watchers(format!("{:.1}", ms(0.99))),
            of_watchers(support::figure(of(&|load| {
                load.bytes_taken / *subscribers as f64
            }))),
            of_watchers(support::figure(of(&|load| {
                let of_movements = for_a_movement * load.movements as f64;
                (load.bytes_grown - of_movements).max(0.0) / *subscribers as f64
            }))),
        );
    }
    let pairs = |ours: usize, theirs: usize, value: &dyn Fn(&Load) -> f64| {
        let mut rounds = Rounds::default();
        for (ours, theirs) in all[ours].iter().zip(&all[theirs]) {
            rounds.push(value(ours), value(theirs));
        }
        rounds
    };
    let p99 = |load: &Load| load.latencies.value_at_quantile(0.99) as f64 / 1e3;
    println!();
    support::head("feeds", "");
    let rate = |load: &Load| load.movements_per_s;
    let rows = [
        (
            "movements/s, all watch",
            "nobody watches",
            pairs(2, 0, &rate),
        ),
        (
            "movements/s, one a channel",
            "nobody watches",
            pairs(1, 0, &rate),
        ),
        (
            "movements/s, ten do not read",
            "all read",
            pairs(3, 2, &rate),
        ),
        (
            "p99 ms to delivery, ten do not read",
            "all read",
            pairs(3, 2, &p99),
        ),
    ];
    for (what, against, rounds) in &rows {
        support::row(what, against, rounds, Goal::None);
    }
}

/// Movements that go on for ever.
struct Stock {
    random: Random,
    skus: usize,
    next: usize,
}

impl Stock {
    fn batch(&mut self) -> Vec<pb::Movement> {
        (0..BATCH)
            .map(|_| {
                self.next += 1;
                // Every SKU comes first, then any.
                let sku = match self.next {
                    next if next <= self.skus => next - 1,
                    _ => self.random.below(self.skus),
                };
                let id = format!("m{}", self.next);
                let at = support::location(self.random.below(4));
                let mut movement = received(&id, &support::sku(sku), 1, &at);
                movement.occurred_at = Some(now());
                movement
            })
            .collect()
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    Timestamp {
        seconds: since.as_secs() as i64,
        nanos: since.subsec_nanos() as i32,
    }
}

/// An update as far as a measurement needs it: the numbers are left as they came.
#[derive(Clone, PartialEq, prost::Message)]
struct Seen {
    #[prost(uint64, tag = "4")]
    position: u64,
    #[prost(message, optional, tag = "8")]
    oldest_logged_at: Option<Timestamp>,
}

async fn load(
    server: &Server,
    client: &Client,
    sizes: &Sizes,
    stock: &mut Stock,
    subscribers: usize,
    stalled: usize,
) -> Load {
    let before = server.resident_bytes();
    let counted_before = counted(server).await;
    let measure = Arc::new(AtomicBool::new(false));
    let states = Arc::new(AtomicU64::new(0));
    let mut watching = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..sizes.connections.min(subscribers) {
        connections.push(connect(server).await);
    }
    for n in 0..subscribers {
        // One that does not read has a connection of its own: the window of a connection is shared.
        let channel = if n < stalled {
            connect(server).await
        } else {
            connections[n % connections.len()].clone()
        };
        let (measure, states) = (Arc::clone(&measure), Arc::clone(&states));
        watching.spawn(watch(channel, n, n < stalled, measure, states));
    }
    patiently(async {
        while states.load(Relaxed) < (subscribers - stalled) as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let taken = server.resident_bytes();
    measure.store(true, Relaxed);
    let (started, posted) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let end = started + Duration::from_secs(sizes.seconds);
    let mut posters = JoinSet::new();
    let batches = Arc::new(tokio::sync::Mutex::new(Vec::new()));
    for _ in 0..POSTERS {
        let (client, posted) = (client.clone(), Arc::clone(&posted));
        let batches: Arc<tokio::sync::Mutex<Vec<Vec<pb::Movement>>>> = Arc::clone(&batches);
        posters.spawn(async move {
            while Instant::now() < end {
                let Some(batch) = batches.lock().await.pop() else {
                    tokio::task::yield_now().await;
                    continue;
                };
                posted.fetch_add(batch.len() as u64, Relaxed);
                client.post(batch).await;
            }
        });
    }
    while Instant::now() < end {
        let mut ready = batches.lock().await;
        let missing = (2 * POSTERS).saturating_sub(ready.len());
        (0..missing).for_each(|_| ready.push(stock.batch()));
        drop(ready);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while posters.join_next().await.is_some() {}
    let elapsed = started.elapsed();
    measure.store(false, Relaxed);
    let grown = server.resident_bytes() as f64 - taken as f64;
    let counted_after = counted(server).await;
    watching.abort_all();
    let mut latencies = Histogram::new(3).expect("valid");
    while watching.join_next().await.is_some() {}
    let mut measured = LATENCIES.lock().expect("no panic");
    latencies.add(&*measured).expect("the same bounds");
    measured.reset();
    drop(measured);
    Load {
        movements_per_s: posted.load(Relaxed) as f64 / elapsed.as_secs_f64(),
        movements: posted.load(Relaxed),
        delivered: counted_after.0 - counted_before.0,
        conflated: counted_after.1 - counted_before.1,
        latencies,
        bytes_taken: taken as f64 - before as f64,
        bytes_grown: grown,
    }
}

/// Latencies of all callers, in microseconds.
static LATENCIES: std::sync::LazyLock<std::sync::Mutex<Histogram<u64>>> =
    std::sync::LazyLock::new(|| std::sync::Mutex::new(Histogram::new(3).expect("valid")));

async fn watch(
    channel: Channel,
    number: usize,
    is_stalled: bool,
    measure: Arc<AtomicBool>,
    states: Arc<AtomicU64>,
) {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("it is ready");
    let request = pb::WatchRequest {
        channel: CHANNELS[number % CHANNELS.len()].into(),
        ..pb::WatchRequest::default()
    };
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/sellable.v1.Feeds/Watch");
    let codec = tonic_prost::ProstCodec::<pb::WatchRequest, Seen>::default();
    let updates = client
        .server_streaming(tonic::Request::new(request), path, codec)
        .await;
    let mut updates = updates.expect("it can be watched").into_inner();
    if is_stalled {
        // Held, and never read.
        std::future::pending::<()>().await;
    }
    let mut has_state = false;
    while let Ok(Some(update)) = updates.message().await {
        if !has_state && update.position > 0 {
            has_state = true;
            states.fetch_add(1, Relaxed);
        }
        let Some(at) = update.oldest_logged_at.filter(|_| measure.load(Relaxed)) else {
            continue;
        };
        let now = now();
        let us = (now.seconds - at.seconds) * 1_000_000 + i64::from(now.nanos - at.nanos) / 1_000;
        let mut latencies = LATENCIES.lock().expect("no panic");
        let _ = latencies.record(us.max(1) as u64);
    }
}

async fn connect(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(server.url()).expect("an address");
    endpoint
        .tcp_nodelay(true)
        .connect()
        .await
        .expect("it answers")
}

/// Numbers delivered and conflated by gRPC so far.
async fn counted(server: &Server) -> (u64, u64) {
    let mut client = FeedsClient::new(connect(server).await);
    let feeds = client.list(pb::ListFeedsRequest::default()).await;
    let feeds = feeds.expect("it lists").into_inner().feeds;
    let of = |value: &dyn Fn(&pb::DeliveryStatus) -> u64| {
        feeds
            .iter()
            .flat_map(|feed| &feed.deliveries)
            .map(value)
            .sum()
    };
    (of(&|own| own.numbers), of(&|own| own.conflated))
}
