//! Parked movements: in the log, not in the books, kept for a person to decide.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Excluded, Unbounded},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    domain::{
        digest::{Digest, Digester},
        exceptions::ParkedKind,
        movement::TimeUs,
    },
    limits::PARKED_BYTES_MAX,
    log::Position,
};

/// A parked movement, or a message that could not be read at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Why.
    pub kind: ParkedKind,
    /// Position of the entry that holds it.
    pub position: Position,
    /// Place within that entry, from 0.
    pub index: u32,
    /// First seen, by the log's time.
    pub first_seen_us: TimeUs,
    /// As far as they could be read.
    pub source: String,
    /// As far as it could be read.
    pub id: String,
    /// What is wrong, and what to do.
    pub reason: String,
    /// The bytes as they came.
    pub original: Bytes,
    /// Media type of the bytes; empty if unknown.
    pub media_type: String,
    /// How often the same has come.
    pub occurrences: u64,
}

/// All parked movements, oldest first.
///
/// The details of at most `kept_max`, and of at most [`PARKED_BYTES_MAX`] bytes, are held in memory;
/// of those before, the counts and the digest, while the bytes are in the log.
#[derive(Debug)]
pub struct ParkedList {
    kept_max: usize,
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    numbers: HashMap<u128, u64>,
    kept: BTreeMap<u64, Parked>,
    /// Of the originals of `kept`.
    kept_bytes: usize,
    counts: BTreeMap<ParkedKind, u64>,
    digest: Digest,
}

impl ParkedList {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self {
            kept_max,
            bytes_max: PARKED_BYTES_MAX,
            inner: Mutex::default(),
        }
    }

    /// Adds one. The same again, by its source, id and bytes, only counts up.
    pub(crate) fn park(&self, mut parked: Parked) {
        let key = key_of(&parked);
        let mut inner = self.lock();
        if let Some(number) = inner.numbers.get(&key).copied() {
            if let Some(known) = inner.kept.get_mut(&number) {
                known.occurrences += 1;
            }
            return;
        }
        let number = inner.numbers.len() as u64 + 1;
        inner.numbers.insert(key, number);
        *inner.counts.entry(parked.kind).or_default() += 1;
        inner.digest += Digester::default().parked(key);
        // A copy: a few bytes would otherwise hold the whole buffer that they were read into.
        parked.original = Bytes::copy_from_slice(&parked.original);
        inner.kept_bytes += parked.original.len();
        inner.kept.insert(number, parked);
        while inner.kept.len() > self.kept_max || inner.kept_bytes > self.bytes_max {
            let Some((_, oldest)) = inner.kept.pop_first() else {
                break;
            };
            inner.kept_bytes -= oldest.original.len();
        }
    }

    /// Those of these kinds (all, if none is named) after the one numbered `after`, at most
    /// `max` and, if that is more than one, at most `bytes_max` of originals, with their numbers.
    pub fn page(
        &self,
        kinds: &[ParkedKind],
        after: u64,
        max: usize,
        bytes_max: usize,
    ) -> Vec<(u64, Parked)> {
        let inner = self.lock();
        let mut bytes = 0;
        let of_kind = |parked: &Parked| kinds.is_empty() || kinds.contains(&parked.kind);
        inner
            .kept
            .range((Excluded(after), Unbounded))
            .filter(|(_, parked)| of_kind(parked))
            .take(max)
            .take_while(|(_, parked)| {
                let first = bytes == 0;
                bytes += parked.original.len();
                first || bytes <= bytes_max
            })
            .map(|(number, parked)| (*number, parked.clone()))
            .collect()
    }

    /// How many there are, by kind.
    pub fn counts(&self) -> BTreeMap<ParkedKind, u64> {
        self.lock().counts.clone()
    }

    pub(crate) fn digest(&self) -> Digest {
        self.lock().digest
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(parked: &Parked) -> u128 {
    let mut bytes = Vec::with_capacity(parked.original.len() + 256);
    for text in [parked.kind.name(), &parked.source, &parked.id] {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes.extend_from_slice(&parked.original);
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(id: &str, kind: ParkedKind) -> Parked {
        Parked {
            kind,
            position: 1,
            index: 0,
            first_seen_us: 0,
            source: "wms".into(),
            id: id.into(),
            reason: String::new(),
            original: Bytes::from_static(b"x"),
            media_type: String::new(),
            occurrences: 1,
        }
    }

    #[test]
    fn the_same_again_only_counts_up() {
        let list = ParkedList::new(10);
        list.park(parked("a", ParkedKind::Malformed));
        let once = list.digest();
        list.park(parked("a", ParkedKind::Malformed));
        assert_eq!(list.digest(), once);
        assert_eq!(list.page(&[], 0, 10, 100)[0].1.occurrences, 2);
        list.park(parked("a", ParkedKind::Stale));
        assert_ne!(list.digest(), once);
        assert_eq!(list.page(&[ParkedKind::Stale], 0, 10, 100).len(), 1);
    }

    #[test]
    fn details_are_bounded_and_counts_are_not_lost() {
        let list = ParkedList::new(3);
        for n in 0..5 {
            list.park(parked(&n.to_string(), ParkedKind::Malformed));
        }
        let kept: Vec<u64> = list
            .page(&[], 0, 10, 100)
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert_eq!(kept, [3, 4, 5]);
        assert_eq!(list.page(&[], 3, 1, 100)[0].0, 4);
        assert_eq!(list.counts()[&ParkedKind::Malformed], 5);
    }

    #[test]
    fn originals_are_bounded_too() {
        let list = ParkedList {
            bytes_max: 100,
            ..ParkedList::new(1_000)
        };
        for n in 0..10 {
            let original = vec![n; 30].into();
            list.park(Parked {
                original,
                ..parked("a", ParkedKind::Malformed)
            });
        }
        let numbers = |after, bytes_max| -> Vec<u64> {
            let page = list.page(&[], after, 10, bytes_max);
            page.into_iter().map(|(number, _)| number).collect()
        };
        assert_eq!(numbers(0, 1_000), [8, 9, 10]);
        assert_eq!(numbers(0, 60), [8, 9]);
        assert_eq!(numbers(0, 1), [8], "one, however large");
        assert!(numbers(u64::MAX, 1_000).is_empty());
        assert_eq!(list.counts()[&ParkedKind::Malformed], 10);
    }
}
