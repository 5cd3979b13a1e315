//! One part of the table of ids.
//!
//! Its places are in chunks of one size, so that it grows by a few more chunks, within which entries
//! are then spread anew where they are: no other memory is needed meanwhile, and none has to be
//! cleared but that of the new chunks.

use super::Entry;
use crate::domain::prefetch;

/// Places that keys are scaled to at least.
const CAPACITY_MIN: usize = 16;
/// Places behind them, for entries pushed along; more if they crowd there.
const OVERHANG: usize = 64;
/// Binary logarithm of the least places of a chunk.
const SHIFT_MIN: u32 = 4;
/// Binary logarithm of the least chunks of a part that has larger ones.
const CHUNKS_SHIFT: u32 = 4;
/// Cache lines from the scaled place on that are fetched ahead.
const PREFETCH_LINES: usize = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Part {
    chunks: Vec<Box<[Entry]>>,
    /// Binary logarithm of a chunk's places.
    shift: u32,
    /// Places that keys are scaled to.
    capacity: usize,
    used: usize,
}

/// What a part is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    shift: u32,
    chunks: usize,
}

impl Shape {
    /// With room for a quarter more than so many entries, a chunk more or less.
    fn with_room_for(entries: usize) -> Self {
        let places = (entries * 10 / 7).max(CAPACITY_MIN) + OVERHANG;
        let shift = places.ilog2().saturating_sub(CHUNKS_SHIFT);
        if shift <= SHIFT_MIN {
            let chunks = places.div_ceil(1 << SHIFT_MIN);
            return Self {
                shift: SHIFT_MIN,
                chunks,
            };
        }
        // Rounded down: memory counts more than how seldom it grows.
        Self {
            shift,
            chunks: places >> shift,
        }
    }

    fn capacity(self) -> usize {
        (self.chunks << self.shift) - OVERHANG
    }
}

impl Part {
    fn of_shape(shape: Shape) -> Self {
        let mut part = Self {
            shift: shape.shift,
            capacity: shape.capacity(),
            ..Self::default()
        };
        part.extend(shape.chunks);
        part
    }

    /// A part with these entries, which come in order, and room to grow.
    pub(super) fn of_sorted(entries: impl Iterator<Item = Entry> + Clone) -> Self {
        let count = entries.clone().count();
        let mut part = Self::of_shape(Shape::with_room_for(count));
        let mut end = 0;
        for entry in entries {
            // They come in order, so each goes behind the one before it.
            let at = part.home(entry.high).max(end);
            while at >= part.places() {
                part.extend(1);
            }
            part.set(at, entry);
            end = at + 1;
        }
        part.used = count;
        part
    }

    /// Entries held.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.places() * size_of::<Entry>() + self.chunks.capacity() * size_of::<Box<[Entry]>>()
    }

    /// All entries, in order, and empty places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Entry {
        self.chunks[at >> self.shift][at & self.mask()]
    }

    #[inline]
    pub(super) fn set(&mut self, at: usize, entry: Entry) {
        let mask = self.mask();
        self.chunks[at >> self.shift][at & mask] = entry;
    }

    /// Looks `entry` up; where it is not there, the place to put it.
    #[inline]
    pub(super) fn find(&self, entry: Entry) -> Result<usize, usize> {
        let home = self.home(entry.high);
        let (mut first, mut from) = (home & !self.mask(), home & self.mask());
        for chunk in self.chunks.get(home >> self.shift..).unwrap_or_default() {
            for (at, here) in chunk.iter().enumerate().skip(from) {
                if here.is_empty() || here.high > entry.high {
                    return Err(first + at);
                }
                if here.same_key(entry) {
                    return Ok(first + at);
                }
            }
            (first, from) = (first + chunk.len(), 0);
        }
        Err(first)
    }

    /// Whether it has to [`grow`](Self::grow) before the next entry.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        (self.used + 1) * 8 > self.capacity * 7
    }

    /// Puts `entry` where [`Part::find`] said, pushing others along.
    #[inline]
    pub(super) fn put(&mut self, at: usize, entry: Entry) {
        self.used += 1;
        let (mut pushed, mut from) = (entry, at & self.mask());
        for chunk in self.chunks.iter_mut().skip(at >> self.shift) {
            let places = &mut chunk[from..];
            let gap = places.iter().position(|place| place.is_empty());
            let last = gap.unwrap_or(places.len() - 1);
            let over = std::mem::take(&mut places[last]);
            places.copy_within(..last, 1);
            places[0] = pushed;
            if gap.is_some() {
                return;
            }
            (pushed, from) = (over, 0);
        }
        let end = self.places();
        self.extend(1);
        self.set(end, pushed);
    }

    /// Drops the entries older than `epochs_max`, and makes room for more.
    #[cold]
    pub(super) fn grow(&mut self, epoch: u64, epochs_max: u64) {
        let is_live = |entry: &Entry| !entry.is_empty() && entry.age(epoch) <= epochs_max;
        let count = self.iter().filter(|entry| is_live(entry)).count();
        let shape = Shape::with_room_for(count);
        if shape.shift != self.shift || shape.chunks <= self.chunks.len() {
            *self = Self::of_sorted(self.iter().filter(|entry| is_live(entry)).copied());
            return;
        }
        let before = self.places();
        self.extend(shape.chunks - self.chunks.len());
        self.capacity = shape.capacity();
        self.used = count;
        // All to the end, the last one first.
        let mut end = self.places();
        for at in (0..before).rev() {
            let entry = self.get(at);
            if is_live(&entry) {
                end -= 1;
                self.set(end, entry);
            }
        }
        self.spread(end);
    }

    /// Drops the entries older than `epochs_max`, if there are any.
    pub(super) fn sweep(&mut self, epoch: u64, epochs_max: u64) {
        let is_live = |entry: &&Entry| !entry.is_empty() && entry.age(epoch) <= epochs_max;
        if self.iter().filter(is_live).count() < self.used {
            *self = Self::of_sorted(self.iter().filter(is_live).copied());
        }
    }

    /// Brings what a look-up will read into the cache.
    #[inline]
    pub(super) fn prefetch(&self, high: u64) {
        let home = self.home(high);
        let Some(chunk) = self.chunks.get(home >> self.shift) else {
            return;
        };
        let place: *const Entry = &raw const chunk[home & self.mask()];
        // A new one is put some entries further on average, and pushes others along.
        for line in 0..PREFETCH_LINES {
            prefetch(place.wrapping_byte_add(line * 64));
        }
    }

    #[inline]
    fn mask(&self) -> usize {
        (1 << self.shift) - 1
    }

    #[inline]
    fn places(&self) -> usize {
        self.chunks.len() << self.shift
    }

    fn extend(&mut self, chunks: usize) {
        let places = 1 << self.shift;
        let chunk = || vec![Entry::default(); places].into_boxed_slice();
        self.chunks.reserve_exact(chunks);
        self.chunks
            .extend(std::iter::repeat_with(chunk).take(chunks));
    }

    /// The place at which an entry lies if nothing pushed it along.
    #[inline]
    fn home(&self, high: u64) -> usize {
        // The first bits chose the part; the others are scaled to its capacity.
        let within = high << super::PARTS.trailing_zeros();
        ((u128::from(within) * self.capacity as u128) >> 64) as usize
    }

    /// All entries lie at the end, from `from` on: puts them where they belong. If there is a place
    /// for each, none is overtaken: as many as are still to come have room behind it.
    fn spread(&mut self, mut from: usize) {
        let mut end = 0;
        while from < self.places() {
            let entry = self.get(from);
            let at = self.home(entry.high).max(end);
            if at > from {
                // They crowd at the end.
                let before = self.places();
                self.extend(1);
                let by = self.places() - before;
                for moved in (from..before).rev() {
                    self.set(moved + by, self.get(moved));
                }
                from += by;
                continue;
            }
            self.clear(end, at);
            self.set(at, entry);
            end = at + 1;
            from += 1;
        }
        self.clear(end, self.places());
    }

    fn clear(&mut self, from: usize, to: usize) {
        for at in from..to {
            self.set(at, Entry::default());
        }
    }
}
