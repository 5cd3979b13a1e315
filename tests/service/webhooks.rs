//! Webhooks of a running server, and a receiver that does all that receivers do: nothing is missed,
//! and in the end it shows what `Availability.Get` says.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use sellable::proto::v1::{
    self as pb, delivery_status::State, feeds_client::FeedsClient, movement::Kind,
};

use crate::{
    nats::NatsServer,
    process,
    proxy::Proxy,
    receiver::{Act, Receiver, SECRET},
    server::{self, CHANNEL, Client, Server, Setup, movement, patiently, received},
};

/// Sells everything, so that a number is what was received.
const OPEN: &str = "[channel.web]\nsources = [\"*\"]\n";
/// SKUs of a test.
const SKUS: usize = 40;
/// How long an answer may take, and how soon a failure is followed by the next attempt.
const QUICK: &str = "timeout_ms = 700\nretry_ms_max = 300\n";

/// A file of webhooks, and a server that is set up with it.
struct Webhooks {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

impl Webhooks {
    /// Each with its name, port, and further keys.
    fn new(all: &[(&str, u16, &str)]) -> Self {
        let mut text = String::new();
        for (name, port, keys) in all {
            write!(
                text,
                "[webhook.{name}]\nchannel = \"{CHANNEL}\"\nurl = \"http://127.0.0.1:{port}/in\"\n\
                 secret_env = \"WEBHOOK_SECRET\"\n{keys}\n"
            )
            .expect("text takes text");
        }
        Self::of(&text)
    }

    fn of(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("webhooks.toml");
        fs::write(&file, text).expect("written");
        Self { _dir: dir, file }
    }

    fn setup(&self) -> Setup {
        Setup::new()
            .rules(OPEN)
            .set("feeds.webhooks_file", self.file.display())
            .environment("WEBHOOK_SECRET", SECRET)
    }
}

/// Movements at random, the same in each run.
struct Traffic {
    random: StdRng,
    next_id: u64,
    source: &'static str,
}

impl Traffic {
    fn new(source: &'static str) -> Self {
        Self {
            random: StdRng::seed_from_u64(7),
            next_id: 0,
            source,
        }
    }

    /// Posts some changes of all SKUs; gives the position after them.
    async fn post(&mut self, client: &Client, count: usize) -> u64 {
        let mut position = 0;
        for _ in 0..count {
            self.next_id += 1;
            let id = format!("{}-{}", self.source, self.next_id);
            let sku = format!("sku-{:02}", self.random.random_range(0..SKUS));
            let quantity = self.random.random_range(1..9);
            let one = if self.random.random_bool(0.6) {
                received(&id, &sku, quantity, "dc")
            } else {
                let adjusted = pb::Adjusted {
                    location: "dc".into(),
                    reason: "cycle count".into(),
                    ..pb::Adjusted::default()
                };
                movement(&id, &sku, -quantity, Kind::Adjusted(adjusted))
            };
            position = client.post(vec![one]).await.position.max(position);
        }
        position
    }
}

/// What `Availability.Get` says of all SKUs that were ever named. One that never had any is not told,
/// so that none is the same as 0.
async fn available(client: &Client, position: u64) -> BTreeMap<String, i64> {
    let mut available = BTreeMap::new();
    for n in 0..SKUS {
        let sku = format!("sku-{n:02}");
        let answer = client.ats(&sku, position).await.expect("an answer");
        available.extend(
            answer
                .items
                .into_iter()
                .filter(|own| own.ats > 0)
                .map(|own| (own.sku, own.ats)),
        );
    }
    available
}

/// What the receiver shows that is not 0.
fn shown(receiver: &Receiver) -> BTreeMap<String, i64> {
    let mut units = receiver.seen().units();
    units.retain(|_, units| *units > 0);
    units
}

/// Waits until the receiver shows what is available.
async fn shows_all(receiver: &Receiver, client: &Client, position: u64) {
    let wanted = available(client, position).await;
    assert!(!wanted.is_empty());
    let waited = tokio::time::timeout(server::PATIENCE, async {
        while shown(receiver) != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if waited.await.is_err() {
        let status = statuses(client).await;
        assert_eq!(shown(receiver), wanted, "{status:?}");
    }
    receiver.is_content();
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(server::PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn feeds(client: &Client) -> FeedsClient<tonic::transport::Channel> {
    FeedsClient::new(client.channel.clone())
}

async fn statuses(client: &Client) -> Vec<pb::DeliveryStatus> {
    let request = pb::ListFeedsRequest {
        channel: CHANNEL.into(),
    };
    let list = feeds(client).list(request).await.expect("a list");
    let all = list.into_inner().feeds.into_iter();
    let all = all.flat_map(|feed| feed.deliveries);
    all.filter(|own| !own.name.is_empty()).collect()
}

async fn status(client: &Client, name: &str) -> pb::DeliveryStatus {
    patiently(async {
        loop {
            let mut all = statuses(client).await;
            all.retain(|own| own.name == name);
            assert!(all.len() <= 1, "{all:?}");
            // It has to find its channel first.
            match all.pop() {
                Some(own) => break own,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

/// Waits until a webhook is in a state.
async fn until_state(client: &Client, name: &str, states: &[State]) -> pb::DeliveryStatus {
    patiently(async {
        loop {
            let status = status(client, name).await;
            if states.contains(&status.state()) {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn dead_letters(client: &Client, webhook: &str) -> Vec<pb::DeadLetter> {
    let request = pb::ListDeadLettersRequest {
        webhook: webhook.into(),
    };
    let list = feeds(client).list_dead_letters(request).await;
    list.expect("the webhook is known")
        .into_inner()
        .dead_letters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_in_every_way_shows_all_in_the_end() {
    let mut receiver = Receiver::start().await;
    let proxy = Proxy::to(receiver.port()).await;
    let port = proxy.nats_url().rsplit(':').next().expect("a port").parse();
    let webhooks = Webhooks::new(&[("shop", port.expect("a number"), QUICK)]);
    let mut server = webhooks.setup().start();
    let client = server.connect().await;
    let mut traffic = Traffic::new("a");
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(2));
    // None of these tells the sender that it is done, so each is followed by another attempt.
    for acts in [
        vec![Act::Refuse(500, None), Act::Refuse(502, None)],
        vec![Act::Refuse(429, Some("1".into()))],
        vec![Act::Refuse(503, Some(date)), Act::Refuse(408, None)],
        vec![Act::Stall, Act::TakeAndStall],
        vec![Act::TakeLate],
        vec![Act::Refuse(401, None), Act::Refuse(307, None)],
        vec![Act::Refuse(500, None); 8],
        vec![Act::Refuse(410, None)],
    ] {
        receiver.acts(acts);
        let position = traffic.post(&client, 10).await;
        until("it was asked", || receiver.acts_left() == 0).await;
        shows_all(&receiver, &client, position).await;
    }
    let failures = status(&client, "shop").await.failures;
    assert!(failures >= 18, "each failure counts: {failures}");
    assert!(receiver.seen().repeats > 0, "the same message came again");
    // Its cable is cut while it answers, then it is gone for a while.
    receiver.always(Act::Stall);
    traffic.post(&client, 10).await;
    let requests = receiver.seen().requests;
    until("it is asked", || receiver.seen().requests > requests).await;
    proxy.cut();
    receiver.stop();
    traffic.post(&client, 10).await;
    let gone = until_state(&client, "shop", &[State::CircuitOpen]).await;
    assert!(!gone.last_error.is_empty(), "{gone:?}");
    receiver.always(Act::Take);
    receiver.restart().await;
    let position = traffic.post(&client, 10).await;
    shows_all(&receiver, &client, position).await;
    let well = until_state(&client, "shop", &[State::Delivering]).await;
    assert_eq!((well.last_error.as_str(), well.dead_letters), ("", 0));
    assert!(well.messages > 0 && well.numbers > 0, "{well:?}");
    // What was late has no effect.
    tokio::time::sleep(Duration::from_millis(100)).await;
    shows_all(&receiver, &client, position).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_goes_on_where_it_was() {
    let receiver = Receiver::start().await;
    let webhooks = Webhooks::new(&[("shop", receiver.port(), QUICK)]);
    // With a checkpoint now and then, so that some starts have one.
    let mut server = webhooks.setup().set("checkpoint.every_records", 25).start();
    let mut traffic = Traffic::new("k");
    let mut position = 0;
    for round in 0..5 {
        let client = server.connect().await;
        receiver.acts([Act::Refuse(500, None), Act::TakeAndStall]);
        position = traffic.post(&client, 20).await;
        if round % 2 == 0 {
            shows_all(&receiver, &client, position).await;
        }
        server.kill();
        server.restart();
    }
    let client = server.connect().await;
    shows_all(&receiver, &client, position).await;
    // After a good stop nothing comes again.
    until_reached(&client, position).await;
    server.stop();
    let requests = receiver.seen().requests;
    server.restart();
    let client = server.connect().await;
    until_reached(&client, position).await;
    let position = traffic.post(&client, 1).await;
    shows_all(&receiver, &client, position).await;
    let resumed = receiver.seen().requests - requests;
    assert!(resumed >= 1);
    server.stop();
}

/// Waits until a webhook is known to have delivered up to a position.
async fn until_reached(client: &Client, position: u64) {
    patiently(async {
        while status(client, "shop").await.position < position {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_receiver_holds_up_no_other() {
    let (healthy, dead) = (Receiver::start().await, Receiver::start().await);
    dead.always(Act::Stall);
    let slow = format!("{QUICK}requests_per_window = 20\nwindow_seconds = 1\n");
    let webhooks = Webhooks::new(&[
        ("dead", dead.port(), QUICK),
        ("gone", process::free_port(), QUICK),
        ("shop", healthy.port(), &slow),
    ]);
    let mut server = webhooks.setup().start();
    let client = server.connect().await;
    let mut traffic = Traffic::new("d");
    for _ in 0..5 {
        let position = traffic.post(&client, 20).await;
        shows_all(&healthy, &client, position).await;
        assert!(dead.seen().shown.is_empty());
    }
    for name in ["dead", "gone"] {
        let status = until_state(&client, name, &[State::CircuitOpen]).await;
        assert_eq!((status.position, status.numbers), (0, 0));
        assert!(status.waiting > 0 && !status.last_error.is_empty());
    }
    dead.always(Act::Take);
    let position = traffic.post(&client, 1).await;
    shows_all(&dead, &client, position).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_instances_one_delivers_and_the_other_takes_over() {
    let nats = NatsServer::start();
    let receiver = Receiver::start().await;
    let webhooks = Webhooks::new(&[("shop", receiver.port(), QUICK)]);
    let start = || webhooks.setup().nats(&nats.url()).start();
    let mut servers: [Server; 2] = [start(), start()];
    let mut traffic = Traffic::new("n");
    let client = servers[0].connect().await;
    let position = traffic.post(&client, 30).await;
    shows_all(&receiver, &client, position).await;
    for round in 0..3 {
        let clients = [servers[0].connect().await, servers[1].connect().await];
        let states = [
            status(&clients[0], "shop").await.state(),
            status(&clients[1], "shop").await.state(),
        ];
        let holder = states.iter().position(|state| *state != State::Standby);
        let holder = holder.unwrap_or_else(|| panic!("nobody delivers: {states:?}"));
        assert_eq!(states[1 - holder], State::Standby, "both deliver");
        // Some of it is on its way when the holder goes.
        receiver.acts([Act::TakeAndStall]);
        traffic.post(&clients[1 - holder], 30).await;
        if round == 1 {
            servers[holder].stop();
        } else {
            servers[holder].kill();
        }
        let position = traffic.post(&clients[1 - holder], 10).await;
        shows_all(&receiver, &clients[1 - holder], position).await;
        until_state(&clients[1 - holder], "shop", &[State::Delivering]).await;
        servers[holder].restart();
        let client = servers[holder].connect().await;
        until_state(&client, "shop", &[State::Standby]).await;
    }
    for server in &mut servers {
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_good_is_kept_and_tried_again() {
    let receiver = Receiver::start().await;
    let webhooks = Webhooks::new(&[("shop", receiver.port(), QUICK)]);
    let mut server = webhooks.setup().set("checkpoint.every_records", 3).start();
    let client = server.connect().await;
    receiver.refuse_skus(&["sku-01", "sku-02"]);
    let mut position = 0;
    for n in 0..8 {
        let movement = received(&format!("m-{n}"), &format!("sku-{n:02}"), 5 + n, "dc");
        position = client.post(vec![movement]).await.position;
    }
    until_reached(&client, position).await;
    let skus = |letters: &[pb::DeadLetter]| -> Vec<(String, i64)> {
        let sku = |own: &pb::DeadLetter| (own.sku.clone(), own.units);
        letters.iter().map(sku).collect()
    };
    let both = [("sku-01".to_owned(), 6), ("sku-02".to_owned(), 7)];
    let until_letters = async |client: &Client, wanted: &[(String, i64)]| {
        patiently(async {
            while skus(&dead_letters(client, "shop").await) != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    until_letters(&client, &both).await;
    let letters = dead_letters(&client, "shop").await;
    assert_eq!(letters[0].reason, "422: no such article");
    assert!(letters[0].given_up_at.is_some() && letters[0].position > 0);
    assert_eq!(status(&client, "shop").await.dead_letters, 2);
    assert_eq!(receiver.seen().shown.len(), 6);
    // They are not forgotten, and not sent again by themselves.
    server.kill();
    server.restart();
    let client = server.connect().await;
    assert_eq!(skus(&dead_letters(&client, "shop").await), both);
    // A newer number that is taken settles it.
    receiver.refuse_skus(&[]);
    client.post(vec![received("m-9", "sku-02", 1, "dc")]).await;
    until_letters(&client, &both[..1]).await;
    assert_eq!(receiver.seen().units().get("sku-01"), None);
    let retry = |skus: &[&str]| pb::RetryDeadLettersRequest {
        webhook: "shop".into(),
        skus: skus.iter().map(ToString::to_string).collect(),
    };
    let mut feeds = feeds(&client);
    let none = feeds.retry_dead_letters(retry(&["sku-07"])).await;
    assert_eq!(none.expect("answered").into_inner().retried, 0);
    let one = feeds.retry_dead_letters(retry(&[])).await;
    assert_eq!(one.expect("answered").into_inner().retried, 1);
    until_letters(&client, &[]).await;
    assert_eq!(receiver.seen().units()["sku-01"], 6);
    let unknown = pb::RetryDeadLettersRequest {
        webhook: "nobody".into(),
        skus: Vec::new(),
    };
    let refused = feeds
        .retry_dead_letters(unknown)
        .await
        .expect_err("unknown");
    assert_eq!(refused.code(), tonic::Code::NotFound);
    receiver.is_content();
    server.stop();
}

#[test]
fn a_wrong_file_is_told_before_anything_is_opened() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let serve = |file: &std::path::Path| {
        let mut command = process::program();
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(&data)
            .arg("--set")
            .arg(format!("feeds.webhooks_file={}", file.display()))
            .current_dir(dir.path());
        process::run(command)
    };
    let wrong = Webhooks::of(
        "[webhook.shop]\nchannel = \"web\"\nurl = \"shop.example\"\nsecret = \"whsec_\"\n",
    );
    let ended = serve(&wrong.file);
    ended.says(
        2,
        &[
            "the webhooks in ",
            "(`feeds.webhooks_file`)",
            "line 3, column 7: webhook.shop.url: is no address",
            "line 4, column 1: webhook.shop.secret: unknown key",
            "has no `secret_file` or `secret_env`",
        ],
    );
    serve(&dir.path().join("nowhere.toml")).says(2, &["nowhere.toml", "No such file"]);
    assert!(!data.exists(), "nothing was opened");
}
