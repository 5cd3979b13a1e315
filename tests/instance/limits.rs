//! A whole instance at its limits, and when something goes wrong.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use sellable::{
    domain::{
        exceptions::Outcome,
        movement::{Condition, Kind, Movement},
    },
    instance::{Instance, Options},
    intake::PostError,
    limits::{RECORD_BYTES_MAX, RULES_BYTES_MAX},
    log::{
        AppendError, Bounds, Entry, Identity, Log, LogError, Position, Reader, memory::MemoryLog,
    },
    proto::v1 as pb,
    wire::{
        movement::to_proto,
        record::{encode_record, framed_bytes},
    },
};

const NOW_US: i64 = 1_700_000_000_000_000;

fn received(id: &str) -> Vec<u8> {
    let movement = Movement {
        id,
        source: "wms",
        occurred_us: NOW_US,
        sku: "A",
        quantity: 1,
        correlation_id: "",
        reference: "",
        actor: "",
        kind: Kind::Received {
            location: "dc",
            condition: Condition::Good,
            inbound: None,
        },
    };
    to_proto(&movement).encode_to_vec()
}

/// A movement of `bytes` bytes: it has a field that this version does not know.
fn received_with_bytes(id: &str, bytes: usize) -> Bytes {
    let mut movement = received(id);
    prost::encoding::encode_varint(1_000 << 3 | 2, &mut movement);
    // Three bytes say the length.
    let padding = bytes - movement.len() - 3;
    prost::encoding::encode_varint(padding as u64, &mut movement);
    movement.resize(bytes, 0);
    movement.into()
}

async fn start(log: impl Log, options: Options) -> Arc<Instance> {
    Instance::start(Arc::new(log), &options)
        .await
        .expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn movements_that_just_fill_a_record_are_taken() {
    let log = MemoryLog::new();
    log.set_clock(Some(NOW_US));
    let instance = start(log, Options::default()).await;
    for total in [
        RECORD_BYTES_MAX - 33,
        RECORD_BYTES_MAX - 20,
        RECORD_BYTES_MAX,
    ] {
        let half = total / 2;
        let movement = |name: char, framed| {
            let bytes = framed + half - framed_bytes(half);
            received_with_bytes(&format!("{name}{total}"), bytes)
        };
        let movements = vec![movement('a', half), movement('b', total - half)];
        let receipt = instance.post(movements).await.expect("it is taken");
        assert_eq!(receipt.outcomes, [(Outcome::Applied, false); 2]);
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_refused_whole() {
    let log = MemoryLog::new();
    log.set_clock(Some(NOW_US));
    let options = Options {
        waiting_movements_max: 5,
        record_movements_max: 3,
        ..Options::default()
    };
    let instance = start(log.clone(), options).await;
    let movements = |n: usize| (0..n).map(|n| received(&n.to_string()).into()).collect();
    let too_many: Vec<Bytes> = movements(6);
    let refused = instance.post(too_many).await;
    assert_eq!(refused, Err(PostError::Full { waiting_max: 5 }));

    // The second of them fits into no record.
    let mut too_large: Vec<Bytes> = movements(1);
    too_large.push(received_with_bytes("large", RECORD_BYTES_MAX + 1));
    let refused = instance.post(too_large).await;
    let is_too_large =
        |error: &PostError| matches!(error, PostError::Log(AppendError::TooLarge { .. }));
    assert!(refused.as_ref().is_err_and(is_too_large), "{refused:?}");

    let receipt = instance.post(movements(5)).await.expect("there is room");
    assert_eq!(receipt.outcomes, [(Outcome::Applied, false); 5]);
    assert_eq!(instance.movements().duplicate, 0);
    assert_eq!(log.bounds().await.expect("it can be read").last, 2);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_the_largest_size_fit_a_record() {
    let instance = start(MemoryLog::new(), Options::default()).await;
    let mut toml = "[channel.web]\nsources = ['*']\n#".to_owned();
    toml.push_str(&"x".repeat(RULES_BYTES_MAX - toml.len()));
    let put = pb::RulesPut {
        toml,
        actor: "a".repeat(sellable::limits::ACTOR_BYTES_MAX),
        note: "n".repeat(sellable::limits::NOTE_BYTES_MAX),
        expected_version: Some(u64::MAX),
    };
    assert_eq!(instance.put_rules(put).await, Ok(0));
    instance.stop().await;
}

/// A log that takes records, and from which nothing can be read.
struct Unread(MemoryLog);

struct NeverReads;

#[async_trait]
impl Reader for NeverReads {
    async fn next(&mut self, _: usize) -> Result<Vec<Entry>, LogError> {
        std::future::pending().await
    }
}

#[async_trait]
impl Log for Unread {
    fn identity(&self) -> Identity {
        self.0.identity()
    }

    async fn append(&self, record: Bytes) -> Result<Position, AppendError> {
        self.0.append(record).await
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.0.bounds().await
    }

    async fn reader(&self, _: Position) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(NeverReads))
    }

    async fn trim(&self, below: Position) -> Result<(), LogError> {
        self.0.trim(below).await
    }

    fn not_writable(&self) -> Option<String> {
        self.0.not_writable()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_and_not_yet_applied_takes_room() {
    let log = MemoryLog::new();
    let options = Options {
        waiting_movements_max: 1,
        ..Options::default()
    };
    let instance = start(Unread(log.clone()), options).await;
    let first = tokio::spawn({
        let instance = Arc::clone(&instance);
        async move { instance.post(vec![received("a").into()]).await }
    });
    while log.bounds().await.expect("it can be read").last < 1 {
        tokio::task::yield_now().await;
    }
    // Its append has resolved some time after that.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(instance.waiting_movements(), 1);
    let second = instance.post(vec![received("b").into()]);
    let second = tokio::time::timeout(Duration::from_secs(60), second).await;
    assert_eq!(second, Ok(Err(PostError::Full { waiting_max: 1 })));

    // Who waits when the instance stops is told.
    instance.stop().await;
    assert_eq!(
        first.await.expect("it does not panic"),
        Err(PostError::Stopping)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_when_the_log_cannot_be_read_any_more_is_told() {
    let log = MemoryLog::new();
    let instance = start(log.clone(), Options::default()).await;
    // It reads.
    instance
        .post(vec![received("first").into()])
        .await
        .expect("it is taken");
    log.fail_readers(LogError::Corrupt("a test".into()));
    let posted = instance.post(vec![received("a").into()]).await;
    assert_eq!(posted, Err(PostError::Stopping));
    assert_eq!(instance.failure().await, LogError::Corrupt("a test".into()));
    assert!(!instance.ready());
    instance.stop().await;
    assert_eq!(instance.audit().await, None);
}

/// A log whose reader leaves a gap: a bug.
struct Gap(MemoryLog);

struct LeavesAGap(bool);

#[async_trait]
impl Reader for LeavesAGap {
    async fn next(&mut self, _: usize) -> Result<Vec<Entry>, LogError> {
        if std::mem::replace(&mut self.0, true) {
            return std::future::pending().await;
        }
        let movement = received("a");
        Ok(vec![Entry {
            position: 7,
            time_us: NOW_US,
            lane: sellable::log::Lane::Record,
            payload: encode_record(1, 1, [movement.as_slice()]),
        }])
    }
}

#[async_trait]
impl Log for Gap {
    fn identity(&self) -> Identity {
        self.0.identity()
    }

    async fn append(&self, record: Bytes) -> Result<Position, AppendError> {
        self.0.append(record).await
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.0.bounds().await
    }

    async fn reader(&self, _: Position) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(LeavesAGap(false)))
    }

    async fn trim(&self, below: Position) -> Result<(), LogError> {
        self.0.trim(below).await
    }

    fn not_writable(&self) -> Option<String> {
        self.0.not_writable()
    }
}

const CHILD: &str = "SELLABLE_TEST_CHILD";

/// Run by [`a_bug_while_following_ends_the_process`], in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_follows_a_log_with_a_gap() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let instance = start(Gap(MemoryLog::new()), Options::default()).await;
    let posted = instance.post(vec![received("b").into()]).await;
    // What is posted may be answered while the process is still about to end.
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    println!("it goes on: {posted:?}, ready: {}", instance.ready());
}

#[test]
fn a_bug_while_following_ends_the_process() {
    let child = std::process::Command::new(std::env::current_exe().expect("it has a path"))
        .args([
            "--exact",
            "limits::child_that_follows_a_log_with_a_gap",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("the log's reader left a gap"), "{said}");
    // It did not end by itself, but by a signal.
    let said = String::from_utf8_lossy(&child.stdout);
    assert_eq!(child.status.code(), None, "{said}");
}
