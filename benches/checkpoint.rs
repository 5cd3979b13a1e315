//! A checkpoint: how long a restart takes, and what those who ask notice while one is taken.
//!
//! - *restart*: the state of a checkpoint back in memory, with its digest checked, against reading
//!   the bytes of its file: both from the disk, as after a restart of the machine, which the goal
//!   means; and both from the page cache, where reading is little more than copying.
//! - *replay*: an instance that reads the whole log from memory until it has caught up, against the
//!   same movements applied on one thread that were decoded before.
//! - *queries*: the 99th percentile of 10 SKUs of one channel, asked in process at a steady pace
//!   while movements flow, at a steady pace too, during checkpoints against without one.
//!
//! `--skus`, `--locations`: the cells (1,000,000 SKUs at 10). `--rounds`. `--shards`. `--queries`: of
//! a round. `--replayed`: movements.

#[path = "support/mod.rs"]
mod support;

use std::{
    fs::File,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use sellable::{
    bench::Pipeline,
    checkpoint::{Meta, format::Contents},
    domain::admission::Horizon,
    instance::{Instance, Options},
    log::{Anchor, Lane, memory::MemoryLog},
};
use support::{Goal, Mix, Positions, Rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    if !support::is_bench() {
        return;
    }
    let skus = support::size("skus", 1_000_000);
    let locations = support::size("locations", 10);
    let rounds = support::size("rounds", 5);
    let shards = support::size("shards", 1);
    let queries = support::size("queries", 20_000);
    support::introduce(&format!(
        "checkpoint: {skus} SKUs at {locations} locations each, {shards} shards"
    ));
    let options = Options {
        shards,
        ..Options::default()
    };
    let mut positions = Positions::default();
    let mut pipeline = Pipeline::with_options(&options);
    let rules = positions.entry(Lane::Record, support::rules_record(support::RULES));
    let rules = pipeline.decode(vec![rules]).expect("rules");
    pipeline.apply(rules);
    let mut id = 0;
    for at in 0..locations {
        for first in (0..skus).step_by(1_000) {
            let movements = (first..skus.min(first + 1_000))
                .map(|number| {
                    id += 1;
                    let (sku, at) = (support::sku(number), support::location(at));
                    support::received(id, sku, 1_000, at)
                })
                .collect();
            let entry = positions.entry(support::producer(), support::encode(movements));
            let batch = pipeline.decode(vec![entry]).expect("movements");
            pipeline.apply(batch);
        }
    }
    let mut mix = Mix::new(skus, locations, id, skus / 4 + 1);
    for _ in 0..skus / 4 / 1_000 + 1 {
        let movements = (0..1_000).map(|_| mix.reserved()).collect();
        let entry = positions.entry(support::producer(), support::encode(movements));
        let batch = pipeline.decode(vec![entry]).expect("movements");
        pipeline.apply(batch);
    }

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("checkpoint");
    let start = Instant::now();
    let of = meta(&pipeline);
    pipeline.begin_checkpoint(&path, of);
    let (totals, bytes) = pipeline.finish_checkpoint().expect("it is taken");
    println!(
        "{} cells, {} order lines: {} bytes, taken in {:.2} s with nothing else to do",
        support::figure(totals.cells as f64),
        support::figure(totals.lines as f64),
        support::figure(bytes as f64),
        start.elapsed().as_secs_f64()
    );
    println!();

    support::head("restart", "milliseconds");
    for (from, cold, goal) in [
        ("load and check, from the disk", true, Goal::AtMost(3.0)),
        ("load and check, from the page cache", false, Goal::None),
    ] {
        let mut restart = Rounds::default();
        for _ in 0..rounds {
            forget(&path, cold);
            let start = Instant::now();
            let contents = Contents::open(&path).expect("a checkpoint");
            let restored = Pipeline::restore(&contents, &options).expect("it can be loaded");
            let restarting = start.elapsed().as_secs_f64() * 1e3;
            drop(restored);
            forget(&path, cold);
            restart.push(restarting, reading(&path) * 1e3);
        }
        support::row(from, "reading", &restart, goal);
    }
    println!();

    let replayed = support::size("replayed", 1_000_000);
    let mut replay = Rounds::default();
    for _ in 0..rounds {
        let mut mix = Mix::new(skus, locations, id, 10_000);
        let payloads: Vec<_> = (0..replayed / 1_000)
            .map(|_| support::encode((0..1_000).map(|_| mix.reserved()).collect()))
            .collect();
        let movements = payloads.len() * 1_000;
        let rate = |time: Duration| support::per_second(movements, time);
        replay.push(
            rate(replaying(&payloads, &options)),
            rate(applying(&payloads)),
        );
    }
    support::head("movements", "a second");
    support::row("replay", "apply", &replay, Goal::AtLeast(0.8));
    println!();

    let mut asked = Rounds::default();
    for _ in 0..rounds {
        let mut due = Instant::now();
        // Some 100,000 movements a second: neither side has all of the machine.
        let mut flow = |pipeline: &mut Pipeline| {
            let now = Instant::now();
            if now < due {
                std::thread::park_timeout((due - now).min(Duration::from_micros(200)));
                return;
            }
            due = now + Duration::from_millis(2);
            let movements = (0..200).map(|_| mix.next()).collect();
            let entry = positions.entry(support::producer(), support::encode(movements));
            let batch = pipeline.decode(vec![entry]).expect("movements");
            pipeline.apply(batch);
        };
        let without = p99(&mut pipeline, queries, &mut flow);
        let mut taken = 0;
        let during = p99(&mut pipeline, queries, &mut |pipeline| {
            if taken == 0 {
                let of = meta(pipeline);
                pipeline.begin_checkpoint(&path, of);
                taken = 1;
            }
            if !pipeline.save_slice_at_pace() {
                pipeline.finish_checkpoint().expect("it is taken");
                taken = 0;
            }
            flow(pipeline);
        });
        if taken > 0 {
            pipeline.finish_checkpoint().expect("it is taken");
        }
        asked.push(during, without);
    }
    support::head("99th percentile of queries", "microseconds");
    support::row("during checkpoints", "without", &asked, Goal::AtMost(1.2));
}

fn meta(pipeline: &Pipeline) -> Meta {
    Meta {
        anchor: Anchor {
            position: pipeline.view().progress().position(),
            hash: 0,
        },
        log_engine: "memory".into(),
        log_name: String::new(),
        log_created_us: 0,
        log_id: 0,
        time_us: 0,
        taken_us: 0,
        version: String::new(),
        horizon: Horizon::DEFAULT,
        lines_retain_us: Horizon::DEFAULT.us,
        shards: 0,
    }
}

/// How long an instance takes to catch up with a log.
fn replaying(payloads: &[Bytes], options: &Options) -> Duration {
    let log = MemoryLog::new();
    for payload in payloads {
        log.publish(support::producer(), payload.clone());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let instance = Instance::start(Arc::new(log), options).await;
        let instance = instance.expect("it starts");
        instance.caught_up().await;
        let time = start.elapsed();
        instance.stop().await;
        time
    })
}

/// How long one thread takes to apply the same.
fn applying(payloads: &[Bytes]) -> Duration {
    let mut positions = Positions::default();
    let mut pipeline = Pipeline::new(Horizon::DEFAULT);
    let mut time = Duration::ZERO;
    for payload in payloads {
        let entry = positions.entry(support::producer(), payload.clone());
        let batch = pipeline.decode(vec![entry]).expect("movements");
        let start = Instant::now();
        pipeline.apply(batch);
        time += start.elapsed();
    }
    time
}

/// Lets the page cache forget a file, if it is to be read from the disk.
fn forget(path: &std::path::Path, cold: bool) {
    if cold {
        let file = File::open(path).expect("a file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
    }
}

/// Seconds to read a file.
fn reading(path: &std::path::Path) -> f64 {
    let start = Instant::now();
    let mut file = File::open(path).expect("a file");
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).expect("it can be read") > 0 {
        std::hint::black_box(&mut buffer);
    }
    start.elapsed().as_secs_f64()
}

/// The 99th percentile, in microseconds, of queries by another thread while `work` is done again and
/// again. A query's time counts from when it was due.
fn p99(pipeline: &mut Pipeline, queries: usize, work: &mut dyn FnMut(&mut Pipeline)) -> f64 {
    const EVERY: Duration = Duration::from_micros(500);
    let stop = AtomicBool::new(false);
    let view = pipeline.shared_view();
    let mut times: Histogram<u64> = Histogram::new(3).expect("three digits");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let channel = view.read().rules.rules.channel("web").expect("a channel");
            let begun = Instant::now();
            for n in 0..queries {
                let due = begun + EVERY * n as u32;
                // Does not spin: it is to take no processor from the others.
                while let Some(wait) = due.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(wait);
                }
                let skus: Vec<String> = (0..10)
                    .map(|k| support::sku(n * 10 + k).to_string())
                    .collect();
                let skus = skus.iter().map(String::as_str);
                view.read().available(channel, skus, |_, ats| {
                    std::hint::black_box(ats);
                });
                let _ = times.record(due.elapsed().as_nanos() as u64);
            }
            stop.store(true, Relaxed);
        });
        while !stop.load(Relaxed) {
            work(pipeline);
        }
        asking.join().expect("no panic");
    });
    times.value_at_quantile(0.99) as f64 / 1e3
}
