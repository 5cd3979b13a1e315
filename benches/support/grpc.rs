//! What benchmarks over gRPC share: servers and callers in one process, each with threads of
//! their own, that send bytes and do not decode what comes back.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::{fs, net::SocketAddr, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use tokio::runtime::Runtime;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

/// As configured by default.
pub(crate) const STREAMS_MAX: u32 = 1_000;

// Serves as `sellable serve` does. A macro, since layers differ in their types.
macro_rules! serve {
    ($server:expr, $routes:expr) => {
        $crate::grpc::serve!($server, $routes, 0)
    };
    ($server:expr, $routes:expr, $port:expr) => {{
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", $port)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (server, routes) = ($server, $routes);
        let serving = sellable::api::serving::Serving::start(
            listener,
            std::thread::available_parallelism().map_or(1, usize::from),
            "server",
            move |incoming, stopped| {
                server
                    .clone()
                    .max_concurrent_streams($crate::grpc::STREAMS_MAX)
                    .initial_stream_window_size(sellable::limits::STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(sellable::limits::CONNECTION_WINDOW_BYTES)
                    .add_routes(routes.clone())
                    .serve_with_incoming_shutdown(incoming, stopped)
            },
        );
        // It serves to the end of the process.
        std::mem::forget(serving.expect("threads"));
        address
    }};
}

pub(crate) use serve;

pub(crate) fn runtime(name: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name(name)
        .enable_all()
        .build()
        .expect("a runtime")
}

pub(crate) async fn connect(address: SocketAddr, connections: usize) -> Vec<Channel> {
    let mut channels = Vec::new();
    for _ in 0..connections {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        channels.push(
            endpoint
                .tcp_nodelay(true)
                .connect()
                .await
                .expect("it listens"),
        );
    }
    channels
}

/// Sends bytes as they are, and counts those that come back.
pub(crate) struct Undecoded;

impl Codec for Undecoded {
    type Encode = Bytes;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Undecoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Undecoded {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let bytes = from.remaining();
        from.advance(bytes);
        Ok(Some(bytes))
    }
}

/// Processor time that threads whose names begin so have taken; zero where the system does not say.
pub(crate) fn cpu_of(thread: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let ns = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        if !name.starts_with(thread) {
            return None;
        }
        let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
        times.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
}
