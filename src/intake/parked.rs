//! Parked movements: in the log, not in the books, kept for a person to decide.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
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
/// The details of at most `kept_max`, with at most [`PARKED_BYTES_MAX`] bytes, are held in
/// memory; of those before, the counts and the digest, while the bytes are in the log.
#[derive(Debug)]
pub struct ParkedList {
    kept_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    numbers: HashMap<u128, u64>,
    kept: BTreeMap<u64, Parked>,
    /// Of the originals that are kept.
    kept_bytes: usize,
    counts: BTreeMap<ParkedKind, u64>,
    digest: Digest,
}

impl ParkedList {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self {
            kept_max,
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
        // A slice of the record that it came in would keep all of that in memory.
        parked.original = Bytes::copy_from_slice(&parked.original);
        inner.kept_bytes += parked.original.len();
        inner.kept.insert(number, parked);
        while inner.kept.len() > self.kept_max || inner.kept_bytes > PARKED_BYTES_MAX {
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
            .range((Bound::Excluded(after), Bound::Unbounded))
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
        assert_eq!(list.page(&[], 0, 10, usize::MAX)[0].1.occurrences, 2);
        list.park(parked("a", ParkedKind::Stale));
        assert_ne!(list.digest(), once);
        assert_eq!(list.page(&[ParkedKind::Stale], 0, 10, usize::MAX).len(), 1);
    }

    #[test]
    fn details_are_bounded_and_counts_are_not_lost() {
        let list = ParkedList::new(3);
        for n in 0..5 {
            list.park(parked(&n.to_string(), ParkedKind::Malformed));
        }
        let kept: Vec<u64> = list
            .page(&[], 0, 10, usize::MAX)
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert_eq!(kept, [3, 4, 5]);
        assert_eq!(list.page(&[], 3, 1, usize::MAX)[0].0, 4);
        assert_eq!(list.counts()[&ParkedKind::Malformed], 5);
    }

    #[test]
    fn a_page_is_bounded_by_its_bytes() {
        let list = ParkedList::new(10);
        for n in 1..=4 {
            list.park(Parked {
                original: vec![n; 30].into(),
                ..parked("a", ParkedKind::Malformed)
            });
        }
        let numbers = |after, bytes_max| -> Vec<u64> {
            let page = list.page(&[], after, 10, bytes_max);
            page.into_iter().map(|(number, _)| number).collect()
        };
        assert_eq!(numbers(0, 89), [1, 2]);
        assert_eq!(numbers(2, 89), [3, 4]);
        assert_eq!(numbers(0, 1), [1], "one, however large");
    }

    #[test]
    fn any_number_may_be_asked_for() {
        let list = ParkedList::new(3);
        list.park(parked("a", ParkedKind::Malformed));
        assert_eq!(list.page(&[], u64::MAX, 10, usize::MAX), []);
    }

    #[test]
    fn a_parked_movement_does_not_keep_the_record_it_came_in() {
        let list = ParkedList::new(10);
        let record = Bytes::from(vec![7; 1_000]);
        list.park(Parked {
            original: record.slice(10..20),
            ..parked("a", ParkedKind::Stale)
        });
        let kept = list.page(&[], 0, 1, usize::MAX).remove(0).1.original;
        assert_eq!(kept, record.slice(10..20));
        assert!(!record.as_ptr_range().contains(&kept.as_ptr()));
    }

    #[test]
    fn the_bytes_kept_are_bounded() {
        let list = ParkedList::new(1_000);
        let message = Bytes::from(vec![7; PARKED_BYTES_MAX / 4]);
        for n in 0..7 {
            list.park(Parked {
                original: message.clone(),
                ..parked(&n.to_string(), ParkedKind::Malformed)
            });
        }
        let kept: Vec<u64> = list
            .page(&[], 0, 10, usize::MAX)
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert_eq!(kept, [4, 5, 6, 7]);
        assert_eq!(list.counts()[&ParkedKind::Malformed], 7);
    }
}
