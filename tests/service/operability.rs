//! What those rely on who run the service: signals, probes, metrics, health, reflection, rules.

use std::{collections::BTreeSet, fs, time::Duration};

use futures::StreamExt;
use prost::Message;
use sellable::{
    log::{
        Log,
        embedded::{EmbeddedLog, FsyncPolicy, Options},
    },
    proto::v1 as pb,
    wire::record::encode_record,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    nats::NatsServer,
    openmetrics,
    server::{self, CHANNEL, Client, RULES, Server, Setup, patiently, received},
};

/// Asks again and again until the answer is the one waited for.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(server::PATIENCE, waiting).await;
    assert!(waited.is_ok(), "in vain: {what}");
}

async fn health(client: &Client, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let answer = HealthClient::new(client.channel.clone())
        .check(request)
        .await;
    answer.expect("the service is known").into_inner().status()
}

async fn rules_version(client: &Client) -> u64 {
    client.status().await.rules_version
}

async fn put(
    client: &Client,
    request: pb::PutRulesRequest,
) -> Result<pb::PutRulesResponse, tonic::Status> {
    let answer = client.rules().put(request).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_calls_under_way_end() {
    let setup = Setup::new().rules(RULES);
    let setup = setup.set("query.min_position_wait_ms_max", 600_000);
    let mut server = setup.set("drain.grace_ms", 600_000).start();
    let client = server.connect().await;

    // A stream that is open, and a query that waits for what will be posted on it.
    let (requests, queue) = mpsc::channel(1);
    let batch = |id: &str| pb::PostRequest {
        movements: vec![received(id, "MUG", 10, "dc")],
    };
    requests.send(batch("1")).await.expect("sent");
    let mut movements = client.movements();
    let answers = movements.post_stream(ReceiverStream::new(queue)).await;
    let mut answers = answers.expect("a stream").into_inner();
    let first = patiently(answers.message())
        .await
        .expect("an answer")
        .expect("one");
    let query = tokio::spawn({
        let client = client.clone();
        async move { client.ats("MUG", first.position + 1).await }
    });
    // On the same connection, so that the query has reached the server when this is answered.
    client.status().await;

    server.signal("TERM");
    until("a probe that says no", async || {
        let answer = server.get("/readyz");
        let (status, body) = answer.expect("the probes answer while calls are under way");
        assert!(
            (status, &*body) == (503, "stopping\n") || status == 200,
            "{status} {body}"
        );
        status == 503
    })
    .await;
    assert!(
        server
            .get("/livez")
            .is_some_and(|(status, _)| status == 200)
    );
    assert!(!query.is_finished());
    requests.send(batch("2")).await.expect("sent");
    let second = patiently(answers.message())
        .await
        .expect("an answer")
        .expect("one");
    assert_eq!(second.outcomes[0].outcome(), pb::Outcome::Applied);
    let answer = patiently(query)
        .await
        .expect("no panic")
        .expect("an answer");
    assert_eq!(answer.items[0].ats, (20 - 3) * 90 / 100);
    drop(requests);
    assert_eq!(patiently(answers.message()).await.expect("an end"), None);
    drop((client, movements));
    assert!(server.wait().success());

    server.restart();
    let answer = server.connect().await.ats("MUG", second.position).await;
    assert_eq!(answer.expect("an answer").items[0].ats, 15);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_do_not_end_are_cut_off() {
    let mut server = Setup::new().set("drain.grace_ms", 100).start();
    let client = server.connect().await;
    let (_requests, queue) = mpsc::channel::<pb::PostRequest>(1);
    let mut movements = client.movements();
    let stream =
        tokio::spawn(async move { movements.post_stream(ReceiverStream::new(queue)).await });
    client.status().await;
    server.stop();
    assert!(server.log().contains("cut off"), "it does not say so");
    stream.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reads_the_rules_file_again() {
    let mut server = Setup::new().rules(RULES).start();
    let client = server.connect().await;
    client.post(vec![received("1", "MUG", 103, "dc")]).await;
    assert_eq!(
        client.ats("MUG", 0).await.expect("an answer").items[0].ats,
        90
    );
    let first = rules_version(&client).await;

    let changed = RULES.replace("buffer = 3", "buffer = 53");
    fs::write(server.rules_file(), &changed).expect("written");
    server.signal("HUP");
    until("the new rules", async || {
        rules_version(&client).await > first
    })
    .await;
    let answer = client.ats("MUG", 0).await.expect("an answer");
    assert_eq!(answer.items[0].ats, 45);
    let second = answer.rules_version;
    let rules = client.rules().get(pb::GetRulesRequest::default()).await;
    let rules = rules.expect("rules").into_inner();
    assert_eq!(
        (rules.toml.as_str(), rules.version),
        (changed.as_str(), second)
    );

    // A broken file: the rules in force stay, and the log names the line.
    fs::write(server.rules_file(), "[channel.web]\nbuffr = 1\n").expect("written");
    server.signal("HUP");
    until("a complaint", async || {
        server.log().contains("the rules in force stay")
    })
    .await;
    assert!(
        server.log().contains("buffr"),
        "the log does not say what is wrong"
    );
    assert_eq!(rules_version(&client).await, second);
    assert_eq!(
        client.ats("MUG", 0).await.expect("an answer").items[0].ats,
        45
    );

    // And it does not take the file's owner another start to mend it.
    fs::write(server.rules_file(), RULES).expect("written");
    server.signal("HUP");
    until("the old rules again", async || {
        rules_version(&client).await > second
    })
    .await;
    assert_eq!(
        client.ats("MUG", 0).await.expect("an answer").items[0].ats,
        90
    );
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_well_formed_and_true() {
    let server = Setup::new().rules(RULES).start();
    let client = server.connect().await;
    let answer = client
        .post(vec![
            received("1", "MUG", 10, "dc"),
            received("2", "CUP", 10, "dc"),
            received("1", "MUG", 10, "dc"),
        ])
        .await;
    let conflict = received("1", "MUG", 11, "dc");
    let request = pb::PostRequest {
        movements: vec![conflict],
    };
    client.movements().post(request).await.expect("parked");
    let refunded = pb::movement::Kind::ReturnRefunded(pb::ReturnRefunded {
        r#return: "R-1".into(),
        line: "1".into(),
        ..pb::ReturnRefunded::default()
    });
    client
        .post(vec![server::movement("3", "MUG", 1, refunded)])
        .await;
    for (id, quantity) in [("W-1", 1), ("W-2", 99), ("W-1", 1)] {
        let request = pb::ReserveRequest {
            id: id.into(),
            channel: CHANNEL.into(),
            lines: vec![pb::ReserveLine {
                sku: "MUG".into(),
                quantity,
                ..pb::ReserveLine::default()
            }],
            ..pb::ReserveRequest::default()
        };
        client
            .reservations()
            .reserve(request)
            .await
            .expect("decided");
    }
    let release = |id: &str, lines| pb::ReleaseRequest {
        id: id.into(),
        reservation: "W-1".into(),
        lines,
    };
    let too_many = pb::ReleaseLine {
        line: "1".into(),
        quantity: 2,
    };
    let refused = release("X-1", vec![too_many]);
    let refused = client.reservations().release(refused).await;
    assert!(refused.is_err());
    let released = release("X-2", Vec::new());
    let released = client.reservations().release(released).await;
    released.expect("all that is left");
    let (status, head, body) = server.fetch("/metrics").expect("a page");
    assert_eq!(status, 200);
    assert!(
        head.to_ascii_lowercase()
            .contains("content-type: application/openmetrics-text")
    );
    let families = openmetrics::parse(&body);
    let names: BTreeSet<&str> = families.keys().map(String::as_str).collect();
    let documented = [
        "sellable_applied_position",
        "sellable_build",
        "sellable_cells",
        "sellable_cells_memory_bytes",
        "sellable_checkpoint_age_seconds",
        "sellable_checkpoint_duration_seconds",
        "sellable_checkpoint_position",
        "sellable_checkpoint_replay_records",
        "sellable_checkpoint_size_bytes",
        "sellable_checkpoints",
        "sellable_commands",
        "sellable_commands_waiting",
        "sellable_exceptions",
        "sellable_exceptions_oldest_age_seconds",
        "sellable_feed_dead_letters",
        "sellable_feed_delivered_after_seconds",
        "sellable_feed_delivery_failures",
        "sellable_feed_delivery_state",
        "sellable_feed_messages_delivered",
        "sellable_feed_numbers_conflated",
        "sellable_feed_numbers_delivered",
        "sellable_feed_numbers_published",
        "sellable_feed_numbers_waiting",
        "sellable_feed_published_after_seconds",
        "sellable_feed_shown_different",
        "sellable_feed_subscribers",
        "sellable_grpc_call_duration_seconds",
        "sellable_grpc_calls",
        "sellable_ids_memory_bytes",
        "sellable_ids_remembered",
        "sellable_locations",
        "sellable_log_time_age_seconds",
        "sellable_movements",
        "sellable_movements_waiting",
        "sellable_order_lines",
        "sellable_ready",
        "sellable_rules_version",
        "sellable_skus",
        "sellable_uptime_seconds",
        "sellable_writable",
    ];
    assert_eq!(names, BTreeSet::from(documented));
    let value = |family: &str, sample: &str| families[family].samples[sample];
    let moved = |outcome: &str| {
        value(
            "sellable_movements",
            &format!("sellable_movements_total{{outcome=\"{outcome}\"}}"),
        )
    };
    assert_eq!(
        (moved("applied"), moved("duplicate"), moved("parked")),
        (3.0, 1.0, 1.0)
    );
    let decided = |outcome: &str| {
        value(
            "sellable_commands",
            &format!("sellable_commands_total{{outcome=\"{outcome}\"}}"),
        )
    };
    let outcomes = [
        "granted",
        "short",
        "confirmed",
        "extended",
        "released",
        "refused",
        "duplicate",
    ];
    assert_eq!(
        outcomes.map(decided),
        [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        "{outcomes:?}"
    );
    assert_eq!(
        families["sellable_commands"].samples.len(),
        outcomes.len(),
        "one for each"
    );
    // Every kind is there from the beginning, so that a rule can be written before one opens.
    let open = [
        ("conflicting_duplicate", 1.0),
        ("refunded_beyond_received", 1.0),
    ];
    let kinds = [
        "malformed",
        "stale",
        "unauthorized_source",
        "unknown_disposition",
        "oversold",
        "negative_balance",
        "shipped_beyond_reserved",
        "transfer_received_beyond_shipped",
        "received_beyond_expected",
        "return_received_beyond_authorized",
        "inspected_beyond_received",
        "returned_beyond_shipped",
        "overdue_supply",
        "variance",
    ];
    let all: Vec<_> = open
        .into_iter()
        .chain(kinds.map(|kind| (kind, 0.0)))
        .collect();
    for family in [
        "sellable_exceptions",
        "sellable_exceptions_oldest_age_seconds",
    ] {
        assert_eq!(families[family].samples.len(), all.len());
        for (kind, count) in &all {
            let found = value(family, &format!("{family}{{kind=\"{kind}\"}}"));
            if family == "sellable_exceptions" {
                assert_eq!(found, *count, "{kind}");
            } else {
                // By the log's time, which has gone on since with other records.
                assert_eq!(found > 0.0, *count > 0.0, "{kind}");
            }
        }
    }
    let gauge = |name: &str| value(name, name);
    assert_eq!(gauge("sellable_ready"), 1.0);
    assert_eq!(gauge("sellable_writable"), 1.0);
    assert_eq!(gauge("sellable_skus"), 2.0);
    assert_eq!(gauge("sellable_cells"), 2.0);
    assert_eq!(
        gauge("sellable_applied_position"),
        (answer.position + 7) as f64
    );
    assert_eq!(gauge("sellable_commands_waiting"), 0.0);
    assert!(gauge("sellable_cells_memory_bytes") > 0.0);
    let posts = "{method=\"Movements/Post\",code=\"OK\"}";
    let posts = format!("sellable_grpc_calls_total{posts}");
    assert_eq!(value("sellable_grpc_calls", &posts), 3.0);
}

/// Writes a log that takes a while to read, without a server: `count` movements of 1,000 SKUs.
async fn long_log(server_dir: &tempfile::TempDir, count: u64) {
    let mut options = Options::new(server::data_dir(server_dir));
    options.fsync = FsyncPolicy::Os;
    let log = EmbeddedLog::open(options).expect("opens");
    for record in 0..count / 4_000 {
        let movements: Vec<Vec<u8>> = (0..4_000)
            .map(|number| {
                let number = record * 4_000 + number;
                let sku = format!("sku-{}", number % 1_000);
                received(&format!("m-{number}"), &sku, 1, "dc").encode_to_vec()
            })
            .collect();
        let record = encode_record(1, record + 1, movements.iter().map(Vec::as_slice));
        log.append(record).await.expect("stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_ready_once_caught_up_and_not_before() {
    const MOVEMENTS: u64 = 800_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    long_log(&dir, MOVEMENTS).await;
    let mut server: Server = Setup::new().rules(RULES).start_in(dir);
    let client = server.connect().await;
    // It answers that it lives, how far it is, and nothing that could be wrong.
    let (status, body) = server.get("/readyz").expect("an answer");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("catching up: position "), "{body}");
    assert!(
        server
            .get("/livez")
            .is_some_and(|(status, _)| status == 200)
    );
    let before = client.status().await;
    assert!(!before.ready);
    assert_eq!(before.log_position, MOVEMENTS / 4_000);
    assert!(before.applied_position < before.log_position);
    assert_eq!(health(&client, "").await, ServingStatus::NotServing);
    let refused = client.ats("sku-1", 0).await.expect_err("not yet");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("catching up"), "{refused}");
    assert!(
        openmetrics::parse(&server.get("/metrics").expect("a page").1)["sellable_ready"].samples["sellable_ready"]
            == 0.0
    );

    server.wait_until_ready();
    let after = client.status().await;
    assert!(after.ready);
    assert_eq!(after.movements_applied, MOVEMENTS);
    assert_eq!(health(&client, "").await, ServingStatus::Serving);
    let answer = client.ats("sku-1", 0).await.expect("an answer");
    assert_eq!(
        answer.items[0].ats,
        (MOVEMENTS as i64 / 1_000 - 3) * 90 / 100
    );
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_tell_of_every_service() {
    let server = Setup::new().start();
    let client = server.connect().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = ServerReflectionClient::new(client.channel.clone())
        .server_reflection_info(futures::stream::iter([request]))
        .await;
    let answers: Vec<_> = answers.expect("a stream").into_inner().collect().await;
    let answer = answers[0].as_ref().expect("an answer");
    let Some(MessageResponse::ListServicesResponse(list)) = &answer.message_response else {
        panic!("not a list: {answer:?}");
    };
    let names: Vec<&str> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for service in ["Availability", "Movements", "Operations", "Rules"] {
        let name = format!("sellable.v1.{service}");
        assert!(names.contains(&name.as_str()), "{names:?}");
        assert_eq!(health(&client, &name).await, ServingStatus::Serving);
    }
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    let request = HealthCheckRequest {
        service: "sellable.v1.Nothing".into(),
    };
    let unknown = HealthClient::new(client.channel.clone())
        .check(request)
        .await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wrote_through_one_instance_reads_it_through_another() {
    let nats = NatsServer::start();
    let setup = || Setup::new().nats(&nats.url()).rules(RULES);
    let (mut one, mut other) = (setup().start(), setup().shards(3).start());
    let (writer, reader) = (one.connect().await, other.connect().await);
    for number in 1..=200 {
        let posted = writer
            .post(vec![received(&number.to_string(), "MUG", 10, "dc")])
            .await;
        let read = reader.ats("MUG", posted.position).await.expect("an answer");
        assert!(read.position >= posted.position);
        assert_eq!(read.items[0].ats, (number * 10 - 3) * 90 / 100);
    }
    let position = writer.status().await.applied_position;
    let (one_digest, other_digest) = (writer.digest(position).await, reader.digest(position).await);
    assert_eq!(one_digest.digest, other_digest.digest);
    one.stop();
    other.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_does_not_come_is_said() {
    let setup = Setup::new().rules(RULES);
    let server = setup.set("query.min_position_wait_ms_max", 50).start();
    let client = server.connect().await;
    let posted = client.post(vec![received("1", "MUG", 10, "dc")]).await;
    // What is ready has its rules in force: they are the first record.
    assert_eq!(posted.position, 2);
    let error = client
        .ats("MUG", posted.position + 7)
        .await
        .expect_err("it is not there");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let at = format!("this instance is at {}", posted.position);
    assert!(error.message().contains(&at), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_changed_by_who_knows_those_in_force() {
    let server = Setup::new().start();
    let client = server.connect().await;
    client
        .post(vec![
            received("1", "MUG", 103, "dc"),
            received("2", "CUP", 4, "dc"),
            received("3", "BOWL", 2, "dc"),
        ])
        .await;
    let document = |toml: &str| pb::PutRulesRequest {
        toml: toml.into(),
        actor: "test".into(),
        ..pb::PutRulesRequest::default()
    };
    let expecting = |toml: &str, version| pb::PutRulesRequest {
        expected_version: Some(version),
        ..document(toml)
    };
    let first = put(&client, expecting(RULES, 0)).await.expect("put");
    assert!(first.changed && first.version > 0);
    let again = put(&client, document(RULES)).await.expect("the same");
    assert!(!again.changed);
    assert_eq!(again.version, first.version);

    let other = RULES.replace("buffer = 3", "buffer = 0");
    let late = put(&client, expecting(&other, 0))
        .await
        .expect_err("not the version in force");
    assert_eq!(late.code(), Code::Aborted);
    let wrong = put(&client, document("[channel.web]\nsources = [\"@none\"]\n")).await;
    let wrong = wrong.expect_err("no such group");
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().contains("line 2"), "{wrong}");

    // A dry run says what would change, and changes nothing.
    let dry_run = pb::PutRulesRequest {
        dry_run: true,
        ..document(&other)
    };
    let dry = put(&client, dry_run).await.expect("a dry run");
    assert_eq!(dry.version, 0);
    let change = |sku: &str, before, after| pb::SkuChange {
        sku: sku.into(),
        before,
        after,
    };
    // 103: 90, then 92. 4: 0, then 3. 2: 0, then 1.
    let changes = [pb::ChannelChange {
        channel: CHANNEL.into(),
        skus_changed: 3,
        skus_to_zero: 0,
        skus_from_zero: 2,
        skus_published: 3,
        units_before: 90,
        units_after: 96,
        largest: vec![
            change("CUP", 0, 3),
            change("MUG", 90, 92),
            change("BOWL", 0, 1),
        ],
    }];
    assert_eq!(dry.changes, changes);
    assert_eq!(rules_version(&client).await, first.version);
    assert_eq!(
        client.ats("MUG", 0).await.expect("an answer").items[0].ats,
        90
    );

    let second = put(&client, expecting(&other, first.version))
        .await
        .expect("put");
    assert!(second.version > first.version);
    assert_eq!(
        client.ats("MUG", 0).await.expect("an answer").items[0].ats,
        92
    );
    let before = pb::GetRulesRequest {
        version: first.version,
    };
    let before = client.rules().get(before).await.expect("kept").into_inner();
    assert_eq!(
        (before.toml.as_str(), before.actor.as_str()),
        (RULES, "test")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_adds_up() {
    let rules = "\
[groups]
dcs = [\"dc-b\", \"dc-a\"]
[channel.web]
sources = [\"@dcs\", \"store-*\"]
exclude = [\"store-9\"]
buffer = 2
buffer_percent = 25
share_percent = 70
minimum = 5
maximum = 60
[channel.web.override.\"MUG-*\"]
maximum = 40
[channel.web.override.\"MUG-RARE\"]
minimum = 1000
maximum = 1000
";
    let server = Setup::new().rules(rules).start();
    let client = server.connect().await;
    let mut movements = Vec::new();
    let stock = [
        ("dc-a", 40),
        ("dc-b", 7),
        ("store-1", 1),
        ("store-9", 90),
        ("kiosk", 5),
    ];
    for sku in ["MUG-BLUE", "MUG-RARE", "CUP"] {
        for (location, quantity) in stock {
            movements.push(received(
                &format!("{sku}-{location}"),
                sku,
                quantity,
                location,
            ));
        }
    }
    movements.push(server::movement(
        "r",
        "CUP",
        6,
        pb::movement::Kind::Reserved(pb::Reserved {
            order: "o".into(),
            line: "1".into(),
            location: "dc-a".into(),
            channel: CHANNEL.into(),
            expires_at: None,
        }),
    ));
    let min_position = client.post(movements).await.position;
    // By hand: of 40, 25 % are 10; of 7, 2 (the buffer and a quarter rounded up); of 1, 2.
    for (sku, sum, ats) in [
        ("MUG-BLUE", 35, 24),
        ("MUG-RARE", 35, 0),
        ("CUP", 29, 20),
        ("NONE", 0, 0),
    ] {
        let request = pb::ExplainRequest {
            channel: CHANNEL.into(),
            sku: sku.into(),
            min_position,
        };
        let told = client
            .availability()
            .explain(request)
            .await
            .expect("an explanation");
        let told = told.into_inner();
        assert_eq!((told.sum, told.ats), (sum, ats), "{told:?}");
        assert_eq!(recompute(&told), (told.sum, told.ats), "{told:?}");
        assert_eq!(
            told.ats,
            client.ats(sku, 0).await.expect("an answer").items[0].ats
        );
        assert_eq!(told.known, sku != "NONE");
        if told.known {
            let order: Vec<&str> = told.locations.iter().map(|l| l.location.as_str()).collect();
            assert_eq!(order, ["dc-b", "dc-a", "store-1", "kiosk", "store-9"]);
            assert!(!told.steps.is_empty());
            assert!(told.rules_version > 0 && told.position >= min_position);
        }
    }
}

/// The number again, from nothing but the terms.
fn recompute(told: &pb::ExplainResponse) -> (i64, i64) {
    let terms = told.terms.as_ref().expect("terms");
    let mut sum = 0;
    for location in &told.locations {
        let balances = location.balances.as_ref().expect("balances");
        let percent = balances.good.max(0) * i64::from(terms.buffer_percent);
        let withheld = terms.buffer.max((percent + 99) / 100);
        assert_eq!(location.buffer_withheld, withheld);
        assert_eq!(balances.free, balances.good - balances.reserved);
        let available = match location.sells {
            true => (balances.free - withheld).max(0),
            false => 0,
        };
        assert_eq!(location.available, available);
        sum += available;
    }
    let share = sum * i64::from(terms.share_percent) / 100;
    let ats = match share {
        _ if terms.paused || share < terms.minimum => 0,
        share => share.min(terms.maximum.unwrap_or(i64::MAX)),
    };
    (sum, ats)
}
