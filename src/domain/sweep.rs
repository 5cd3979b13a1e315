//! Going through an ordered map in slices while it changes, so that what comes out is the map as it
//! was at the beginning.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// How far it has come.
#[derive(Debug)]
pub(super) struct Sweep<K> {
    under_way: bool,
    /// The last key gone past.
    last: Option<K>,
    /// Keys ahead that were changed since, and saved before that, or that were not there at the
    /// beginning.
    done_ahead: BTreeSet<K>,
}

impl<K> Default for Sweep<K> {
    fn default() -> Self {
        Self {
            under_way: false,
            last: None,
            done_ahead: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Copy> Sweep<K> {
    /// The map as it is now is to be saved.
    pub(super) fn begin(&mut self) {
        *self = Self {
            under_way: true,
            ..Self::default()
        };
    }

    /// To be told before an entry is put in, changed or removed. True: what is there of it now, if
    /// anything, has to be saved first.
    #[inline]
    pub(super) fn touch(&mut self, key: K) -> bool {
        self.under_way && self.last.is_none_or(|last| key > last) && self.done_ahead.insert(key)
    }

    /// Saves at most `max` more entries. True if there may be more.
    pub(super) fn slice<V>(
        &mut self,
        map: &BTreeMap<K, V>,
        max: usize,
        mut save: impl FnMut(&K, &V),
    ) -> bool {
        if !self.under_way {
            return false;
        }
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut seen = 0;
        for (key, value) in map.range((from, Bound::Unbounded)).take(max) {
            seen += 1;
            self.last = Some(*key);
            if !self.done_ahead.remove(key) {
                save(key, value);
            }
        }
        if seen < max {
            *self = Self::default();
        }
        self.under_way
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put in, changed and removed between the slices.
        #[test]
        fn what_comes_out_is_the_map_as_it_was(
            before in prop::collection::btree_map(0u8..60, 0u32..100, 0..40),
            steps in prop::collection::vec((0u8..60, prop::option::of(100u32..200), 0usize..6), 0..60),
        ) {
            let mut map = before.clone();
            let mut saved = BTreeMap::new();
            let mut sweep = Sweep::default();
            sweep.begin();
            for (key, value, slice) in steps {
                if sweep.touch(key) && let Some(value) = map.get(&key) {
                    prop_assert!(saved.insert(key, *value).is_none());
                }
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
                if slice > 0 {
                    sweep.slice(&map, slice, |key, value| {
                        assert!(saved.insert(*key, *value).is_none());
                    });
                }
            }
            while sweep.slice(&map, 3, |key, value| {
                assert!(saved.insert(*key, *value).is_none());
            }) {}
            prop_assert_eq!(saved, before);
        }
    }
}
