//! Bad messages on NATS, against the real program and a real server: what is good is applied, what
//! is not is listed with its place, its reason and its bytes, and nothing stops.

use async_nats::{HeaderMap, jetstream};
use prost::Message;
use sellable::{proto::v1 as pb, wire::text::to_cloud_event_line};

use crate::{
    bad::{delimited, says, varint},
    nats::NatsServer,
    server::{Client, Server, Setup, patiently, received},
};

const ALL_RULES: &str = "[channel.web]\nsources = [\"*\"]\n";

/// A producer, a server and who asks it.
struct Scene {
    producer: jetstream::Context,
    server: Server,
    client: Client,
    published: u64,
    _nats: NatsServer,
}

impl Scene {
    async fn start() -> Self {
        let nats = NatsServer::start();
        let server = Setup::new()
            .shards(2)
            .rules(ALL_RULES)
            .nats(&nats.url())
            .start();
        let client = server.connect().await;
        let connection = async_nats::connect(nats.url()).await.expect("connected");
        Self {
            producer: jetstream::new(connection),
            server,
            client,
            published: 0,
            _nats: nats,
        }
    }

    /// Publishes, and gives the position.
    async fn publish(&self, subject: &str, content_type: &str, payload: &[u8]) -> u64 {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert("Content-Type", content_type);
        }
        let subject = subject.to_owned();
        let sent = self
            .producer
            .publish_with_headers(subject, headers, payload.to_vec().into());
        let stored = patiently(async { sent.await.expect("sent").await }).await;
        stored.expect("stored").sequence
    }

    /// One more good movement arrives after all that came before, and is visible.
    async fn still_takes_good_ones(&mut self) {
        let id = format!("good-{}", self.published);
        let position = self
            .publish("movements.test", "", &batch(vec![good(&id)]))
            .await;
        self.published += 1;
        let ats = patiently(self.client.ats("GOOD", position))
            .await
            .expect("an answer");
        assert_eq!(ats.items[0].ats, self.published as i64);
        assert_eq!(self.server.get("/readyz").expect("it answers").0, 200);
    }

    async fn exceptions(&self) -> Vec<pb::Exception> {
        let request = pb::ListExceptionsRequest {
            page_size: 1_000,
            ..pb::ListExceptionsRequest::default()
        };
        let listed = patiently(self.client.operations().list_exceptions(request)).await;
        listed.expect("listed").into_inner().exceptions
    }
}

fn good(id: &str) -> pb::Movement {
    received(id, "GOOD", 1, "dc")
}

fn batch(movements: Vec<pb::Movement>) -> Vec<u8> {
    let version = 1;
    pb::MovementBatch { version, movements }.encode_to_vec()
}

fn event() -> String {
    to_cloud_event_line(&received("bad", "BAD", 1, "dc")).expect("an event")
}

/// A message none of which can be taken.
struct Bad {
    subject: &'static str,
    content_type: &'static str,
    payload: Vec<u8>,
    /// What the exception says of the source, of the id, and why.
    source: &'static str,
    id: &'static str,
    reason: &'static str,
}

fn bad(content_type: &'static str, payload: impl Into<Vec<u8>>, reason: &'static str) -> Bad {
    Bad {
        subject: "movements.test",
        content_type,
        payload: payload.into(),
        source: "test",
        id: "",
        reason,
    }
}

/// The same of an event that can be read so far that its id is known.
fn bad_event(event: String, reason: &'static str) -> Bad {
    Bad {
        id: "bad",
        ..bad("application/cloudevents+json", event, reason)
    }
}

const PROTOBUF: &str = "application/protobuf";
const JSON: &str = "application/json";

fn bad_messages() -> Vec<Bad> {
    let whole = batch(vec![received("bad", "BAD", 1, "dc")]);
    let with = |from: &str, to: &str| event().replacen(from, to, 1);
    let mut newer = pb::MovementBatch::decode(&*whole).expect("a batch");
    newer.version = 2;
    let many = batch(
        (0..1_001)
            .map(|n| received(&n.to_string(), "BAD", 1, "dc"))
            .collect(),
    );
    let many_events = format!("[{}]", vec![event(); 1_001].join(","));
    let mut bad = vec![
        bad("", vec![0xff; 40], "more than 64 bits"),
        bad(
            "",
            b"garbage\0\x01".to_vec(),
            "no field number and wire type",
        ),
        bad(
            PROTOBUF,
            whole[..whole.len() - 3].to_vec(),
            "reaches past the end",
        ),
        bad(PROTOBUF, varint(2, 7), "another wire type"),
        bad(
            PROTOBUF,
            newer.encode_to_vec(),
            "of version 2 of the contract, which is newer",
        ),
        bad(PROTOBUF, varint(1, 1), "has no movements"),
        bad(PROTOBUF, many, "has more than 1000 movements"),
        bad("", Vec::new(), "the message is empty"),
        bad(PROTOBUF, event(), "a group that it did not start"),
        bad(
            "text/csv",
            b"id,sku\n".to_vec(),
            "has the media type \"text/csv\"; application/protobuf",
        ),
        bad(JSON, event()[..40].to_owned(), "is not JSON"),
        bad("", "{", "is not JSON"),
        bad("", "[]", "has no movements"),
        bad(JSON, "7", "neither an event nor an array of events"),
        bad(JSON, "null", "neither an event nor an array of events"),
        bad(JSON, b"{\"id\":\"\xff\"}".to_vec(), "not UTF-8 (at byte 7)"),
        bad(JSON, "[".repeat(1_000), "is not JSON"),
        bad(JSON, many_events, "has more than 1000 movements"),
        bad("", "{}", "specversion: is missing"),
        bad("", "[1]", "json: is a number; an object"),
        bad_event(with("\"1.0\"", "\"2.0\""), "specversion: is \"2.0\""),
        bad_event(
            with(".received.v1", ".received.v2"),
            "type: is \"sellable.movement.received.v2\", which is newer",
        ),
        bad_event(with(".received.", ".recieved."), "did you mean `received`?"),
        bad_event(
            with("sellable.movement.received.v1", "com.example"),
            "a type is like sellable.movement.received.v1",
        ),
        bad_event(
            with("\"quantity\":1", "\"quantity\":\"1\""),
            "data.quantity: is the text \"1\"; an integer, without quotes",
        ),
        bad_event(
            with("\"quantity\":1", "\"quantity\":1.5"),
            "data.quantity: is 1.5; an integer",
        ),
        bad_event(
            with("\"quantity\":1", "\"quantity\":1e3"),
            "data.quantity: is 1e3; an integer",
        ),
        bad_event(with("\"quantity\":1", "\"quantity\":0"), "quantity: is 0"),
        bad_event(with("\"quantity\":1", "\"quantity\":-1"), "quantity: is -1"),
        bad_event(
            with("\"quantity\":1", "\"quantity\":1000000001"),
            "quantity: is 1000000001; at most",
        ),
        bad_event(
            with("\"quantity\":1", "\"quantity\":99999999999999999999"),
            "beyond 64 bits",
        ),
        bad_event(
            with("\"quantity\":1", "\"quantity\":1,\"quantity\":1"),
            "data.quantity: is there twice",
        ),
        bad_event(
            with("\"quantity\":1", "\"quantty\":1"),
            "did you mean `quantity`?",
        ),
        bad_event(
            with("\"sku\":\"BAD\"", "\"sku\":7"),
            "data.sku: is the number 7; a text, in quotes",
        ),
        bad_event(with("\"sku\":\"BAD\"", "\"sku\":null"), "data.sku: is null"),
        bad_event(
            with("\"sku\":\"BAD\"", "\"sku\":\"\\ud800\""),
            "data.sku: has an escape that is no character",
        ),
        bad_event(with("2023-11-14T", "14.11.2023 "), "time: is "),
        bad_event(
            with("2023-11-14T", "9999-11-14T"),
            "ahead of the log's time",
        ),
        bad_event(
            with("\"location\":\"dc\"", "\"location\":\"\""),
            "location: is empty",
        ),
        Bad {
            source: "test",
            ..bad_event(
                with("\"source\":\"test\"", "\"source\":\"wms\""),
                "source: is \"wms\", but it was published on `movements.test`",
            )
        },
    ];
    let with_tokens = |subject, source, reason| Bad {
        subject,
        source,
        id: "bad",
        ..bad_from(&event(), reason)
    };
    bad.push(with_tokens(
        "movements.test.store",
        "test.store",
        "published on `movements.test.store`",
    ));
    bad.push(with_tokens(
        "movements.other",
        "other",
        "published on `movements.other`",
    ));
    let without = with("\"source\":\"test\",", "");
    bad.push(Bad {
        subject: "movements.a.b",
        source: "a.b",
        id: "bad",
        ..bad_from(&without, "source: has '.'")
    });
    bad
}

fn bad_from(event: &str, reason: &'static str) -> Bad {
    bad(JSON, event, reason)
}

#[tokio::test]
async fn messages_that_cannot_be_taken_are_kept_and_nothing_stops() {
    let mut scene = Scene::start().await;
    scene.still_takes_good_ones().await;
    for (number, bad) in bad_messages().into_iter().enumerate() {
        let position = scene
            .publish(bad.subject, bad.content_type, &bad.payload)
            .await;
        scene.still_takes_good_ones().await;
        let exceptions = scene.exceptions().await;
        assert_eq!(exceptions.len(), number + 1, "{}", bad.reason);
        let exception = exceptions.last().expect("one");
        assert_eq!(exception.kind(), pb::ExceptionKind::Malformed);
        assert_eq!((exception.position, exception.index), (position, 0));
        says(
            &exception.reason,
            &[bad.reason, "correct it and send it again"],
        );
        assert_eq!(exception.source, bad.source, "{}", bad.reason);
        assert_eq!(exception.id, bad.id, "{}", bad.reason);
        assert_eq!(exception.occurrences, 1);
        assert!(exception.first_seen.is_some());
        // Of an array, the element; all else is kept whole.
        let original = match &*bad.payload {
            b"[1]" => b"1",
            payload => payload,
        };
        assert_eq!(exception.original, original, "{}", bad.reason);
    }
    // A reader who knows nothing but the command line sees them, too.
    let listed = scene.server.run(&["exceptions", "--all"]);
    assert!(listed.status.success(), "{listed:?}");
    says(
        &String::from_utf8_lossy(&listed.stdout),
        &["did you mean `received`?"],
    );
    assert!(!scene.server.log().contains("panicked"));
    let digest = scene.client.digest(0).await;
    assert_eq!(digest.units, scene.published as i64);
}

#[tokio::test]
async fn bad_movements_in_a_message_do_not_hold_up_the_good_ones() {
    let mut scene = Scene::start().await;
    let with = |id: &str, spoil: &dyn Fn(&mut pb::Movement)| {
        let mut movement = received(id, "GOOD", 1, "dc");
        spoil(&mut movement);
        movement.encode_to_vec()
    };
    let movements = [
        with("a", &|_| {}),
        with("zero", &|m| m.quantity = 0),
        with("b", &|m| m.source.clear()),
        [with("text", &|_| {}), delimited(4, b"\xff")].concat(),
        with("mine", &|m| m.source = "wms".into()),
        [with("kind", &|m| m.kind = None), delimited(90, b"?")].concat(),
        with("time", &|m| m.occurred_at = None),
        with("c", &|_| {}),
    ];
    let payload: Vec<u8> = movements.iter().flat_map(|m| delimited(2, m)).collect();
    let position = scene.publish("movements.test", PROTOBUF, &payload).await;
    scene.published = 3;
    scene.still_takes_good_ones().await;
    let mut exceptions = scene.exceptions().await;
    // Those of one message are of one age, and so in the order of their identities.
    exceptions.sort_by_key(|exception| exception.index);
    let found: Vec<_> = exceptions.iter().map(|e| (e.index, &*e.id)).collect();
    assert_eq!(
        found,
        [
            (1, "zero"),
            (3, "text"),
            (4, "mine"),
            (5, "kind"),
            (6, "time")
        ]
    );
    for exception in &exceptions {
        assert_eq!(exception.position, position);
        assert_eq!(exception.kind(), pb::ExceptionKind::Malformed);
        assert_eq!(exception.content_type, PROTOBUF);
        // Of the one movement, where it could be told apart.
        assert_eq!(exception.original, movements[exception.index as usize]);
    }
    says(&exceptions[1].reason, &["sku: is not UTF-8"]);
    says(&exceptions[3].reason, &["kind: is missing, or newer"]);
    let other = received("d", "GOOD", 1, "dc");
    let events = [
        event(),
        "{\"id\":\"x\"}".into(),
        to_cloud_event_line(&other).expect("an event"),
    ];
    let events = format!("[{}]", events.join(",\n"));
    scene
        .publish(
            "movements.test",
            "application/cloudevents-batch+json",
            events.as_bytes(),
        )
        .await;
    scene.published += 1;
    scene.still_takes_good_ones().await;
    let exceptions = scene.exceptions().await;
    let last = exceptions.last().expect("one");
    assert_eq!(
        (last.index, &*last.id, &*last.original),
        (1, "x", &b"{\"id\":\"x\"}"[..])
    );
}

#[tokio::test]
async fn the_same_garbage_again_only_counts() {
    let mut scene = Scene::start().await;
    let zero = batch(vec![received("z", "GOOD", 0, "dc")]);
    let mut digests = Vec::new();
    for times in 1..=3 {
        let first = scene.publish("movements.test", "", b"\xffgarbage").await;
        let last = scene.publish("movements.test", PROTOBUF, &zero).await;
        digests.push(scene.client.digest(last).await.digest);
        let exceptions = scene.exceptions().await;
        assert_eq!(exceptions.len(), 2);
        assert!(
            exceptions.iter().all(|e| e.occurrences == times),
            "{exceptions:?}"
        );
        // It stays where it was first seen.
        assert!(exceptions[0].position <= first);
        assert_eq!(exceptions[0].position == first, times == 1);
    }
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[1], digests[2]);
    // From another source, or with other bytes, it is something else.
    scene.publish("movements.other", "", b"\xffgarbage").await;
    scene.publish("movements.test", "", b"\xffGarbage").await;
    scene.still_takes_good_ones().await;
    assert_eq!(scene.exceptions().await.len(), 4);
    // A restart finds the same in the log.
    let digest = scene.client.digest(0).await.digest;
    scene.server.stop();
    scene.server.restart();
    scene.client = scene.server.connect().await;
    assert_eq!(scene.client.digest(0).await.digest, digest);
    let occurrences: Vec<_> = scene
        .exceptions()
        .await
        .iter()
        .map(|e| e.occurrences)
        .collect();
    assert_eq!(occurrences, [3, 3, 1, 1]);
}

#[tokio::test]
async fn an_id_with_other_content_is_parked() {
    let mut scene = Scene::start().await;
    scene.still_takes_good_ones().await;
    let other = received("good-0", "GOOD", 500, "dc");
    let event = to_cloud_event_line(&other).expect("an event");
    for (content_type, payload) in [(PROTOBUF, batch(vec![other])), (JSON, event.into_bytes())] {
        for _ in 0..2 {
            scene
                .publish("movements.test", content_type, &payload)
                .await;
            scene.still_takes_good_ones().await;
        }
    }
    let exceptions = scene.exceptions().await;
    assert_eq!(exceptions.len(), 2, "one for each form: {exceptions:?}");
    for (exception, content_type) in exceptions.iter().zip([PROTOBUF, JSON]) {
        assert_eq!(exception.kind(), pb::ExceptionKind::ConflictingDuplicate);
        assert_eq!((&*exception.source, &*exception.id), ("test", "good-0"));
        assert_eq!(exception.occurrences, 2);
        assert_eq!(exception.content_type, content_type);
        assert!(!exception.original.is_empty());
        says(
            &exception.reason,
            &["first to arrive counts", "release this one too"],
        );
    }
}

#[tokio::test]
async fn large_originals_are_listed_page_by_page() {
    let mut scene = Scene::start().await;
    // Together more than what a gRPC client takes by default.
    for n in 0..9_u8 {
        scene
            .publish("movements.test", "", &vec![0xf0 | n; 900_000])
            .await;
    }
    scene.still_takes_good_ones().await;
    let mut request = pb::ListExceptionsRequest::default();
    let mut found = Vec::new();
    loop {
        let page = patiently(scene.client.operations().list_exceptions(request.clone())).await;
        let page = page.expect("listed").into_inner();
        assert_eq!(page.total, 9);
        assert!(!page.exceptions.is_empty());
        found.extend(page.exceptions.iter().map(|e| e.original[0]));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let all: Vec<u8> = (0..9).map(|n| 0xf0 | n).collect();
    assert_eq!(found, all);
}

#[tokio::test]
async fn bad_records_are_kept_and_one_of_a_later_version_halts() {
    let mut scene = Scene::start().await;
    // Nobody but an instance should write there; the broker's permissions see to that. If someone
    // does, it is not taken for the truth.
    let without_version = pb::Record {
        token: 7,
        ..pb::Record::default()
    }
    .encode_to_vec();
    scene
        .publish("sellable.records.x", "", &without_version)
        .await;
    scene.publish("sellable.records.x", "", b"\xff\xff").await;
    scene.publish("sellable.records.x", "", b"").await;
    let rules = pb::Record {
        version: 1,
        body: Some(pb::record::Body::Rules(pb::RulesPut {
            toml: "[channel.web\n".into(),
            ..pb::RulesPut::default()
        })),
        ..pb::Record::default()
    };
    scene
        .publish("sellable.records.x", "", &rules.encode_to_vec())
        .await;
    scene.still_takes_good_ones().await;
    let exceptions = scene.exceptions().await;
    assert_eq!(exceptions.len(), 3, "{exceptions:?}");
    assert!(
        scene
            .server
            .log()
            .contains("a rules record cannot be read: no effect")
    );

    let newer = pb::Record {
        version: 2,
        ..pb::Record::default()
    };
    let position = scene
        .publish("sellable.records.x", "", &newer.encode_to_vec())
        .await;
    let status = scene.server.wait();
    assert_eq!(status.code(), Some(2));
    let says_so = [
        &*format!("the record at position {position} was written in format version 2"),
        "run this instance with the version that wrote it, or a later one",
    ];
    let log = scene.server.log();
    says(log.rsplit_once("error: ").expect("an error").1, &says_so);
}
