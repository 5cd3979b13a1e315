//! What every engine has to keep, as one suite of tests. `tests/log/conformance.rs` runs it.
//!
//! Each case gets a new, empty log from a [`LogFactory`] and panics where the contract is broken.
//! Time-outs only guard against hanging.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, future::join_all};

use super::{Anchor, AppendError, Entry, Lane, Log, LogError, Position, Reader};
use crate::limits;

/// How long a case may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// Opens one log, again and again.
#[async_trait]
pub trait LogFactory: Send {
    /// Opens the log; whoever had it open has dropped it.
    async fn open(&mut self) -> Arc<dyn Log>;
}

/// A record that tells where it comes from.
pub fn record(number: u64) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((0..number % 700).map(|index| (index * number) as u8));
    bytes.into()
}

/// Waits, but not for ever.
pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.expect("this hangs")
}

/// Reads until `last`, checking that positions have no gap.
pub async fn read_to(reader: &mut dyn Reader, from: Position, last: Position) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    while from + (entries.len() as u64) <= last {
        let batch = patiently(reader.next(1_000)).await.expect("readable");
        assert!(!batch.is_empty(), "next answers with at least one entry");
        for entry in batch {
            assert_eq!(entry.position, from + entries.len() as u64, "no gap");
            entries.push(entry);
        }
    }
    entries
}

async fn append(log: &Arc<dyn Log>, numbers: std::ops::Range<u64>) -> Vec<Position> {
    let mut positions = Vec::new();
    for number in numbers {
        positions.push(patiently(log.append(record(number))).await.expect("stored"));
    }
    positions
}

async fn read_all(log: &Arc<dyn Log>) -> Vec<Entry> {
    let bounds = log.bounds().await.expect("bounds");
    let mut reader = log.reader(bounds.first).await.expect("a reader");
    read_to(&mut *reader, bounds.first, bounds.last).await
}

/// A record that is too large, and what is said about it.
fn too_large() -> (Bytes, AppendError) {
    let bytes = Bytes::from(vec![1; limits::RECORD_BYTES_MAX + 1]);
    let error = AppendError::TooLarge {
        bytes: bytes.len(),
        bytes_max: limits::RECORD_BYTES_MAX,
    };
    (bytes, error)
}

fn payloads(entries: &[Entry]) -> Vec<Bytes> {
    entries.iter().map(|entry| entry.payload.clone()).collect()
}

/// An empty log holds nothing, and a reader of it waits for the first entry.
pub async fn an_empty_log_is_waited_for(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!((bounds.first, bounds.last), (1, 0));
    assert_eq!(log.not_writable(), None);
    let mut reader = log.reader(1).await.expect("a reader");
    assert!(reader.next(10).now_or_never().is_none(), "nothing to read");
    let waiting = tokio::spawn(async move { reader.next(10).await });
    tokio::task::yield_now().await;
    assert_eq!(append(&log, 0..1).await, [1]);
    let entries = patiently(waiting).await.expect("no panic").expect("read");
    assert_eq!(payloads(&entries), [record(0)]);
    assert_eq!(entries[0].position, 1);
    assert_eq!(entries[0].lane, Lane::Record);
}

/// Entries come back byte for byte, in the order of their positions, however large they are.
pub async fn entries_come_back_unchanged(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    let sizes = [0, 1, 39, 4_096, limits::RECORD_BYTES_MAX, 2];
    let mut expected = Vec::new();
    for (index, size) in sizes.into_iter().enumerate() {
        let bytes: Bytes = (0..size).map(|at| (at * 7 + index) as u8).collect();
        let position = patiently(log.append(bytes.clone())).await.expect("stored");
        assert_eq!(position, index as u64 + 1);
        expected.push(bytes);
    }
    let entries = read_all(&log).await;
    assert!(payloads(&entries) == expected, "payloads differ");
    assert!(entries.iter().all(|entry| entry.time_us > 0));
    drop(log);
    let again = read_all(&factory.open().await).await;
    assert!(again == entries, "a restart changes nothing");
}

/// A record that is too large is refused, and the log goes on.
pub async fn a_record_that_is_too_large_is_refused(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    let (bytes, expected) = too_large();
    let refused = patiently(log.append(bytes)).await;
    assert_eq!(refused, Err(expected));
    assert_eq!(log.not_writable(), None);
    assert_eq!(append(&log, 0..2).await, [1, 2]);
}

/// Who sends a record is told only if it was not stored, and why.
pub async fn who_sends_is_told_only_of_a_failure(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    let (tell, told) = std::sync::mpsc::channel();
    let failed = |number| {
        let tell = tell.clone();
        Box::new(move |error| tell.send((number, error)).expect("it is waited for"))
    };
    let mut reader = log.reader(1).await.expect("a reader");
    for number in 0..20 {
        patiently(log.send(record(number), failed(number))).await;
    }
    let entries = read_to(&mut *reader, 1, 20).await;
    assert!(payloads(&entries).into_iter().eq((0..20).map(record)));
    let (bytes, expected) = too_large();
    patiently(log.send(bytes, failed(20))).await;
    drop(tell);
    assert_eq!(told.iter().collect::<Vec<_>>(), [(20, expected)]);
}

/// Concurrent appends get each its own position, and the entry is there.
pub async fn concurrent_appends_get_positions_of_their_own(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    let tasks = (0..64_u64).map(|task| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut stored = Vec::new();
            for number in task * 40..(task + 1) * 40 {
                let position = log.append(record(number)).await.expect("stored");
                stored.push((position, number));
            }
            assert!(stored.is_sorted(), "one caller's records keep their order");
            stored
        })
    });
    let mut by_position = BTreeMap::new();
    for stored in patiently(join_all(tasks)).await {
        by_position.extend(stored.expect("no panic"));
    }
    assert_eq!(by_position.len(), 64 * 40, "no position was given twice");
    assert!(by_position.keys().copied().eq(1..=64 * 40));
    let entries = read_all(&log).await;
    assert_eq!(entries.len(), by_position.len());
    for entry in entries {
        assert_eq!(entry.payload, record(by_position[&entry.position]));
    }
}

/// When an append has resolved, its entry can be read.
pub async fn what_was_acknowledged_can_be_read(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    for number in 0..20 {
        let position = append(&log, number..number + 1).await[0];
        assert!(log.bounds().await.expect("bounds").last >= position);
        let mut reader = log.reader(position).await.expect("a reader");
        let entries = patiently(reader.next(1)).await.expect("read");
        assert_eq!(payloads(&entries), [record(number)]);
    }
}

/// Readers that start anywhere follow the tail while it grows, and all read the same.
pub async fn readers_follow_the_tail_and_agree(factory: &mut dyn LogFactory) {
    const LAST: Position = 3_000;
    let log = factory.open().await;
    append(&log, 0..10).await;
    let mut readers = Vec::new();
    for from in [1, 5, 10, 11] {
        let mut reader = log.reader(from).await.expect("a reader");
        readers.push(tokio::spawn(async move {
            read_to(&mut *reader, from, LAST).await
        }));
    }
    let writers = (0..8_u64).map(|writer| {
        let log = log.clone();
        tokio::spawn(async move {
            for number in (10 + writer..LAST).step_by(8) {
                log.append(record(number)).await.expect("stored");
            }
        })
    });
    for writer in patiently(join_all(writers)).await {
        writer.expect("no panic");
    }
    let reference = read_all(&log).await;
    assert_eq!(reference.len() as u64, LAST);
    for reader in patiently(join_all(readers)).await {
        let entries = reader.expect("no panic");
        let from = entries[0].position as usize;
        assert!(entries == reference[from - 1..], "readers differ");
    }
}

/// `next` keeps to its limit, and may be dropped at any time without losing an entry.
pub async fn a_dropped_next_loses_nothing(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    append(&log, 0..200).await;
    let mut reader = log.reader(1).await.expect("a reader");
    let mut read = Vec::new();
    for round in 0_usize.. {
        if read.len() == 200 {
            break;
        }
        let entries_max = 1 + round % 7;
        // Most rounds drop the call after one look, or at its first wait.
        let outcome = match round % 3 {
            0 => reader.next(entries_max).now_or_never(),
            1 => tokio::select! {
                biased;
                outcome = reader.next(entries_max) => Some(outcome),
                () = tokio::task::yield_now() => None,
            },
            _ => Some(patiently(reader.next(entries_max)).await),
        };
        if let Some(entries) = outcome {
            let entries = entries.expect("read");
            assert!((1..=entries_max).contains(&entries.len()));
            read.extend(entries);
        }
    }
    assert!(read.iter().map(|entry| entry.position).eq(1..=200));
    assert!(payloads(&read).into_iter().eq((0..200).map(record)));
}

/// A restart keeps entries, identity and order.
pub async fn a_restart_keeps_everything(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    let identity = log.identity();
    append(&log, 0..50).await;
    let before = read_all(&log).await;
    drop(log);
    for round in 0..3_u64 {
        let log = factory.open().await;
        assert!(log.identity().is_same(&identity), "the identity is kept");
        let entries = read_all(&log).await;
        assert!(entries[..50] == before[..]);
        assert_eq!(entries.len() as u64, 50 + round);
        assert_eq!(append(&log, 50 + round..51 + round).await, [51 + round]);
    }
}

/// Trimming forgets old entries only, says so to who asks for them, and never moves the end.
pub async fn trimming_forgets_only_what_is_old(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    // Large enough for any engine to have something to forget.
    let large = Bytes::from(vec![7; 500 << 10]);
    for _ in 0..12 {
        patiently(log.append(large.clone())).await.expect("stored");
    }
    patiently(log.trim(1)).await.expect("nothing to forget");
    assert_eq!(log.bounds().await.expect("bounds").first, 1);
    let mut late = log.reader(1).await.expect("a reader");
    patiently(log.trim(9)).await.expect("trimmed");
    let bounds = log.bounds().await.expect("bounds");
    assert!((2..=9).contains(&bounds.first), "{bounds:?}");
    assert_eq!(bounds.last, 12);
    let mut reader = log.reader(9).await.expect("a reader");
    assert_eq!(read_to(&mut *reader, 9, 12).await.len(), 4);
    let expected = LogError::Trimmed {
        wanted: 1,
        first: bounds.first,
    };
    assert_eq!(log.reader(1).await.err(), Some(expected.clone()));
    // What a reader already has under way may still come.
    let met = loop {
        match patiently(late.next(100)).await {
            Ok(entries) if entries.last().is_some_and(|last| last.position == 12) => break None,
            Ok(_) => {}
            Err(error) => break Some(error),
        }
    };
    assert!(met.is_none_or(|error| matches!(error, LogError::Trimmed { .. })));
    patiently(log.trim(1_000)).await.expect("trimmed");
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!(bounds.last, 12, "the end stays");
    drop(log);
    let log = factory.open().await;
    assert_eq!(log.bounds().await.expect("bounds"), bounds);
    assert_eq!(append(&log, 0..1).await, [13]);
    let mut reader = log.reader(13).await.expect("a reader");
    assert_eq!(read_to(&mut *reader, 13, 13).await[0].payload, record(0));
}

/// Who asks for what lies beyond the end has applied another log.
pub async fn a_position_beyond_the_end_is_another_log(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    append(&log, 0..3).await;
    assert!(log.reader(4).await.is_ok());
    let beyond = log.reader(5).await.err();
    assert!(matches!(beyond, Some(LogError::Diverged(_))), "{beyond:?}");
}

/// The hash of the last entry applied tells whether this is the log it was read from.
pub async fn an_anchor_tells_logs_apart(factory: &mut dyn LogFactory) {
    let log = factory.open().await;
    append(&log, 0..3).await;
    let anchors: Vec<_> = read_all(&log).await.iter().map(Entry::anchor).collect();
    drop(log);
    let log = factory.open().await;
    for anchor in &anchors {
        assert_eq!(patiently(log.check(*anchor)).await, Ok(()));
    }
    let other = Anchor {
        position: 3,
        hash: anchors[2].hash ^ 1,
    };
    let beyond = Anchor {
        position: 4,
        hash: 1,
    };
    for anchor in [other, beyond] {
        let outcome = patiently(log.check(anchor)).await;
        assert!(matches!(outcome, Err(LogError::Diverged(_))), "{outcome:?}");
    }
}
