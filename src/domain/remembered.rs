//! Remembered movement ids: the idempotency table.
//!
//! At 100,000 movements a second, a horizon of days is billions of ids, so an entry is 16 bytes:
//! 88 bits of the key's hash, 28 bits of the content's, the epoch it arrived in, and the outcome
//! it had. With 10^9 ids remembered, the chance that one new id is taken for a known one is
//! 10^9 / 2^88, or 3 in 10^18.
//!
//! The table is split into parts by the key's first bits. Within a part, entries lie sorted by
//! key at a place scaled from the key (linear probing in order, as in Robin Hood hashing), so a
//! search ends early and growing is one sequential pass. Parts grow by a quarter at 7/8 full, so
//! that no more than 23 bytes are used for an id, and growing never stalls for long. Keys fall on all
//! parts alike, so each part has capacities of its own: else they would all grow at once, and
//! movements would wait meanwhile.

use super::{exceptions::ParkedKind, keys::MovementKey, prefetch};

/// Parts of the table.
const PARTS: usize = 256;
/// Entries that a part has room for at least.
const PART_CAPACITY_MIN: usize = 16;
/// Places behind the last scaled one, for entries pushed along; more if they crowd there.
const OVERHANG_MIN: usize = 64;
/// Cache lines from the scaled place on that are fetched ahead.
const PREFETCH_LINES: usize = 3;
/// Epochs a sweep may lag behind: an epoch's number is kept in 8 bits.
const SWEEP_EVERY_EPOCHS: u64 = 64;

/// Outcome of a remembered movement, and where it is told from an empty place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RememberedOutcome {
    /// In the books.
    Applied = 1,
    /// Parked as stale.
    Stale = 2,
}

/// What the table knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing; it is remembered from now on.
    New,
    /// Equal content, with this outcome.
    Repeat(RememberedOutcome),
    /// Other content.
    Conflict,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// First 64 bits of the key's hash: the order of entries.
    high: u64,
    /// 24 further bits of the key, 28 of the content, 8 of the epoch, [`Entry::MARK`], 3 of the
    /// outcome; 0: empty.
    low: u64,
}

const _: () = assert!(size_of::<Entry>() == 16);

impl Entry {
    const KEY_SHIFT: u32 = 40;
    const CONTENT_SHIFT: u32 = 12;
    const CONTENT_MASK: u64 = (1 << 28) - 1;
    const EPOCH_SHIFT: u32 = 4;
    /// Whether the checkpoint under way has it, see `saving`.
    const MARK: u64 = 1 << 3;
    const OUTCOME_MASK: u64 = Self::MARK - 1;

    fn new(key: MovementKey, content: u64, epoch: u64, outcome: RememberedOutcome) -> Self {
        Self {
            high: (key.0 >> 64) as u64,
            low: (key.0 as u64) >> Self::KEY_SHIFT << Self::KEY_SHIFT
                | (content & Self::CONTENT_MASK) << Self::CONTENT_SHIFT
                | (epoch & 0xff) << Self::EPOCH_SHIFT
                | outcome as u64,
        }
    }

    fn is_empty(self) -> bool {
        self.low == 0
    }

    fn same_key(self, other: Entry) -> bool {
        self.high == other.high && (self.low ^ other.low) >> Self::KEY_SHIFT == 0
    }

    fn same_content(self, other: Entry) -> bool {
        (self.low ^ other.low) >> Self::CONTENT_SHIFT & Self::CONTENT_MASK == 0
    }

    /// Epochs since it arrived.
    fn age(self, epoch: u64) -> u64 {
        epoch.wrapping_sub(self.low >> Self::EPOCH_SHIFT) & 0xff
    }

    fn outcome(self) -> RememberedOutcome {
        if self.low & Self::OUTCOME_MASK == RememberedOutcome::Stale as u64 {
            RememberedOutcome::Stale
        } else {
            RememberedOutcome::Applied
        }
    }
}

#[derive(Debug)]
struct Part {
    entries: Box<[Entry]>,
    capacity: usize,
    used: usize,
}

impl Part {
    /// An empty one, of this number.
    fn new(number: usize) -> Self {
        Self::with_capacity(capacity_for(0, number), OVERHANG_MIN)
    }

    fn with_capacity(capacity: usize, overhang: usize) -> Self {
        Self {
            entries: vec![Entry::default(); capacity + overhang].into_boxed_slice(),
            capacity,
            used: 0,
        }
    }

    /// The place at which an entry lies if nothing pushed it along.
    #[inline]
    fn home(&self, high: u64) -> usize {
        // The first bits chose the part; the others are scaled to its capacity.
        let within = high << PARTS.trailing_zeros();
        ((u128::from(within) * self.capacity as u128) >> 64) as usize
    }

    /// Looks `entry` up; where it is not there, the place to put it.
    #[inline]
    fn find(&self, entry: Entry) -> Result<usize, usize> {
        let mut at = self.home(entry.high);
        while at < self.entries.len() {
            let here = self.entries[at];
            if here.is_empty() || here.high > entry.high {
                return Err(at);
            }
            if here.same_key(entry) {
                return Ok(at);
            }
            at += 1;
        }
        Err(at)
    }

    /// Puts `entry` at `at`, pushing others along; false if there is no room.
    fn put(&mut self, at: usize, entry: Entry) -> bool {
        let Some(gap) = self.entries[at..].iter().position(|e| e.is_empty()) else {
            return false;
        };
        self.entries.copy_within(at..at + gap, at + 1);
        self.entries[at] = entry;
        self.used += 1;
        true
    }

    fn overhang(&self) -> usize {
        self.entries.len() - self.capacity
    }

    /// Drops the entries older than `epochs_max` and makes room for more, as the part of this number.
    fn rebuild(&mut self, number: usize, epoch: u64, epochs_max: u64, overhang: usize) {
        let live = |e: &&Entry| !e.is_empty() && e.age(epoch) <= epochs_max;
        let entries = self.entries.iter().filter(live).copied();
        *self = Part::of_sorted(entries, number, overhang);
    }

    /// The part of this number with these entries, which come in order, and with room for more.
    fn of_sorted(
        entries: impl Iterator<Item = Entry> + Clone,
        number: usize,
        mut overhang: usize,
    ) -> Self {
        let count = entries.clone().count();
        let capacity = capacity_for(count, number);
        loop {
            let mut next = Part::with_capacity(capacity, overhang);
            let mut end = 0;
            let fits = entries.clone().all(|entry| {
                // Entries come in order, so each goes behind the one before it.
                let at = next.home(entry.high).max(end);
                end = at + 1;
                next.entries
                    .get_mut(at)
                    .map(|place| *place = entry)
                    .is_some()
            });
            if fits {
                next.used = count;
                return next;
            }
            // They crowd at the end. A larger capacity need not spread them: equal keys, say.
            overhang *= 2;
        }
    }
}

/// The ids of the last epochs.
#[derive(Debug)]
pub struct RememberedIds {
    parts: Vec<Part>,
    /// Epoch of the last arrival.
    epoch: u64,
    /// Oldest epoch remembered.
    oldest: u64,
    used: usize,
    saving: Saving,
}

impl Default for RememberedIds {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(Part::new).collect(),
            epoch: 0,
            oldest: 0,
            used: 0,
            saving: Saving::default(),
        }
    }
}

impl RememberedIds {
    /// Looks an id up, and remembers it with `outcome` if it is new. An entry that is older than
    /// the oldest epoch counts as not there.
    pub fn check_and_remember(
        &mut self,
        key: MovementKey,
        content: u64,
        outcome: RememberedOutcome,
    ) -> Known {
        let entry = self
            .saving
            .marked(Entry::new(key, content, self.epoch, outcome));
        let (epoch, epochs_max) = (self.epoch, self.epoch - self.oldest);
        let number = part_of(key);
        let Self { parts, saving, .. } = self;
        let part = &mut parts[number];
        match part.find(entry) {
            Ok(at) if part.entries[at].age(epoch) <= epochs_max => {
                let known = part.entries[at];
                if known.same_content(entry) {
                    Known::Repeat(known.outcome())
                } else {
                    Known::Conflict
                }
            }
            Ok(at) => {
                saving.before_replacing(number, part, at);
                part.entries[at] = entry;
                Known::New
            }
            Err(mut at) => {
                self.used -= part.used;
                if (part.used + 1) * 8 > part.capacity * 7 {
                    saving.before_rebuilding(number, part, self.oldest);
                    part.rebuild(number, epoch, epochs_max, OVERHANG_MIN);
                    at = part.find(entry).unwrap_or_else(|at| at);
                }
                while !part.put(at, entry) {
                    saving.before_rebuilding(number, part, self.oldest);
                    part.rebuild(number, epoch, epochs_max, part.overhang() * 2);
                    at = part.find(entry).unwrap_or_else(|at| at);
                }
                self.used += part.used;
                Known::New
            }
        }
    }

    /// What the table knows of an id, without remembering it.
    pub fn contains(&self, key: MovementKey) -> bool {
        let part = &self.parts[part_of(key)];
        let wanted = Entry::new(key, 0, 0, RememberedOutcome::Applied);
        part.find(wanted)
            .is_ok_and(|at| part.entries[at].age(self.epoch) <= self.epoch - self.oldest)
    }

    /// Whether an id is known with equal content.
    pub fn is_repeat(&self, key: MovementKey, content: u64) -> bool {
        let part = &self.parts[part_of(key)];
        let wanted = Entry::new(key, content, 0, RememberedOutcome::Applied);
        part.find(wanted).is_ok_and(|at| {
            let known = part.entries[at];
            known.age(self.epoch) <= self.epoch - self.oldest && known.same_content(wanted)
        })
    }

    /// Brings what a look-up of `key` will read into the cache.
    #[inline]
    pub fn prefetch(&self, key: MovementKey) {
        let part = &self.parts[part_of(key)];
        let home: *const Entry = &part.entries[part.home((key.0 >> 64) as u64)];
        // A new one is put some entries further on average, and pushes others along.
        for line in 0..PREFETCH_LINES {
            prefetch::read(home.wrapping_byte_add(line * 64));
        }
    }

    /// Arrivals are from now on in `epoch`; those before `oldest` are forgotten.
    ///
    /// # Panics
    /// If an epoch steps back, or more than 128 epochs would be remembered.
    pub fn advance(&mut self, epoch: u64, oldest: u64) {
        assert!(epoch >= self.epoch && oldest >= self.oldest && oldest <= epoch);
        assert!(epoch - oldest <= 128, "epochs are told apart by 8 bits");
        let passed = epoch - self.epoch;
        if passed > SWEEP_EVERY_EPOCHS {
            // Idle for long: an entry may be so old that its age, in 8 bits, looks young. As of
            // the last arrival it does not, so the sweep is as of then.
            match (epoch - oldest).checked_sub(passed) {
                Some(epochs_max) => self.sweep(0..PARTS, self.epoch, epochs_max),
                None => {
                    for (number, part) in self.parts.iter_mut().enumerate() {
                        self.saving.save_once(number, part);
                        *part = Part::new(number);
                    }
                    self.used = 0;
                }
            }
        } else {
            // Each part in its turn, so that an entry's age never wraps around.
            for due in self.epoch + 1..=epoch {
                let turn =
                    (due % SWEEP_EVERY_EPOCHS) as usize * PARTS / SWEEP_EVERY_EPOCHS as usize;
                let parts = PARTS / SWEEP_EVERY_EPOCHS as usize;
                self.sweep(
                    turn..turn + parts,
                    due,
                    (due.saturating_sub(oldest)).min(128),
                );
            }
        }
        self.epoch = epoch;
        self.oldest = oldest;
    }

    fn sweep(&mut self, parts: std::ops::Range<usize>, epoch: u64, epochs_max: u64) {
        for number in parts {
            let part = &mut self.parts[number];
            self.saving.save_once(number, part);
            self.used -= part.used;
            part.rebuild(number, epoch, epochs_max, OVERHANG_MIN);
            self.used += part.used;
        }
    }

    /// Ids held, some that are forgotten and not yet swept included.
    pub fn len(&self) -> usize {
        self.used
    }

    /// True if none is held.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Bytes that the table occupies.
    pub fn bytes(&self) -> usize {
        self.parts
            .iter()
            .map(|part| part.entries.len() * size_of::<Entry>())
            .sum()
    }
}

mod saving;

use saving::Saving;

/// The capacity of the part of this number that has so many entries, and is less than 7/8 full with
/// them. Each is a quarter more than the one below, and those of other parts lie evenly in between: so
/// parts that have as many ids as each other grow one after the other.
fn capacity_for(count: usize, number: usize) -> usize {
    // With fractions, which make the difference where capacities are small.
    const ONE: u128 = 1 << 32;
    let min = PART_CAPACITY_MIN as u128 * ONE;
    let mut capacity = min + min * number as u128 / (4 * PARTS as u128);
    while (count as u128 + 1) * 8 > capacity / ONE * 7 {
        capacity += capacity / 4;
    }
    (capacity / ONE) as usize
}

fn part_of(key: MovementKey) -> usize {
    (key.0 >> (128 - PARTS.trailing_zeros())) as usize
}

impl From<RememberedOutcome> for super::exceptions::Outcome {
    fn from(outcome: RememberedOutcome) -> Self {
        match outcome {
            RememberedOutcome::Applied => Self::Applied,
            RememberedOutcome::Stale => Self::Parked(ParkedKind::Stale),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u64) -> MovementKey {
        MovementKey(xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()))
    }

    #[test]
    fn a_repeat_is_told_from_a_conflict() {
        let mut ids = RememberedIds::default();
        let applied = RememberedOutcome::Applied;
        assert_eq!(ids.check_and_remember(key(1), 7, applied), Known::New);
        assert_eq!(
            ids.check_and_remember(key(1), 7, applied),
            Known::Repeat(applied)
        );
        assert_eq!(ids.check_and_remember(key(1), 8, applied), Known::Conflict);
        assert_eq!(
            ids.check_and_remember(key(2), 7, RememberedOutcome::Stale),
            Known::New
        );
        assert_eq!(
            ids.check_and_remember(key(2), 7, applied),
            Known::Repeat(RememberedOutcome::Stale)
        );
    }

    /// Whatever they went through before, of 100 million ids, too.
    #[test]
    fn parts_with_as_many_ids_grow_one_after_the_other() {
        let capacities = |count: usize| (0..PARTS).map(move |number| capacity_for(count, number));
        for count in [1_000, 4_000, 60_000, 400_000] {
            let mut grown = 0;
            // A quarter more, in hundredths.
            for hundredth in 0..25 {
                let now = count + count * hundredth / 100;
                let then = count + count * (hundredth + 1) / 100;
                let both = capacities(now).zip(capacities(then));
                let at_once = both.filter(|(now, then)| now != then).count();
                assert!(at_once <= PARTS / 16, "{at_once} parts at {now}");
                grown += at_once;
            }
            assert!((PARTS - 8..=PARTS + 8).contains(&grown), "{grown} parts");
            for capacity in capacities(count) {
                assert!((count + 1) * 8 <= capacity * 7, "{count} in {capacity}");
                assert!(count * 10 + 20 >= capacity * 7, "{count} in {capacity}");
            }
        }
    }

    #[test]
    fn an_id_costs_at_most_24_bytes_once_there_are_many() {
        let mut ids = RememberedIds::default();
        for n in 0..400_000 {
            ids.check_and_remember(key(n), n, RememberedOutcome::Applied);
            if n > 100_000 && n % 10_000 == 0 {
                assert!(ids.bytes() <= ids.len() * 25, "{} ids: {}", n, ids.bytes());
            }
        }
        assert_eq!(ids.len(), 400_000);
        assert!((0..400_000).all(|n| ids.contains(key(n))));
        assert!((400_000..500_000).all(|n| !ids.contains(key(n))));
    }

    #[test]
    fn what_is_forgotten_does_not_come_back_after_a_long_silence() {
        // An epoch's number is kept in 8 bits, so it looks like that of 256 epochs later.
        for silence in 120..=600 {
            let mut ids = RememberedIds::default();
            for n in 0..64 {
                ids.advance(n, n.saturating_sub(64));
                ids.check_and_remember(key(n), 1, RememberedOutcome::Applied);
            }
            ids.advance(63 + silence, silence);
            assert!((0..64).all(|n| !ids.contains(key(n))), "after {silence}");
            assert!(ids.is_empty(), "after {silence}");
        }
    }

    #[test]
    fn keys_that_crowd_at_the_end_find_room() {
        // All of them belong on the last place of the last part.
        let crowd = |n: u64| MovementKey(u128::from(u64::MAX) << 64 | u128::from(n) << 40);
        let mut ids = RememberedIds::default();
        for n in 0..1_000 {
            let known = ids.check_and_remember(crowd(n), n, RememberedOutcome::Applied);
            assert_eq!(known, Known::New);
        }
        assert_eq!(ids.len(), 1_000);
        assert!((0..1_000).all(|n| ids.contains(crowd(n))));
    }

    proptest! {
        /// Against a map from id to content and epoch, over epochs that pass and are forgotten.
        #[test]
        fn agrees_with_a_map(
            steps in prop::collection::vec((0u64..300, 0u64..3, 0u64..40), 1..2_000),
            kept in 1u64..100,
        ) {
            let mut ids = RememberedIds::default();
            let mut model: HashMap<u64, (u64, u64)> = HashMap::new();
            let (mut epoch, mut oldest) = (0, 0);
            for (id, content, step) in steps {
                if step < 4 {
                    epoch += step * step * step * step;
                    oldest = oldest.max(epoch.saturating_sub(kept));
                    ids.advance(epoch, oldest);
                }
                let known = ids.check_and_remember(key(id), content, RememberedOutcome::Applied);
                let expected = match model.get(&id) {
                    Some((_, arrived)) if *arrived < oldest => Known::New,
                    Some((known, _)) if *known == content => {
                        Known::Repeat(RememberedOutcome::Applied)
                    }
                    Some(_) => Known::Conflict,
                    None => Known::New,
                };
                if expected == Known::New {
                    model.insert(id, (content, epoch));
                }
                prop_assert_eq!(known, expected);
            }
        }
    }
}
