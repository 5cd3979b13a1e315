//! `Watch` of a running server: the state first, then what changes; resumed, conflated, and bounded for
//! those who do not read.

use std::collections::BTreeMap;

use sellable::proto::v1::{self as pb, availability_update::Kind, feeds_client::FeedsClient};
use tonic::{Code, Streaming};

use crate::server::{self, CHANNEL, Client, Server, Setup, patiently, received};

/// Sells everything, so that a number is what was received.
const OPEN: &str = "[channel.web]\nsources = [\"*\"]\n";

/// What a receiver knows.
#[derive(Debug, Default)]
struct Receiver {
    units: BTreeMap<String, i64>,
    position: u64,
    as_of: u64,
    log: String,
    updates: usize,
    numbers: usize,
}

impl Receiver {
    /// Takes an update, and makes sure that it may come here.
    fn take(&mut self, update: pb::AvailabilityUpdate) {
        assert!(
            update.kind() == Kind::State || update.after_position <= self.position,
            "a gap: {update:?} after {}",
            self.position
        );
        assert!(update.as_of_position >= self.as_of, "numbers went back");
        assert!(update.kind() != Kind::Heartbeat || update.numbers.is_empty());
        let before = self.units.len();
        let mut skus: Vec<&str> = update.numbers.iter().map(|own| &*own.sku).collect();
        skus.sort_unstable();
        assert!(skus.is_sorted_by(|a, b| a < b), "a SKU is there twice");
        for own in &update.numbers {
            self.units.insert(own.sku.clone(), own.units);
        }
        assert!(self.units.len() >= before);
        self.updates += 1;
        self.numbers += update.numbers.len();
        self.as_of = update.as_of_position;
        if update.position > 0 {
            self.position = update.position;
        }
        self.log = update.log;
    }

    /// Takes updates until everything up to a position is there.
    async fn until(&mut self, updates: &mut Streaming<pb::AvailabilityUpdate>, position: u64) {
        patiently(async {
            while self.position < position {
                let update = updates.message().await.expect("it goes on");
                self.take(update.expect("it does not end"));
            }
        })
        .await;
    }

    /// Takes updates until a SKU has a number.
    async fn until_units(
        &mut self,
        updates: &mut Streaming<pb::AvailabilityUpdate>,
        sku: &str,
        units: i64,
    ) {
        patiently(async {
            while self.units.get(sku) != Some(&units) {
                let update = updates.message().await.expect("it goes on");
                self.take(update.expect("it does not end"));
            }
        })
        .await;
    }
}

async fn feeds(server: &Server) -> FeedsClient<tonic::transport::Channel> {
    let url = server.url();
    let client = FeedsClient::connect(url).await.expect("it answers");
    client.max_decoding_message_size(64 << 20)
}

fn request() -> pb::WatchRequest {
    pb::WatchRequest {
        channel: CHANNEL.into(),
        ..pb::WatchRequest::default()
    }
}

async fn watch(server: &Server, request: pb::WatchRequest) -> Streaming<pb::AvailabilityUpdate> {
    let answer = feeds(server).await.watch(request).await;
    answer.expect("it can be watched").into_inner()
}

/// Posts receipts, each of another id.
async fn receive(client: &Client, id: &str, what: &[(&str, i64)]) -> u64 {
    let movements = what
        .iter()
        .enumerate()
        .map(|(n, (sku, units))| received(&format!("{id}-{n}"), sku, *units, "dc"));
    client.post(movements.collect()).await.position
}

fn status(feeds: &pb::ListFeedsResponse) -> &pb::FeedStatus {
    let mut all = feeds.feeds.iter();
    all.find(|feed| feed.channel == CHANNEL)
        .expect("it is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_comes_first_and_then_what_changes() {
    let server = Setup::new().shards(2).rules(OPEN).start();
    let client = server.connect().await;
    receive(&client, "1", &[("A", 5), ("B", 7), ("C", 9)]).await;
    let mut updates = watch(&server, request()).await;
    let mut receiver = Receiver::default();
    let first = updates.message().await.expect("ok").expect("an update");
    assert_eq!(first.kind(), Kind::State);
    assert_eq!((first.after_position, first.channel.as_str()), (0, CHANNEL));
    assert!(first.oldest_logged_at.is_none());
    receiver.take(first);
    let (expected, state_at) = ([("A", 5), ("B", 7), ("C", 9)], receiver.position);
    let of = |pairs: &[(&str, i64)]| -> BTreeMap<String, i64> {
        pairs
            .iter()
            .map(|(sku, n)| ((*sku).to_owned(), *n))
            .collect()
    };
    assert_eq!(receiver.units, of(&expected));

    let second = receive(&client, "2", &[("A", 1), ("D", 3)]).await;
    receiver.until(&mut updates, second).await;
    assert_eq!(
        receiver.units,
        of(&[("A", 6), ("B", 7), ("C", 9), ("D", 3)])
    );
    assert_eq!(receiver.numbers, 5, "only what changed");

    // Another one goes on where the state was; one with a list sees these only.
    let resumed = pb::WatchRequest {
        resume_position: Some(state_at),
        resume_log: receiver.log.clone(),
        ..request()
    };
    let mut again = watch(&server, resumed.clone()).await;
    let update = again.message().await.expect("ok").expect("an update");
    assert_eq!(update.kind(), Kind::Changes);
    let mut changed: Vec<&str> = update.numbers.iter().map(|own| &*own.sku).collect();
    changed.sort_unstable();
    assert_eq!(changed, ["A", "D"]);
    assert!(update.oldest_logged_at.is_some() && update.oldest_occurred_at.is_some());
    let list = pb::WatchRequest {
        skus: vec!["B".into(), "nothing".into(), "B".into()],
        ..request()
    };
    let mut of_list = watch(&server, list).await;
    let mut listener = Receiver::default();
    listener.until(&mut of_list, second).await;
    assert_eq!(listener.units, of(&[("B", 7)]));
    receive(&client, "3", &[("C", 1), ("A", 1)]).await;
    let last = receive(&client, "4", &[("nothing", 2), ("C", 1)]).await;
    listener.until_units(&mut of_list, "nothing", 2).await;
    assert_eq!(listener.units, of(&[("B", 7), ("nothing", 2)]));
    assert!(listener.position <= last && listener.updates == 2);

    // Errors say what to do.
    let mut feeds = feeds(&server).await;
    for (wrong, code, says) in [
        (
            pb::WatchRequest {
                channel: "nowhere".into(),
                ..request()
            },
            Code::NotFound,
            "web",
        ),
        (
            pb::WatchRequest {
                skus: vec![String::new()],
                ..request()
            },
            Code::InvalidArgument,
            "skus[0]",
        ),
        (
            pb::WatchRequest {
                skus: vec!["A".into(); 1_001],
                ..request()
            },
            Code::InvalidArgument,
            "at most 1000",
        ),
        (
            pb::WatchRequest {
                resume_log: "another".into(),
                ..resumed.clone()
            },
            Code::OutOfRange,
            "resume_log",
        ),
    ] {
        let status = feeds.watch(wrong).await.expect_err("it is wrong");
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_changes_pass_and_zero_crossings_never() {
    let rules = format!("{OPEN}publish_step = 5\n");
    let server = Setup::new().rules(&rules).start();
    let client = server.connect().await;
    receive(&client, "1", &[("A", 10)]).await;
    let mut updates = watch(&server, request()).await;
    let mut receiver = Receiver::default();
    receiver.until_units(&mut updates, "A", 10).await;
    let ship = |id: &str, units| {
        server::movement(
            id,
            "A",
            units,
            pb::movement::Kind::Issued(pb::Issued {
                location: "dc".into(),
                reason: pb::IssueReason::Sale.into(),
                ..pb::Issued::default()
            }),
        )
    };
    // 10 → 7 → 6 is not told, 5 is; 1 is not, 0 is.
    let mut seen = vec![10];
    for (id, units) in [("a", 3), ("b", 1), ("c", 1), ("d", 4), ("e", 1)] {
        client.post(vec![ship(id, units)]).await;
    }
    receive(&client, "2", &[("A", 4)]).await;
    let last = receive(&client, "3", &[("Z", 1)]).await;
    patiently(async {
        while receiver.position < last || !receiver.units.contains_key("Z") {
            let update = updates.message().await.expect("ok").expect("it goes on");
            receiver.take(update);
            let units = receiver.units["A"];
            if seen.last() != Some(&units) {
                seen.push(units);
            }
        }
    })
    .await;
    assert_eq!(receiver.units["A"], 4, "from 0 on");
    assert!(
        seen.iter().all(|units| [10, 5, 0, 4].contains(units)),
        "{seen:?}"
    );
    // What the state says is what was published, and a query what there is.
    receive(&client, "4", &[("A", 2)]).await;
    let position = receive(&client, "5", &[("Z", 9)]).await;
    let mut state = Receiver::default();
    let mut late = watch(&server, request()).await;
    state.until(&mut late, position).await;
    assert_eq!(state.units["A"], 4);
    let ats = client.ats("A", position).await.expect("it answers");
    assert_eq!(ats.items[0].ats, 6);
}

/// What a cart takes of a SKU is held against the dead band as a whole, wherever its lines stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_one_change() {
    let rules = format!("{OPEN}publish_step = 5\n");
    let server = Setup::new().rules(&rules).start();
    let client = server.connect().await;
    receive(&client, "1", &[("A", 20), ("Z", 20)]).await;
    let mut updates = watch(&server, request()).await;
    let mut receiver = Receiver::default();
    receiver.until_units(&mut updates, "A", 20).await;
    let line = |line: &str, sku: &str, quantity| pb::ReserveLine {
        line: line.into(),
        sku: sku.into(),
        quantity,
        ..pb::ReserveLine::default()
    };
    let cart = pb::ReserveRequest {
        id: "cart".into(),
        channel: CHANNEL.into(),
        // Line by line, 15 would be told, and then nothing more.
        lines: vec![line("1", "A", 5), line("2", "Z", 1), line("3", "A", 2)],
        ..pb::ReserveRequest::default()
    };
    let answer = client.reservations().reserve(cart).await;
    let position = answer.expect("it is decided").into_inner().position;
    receiver.until(&mut updates, position).await;
    assert_eq!((receiver.units["A"], receiver.units["Z"]), (13, 20));
}

/// Somebody does not read while everything changes many times; then gets the newest numbers, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_gets_newer_numbers_once() {
    const SKUS: usize = 2_000;
    const ROUNDS: usize = 60;
    let server = Setup::new().shards(2).rules(OPEN).start();
    let client = server.connect().await;
    let all = |round: usize| -> Vec<pb::Movement> {
        (0..SKUS)
            .map(|n| received(&format!("{round}-{n}"), &format!("SKU-{n:05}"), 1, "dc"))
            .collect()
    };
    // What a client takes ahead of its reader is little, so that it is the server who has to wait.
    let endpoint = tonic::transport::Endpoint::from_shared(server.url()).expect("an address");
    let small = endpoint.initial_stream_window_size(65_535);
    let small = FeedsClient::new(small.connect().await.expect("it answers"));
    let stalled = small
        .max_decoding_message_size(64 << 20)
        .watch(request())
        .await;
    let mut stalled = stalled.expect("it can be watched").into_inner();
    let mut reading = watch(&server, request()).await;
    let reader = tokio::spawn(async move {
        let mut receiver = Receiver::default();
        let last = format!("SKU-{:05}", SKUS - 1);
        receiver
            .until_units(&mut reading, &last, ROUNDS as i64)
            .await;
        receiver
    });
    let mut position = 0;
    for round in 0..ROUNDS {
        for batch in all(round).chunks(1_000) {
            position = client.post(batch.to_vec()).await.position;
        }
    }
    // The one that reads was not held up by the other.
    let mut reader = patiently(reader).await.expect("it does not panic");
    reader.units.retain(|_, units| *units != ROUNDS as i64);
    assert!(reader.units.is_empty() || reader.position < position);
    let mut receiver = Receiver::default();
    receiver.until(&mut stalled, position).await;
    assert_eq!(receiver.units.len(), SKUS);
    assert!(receiver.units.values().all(|units| *units == ROUNDS as i64));
    // What was on its way when it stopped reading, and each SKU once.
    assert!(
        receiver.numbers < SKUS * ROUNDS / 2,
        "{} numbers of {} changes",
        receiver.numbers,
        SKUS * ROUNDS
    );
    let mut feeds = feeds(&server).await;
    let listed = feeds.list(pb::ListFeedsRequest::default());
    let listed = listed.await.expect("it lists").into_inner();
    let own = status(&listed);
    assert!(
        own.published >= SKUS as u64 && own.position >= position,
        "{own:?}"
    );
    assert_eq!(
        own.deliveries[0].subscribers, 1,
        "the reader is gone: {own:?}"
    );
    assert!(own.logged_to_published.expect("measured").count > 0);
    assert!(
        own.deliveries[0]
            .logged_to_delivered
            .expect("measured")
            .count
            > 0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_a_kill_or_begins_with_the_state_if_too_much_changed() {
    let setup = Setup::new().shards(2).rules(OPEN).set("feeds.kept_max", 50);
    let mut server = setup.set("feeds.heartbeat_seconds", 1).start();
    let client = server.connect().await;
    receive(&client, "1", &[("A", 5), ("B", 7)]).await;
    let mut updates = watch(&server, request()).await;
    let mut receiver = Receiver::default();
    receiver.until_units(&mut updates, "B", 7).await;
    // An idle feed is alive, and its position goes on.
    let heartbeat = patiently(updates.message())
        .await
        .expect("ok")
        .expect("alive");
    assert_eq!(heartbeat.kind(), Kind::Heartbeat);
    receiver.take(heartbeat);
    let position = receive(&client, "2", &[("A", 1)]).await;
    server.kill();
    assert!(
        patiently(async {
            while let Ok(Some(_)) = updates.message().await {}
            true
        })
        .await
    );
    server.restart();
    let client = server.connect().await;
    let resume = |receiver: &Receiver| pb::WatchRequest {
        resume_position: Some(receiver.position),
        resume_log: receiver.log.clone(),
        ..request()
    };
    let mut updates = watch(&server, resume(&receiver)).await;
    receiver.until_units(&mut updates, "A", 6).await;
    assert!(receiver.position >= position);
    // More SKUs change than are kept.
    let many: Vec<(String, i64)> = (0..80).map(|n| (format!("N{n}"), 1)).collect();
    let many: Vec<(&str, i64)> = many.iter().map(|(sku, n)| (&**sku, *n)).collect();
    let last = receive(&client, "3", &many).await;
    drop(updates);
    // Until that is published, the old position may still do.
    let mut state = watch(&server, request()).await;
    let mut other = Receiver::default();
    other.until_units(&mut state, "N79", 1).await;
    other.until(&mut state, last).await;
    let mut updates = watch(&server, resume(&receiver)).await;
    let update = updates.message().await.expect("ok").expect("an update");
    assert_eq!(update.kind(), Kind::State);
    receiver.take(update);
    receiver.until(&mut updates, last).await;
    assert_eq!(receiver.units.len(), 82);
    // The same page by page.
    let (mut feeds, mut pages, mut token) =
        (feeds(&server).await, Receiver::default(), String::new());
    loop {
        let page = pb::GetStateRequest {
            channel: CHANNEL.into(),
            page_token: token,
        };
        let page = feeds.get_state(page).await.expect("a page").into_inner();
        pages.take(page.update.expect("numbers"));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages.units, receiver.units);
    assert!(pages.position >= last);
    for (channel, token, code) in [
        ("nowhere", "", Code::NotFound),
        (CHANNEL, "1.2.3", Code::InvalidArgument),
    ] {
        let page = pb::GetStateRequest {
            channel: channel.into(),
            page_token: token.into(),
        };
        assert_eq!(feeds.get_state(page).await.expect_err("wrong").code(), code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_rules_are_one_wave_that_a_dry_run_foretells() {
    const SKUS: usize = 5_000;
    let server = Setup::new().shards(2).rules(OPEN).start();
    let client = server.connect().await;
    let stock: Vec<pb::Movement> = (0..SKUS)
        .map(|n| {
            received(
                &format!("s{n}"),
                &format!("SKU-{n}"),
                1 + n as i64 % 4,
                "dc",
            )
        })
        .collect();
    for batch in stock.chunks(1_000) {
        client.post(batch.to_vec()).await;
    }
    let mut updates = watch(&server, request()).await;
    let mut receiver = Receiver::default();
    let position = client.status().await.applied_position;
    receiver.until(&mut updates, position).await;
    assert_eq!(receiver.units.len(), SKUS);
    let put = pb::PutRulesRequest {
        toml: "[channel.web]\nsources = [\"*\"]\nbuffer = 1\nmaximum = 2\n[channel.app]\nsources = [\"*\"]\nmaximum = 1\n".into(),
        dry_run: true,
        ..pb::PutRulesRequest::default()
    };
    let foretold = client
        .rules()
        .put(put.clone())
        .await
        .expect("it is sound")
        .into_inner();
    let foretold: BTreeMap<&str, u64> = foretold
        .changes
        .iter()
        .map(|change| (&*change.channel, change.skus_published))
        .collect();
    assert_eq!(foretold["app"], SKUS as u64);
    receiver.numbers = 0;
    let version = client
        .rules()
        .put(pb::PutRulesRequest {
            dry_run: false,
            ..put
        })
        .await
        .expect("it takes effect")
        .into_inner()
        .version;
    let after = receive(&client, "after", &[("SKU-0", 5)]).await;
    receiver.until(&mut updates, after).await;
    assert!(version < after);
    let expected = |n: usize| (n as i64 % 4).min(2);
    for n in 1..SKUS {
        assert_eq!(receiver.units[&format!("SKU-{n}")], expected(n));
    }
    assert_eq!(receiver.units["SKU-0"], 2);
    // Each once, the one that changed afterwards perhaps twice.
    let wave = receiver.numbers as u64;
    assert!(
        (foretold["web"]..=foretold["web"] + 2).contains(&wave),
        "{wave} of {foretold:?}"
    );

    // A channel that is gone ends its streams.
    let mut app = watch(
        &server,
        pb::WatchRequest {
            channel: "app".into(),
            ..request()
        },
    )
    .await;
    let mut of_app = Receiver::default();
    of_app.until(&mut app, after).await;
    assert!(of_app.units.values().all(|units| *units == 1));
    let put = pb::PutRulesRequest {
        toml: OPEN.into(),
        ..pb::PutRulesRequest::default()
    };
    client.rules().put(put).await.expect("it takes effect");
    let ended = patiently(async {
        loop {
            match app.message().await {
                Ok(Some(update)) => of_app.take(update),
                Ok(None) => panic!("it ends without a reason"),
                Err(status) => break status,
            }
        }
    })
    .await;
    assert_eq!(ended.code(), Code::NotFound, "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_marketplace_shows_is_compared_and_delivered_again() {
    let server = Setup::new().shards(2).rules(OPEN).start();
    let client = server.connect().await;
    let position = receive(&client, "1", &[("A", 5), ("B", 7), ("C", 9)]).await;
    let mut updates = watch(&server, request()).await;
    let mut receiver = Receiver::default();
    receiver.until(&mut updates, position).await;
    receiver.numbers = 0;
    let shown = |sku: &str, units| pb::PublishedNumber {
        sku: sku.into(),
        units,
    };
    let report = pb::ReportShownRequest {
        channel: CHANNEL.into(),
        shown: vec![
            shown("A", 5),
            shown("B", 70),
            shown("C", 0),
            shown("never", 1),
        ],
        ..pb::ReportShownRequest::default()
    };
    let mut feeds = feeds(&server).await;
    // It was read before any of it was logged: all may be on its way.
    let early = pb::ReportShownRequest {
        settle_ms: 3_600_000,
        ..report.clone()
    };
    let answer = feeds.report_shown(early).await.expect("ok").into_inner();
    assert_eq!(
        (
            answer.matched,
            answer.differences.len(),
            answer.in_flight.len()
        ),
        (1, 0, 2)
    );
    assert_eq!(answer.unknown_skus, ["never"]);
    let only = pb::ReportShownRequest {
        report_only: true,
        ..report.clone()
    };
    let answer = feeds.report_shown(only).await.expect("ok").into_inner();
    assert_eq!(
        (
            answer.differences.len(),
            answer.republished,
            answer.position
        ),
        (2, 0, 0)
    );
    let answer = feeds.report_shown(report).await.expect("ok").into_inner();
    assert_eq!((answer.differences.len(), answer.republished), (2, 2));
    let different: Vec<_> = answer
        .differences
        .iter()
        .map(|own| (&*own.sku, own.shown, own.published))
        .collect();
    assert_eq!(different, [("B", 70, 7), ("C", 0, 9)]);
    receiver.until(&mut updates, answer.position).await;
    assert_eq!(
        receiver.numbers, 2,
        "delivered once more, though nothing changed"
    );
    assert_eq!((receiver.units["B"], receiver.units["C"]), (7, 9));
    let listed = feeds
        .list(pb::ListFeedsRequest::default())
        .await
        .expect("ok");
    assert_eq!(status(listed.get_ref()).shown_different, 4);

    // From the command line.
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("shown.csv");
    std::fs::write(&file, "sku,units\nA,5\nB,6\n").expect("a file");
    let file = file.to_str().expect("a path");
    let compared = server.run(&[
        "feeds",
        "shown",
        file,
        "--channel",
        CHANNEL,
        "--report-only",
    ]);
    assert_eq!(compared.status.code(), Some(7), "{compared:?}");
    let compared = server.run(&["feeds", "shown", file, "--channel", CHANNEL, "--json"]);
    let text = String::from_utf8_lossy(&compared.stdout).into_owned();
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&json["matched"], &json["republished"]),
        (&1.into(), &1.into()),
        "{text}"
    );

    let wrong = [
        (
            pb::ReportShownRequest {
                shown: vec![shown("A", 1), shown("A", 1)],
                ..Default::default()
            },
            "shown[1].sku",
        ),
        (
            pb::ReportShownRequest {
                settle_ms: 86_400_001,
                ..Default::default()
            },
            "settle_ms",
        ),
        (
            pb::ReportShownRequest {
                actor: "x".repeat(129),
                ..Default::default()
            },
            "actor",
        ),
    ];
    for (request, field) in wrong {
        let status = feeds.report_shown(request).await.expect_err("wrong");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(field), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_a_stream_and_how_fresh_it_is() {
    let server = Setup::new().rules(OPEN).start();
    let client = server.connect().await;
    receive(&client, "1", &[("A", 5), ("B", 7)]).await;
    let watched = tokio::task::block_in_place(|| {
        server.run(&["watch", "--channel", CHANNEL, "--for", "2", "--json"])
    });
    assert!(watched.status.success(), "{watched:?}");
    let text = String::from_utf8_lossy(&watched.stdout).into_owned();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let mut found: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["sku"].as_str(),
                line["units"].as_i64(),
                line["kind"].as_str(),
            )
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            (Some("A"), Some(5), Some("state")),
            (Some("B"), Some(7), Some("state"))
        ]
    );
    let text = tokio::task::block_in_place(|| {
        server.run(&["watch", "--channel", CHANNEL, "--for", "2", "A"])
    });
    let said = String::from_utf8_lossy(&text.stderr).into_owned();
    assert!(said.contains("resume with --resume "), "{said}");
    let text = tokio::task::block_in_place(|| server.run(&["status"]));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("web: ") && text.contains("changes published"),
        "{text}"
    );
    let text = tokio::task::block_in_place(|| server.run(&["feeds"]));
    assert!(text.status.success());
    let (_, metrics) = server.get("/metrics").expect("it answers");
    for line in [
        "sellable_feed_published_after_seconds_count{channel=\"web\",since=\"logged\"} 2",
        "sellable_feed_messages_delivered_total{channel=\"web\",way=\"grpc\",name=\"\"}",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let gone = tokio::task::block_in_place(|| server.run(&["watch", "--channel", "nowhere"]));
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
}
