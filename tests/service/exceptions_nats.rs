//! Exceptions on NATS, against the real program and a real server: what producers publish is
//! parked and decided as what comes through gRPC, and two instances agree about all of it.

use async_nats::{HeaderMap, jetstream};
use prost::Message;
use sellable::{
    proto::v1::{self as pb, Disposition, ExceptionKind as Kind, Resolution},
    wire::text::to_cloud_event_line,
};
use tonic::Code;

use crate::{
    bad::says,
    facts::{ageless, fact, facts, resolving},
    nats::NatsServer,
    server::{Client, Setup, patiently},
};

const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";
const JSON: &str = "application/cloudevents+json";
const PROTOBUF: &str = "application/protobuf";

struct Producer(jetstream::Context);

impl Producer {
    async fn of(nats: &NatsServer) -> Self {
        let connection = async_nats::connect(nats.url()).await.expect("connected");
        Self(jetstream::new(connection))
    }

    /// Publishes, and gives the position.
    async fn publish(&self, source: &str, content_type: &str, payload: impl Into<Vec<u8>>) -> u64 {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", content_type);
        let payload = payload.into().into();
        let subject = format!("movements.{source}");
        let sent = self.0.publish_with_headers(subject, headers, payload);
        let stored = patiently(async { sent.await.expect("sent").await }).await;
        stored.expect("stored").sequence
    }
}

fn event(text: &str) -> String {
    to_cloud_event_line(&fact(text)).expect("an event")
}

fn batch(movements: Vec<pb::Movement>) -> Vec<u8> {
    let version = 1;
    pb::MovementBatch { version, movements }.encode_to_vec()
}

/// The list once this position is applied.
async fn open_at(client: &Client, position: u64) -> Vec<pb::Exception> {
    client.digest(position).await;
    client.open().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_parked_and_released_as_they_came() {
    let nats = NatsServer::start();
    let setup = Setup::new().rules(RULES).shards(2).nats(&nats.url());
    let mut server = setup.start();
    let client = server.connect().await;
    let producer = Producer::of(&nats).await;
    client
        .post(facts(&[
            "return_received p1 P 2 return=R line=1 location=dc",
        ]))
        .await;
    let inspected =
        event("return_inspected i1 P 2 return=R line=1 location=dc disposition=restock");
    let incomplete = inspected.replace(",\"disposition\":\"restock\"", "");
    assert_ne!(inspected, incomplete);
    producer.publish("wms", JSON, incomplete.clone()).await;
    let again = format!("[{},{incomplete}]", event("received a1 A 10 location=dc"));
    let batch_of_events = "application/cloudevents-batch+json";
    producer.publish("wms", batch_of_events, again).await;
    let other = event("received a1 A 5 location=dc");
    let last = producer.publish("wms", JSON, other.clone()).await;
    let open = open_at(&client, last).await;
    let kinds: Vec<(Kind, &str, u64)> = open
        .iter()
        .map(|found| (found.kind(), &*found.id, found.occurrences))
        .collect();
    assert!(
        kinds.contains(&(Kind::UnknownDisposition, "i1", 2)),
        "{kinds:?}"
    );
    assert!(
        kinds.contains(&(Kind::ConflictingDuplicate, "a1", 1)),
        "{kinds:?}"
    );
    let inspection = client.parked("i1").await;
    assert_eq!(inspection.original, incomplete.as_bytes());
    assert_eq!(
        (&*inspection.source, &*inspection.content_type),
        ("wms", "application/json")
    );

    let without = client.decide(Resolution::Release, &inspection).await;
    assert_eq!(without, Err(Code::FailedPrecondition));
    let released = client.release_with(Disposition::Restock, &inspection).await;
    released.expect("it has one now");
    assert_eq!(client.web("P").await, 2);
    let conflict = client.parked("a1").await;
    client
        .decide(Resolution::Release, &conflict)
        .await
        .expect("both are right");
    assert_eq!(client.web("A").await, 15);
    // Again, complete, and by the other way in: nothing counts twice.
    producer.publish("wms", JSON, inspected.clone()).await;
    producer.publish("wms", JSON, incomplete).await;
    let last = producer.publish("wms", JSON, other).await;
    client.digest(last).await;
    assert_eq!((client.web("P").await, client.web("A").await), (2, 15));
    assert!(
        open_at(&client, last)
            .await
            .iter()
            .all(|found| found.id.is_empty())
    );
    let digest = client.digest(0).await.digest;
    server.kill();
    server.restart();
    let client = server.connect().await;
    assert_eq!(client.digest(0).await.digest, digest);
    assert_eq!((client.web("P").await, client.web("A").await), (2, 15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_is_discarded_and_not_released() {
    let nats = NatsServer::start();
    let server = Setup::new().rules(RULES).nats(&nats.url()).start();
    let client = server.connect().await;
    let producer = Producer::of(&nats).await;
    let good = "received a1 A 5 location=dc";
    let of_another = |id: &str| pb::Movement {
        source: "pos".into(),
        ..fact(&format!("received {id} A 5 location=dc"))
    };
    let garbage = batch(vec![fact(good)]);
    let zero = pb::Movement {
        quantity: 0,
        ..fact("received zero A 5 location=dc")
    };
    let unknown_kind = pb::Movement {
        kind: None,
        ..fact("received kind A 5 location=dc")
    };
    let mut last = 0;
    for (content_type, payload) in [
        (PROTOBUF, garbage[..garbage.len() - 2].to_vec()),
        (PROTOBUF, batch(vec![zero])),
        (PROTOBUF, batch(vec![unknown_kind])),
        (PROTOBUF, batch(vec![of_another("spoofed")])),
        (PROTOBUF, event(good).into_bytes()),
        ("text/csv", b"type,id\n".to_vec()),
        (JSON, b"{".to_vec()),
        (
            JSON,
            event(good)
                .replace("received.v1", "levitated.v1")
                .into_bytes(),
        ),
        (
            JSON,
            event(good)
                .replace("\"source\":\"wms\"", "\"source\":\"pos\"")
                .into_bytes(),
        ),
        (JSON, vec![b' '; 1_000_000]),
    ] {
        last = producer.publish("wms", content_type, payload).await;
    }
    let open = open_at(&client, last).await;
    assert_eq!(open.len(), 10);
    for found in &open {
        assert_eq!(found.kind(), Kind::Malformed, "{found:?}");
        assert_eq!(found.source, "wms", "the subject says who it is");
        let status = client.resolve(resolving(Resolution::Release, found)).await;
        let status = status.expect_err(&found.reason);
        assert_eq!(
            status.code(),
            Code::FailedPrecondition,
            "{}: {status}",
            found.reason
        );
        assert!(!status.message().is_empty());
    }
    let status = client.resolve(resolving(
        Resolution::Release,
        &client.parked("spoofed").await,
    ));
    let status = status.await.expect_err("it speaks for another source");
    says(
        status.message(),
        &["is \"pos\", but it was published on `movements.wms`"],
    );
    assert_eq!(ageless(client.open().await), ageless(open.clone()));
    for found in &open {
        client
            .decide(Resolution::Discard, found)
            .await
            .expect("open");
        let again = client.decide(Resolution::Discard, found).await;
        assert_eq!(again, Err(Code::NotFound));
    }
    assert_eq!(client.open().await, []);
    // What was wrong about them is forgotten: the movements themselves never counted.
    let last = producer.publish("wms", JSON, event(good)).await;
    client.digest(last).await;
    assert_eq!(client.web("A").await, 5);
    assert_eq!(client.status().await.movements_applied, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_have_the_same_exceptions_and_follow_each_other() {
    let nats = NatsServer::start();
    let setup = || Setup::new().rules(RULES).nats(&nats.url());
    let (one, mut other) = (setup().start(), setup().shards(3).start());
    let (a, b) = (one.connect().await, other.connect().await);
    let producer = Producer::of(&nats).await;
    let authority = pb::PutRulesRequest {
        toml: "[source.wms]\nmay = [\"*\"]\n\n[source.pos]\nmay = [\"issued\"]\n".into(),
        ..pb::PutRulesRequest::default()
    };
    a.rules().put_authority(authority).await.expect("in force");
    let mut last = 0;
    for n in 0..12 {
        // By both instances and by a producer, in one order for all.
        let sku = format!("S{n}");
        let reserved = format!("reserved r{n} {sku} 2 order=W-{n} line=1 location=dc channel=web");
        let refunded = format!("return_refunded f{n} {sku} 1 return=R-{n} line=1");
        a.post(facts(&[&reserved])).await;
        b.post(facts(&[&refunded])).await;
        let conflict = fact(&format!("return_refunded f{n} {sku} 2 return=R-{n} line=1"));
        let answer = [&a, &b][n % 2].outcome_of(conflict).await;
        assert_eq!(answer.parked_as(), Kind::ConflictingDuplicate);
        let unauthorized = event(&format!("received u{n} {sku} 9 location=dc source=pos"));
        last = producer.publish("pos", JSON, unauthorized).await;
    }
    let agree = async |a: &Client, b: &Client, position: u64| {
        let digests = (a.digest(position).await, b.digest(position).await);
        assert_eq!(digests.0.digest, digests.1.digest);
        let (of_a, of_b) = (a.open().await, b.open().await);
        assert_eq!(ageless(of_a.clone()), ageless(of_b));
        of_a
    };
    let open = agree(&a, &b, last).await;
    assert_eq!(open.len(), 4 * 12);
    // Each decides about some of them, about those that came by the other, too.
    let mut left = 4 * 12;
    let mut last = 0;
    for (n, found) in open.iter().enumerate() {
        let client = [&a, &b][n % 2];
        let parked = found.occurrences > 0;
        let resolution = match n % 3 {
            0 => Resolution::Acknowledge,
            1 if parked => Resolution::Release,
            2 if parked => Resolution::Discard,
            _ => continue,
        };
        last = client.decide(resolution, found).await.expect("it is open");
        if resolution != Resolution::Acknowledge {
            left -= 1;
            // The other one knows as soon as it has that position.
            let other = [&b, &a][n % 2];
            other.digest(last).await;
            let again = other.decide(resolution, found).await;
            assert_eq!(again, Err(Code::NotFound));
        }
    }
    assert!(left < 4 * 12 - 8, "{left}");
    let open = agree(&a, &b, last).await;
    // What was released may have closed others: then there are fewer.
    assert!(open.len() <= left && open.len() > 12, "{}", open.len());
    assert!(open.iter().any(|found| found.acknowledgement.is_some()));
    assert!(open.iter().any(|found| found.acknowledgement.is_none()));
    // Who comes later finds the same in the log.
    other.kill();
    other.restart();
    let b = other.connect().await;
    assert_eq!(ageless(agree(&a, &b, last).await), ageless(open));
}
