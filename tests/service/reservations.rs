//! Reservations through gRPC, against the real program: what is shown is granted, retries are
//! exact, refusals name what fell short, and time ends what was not confirmed.

use sellable::proto::v1 as pb;
use tonic::Code;

use crate::server::{self, Client, Setup, received};

const RULES: &str = "\
[channel.web]
sources = [\"dc\", \"store-*\"]

[channel.market]
sources = [\"dc\"]
buffer = 2
";

/// Four SKUs at a DC and two stores, over more shards than one.
async fn stocked(setup: Setup) -> (server::Server, Client) {
    let server = setup.rules(RULES).shards(3).start();
    let client = server.connect().await;
    let mut movements = Vec::new();
    for sku in ["A", "B", "C", "D"] {
        for (at, units) in [("dc", 10), ("store-1", 4), ("store-2", 6)] {
            movements.push(received(&format!("{sku}-{at}"), sku, units, at));
        }
    }
    client.post(movements).await;
    (server, client)
}

fn line(sku: &str, quantity: i64, location: &str) -> pb::ReserveLine {
    pb::ReserveLine {
        sku: sku.into(),
        quantity,
        location: location.into(),
        ..pb::ReserveLine::default()
    }
}

fn reserve(id: &str, lines: Vec<pb::ReserveLine>) -> pb::ReserveRequest {
    pb::ReserveRequest {
        id: id.into(),
        channel: "web".into(),
        lines,
        ..pb::ReserveRequest::default()
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

impl Client {
    async fn reserve(&self, request: pb::ReserveRequest) -> pb::ReserveResponse {
        let answer = self.reservations().reserve(request).await;
        answer.expect("an answer").into_inner()
    }

    /// `sku line location:units …` of what is granted, or `SKU asked/available reason …`.
    async fn reserved(&self, request: pb::ReserveRequest) -> String {
        told(&self.reserve(request).await)
    }

    async fn get(&self, id: &str) -> pb::Reservation {
        let request = pb::GetReservationRequest {
            id: id.into(),
            min_position: 0,
        };
        let answer = self.reservations().get(request).await;
        answer.expect("it is known").into_inner()
    }

    async fn ats_of(&self, channel: &str, sku: &str) -> i64 {
        let request = pb::GetRequest {
            channel: channel.into(),
            skus: vec![sku.into()],
            ..pb::GetRequest::default()
        };
        let answer = self.availability().get(request).await.expect("an answer");
        answer.into_inner().items[0].ats
    }

    async fn confirm(&self, id: &str, reservation: &str) -> Result<(), Code> {
        let request = pb::ConfirmRequest {
            id: id.into(),
            reservation: reservation.into(),
        };
        let answer = self.reservations().confirm(request).await;
        answer.map(drop).map_err(|status| status.code())
    }

    async fn release(
        &self,
        id: &str,
        reservation: &str,
        lines: &[(&str, i64)],
    ) -> Result<Vec<String>, tonic::Status> {
        let line = |(line, quantity): &(&str, i64)| pb::ReleaseLine {
            line: (*line).into(),
            quantity: *quantity,
        };
        let request = pb::ReleaseRequest {
            id: id.into(),
            reservation: reservation.into(),
            lines: lines.iter().map(line).collect(),
        };
        let answer = self.reservations().release(request).await?.into_inner();
        Ok(answer.released.iter().map(allocation).collect())
    }
}

fn allocation(allocation: &pb::Allocation) -> String {
    let pb::Allocation {
        line,
        sku,
        location,
        quantity,
    } = allocation;
    format!("{line}:{sku}@{location}:{quantity}")
}

fn told(answer: &pb::ReserveResponse) -> String {
    let short = |short: &pb::ShortLine| {
        let pb::ShortLine {
            line,
            sku,
            requested,
            available,
            ..
        } = short;
        format!("{line}:{sku} {requested}>{available} {:?}", short.reason())
    };
    if answer.granted {
        assert!(answer.short_lines.is_empty());
        let allocations: Vec<String> = answer.allocations.iter().map(allocation).collect();
        allocations.join(" ")
    } else {
        assert!(answer.allocations.is_empty());
        let lines: Vec<String> = answer.short_lines.iter().map(short).collect();
        format!("short {}", lines.join(", "))
    }
}

#[tokio::test]
async fn what_is_shown_is_granted_and_no_more() {
    let (_server, client) = stocked(Setup::new()).await;
    assert_eq!(client.ats_of("web", "A").await, 20);
    let table = [
        // By priority: the DC first.
        ("r1", vec![line("A", 9, "")], "1:A@dc:9"),
        ("r2", vec![line("A", 4, "")], "1:A@store-1:4"),
        ("r3", vec![line("A", 7, "")], "short 1:A 7>6 OnlySplit"),
        ("r4", vec![line("A", 8, "")], "short 1:A 8>6 Insufficient"),
        ("r5", vec![line("A", 2, "dc")], "short 1:A 2>1 Insufficient"),
        ("r6", vec![line("A", 1, "dc")], "1:A@dc:1"),
        (
            "r7",
            vec![line("A", 1, "moon")],
            "short 1:A 1>0 NotSoldFromLocation",
        ),
        ("r8", vec![line("Z", 1, "")], "short 1:Z 1>0 UnknownSku"),
        // All or nothing, over several shards; the same SKU twice counts as taken.
        (
            "r9",
            vec![
                line("B", 10, "dc"),
                line("C", 10, "dc"),
                line("B", 1, "dc"),
                line("D", 11, "dc"),
            ],
            "short 3:B 1>0 Insufficient, 4:D 11>10 Insufficient",
        ),
        (
            "r10",
            vec![
                line("B", 10, "dc"),
                line("C", 10, "dc"),
                line("B", 1, ""),
                line("D", 1, "store-2"),
            ],
            "1:B@dc:10 2:C@dc:10 3:B@store-1:1 4:D@store-2:1",
        ),
    ];
    for (id, lines, expected) in table {
        assert_eq!(client.reserved(reserve(id, lines)).await, expected, "{id}");
    }
    let ats = [
        client.ats_of("web", "A").await,
        client.ats_of("web", "B").await,
        client.ats_of("web", "C").await,
        client.ats_of("web", "D").await,
    ];
    assert_eq!(ats, [6, 9, 10, 19]);
    // A split over all that is left, and the buffer of another channel.
    let split = pb::ReserveRequest {
        allow_split: true,
        ..reserve("r11", vec![line("D", 19, "")])
    };
    let split = client.reserved(split).await;
    assert_eq!(split, "1:D@dc:10 1:D@store-1:4 1:D@store-2:5");
    assert_eq!(client.ats_of("web", "D").await, 0);
    client.post(vec![received("E", "E", 10, "dc")]).await;
    let market = |id: &str, units| pb::ReserveRequest {
        channel: "market".into(),
        ..reserve(id, vec![line("E", units, "")])
    };
    assert_eq!(client.ats_of("market", "E").await, 8);
    let too_many = client.reserved(market("m1", 9)).await;
    assert_eq!(too_many, "short 1:E 9>8 Insufficient");
    assert_eq!(client.reserved(market("m2", 8)).await, "1:E@dc:8");
    assert_eq!(client.ats_of("web", "E").await, 2);
    client.digest(0).await;
}

#[tokio::test]
async fn retries_are_exact_and_survive_a_kill() {
    let (mut server, client) = stocked(Setup::new()).await;
    let first = client.reserve(reserve("r1", vec![line("A", 15, "")])).await;
    assert!(!first.granted && !first.duplicate);
    let granted = client.reserve(reserve("r2", vec![line("A", 5, "")])).await;
    assert!(granted.granted);
    // Now there would be enough, and the answer is still what was decided.
    client.post(vec![received("more", "A", 50, "dc")]).await;
    let again = |answer: &pb::ReserveResponse| pb::ReserveResponse {
        duplicate: true,
        ..answer.clone()
    };
    let repeat = client.reserve(reserve("r1", vec![line("A", 15, "")])).await;
    assert_eq!(repeat, again(&first));
    client
        .release("x1", "r2", &[("1", 2)])
        .await
        .expect("there are five");
    server.kill();
    server.restart();
    let client = server.connect().await;
    let repeat = client.reserve(reserve("r2", vec![line("A", 5, "")])).await;
    assert_eq!(repeat, again(&granted));
    let repeat = client.release("x1", "r2", &[("1", 2)]).await;
    assert_eq!(repeat.expect("known"), ["1:A@dc:2"]);
    let claims = client.get("r2").await.lines[0].claims.clone();
    assert_eq!(
        claims.iter().map(allocation).collect::<Vec<_>>(),
        ["1:A@dc:3"]
    );
    // The same id for something else is an error, whichever command it was.
    let other = reserve("r2", vec![line("A", 6, "")]);
    let taken = client.reservations().reserve(other).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert_eq!(client.confirm("x1", "r2").await, Err(Code::AlreadyExists));
}

#[tokio::test]
async fn a_reservation_is_confirmed_extended_released_and_looked_at() {
    let (_server, client) = stocked(Setup::new()).await;
    let request = pb::ReserveRequest {
        time_to_live: seconds(3_600),
        ..reserve("r1", vec![line("A", 5, ""), line("B", 3, "")])
    };
    let granted = client.reserve(request).await;
    assert!(granted.granted && granted.expires_at.is_some());
    let found = client.get("r1").await;
    assert_eq!(found.state(), pb::ReservationState::Active);
    assert_eq!(found.expires_at, granted.expires_at);
    let extend = |id: &str, reservation: &str| pb::ExtendRequest {
        id: id.into(),
        reservation: reservation.into(),
        time_to_live: seconds(7_200),
    };
    let extended = client.reservations().extend(extend("e1", "r1")).await;
    let extended = extended.expect("it lives").into_inner();
    let later = |at: &Option<prost_types::Timestamp>| at.as_ref().map_or(0, |at| at.seconds);
    assert!(later(&extended.expires_at) >= later(&granted.expires_at) + 3_500);

    assert_eq!(client.confirm("c1", "r1").await, Ok(()));
    assert_eq!(client.confirm("c1", "r1").await, Ok(()));
    assert_eq!(client.confirm("c2", "nobody").await, Err(Code::NotFound));
    let late = client
        .reservations()
        .extend(extend("e2", "r1"))
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "{late}");
    let found = client.get("r1").await;
    assert_eq!(found.state(), pb::ReservationState::Confirmed);
    assert_eq!(found.expires_at, None);

    let too_many = client
        .release("x1", "r1", &[("1", 5), ("2", 4)])
        .await
        .unwrap_err();
    assert_eq!(too_many.code(), Code::FailedPrecondition);
    assert!(
        too_many.message().contains("line \"2\" has 3 units left"),
        "{too_many}"
    );
    assert_eq!(client.ats_of("web", "A").await, 15, "nothing was released");
    let no_line = client.release("x2", "r1", &[("7", 1)]).await.unwrap_err();
    assert_eq!(no_line.code(), Code::NotFound);
    let part = client
        .release("x3", "r1", &[("1", 2)])
        .await
        .expect("there are five");
    assert_eq!(part, ["1:A@dc:2"]);

    // What the OMS reports is about the same lines.
    let shipped = pb::movement::Kind::Shipped(pb::Shipped {
        order: "r1".into(),
        line: "2".into(),
        location: "dc".into(),
    });
    client
        .post(vec![server::movement("s1", "B", 3, shipped)])
        .await;
    let found = client.get("r1").await;
    let lines: Vec<_> = found
        .lines
        .iter()
        .map(|line| {
            (
                line.sku.as_str(),
                line.reserved,
                line.released,
                line.shipped,
            )
        })
        .collect();
    assert_eq!(lines, [("A", 5, 2, 0), ("B", 3, 0, 3)]);
    let rest = client
        .release("x4", "r1", &[])
        .await
        .expect("all that is left");
    assert_eq!(rest, ["1:A@dc:3"]);
    assert_eq!(client.get("r1").await.state(), pb::ReservationState::Closed);
    assert_eq!(client.ats_of("web", "A").await, 20);

    client.reserve(reserve("r2", vec![line("A", 99, "")])).await;
    let refused = client.get("r2").await;
    assert_eq!(refused.state(), pb::ReservationState::Refused);
    assert_eq!(refused.short_lines[0].available, 10);
    assert_eq!(
        client.confirm("c3", "r2").await,
        Err(Code::FailedPrecondition)
    );
    assert_eq!(client.get("r1").await.lines[0].claims, []);
}

#[tokio::test]
async fn time_ends_what_was_not_confirmed_also_while_nothing_happens() {
    let (_server, client) = stocked(Setup::new()).await;
    for (id, time_to_live) in [("r1", seconds(1)), ("r2", seconds(1)), ("r3", None)] {
        let request = pb::ReserveRequest {
            time_to_live,
            ..reserve(
                id,
                vec![line("A", 3, "dc"), line("B", 3, "dc"), line("C", 1, "")],
            )
        };
        assert!(client.reserve(request).await.granted);
    }
    assert_eq!(client.confirm("c2", "r2").await, Ok(()));
    assert_eq!(client.ats_of("web", "A").await, 11);
    // Nothing is written but a tick.
    server::patiently(async {
        while client.ats_of("web", "A").await != 14 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(client.ats_of("web", "B").await, 14);
    assert_eq!(
        client.get("r1").await.state(),
        pb::ReservationState::Expired
    );
    assert_eq!(
        client.get("r2").await.state(),
        pb::ReservationState::Confirmed
    );
    assert_eq!(client.get("r3").await.state(), pb::ReservationState::Active);
    assert_eq!(
        client.confirm("c1", "r1").await,
        Err(Code::FailedPrecondition)
    );
    assert_eq!(
        client
            .release("x1", "r1", &[])
            .await
            .expect("nothing is left"),
        [""; 0]
    );
    client.digest(0).await;
}

#[tokio::test]
async fn bad_requests_name_the_field() {
    let (_server, client) = stocked(Setup::new()).await;
    let mut bad = vec![
        (reserve("", vec![line("A", 1, "")]), "id"),
        (reserve("r", vec![]), "lines"),
        (
            reserve("r", vec![line("A", 1, ""), line("", 1, "")]),
            "lines[1].sku",
        ),
        (reserve("r", vec![line("A", 0, "")]), "lines[0].quantity"),
        (reserve("r", vec![line("A", 1, ""); 101]), "lines"),
    ];
    bad.push((
        pb::ReserveRequest {
            time_to_live: seconds(0),
            ..reserve("r", vec![line("A", 1, "")])
        },
        "time_to_live",
    ));
    for (request, field) in bad {
        let status = client.reservations().reserve(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(
            status.message().starts_with(&format!("{field}: ")),
            "{status}"
        );
    }
    let nowhere = pb::ReserveRequest {
        channel: "nowhere".into(),
        ..reserve("r", vec![line("A", 1, "")])
    };
    let status = client.reservations().reserve(nowhere).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(status.message().contains("market, web"), "{status}");
}
