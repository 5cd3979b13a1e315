//! The commands that are remembered. They can be saved for a checkpoint while they change: each has
//! a mark that says whether it was saved already, and one that is about to change before its part
//! has had its turn is saved first.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use super::Decided;
use crate::domain::{admission::Horizon, movement::TimeUs};

/// Epochs that make up the horizon.
const EPOCHS: u64 = 64;
/// Before it is known for how long an id is kept.
const NO_EPOCH: u64 = u64::MAX;
/// Parts of the table.
const PARTS: usize = 256;

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

/// Keys are hashes already: their upper half is taken as it is, since the lower chooses the part.
#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Part = HashMap<u128, Known, BuildHasherDefault<KeyHasher>>;

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

impl KnownCommands {
    pub(super) fn new(horizon: Horizon) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            len: 0,
            epochs: VecDeque::new(),
            epoch_us: (horizon.us / EPOCHS as i64).max(1),
            mark: false,
            next: None,
            saved: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: u128) -> Option<&Known> {
        self.parts[part_of(key)].get(&key)
    }

    /// One that is about to be changed.
    pub(super) fn change(&mut self, key: u128) -> Option<&mut Known> {
        let known = self.parts[part_of(key)].get_mut(&key)?;
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
        self.parts[part_of(key)].insert(key, known);
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
                    self.parts[part_of(key)].remove(&key);
                    self.len -= 1;
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

    /// Saves one more part. True if there are more.
    pub(super) fn save_slice(&mut self) -> bool {
        let Some(number) = self.next else {
            return false;
        };
        for (key, known) in &mut self.parts[number] {
            if known.mark != self.mark {
                known.mark = self.mark;
                self.saved.push((*key, known.clone()));
            }
        }
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
            self.parts[part_of(key)].insert(key, known);
            self.len += 1;
        }
    }
}
