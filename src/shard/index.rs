//! The index of a shard: from a SKU to its block. One thread writes; readers take no lock.
//!
//! Open addressing in 256 segments, so that growing one stalls the writer for a moment only. A
//! slot is a pointer whose upper 16 bits, which addresses do not use, hold a tag from the hash:
//! a look-up that does not match costs no cache miss. SKUs are never removed. Outgrown tables and
//! blocks are freed when the last reader that may see them has finished (epoch-based
//! reclamation).

use std::{
    ptr::NonNull,
    sync::atomic::{
        AtomicPtr, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
        Ordering::Release,
    },
};

use crossbeam::epoch::{self, Atomic, Guard, Owned};

use super::block::Block;
use crate::domain::{balances::Loc, keys::SkuHash};

/// Parts that can be walked over one by one.
pub(crate) const SEGMENTS: usize = 256;
const SLOTS_MIN: usize = 8;
const TAG_SHIFT: u32 = 48;
const ADDRESS_MASK: usize = (1 << TAG_SHIFT) - 1;

/// A pointer to a block with a tag in its upper bits, or null.
type Slot = AtomicPtr<Block>;

struct Table {
    slots: Box<[Slot]>,
}

struct Segment {
    table: Atomic<Table>,
    used: AtomicUsize,
}

/// Slots that are visited at once.
const VISITED_SLOTS: usize = 64;
/// How many slots ahead blocks are fetched.
const VISITED_AHEAD: usize = 8;

/// Where a visit goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    segment: usize,
    slot: usize,
    /// As many slots as the segment had then.
    slots: usize,
}

/// See the module.
pub(crate) struct Index {
    segments: Box<[Segment]>,
}

impl Table {
    fn with_slots(slots: usize) -> Self {
        debug_assert!(slots.is_power_of_two());
        Self {
            slots: (0..slots).map(|_| Slot::default()).collect(),
        }
    }

    #[inline]
    fn home(&self, hash: SkuHash) -> usize {
        (hash.0 >> SEGMENTS.trailing_zeros()) as usize & (self.slots.len() - 1)
    }

    /// The slot of a SKU, or the empty one in which it belongs.
    #[inline]
    fn find(&self, hash: SkuHash, name: &str) -> (&Slot, Option<NonNull<Block>>) {
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at];
            let tagged = slot.load(Acquire);
            if tagged.is_null() {
                return (slot, None);
            }
            if tag_of(tagged) == tag(hash) {
                let block = untagged(tagged);
                // SAFETY: blocks in the table are valid while the guard, by which the table was
                // reached, is held.
                let found = unsafe { block.as_ref() };
                if found.hash() == hash && found.name() == name {
                    return (slot, Some(block));
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

impl Table {
    /// The first block whose tag is that of the hash: nearly always the SKU's own.
    #[inline]
    fn likely(&self, hash: SkuHash) -> Option<NonNull<Block>> {
        let mut at = self.home(hash);
        loop {
            let tagged = self.slots[at].load(Acquire);
            if tagged.is_null() {
                return None;
            }
            if tag_of(tagged) == tag(hash) {
                return Some(untagged(tagged));
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

impl Table {
    /// The first block with this hash.
    fn hashed(&self, hash: SkuHash) -> Option<NonNull<Block>> {
        let mut at = self.home(hash);
        loop {
            let tagged = self.slots[at].load(Acquire);
            if tagged.is_null() {
                return None;
            }
            let block = untagged(tagged);
            // SAFETY: as in `find`.
            if tag_of(tagged) == tag(hash) && unsafe { block.as_ref() }.hash() == hash {
                return Some(block);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

impl Index {
    pub(crate) fn new() -> Self {
        Self::with_room(0)
    }

    /// One that has room for so many SKUs before it grows.
    pub(crate) fn with_room(skus: usize) -> Self {
        // They do not spread quite evenly.
        let each = skus / SEGMENTS + skus / SEGMENTS / 16;
        let slots = (each * 4 / 3 + 1).next_power_of_two().max(SLOTS_MIN);
        let segment = |_| Segment {
            table: Atomic::new(Table::with_slots(slots)),
            used: AtomicUsize::new(0),
        };
        Self {
            segments: (0..SEGMENTS).map(segment).collect(),
        }
    }

    fn segment(&self, hash: SkuHash) -> &Segment {
        &self.segments[hash.0 as usize % SEGMENTS]
    }

    /// The block of a SKU.
    #[inline]
    pub(crate) fn get<'g>(&self, hash: SkuHash, name: &str, guard: &'g Guard) -> Option<&'g Block> {
        let (_, block) = self.segment(hash).table(guard).find(hash, name);
        // SAFETY: blocks are freed only after every guard held now has been dropped.
        block.map(|block| unsafe { block.as_ref() })
    }

    /// The block of the SKU with this hash; of several, whichever.
    pub(crate) fn get_hashed<'g>(&self, hash: SkuHash, guard: &'g Guard) -> Option<&'g Block> {
        let block = self.segment(hash).table(guard).hashed(hash);
        // SAFETY: as in `get`.
        block.map(|block| unsafe { block.as_ref() })
    }

    /// Visits all blocks of SKUs with this hash: nearly always one.
    pub(crate) fn for_each_hashed<'g>(
        &self,
        hash: SkuHash,
        guard: &'g Guard,
        mut visit: impl FnMut(&'g Block),
    ) {
        let table = self.segment(hash).table(guard);
        let mut at = table.home(hash);
        loop {
            let tagged = table.slots[at].load(Acquire);
            if tagged.is_null() {
                return;
            }
            // SAFETY: as in `get`.
            let block: &'g Block = unsafe { untagged(tagged).as_ref() };
            if tag_of(tagged) == tag(hash) && block.hash() == hash {
                visit(block);
            }
            at = (at + 1) & (table.slots.len() - 1);
        }
    }

    /// The block of a SKU; if there is none, `make` makes it. Only from the one writer.
    pub(crate) fn get_or_insert<'g>(
        &self,
        hash: SkuHash,
        name: &str,
        guard: &'g Guard,
        make: impl FnOnce() -> NonNull<Block>,
    ) -> &'g Block {
        let segment = self.segment(hash);
        let mut table = segment.table(guard);
        let (mut slot, found) = table.find(hash, name);
        if let Some(block) = found {
            // SAFETY: as in `get`.
            return unsafe { block.as_ref() };
        }
        let used = segment.used.load(Relaxed) + 1;
        if used * 4 > table.slots.len() * 3 {
            segment.grow();
            table = segment.table(guard);
            slot = table.find(hash, name).0;
        }
        segment.used.store(used, Relaxed);
        let block = make();
        slot.store(tagged(block, hash), Release);
        // SAFETY: as in `get`; it was just made.
        unsafe { block.as_ref() }
    }

    /// Puts `new` in the place of the block of the same SKU, and frees the old one when its last
    /// reader has finished. Gives the old one's bytes. Only from the one writer.
    ///
    /// # Panics
    /// If the index has no such SKU.
    pub(crate) fn replace(&self, new: NonNull<Block>) -> usize {
        let guard = &epoch::pin();
        // SAFETY: the caller hands over a valid block.
        let block = unsafe { new.as_ref() };
        let (slot, old) = self
            .segment(block.hash())
            .table(guard)
            .find(block.hash(), block.name());
        let old = old.expect("only what is in the index is replaced");
        // SAFETY: it is freed below at the earliest.
        let bytes = unsafe { old.as_ref() }.bytes();
        let old = old.as_ptr().expose_provenance();
        slot.store(tagged(new, block.hash()), Release);
        // SAFETY: the old block is no longer reachable from the index; it is freed once, when no
        // guard that may have seen it is held.
        unsafe {
            guard.defer_unchecked(move || {
                Block::free(NonNull::new_unchecked(
                    std::ptr::with_exposed_provenance_mut(old),
                ));
            });
        }
        bytes
    }

    /// Visits all blocks, in no order. What is put in meanwhile may be missed.
    pub(crate) fn for_each(&self, guard: &Guard, mut visit: impl FnMut(&Block)) {
        for segment in 0..SEGMENTS {
            self.for_each_of(segment, guard, &mut visit);
        }
    }

    /// Visits all blocks of one of the [`SEGMENTS`], in the same way.
    pub(crate) fn for_each_of(&self, segment: usize, guard: &Guard, mut visit: impl FnMut(&Block)) {
        for slot in &self.segments[segment].table(guard).slots {
            let pointer = slot.load(Acquire);
            if !pointer.is_null() {
                // SAFETY: as in `get`.
                visit(unsafe { untagged(pointer).as_ref() });
            }
        }
    }

    /// Visits blocks from a place on, in some hundreds of slots. Gives the place to go on from;
    /// `None`: that was all. A segment that grows between two calls is visited once more from its
    /// beginning; what is put in meanwhile may be missed. Only from the one writer.
    pub(crate) fn visit_some(&self, from: Place, mut visit: impl FnMut(&Block)) -> Option<Place> {
        // SAFETY: the writer alone retires tables and blocks, and it is here.
        let guard = unsafe { epoch::unprotected() };
        let slots = &self.segments[from.segment].table(guard).slots;
        let begin = if slots.len() == from.slots {
            from.slot
        } else {
            0
        };
        let end = (begin + VISITED_SLOTS).min(slots.len());
        for (at, slot) in slots[begin..end].iter().enumerate() {
            if let Some(ahead) = slots.get(begin + at + VISITED_AHEAD) {
                let ahead = ahead.load(Relaxed);
                if !ahead.is_null() {
                    let block = untagged(ahead).as_ptr().cast::<u8>();
                    (0..2).for_each(|line| prefetch(block.wrapping_add(line * 64)));
                }
            }
            let pointer = slot.load(Relaxed);
            if !pointer.is_null() {
                // SAFETY: as in `get`.
                visit(unsafe { untagged(pointer).as_ref() });
            }
        }
        if end < slots.len() {
            return Some(Place {
                slot: end,
                slots: slots.len(),
                ..from
            });
        }
        (from.segment + 1 < SEGMENTS).then_some(Place {
            segment: from.segment + 1,
            ..Place::default()
        })
    }

    /// Brings the slot of a SKU into the cache.
    #[inline]
    pub(crate) fn prefetch_slot(&self, hash: SkuHash, guard: &Guard) {
        let table = self.segment(hash).table(guard);
        prefetch(&table.slots[table.home(hash)]);
    }

    /// Brings the first cache lines of the block of a SKU into the cache, as far as it is known by
    /// the tag.
    #[inline]
    pub(crate) fn prefetch_block(&self, hash: SkuHash, lines: usize, guard: &Guard) {
        if let Some(block) = self.segment(hash).table(guard).likely(hash) {
            let block = block.as_ptr().cast::<u8>();
            for line in 0..lines {
                prefetch(block.wrapping_add(line * 64));
            }
        }
    }

    /// Brings the cell of a SKU at a location into the cache, as far as it is known by the tag.
    #[inline]
    pub(crate) fn prefetch_cell(&self, hash: SkuHash, at: Loc, guard: &Guard) {
        if let Some(block) = self.segment(hash).table(guard).likely(hash) {
            // SAFETY: as in `get`.
            unsafe { block.as_ref() }.prefetch_cell(at);
        }
    }

    /// Bytes of the tables, without the blocks.
    pub(crate) fn bytes(&self, guard: &Guard) -> usize {
        self.segments
            .iter()
            .map(|s| size_of::<Segment>() + s.table(guard).slots.len() * size_of::<Slot>())
            .sum()
    }
}

impl Segment {
    fn table<'g>(&self, guard: &'g Guard) -> &'g Table {
        // SAFETY: the table is set from the start, and freed only after every guard held when it
        // was replaced has been dropped.
        unsafe { self.table.load(Acquire, guard).deref() }
    }

    fn grow(&self) {
        let guard = &epoch::pin();
        let old = self.table(guard);
        let next = Table::with_slots(old.slots.len() * 2);
        for slot in &old.slots {
            let pointer = slot.load(Relaxed);
            if pointer.is_null() {
                continue;
            }
            // SAFETY: as in `Index::get`.
            let hash = unsafe { untagged(pointer).as_ref() }.hash();
            let mut at = next.home(hash);
            while !next.slots[at].load(Relaxed).is_null() {
                at = (at + 1) & (next.slots.len() - 1);
            }
            next.slots[at].store(pointer, Relaxed);
        }
        let old = self.table.swap(Owned::new(next), AcqRel, guard);
        // SAFETY: the old table is no longer reachable, and is freed when no guard that may have
        // seen it is held. It does not own the blocks.
        unsafe { guard.defer_destroy(old) };
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: nobody reads or writes any more.
        let guard = unsafe { epoch::unprotected() };
        for segment in &self.segments {
            for slot in &segment.table(guard).slots {
                let pointer = slot.load(Relaxed);
                if !pointer.is_null() {
                    // SAFETY: each block is in one slot of the one current table.
                    unsafe { Block::free(untagged(pointer)) };
                }
            }
            let table = segment.table.swap(epoch::Shared::null(), AcqRel, guard);
            // SAFETY: as above; the table came from `Owned`.
            drop(unsafe { table.into_owned() });
        }
    }
}

#[inline]
fn tag(hash: SkuHash) -> usize {
    (hash.0 >> TAG_SHIFT) as usize
}

#[inline]
fn tag_of(pointer: *mut Block) -> usize {
    pointer.addr() >> TAG_SHIFT
}

#[inline]
fn tagged(block: NonNull<Block>, hash: SkuHash) -> *mut Block {
    let address = block.as_ptr().expose_provenance();
    assert!(address <= ADDRESS_MASK, "addresses of more than 48 bits");
    block
        .as_ptr()
        .map_addr(|address| address | tag(hash) << TAG_SHIFT)
}

#[inline]
fn untagged(pointer: *mut Block) -> NonNull<Block> {
    NonNull::new(pointer.map_addr(|address| address & ADDRESS_MASK))
        .expect("only pointers that are not null are looked at")
}

#[inline(always)]
fn prefetch<T>(address: *const T) {
    crate::domain::prefetch(address);
}
