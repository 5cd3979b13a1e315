//! What reading the log on JetStream costs beside draining the same stream and looking at nothing.
//!
//! *Raw* is the least the NATS client can do: pull requests as large as the reader's, and each
//! message dropped as it comes. Beside it, the client's own ways to consume: `messages` (an
//! endless stream) and `fetch` (batches). Rounds alternate; medians and ratios to raw are printed.
//!
//! `cargo bench --bench log_drain`

#[path = "../tests/support/nats.rs"]
mod nats;

use std::{env, time::Instant};

use async_nats::{
    Client,
    jetstream::{
        self,
        consumer::{AckPolicy, PullConsumer, pull},
    },
};
use futures::StreamExt;
use nats::NatsServer;
use sellable::{
    limits,
    log::{
        Log,
        jetstream::{JetStreamLog, Options},
    },
};

const ROUNDS: usize = 5;

async fn consumer(client: &Client) -> PullConsumer {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream("SELLABLE").await.unwrap();
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        memory_storage: true,
        ..pull::Config::default()
    };
    stream.create_consumer(config).await.unwrap()
}

/// Messages to ask for at once: like the reader, not more than [`limits::PULL_BYTES`], or the
/// server gives the connection up as too slow.
fn batch(size: usize) -> usize {
    limits::PULL_MESSAGES.min(limits::PULL_BYTES / size)
}

async fn raw(client: &Client, count: u64, batch: usize) {
    let consumer = consumer(client).await;
    let name = &consumer.cached_info().name;
    let inbox = client.new_inbox();
    let mut messages = client.subscribe(inbox.clone()).await.unwrap();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.SELLABLE.{name}");
    let batch = batch as u64;
    let request = format!("{{\"batch\":{batch},\"expires\":60000000000}}");
    let mut read = 0;
    while read < count {
        let request = request.clone().into();
        let sent = client.publish_with_reply(subject.clone(), inbox.clone(), request);
        sent.await.unwrap();
        for _ in 0..batch.min(count - read) {
            messages.next().await.unwrap();
            read += 1;
        }
    }
}

async fn messages(client: &Client, count: u64, batch: usize) {
    let consumer = consumer(client).await;
    let stream = consumer.stream().max_messages_per_batch(batch);
    let mut messages = stream.messages().await.unwrap();
    for _ in 0..count {
        messages.next().await.unwrap().unwrap();
    }
}

async fn fetch(client: &Client, count: u64, batch: usize) {
    let consumer = consumer(client).await;
    let mut read = 0;
    while read < count {
        let fetch = consumer.fetch().max_messages(batch);
        let mut messages = fetch.messages().await.unwrap();
        while let Some(message) = messages.next().await {
            message.unwrap();
            read += 1;
        }
    }
}

async fn reader(log: &JetStreamLog, count: u64) {
    let mut reader = log.reader(1).await.unwrap();
    let mut read = 0;
    while read < count {
        read += reader.next(4_096).await.unwrap().len() as u64;
    }
    assert_eq!(read, count);
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` must not run for minutes.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("size      drained by     messages/s   ratio to raw");
    for (size, count) in [(128, 400_000_u64), (8_192, 40_000)] {
        let server = NatsServer::start();
        let log = JetStreamLog::open(Options::new(server.url()))
            .await
            .unwrap();
        let mut options = async_nats::ConnectOptions::new();
        options = options.subscription_capacity(limits::SUBSCRIPTION_MESSAGES_MAX);
        let client = options.connect(server.url()).await.unwrap();
        let payload = bytes::Bytes::from(vec![7_u8; size]);
        let context = jetstream::new(client.clone());
        for number in 1..=count {
            // The last one of each batch is awaited, so as not to run away from the server.
            if number % 500 == 0 {
                let ack = context.publish("movements.bench", payload.clone());
                ack.await.unwrap().await.unwrap();
            } else {
                let sent = client.publish("movements.bench", payload.clone());
                sent.await.unwrap();
            }
        }
        assert_eq!(log.bounds().await.unwrap().last, count);
        let mut rates: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            for (index, rates) in rates.iter_mut().enumerate() {
                let started = Instant::now();
                match index {
                    0 => raw(&client, count, batch(size)).await,
                    1 => messages(&client, count, batch(size)).await,
                    2 => fetch(&client, count, batch(size)).await,
                    _ => reader(&log, count).await,
                }
                rates.push(count as f64 / started.elapsed().as_secs_f64());
            }
        }
        let medians = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        for (name, rate) in ["raw", "messages", "fetch", "Reader::next"]
            .iter()
            .zip(medians)
        {
            let ratio = rate / medians[0];
            println!("{size:<8}  {name:<12} {rate:>12.0} {ratio:>14.2}");
        }
    }
}
