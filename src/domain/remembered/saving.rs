//! Saving ids for a checkpoint, and taking them back.
//!
//! Ids come in at random places, so saving a part as soon as one comes into it would save all parts
//! at once. Instead a part is saved when it has its turn, less what came into it since the
//! beginning; only what is about to be dropped is saved earlier.

use super::{Entry, OVERHANG_MIN, PARTS, Part, RememberedIds};
use crate::domain::saved::{Broken, Input, Output};

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// The next part; `None`: nothing is under way.
    next: Option<usize>,
    /// Oldest epoch remembered when it began.
    oldest: u64,
    /// By part; empty if nothing is under way.
    waiting: Vec<Waiting>,
    output: Output,
}

/// What there is to know of a part that is still to be saved.
#[derive(Debug, Default)]
struct Waiting {
    saved: bool,
    /// What came in since.
    new: Vec<Entry>,
    /// What was overwritten since.
    replaced: Vec<Entry>,
}

impl Saving {
    /// `new` comes in the place of `old`, which has been forgotten.
    #[inline]
    pub(super) fn before_replacing(&mut self, number: usize, old: Entry, new: Entry) {
        if let Some(waiting) = self.waiting.get_mut(number).filter(|part| !part.saved) {
            // It may have come in, and been forgotten, since.
            if !waiting.new.contains(&old) {
                waiting.replaced.push(old);
            }
            waiting.new.push(new);
        }
    }

    /// `new` comes in, which may let the part grow and drop what is older than `oldest`.
    #[inline]
    pub(super) fn before_putting(&mut self, number: usize, part: &Part, new: Entry, oldest: u64) {
        if self.waiting.is_empty() {
            return;
        }
        if oldest != self.oldest {
            self.save_once(number, part);
        }
        let waiting = &mut self.waiting[number];
        if !waiting.saved {
            waiting.new.push(new);
        }
    }

    /// Saves a part as it was at the beginning, unless that was done.
    pub(super) fn save_once(&mut self, number: usize, part: &Part) {
        let Some(waiting) = self.waiting.get_mut(number).filter(|part| !part.saved) else {
            return;
        };
        let Waiting {
            mut new, replaced, ..
        } = std::mem::take(waiting);
        waiting.saved = true;
        new.sort_unstable_by_key(order);
        let is_old = |entry: &&Entry| {
            let place = new.binary_search_by_key(&order(entry), order);
            !entry.is_empty() && place.is_err()
        };
        let mut entries: Vec<Entry> = Vec::with_capacity(part.used + replaced.len());
        entries.extend(part.entries.iter().filter(is_old));
        if !replaced.is_empty() {
            entries.extend(replaced);
            entries.sort_unstable_by_key(order);
        }
        if entries.is_empty() {
            return;
        }
        self.output.u16(number as u16);
        self.output.count(entries.len());
        for entry in entries {
            self.output.u64(entry.high);
            self.output.u64(entry.low);
        }
    }
}

/// The order in which entries lie.
fn order(entry: &Entry) -> (u64, u64) {
    (entry.high, entry.low)
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
        self.saving.next = Some(0);
        self.saving.oldest = self.oldest;
        self.saving.waiting = (0..PARTS).map(|_| Waiting::default()).collect();
    }

    /// Saves one more part. True if there are more.
    pub(in crate::domain) fn save_slice(&mut self) -> bool {
        let Some(number) = self.saving.next else {
            return false;
        };
        self.saving.save_once(number, &self.parts[number]);
        self.saving.next = Some(number + 1).filter(|next| *next < PARTS);
        if self.saving.next.is_none() {
            self.saving.waiting = Vec::new();
        }
        self.saving.next.is_some()
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

    /// Takes saved parts back.
    pub(in crate::domain) fn take_back(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let number = usize::from(input.u16()?);
            let count = input.count()?;
            let entries = input.exactly(count * size_of::<Entry>())?;
            let (entries, _) = entries.as_chunks::<{ size_of::<Entry>() }>();
            let entries = entries.iter().map(|bytes| {
                let half = |at: usize| {
                    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
                };
                Entry {
                    high: half(0),
                    low: half(8),
                }
            });
            let part = self.parts.get_mut(number);
            let part = part.ok_or(Broken("it has ids of a part that is not there"))?;
            self.used -= part.used;
            *part = Part::of_sorted(entries, OVERHANG_MIN);
            self.used += part.used;
        }
        Ok(())
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
        entries.filter(remembered).map(order).collect()
    }

    fn restored(head: Output, ids: &mut RememberedIds) -> RememberedIds {
        let head = head.into_bytes();
        let mut loaded = RememberedIds::load(&mut Input::new(&head)).expect("epochs");
        loaded
            .take_back(&ids.saved().take())
            .expect("these are ids");
        loaded
    }

    proptest! {
        /// Ids that come in, are forgotten and swept while others are saved.
        #[test]
        fn what_is_saved_is_what_was_remembered(
            before in prop::collection::vec((0u64..2_000, 0u64..2), 0..1_500),
            after in prop::collection::vec((0u64..4_000, 0u64..90, 0u8..3), 0..1_500),
            kept in 1u64..100,
        ) {
            let mut ids = RememberedIds::default();
            let (mut epoch, mut oldest) = (0, 0);
            let mut go_on = |ids: &mut RememberedIds, by: u64| {
                epoch += by;
                oldest = oldest.max(epoch.saturating_sub(kept));
                ids.advance(epoch, oldest);
            };
            let applied = RememberedOutcome::Applied;
            for (id, by) in before {
                go_on(&mut ids, by / 2);
                ids.check_and_remember(key(id), id, applied);
            }
            let expected = entries(&ids);
            let mut head = Output::new();
            ids.begin_saving(&mut head);
            for (id, by, slices) in after {
                go_on(&mut ids, by.saturating_sub(80));
                ids.check_and_remember(key(id), id, applied);
                for _ in 0..slices / 2 {
                    ids.save_slice();
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
