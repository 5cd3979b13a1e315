//! The lines of one part: found by key, and kept one behind the other.
//!
//! What is searched is apart from the lines: places of 8 bytes, by open addressing, each with a tag
//! from the key's hash and the number of its line. So the way to a line can be fetched ahead step by
//! step, also to one that is not there yet: its place is then known, and the line goes behind all
//! others, which is in the cache already. A place's tag also gives its home, so the places grow
//! without a look at any line. Lines are in chunks, so they are never copied to make room.

use super::{Compact, LineKey};
use crate::domain::prefetch;

/// Lines of a chunk: 48 KiB.
const CHUNK: usize = 1 << 10;
const PLACES_MIN: usize = 8;

/// Where a line is; or empty.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The highest bits of the key's hash.
    tag: u32,
    /// Number of the line, from 1 on; 0: empty.
    line: u32,
}

impl Place {
    const fn is_empty(self) -> bool {
        self.line == 0
    }

    const fn index(self) -> usize {
        self.line as usize - 1
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// None, or a power of two, of which five of eight are taken at most, so that few are looked at.
    places: Box<[Place]>,
    /// All but the last are full, and none is empty.
    chunks: Vec<Vec<Compact>>,
    len: usize,
}

fn tag_of(key: LineKey) -> u32 {
    (key.0[0] >> 32) as u32
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        let lines: usize = self.chunks.iter().map(Vec::capacity).sum();
        lines * size_of::<Compact>() + self.places.len() * size_of::<Place>()
    }

    #[inline]
    pub(super) fn find(&self, key: LineKey) -> Option<&Compact> {
        let place = self.place_of(key).ok()?;
        Some(self.line(self.places[place].index()))
    }

    /// The line of a key; if there is none, `make` makes it.
    #[inline]
    pub(super) fn entry(&mut self, key: LineKey, make: impl FnOnce() -> Compact) -> &mut Compact {
        let index = match self.place_of(key) {
            Ok(place) => self.places[place].index(),
            Err(place) => self.put(key, place, make()),
        };
        self.line_mut(index)
    }

    /// Puts a line in whose key is not there.
    pub(super) fn insert_unique(&mut self, line: Compact) {
        let place = self.vacant(tag_of(line.key));
        self.put(line.key, place, line);
    }

    /// Takes out the line of a key.
    pub(super) fn remove(&mut self, key: LineKey) -> Option<Compact> {
        let place = self.place_of(key).ok()?;
        let index = self.places[place].index();
        self.vacate(place);
        Some(self.take(index))
    }

    /// Takes out those lines that `keep` does not keep.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Compact) -> bool) {
        let mut index = 0;
        while index < self.len {
            let line = self.line_mut(index);
            if keep(line) {
                index += 1;
                continue;
            }
            let tag = tag_of(line.key);
            let place = self.place_at(tag, index);
            self.vacate(place);
            // Another one comes in its place, and has its turn next.
            self.take(index);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Compact> {
        self.chunks.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Compact> {
        self.chunks.iter_mut().flatten()
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, lines: usize) {
        let needed = places_for(self.len + lines);
        if needed > self.places.len() {
            self.resize(needed);
        }
    }

    /// Brings the place of a key into the cache.
    #[inline]
    pub(super) fn prefetch_place(&self, key: LineKey) {
        if !self.places.is_empty() {
            prefetch(&raw const self.places[self.home(tag_of(key))]);
        }
    }

    /// Brings the line of a key into the cache, as far as it is known by the tag; its place should
    /// be there already.
    #[inline]
    pub(super) fn prefetch_line(&self, key: LineKey) {
        if self.places.is_empty() {
            return;
        }
        let tag = tag_of(key);
        let mut at = self.home(tag);
        loop {
            let place = self.places[at];
            if place.is_empty() {
                return;
            }
            if place.tag == tag {
                let line: *const Compact = self.line(place.index());
                prefetch(line);
                // It may lie in two cache lines.
                prefetch(line.wrapping_add(1).cast::<u8>().wrapping_sub(1));
                return;
            }
            at = self.after(at);
        }
    }

    #[inline]
    fn line(&self, index: usize) -> &Compact {
        &self.chunks[index / CHUNK][index % CHUNK]
    }

    #[inline]
    fn line_mut(&mut self, index: usize) -> &mut Compact {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }

    /// Where a line is if no other one came before it.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        // Scaled to the number of places, so that the tag's first bits count.
        ((u64::from(tag) * self.places.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    /// The place of a key, or else the empty one where it belongs; 0 if there is no place at all.
    #[inline]
    fn place_of(&self, key: LineKey) -> Result<usize, usize> {
        if self.places.is_empty() {
            return Err(0);
        }
        let tag = tag_of(key);
        let mut at = self.home(tag);
        loop {
            let place = self.places[at];
            if place.is_empty() {
                return Err(at);
            }
            if place.tag == tag && self.line(place.index()).key == key {
                return Ok(at);
            }
            at = self.after(at);
        }
    }

    /// The place of the line with this number and tag, which is there.
    fn place_at(&self, tag: u32, index: usize) -> usize {
        let mut at = self.home(tag);
        while self.places[at].is_empty() || self.places[at].index() != index {
            at = self.after(at);
        }
        at
    }

    /// The empty place where a line with this tag belongs; 0 if there is no place at all.
    fn vacant(&self, tag: u32) -> usize {
        if self.places.is_empty() {
            return 0;
        }
        let mut at = self.home(tag);
        while !self.places[at].is_empty() {
            at = self.after(at);
        }
        at
    }

    /// Puts a new line behind all others, and its number at an empty place.
    fn put(&mut self, key: LineKey, mut place: usize, line: Compact) -> usize {
        let tag = tag_of(key);
        if (self.len + 1) * 8 > self.places.len() * 5 {
            self.resize(places_for(self.len + 1));
            place = self.vacant(tag);
        }
        let index = self.len;
        if index.is_multiple_of(CHUNK) {
            // The first one grows with what is in it.
            let room = if index == 0 { 1 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(room));
        }
        let last = self.chunks.last_mut().expect("there is one now");
        last.push(line);
        self.len += 1;
        self.places[place] = Place {
            tag,
            line: u32::try_from(self.len).expect("fewer than 2^32 lines"),
        };
        index
    }

    /// Takes a line out that no place names any more; the last one comes in its place.
    fn take(&mut self, index: usize) -> Compact {
        let last = self.chunks.last_mut().expect("it has a line");
        let moved = last.pop().expect("no chunk is empty");
        if last.is_empty() {
            self.chunks.pop();
        }
        self.len -= 1;
        if index == self.len {
            return moved;
        }
        let place = self.place_at(tag_of(moved.key), self.len);
        self.places[place].line = index as u32 + 1;
        std::mem::replace(self.line_mut(index), moved)
    }

    /// Empties a place; what lies behind it only because of it moves up.
    fn vacate(&mut self, mut hole: usize) {
        let mask = self.places.len() - 1;
        let mut at = hole;
        loop {
            at = self.after(at);
            let place = self.places[at];
            if place.is_empty() {
                break;
            }
            let from_home = at.wrapping_sub(self.home(place.tag)) & mask;
            let from_hole = at.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = Place::default();
    }

    /// Gives it so many places. No line is looked at, since tags tell their homes.
    fn resize(&mut self, places: usize) {
        let new = vec![Place::default(); places].into_boxed_slice();
        let old = std::mem::replace(&mut self.places, new);
        for place in old.into_iter().filter(|place| !place.is_empty()) {
            let at = self.vacant(place.tag);
            self.places[at] = place;
        }
    }
}

/// Places for so many lines.
fn places_for(lines: usize) -> usize {
    (lines * 8).div_ceil(5).next_power_of_two().max(PLACES_MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Few tags, so that many have the same; at the end of the range, so that they go around.
    fn key(n: u16) -> LineKey {
        let tag = u64::from(u32::MAX - u32::from(n % 7) * 3);
        LineKey([tag << 32 | u64::from(n), u64::from(n)])
    }

    fn line(n: u16, opened: u32) -> Compact {
        Compact {
            opened,
            ..Compact::new(key(n), 0)
        }
    }

    #[test]
    fn lines_are_found_while_it_grows_and_after_it_shrank() {
        let hashed = |n: u64| {
            let hash = xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes());
            LineKey([hash as u64, (hash >> 64) as u64])
        };
        let mut table = Table::default();
        let lines = 5 * CHUNK as u64 + 7;
        for n in 0..lines {
            let line = table.entry(hashed(n), || Compact::new(hashed(n), 0));
            line.opened = n as u32;
        }
        assert_eq!(table.len() as u64, lines);
        assert!(table.bytes() <= table.len() * 90, "{} bytes", table.bytes());
        table.retain(|line| line.opened.is_multiple_of(10));
        assert_eq!(table.len() as u64, lines.div_ceil(10));
        assert!(table.chunks.len() == 1);
        for n in 0..lines {
            let found = table.find(hashed(n)).map(|line| line.opened);
            assert_eq!(found, n.is_multiple_of(10).then_some(n as u32));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u16, u32),
        Remove(u16),
        /// Those of which a bit says so.
        Retain(u32),
        Reserve(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0u16..80, any::<u32>()).prop_map(|(n, units)| Step::Enter(n, units)),
            8 => (0u16..80).prop_map(Step::Remove),
            1 => any::<u32>().prop_map(Step::Retain),
            1 => (0usize..100).prop_map(Step::Reserve),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec(step(), 0..300)) {
            let mut table = Table::default();
            let mut map: HashMap<u16, u32> = HashMap::new();
            for step in steps {
                match step {
                    Step::Enter(n, units) if !map.contains_key(&n) && units.is_multiple_of(2) => {
                        table.insert_unique(line(n, units));
                        map.insert(n, units);
                    }
                    Step::Enter(n, units) => {
                        let expected = *map.entry(n).or_insert(units);
                        let found = table.entry(key(n), || line(n, units));
                        prop_assert_eq!(found.opened, expected);
                        found.opened = units;
                        map.insert(n, units);
                    }
                    Step::Remove(n) => {
                        let removed = table.remove(key(n)).map(|line| line.opened);
                        prop_assert_eq!(removed, map.remove(&n));
                    }
                    Step::Retain(bits) => {
                        let keep = |opened: u32| bits >> (opened % 32) & 1 != 0;
                        let mut seen = 0;
                        let before = table.len();
                        table.retain(|line| {
                            seen += 1;
                            keep(line.opened)
                        });
                        prop_assert_eq!(seen, before);
                        map.retain(|_, opened| keep(*opened));
                    }
                    Step::Reserve(lines) => table.reserve(lines),
                }
                prop_assert_eq!(table.len(), map.len());
                for n in 0..80 {
                    table.prefetch_place(key(n));
                    table.prefetch_line(key(n));
                    let found = table.find(key(n)).map(|line| line.opened);
                    prop_assert_eq!(found, map.get(&n).copied());
                }
                let mut all: Vec<u64> = table.iter().map(|line| line.key.0[1]).collect();
                all.sort_unstable();
                let mut expected: Vec<u64> = map.keys().map(|n| u64::from(*n)).collect();
                expected.sort_unstable();
                prop_assert_eq!(all, expected);
                prop_assert_eq!(table.iter_mut().count(), map.len());
            }
        }
    }
}
