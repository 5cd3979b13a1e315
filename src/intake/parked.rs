//! Parked movements: in the log, not in the books, kept for a person to decide.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    domain::{
        digest::{Digest, Digester},
        exceptions::{Acknowledged, ExceptionId, ParkedKind},
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
    /// Who has seen it.
    pub acknowledged: Option<Acknowledged>,
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

/// What is known of a parked movement, even if its details are no longer held.
#[derive(Debug, Clone, Copy)]
struct Known {
    first_seen_us: TimeUs,
    kind: ParkedKind,
    /// A person has neither released nor discarded it.
    open: bool,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<ExceptionId, Known>,
    /// Shared with a checkpoint that is being saved.
    kept: BTreeMap<(TimeUs, ExceptionId), Arc<Parked>>,
    /// Of the originals that are kept.
    kept_bytes: usize,
    counts: BTreeMap<ParkedKind, u64>,
    digest: Digest,
}

impl Inner {
    /// Lets go of the oldest details that are too many.
    fn bound(&mut self, kept_max: usize) {
        while self.kept.len() > kept_max || self.kept_bytes > PARKED_BYTES_MAX {
            let Some((_, oldest)) = self.kept.pop_first() else {
                break;
            };
            self.kept_bytes -= oldest.original.len();
        }
    }
}

impl ParkedList {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self {
            kept_max,
            inner: Mutex::default(),
        }
    }

    /// Adds one. The same again, by its source, id and bytes, only counts up; what a person has
    /// decided about stays decided.
    pub(crate) fn park(&self, mut parked: Parked) {
        let id = parked.exception_id();
        let mut inner = self.lock();
        if let Some(known) = inner.known.get(&id).copied() {
            if let Some(kept) = inner.kept.get_mut(&(known.first_seen_us, id)) {
                Arc::make_mut(kept).occurrences += 1;
            }
            return;
        }
        let known = Known {
            first_seen_us: parked.first_seen_us,
            kind: parked.kind,
            open: true,
        };
        inner.known.insert(id, known);
        *inner.counts.entry(parked.kind).or_default() += 1;
        inner.digest += Digester::default().parked(id.0);
        // A slice of the record that it came in would keep all of that in memory.
        parked.original = Bytes::copy_from_slice(&parked.original);
        inner.kept_bytes += parked.original.len();
        inner
            .kept
            .insert((parked.first_seen_us, id), Arc::new(parked));
        inner.bound(self.kept_max);
    }

    /// A person has released or discarded one. False if it is not open.
    pub(crate) fn close(&self, id: ExceptionId) -> bool {
        let mut inner = self.lock();
        let Some(known) = inner.known.get_mut(&id).filter(|known| known.open) else {
            return false;
        };
        known.open = false;
        let known = *known;
        if let Some(closed) = inner.kept.remove(&(known.first_seen_us, id)) {
            inner.kept_bytes -= closed.original.len();
        }
        if let Some(count) = inner.counts.get_mut(&known.kind) {
            *count -= 1;
        }
        inner.digest -= Digester::default().parked(id.0);
        true
    }

    /// A person has seen one. False if it is not open.
    pub(crate) fn acknowledge(&self, id: ExceptionId, acknowledged: Acknowledged) -> bool {
        let mut inner = self.lock();
        let Some(known) = inner.known.get(&id).filter(|known| known.open).copied() else {
            return false;
        };
        if let Some(kept) = inner.kept.get_mut(&(known.first_seen_us, id)) {
            Arc::make_mut(kept).acknowledged = Some(acknowledged);
        }
        true
    }

    /// The kind of an open one.
    pub fn kind(&self, id: ExceptionId) -> Option<ParkedKind> {
        let inner = self.lock();
        let known = inner.known.get(&id).filter(|known| known.open);
        known.map(|known| known.kind)
    }

    /// An open one, if its details are held.
    pub fn get(&self, id: ExceptionId) -> Option<Parked> {
        let inner = self.lock();
        let known = inner.known.get(&id)?;
        let kept = inner.kept.get(&(known.first_seen_us, id))?;
        Some(Parked::clone(kept))
    }

    /// Those that `wanted` takes after the one at `after`, oldest first: at most `max` and, if that
    /// is more than one, at most `bytes_max` of originals.
    pub fn page(
        &self,
        after: Option<(TimeUs, ExceptionId)>,
        max: usize,
        bytes_max: usize,
        wanted: impl Fn(&Parked) -> bool,
    ) -> Vec<((TimeUs, ExceptionId), Parked)> {
        let inner = self.lock();
        let mut bytes = 0;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        inner
            .kept
            .range((from, Bound::Unbounded))
            .filter(|(_, parked)| wanted(parked))
            .take(max)
            .take_while(|(_, parked)| {
                let first = bytes == 0;
                bytes += parked.original.len();
                first || bytes <= bytes_max
            })
            .map(|(place, parked)| (*place, Parked::clone(parked)))
            .collect()
    }

    /// How many are open, by kind.
    pub fn counts(&self) -> BTreeMap<ParkedKind, u64> {
        self.lock().counts.clone()
    }

    /// When the oldest of each kind that is held was first seen.
    pub fn oldest(&self) -> BTreeMap<ParkedKind, TimeUs> {
        let mut oldest = BTreeMap::new();
        for ((first_seen_us, _), parked) in &self.lock().kept {
            oldest.entry(parked.kind).or_insert(*first_seen_us);
        }
        oldest
    }

    pub(crate) fn digest(&self) -> Digest {
        self.lock().digest
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

mod saving;

pub(crate) use saving::digest_of;

impl Parked {
    /// Identity of this exception, the same on every instance.
    pub fn exception_id(&self) -> ExceptionId {
        let mut bytes = Vec::with_capacity(self.original.len() + 256);
        for text in [self.kind.name(), &self.source, &self.id] {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        bytes.extend_from_slice(&self.original);
        ExceptionId(xxhash_rust::xxh3::xxh3_128(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen at the time of its number, so that it comes in that order.
    fn parked(n: i64, kind: ParkedKind) -> Parked {
        Parked {
            kind,
            position: 1,
            index: 0,
            first_seen_us: n,
            source: "wms".into(),
            id: n.to_string(),
            reason: String::new(),
            original: Bytes::from_static(b"x"),
            media_type: String::new(),
            occurrences: 1,
            acknowledged: None,
        }
    }

    fn numbers(list: &ParkedList) -> Vec<i64> {
        let page = list.page(None, 10, usize::MAX, |_| true);
        page.into_iter().map(|((us, _), _)| us).collect()
    }

    #[test]
    fn the_same_again_only_counts_up() {
        let list = ParkedList::new(10);
        list.park(parked(1, ParkedKind::Malformed));
        let once = list.digest();
        list.park(parked(1, ParkedKind::Malformed));
        assert_eq!(list.digest(), once);
        let page = list.page(None, 10, usize::MAX, |_| true);
        assert_eq!(page[0].1.occurrences, 2);
        list.park(parked(1, ParkedKind::Stale));
        assert_ne!(list.digest(), once);
        let stale = |parked: &Parked| parked.kind == ParkedKind::Stale;
        assert_eq!(list.page(None, 10, usize::MAX, stale).len(), 1);
    }

    #[test]
    fn what_a_person_decided_stays_decided() {
        let list = ParkedList::new(10);
        let one = parked(1, ParkedKind::Malformed);
        let id = one.exception_id();
        let empty = list.digest();
        list.park(one.clone());
        let seen = Acknowledged {
            actor: "kim".into(),
            at_us: 5,
            note: "asked the 3PL".into(),
        };
        assert!(list.acknowledge(id, seen.clone()));
        assert_eq!(list.get(id).and_then(|p| p.acknowledged), Some(seen));
        assert!(list.close(id));
        assert!(!list.close(id));
        list.park(one);
        assert_eq!((list.kind(id), list.get(id)), (None, None));
        assert_eq!(list.digest(), empty);
        assert_eq!(list.counts()[&ParkedKind::Malformed], 0);
        assert_eq!(list.oldest(), BTreeMap::new());
    }

    #[test]
    fn details_are_bounded_and_counts_are_not_lost() {
        let list = ParkedList::new(3);
        for n in 1..=5 {
            list.park(parked(n, ParkedKind::Malformed));
        }
        assert_eq!(numbers(&list), [3, 4, 5]);
        let third = parked(3, ParkedKind::Malformed).exception_id();
        let after = list.page(Some((3, third)), 1, usize::MAX, |_| true);
        assert_eq!(after[0].0.0, 4);
        assert_eq!(list.counts()[&ParkedKind::Malformed], 5);
        // Also what is no longer held can be discarded.
        assert!(list.close(parked(1, ParkedKind::Malformed).exception_id()));
        assert_eq!(list.counts()[&ParkedKind::Malformed], 4);
    }

    #[test]
    fn a_page_is_bounded_by_its_bytes() {
        let list = ParkedList::new(10);
        for n in 1..=4 {
            list.park(Parked {
                original: vec![n as u8; 30].into(),
                ..parked(n, ParkedKind::Malformed)
            });
        }
        let places = |after, bytes_max| -> Vec<_> {
            let page = list.page(after, 10, bytes_max, |_| true);
            page.into_iter().map(|(place, _)| place).collect()
        };
        let first = places(None, 89);
        assert_eq!(first.len(), 2);
        assert_eq!(places(first.last().copied(), 89).len(), 2);
        assert_eq!(places(None, 1).len(), 1, "one, however large");
    }

    #[test]
    fn a_parked_movement_does_not_keep_the_record_it_came_in() {
        let list = ParkedList::new(10);
        let record = Bytes::from(vec![7; 1_000]);
        list.park(Parked {
            original: record.slice(10..20),
            ..parked(1, ParkedKind::Stale)
        });
        let page = list.page(None, 1, usize::MAX, |_| true);
        let kept = &page[0].1.original;
        assert_eq!(kept, &record.slice(10..20));
        assert!(!record.as_ptr_range().contains(&kept.as_ptr()));
    }

    #[test]
    fn the_bytes_kept_are_bounded() {
        let list = ParkedList::new(1_000);
        let message = Bytes::from(vec![7; PARKED_BYTES_MAX / 4]);
        for n in 0..7 {
            list.park(Parked {
                original: message.clone(),
                ..parked(n, ParkedKind::Malformed)
            });
        }
        assert_eq!(numbers(&list), [3, 4, 5, 6]);
        assert_eq!(list.counts()[&ParkedKind::Malformed], 7);
    }
}
