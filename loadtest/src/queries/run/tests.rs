//! Runs against servers of this process that stall, refuse, or answer wrongly.

use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};
use tonic::{
    Request, Response,
    transport::server::{Server, TcpIncoming},
};

use super::*;
use crate::{
    proto::{
        ExplainRequest, ExplainResponse, GetResponse, SkuAvailability,
        availability_server::{Availability, AvailabilityServer},
    },
    queries::report::{Report, Setup},
    server::Address,
};

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers,
    /// The first queries wait until so long after the first one.
    StallsFor(Duration),
    NeverAnswers,
    Refuses,
    LeavesOut,
}

struct Fake {
    manner: Manner,
    first: Mutex<Option<Instant>>,
    asked: Arc<Notify>,
}

#[tonic::async_trait]
impl Availability for Fake {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.asked.notify_one();
        let mut skus = request.into_inner().skus;
        match self.manner {
            Manner::Answers => {}
            Manner::StallsFor(stall) => {
                let first = *self
                    .first
                    .lock()
                    .expect("no panic")
                    .get_or_insert_with(Instant::now);
                tokio::time::sleep_until((first + stall).into()).await;
            }
            Manner::NeverAnswers => std::future::pending().await,
            Manner::Refuses => return Err(Status::not_found("no channel web")),
            Manner::LeavesOut => {
                skus.pop();
            }
        }
        let items = skus
            .into_iter()
            .map(|sku| SkuAvailability {
                known: sku != "SKU-0",
                sku,
                ..SkuAvailability::default()
            })
            .collect();
        Ok(Response::new(GetResponse {
            items,
            ..GetResponse::default()
        }))
    }

    async fn explain(
        &self,
        _: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

struct Trial {
    channels: Vec<Channel>,
    asked: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Trial {
    async fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::new(Notify::new());
        let fake = Fake {
            manner,
            first: Mutex::default(),
            asked: asked.clone(),
        };
        let server = tokio::spawn(async move {
            Server::builder()
                .add_service(AvailabilityServer::new(fake))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .expect("it serves");
        });
        let address = Address::parse(&format!("127.0.0.1:{port}")).expect("an address");
        Self {
            channels: address.connect(2).await.expect("it listens"),
            asked,
            server,
        }
    }

    async fn run(self, (rate, seconds): (u64, u64), limits: Limits, stop: Stop) -> Report {
        let skus = (0..10).map(|n| format!("SKU-{n}")).collect();
        let queries = Queries::new("web".to_owned(), skus, 10, 0.0, 1).expect("enough SKUs");
        let schedule = Schedule::new(rate, seconds, 1);
        let (sent, tally) = run(
            self.channels,
            schedule,
            queries,
            limits,
            Arc::default(),
            stop,
        )
        .await
        .expect("it runs");
        self.server.abort();
        let setup = Setup {
            server: String::new(),
            channel: "web".to_owned(),
            skus: 10,
            skus_per_call: 10,
            zipf: 0.0,
            rate,
            seconds,
            connections: 2,
            in_flight_max: limits.in_flight,
            timeout_seconds: limits.timeout.as_secs(),
            seed: 1,
            started_at: String::new(),
            host: String::new(),
        };
        let report = Report::new(setup, sent, &tally);
        assert_eq!(report.due, report.answered + report.failed + report.dropped);
        report
    }
}

const PLENTY: Limits = Limits {
    in_flight: 1_000,
    timeout: Duration::from_secs(60),
};

/// A stop that never comes; the sender has to be kept.
fn no_stop() -> (watch::Sender<Option<Instant>>, Stop) {
    watch::channel(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_sent_and_answered() {
    let (_keep, stop) = no_stop();
    let trial = Trial::new(Manner::Answers).await;
    let report = trial.run((300, 1), PLENTY, stop).await;
    assert_eq!((report.due, report.answered), (300, 300));
    assert!(report.is_clean());
    // One SKU of ten is unknown, and each call has all ten.
    assert_eq!(report.skus_unknown, 300);
    assert!(report.latency_ns.p99.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_every_call_that_was_due_meanwhile() {
    let (_keep, stop) = no_stop();
    let stall = Duration::from_millis(900);
    let trial = Trial::new(Manner::StallsFor(stall)).await;
    // With two in flight, nearly all calls of the stall are still to be sent when it ends. Were
    // their latencies counted from when they were sent, half of all would be short.
    let limits = Limits {
        in_flight: 2,
        ..PLENTY
    };
    let report = trial.run((200, 1), limits, stop).await;
    assert_eq!((report.answered, report.dropped), (200, 0));
    assert!(report.held_back > 0, "{report:?}");
    // A slow machine makes latencies longer, never shorter.
    let p50 = report.latency_ns.p50.expect("there are enough");
    assert!(p50 > 300_000_000, "{report:?}");
    let delay = report.send_delay_ns.p50.expect("there are enough");
    assert!(delay > 300_000_000, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_sent_is_dropped_and_counted() {
    let (_keep, stop) = no_stop();
    let trial = Trial::new(Manner::NeverAnswers).await;
    let limits = Limits {
        in_flight: 5,
        timeout: Duration::from_secs(4),
    };
    let report = trial.run((100, 1), limits, stop).await;
    assert_eq!((report.sent, report.failed, report.dropped), (5, 5, 95));
    assert_eq!(report.errors["DEADLINE_EXCEEDED"].count, 5);
    assert!(!report.is_clean() && !report.interrupted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_counted_by_code() {
    let (_keep, stop) = no_stop();
    let trial = Trial::new(Manner::Refuses).await;
    let report = trial.run((50, 1), PLENTY, stop.clone()).await;
    assert_eq!((report.answered, report.failed), (0, 50));
    assert_eq!(report.errors["NOT_FOUND"].first, "no channel web");
    assert_eq!(report.latency_ns.max, None);

    let trial = Trial::new(Manner::LeavesOut).await;
    let report = trial.run((50, 1), PLENTY, stop).await;
    assert_eq!(report.errors[WRONG_ANSWER].count, 50);
    assert_eq!(report.errors[WRONG_ANSWER].first, "9 items for 10 SKUs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_run_and_counts_what_was_due() {
    let (keep, stop) = no_stop();
    let trial = Trial::new(Manner::Answers).await;
    let asked = trial.asked.clone();
    let running = tokio::spawn(trial.run((100, 3_600), PLENTY, stop));
    asked.notified().await;
    keep.send_replace(Some(Instant::now()));
    let report = running.await.expect("it ends");
    assert!(report.interrupted && !report.is_clean());
    assert!(report.answered >= 1, "{report:?}");
    assert!(report.due < 360_000, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_comes_after_a_stop_is_dropped() {
    let trial = Trial::new(Manner::Answers).await;
    // Told before it began: no call was due by then.
    let (_keep, stop) = watch::channel(Some(Instant::now()));
    let report = trial.run((1, 3_600), PLENTY, stop).await;
    assert!(report.interrupted);
    assert_eq!((report.due, report.dropped), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_before_the_run() {
    let trial = Trial::new(Manner::Refuses).await;
    let failure = try_once(&trial.channels, &GetRequest::default(), PLENTY.timeout)
        .await
        .expect_err("it refuses");
    assert_eq!(
        failure.message,
        "the server refuses the first query: NOT_FOUND: no channel web"
    );
}
