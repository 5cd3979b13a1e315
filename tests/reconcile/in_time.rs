//! Snapshots by the log's time, which a test sets: what is too old cannot be compared, or approved.

use std::sync::Arc;

use prost::Message;
use sellable::{
    domain::admission::Horizon,
    instance::{Instance, Options},
    log::memory::MemoryLog,
    proto::v1::{self as pb, movement::Kind, snapshot_header::Moment},
    reconcile::{Comparison, Finished, ReconcileError, Selection, approve},
    wire::movement::timestamp,
};

const MINUTE_US: i64 = 60_000_000;
/// 2026-01-05T08:00:00Z.
const BEGIN_US: i64 = 1_767_600_000_000_000;

/// An instance that remembers ids for an hour, by a clock that is set.
async fn instance(log: &MemoryLog) -> Arc<Instance> {
    let horizon = Horizon {
        us: 60 * MINUTE_US,
        ..Horizon::DEFAULT
    };
    let options = Options {
        shards: 2,
        horizon,
        ..Options::default()
    };
    let instance = Instance::start(Arc::new(log.clone()), &options).await;
    let instance = instance.expect("it starts");
    instance.caught_up().await;
    instance
}

async fn post(instance: &Instance, id: &str, occurred_us: i64) {
    let movement = pb::Movement {
        id: id.into(),
        source: "wms".into(),
        occurred_at: Some(timestamp(occurred_us)),
        sku: "A".into(),
        quantity: 10,
        kind: Some(Kind::Received(pb::Received {
            location: "dc".into(),
            ..pb::Received::default()
        })),
        ..pb::Movement::default()
    };
    let posted = instance.post(vec![movement.encode_to_vec().into()]).await;
    posted.expect("posted");
}

fn header(as_of_us: i64, clock_tolerance_ms: i64) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        snapshot: "s".into(),
        source: "erp".into(),
        moment: Some(Moment::AsOf(timestamp(as_of_us))),
        policy: pb::ReconciliationPolicy::Correct.into(),
        clock_tolerance_ms,
        ..pb::SnapshotHeader::default()
    }
}

/// States that there are 13.
async fn compare(
    instance: &Arc<Instance>,
    header: pb::SnapshotHeader,
) -> Result<Finished, ReconcileError> {
    let begun = Comparison::begin(instance, header, Default::default()).await;
    let mut comparison = begun?;
    let line = pb::SnapshotLine {
        sku: "A".into(),
        location: "dc".into(),
        good: Some(13),
        ..pb::SnapshotLine::default()
    };
    comparison.add([line]).await?;
    let end = pb::SnapshotEnd {
        lines: 1,
        skipped_lines: 0,
    };
    comparison.finish(end).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_says_what_the_oldest_is() {
    let log = MemoryLog::new();
    log.set_clock(Some(BEGIN_US));
    let instance = instance(&log).await;
    post(&instance, "1", BEGIN_US - MINUTE_US).await;
    // A young log has forgotten nothing.
    let young = compare(&instance, header(BEGIN_US - 1_000 * MINUTE_US, 0)).await;
    let young = young.expect("compared").report.summary.expect("a summary");
    assert_eq!((young.missing_in_books, young.held), (0, 1));
    let held = compare(&instance, header(BEGIN_US, 0))
        .await
        .expect("compared");
    let line = held.lines().next().expect("a line");
    assert_eq!((line.book, line.variance), (10, 3));

    log.set_clock(Some(BEGIN_US + 180 * MINUTE_US));
    post(&instance, "2", BEGIN_US + 180 * MINUTE_US).await;
    let Err(ReconcileError::TooOld { oldest_us, .. }) =
        compare(&instance, header(BEGIN_US, 0)).await
    else {
        panic!("what was known then is forgotten");
    };
    assert!(oldest_us > BEGIN_US && oldest_us < BEGIN_US + 180 * MINUTE_US);
    let tolerance_ms = 2_000;
    let oldest = compare(&instance, header(oldest_us, 0)).await;
    assert_eq!(
        oldest
            .expect("compared")
            .lines()
            .next()
            .expect("a line")
            .book,
        10
    );
    for (as_of_us, tolerance_ms, says_us) in [
        (oldest_us - 1, 0, oldest_us),
        (oldest_us, tolerance_ms, oldest_us + tolerance_ms * 1_000),
    ] {
        let error = compare(&instance, header(as_of_us, tolerance_ms)).await;
        let error = error.expect_err("too old");
        assert!(
            matches!(error, ReconcileError::TooOld { oldest_us, .. } if oldest_us == says_us),
            "{error}"
        );
        let told = error.to_string();
        assert!(told.contains(&timestamp(says_us).to_string()), "{told}");
    }
    // What was held then cannot be corrected any more, and what is held now can.
    let all = Selection::default();
    let approve = async |report: &str| approve(&instance, report, &all, "", "").await;
    let forgotten = held.report.report.clone();
    assert!(matches!(
        approve(&forgotten).await.expect_err("too old"),
        ReconcileError::TooOld { .. }
    ));
    let approved = approve("s").await.expect("approved");
    assert_eq!((approved.corrected, approved.lines[0].variance), (1, 3));
    // An idle log is given the time that has come, and no other.
    log.set_clock(None);
    let error = compare(&instance, header(i64::MAX / 2_000_000 * 1_000_000, 0)).await;
    assert!(matches!(error, Err(ReconcileError::Header(_))));
    instance.stop().await;
}
