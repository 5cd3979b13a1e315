//! Reservations while movements flood in, against the same when nothing else comes in.
//!
//! First, what can be applied: movements posted through the instance as fast as they are taken.
//! Then in turn: callers reserve, one line a call, quiet; and the same while movements are posted at
//! 80 % of that, each batch when it is due. Movements are made and encoded beforehand, and go to
//! SKUs and locations at random, the same that are reserved. On the embedded log, synced before the
//! answer, and on JetStream, a real server on this machine.
//!
//! Callers, producers and server share the machine. So callers reserve in two ways. At a rate: a
//! tenth of what they get when nothing else comes in and each calls again as soon as it is answered;
//! a latency counts from when the call was due. That tells what the flood does to a reservation. And
//! as fast as they are answered, with all callers waiting at once: that tells besides that there is
//! less of the machine for each of them.
//!
//! `--skus` (20,000 at 10 locations), `--callers` (64), `--connections` (4), `--batch` (100
//! movements), `--percent` of what can be applied (80), `--share` of the calls that are due, in
//! percent (10), `--ms` of one measurement, `--rounds`.

#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/lane.rs"]
mod lane;
#[path = "../tests/support/nats.rs"]
mod nats;
#[path = "support/reserving.rs"]
mod reserving;
#[path = "support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use grpc::{connect, runtime};
use hdrhistogram::Histogram;
use prost::Message;
use reserving::{LOCATIONS, Load, check, histogram, start};
use sellable::{
    app,
    instance::{self, Instance},
    log::{
        Log,
        embedded::{self, EmbeddedLog},
        jetstream::{self, JetStreamLog},
    },
};
use support::{Goal, Random, Rounds, figure};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Posts under way at once, as of so many producers.
const PRODUCERS: usize = 64;
/// More than are applied in a second: so many are prepared to find out how many are.
const PREPARED_PER_SECOND: usize = 1_500_000;
/// Part of the movements due that has to get through for a round to be a flooded one.
const GOT_THROUGH_MIN: f64 = 0.9;
/// Ids below belong to the stock.
const FIRST_ID: u64 = 1_000_000_000;

fn main() {
    if !support::is_bench() {
        return;
    }
    let sizes = Sizes {
        skus: support::size("skus", 20_000),
        callers: support::size("callers", 64),
        connections: support::size("connections", 4),
        batch: support::size("batch", 100),
        percent: support::size("percent", 80),
        share: support::size("share", 10).max(1),
        rounds: support::size("rounds", 7),
        time: Duration::from_millis(support::size("ms", 1_500) as u64),
    };
    support::introduce(&format!(
        "reserve_flood: {} SKUs at {LOCATIONS} locations, {} callers over {} connections, {} \
         movements a post",
        sizes.skus, sizes.callers, sizes.connections, sizes.batch
    ));
    let runtimes = Runtimes {
        serving: runtime("server"),
        calling: runtime("caller"),
        posting: runtime("producer"),
    };

    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = embedded::Options::new(dir.path().join("log"));
    let log = EmbeddedLog::open(options).expect("the log opens");
    let embedded = measure(
        &sizes,
        &runtimes,
        Arc::new(log),
        &instance::Options {
            command_appends_max: app::EMBEDDED_COMMAND_APPENDS_MAX,
            ..instance::Options::default()
        },
    );

    let server = nats::NatsServer::start();
    let log = JetStreamLog::open(jetstream::Options::new(server.url()));
    let log = runtimes.serving.block_on(log).expect("the stream opens");
    let jetstream = measure(
        &sizes,
        &runtimes,
        Arc::new(log),
        &instance::Options {
            appends_max: app::JETSTREAM_APPENDS_MAX,
            command_appends_max: app::JETSTREAM_COMMAND_APPENDS_MAX,
            ..instance::Options::default()
        },
    );

    let [paced, eager] = embedded;
    let [paced_jetstream, eager_jetstream] = jetstream;
    let all = [
        ("embedded, synced, at a rate", paced),
        ("embedded, synced, as fast as answered", eager),
        ("JetStream, at a rate", paced_jetstream),
        ("JetStream, as fast as answered", eager_jetstream),
    ];
    support::head("flooded", "p99 of a reservation, µs");
    for (name, measured) in &all {
        // A flood that ran dry, or did not get through, is not the one that was meant.
        let goal = match measured.is_flooded() && measured.is_paced {
            true => Goal::AtMost(3.0),
            false => Goal::None,
        };
        support::row(name, "quiet", &measured.p99, goal);
    }
    println!();
    for (name, measured) in all.iter().filter(|(_, measured)| !measured.is_flooded()) {
        println!(
            "{name}: only {} of {} movements/s got through, so the ratio is not held against the goal.",
            figure(measured.got_through()),
            figure(measured.asked)
        );
    }
    println!("| movements/s | can be applied | asked | applied beside reservations |");
    println!("|---|---:|---:|---:|");
    for (name, measured) in &all {
        println!(
            "| {name} | {} | {} | {} |",
            figure(measured.most),
            figure(measured.asked),
            figure(measured.got_through())
        );
    }
    println!();
    println!("| latency of a reservation, µs | p50 | p99 | p99.9 | calls/s |");
    println!("|---|---:|---:|---:|---:|");
    for (name, measured) in &all {
        for (how, side) in [("quiet", &measured.quiet), ("flooded", &measured.flooded)] {
            let at = |quantile| figure(side.latencies.value_at_quantile(quantile) as f64);
            println!(
                "| {name}, {how} | {} | {} | {} | {} |",
                at(0.5),
                at(0.99),
                at(0.999),
                figure(side.per_second())
            );
        }
    }
}

struct Sizes {
    skus: usize,
    callers: usize,
    connections: usize,
    batch: usize,
    percent: usize,
    share: usize,
    rounds: usize,
    time: Duration,
}

/// Each side has threads of its own.
struct Runtimes {
    serving: Runtime,
    calling: Runtime,
    posting: Runtime,
}

struct Measured {
    is_paced: bool,
    p99: Rounds,
    /// Movements per second that can be applied.
    most: f64,
    /// Movements per second that were due.
    asked: f64,
    /// And that were applied, by round.
    applied: Vec<f64>,
    quiet: Side,
    flooded: Side,
}

impl Measured {
    /// Movements per second that were applied, in the median round.
    fn got_through(&self) -> f64 {
        support::median(&self.applied)
    }

    fn is_flooded(&self) -> bool {
        self.got_through() >= GOT_THROUGH_MIN * self.asked
    }
}

/// All calls of one kind of rounds.
struct Side {
    latencies: Histogram<u64>,
    seconds: f64,
}

impl Side {
    fn new() -> Self {
        Self {
            latencies: histogram(),
            seconds: 0.0,
        }
    }

    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// One round; gives its p99.
    fn add(
        &mut self,
        runtime: &Runtime,
        load: &Load,
        channels: &[tonic::transport::Channel],
    ) -> f64 {
        let done = runtime.block_on(load.run(channels));
        self.latencies.add(&done.latencies).expect("the same range");
        self.seconds += done.elapsed.as_secs_f64();
        done.latencies.value_at_quantile(0.99) as f64
    }
}

fn measure(
    sizes: &Sizes,
    runtimes: &Runtimes,
    log: Arc<dyn Log>,
    options: &instance::Options,
) -> [Measured; 2] {
    let started = start(log, sizes.skus, options);
    let (instance, address) = runtimes.serving.block_on(started);
    let channels = runtimes
        .calling
        .block_on(connect(address, sizes.connections));
    runtimes.calling.block_on(check(&channels[0]));
    let load = Load {
        skus: sizes.skus,
        lines: 1,
        streamed: false,
        callers: sizes.callers,
        per_second: None,
        time: sizes.time,
        next_id: Arc::default(),
        run: "flood".into(),
    };
    let mut movements = Movements {
        random: Random(5),
        skus: sizes.skus,
        next_id: FIRST_ID,
    };
    let mut flood = |per_second: Option<f64>| {
        let rate = per_second.unwrap_or(PREPARED_PER_SECOND as f64);
        let count = (rate * sizes.time.as_secs_f64()) as usize / sizes.batch;
        let batches = (0..count).map(|_| movements.batch(sizes.batch)).collect();
        Flood {
            instance: Arc::clone(&instance),
            batches,
            each: per_second.map(|rate| Duration::from_secs_f64(sizes.batch as f64 / rate)),
        }
    };
    // The first time, tables grow.
    let mut most = 0.0;
    for _ in 0..2 {
        let all = flood(None);
        most = runtimes.posting.block_on(async {
            let end = tokio::time::sleep(sizes.time);
            let (ends, running) = all.start();
            end.await;
            ends.store(true, Relaxed);
            running.await.expect("producers do not panic")
        });
    }
    let asked = most * sizes.percent as f64 / 100.0;
    // What callers get of a quiet machine; the first time, all is cold.
    let mut alone = Side::new();
    alone.add(&runtimes.calling, &load, &channels);
    alone = Side::new();
    alone.add(&runtimes.calling, &load, &channels);
    let per_second = alone.per_second() * sizes.share as f64 / 100.0;
    let paced = Load {
        per_second: Some(per_second),
        ..load.clone()
    };
    let measured = [paced, load].map(|load| {
        let mut applied = Vec::new();
        let (mut quiet, mut flooded) = (Side::new(), Side::new());
        let p99 = Rounds::alternate(
            sizes.rounds,
            || {
                let flood = flood(Some(asked));
                let (ends, running) = runtimes.posting.block_on(async { flood.start() });
                let p99 = flooded.add(&runtimes.calling, &load, &channels);
                ends.store(true, Relaxed);
                let reached = runtimes.posting.block_on(running);
                applied.push(reached.expect("producers do not panic"));
                p99
            },
            || quiet.add(&runtimes.calling, &load, &channels),
        );
        Measured {
            is_paced: load.per_second.is_some(),
            p99,
            most,
            asked,
            applied,
            quiet,
            flooded,
        }
    });
    runtimes.serving.block_on(instance.stop());
    measured
}

struct Movements {
    random: Random,
    skus: usize,
    next_id: u64,
}

impl Movements {
    /// Units that come in somewhere, encoded.
    fn batch(&mut self, size: usize) -> Vec<Bytes> {
        let movement = |_| {
            self.next_id += 1;
            let sku = support::sku(self.random.below(self.skus));
            let at = support::location(self.random.below(LOCATIONS));
            let movement = support::received(self.next_id, sku, 1, at);
            movement.encode_to_vec().into()
        };
        (0..size).map(movement).collect()
    }
}

struct Flood {
    instance: Arc<Instance>,
    batches: Vec<Vec<Bytes>>,
    /// Time from one post to the next; none: as fast as they are taken.
    each: Option<Duration>,
}

impl Flood {
    /// Posts until all is posted, or it is told to end. Gives the movements applied per second.
    fn start(self) -> (Arc<AtomicBool>, tokio::task::JoinHandle<f64>) {
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let running = tokio::spawn(async move {
            let Self {
                instance,
                batches,
                each,
            } = self;
            let started = Instant::now();
            let due = batches.into_iter().enumerate();
            let due = Arc::new(Mutex::new(due));
            let applied = Arc::new(AtomicU64::new(0));
            let mut producers = tokio::task::JoinSet::new();
            for _ in 0..PRODUCERS {
                let (instance, told) = (Arc::clone(&instance), Arc::clone(&told));
                let (due, applied) = (Arc::clone(&due), Arc::clone(&applied));
                producers.spawn(async move {
                    while !told.load(Relaxed) {
                        let next = due.lock().expect("nobody panics").next();
                        let Some((number, batch)) = next else { break };
                        if let Some(each) = each {
                            let at = started + each * number as u32;
                            tokio::time::sleep_until(at.into()).await;
                        }
                        let count = batch.len() as u64;
                        instance.post(batch).await.expect("applied");
                        applied.fetch_add(count, Relaxed);
                    }
                });
            }
            while let Some(ended) = producers.join_next().await {
                ended.expect("producers do not panic");
            }
            applied.load(Relaxed) as f64 / started.elapsed().as_secs_f64()
        });
        (ends, running)
    }
}
