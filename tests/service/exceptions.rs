//! Exceptions through gRPC, against the real program: each kind appears and closes by itself or by
//! a person's decision, and the list tells all of it.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::Message;
use sellable::proto::v1::{self as pb, Disposition, ExceptionKind as Kind, Resolution};
use tonic::Code;

use crate::{
    bad::{says, violations},
    facts::{ageless, fact, facts, of_kinds, resolving},
    server::{Client, Server, Setup, patiently},
};

const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";

async fn start(shards: usize) -> (Server, Client) {
    let server = Setup::new().rules(RULES).shards(shards).start();
    let client = server.connect().await;
    (server, client)
}

async fn restarted(server: &mut Server) -> Client {
    server.kill();
    server.restart();
    server.connect().await
}

/// Facts that do not fit, what is told of it, and the fact that was missing.
struct Case {
    kind: Kind,
    opens: &'static [&'static str],
    /// SKU, location, document, line.
    about: [&'static str; 4],
    units: i64,
    reason: &'static str,
    closes: &'static str,
}

const CASES: [Case; 10] = [
    Case {
        kind: Kind::Oversold,
        opens: &[
            "received a1 A 2 location=dc",
            "reserved a2 A 5 order=W-1 line=1 location=dc channel=web",
        ],
        about: ["A", "dc", "", ""],
        units: 3,
        reason: "3 more units of A are reserved at dc than are good there",
        closes: "released a3 A 3 order=W-1 line=1",
    },
    Case {
        kind: Kind::NegativeBalance,
        opens: &["issued b1 B 4 location=dc condition=damaged reason=scrap"],
        about: ["B", "dc", "", ""],
        units: 4,
        reason: "more units of B left damaged at dc than came in, by 4",
        closes: "received b2 B 4 location=dc condition=damaged",
    },
    Case {
        kind: Kind::ShippedBeyondReserved,
        opens: &[
            "received c1 C 9 location=dc",
            "shipped c2 C 2 order=W-3 line=7 location=dc",
        ],
        about: ["C", "", "W-3", "7"],
        units: 2,
        reason: "2 units of C were shipped for order W-3, line 7, beyond what was reserved",
        closes: "reserved c3 C 2 order=W-3 line=7 location=dc channel=web",
    },
    Case {
        kind: Kind::TransferReceivedBeyondShipped,
        opens: &[
            "received d0 D 9 location=dc",
            "transfer_received d1 D 3 transfer=T-4 line=1 location=store-1",
        ],
        about: ["D", "", "T-4", "1"],
        units: 3,
        reason: "3 units of D arrived of transfer T-4, line 1, beyond what was shipped",
        closes: "transfer_shipped d2 D 3 transfer=T-4 line=1 from=dc to=store-1",
    },
    Case {
        kind: Kind::ReceivedBeyondExpected,
        opens: &[
            "inbound_expected e1 E 3 inbound=PO-5 line=1 location=dc",
            "received e2 E 5 inbound=PO-5 line=1 location=dc",
        ],
        about: ["E", "", "PO-5", "1"],
        units: 2,
        reason: "2 units of E arrived of inbound delivery PO-5, line 1, beyond what was expected",
        closes: "inbound_expected e3 E 2 inbound=PO-5 line=1 location=dc",
    },
    Case {
        kind: Kind::ReturnReceivedBeyondAuthorized,
        opens: &["return_received f1 F 1 return=R-6 line=1 location=dc"],
        about: ["F", "", "R-6", "1"],
        units: 1,
        reason: "1 units of F came back of return R-6, line 1, beyond what was authorized",
        closes: "return_authorized f2 F 1 return=R-6 line=1 location=dc",
    },
    Case {
        kind: Kind::InspectedBeyondReceived,
        opens: &["return_inspected g1 G 2 return=R-7 line=1 location=dc disposition=restock"],
        about: ["G", "dc", "R-7", "1"],
        units: 2,
        reason: "2 units of G were inspected at dc for return R-7, line 1, beyond",
        closes: "return_received g2 G 2 return=R-7 line=1 location=dc",
    },
    Case {
        kind: Kind::RefundedBeyondReceived,
        opens: &["return_refunded h1 H 2 return=R-8 line=1"],
        about: ["H", "", "R-8", "1"],
        units: 2,
        reason: "2 units of H were refunded for return R-8, line 1, beyond what was received",
        closes: "return_received h2 H 2 return=R-8 line=1 location=dc",
    },
    Case {
        kind: Kind::ReturnedBeyondShipped,
        opens: &[
            "received i0 I 5 location=dc",
            "reserved i1 I 1 order=W-9 line=2 location=dc channel=web",
            "shipped i2 I 1 order=W-9 line=2 location=dc",
            "return_authorized i3 I 1 return=R-9 line=1 location=dc order=W-9 order_line=2",
            "return_authorized i4 I 1 return=R-10 line=1 location=dc order=W-9 order_line=2",
        ],
        about: ["I", "", "W-9", "2"],
        units: 1,
        reason: "returns name order W-9, line 2, with 1 more units of I than were shipped",
        closes: "return_cancelled i5 I 1 return=R-9 line=1",
    },
    Case {
        kind: Kind::OverdueSupply,
        opens: &[
            "inbound_expected j1 J 6 inbound=PO-11 line=1 location=dc eta=2026-01-06T12:00:00Z",
        ],
        about: ["J", "", "PO-11", "1"],
        units: 6,
        reason: "6 units of J of inbound delivery PO-11, line 1, are overdue",
        closes: "inbound_cancelled j2 J 6 inbound=PO-11 line=1",
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_opens_and_closes_when_the_missing_fact_arrives() {
    let (mut server, client) = start(3).await;
    for case in &CASES {
        client.post(facts(case.opens)).await;
        let open = client.exceptions(of_kinds(&[case.kind])).await;
        let [found] = &open[..] else {
            panic!("{:?}: {open:?}", case.kind);
        };
        assert_eq!(found.kind(), case.kind);
        let about = [&found.sku, &found.location, &found.document, &found.line];
        assert_eq!(about, case.about, "{found:?}");
        assert_eq!(found.units, case.units);
        says(&found.reason, &[case.reason]);
        assert_eq!(found.exception_id.len(), 32);
        assert!(found.age_ms >= 0 && found.acknowledgement.is_none());
        // Nothing of a parked movement.
        assert_eq!((found.position, found.occurrences), (0, 0));
        assert!(found.original.is_empty() && found.source.is_empty() && found.id.is_empty());
    }
    let open = ageless(client.open().await);
    // Some facts contradict in more than one way; at least each kind is there.
    let kinds: BTreeSet<i32> = open.iter().map(|found| found.kind).collect();
    assert_eq!(kinds.len(), CASES.len());
    let client_before = client.digest(0).await.digest;
    let client = restarted(&mut server).await;
    assert_eq!(ageless(client.open().await), open);
    assert_eq!(client.digest(0).await.digest, client_before);

    for case in &CASES {
        client.post(facts(&[case.closes])).await;
        let open = client.exceptions(of_kinds(&[case.kind])).await;
        assert!(
            open.iter().all(|found| found.sku != case.about[0]),
            "{:?}: {open:?}",
            case.kind
        );
    }
    // What the missing facts brought with them: receipts nobody authorized.
    let rest = client.open().await;
    let rest: BTreeSet<(Kind, &str)> = rest.iter().map(|e| (e.kind(), &*e.sku)).collect();
    let unauthorized = Kind::ReturnReceivedBeyondAuthorized;
    assert_eq!(rest, [(unauthorized, "G"), (unauthorized, "H")].into());
    client
        .post(facts(&[
            "return_authorized g3 G 2 return=R-7 line=1 location=dc",
            "return_authorized h3 H 2 return=R-8 line=1 location=dc",
        ]))
        .await;
    assert_eq!(client.open().await, []);
    client.digest(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supply_gets_overdue_while_nothing_happens() {
    let (_server, client) = start(1).await;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    let soon = jiff::Timestamp::from_second(now.as_secs() as i64 + 2).expect("a time");
    let expected = format!("inbound_expected a1 A 6 inbound=PO line=1 location=dc eta={soon}");
    client.post(vec![fact(&expected)]).await;
    // Nothing is written but a tick.
    let overdue = patiently(async {
        loop {
            match client.open().await.pop() {
                Some(overdue) => break overdue,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    assert_eq!((overdue.kind(), overdue.units), (Kind::OverdueSupply, 6));
    let seen = overdue.first_seen.expect("a time");
    assert_eq!(seen.seconds, soon.as_second(), "when it was due");
    client
        .post(facts(&["received a2 A 6 inbound=PO line=1 location=dc"]))
        .await;
    assert_eq!(client.open().await, []);
}

/// Exceptions of five kinds, about several places and sources, from several records.
async fn many(client: &Client) -> usize {
    client
        .post(
            (0..40)
                .map(|n| {
                    fact(&format!(
                        "received k{n} K 1 location=dc source=till-{}",
                        n % 2
                    ))
                })
                .collect(),
        )
        .await;
    let mut count = 0;
    for record in 0..10 {
        let mut movements = Vec::new();
        for n in 0..4 {
            let (n, at) = (record * 4 + n, n % 3);
            // Three functions of the state, and two parked movements.
            movements.push(fact(&format!(
                "reserved o{n} O{n} 1 order=W-{n} line=1 location=store-{at} channel=web"
            )));
            movements.push(fact(&format!(
                "return_refunded r{n} R{n} 1 return=R-{n} line=1"
            )));
            movements.push(fact(&format!(
                "received k{n} K 2 location=dc source=till-{}",
                n % 2
            )));
            movements.push(fact(&format!(
                "return_received p{n} P{n} 1 return=P-{n} line=1 location=store-{at}"
            )));
            let mut inspected = fact(&format!(
                "return_inspected i{n} P{n} 1 return=P-{n} line=1 location=store-{at} disposition=scrap source=returns"
            ));
            without_disposition(&mut inspected);
            movements.push(inspected);
        }
        count += movements.len();
        let request = pb::PostRequest { movements };
        client.movements().post(request).await.expect("posted");
    }
    count
}

fn without_disposition(movement: &mut pb::Movement) {
    match &mut movement.kind {
        Some(pb::movement::Kind::ReturnInspected(inspected)) => inspected.disposition = 0,
        other => panic!("no inspection: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_told_page_by_page_and_by_filters() {
    let (_server, client) = start(3).await;
    let count = many(&client).await;
    let all = ageless(client.open().await);
    assert_eq!(all.len(), count);
    let parked = all.iter().filter(|found| found.occurrences > 0).count();
    assert_eq!(parked, count * 2 / 5);

    for found in all.iter().step_by(7) {
        let seen = client.decide(Resolution::Acknowledge, found).await;
        seen.expect("it is open");
    }
    let all = ageless(client.open().await);
    let request = pb::ListExceptionsRequest::default;
    let store = |name: &str| pb::ListExceptionsRequest {
        location: name.into(),
        ..request()
    };
    let state = [Kind::Oversold, Kind::RefundedBeyondReceived];
    let both = [
        Kind::ConflictingDuplicate,
        Kind::ReturnReceivedBeyondAuthorized,
    ];
    let is = |found: &pb::Exception, kinds: &[Kind]| kinds.contains(&found.kind());
    type Takes<'t> = Box<dyn Fn(&pb::Exception) -> bool + 't>;
    let filters: Vec<(pb::ListExceptionsRequest, Takes<'_>)> = vec![
        (request(), Box::new(|_| true)),
        (of_kinds(&state), Box::new(|e| is(e, &state))),
        (of_kinds(&both), Box::new(|e| is(e, &both))),
        (
            pb::ListExceptionsRequest {
                sku: "P7".into(),
                ..request()
            },
            Box::new(|e| e.sku == "P7"),
        ),
        (store("store-1"), Box::new(|e| e.location == "store-1")),
        (
            pb::ListExceptionsRequest {
                source: "till-1".into(),
                ..request()
            },
            Box::new(|e| e.source == "till-1"),
        ),
        (
            pb::ListExceptionsRequest {
                unacknowledged_only: true,
                ..request()
            },
            Box::new(|e| e.acknowledgement.is_none()),
        ),
        (
            pb::ListExceptionsRequest {
                location: "store-2".into(),
                unacknowledged_only: true,
                ..of_kinds(&state)
            },
            Box::new(|e| {
                e.kind() == Kind::Oversold && e.location == "store-2" && e.acknowledgement.is_none()
            }),
        ),
        (
            pb::ListExceptionsRequest {
                source: "returns".into(),
                unacknowledged_only: true,
                ..of_kinds(&[Kind::UnknownDisposition])
            },
            Box::new(|e| e.source == "returns" && e.acknowledgement.is_none()),
        ),
        // State has no source, and nothing is about a SKU that does not exist.
        (
            pb::ListExceptionsRequest {
                source: "returns".into(),
                ..of_kinds(&state)
            },
            Box::new(|_| false),
        ),
    ];
    for (number, (filter, takes)) in filters.iter().enumerate() {
        let wanted: Vec<_> = all.iter().filter(|found| takes(found)).cloned().collect();
        assert_eq!(wanted.is_empty(), number + 1 == filters.len(), "{filter:?}");
        for page_size in [1, 3, 7, 0, 1_000] {
            let filter = pb::ListExceptionsRequest {
                page_size,
                ..filter.clone()
            };
            let found = ageless(client.exceptions(filter.clone()).await);
            assert_eq!(found, wanted, "{filter:?}");
        }
    }
    let total = |request| async {
        let list = client.operations().list_exceptions(request).await;
        list.expect("a list").into_inner().total as usize
    };
    assert_eq!(total(request()).await, count);
    assert_eq!(total(of_kinds(&both)).await, count * 2 / 5);
    // Of the kinds asked for, whatever the other filters.
    assert_eq!(total(store("nowhere")).await, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_name_the_field() {
    let (_server, client) = start(1).await;
    let request = pb::ListExceptionsRequest::default;
    let lists = [
        (
            "page_size",
            pb::ListExceptionsRequest {
                page_size: 1_001,
                ..request()
            },
        ),
        (
            "page_token",
            pb::ListExceptionsRequest {
                page_token: "x".into(),
                ..request()
            },
        ),
        (
            "kinds[1]",
            pb::ListExceptionsRequest {
                kinds: vec![16, 99],
                ..request()
            },
        ),
        (
            "kinds[0]",
            pb::ListExceptionsRequest {
                kinds: vec![0],
                ..request()
            },
        ),
    ];
    for (field, request) in lists {
        let status = client.operations().list_exceptions(request).await;
        let status = status.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(violations(&status)[0].0, field);
    }
    client
        .post(facts(&["return_refunded a1 A 1 return=R line=1"]))
        .await;
    let open = client.open().await.remove(0);
    let resolve = || resolving(Resolution::Acknowledge, &open);
    let decisions = [
        (
            "exception_id",
            pb::ResolveRequest {
                exception_id: "a1".repeat(20),
                ..resolve()
            },
        ),
        (
            "exception_id",
            pb::ResolveRequest {
                exception_id: String::new(),
                ..resolve()
            },
        ),
        (
            "resolution",
            pb::ResolveRequest {
                resolution: 0,
                ..resolve()
            },
        ),
        (
            "resolution",
            pb::ResolveRequest {
                resolution: 9,
                ..resolve()
            },
        ),
        (
            "actor",
            pb::ResolveRequest {
                actor: "k".repeat(129),
                ..resolve()
            },
        ),
        (
            "note",
            pb::ResolveRequest {
                note: "n".repeat(513),
                ..resolve()
            },
        ),
    ];
    let position = client.status().await.applied_position;
    for (field, request) in decisions {
        let status = client.resolve(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(violations(&status)[0].0, field);
    }
    let unknown = pb::ResolveRequest {
        exception_id: "ab".repeat(16),
        ..resolve()
    };
    let status = client.resolve(unknown).await.expect_err("there is none");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    // None of this is in the log.
    assert_eq!(client.status().await.applied_position, position);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_seen_one_is_shown_until_it_closes() {
    let (mut server, client) = start(3).await;
    client
        .post(facts(&[
            "received a0 A 2 location=dc",
            "issued a1 A 5 location=dc reason=sale",
        ]))
        .await;
    client
        .park(
            "issued a1 A 6 location=dc reason=sale",
            Kind::ConflictingDuplicate,
        )
        .await;
    let all = client.open().await;
    assert_eq!(
        all.len(),
        3,
        "oversold, a negative balance and a conflict: {all:?}"
    );
    for found in &all {
        let seen = client.decide(Resolution::Acknowledge, found).await;
        seen.expect("it is open");
    }
    let client = restarted(&mut server).await;
    let mut seen = client.open().await;
    for (found, before) in seen.iter_mut().zip(&all) {
        let told = found.acknowledgement.take().expect("it was seen");
        assert_eq!((&*told.actor, &*told.note), ("kim", "looked at it"));
        let micros = |at: &Option<prost_types::Timestamp>| {
            let at = at.as_ref().expect("a time");
            (at.seconds, at.nanos)
        };
        assert!(micros(&told.at) > micros(&before.first_seen));
    }
    assert_eq!(ageless(seen), ageless(all.clone()));
    // The last word counts, and it stays while the units change.
    let again = pb::ResolveRequest {
        actor: "sam".into(),
        note: "counted".into(),
        ..resolving(Resolution::Acknowledge, &all[0])
    };
    client.resolve(again).await.expect("it is open");
    client.post(facts(&["received a2 A 1 location=dc"])).await;
    let found = client.open().await.remove(0);
    assert_eq!(found.units, 2);
    let told = found.acknowledgement.expect("it was seen");
    assert_eq!((&*told.actor, &*told.note), ("sam", "counted"));

    // What closes and opens again is another matter.
    client.post(facts(&["received a3 A 2 location=dc"])).await;
    let gone = client.decide(Resolution::Acknowledge, &all[0]).await;
    assert_eq!(gone, Err(Code::NotFound));
    client
        .post(facts(&["issued a4 A 1 location=dc reason=sale"]))
        .await;
    let open = client
        .exceptions(of_kinds(&[Kind::Oversold, Kind::NegativeBalance]))
        .await;
    assert_eq!(open.len(), 2);
    assert!(open.iter().all(|found| found.acknowledgement.is_none()));
    let discarded = client
        .decide(Resolution::Discard, &client.parked("a1").await)
        .await;
    discarded.expect("it is open");
    assert_eq!(client.open().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_released_so_that_both_count_or_discarded() {
    let (mut server, client) = start(3).await;
    client
        .post(facts(&[
            "received a1 A 10 location=dc",
            "received b1 B 10 location=dc",
        ]))
        .await;
    client
        .park("received a1 A 5 location=dc", Kind::ConflictingDuplicate)
        .await;
    client
        .park("received b1 B 5 location=dc", Kind::ConflictingDuplicate)
        .await;
    client
        .park("received b1 B 5 location=dc", Kind::ConflictingDuplicate)
        .await;
    let (a, b) = (client.parked("a1").await, client.parked("b1").await);
    assert_eq!((a.occurrences, b.occurrences), (1, 2));
    assert_eq!(
        (&*a.source, &*a.content_type),
        ("wms", "application/protobuf")
    );
    let original = pb::Movement::decode(&*a.original).expect("a movement");
    assert_eq!(original, fact("received a1 A 5 location=dc"));
    assert!(a.position > 0 && a.units == 0);

    client.decide(Resolution::Release, &a).await.expect("open");
    client.decide(Resolution::Discard, &b).await.expect("open");
    assert_eq!((client.web("A").await, client.web("B").await), (15, 10));
    for (exception, resolution) in [
        (&a, Resolution::Release),
        (&a, Resolution::Discard),
        (&b, Resolution::Release),
        (&b, Resolution::Discard),
        (&b, Resolution::Acknowledge),
    ] {
        let again = client.decide(resolution, exception).await;
        assert_eq!(again, Err(Code::NotFound));
    }
    // What was decided stays decided, however often the source sends it.
    client
        .park("received a1 A 5 location=dc", Kind::ConflictingDuplicate)
        .await;
    client
        .park("received b1 B 5 location=dc", Kind::ConflictingDuplicate)
        .await;
    assert_eq!(client.open().await, []);
    assert_eq!((client.web("A").await, client.web("B").await), (15, 10));
    let digest = client.digest(0).await.digest;
    let client = restarted(&mut server).await;
    assert_eq!(client.digest(0).await.digest, digest);
    assert_eq!(client.open().await, []);
    assert_eq!((client.web("A").await, client.web("B").await), (15, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exception_of_the_state_is_neither_released_nor_discarded() {
    let (_server, client) = start(2).await;
    for case in &CASES {
        client.post(facts(case.opens)).await;
    }
    let open = client.open().await;
    let kinds: BTreeSet<i32> = open.iter().map(|found| found.kind).collect();
    assert_eq!(kinds.len(), CASES.len());
    for found in &open {
        for resolution in [Resolution::Release, Resolution::Discard] {
            let status = client.resolve(resolving(resolution, found)).await;
            let status = status.expect_err("it is a function of the state");
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            says(status.message(), &["closes by itself", "acknowledge it"]);
        }
    }
    assert_eq!(ageless(client.open().await), ageless(open));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inspection_is_released_with_a_disposition() {
    let (mut server, client) = start(3).await;
    let inspection = |id: &str, sku: &str| {
        let text = "2 return=R line=1 location=dc disposition=restock";
        fact(&format!("return_inspected {id} {sku} {text}"))
    };
    for (id, sku) in [("a1", "A"), ("b1", "B"), ("c1", "C"), ("d1", "D")] {
        client
            .post(vec![
                fact(&format!(
                    "return_authorized {sku}-0 {sku} 2 return=R line=1 location=dc"
                )),
                fact(&format!(
                    "return_received {sku}-1 {sku} 2 return=R line=1 location=dc"
                )),
            ])
            .await;
        let mut movement = inspection(id, sku);
        without_disposition(&mut movement);
        // One that this version does not know is the same as none.
        if let Some(pb::movement::Kind::ReturnInspected(inspected)) = &mut movement.kind
            && id == "b1"
        {
            inspected.disposition = 77;
        }
        let outcome = client.outcome_of(movement).await;
        assert_eq!(outcome.parked_as(), Kind::UnknownDisposition, "{outcome:?}");
        says(&outcome.reason, &["release it with one"]);
    }
    let parked = |id: &'static str| client.parked(id);
    let without = client
        .decide(Resolution::Release, &parked("a1").await)
        .await;
    assert_eq!(without, Err(Code::FailedPrecondition));
    assert_eq!(client.web("A").await, 0);
    for (id, disposition) in [("a1", Disposition::Restock), ("b1", Disposition::Scrap)] {
        let exception = parked(id).await;
        let released = client.release_with(disposition, &exception).await;
        released.expect("it has one now");
        let again = client.release_with(disposition, &exception).await;
        assert_eq!(again, Err(Code::NotFound));
    }
    assert_eq!((client.web("A").await, client.web("B").await), (2, 0));
    // The source sends it again, complete: it does not count twice, nor does another disposition.
    let repeat = client.outcome_of(inspection("a1", "A")).await;
    assert!(repeat.duplicate && repeat.outcome() == pb::Outcome::Applied);
    let other = client.outcome_of(inspection("b1", "B")).await;
    assert_eq!(other.parked_as(), Kind::ConflictingDuplicate);
    // The source was faster than the person: with the same disposition, and with another.
    client
        .post(vec![inspection("c1", "C"), inspection("d1", "D")])
        .await;
    let same = client
        .release_with(Disposition::Restock, &parked("c1").await)
        .await;
    same.expect("there is nothing more to do");
    let exception = parked("d1").await;
    let differs = client.release_with(Disposition::Scrap, &exception).await;
    assert_eq!(differs, Err(Code::FailedPrecondition));
    let discarded = client.decide(Resolution::Discard, &exception).await;
    discarded.expect("it is open");
    let sold = [
        client.web("A").await,
        client.web("B").await,
        client.web("C").await,
        client.web("D").await,
    ];
    assert_eq!(sold, [2, 0, 2, 2]);
    let open = client.open().await;
    assert_eq!(
        open.iter().map(|found| &*found.id).collect::<Vec<_>>(),
        ["b1"]
    );
    let digest = client.digest(0).await.digest;
    let client = restarted(&mut server).await;
    assert_eq!(client.digest(0).await.digest, digest);
    assert_eq!(ageless(client.open().await), ageless(open));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_unauthorized_counts_once_however_it_is_mended() {
    let (mut server, client) = start(2).await;
    let put = |toml: &str| {
        let request = pb::PutRulesRequest {
            toml: toml.into(),
            ..pb::PutRulesRequest::default()
        };
        let mut rules = client.rules();
        async move { rules.put_authority(request).await.expect("in force") }
    };
    put("[source.wms]\nmay = [\"received\"]\nlocations = [\"dc\"]\n").await;
    let at_store = |id: &str| format!("received {id} A 1 location=store-1");
    for id in ["a1", "a2", "a3", "a4"] {
        client.park(&at_store(id), Kind::UnauthorizedSource).await;
    }
    let exceptions = client
        .exceptions(of_kinds(&[Kind::UnauthorizedSource]))
        .await;
    says(
        &exceptions[0].reason,
        &[
            "lets `wms` post `received`, but not for the location `store-1`",
            "release it",
        ],
    );
    let parked = |id: &'static str| client.parked(id);
    let (a1, a2, a3) = (parked("a1").await, parked("a2").await, parked("a3").await);
    // Released, though the source still may not.
    client.decide(Resolution::Release, &a1).await.expect("open");
    let repeat = client.outcome_of(fact(&at_store("a1"))).await;
    assert!(
        repeat.duplicate && repeat.outcome() == pb::Outcome::Applied,
        "{repeat:?}"
    );
    assert_eq!(client.web("A").await, 1);

    put("[source.wms]\nmay = [\"received\"]\n").await;
    // What was parked stays so until the source sends it again, or a person decides.
    assert_eq!(client.open().await.len(), 3);
    client
        .post(vec![fact(&at_store("a2")), fact(&at_store("a3"))])
        .await;
    assert_eq!(client.web("A").await, 3);
    client.decide(Resolution::Release, &a2).await.expect("open");
    client.decide(Resolution::Discard, &a3).await.expect("open");
    assert_eq!(
        client.web("A").await,
        3,
        "neither counts twice, nor is taken back"
    );
    // The id was used for something else meanwhile.
    client.post(facts(&["received a4 A 7 location=dc"])).await;
    let a4 = parked("a4").await;
    let status = client.resolve(resolving(Resolution::Release, &a4)).await;
    let status = status.expect_err("which of them is right?");
    assert_eq!(status.code(), Code::FailedPrecondition);
    says(
        status.message(),
        &["applied with other content", "discard it"],
    );
    client.decide(Resolution::Discard, &a4).await.expect("open");
    assert_eq!(client.web("A").await, 10);
    let digest = client.digest(0).await.digest;
    let client = restarted(&mut server).await;
    assert_eq!(client.digest(0).await.digest, digest);
    assert_eq!((client.web("A").await, client.open().await.len()), (10, 0));
}
