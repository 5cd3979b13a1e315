//! A checkpoint: how long a restart takes, and what those who ask notice while one is taken.
//!
//! - *restart*: the state of a checkpoint back in memory, with its digest checked, against reading
//!   the bytes of its file: both from the disk, as after a restart of the machine, which the goal
//!   means; and both from the page cache, where reading is little more than copying.
//! - *replay*: an instance that reads the whole log from memory until it has caught up, against the
//!   same movements applied on one thread that were decoded before.
//! - *queries*: the 99th percentile of 10 SKUs of one channel, asked in process at a steady pace
//!   while movements flow, at a steady pace too, during checkpoints against without one. Each side
//!   goes first in every other round, and both have the same number of queries.
//!
//! `--skus`, `--locations`: the cells (1,000,000 SKUs at 10). `--rounds`: of each part; `--restarts`,
//! `--replays` and `--checkpoints`: of one part, none to leave it out. `--shards`. `--queries`: of a
//! round without a checkpoint. `--replayed`: movements.

#[path = "support/mod.rs"]
mod support;

use std::{
    fs::File,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
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
    let [restarts, replays, checkpoints] =
        ["restarts", "replays", "checkpoints"].map(|part| support::size(part, rounds));
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

    if restarts > 0 {
        support::head("restart", "milliseconds");
    }
    for (from, cold, goal) in [
        ("load and check, from the disk", true, Goal::AtMost(3.0)),
        ("load and check, from the page cache", false, Goal::None),
    ] {
        let mut restart = Rounds::default();
        for _ in 0..restarts {
            forget(&path, cold);
            let start = Instant::now();
            let contents = Contents::open(&path).expect("a checkpoint");
            let restored = Pipeline::restore(&contents, &options).expect("it can be loaded");
            let restarting = start.elapsed().as_secs_f64() * 1e3;
            drop(restored);
            forget(&path, cold);
            restart.push(restarting, reading(&path) * 1e3);
        }
        if restarts > 0 {
            support::row(from, "reading", &restart, goal);
        }
    }
    println!();

    let replayed = support::size("replayed", 1_000_000);
    let mut replay = Rounds::default();
    for _ in 0..replays {
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
    if replays > 0 {
        support::head("movements", "a second");
        support::row("replay", "apply", &replay, Goal::AtLeast(0.8));
        println!();
    }

    let mut asked = Asked::default();
    // Some 100,000 movements a second: neither side has all of the machine.
    let mut due = Instant::now();
    let mut flow = |pipeline: &mut Pipeline| {
        let now = Instant::now();
        if now < due {
            return due - now;
        }
        due = now + Duration::from_millis(2);
        let movements = (0..200).map(|_| mix.next()).collect();
        let entry = positions.entry(support::producer(), support::encode(movements));
        let batch = pipeline.decode(vec![entry]).expect("movements");
        pipeline.apply(batch);
        Duration::ZERO
    };
    for round in 0..checkpoints {
        // Before the first one, nobody knows how many queries it will last.
        let before = (round % 2 == 1).then_some(asked.count);
        let before = before.map(|count| ask(&mut pipeline, skus, count, None, &mut flow));
        let during = ask(&mut pipeline, skus, queries, Some(&path), &mut flow);
        let count = during.times.len() as usize;
        let without = before.unwrap_or_else(|| ask(&mut pipeline, skus, count, None, &mut flow));
        asked.push(count, &during, &without);
    }
    if checkpoints > 0 {
        asked.print();
    }
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

/// Queries of one side.
struct Side {
    times: Histogram<u64>,
    /// How long the checkpoints took that were taken meanwhile.
    taken: Vec<Duration>,
    /// How long each slice of them took the pipeline's thread.
    slices: Histogram<u64>,
}

impl Side {
    /// A percentile, in microseconds.
    fn percentile(&self, percent: f64) -> f64 {
        self.times.value_at_percentile(percent) as f64 / 1e3
    }
}

/// Queries of all rounds.
#[derive(Default)]
struct Asked {
    /// Of a side, in the last round.
    count: usize,
    p50: Rounds,
    p99: Rounds,
    p999: Rounds,
    taken: Vec<f64>,
    slices: Option<Histogram<u64>>,
}

impl Asked {
    fn push(&mut self, count: usize, during: &Side, without: &Side) {
        self.count = count;
        for (rounds, percent) in [
            (&mut self.p50, 50.0),
            (&mut self.p99, 99.0),
            (&mut self.p999, 99.9),
        ] {
            rounds.push(during.percentile(percent), without.percentile(percent));
        }
        let taken = during.taken.iter().map(Duration::as_secs_f64);
        self.taken.extend(taken);
        match &mut self.slices {
            Some(slices) => slices.add(&during.slices).expect("of the same kind"),
            None => self.slices = Some(during.slices.clone()),
        }
    }

    fn print(&self) {
        support::head("queries during checkpoints", "microseconds");
        support::row("99th percentile", "without", &self.p99, Goal::AtMost(1.2));
        support::row("50th percentile", "without", &self.p50, Goal::None);
        support::row("99.9th percentile", "without", &self.p999, Goal::None);
        println!();
        println!(
            "{} checkpoints, of {:.1} s each, with {} queries in the last round of each side",
            self.taken.len(),
            support::median(&self.taken),
            support::figure(self.count as f64),
        );
        let slices = self.slices.as_ref().expect("one round at least");
        let at = |percent| slices.value_at_percentile(percent) as f64 / 1e3;
        println!(
            "slices: median {:.1} us, 99 % {:.1} us, longest {:.1} us",
            at(50.0),
            at(99.0),
            at(100.0),
        );
    }
}

/// Queries by another thread, while `flow` is called again and again: it says how long it has
/// nothing to do. With a `path`, checkpoints are taken meanwhile, one after the other, and only
/// queries count for which one is under way; they go on until the last one is done, so that all
/// that a checkpoint does is in it. A query's time counts from when it was due.
fn ask(
    pipeline: &mut Pipeline,
    skus: usize,
    queries: usize,
    path: Option<&std::path::Path>,
    flow: &mut dyn FnMut(&mut Pipeline) -> Duration,
) -> Side {
    const EVERY: Duration = Duration::from_micros(500);
    /// The longest that the pipeline's thread sleeps.
    const LOOK: Duration = Duration::from_micros(200);
    let (stop, counts) = (AtomicBool::new(false), AtomicBool::new(path.is_none()));
    let answered = AtomicUsize::new(0);
    let view = pipeline.shared_view();
    let mut times: Histogram<u64> = Histogram::new(3).expect("three digits");
    let (mut taken, mut slices) = (Vec::new(), times.clone());
    std::thread::scope(|scope| {
        let ask = || {
            let channel = view.read().rules.rules.channel("web").expect("a channel");
            let begun = Instant::now();
            let mut n = 0;
            while !stop.load(Relaxed) {
                let due = begun + EVERY * n as u32;
                // Does not spin: it is to take no processor from the others.
                while let Some(wait) = due.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(wait);
                }
                let skus: Vec<String> = (0..10)
                    .map(|k| support::sku((n * 10 + k) % skus).to_string())
                    .collect();
                let skus = skus.iter().map(String::as_str);
                view.read().available(channel, skus, |_, ats| {
                    std::hint::black_box(ats);
                });
                n += 1;
                if counts.load(Relaxed) {
                    let _ = times.record(due.elapsed().as_nanos() as u64);
                    answered.fetch_add(1, Relaxed);
                }
            }
        };
        let asking = std::thread::Builder::new().name("query".into());
        let asking = asking.spawn_scoped(scope, ask).expect("a thread");
        let mut under_way = None;
        while under_way.is_some() || answered.load(Relaxed) < queries {
            let mut pause = LOOK;
            if let Some(path) = path {
                let begun = *under_way.get_or_insert_with(|| {
                    counts.store(true, Relaxed);
                    let of = meta(pipeline);
                    pipeline.begin_checkpoint(path, of);
                    Instant::now()
                });
                let due = pipeline.saving_pause().is_zero();
                let start = Instant::now();
                let more = pipeline.save_slice_at_pace();
                if due {
                    let _ = slices.record(start.elapsed().as_nanos() as u64);
                }
                pause = pause.min(pipeline.saving_pause());
                if !more && pipeline.is_checkpoint_written() {
                    counts.store(false, Relaxed);
                    pipeline.finish_checkpoint().expect("it is taken");
                    taken.push(begun.elapsed());
                    under_way = None;
                }
            }
            let pause = pause.min(flow(pipeline));
            if !pause.is_zero() {
                std::thread::park_timeout(pause);
            }
        }
        stop.store(true, Relaxed);
        asking.join().expect("no panic");
    });
    Side {
        times,
        taken,
        slices,
    }
}
