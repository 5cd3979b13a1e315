//! Queries over gRPC, against an empty handler of the same framework.
//!
//! Both sides are `sellable.v1.Availability/Get` on a server of tonic with the settings of
//! `sellable serve`, over loopback; ours counts its calls, as `sellable serve` does. The empty handler takes the same request, decoded, and answers
//! with as many items: the names as they came, and a number. It reads nothing and waits for
//! nothing, so it is the most that any handler of this framework can reach.
//!
//! The callers share the machine with the server, so that calls a second understate what a
//! handler costs. The second table is without them: the processor time that the server's own
//! threads took for a call. Callers send bytes that were encoded before, and do not decode.
//!
//! `--skus` (20,000, each at 10 locations), `--callers` (64), `--connections` (4), `--ms` of one
//! measurement, `--rounds`.

#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use grpc::{Undecoded, connect, cpu_of, runtime, serve};
use prost::Message;
use sellable::{
    api,
    instance::{self, Instance},
    log::{Lane, memory::MemoryLog},
    ops::Calls,
    proto::v1::{
        self as pb,
        availability_server::{Availability, AvailabilityServer},
    },
};
use support::{Goal, Random, Rounds};
use tonic::{
    Request, Response, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    service::Routes,
    transport::{Channel, Server},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOCATIONS: usize = 10;
/// Different requests of each size.
const REQUESTS: usize = 2_000;

fn main() {
    if !support::is_bench() {
        return;
    }
    let skus = support::size("skus", 20_000);
    let callers = support::size("callers", 64);
    let connections = support::size("connections", 4);
    let rounds = support::size("rounds", 7);
    let time = Duration::from_millis(support::size("ms", 1_000) as u64);
    support::introduce(&format!(
        "queries: {skus} SKUs at {LOCATIONS} locations, {callers} callers over {connections} \
         connections"
    ));

    let serving = runtime("server");
    let calling = runtime("caller");
    let instance = serving.block_on(start(skus));
    let (_, health) = tonic_health::server::health_reporter();
    let options = api::Options {
        min_position_wait_max: Duration::from_secs(1),
        message_bytes_max: 4 << 20,
        reconcile: Default::default(),
    };
    // What it starts needs the runtime.
    let entered = serving.enter();
    let feeds = sellable::feed::Feeds::start(&instance, Default::default());
    drop(entered);
    let ours = api::routes(&instance, &feeds, options, health);
    let counted = Server::builder().layer(Calls::default());
    let ours = serving.block_on(async { serve!(counted, ours) });

    let reading = instance.view().read();
    let (position, time_us) = (reading.position, reading.time_us);
    let rules_version = reading.rules.version;
    drop(reading);
    let empty = Empty(pb::GetResponse {
        items: Vec::new(),
        position,
        as_of: Some(prost_types::Timestamp {
            seconds: time_us / 1_000_000,
            nanos: (time_us % 1_000_000) as i32 * 1_000,
        }),
        rules_version,
    });
    let (_, health) = tonic_health::server::health_reporter();
    let empty = Routes::new(AvailabilityServer::new(empty)).add_service(health);
    let empty = serving.block_on(async { serve!(Server::builder(), empty) });

    let mut calls = Vec::new();
    let mut costs = Vec::new();
    for count in [1, 10, 100] {
        let requests = Arc::new(requests(skus, count));
        let mut sizes = [0; 2];
        let mut cost = Rounds::default();
        let [ours, theirs] = [(ours, 0), (empty, 1)].map(|(address, side)| {
            let load = Load {
                requests: Arc::clone(&requests),
                callers,
                time,
            };
            let channels = calling.block_on(connect(address, connections));
            // Warm up, and see how large the answers are.
            let warm = calling.block_on(load.run(&channels));
            sizes[side] = warm.bytes as usize / warm.calls.max(1) as usize;
            (load, channels)
        });
        // Processor time of the server, for a call; filled by both sides in turn.
        let spent = std::cell::RefCell::new([Vec::new(), Vec::new()]);
        let run = |(load, channels): &(Load, Vec<Channel>), side: usize| {
            let before = cpu_of("server");
            let done = calling.block_on(load.run(channels));
            let cpu = cpu_of("server").saturating_sub(before);
            spent.borrow_mut()[side].push(cpu.as_secs_f64() * 1e6 / done.calls as f64);
            done.calls as f64 / done.elapsed.as_secs_f64()
        };
        let figures = Rounds::alternate(rounds, || run(&ours, 0), || run(&theirs, 1));
        let [ours, theirs] = spent.into_inner();
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            cost.push(ours, theirs);
        }
        let name = format!("{count} SKUs ({} and {} B)", sizes[0], sizes[1]);
        calls.push((name.clone(), figures));
        costs.push((name, cost));
    }

    let against = "empty handler";
    support::head("SKUs a call (answers of)", "calls a second");
    for (name, figures) in &calls {
        support::row(name, against, figures, Goal::AtLeast(0.9));
    }
    println!();
    support::head("SKUs a call", "processor time of the server for a call, µs");
    for (name, cost) in &costs {
        support::row(name, against, cost, Goal::None);
    }
    serving.block_on(instance.stop());
}

async fn start(skus: usize) -> Arc<Instance> {
    let log = MemoryLog::new();
    log.publish(Lane::Record, support::rules_record(support::RULES));
    let mut id = 0;
    for first in (0..skus).step_by(100) {
        let mut movements = Vec::new();
        for sku in first..skus.min(first + 100) {
            for at in 0..LOCATIONS {
                id += 1;
                let (sku, at) = (support::sku(sku), support::location(at));
                movements.push(support::received(id, sku, 1_000, at));
            }
        }
        log.publish(support::producer(), support::encode(movements));
    }
    let options = instance::Options::default();
    let instance = Instance::start(Arc::new(log), &options).await;
    let instance = instance.expect("it starts");
    instance.caught_up().await;
    assert_eq!(instance.movements().applied, id);
    instance
}

fn requests(skus: usize, count: usize) -> Vec<Bytes> {
    let mut random = Random(5);
    let request = |_| {
        let skus = (0..count).map(|_| support::sku(random.below(skus)));
        let request = pb::GetRequest {
            channel: "web".into(),
            skus: skus.collect(),
            ..pb::GetRequest::default()
        };
        request.encode_to_vec().into()
    };
    (0..REQUESTS).map(request).collect()
}

/// What one measurement came to.
struct Done {
    calls: u64,
    bytes: u64,
    elapsed: Duration,
}

/// Callers of which each has one call under way.
struct Load {
    requests: Arc<Vec<Bytes>>,
    callers: usize,
    time: Duration,
}

impl Load {
    async fn run(&self, channels: &[Channel]) -> Done {
        let ends = Arc::new(AtomicBool::new(false));
        let bytes = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut tasks = Vec::new();
        for caller in 0..self.callers {
            let mut client = Grpc::new(channels[caller % channels.len()].clone());
            let requests = Arc::clone(&self.requests);
            let (ends, bytes) = (Arc::clone(&ends), Arc::clone(&bytes));
            tasks.push(tokio::spawn(async move {
                let path = PathAndQuery::from_static("/sellable.v1.Availability/Get");
                let (mut calls, mut received) = (0, 0);
                while !ends.load(Relaxed) {
                    let request = requests[(caller * 31 + calls as usize) % requests.len()].clone();
                    client.ready().await.expect("connected");
                    let response = client
                        .unary(Request::new(request), path.clone(), Undecoded)
                        .await
                        .expect("an answer");
                    received += response.into_inner();
                    calls += 1;
                }
                bytes.fetch_add(received as u64, Relaxed);
                calls
            }));
        }
        tokio::time::sleep(self.time).await;
        ends.store(true, Relaxed);
        let mut calls: u64 = 0;
        for task in tasks {
            calls += task.await.expect("callers do not panic");
        }
        Done {
            calls,
            bytes: bytes.load(Relaxed),
            elapsed: started.elapsed(),
        }
    }
}

/// Answers without looking anything up.
struct Empty(pb::GetResponse);

#[tonic::async_trait]
impl Availability for Empty {
    async fn get(
        &self,
        request: Request<pb::GetRequest>,
    ) -> Result<Response<pb::GetResponse>, Status> {
        let item = |sku| pb::SkuAvailability {
            sku,
            ats: 5_000,
            known: true,
            locations: Vec::new(),
        };
        let items = request.into_inner().skus.into_iter().map(item).collect();
        Ok(Response::new(pb::GetResponse { items, ..self.0 }))
    }

    async fn explain(
        &self,
        _: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
