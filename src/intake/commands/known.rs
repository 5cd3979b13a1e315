//! The commands that are remembered. They can be saved for a checkpoint while they change: each has
//! a mark that says whether it was saved already, and one that is about to change before it has
//! had its turn is saved first.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::Decided;
use crate::domain::{admission::Horizon, movement::TimeUs};

/// Epochs that make up the horizon.
const EPOCHS: u64 = 64;
/// Before it is known for how long an id is kept.
const NO_EPOCH: u64 = u64::MAX;
/// Parts of the table.
const PARTS: usize = 256;
/// Places of the table that are looked at in one slice of a checkpoint.
const PLACES_OF_SLICE: usize = 128;

/// A remembered command.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) content: u64,
    /// When it was last meant.
    pub(super) epoch: u64,
    pub(super) decided: Decided,
    /// Of a reservation: when it ends, as far as it was granted.
    pub(super) until_us: TimeUs,
    pub(super) confirmed: bool,
    /// Equal to that of the table once it is saved, and always when nothing is being saved.
    mark: bool,
}

type Part = HashTable<(u128, Known)>;

/// See the module.
#[derive(Debug)]
pub(super) struct KnownCommands {
    parts: Vec<Part>,
    len: usize,
    /// Ids by the epoch in which they were last meant, oldest first.
    epochs: VecDeque<(u64, Vec<u128>)>,
    epoch_us: i64,
    mark: bool,
    /// The next part to be saved; `None`: nothing is under way.
    next: Option<usize>,
    /// How far that has come in it.
    place: usize,
    saved: Vec<(u128, Known)>,
}

impl Known {
    pub(super) fn new(content: u64, decided: Decided, until_us: TimeUs) -> Self {
        Self {
            content,
            epoch: NO_EPOCH,
            decided,
            until_us,
            confirmed: false,
            mark: false,
        }
    }
}

fn part_of(key: u128) -> usize {
    key as usize % PARTS
}

/// Keys are hashes already: their upper half is taken as it is, since the lower chooses the part.
fn hash_of(key: u128) -> u64 {
    (key >> 64) as u64
}

impl KnownCommands {
    pub(super) fn new(horizon: Horizon) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            len: 0,
            epochs: VecDeque::new(),
            epoch_us: (horizon.us / EPOCHS as i64).max(1),
            mark: false,
            next: None,
            place: 0,
            saved: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: u128) -> Option<&Known> {
        let part = &self.parts[part_of(key)];
        let found = part.find(hash_of(key), |(known, _)| *known == key);
        found.map(|(_, known)| known)
    }

    /// One that is about to be changed.
    pub(super) fn change(&mut self, key: u128) -> Option<&mut Known> {
        let part = &mut self.parts[part_of(key)];
        let (_, known) = part.find_mut(hash_of(key), |(known, _)| *known == key)?;
        if known.mark != self.mark {
            self.saved.push((key, known.clone()));
            known.mark = self.mark;
        }
        Some(known)
    }

    /// Puts in a new one, which is kept for the horizon from now on.
    pub(super) fn insert(&mut self, key: u128, mut known: Known, now_us: TimeUs) {
        known.mark = self.mark;
        known.epoch = self.epoch_of(now_us);
        self.note(key, known.epoch);
        self.put(key, known);
    }

    /// Puts in what is not there.
    fn put(&mut self, key: u128, known: Known) {
        let number = part_of(key);
        let part = &mut self.parts[number];
        if part.len() == part.capacity() && self.next == Some(number) {
            // It may make room, and all have other places then. Those that were saved are marked.
            self.place = 0;
        }
        part.insert_unique(hash_of(key), (key, known), |(key, _)| hash_of(*key));
        self.len += 1;
    }

    fn epoch_of(&self, now_us: TimeUs) -> u64 {
        (now_us / self.epoch_us) as u64
    }

    /// An id was last meant in this epoch, the latest.
    fn note(&mut self, key: u128, epoch: u64) {
        match self.epochs.back_mut() {
            Some((last, keys)) if *last == epoch => keys.push(key),
            _ => self.epochs.push_back((epoch, vec![key])),
        }
    }

    /// An id is kept for the horizon from now on.
    pub(super) fn remember(&mut self, key: u128, now_us: TimeUs) {
        let epoch = self.epoch_of(now_us);
        if self.get(key).is_none_or(|known| known.epoch == epoch) {
            return;
        }
        if let Some(known) = self.change(key) {
            known.epoch = epoch;
        }
        self.note(key, epoch);
    }

    /// Forgets those that were last meant before the horizon.
    pub(super) fn forget(&mut self, now_us: TimeUs) {
        let epoch = self.epoch_of(now_us);
        while let Some((oldest, _)) = self.epochs.front()
            && *oldest + EPOCHS < epoch
        {
            let (oldest, keys) = self.epochs.pop_front().expect("there is one");
            for key in keys {
                // It may have been meant again since.
                if self.get(key).is_some_and(|known| known.epoch == oldest) {
                    self.change(key);
                    let part = &mut self.parts[part_of(key)];
                    if let Ok(found) = part.find_entry(hash_of(key), |(known, _)| *known == key) {
                        found.remove();
                        self.len -= 1;
                    }
                }
            }
        }
    }

    /// All of them, as they are now, are to be saved.
    ///
    /// # Panics
    /// If that is under way already.
    pub(super) fn begin_saving(&mut self) {
        assert!(self.next.is_none(), "commands are being saved already");
        self.mark = !self.mark;
        self.next = Some(0);
    }

    /// Saves some more. True if there are more.
    pub(super) fn save_slice(&mut self) -> bool {
        self.save_places(PLACES_OF_SLICE)
    }

    fn save_places(&mut self, places: usize) -> bool {
        let Some(number) = self.next else {
            return false;
        };
        let part = &mut self.parts[number];
        let end = (self.place + places).min(part.num_buckets());
        for place in self.place..end {
            if let Some((key, known)) = part.get_bucket_mut(place)
                && known.mark != self.mark
            {
                known.mark = self.mark;
                self.saved.push((*key, known.clone()));
            }
        }
        self.place = end;
        if end < part.num_buckets() {
            return true;
        }
        self.place = 0;
        self.next = Some(number + 1).filter(|next| *next < PARTS);
        self.next.is_some()
    }

    /// How many were saved and not yet taken.
    pub(super) fn saved_len(&self) -> usize {
        self.saved.len()
    }

    /// Takes those that were saved.
    pub(super) fn take_saved(&mut self) -> Vec<(u128, Known)> {
        std::mem::take(&mut self.saved)
    }

    /// Takes back those that were saved, in any order.
    pub(super) fn take_back(&mut self, mut all: Vec<(u128, Known)>) {
        all.sort_unstable_by_key(|(key, known)| (known.epoch, *key));
        for (key, mut known) in all {
            known.mark = self.mark;
            self.note(key, known.epoch);
            self.put(key, known);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::intake::commands::{Decision, Refusal};

    /// Ids of one part, so that it grows, and has other places when many have gone.
    fn key(n: u64) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()) & !0xff
    }

    proptest! {
        /// Commands that come in, change and are forgotten while others are saved.
        #[test]
        fn what_is_saved_is_how_they_stood(
            before in prop::collection::btree_set(0u64..300, 0..300),
            after in prop::collection::vec((0u64..600, 0u8..8, 0usize..60), 0..1_000),
        ) {
            let horizon = Horizon { us: EPOCHS as i64, ..Horizon::DEFAULT };
            let mut commands = KnownCommands::new(horizon);
            let known = |content| {
                let decided = Decided {
                    decision: Decision::refused(Refusal::TooMany),
                    position: 1,
                    time_us: 1,
                };
                Known::new(content, decided, 0)
            };
            let mut now_us = 1;
            let mut expected = BTreeMap::new();
            for n in before {
                commands.insert(key(n), known(n), now_us);
                expected.insert(key(n), (n, false));
            }
            commands.begin_saving();
            for (n, what, places) in after {
                match what {
                    0..4 if commands.get(key(n)).is_none() => {
                        commands.insert(key(n), known(n), now_us);
                    }
                    0..6 => {
                        if let Some(known) = commands.change(key(n)) {
                            known.confirmed = true;
                        }
                    }
                    _ => {
                        now_us += 1;
                        commands.forget(now_us);
                    }
                }
                if places < 20 {
                    commands.save_places(places + 1);
                }
            }
            while commands.save_slice() {}
            let mut saved = BTreeMap::new();
            for (key, known) in commands.take_saved() {
                let again = saved.insert(key, (known.content, known.confirmed));
                assert!(again.is_none(), "it was saved twice");
            }
            prop_assert_eq!(saved, expected);
        }
    }
}
