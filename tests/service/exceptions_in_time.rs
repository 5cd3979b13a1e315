//! Exceptions by the log's time, which a test sets: the services of a whole instance on loopback,
//! on a log in memory.

use std::{sync::Arc, time::Duration};

use sellable::{
    api,
    domain::admission::Horizon,
    instance::{Instance, Options},
    log::memory::MemoryLog,
    proto::v1::{self as pb, ExceptionKind as Kind, Resolution},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code,
    transport::{Endpoint, Server},
};

use crate::{
    facts::{fact, facts},
    server::Client,
};

const HOUR_US: i64 = 3_600_000_000;
/// 2026-01-05T08:00:00Z.
const BEGIN_US: i64 = 1_767_600_000_000_000;

struct Scene {
    log: MemoryLog,
    client: Client,
    instance: Arc<Instance>,
}

impl Scene {
    /// Ids are remembered for an hour.
    async fn begin(log: MemoryLog) -> Self {
        let horizon = Horizon {
            us: HOUR_US,
            ..Horizon::DEFAULT
        };
        let options = Options {
            shards: 2,
            horizon,
            ..Options::default()
        };
        let instance = Instance::start(Arc::new(log.clone()), &options).await;
        let instance = instance.expect("it starts");
        let (_, health) = tonic_health::server::health_reporter();
        let options = api::Options {
            min_position_wait_max: Duration::from_secs(60),
            message_bytes_max: 4 << 20,
            reconcile: Default::default(),
        };
        let feeds = sellable::feed::Feeds::start(&instance, Default::default());
        let routes = api::routes(&instance, &feeds, options, health);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_routes(routes)
                .serve_with_incoming(connections),
        );
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect().await.expect("it listens");
        instance.caught_up().await;
        Self {
            log,
            client: Client { channel },
            instance,
        }
    }

    async fn at_first() -> Self {
        let scene = Self::begin(MemoryLog::new()).await;
        scene.clock(0);
        let put = pb::PutRulesRequest {
            toml: "[channel.web]\nsources = [\"*\"]\n".into(),
            ..pb::PutRulesRequest::default()
        };
        scene.client.rules().put(put).await.expect("in force");
        scene
    }

    /// So many minutes after the begin.
    fn clock(&self, minutes: i64) {
        self.log.set_clock(Some(BEGIN_US + minutes * 60_000_000));
    }

    /// The same log, read from its beginning by another instance.
    async fn again(self) -> Self {
        let digest = self.client.digest(0).await.digest;
        self.instance.stop().await;
        let again = Self::begin(self.log).await;
        assert_eq!(again.client.digest(0).await.digest, digest);
        again
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_proved_new_is_released_or_discarded() {
    let scene = Scene::at_first().await;
    let client = &scene.client;
    client.post(facts(&["received a1 A 5 location=dc"])).await;
    scene.clock(180);
    // Known ids are forgotten by now, so this may be the same or not.
    for text in ["received a1 A 5 location=dc", "received b1 B 5 location=dc"] {
        client.park(text, Kind::Stale).await;
    }
    scene.clock(190);
    let repeat = client.outcome_of(fact("received b1 B 5 location=dc")).await;
    assert!(
        repeat.duplicate && repeat.parked_as() == Kind::Stale,
        "{repeat:?}"
    );
    let (a, b) = (client.parked("a1").await, client.parked("b1").await);
    assert_eq!((a.age_ms, b.age_ms), (600_000, 600_000));
    assert_eq!((client.web("A").await, client.open().await.len()), (5, 2));

    client
        .decide(Resolution::Discard, &a)
        .await
        .expect("it is the same");
    client
        .decide(Resolution::Release, &b)
        .await
        .expect("it is new");
    for (exception, resolution) in [(&a, Resolution::Release), (&b, Resolution::Release)] {
        let again = client.decide(resolution, exception).await;
        assert_eq!(again, Err(Code::NotFound));
    }
    assert_eq!((client.web("A").await, client.web("B").await), (5, 5));
    // What is sent again counts no more than before.
    for text in ["received a1 A 5 location=dc", "received b1 B 5 location=dc"] {
        let repeat = client.outcome_of(fact(text)).await;
        assert!(
            repeat.duplicate && repeat.parked_as() == Kind::Stale,
            "{repeat:?}"
        );
    }
    // Nor much later, when what became of them is forgotten, too.
    scene.clock(600);
    for text in ["received a1 A 5 location=dc", "received b1 B 5 location=dc"] {
        client.park(text, Kind::Stale).await;
    }
    assert_eq!(client.open().await, []);
    let scene = scene.again().await;
    let client = &scene.client;
    assert_eq!((client.web("A").await, client.web("B").await), (5, 5));
    assert_eq!(client.open().await, []);
    scene.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_ahead_of_its_time_is_released_once_that_has_come() {
    let scene = Scene::at_first().await;
    let client = &scene.client;
    // The door goes by the machine's clock, which is ahead of this log's.
    let early = "received a1 A 5 location=dc occurred_at=2026-01-05T09:00:00Z";
    client.park(early, Kind::Malformed).await;
    let parked = client.parked("a1").await;
    let too_soon = client.decide(Resolution::Release, &parked).await;
    assert_eq!(too_soon, Err(Code::FailedPrecondition));
    scene.clock(60);
    client
        .decide(Resolution::Release, &parked)
        .await
        .expect("it has come");
    let repeat = client.outcome_of(fact(early)).await;
    assert!(
        repeat.duplicate && repeat.outcome() == pb::Outcome::Applied,
        "{repeat:?}"
    );
    assert_eq!((client.web("A").await, client.open().await.len()), (5, 0));
    scene.again().await.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ages_go_by_the_time_of_the_log() {
    let scene = Scene::at_first().await;
    let client = &scene.client;
    let expected = "inbound_expected a1 A 6 inbound=PO line=1 location=dc eta=2026-01-05T08:10:00Z";
    client
        .post(facts(&["return_refunded r1 R 2 return=R line=1", expected]))
        .await;
    scene.clock(30);
    client
        .post(facts(&["return_refunded r2 R 1 return=R line=1"]))
        .await;
    let ages = |open: Vec<pb::Exception>| -> Vec<(Kind, i64, i64)> {
        let of = |found: &pb::Exception| (found.kind(), found.units, found.age_ms / 60_000);
        open.iter().map(of).collect()
    };
    let (refunded, overdue) = (Kind::RefundedBeyondReceived, Kind::OverdueSupply);
    // Supply is overdue since its eta, however late that is noticed; more units are no younger.
    let found = ages(client.open().await);
    assert_eq!(found, [(refunded, 3, 30), (overdue, 6, 19)]);
    scene.clock(40);
    client
        .post(facts(&[
            "return_received r3 R 3 return=R line=1 location=dc",
        ]))
        .await;
    scene.clock(50);
    client
        .post(facts(&["return_refunded r4 R 1 return=R line=1"]))
        .await;
    let found = ages(client.open().await);
    let received = Kind::ReturnReceivedBeyondAuthorized;
    assert_eq!(
        found,
        [(overdue, 6, 39), (received, 3, 10), (refunded, 1, 0)]
    );
    scene.again().await.instance.stop().await;
}
