//! Bad input over gRPC, against the real program: each refusal names the field and the reason,
//! and what is good beside it is taken.

use prost::Message;
use sellable::{limits, proto::v1 as pb};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use pb::movement::Kind;

use crate::{
    bad::{call_raw, delimited, post_raw, says, varint, violations},
    server::{CHANNEL, Client, Server, Setup, movement, patiently, received},
};

const ALL_RULES: &str = "[channel.web]\nsources = [\"*\"]\n";

async fn start() -> (Server, Client) {
    let server = Setup::new().rules(ALL_RULES).start();
    let client = server.connect().await;
    (server, client)
}

/// Units of the SKU that every good movement is about.
async fn units(client: &Client, position: u64) -> i64 {
    let answer = patiently(client.ats("GOOD", position)).await;
    answer.expect("an answer").items[0].ats
}

fn good(id: &str) -> pb::Movement {
    received(id, "GOOD", 1, "dc")
}

/// A movement that is good but for what `spoil` does to it.
fn spoilt(spoil: impl FnOnce(&mut pb::Movement)) -> pb::Movement {
    let mut movement = received("spoilt", "GOOD", 1_000, "dc");
    spoil(&mut movement);
    movement
}

fn of_kind(kind: Kind) -> pb::Movement {
    movement("spoilt", "GOOD", 1_000, kind)
}

fn at(seconds: i64, nanos: i32) -> pb::Movement {
    spoilt(|m| m.occurred_at = Some(prost_types::Timestamp { seconds, nanos }))
}

fn quantity(quantity: i64) -> pb::Movement {
    spoilt(|m| m.quantity = quantity)
}

fn adjusted(quantity: i64, reason: &str) -> pb::Movement {
    let kind = Kind::Adjusted(pb::Adjusted {
        location: "dc".into(),
        condition: 0,
        reason: reason.into(),
    });
    movement("spoilt", "GOOD", quantity, kind)
}

fn in_condition(condition: i32) -> pb::Movement {
    of_kind(Kind::Received(pb::Received {
        location: "dc".into(),
        condition,
        ..pb::Received::default()
    }))
}

fn issued(reason: i32) -> pb::Movement {
    of_kind(Kind::Issued(pb::Issued {
        location: "dc".into(),
        condition: 0,
        reason,
    }))
}

fn reclassified(from: i32, to: i32) -> pb::Movement {
    of_kind(Kind::Reclassified(pb::Reclassified {
        location: "dc".into(),
        from,
        to,
    }))
}

fn reserved(order: &str, line: &str, location: &str, channel: &str) -> pb::Movement {
    of_kind(Kind::Reserved(pb::Reserved {
        order: order.into(),
        line: line.into(),
        location: location.into(),
        channel: channel.into(),
        expires_at: None,
    }))
}

fn shipped(order: &str, line: &str, location: &str) -> pb::Movement {
    of_kind(Kind::Shipped(pb::Shipped {
        order: order.into(),
        line: line.into(),
        location: location.into(),
    }))
}

fn reassigned(from: &str, to: &str) -> pb::Movement {
    of_kind(Kind::Reassigned(pb::Reassigned {
        order: "o".into(),
        line: "1".into(),
        from: from.into(),
        to: to.into(),
    }))
}

/// Every limit of the contract, broken once: the field and a part of the reason.
fn bad_movements() -> Vec<Bad> {
    let long = |bytes: usize| "x".repeat(bytes);
    vec![
        ("id", "is empty; it is required", spoilt(|m| m.id.clear())),
        (
            "id",
            "has 129 bytes; at most 128",
            spoilt(|m| m.id = long(129)),
        ),
        (
            "id",
            "control character",
            spoilt(|m| m.id = "a\u{0}b".into()),
        ),
        (
            "id",
            "control character",
            spoilt(|m| m.id = "a\u{85}b".into()),
        ),
        ("id", "white space", spoilt(|m| m.id = " a".into())),
        (
            "source",
            "is empty; it is required",
            spoilt(|m| m.source.clear()),
        ),
        (
            "source",
            "has 65 bytes; at most 64",
            spoilt(|m| m.source = long(65)),
        ),
        (
            "source",
            "only A-Z a-z 0-9 _ and -",
            spoilt(|m| m.source = "a.b".into()),
        ),
        (
            "source",
            "only A-Z a-z 0-9 _ and -",
            spoilt(|m| m.source = "ü".into()),
        ),
        (
            "occurred_at",
            "is missing; it is required",
            spoilt(|m| m.occurred_at = None),
        ),
        (
            "occurred_at",
            "outside the years 1970 to 9999",
            at(253_402_300_800, 0),
        ),
        (
            "occurred_at",
            "outside the years 1970 to 9999",
            at(i64::MAX, 0),
        ),
        (
            "occurred_at",
            "outside the years 1970 to 9999",
            at(i64::MIN, 0),
        ),
        ("occurred_at", "outside the years 1970 to 9999", at(-1, 0)),
        (
            "occurred_at",
            "nanos; 0 to 999999999",
            at(1_700_000_000, 1_000_000_000),
        ),
        (
            "occurred_at",
            "nanos; 0 to 999999999",
            at(1_700_000_000, -1),
        ),
        (
            "occurred_at",
            "ahead of the log's time; at most 300 s",
            at(253_402_300_799, 0),
        ),
        ("sku", "is empty; it is required", spoilt(|m| m.sku.clear())),
        (
            "sku",
            "has 101 bytes; at most 100",
            spoilt(|m| m.sku = long(101)),
        ),
        ("quantity", "is 0; a movement moves something", quantity(0)),
        (
            "quantity",
            "is -1; only `adjusted` may be negative",
            quantity(-1),
        ),
        (
            "quantity",
            "at most 1000000000 units",
            quantity(1_000_000_001),
        ),
        ("quantity", "at most 1000000000 units", quantity(i64::MAX)),
        ("quantity", "at most 1000000000 units", quantity(i64::MIN)),
        (
            "quantity",
            "is 0; a movement moves something",
            adjusted(0, "r"),
        ),
        (
            "quantity",
            "at most 1000000000 units",
            adjusted(-1_000_000_001, "r"),
        ),
        (
            "adjusted.reason",
            "is empty; it is required",
            adjusted(-1, ""),
        ),
        (
            "adjusted.reason",
            "has 65 bytes; at most 64",
            adjusted(-1, &long(65)),
        ),
        (
            "correlation_id",
            "at most 128",
            spoilt(|m| m.correlation_id = long(129)),
        ),
        (
            "reference",
            "at most 256",
            spoilt(|m| m.reference = long(257)),
        ),
        ("actor", "at most 128", spoilt(|m| m.actor = long(129))),
        (
            "kind",
            "is missing, or newer than this version knows",
            spoilt(|m| m.kind = None),
        ),
        (
            "received.condition",
            "which this version does not know",
            in_condition(99),
        ),
        (
            "received.condition",
            "which this version does not know",
            in_condition(-1),
        ),
        (
            "received.location",
            "is empty",
            of_kind(Kind::Received(pb::Received::default())),
        ),
        ("issued.reason", "is missing; it is required", issued(0)),
        (
            "issued.reason",
            "which this version does not know",
            issued(77),
        ),
        (
            "reclassified.from",
            "is missing; it is required",
            reclassified(0, 1),
        ),
        (
            "reclassified.to",
            "which this version does not know",
            reclassified(1, 9),
        ),
        (
            "reclassified.to",
            "is the same as `from`",
            reclassified(2, 2),
        ),
        ("reserved.order", "is empty", reserved("", "1", "dc", "web")),
        (
            "reserved.order",
            "at most 128",
            reserved(&long(129), "1", "dc", "web"),
        ),
        (
            "reserved.line",
            "at most 64",
            reserved("o", &long(65), "dc", "web"),
        ),
        (
            "reserved.location",
            "is empty",
            reserved("o", "1", "", "web"),
        ),
        ("reserved.channel", "is empty", reserved("o", "1", "dc", "")),
        ("shipped.line", "is empty", shipped("o", "", "dc")),
        (
            "shipped.location",
            "at most 64",
            shipped("o", "1", &long(65)),
        ),
        (
            "reassigned.to",
            "is the same as `from`",
            reassigned("a", "a"),
        ),
        ("reassigned.from", "is empty", reassigned("", "a")),
    ]
    .into_iter()
    .chain(bad_supply())
    .chain(bad_returns())
    .collect()
}

type Bad = (&'static str, &'static str, pb::Movement);

const NO_TIME: prost_types::Timestamp = prost_types::Timestamp {
    seconds: 0,
    nanos: -1,
};

fn bad_supply() -> [Bad; 8] {
    let inbound = |inbound: &str, line: &str| {
        of_kind(Kind::Received(pb::Received {
            location: "dc".into(),
            inbound: inbound.into(),
            line: line.into(),
            ..pb::Received::default()
        }))
    };
    let expected = |location: &str, eta| {
        of_kind(Kind::InboundExpected(pb::InboundExpected {
            inbound: "po".into(),
            line: "1".into(),
            location: location.into(),
            eta,
        }))
    };
    let dispatched = |to: &str, eta| {
        of_kind(Kind::TransferShipped(pb::TransferShipped {
            transfer: "t".into(),
            line: "1".into(),
            from: "dc".into(),
            to: to.into(),
            eta,
        }))
    };
    let expires = pb::Reserved {
        expires_at: Some(NO_TIME),
        ..pb::Reserved::default()
    };
    [
        ("received.line", "is empty", inbound("po", "")),
        ("received.inbound", "is empty", inbound("", "1")),
        (
            "reserved.expires_at",
            "has -1 nanos",
            of_kind(Kind::Reserved(expires)),
        ),
        ("inbound_expected.location", "is empty", expected("", None)),
        (
            "inbound_expected.eta",
            "has -1 nanos",
            expected("dc", Some(NO_TIME)),
        ),
        (
            "transfer_shipped.to",
            "is the same as `from`",
            dispatched("dc", None),
        ),
        (
            "transfer_shipped.eta",
            "has -1 nanos",
            dispatched("shop", Some(NO_TIME)),
        ),
        (
            "transfer_closed.transfer",
            "is empty",
            of_kind(Kind::TransferClosed(pb::TransferClosed::default())),
        ),
    ]
}

fn bad_returns() -> [Bad; 7] {
    let authorized = |order: &str, order_line: &str| {
        of_kind(Kind::ReturnAuthorized(pb::ReturnAuthorized {
            r#return: "r".into(),
            line: "1".into(),
            location: "dc".into(),
            order: order.into(),
            order_line: order_line.into(),
        }))
    };
    let inspected = pb::ReturnInspected {
        r#return: "r".into(),
        line: "1".into(),
        ..pb::ReturnInspected::default()
    };
    let refunded = |amount, currency: &str| {
        of_kind(Kind::ReturnRefunded(pb::ReturnRefunded {
            r#return: "r".into(),
            line: "1".into(),
            amount,
            currency: currency.into(),
        }))
    };
    [
        (
            "return_authorized.order_line",
            "is empty",
            authorized("o", ""),
        ),
        ("return_authorized.order", "is empty", authorized("", "1")),
        (
            "return_inspected.location",
            "is empty",
            of_kind(Kind::ReturnInspected(inspected)),
        ),
        (
            "return_cancelled.return",
            "is empty",
            of_kind(Kind::ReturnCancelled(pb::ReturnCancelled::default())),
        ),
        ("return_refunded.amount", "is -1", refunded(-1, "EUR")),
        (
            "return_refunded.currency",
            "an amount needs one",
            refunded(1, ""),
        ),
        (
            "return_refunded.currency",
            "three capital letters",
            refunded(1, "eur"),
        ),
    ]
}

#[tokio::test]
async fn bad_movements_among_good_ones_are_refused_one_by_one() {
    let (_server, client) = start().await;
    let table = bad_movements();
    let mut movements = vec![good("first")];
    for (number, (_, _, bad)) in table.iter().enumerate() {
        movements.push(bad.clone());
        movements.push(good(&number.to_string()));
    }
    let goods = table.len() as i64 + 1;
    let request = pb::PostRequest { movements };
    let answer = patiently(client.movements().post(request.clone())).await;
    let answer = answer.expect("answered").into_inner();
    assert_eq!(answer.outcomes.len(), 2 * table.len() + 1);
    for (index, outcome) in answer.outcomes.iter().enumerate() {
        if index % 2 == 0 {
            assert_eq!(
                outcome.outcome(),
                pb::Outcome::Applied,
                "{index} {outcome:?}"
            );
            continue;
        }
        let (field, reason, bad) = &table[index / 2];
        assert_eq!(outcome.outcome(), pb::Outcome::Invalid, "{bad:?}");
        assert_eq!(outcome.field, *field, "{bad:?} {outcome:?}");
        says(&outcome.reason, &[reason]);
    }
    assert_eq!(units(&client, answer.position).await, goods);
    // Posting again is safe, and gives the same outcomes.
    let again = patiently(client.movements().post(request)).await;
    let again = again.expect("answered").into_inner();
    for (first, second) in answer.outcomes.iter().zip(&again.outcomes) {
        assert_eq!(first.outcome, second.outcome);
        assert_eq!(first.reason, second.reason);
        assert_eq!(second.duplicate, first.outcome() == pb::Outcome::Applied);
    }
    assert_eq!(units(&client, again.position).await, goods);
    // Refused at the door means: not in the log, and no exception.
    let listed = list(&client, pb::ListExceptionsRequest::default()).await;
    assert_eq!(listed.expect("listed").total, 0);
}

#[tokio::test]
async fn a_batch_of_nothing_but_bad_movements_is_not_stored() {
    let (_server, client) = start().await;
    let before = client.status().await.log_position;
    let request = pb::PostRequest {
        movements: vec![quantity(0), quantity(-5)],
    };
    let answer = client.movements().post(request).await.expect("answered");
    let answer = answer.into_inner();
    assert_eq!(answer.position, 0);
    assert!(
        answer
            .outcomes
            .iter()
            .all(|o| o.outcome() == pb::Outcome::Invalid)
    );
    assert_eq!(client.status().await.log_position, before);
}

/// Encoded movements that no encoder of the contract would make; the field, and a part of the
/// reason. An empty field: it could not be told what of it is wrong.
fn bad_bytes() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let good = received("spoilt", "GOOD", 1_000, "dc");
    let plus = |extra: Vec<u8>| [good.encode_to_vec(), extra].concat();
    let without_kind = || spoilt(|m| m.kind = None).encode_to_vec();
    let encoded = good.encode_to_vec();
    vec![
        ("", "more than 64 bits", vec![0xff; 64]),
        ("", "no field number and wire type", vec![0x07; 64]),
        (
            "",
            "no field number and wire type",
            b"not protobuf\0at all".to_vec(),
        ),
        (
            "",
            "reaches past the end",
            encoded[..encoded.len() - 1].to_vec(),
        ),
        (
            "",
            "reaches past the end",
            plus(vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        ("", "ends within a number", plus(vec![0x28, 0x80])),
        (
            "",
            "more than 64 bits",
            plus([vec![0x28], vec![0xff; 11]].concat()),
        ),
        ("", "another wire type", plus(varint(1, 5))),
        ("", "another wire type", plus(varint(20, 5))),
        ("", "a group that it did not start", plus(vec![0xa4, 0x06])),
        ("", "nested too deep", plus([0xa3, 0x06].repeat(200))),
        ("id", "is not UTF-8", plus(delimited(1, b"\xff\xfe"))),
        ("sku", "is not UTF-8", plus(delimited(4, b"caf\xe9"))),
        (
            "received.location",
            "is not UTF-8",
            plus(delimited(20, &delimited(1, b"\xc3"))),
        ),
        ("occurred_at", "is missing", Vec::new()),
        // A kind of a later version.
        (
            "kind",
            "newer than this version knows",
            [without_kind(), delimited(29, b"x")].concat(),
        ),
        // Number 5 twice: the last counts.
        ("quantity", "is 0", plus(varint(5, 0))),
        (
            "received.condition",
            "is 5,",
            plus(delimited(20, &varint(2, 5))),
        ),
    ]
}

#[tokio::test]
async fn bytes_that_are_no_movement_do_not_hold_up_their_neighbours() {
    let (_server, client) = start().await;
    let table = bad_bytes();
    let mut movements = Vec::new();
    for (number, (_, _, bad)) in table.iter().enumerate() {
        movements.push(bad.clone());
        movements.push(good(&number.to_string()).encode_to_vec());
    }
    let answer = patiently(post_raw(&client.channel, movements)).await;
    let answer = answer.expect("answered");
    for (outcomes, (field, reason, bad)) in answer.outcomes.chunks(2).zip(&table) {
        assert_eq!(outcomes[0].outcome(), pb::Outcome::Invalid, "{bad:?}");
        assert_eq!(outcomes[0].field, *field, "{bad:?}");
        says(&outcomes[0].reason, &[reason]);
        if field.is_empty() {
            says(&outcomes[0].reason, &["sellable.v1.Movement"]);
        }
        assert_eq!(outcomes[1].outcome(), pb::Outcome::Applied, "{outcomes:?}");
    }
    assert_eq!(units(&client, answer.position).await, table.len() as i64);
}

#[tokio::test]
async fn unknown_fields_are_accepted() {
    let (_server, client) = start().await;
    let unknown = [
        varint(100, 7),
        delimited(101, b"from the future"),
        // A group, which old protobuf has: started, with a number in it, and ended.
        vec![0xb3, 0x06, 0x08, 0x01, 0xb4, 0x06],
    ]
    .concat();
    let in_movement = [good("a").encode_to_vec(), unknown.clone()].concat();
    let in_kind = [good("b").encode_to_vec(), delimited(20, &unknown)].concat();
    let answer = patiently(post_raw(&client.channel, vec![in_movement, in_kind])).await;
    let answer = answer.expect("answered");
    for outcome in &answer.outcomes {
        assert_eq!(outcome.outcome(), pb::Outcome::Applied, "{outcome:?}");
    }
    assert_eq!(units(&client, answer.position).await, 2);
    let in_request = [
        pb::GetRequest {
            channel: CHANNEL.into(),
            skus: vec!["GOOD".into()],
            ..pb::GetRequest::default()
        }
        .encode_to_vec(),
        unknown,
    ]
    .concat();
    let path = "/sellable.v1.Availability/Get";
    let answer = call_raw(&client.channel, path, in_request).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// Makes a movement as long as this with a field that the contract does not have.
fn padded(id: &str, bytes: usize) -> Vec<u8> {
    let encoded = good(id).encode_to_vec();
    let padding = vec![7; bytes - encoded.len() - 12];
    [encoded, delimited(1_000, &padding)].concat()
}

#[tokio::test]
async fn a_movement_that_fits_no_record_is_refused_alone() {
    let (_server, client) = start().await;
    let movements = vec![
        good("a").encode_to_vec(),
        padded("large", limits::RECORD_BYTES_MAX + 1),
        good("b").encode_to_vec(),
    ];
    let answer = patiently(post_raw(&client.channel, movements)).await;
    let answer = answer.expect("answered");
    let outcomes: Vec<_> = answer
        .outcomes
        .iter()
        .map(pb::MovementOutcome::outcome)
        .collect();
    use pb::Outcome::{Applied, Invalid};
    assert_eq!(outcomes, [Applied, Invalid, Applied], "{answer:?}");
    says(&answer.outcomes[1].reason, &["bytes; at most"]);
    assert_eq!(units(&client, answer.position).await, 2);
}

#[tokio::test]
async fn a_batch_that_just_fills_a_record_is_stored() {
    let (_server, client) = start().await;
    let mut applied = 0;
    // Around the place where the record's own header no longer fits.
    for spare in [0, 5, 20, 32, 33, 34, 60] {
        let each = (limits::RECORD_BYTES_MAX - spare) / 9 - 4;
        let movements = (0..9).map(|n| padded(&format!("{spare}-{n}"), each));
        let answer = patiently(post_raw(&client.channel, movements.collect())).await;
        let answer = answer.unwrap_or_else(|status| panic!("with {spare} spare: {status}"));
        applied += answer.outcomes.len() as i64;
        assert_eq!(units(&client, answer.position).await, applied);
    }
}

#[tokio::test]
async fn the_size_of_a_batch_has_its_limits() {
    let (_server, client) = start().await;
    let post = |count: usize| {
        let movements = (0..count).map(|n| good(&n.to_string())).collect();
        let client = client.clone();
        async move { client.movements().post(pb::PostRequest { movements }).await }
    };
    for (count, reason) in [
        (0, "has 0 movements; 1 to 1000 in one batch"),
        (1_001, "has 1001 movements; 1 to 1000 in one batch"),
    ] {
        let status = post(count).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(violations(&status), [("movements".into(), reason.into())]);
    }
    assert!(post(1_000).await.is_ok());
}

#[tokio::test]
async fn an_error_ends_a_stream_after_the_answers_before_it() {
    let (_server, client) = start().await;
    let batch = |movements| pb::PostRequest { movements };
    let requests = vec![
        batch(vec![good("a")]),
        batch(vec![quantity(0), good("b")]),
        batch(Vec::new()),
        batch(vec![good("c")]),
    ];
    let answers = client
        .movements()
        .post_stream(tokio_stream::iter(requests))
        .await;
    let mut answers = answers.expect("a stream").into_inner();
    let mut next = async || patiently(answers.message()).await;
    let first = next().await.expect("answered").expect("an answer");
    assert_eq!(first.outcomes[0].outcome(), pb::Outcome::Applied);
    let second = next().await.expect("answered").expect("an answer");
    assert_eq!(second.outcomes[0].field, "quantity");
    assert_eq!(second.outcomes[1].outcome(), pb::Outcome::Applied);
    let status = next().await.expect_err("an empty batch");
    assert_eq!(violations(&status)[0].0, "movements");
}

/// The HTTP/2 library ends a connection on which too many small frames wait to be read.
#[tokio::test]
async fn a_flood_of_small_batches_on_one_stream_is_taken() {
    const BATCHES: usize = 10_000;
    let (_server, client) = start().await;
    let batches = (0..BATCHES).map(|n| pb::PostRequest {
        movements: vec![good(&format!("flood-{n}"))],
    });
    // Each is a frame of its own, as of a caller who makes them one by one.
    let batches = tokio_stream::iter(batches).then(async |batch| {
        tokio::task::yield_now().await;
        batch
    });
    let answers = client.movements().post_stream(batches).await;
    let mut answers = answers.expect("a stream").into_inner();
    for n in 0..BATCHES {
        let answer = patiently(answers.message()).await;
        let answer = answer.expect("the stream goes on").expect("an answer");
        assert_eq!(answer.outcomes[0].outcome(), pb::Outcome::Applied, "{n}");
    }
}

#[tokio::test]
async fn a_message_above_the_limit_and_a_broken_one_are_refused() {
    let server = Setup::new()
        .rules(ALL_RULES)
        .set("grpc.message_bytes_max", 1 << 16)
        .start();
    let client = server.connect().await;
    let large = vec![padded("large", (1 << 16) + 100)];
    let status = post_raw(&client.channel, large).await.expect_err("refused");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    says(status.message(), &["too large", "65536 bytes"]);
    for path in [
        "/sellable.v1.Movements/Post",
        "/sellable.v1.Availability/Get",
        "/sellable.v1.Rules/Put",
        "/sellable.v1.Operations/ListExceptions",
    ] {
        let answer = call_raw(&client.channel, path, vec![0x0a, 0xff, 0x01]).await;
        let status = answer.expect_err("refused");
        assert_eq!(status.code(), Code::Internal, "{path} {status:?}");
        says(status.message(), &["failed to decode Protobuf message"]);
    }
    // Also where only a text of it is wrong.
    let get = [delimited(1, b"web"), delimited(2, b"\xff")].concat();
    let answer = call_raw(&client.channel, "/sellable.v1.Availability/Get", get).await;
    says(answer.expect_err("refused").message(), &["skus", "UTF-8"]);
    let unknown = call_raw(&client.channel, "/sellable.v1.Nothing/Get", Vec::new()).await;
    assert_eq!(unknown.expect_err("refused").code(), Code::Unimplemented);
    // After all that it still serves.
    let answer = client.post(vec![good("a")]).await;
    assert_eq!(units(&client, answer.position).await, 1);
}

async fn list(
    client: &Client,
    request: pb::ListExceptionsRequest,
) -> Result<pb::ListExceptionsResponse, Status> {
    let answer = patiently(client.operations().list_exceptions(request)).await;
    answer.map(tonic::Response::into_inner)
}
