//! Reservations of one line over gRPC: durable, decided, applied and visible before the answer.
//!
//! Embedded, with a sync before the answer and (what the disk does not take part in) without:
//! against an empty handler of the same framework that takes the same request, decoded, and
//! answers with one allocation; against appending the same bytes to such a log and getting them
//! back, with as many at once, which is all that the disk allows; spread over all SKUs (uniform)
//! against all on one (hot). Every call has an id of its own, and there are more units than calls,
//! so that each is granted; the first answer is looked at.
//!
//! On JetStream: against publishing the same bytes and getting them back, with as many at once, by
//! the median of the latencies; a real server on this machine.
//!
//! Callers share the machine with the servers; each has one call under way.
//!
//! `--skus` (20,000 at 10 locations), `--callers` (64), `--connections` (4), `--appends` under way
//! (as `sellable serve` has them), `--lines` of a call (1), `--ms` of one measurement, `--rounds`.
//! `--pin 1` gives callers and server a processor each, the first two: what one core of a server
//! answers, undisturbed by its callers. `--profile 1` only tells the processor time of a call that is
//! spread, by threads.

#[path = "support/empty.rs"]
mod empty;
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
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use empty::Empty;
use grpc::{connect, cpu_of, runtime, serve};
use hdrhistogram::Histogram;
use prost::Message;
use reserving::{Done, LOCATIONS, Load, check, histogram, start};
use sellable::{
    app, instance,
    log::{
        Log,
        embedded::{self, EmbeddedLog, FsyncPolicy},
        jetstream::{self, JetStreamLog},
    },
    proto::v1::{self as pb, reservations_server::ReservationsServer},
};
use support::{Goal, Rounds};
use tokio::runtime::Runtime;
use tonic::{
    service::Routes,
    transport::{Channel, Server},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    if !support::is_bench() {
        return;
    }
    let skus = support::size("skus", 20_000);
    let callers = support::size("callers", 64);
    let connections = support::size("connections", 4);
    let lines = support::size("lines", 1);
    let rounds = support::size("rounds", 7);
    let time = Duration::from_millis(support::size("ms", 1_000) as u64);
    support::introduce(&format!(
        "reserve: {skus} SKUs at {LOCATIONS} locations, {callers} callers over {connections} \
         connections"
    ));
    // Threads begin where the one that starts them is.
    let is_pinned = support::size("pin", 0) == 1;
    if is_pinned {
        pin(0);
    }
    let calling = runtime("caller");
    if is_pinned {
        pin(1);
    }
    let serving = runtime("server");

    let (_, health) = tonic_health::server::health_reporter();
    let empty = Routes::new(ReservationsServer::new(Empty)).add_service(health);
    let empty = serving.block_on(async { serve!(Server::builder(), empty) });

    let load = |hot: bool, streamed: bool, log: &'static str| Load {
        skus: if hot { 1 } else { skus },
        lines,
        streamed,
        callers,
        per_second: None,
        time,
        next_id: Arc::default(),
        run: format!("{log}-{hot}-{streamed}"),
    };
    let channels = |address| calling.block_on(connect(address, connections));
    let empty = channels(empty);
    let mut rows: Vec<(String, Histogram<u64>)> = Vec::new();
    for (policy, synced) in [
        (FsyncPolicy::Always, "embedded, synced before the answer"),
        (FsyncPolicy::Os, "embedded, not synced"),
    ] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let open = |name: &str| -> Arc<dyn Log> {
            let options = embedded::Options {
                fsync: policy,
                ..embedded::Options::new(dir.path().join(name))
            };
            Arc::new(EmbeddedLog::open(options).expect("the log opens"))
        };
        let (log, bare) = (open("log"), open("bare"));
        let options = instance_options(app::EMBEDDED_COMMAND_APPENDS_MAX);
        let (instance, ours) = serving.block_on(start(Arc::clone(&log), skus, &options));
        let ours = channels(ours);
        calling.block_on(check(&ours[0]));
        let (uniform, hot) = (
            load(false, false, "embedded"),
            load(true, false, "embedded"),
        );
        let (streamed, hot_streamed) =
            (load(false, true, "embedded"), load(true, true, "embedded"));
        let latencies = RefCell::new([(); 7].map(|()| histogram()));
        let into = |place: usize, done: Done| {
            let known = &mut latencies.borrow_mut()[place];
            known.add(&done.latencies).expect("the same range");
            done.calls as f64 / done.elapsed.as_secs_f64()
        };
        let run = |load: &Load, channels: &[Channel], place| {
            into(place, calling.block_on(load.run(channels)))
        };
        let echo = || into(3, echo(&calling, &bare, callers, time));
        if support::size("profile", 0) == 1 {
            for (way, load) in [("", &uniform), (", streamed", &streamed)] {
                for (side, channels) in [("ours", &ours), ("empty handler", &empty)] {
                    run(load, channels, 0);
                    profile(&format!("{synced}, {side}{way}"), || {
                        calling.block_on(load.run(channels))
                    });
                }
            }
            serving.block_on(instance.stop());
            continue;
        }
        // Warm up.
        run(&uniform, &ours, 0);
        run(&uniform, &empty, 2);
        echo();
        *latencies.borrow_mut() = [(); 7].map(|()| histogram());
        let by_empty = Rounds::alternate(
            rounds,
            || run(&uniform, &ours, 0),
            || run(&uniform, &empty, 2),
        );
        let by_echo = Rounds::alternate(rounds, || run(&uniform, &ours, 0), echo);
        let hot_by_uniform =
            Rounds::alternate(rounds, || run(&hot, &ours, 1), || run(&uniform, &ours, 0));
        run(&streamed, &ours, 4);
        let streamed_by_empty = Rounds::alternate(
            rounds,
            || run(&streamed, &ours, 4),
            || run(&streamed, &empty, 6),
        );
        let streamed_by_calls = Rounds::alternate(
            rounds,
            || run(&streamed, &ours, 4),
            || run(&uniform, &ours, 0),
        );
        let streamed_hot = Rounds::alternate(
            rounds,
            || run(&hot_streamed, &ours, 5),
            || run(&streamed, &ours, 4),
        );
        let always = policy == FsyncPolicy::Always;
        let goal = |least| {
            if always {
                Goal::AtLeast(least)
            } else {
                Goal::None
            }
        };
        support::head(synced, "calls a second");
        support::row("uniform", "empty handler", &by_empty, goal(0.8));
        support::row("uniform", "append, get back", &by_echo, Goal::None);
        support::row("hot", "uniform", &hot_by_uniform, goal(0.9));
        support::row(
            "streamed",
            "empty, streamed",
            &streamed_by_empty,
            Goal::None,
        );
        support::row("streamed", "uniform", &streamed_by_calls, Goal::None);
        support::row("streamed, hot", "streamed", &streamed_hot, goal(0.9));
        println!();
        let name = |what: &str| match always {
            true => format!("synced, {what}"),
            false => format!("not synced, {what}"),
        };
        let names = [
            name("uniform"),
            name("hot"),
            "empty handler".into(),
            "append, get back".into(),
            name("streamed"),
            name("streamed, hot"),
            "empty, streamed".into(),
        ];
        rows.extend(names.into_iter().zip(latencies.into_inner()));
        serving.block_on(instance.stop());
    }

    let server = nats::NatsServer::start();
    let options = jetstream::Options::new(server.url());
    let log = serving.block_on(JetStreamLog::open(options));
    let log: Arc<dyn Log> = Arc::new(log.expect("the stream opens"));
    let (instance, address) = serving.block_on(start(
        Arc::clone(&log),
        skus,
        &instance_options(app::JETSTREAM_COMMAND_APPENDS_MAX),
    ));
    let ours = channels(address);
    let (mut uniform_us, mut hot_us, mut floor_us) = (histogram(), histogram(), histogram());
    let median = |load: &Load, into: &mut Histogram<u64>| {
        let done = calling.block_on(load.run(&ours));
        into.add(&done.latencies).expect("the same range");
        done.latencies.value_at_quantile(0.5) as f64
    };
    let floor = |into: &mut Histogram<u64>| {
        let done = echo(&calling, &log, callers, time);
        into.add(&done.latencies).expect("the same range");
        done.latencies.value_at_quantile(0.5) as f64
    };
    let (uniform, hot) = (
        load(false, false, "jetstream"),
        load(true, false, "jetstream"),
    );
    // Warm up.
    median(&uniform, &mut histogram());
    floor(&mut histogram());
    let by_echo = Rounds::alternate(
        rounds,
        || median(&uniform, &mut uniform_us),
        || floor(&mut floor_us),
    );
    let hot_by_uniform = Rounds::alternate(
        rounds,
        || median(&hot, &mut hot_us),
        || median(&uniform, &mut histogram()),
    );
    let mut streamed_us = histogram();
    let streamed = load(false, true, "jetstream");
    median(&streamed, &mut histogram());
    let streamed_by_echo = Rounds::alternate(
        rounds,
        || median(&streamed, &mut streamed_us),
        || floor(&mut floor_us),
    );
    support::head("through JetStream", "median latency, µs");
    support::row("uniform", "publish, get back", &by_echo, Goal::AtMost(1.3));
    support::row("hot", "uniform", &hot_by_uniform, Goal::None);
    support::row(
        "streamed",
        "publish, get back",
        &streamed_by_echo,
        Goal::AtMost(1.3),
    );
    println!();
    serving.block_on(instance.stop());

    rows.push(("JetStream, uniform".into(), uniform_us));
    rows.push(("JetStream, hot".into(), hot_us));
    rows.push(("JetStream, streamed".into(), streamed_us));
    rows.push(("publish, get back".into(), floor_us));
    println!(
        "{:<22} {:>9} {:>9} {:>9} {:>10}",
        "latency, µs", "p50", "p99", "p99.9", "calls"
    );
    for (name, latencies) in rows {
        let at = |quantile| latencies.value_at_quantile(quantile);
        println!(
            "{name:<22} {:>9} {:>9} {:>9} {:>10}",
            at(0.5),
            at(0.99),
            at(0.999),
            latencies.len()
        );
    }
}

/// Has this thread, and those that it starts from now on, run on this processor alone.
fn pin(processor: usize) {
    // SAFETY: a set of no processors is all zeros, and the call reads no more than the set.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    assert_eq!(done, 0, "there is no processor {processor}");
}

/// Tells where the time of a call goes, by the threads of this process.
fn profile(name: &str, run: impl FnOnce() -> Done) {
    const THREADS: [&str; 7] = [
        "caller",
        "server",
        "log-writer",
        "follower",
        "sequencer",
        "shard",
        "nats",
    ];
    let before = THREADS.map(cpu_of);
    let done = run();
    let us = |time: Duration| time.as_secs_f64() * 1e6 / done.calls as f64;
    let taken = THREADS.iter().zip(before);
    let taken: Vec<_> = taken
        .map(|(thread, before)| (thread, cpu_of(thread) - before))
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let all: Duration = taken.iter().map(|(_, time)| *time).sum();
    let idle = (done.elapsed * cores).saturating_sub(all);
    print!(
        "{name}: {:.0} calls/s; µs of a call: {:.1} idle",
        done.calls as f64 / done.elapsed.as_secs_f64(),
        us(idle)
    );
    for (thread, time) in taken {
        print!(", {:.1} {thread}", us(time));
    }
    println!();
}

fn instance_options(appends: usize) -> instance::Options {
    instance::Options {
        command_appends_max: support::size("appends", appends),
        ..instance::Options::default()
    }
}

/// As many publishers as there are callers, each of which waits until its bytes are read back.
fn echo(runtime: &Runtime, log: &Arc<dyn Log>, callers: usize, time: Duration) -> Done {
    runtime.block_on(async {
        let from = log.bounds().await.expect("bounds").last + 1;
        let (reached, _) = tokio::sync::watch::channel(from - 1);
        let reached = Arc::new(reached);
        let reader = tokio::spawn({
            let (log, reached) = (Arc::clone(log), Arc::clone(&reached));
            async move {
                let mut reader = log.reader(from).await.expect("a reader");
                loop {
                    let entries = reader.next(512).await.expect("entries");
                    if let Some(last) = entries.last() {
                        reached.send_replace(last.position);
                    }
                }
            }
        });
        let ends = Arc::new(AtomicBool::new(false));
        let tick = pb::Record {
            version: 1,
            instance: 0,
            token: 0,
            body: Some(pb::record::Body::Commands(pb::CommandBatch {
                commands: Vec::new(),
            })),
        };
        let mut record = tick.encode_to_vec();
        // A field that nobody knows makes it as large as a record with one reservation.
        record.extend_from_slice(&[0xfa, 0x3e, 80]);
        record.resize(record.len() + 80, 0);
        let record = Bytes::from(record);
        let started = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..callers {
            let (log, ends, record) = (Arc::clone(log), Arc::clone(&ends), record.clone());
            let mut reached = reached.subscribe();
            tasks.push(tokio::spawn(async move {
                let mut latencies = histogram();
                while !ends.load(Relaxed) {
                    let sent = Instant::now();
                    let position = log.append(record.clone()).await.expect("appended");
                    let back = reached.wait_for(|reached| *reached >= position).await;
                    back.expect("the reader reads on");
                    latencies.saturating_record(sent.elapsed().as_micros() as u64);
                }
                latencies
            }));
        }
        tokio::time::sleep(time).await;
        ends.store(true, Relaxed);
        let mut latencies = histogram();
        for task in tasks {
            let one = task.await.expect("publishers do not panic");
            latencies.add(one).expect("the same range");
        }
        reader.abort();
        Done {
            calls: latencies.len(),
            elapsed: started.elapsed(),
            latencies,
        }
    })
}
