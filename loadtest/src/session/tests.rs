//! Whole runs against a server of this process that keeps simple books, and can be made to keep
//! them wrongly: each wrong has to be noticed.

use tokio::sync::watch;

use super::*;
use crate::{
    findings::Finding,
    outcome::{Outcome, Setup, Verdict},
    stub::{Manner, Stub},
};

/// A small day with everything in it.
const DAY: &str = r#"
name = "day"
summary = "Everything, in little"

[catalogue]
skus = 20
centres = 2
stores = 4
stores_per_sku = 2
centre_units = 8

[shopping]
skus_per_query = [1, 5]
cart_lines = [1, 3]
think_ms = [1, 60]
pack_ms = [1, 60]
abandon_seconds = 1

[movements]
batch = 5

[[phase]]
name = "only"
seconds = 1
queries = 100
reserves = 150
movements = 200
returns = 30
probes = 20
"#;

struct Day {
    outcome: Outcome,
    asked: u64,
}

async fn day(manner: Manner, seed: u64) -> Day {
    run(manner, seed, DAY).await
}

/// With carts on streams.
async fn streamed_day(manner: Manner, seed: u64) -> Day {
    let streamed = DAY.replace("[shopping]\n", "[shopping]\nreserve_via = \"stream\"\n");
    run(manner, seed, &streamed).await
}

async fn run(manner: Manner, seed: u64, scenario: &str) -> Day {
    let stub = Stub::start(manner).await;
    let scenario = Scenario::parse(scenario, "day").expect("sound");
    let access = Access {
        address: stub.address.clone(),
        connections: 2,
        in_flight: 500,
        patience: Patience {
            timeout: Duration::from_millis(800),
            settle: Duration::from_secs(60),
        },
        nats: None,
        allow_remote: false,
        put_rules: false,
        server_pid: None,
    };
    let mut session = Session::open(access, &scenario, "lt", seed)
        .await
        .expect("it answers");
    let ready = session.set_up(&scenario, &setup::Progress::default()).await;
    ready.expect("it takes the stock");
    let (_keep, stop) = watch::channel(None);
    let ran = session.run(&scenario, "", None, |_| {}, stop).await;
    let ran = ran.expect("it runs");
    let asked = stub.digest_of_requests();
    session.verify(&scenario, &ran).await;
    Day {
        outcome: Outcome::new(Setup::default(), &scenario, &ran),
        asked,
    }
}

fn wrong(day: &Day) -> Vec<&Finding> {
    let checks = day.outcome.checks.iter();
    checks.filter(|check| check.wrong > 0).collect()
}

#[track_caller]
fn assert_noticed(day: &Day, what: &str) {
    assert_eq!(
        day.outcome.judgement.verdict,
        Verdict::Wrong,
        "{:?}",
        day.outcome.judgement
    );
    let found = wrong(day);
    assert!(
        found.iter().any(|check| check.what.contains(what)),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_server_is_found_right() {
    found_right(&day(Manner::Right, 1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_server_is_found_right_on_streams() {
    let (calls, streams) = tokio::join!(day(Manner::Right, 1), streamed_day(Manner::Right, 1));
    found_right(&streams);
    assert_eq!(streams.asked, calls.asked);
}

#[track_caller]
fn found_right(day: &Day) {
    assert_eq!(
        day.outcome.judgement.verdict,
        Verdict::Held,
        "{:?}",
        day.outcome.judgement
    );
    let carts = day.outcome.carts;
    assert!(
        carts.granted > 0 && carts.decided > carts.granted,
        "{carts:?}"
    );
    for check in &day.outcome.checks {
        assert!(check.checked > 0, "{check:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_oversells_is_noticed() {
    let day = day(Manner::Oversells, 1).await;
    assert_noticed(&day, "never oversold");
    assert_noticed(&day, "no balance is below zero");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_a_movement_is_noticed() {
    let day = day(Manner::LosesMovements, 1).await;
    assert_noticed(&day, "acknowledged movements are in");
    assert_noticed(&day, "balances are what");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_applies_repeats_twice_is_noticed() {
    let day = day(Manner::ForgetsIds, 1).await;
    assert_noticed(&day, "sent again, they are known");
    assert_noticed(&day, "balances are what");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_from_the_past_is_noticed() {
    let day = day(Manner::ReadsStale, 1).await;
    assert_noticed(&day, "visible to the next query");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_were_lost_are_settled_and_count_as_failed() {
    settled(&day(Manner::LosesAnswers, 1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_hangs_is_opened_again() {
    settled(&streamed_day(Manner::LosesAnswers, 1).await);
}

#[track_caller]
fn settled(day: &Day) {
    let judgement = &day.outcome.judgement;
    assert_eq!(judgement.verdict, Verdict::Failed, "{judgement:?}");
    assert!(wrong(day).is_empty());
    let settled = day.outcome.checks.iter();
    let mut settled = settled.filter(|check| check.what.contains("settled"));
    assert!(settled.next().is_some_and(|check| check.checked > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_sends_the_same_requests() {
    let (first, again, other) = tokio::join!(
        day(Manner::Right, 7),
        day(Manner::Right, 7),
        day(Manner::Right, 8)
    );
    assert_eq!(first.outcome.plan_digest, again.outcome.plan_digest);
    assert_eq!(first.asked, again.asked);
    assert_ne!(first.outcome.plan_digest, other.outcome.plan_digest);
    assert_ne!(first.asked, other.asked);
}
