//! The NATS feed, on a real server: written once, whoever writes it; without gap and without going
//! back when a writer is killed; and the way to begin anew.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull};
use futures::StreamExt;
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sellable::proto::v1::{
    self as pb,
    availability_update::Kind,
    delivery_status::{State, Way},
};

use crate::{
    nats::NatsServer,
    server::{CHANNEL, Client, Server, Setup, patiently, received},
};

const OPEN: &str = "[channel.web]\nsources = [\"*\"]\n[channel.\"app eu\"]\nsources = [\"*\"]\nshare_percent = 50\n";
const STREAM: &str = "SELLABLE_AVAILABILITY";

/// What a connector knows, which reads one subject from its beginning.
#[derive(Debug, Default)]
struct Connector {
    units: BTreeMap<String, i64>,
    position: u64,
    as_of: u64,
    messages: usize,
    states: usize,
}

impl Connector {
    fn take(&mut self, update: &pb::AvailabilityUpdate) {
        match update.kind() {
            Kind::State => self.states += 1,
            Kind::Changes => assert!(
                update.after_position <= self.position,
                "a gap: after {} where {} is known",
                update.after_position,
                self.position
            ),
            kind => panic!("{kind:?} has no place here"),
        }
        assert!(
            update.as_of_position >= self.as_of,
            "it went back from {} to {}",
            self.as_of,
            update.as_of_position
        );
        self.as_of = update.as_of_position;
        if update.position > 0 {
            assert!(update.position >= self.position, "its position went back");
            self.position = update.position;
        }
        for own in &update.numbers {
            self.units.insert(own.sku.clone(), own.units);
        }
        self.messages += 1;
    }
}

/// Reads a subject from its beginning until a position is reached there.
async fn read(nats: &NatsServer, subject: &str, position: u64) -> Connector {
    let client = async_nats::connect(nats.url()).await.expect("it connects");
    let context = jetstream::new(client);
    let mut connector = Connector::default();
    patiently(async {
        let stream = loop {
            match context.get_stream(STREAM).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let consumer = stream.create_consumer(pull::OrderedConfig {
            filter_subject: subject.to_owned(),
            deliver_policy: DeliverPolicy::All,
            ..pull::OrderedConfig::default()
        });
        let mut messages = consumer
            .await
            .expect("a consumer")
            .messages()
            .await
            .expect("messages");
        while connector.position < position {
            let message = messages
                .next()
                .await
                .expect("it goes on")
                .expect("a message");
            let headers = message.headers.as_ref().expect("headers");
            assert_eq!(
                headers.get("Content-Type").expect("one").as_str(),
                "application/protobuf"
            );
            let update = pb::AvailabilityUpdate::decode(message.payload.clone());
            connector.take(&update.expect("an update"));
        }
    })
    .await;
    connector
}

fn instance(nats: &NatsServer, shards: usize, form: &str) -> Setup {
    Setup::new()
        .shards(shards)
        .nats(&nats.url())
        .set("feeds.nats", form)
        .set("checkpoint.every_records", 200)
}

async fn ats(client: &Client, channel: &str, skus: &[String], position: u64) -> Vec<i64> {
    let request = pb::GetRequest {
        channel: channel.into(),
        skus: skus.to_vec(),
        min_position: position,
        ..pb::GetRequest::default()
    };
    let answer = client
        .availability()
        .get(request)
        .await
        .expect("it answers");
    answer
        .into_inner()
        .items
        .iter()
        .map(|item| item.ats)
        .collect()
}

/// How an instance stands with the NATS feed of a channel; `None`: it does not answer.
async fn state(client: &Client) -> Option<State> {
    let request = pb::ListFeedsRequest {
        channel: CHANNEL.into(),
    };
    let listed = client.feeds().list(request).await.ok()?.into_inner();
    let mut deliveries = listed.feeds.first()?.deliveries.iter();
    Some(deliveries.find(|own| own.way() == Way::Nats)?.state())
}

/// Posts movements through either instance, each until it is acknowledged. Gives how many, and the last
/// position.
async fn post(clients: Vec<Client>, skus: Vec<String>, enough: Arc<AtomicBool>) -> (usize, u64) {
    let mut random = StdRng::seed_from_u64(7);
    let (mut posted, mut position) = (0, 0);
    while !enough.load(SeqCst) {
        let movements: Vec<pb::Movement> = (0..random.random_range(1..30))
            .map(|_| {
                posted += 1;
                let sku = &skus[random.random_range(0..skus.len())];
                received(&format!("m{posted}"), sku, random.random_range(1..9), "dc")
            })
            .collect();
        loop {
            let client = &clients[random.random_range(0..clients.len())];
            let request = pb::PostRequest {
                movements: movements.clone(),
            };
            match client.movements().post(request).await {
                Ok(answer) => {
                    position = position.max(answer.into_inner().position);
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (posted, position)
}

/// Two instances, one of which is killed again and again while movements come in: one feed, without a
/// gap, that ends with what a query says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_write_one_feed_also_when_one_is_killed() {
    const SKUS: usize = 40;
    const KILLS: usize = 4;
    let nats = NatsServer::start();
    let mut servers: Vec<Server> = vec![
        instance(&nats, 1, "protobuf").rules(OPEN).start(),
        instance(&nats, 2, "protobuf").start(),
    ];
    let skus: Vec<String> = (0..SKUS).map(|n| format!("SKU-{n}")).collect();
    let clients = [servers[0].connect().await, servers[1].connect().await];
    let enough = Arc::new(AtomicBool::new(false));
    let poster = tokio::spawn(post(clients.to_vec(), skus.clone(), Arc::clone(&enough)));
    for _ in 0..KILLS {
        // Whoever writes.
        let victim = patiently(async {
            loop {
                let states = [state(&clients[0]).await, state(&clients[1]).await];
                match states {
                    [Some(State::Delivering), Some(State::Standby)] => return 0,
                    [Some(State::Standby), Some(State::Delivering)] => return 1,
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        servers[victim].kill();
        // The other one takes over, before this one is back.
        patiently(async {
            while state(&clients[1 - victim]).await != Some(State::Delivering) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        tokio::task::block_in_place(|| servers[victim].restart());
    }
    enough.store(true, SeqCst);
    let (posted, position) = patiently(poster).await.expect("it does not panic");
    for (channel, subject) in [
        ("web", "availability.web"),
        ("app eu", "availability.app%20eu"),
    ] {
        let connector = read(&nats, subject, position).await;
        for server in &servers {
            let client = server.connect().await;
            let expected = ats(&client, channel, &skus, position).await;
            let found: Vec<i64> = skus
                .iter()
                .map(|sku| connector.units.get(sku).copied().unwrap_or_default())
                .collect();
            assert_eq!(found, expected, "{channel}");
        }
        println!(
            "feed nats {channel}: {posted} movements, {KILLS} kills, {} messages, {} of them states, \
             no gap, nothing went back",
            connector.messages, connector.states
        );
    }
    // The server itself is killed, too.
    let mut nats = nats;
    nats.restart();
    let client = servers[0].connect().await;
    let last = patiently(async {
        loop {
            let posted = client
                .movements()
                .post(pb::PostRequest {
                    movements: vec![received("last", "SKU-0", 1, "dc")],
                })
                .await;
            if let Ok(posted) = posted {
                break posted.into_inner().position;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let connector = read(&nats, "availability.web", last).await;
    assert_eq!(
        connector.units["SKU-0"],
        ats(&client, "web", &skus[..1], last).await[0]
    );
}

/// A connector that comes new asks for the state, and goes on with the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_is_asked_for_and_the_stream_goes_on_after_it() {
    const SKUS: usize = 9_000;
    let nats = NatsServer::start();
    let server = instance(&nats, 2, "json").rules(OPEN).start();
    let client = server.connect().await;
    let mut position = 0;
    for first in (0..SKUS).step_by(1_000) {
        let stock = (first..first + 1_000).map(|n| {
            received(
                &format!("s{n}"),
                &format!("SKU-{n}"),
                1 + n as i64 % 7,
                "dc",
            )
        });
        position = client.post(stock.collect()).await.position;
    }
    let connector = async_nats::connect(nats.url()).await.expect("it connects");
    let inbox = connector.new_inbox();
    let mut answers = connector.subscribe(inbox.clone()).await.expect("an inbox");
    let (mut units, mut at) = (BTreeMap::new(), 0);
    patiently(async {
        // Until somebody answers; before that, nobody listens yet.
        loop {
            let (subject, reply) = ("availability-state.web", inbox.clone());
            connector
                .publish_with_reply(subject, reply, Default::default())
                .await
                .expect("it is sent");
            let answer = tokio::time::timeout(Duration::from_secs(1), answers.next()).await;
            let Ok(Some(mut message)) = answer else {
                continue;
            };
            // Nobody listens yet, or the rules are not there yet.
            if message.payload.is_empty() {
                continue;
            }
            loop {
                let event: serde_json::Value =
                    serde_json::from_slice(&message.payload).expect("JSON");
                assert_eq!(event["type"], "sellable.availability.state.v1");
                for own in event["data"]["numbers"].as_array().expect("a list") {
                    let sku = own["sku"].as_str().expect("a text").to_owned();
                    units.insert(sku, own["units"].as_i64().expect("a number"));
                }
                at = event["data"]["position"].as_u64().expect("a number");
                if at > 0 {
                    return;
                }
                message = answers.next().await.expect("it goes on");
            }
        }
    })
    .await;
    assert_eq!(units.len(), SKUS);
    assert!(at >= position);
    assert!((0..SKUS).all(|n| units[&format!("SKU-{n}")] == 1 + n as i64 % 7));

    // What changes afterwards is in the stream, in the same form. Who writes it begins with the state,
    // too, once.
    let context = jetstream::new(connector.clone());
    let written = |least: u64| {
        let context = context.clone();
        async move {
            patiently(async {
                loop {
                    let message = match context.get_stream(STREAM).await {
                        Ok(stream) => {
                            let last = stream.get_last_raw_message_by_subject("availability.web");
                            last.await.ok()
                        }
                        Err(_) => None,
                    };
                    let event: Option<serde_json::Value> =
                        message.and_then(|message| serde_json::from_slice(&message.payload).ok());
                    match event {
                        Some(event) if event["data"]["position"].as_u64() >= Some(least) => {
                            break event;
                        }
                        _ => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            })
            .await
        }
    };
    written(position).await;
    let last = client
        .post(vec![received("after", "SKU-5", 4, "dc")])
        .await
        .position;
    let changed = written(last).await;
    assert_eq!(changed["type"], "sellable.availability.changes.v1");
    assert_eq!(changed["data"]["numbers"][0]["sku"], "SKU-5");
    assert_eq!(changed["data"]["numbers"][0]["units"], 6 + 4);

    // Of a channel that is none, it is told.
    let nobody = patiently(async {
        connector
            .request("availability-state.nowhere", Default::default())
            .await
    })
    .await
    .expect("an answer");
    let headers = nobody.headers.expect("headers");
    assert_eq!(
        headers
            .get("Nats-Service-Error-Code")
            .expect("one")
            .as_str(),
        "404"
    );
}
