//! Saving ids for a checkpoint, and taking them back.
//!
//! Ids come in at random places, so saving a part as soon as one comes into it would save all parts
//! at once. Instead each has a mark that says whether it was saved, which those have from the start
//! that come in meanwhile, and places are looked through one after the other; only a part of which
//! something is about to be dropped is saved earlier.

use super::{Entry, OVERHANG_MIN, PARTS, Part, RememberedIds};
use crate::domain::saved::{Broken, Input, Output};

/// Places of the table that are looked at in one slice.
const PLACES_OF_SLICE: usize = 1_024;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// [`Entry::MARK`] or 0: what entries have once they are saved, and all when nothing is under
    /// way.
    mark: u64,
    /// The next part; `None`: nothing is under way.
    next: Option<usize>,
    /// How far it has come in that part. What comes in pushes others along, and never back: nothing
    /// before it is unsaved.
    place: usize,
    /// Oldest epoch remembered when it began.
    oldest: u64,
    /// By part, whether all of it was saved; empty if nothing is under way.
    saved: Vec<bool>,
    output: Output,
    /// Of the part that is being taken back.
    taken: (usize, Vec<Entry>),
}

impl Saving {
    /// One that comes in now: no checkpoint under way is to have it.
    #[inline]
    pub(super) fn marked(&self, entry: Entry) -> Entry {
        Entry {
            low: entry.low | self.mark,
            ..entry
        }
    }

    /// A part is about to drop what is older than `oldest`, and to have other places. What was saved
    /// of it is marked.
    pub(super) fn before_rebuilding(&mut self, number: usize, part: &mut Part, oldest: u64) {
        // What was forgotten when it began need not be saved.
        if oldest != self.oldest {
            self.save_once(number, part);
        }
        if self.next == Some(number) {
            self.place = 0;
        }
    }

    /// Another is put in the place of one that is forgotten.
    pub(super) fn before_replacing(&mut self, number: usize, part: &mut Part, at: usize) {
        if part.entries[at].low & Entry::MARK != self.mark {
            self.save_once(number, part);
        }
    }

    /// Saves what is left of a part: some of it is about to be dropped.
    pub(super) fn save_once(&mut self, number: usize, part: &mut Part) {
        if self.saved.get(number) == Some(&false) {
            self.save(number, &mut part.entries);
            self.saved[number] = true;
        }
    }

    /// Saves those of some entries of a part that are not saved yet.
    fn save(&mut self, number: usize, entries: &mut [Entry]) {
        let is_unsaved = |entry: &Entry| !entry.is_empty() && entry.low & Entry::MARK != self.mark;
        let count = entries.iter().filter(|entry| is_unsaved(entry)).count();
        if count == 0 {
            return;
        }
        self.output.u16(number as u16);
        self.output.count(count);
        for entry in entries.iter_mut().filter(|entry| is_unsaved(entry)) {
            entry.low ^= Entry::MARK;
            let (high, low) = saved_of(entry);
            self.output.u128(u128::from(low) << 64 | u128::from(high));
        }
    }
}

/// All that is saved of one.
fn saved_of(entry: &Entry) -> (u64, u64) {
    (entry.high, entry.low & !Entry::MARK)
}

impl RememberedIds {
    /// All ids, as they are now, are to be saved.
    ///
    /// # Panics
    /// If that is under way already.
    pub(in crate::domain) fn begin_saving(&mut self, output: &mut Output) {
        assert!(self.saving.next.is_none(), "ids are being saved already");
        output.u64(self.epoch);
        output.u64(self.oldest);
        self.saving.mark ^= Entry::MARK;
        self.saving.next = Some(0);
        self.saving.oldest = self.oldest;
        self.saving.saved = vec![false; PARTS];
    }

    /// Saves some more. True if there are more.
    pub(in crate::domain) fn save_slice(&mut self) -> bool {
        self.save_places(PLACES_OF_SLICE)
    }

    fn save_places(&mut self, places: usize) -> bool {
        let Self { parts, saving, .. } = self;
        let Some(number) = saving.next else {
            return false;
        };
        let entries = &mut parts[number].entries;
        if !saving.saved[number] {
            let begin = saving.place;
            let end = (begin + places).min(entries.len());
            saving.save(number, &mut entries[begin..end]);
            saving.place = end;
            if end < entries.len() {
                return true;
            }
            saving.saved[number] = true;
        }
        saving.place = 0;
        saving.next = Some(number + 1).filter(|next| *next < PARTS);
        if saving.next.is_none() {
            saving.saved = Vec::new();
        }
        saving.next.is_some()
    }

    /// What was saved and not yet taken.
    pub(in crate::domain) fn saved(&mut self) -> &mut Output {
        &mut self.saving.output
    }

    /// Ids of the same epochs, still without any.
    pub(in crate::domain) fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let (epoch, oldest) = (input.u64()?, input.u64()?);
        if oldest > epoch || epoch - oldest > 128 {
            return Err(Broken("it has ids of epochs that cannot be"));
        }
        Ok(Self {
            epoch,
            oldest,
            ..Self::default()
        })
    }

    /// Takes saved ids back, in the order in which they were saved.
    pub(in crate::domain) fn take_back(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let number = usize::from(input.u16()?);
            let count = input.count()?;
            let entries = input.exactly(count * size_of::<Entry>())?;
            if number >= PARTS {
                return Err(Broken("it has ids of a part that is not there"));
            }
            if self.saving.taken.0 != number {
                self.put_back();
                self.saving.taken.0 = number;
            }
            let (entries, _) = entries.as_chunks::<{ size_of::<Entry>() }>();
            self.saving.taken.1.extend(entries.iter().map(|bytes| {
                let entry = u128::from_le_bytes(*bytes);
                Entry {
                    high: entry as u64,
                    low: (entry >> 64) as u64,
                }
            }));
        }
        Ok(())
    }

    /// All that was saved has been taken back.
    pub(in crate::domain) fn all_taken_back(&mut self) {
        self.put_back();
        self.saving.taken.1 = Vec::new();
    }

    fn put_back(&mut self) {
        let (number, entries) = &mut self.saving.taken;
        let part = &mut self.parts[*number];
        self.used -= part.used;
        // Some of it may be there: another part had to be saved in between.
        let there = part.entries.iter().filter(|entry| !entry.is_empty());
        *part = Part::of_sorted(there.chain(entries.iter()).copied(), *number, OVERHANG_MIN);
        self.used += part.used;
        entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{keys::MovementKey, remembered::RememberedOutcome};

    fn key(n: u64) -> MovementKey {
        MovementKey(xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()))
    }

    fn entries(ids: &RememberedIds) -> BTreeSet<(u64, u64)> {
        let entries = ids.parts.iter().flat_map(|part| part.entries.iter());
        let remembered =
            |entry: &&Entry| !entry.is_empty() && entry.age(ids.epoch) <= ids.epoch - ids.oldest;
        entries.filter(remembered).map(saved_of).collect()
    }

    fn restored(head: Output, ids: &mut RememberedIds) -> RememberedIds {
        let head = head.into_bytes();
        let mut loaded = RememberedIds::load(&mut Input::new(&head)).expect("epochs");
        loaded
            .take_back(&ids.saved().take())
            .expect("these are ids");
        loaded.all_taken_back();
        let mut used = 0;
        for part in &loaded.parts {
            let entries: Vec<_> = part.entries.iter().filter(|e| !e.is_empty()).collect();
            assert!(entries.is_sorted_by_key(|entry| entry.high));
            assert_eq!(entries.len(), part.used);
            let alone: BTreeSet<_> = entries.iter().map(|entry| saved_of(entry)).collect();
            assert_eq!(alone.len(), part.used, "one is there twice");
            used += part.used;
        }
        assert_eq!(loaded.len(), used);
        loaded
    }

    proptest! {
        /// Ids that come in, are forgotten and swept while others are saved, in all parts and in two
        /// that grow meanwhile.
        #[test]
        fn what_is_saved_is_what_was_remembered(
            before in prop::collection::vec((0u64..2_000, 0u64..100), 0..1_500),
            after in prop::collection::vec((0u64..4_000, 0u64..90, 0usize..200), 0..1_500),
            kept in 1u64..100,
            crowded: bool,
        ) {
            let key = |n| match key(n) {
                MovementKey(key) if crowded => MovementKey(key >> 7),
                key => key,
            };
            let mut ids = RememberedIds::default();
            let (mut epoch, mut oldest) = (0, 0);
            let mut go_on = |ids: &mut RememberedIds, by: u64| {
                epoch += by;
                oldest = oldest.max(epoch.saturating_sub(kept));
                ids.advance(epoch, oldest);
            };
            let applied = RememberedOutcome::Applied;
            for (id, by) in before {
                go_on(&mut ids, by / 99);
                ids.check_and_remember(key(id), id, applied);
            }
            let expected = entries(&ids);
            let mut head = Output::new();
            ids.begin_saving(&mut head);
            for (id, by, slices) in after {
                go_on(&mut ids, by.saturating_sub(80));
                ids.check_and_remember(key(id), id, applied);
                if slices < 100 {
                    ids.save_places(slices + 1);
                }
            }
            while ids.save_slice() {}
            let loaded = restored(head, &mut ids);
            prop_assert_eq!(entries(&loaded), expected);
            // And the next time as well.
            let expected = entries(&ids);
            let mut head = Output::new();
            ids.begin_saving(&mut head);
            while ids.save_slice() {}
            prop_assert_eq!(entries(&restored(head, &mut ids)), expected);
        }
    }
}
