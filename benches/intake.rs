//! From JetStream to applied and visible.
//!
//! A real server on this machine holds a stream; both sides read it from its beginning through
//! the same reader. One movement a message is compared with reading the stream and discarding it;
//! 100 a message with applying the same messages from memory: an instance of its own each time,
//! which begins with nothing. Published before it is measured; server, client and service share
//! the machine's cores.
//!
//! `--messages` with one movement (200,000) and `--batches` of 100 (5,000), `--rounds`.

#[path = "../tests/support/nats.rs"]
mod nats;
#[path = "support/mod.rs"]
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use sellable::{
    instance::{Instance, Options},
    limits::FOLLOW_ENTRIES_MAX,
    log::{
        Lane, Log,
        jetstream::{self, JetStreamLog},
        memory::MemoryLog,
    },
};
use support::{Goal, Mix, Rounds};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SKUS: usize = 20_000;
const LOCATIONS: usize = 10;
/// Messages published and not yet acknowledged.
const IN_FLIGHT: usize = 400;

fn main() {
    if !support::is_bench() {
        return;
    }
    let rounds = support::size("rounds", 7);
    let messages = support::size("messages", 200_000);
    let batches = support::size("batches", 5_000);
    support::introduce(&format!("intake: {SKUS} SKUs at {LOCATIONS} locations"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");

    let mut rows = Vec::new();
    for (count, size) in [(messages, 1), (batches, 100)] {
        let server = nats::NatsServer::start();
        let mut mix = Mix::new(SKUS, LOCATIONS, 0, 1_000);
        let payloads: Vec<Bytes> = (0..count)
            .map(|_| support::encode((0..size).map(|_| mix.next()).collect()))
            .collect();
        let bytes = payloads.iter().map(Bytes::len).sum::<usize>() / count;
        let (stream, memory) = runtime.block_on(fill(&server.url(), &payloads));
        drop(payloads);
        let movements = count * size;
        let applied = |log: &Arc<dyn Log>| apply(&runtime, log, movements);
        let drained = || drain(&runtime, &*stream, count + 1, movements);
        // Warm up all three.
        drained();
        applied(&stream);
        applied(&memory);
        let by_drain = Rounds::alternate(rounds, || applied(&stream), drained);
        let by_memory = Rounds::alternate(rounds, || applied(&stream), || applied(&memory));
        let goals = match size {
            1 => [Goal::AtLeast(0.6), Goal::None],
            _ => [Goal::None, Goal::AtLeast(0.8)],
        };
        let name = format!("{size} a message ({bytes} B)");
        rows.push((name.clone(), "drain and discard", by_drain, goals[0]));
        rows.push((name, "apply from memory", by_memory, goals[1]));
    }
    support::head("JetStream to visible", "movements a second");
    for (name, against, figures, goal) in &rows {
        support::row(name, against, figures, *goal);
    }
}

/// The same messages, behind the same rules, in a stream and in memory.
async fn fill(url: &str, payloads: &[Bytes]) -> (Arc<dyn Log>, Arc<dyn Log>) {
    let log = JetStreamLog::open(jetstream::Options::new(url)).await;
    let log = log.expect("the server answers");
    let memory = MemoryLog::new();
    let rules = support::rules_record(support::RULES);
    log.append(rules.clone()).await.expect("rules are stored");
    memory.publish(Lane::Record, rules);
    let client = async_nats::connect(url).await.expect("the server answers");
    let context = async_nats::jetstream::new(client);
    // One after the other into the stream, acknowledgements awaited in the same order.
    let mut acknowledgements = stream::iter(payloads)
        .map(|payload| {
            let context = &context;
            async move {
                let sent = context.publish("movements.wms", payload.clone()).await;
                sent.expect("it is sent").await.expect("it is stored")
            }
        })
        .buffered(IN_FLIGHT);
    while let Some(acknowledgement) = acknowledgements.next().await {
        drop(acknowledgement);
    }
    drop(acknowledgements);
    for payload in payloads {
        memory.publish(support::producer(), payload.clone());
    }
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!(bounds.last, payloads.len() as u64 + 1);
    (Arc::new(log), Arc::new(memory))
}

/// Reads everything and keeps nothing. Movements a second.
fn drain(runtime: &Runtime, log: &dyn Log, entries: usize, movements: usize) -> f64 {
    runtime.block_on(async {
        let start = Instant::now();
        let mut reader = log.reader(1).await.expect("a reader");
        let mut seen = 0;
        while seen < entries {
            seen += reader
                .next(FOLLOW_ENTRIES_MAX)
                .await
                .expect("entries")
                .len();
        }
        support::per_second(movements, start.elapsed())
    })
}

/// Starts an instance and waits until it shows everything. Movements a second.
fn apply(runtime: &Runtime, log: &Arc<dyn Log>, movements: usize) -> f64 {
    runtime.block_on(async {
        let start = Instant::now();
        let instance = Instance::start(Arc::clone(log), &Options::default()).await;
        let instance = instance.expect("it starts");
        instance.caught_up().await;
        let elapsed = start.elapsed();
        let outcomes = instance.movements();
        let seen = outcomes.applied + outcomes.duplicate;
        assert_eq!((seen, outcomes.parked), (movements as u64, 0));
        instance.stop().await;
        drop(instance);
        // Whatever it leaves behind is not to disturb the next one.
        tokio::time::sleep(Duration::from_millis(50)).await;
        support::per_second(movements, elapsed)
    })
}
