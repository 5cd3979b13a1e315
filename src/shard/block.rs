//! A SKU's block: all that is known of one SKU, in one piece of memory.
//!
//! One allocation holds the header, the name, for each channel its sum and its published number, the
//! numbers of the locations (sorted), where the last recent movement of each is, and their balances:
//! 28 bytes for a cell as long as every balance fits 32 bits, 56 if one does not. A query for what a
//! channel may sell touches one or two cache lines, however many locations there are.
//!
//! One thread writes; any number of threads read at the same time, through a sequence lock. What
//! may change is atomic and accessed relaxed, so that a reader that is overtaken by the writer
//! sees wrong values, never undefined behaviour, and then reads again.
//!
//! Capacity, width and name of a block are fixed. When it is outgrown, the writer copies it into
//! a larger one and puts that in its place; see `index`.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering::Relaxed},
};

use super::{changes::Published, seqlock::SeqLock};
use crate::domain::{
    balances::{ACCOUNTS, Balances, Loc},
    keys::SkuHash,
    prefetch,
    recent::Trail,
};

/// Cache lines from its beginning in which a block has its header, a name of usual length, and the
/// sums of a few channels: what a query reads.
pub(super) const LINES_TO_QUERY: usize = 2;
/// The same with the numbers of a few locations: what a posting looks at before it knows its cell.
pub(super) const LINES_TO_POST: usize = 3;

/// Up to as many locations are searched one by one.
const LINEAR_SEARCH_MAX: usize = 16;

/// What is fixed about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Cells it has room for.
    pub(crate) cells_max: u32,
    /// Channels it has sums for.
    pub(crate) channels: u16,
    /// Balances have 64 bits.
    pub(crate) wide: bool,
}

/// See the module.
#[repr(C)]
pub(crate) struct Block {
    lock: SeqLock,
    /// Epoch of the channel rules by which the sums were made.
    rules_epoch: AtomicU32,
    hash: SkuHash,
    /// Units in from outside less units out, all locations.
    net_in: AtomicI64,
    cells: AtomicU32,
    cells_max: u32,
    channels: u16,
    name_len: u8,
    wide: bool,
    /// [`OVERRIDDEN`] and [`MARK`].
    flags: AtomicU32,
    // Behind it: name, padded to 8; sums and published numbers: [[i64; 2]; channels]; locations: [u32; cells_max]; trails:
    // [u32; cells_max]; balances: [[i32 or i64; 7]; cells_max]. What every posting reads comes first.
}

/// The rules have an override for this SKU (in the epoch of the sums).
const OVERRIDDEN: u32 = 1;
/// Whether a checkpoint under way has this block, see `saving`. Only the writer looks at it.
const MARK: u32 = 2;

const HEADER: usize = size_of::<Block>();
const _: () = assert!(HEADER == 40 && align_of::<Block>() == 8);
const _: () = assert!(crate::limits::SKU_BYTES_MAX <= u8::MAX as usize);

impl Block {
    /// Allocates a block without cells.
    pub(crate) fn allocate(hash: SkuHash, name: &str, shape: Shape) -> NonNull<Block> {
        let layout = layout(name.len(), shape);
        // SAFETY: the layout's size is at least that of the header.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(block) = NonNull::new(memory.cast::<Block>()) else {
            handle_alloc_error(layout)
        };
        // What lies behind the header is reached by address, see `at`.
        block.as_ptr().expose_provenance();
        let header = Block {
            lock: SeqLock::new(),
            rules_epoch: AtomicU32::new(0),
            hash,
            net_in: AtomicI64::new(0),
            cells: AtomicU32::new(0),
            cells_max: shape.cells_max,
            channels: shape.channels,
            name_len: u8::try_from(name.len()).expect("SKUs are checked to be shorter"),
            wide: shape.wide,
            flags: AtomicU32::new(0),
        };
        // SAFETY: the memory is fresh, aligned, and large enough for header and name; all that
        // follows the name is zeroed, which is valid for its integers.
        unsafe {
            block.write(header);
            memory
                .add(HEADER)
                .copy_from_nonoverlapping(name.as_ptr(), name.len());
        }
        block
    }

    /// Frees a block.
    ///
    /// # Safety
    /// `block` came from [`Block::allocate`], is freed once, and is referred to no more.
    pub(crate) unsafe fn free(block: NonNull<Block>) {
        // SAFETY: by the caller's promise, the block is valid.
        let layout = unsafe { block.as_ref() }.layout();
        // SAFETY: it was allocated with this layout, which only depends on what is fixed.
        unsafe { dealloc(block.as_ptr().cast(), layout) }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            cells_max: self.cells_max,
            channels: self.channels,
            wide: self.wide,
        }
    }

    /// Bytes that it occupies.
    pub(crate) fn bytes(&self) -> usize {
        self.layout().size()
    }

    fn layout(&self) -> Layout {
        layout(usize::from(self.name_len), self.shape())
    }

    #[inline]
    pub(crate) fn hash(&self) -> SkuHash {
        self.hash
    }

    #[inline]
    pub(crate) fn name(&self) -> &str {
        // SAFETY: the name was copied from a `str` of this length and never changes.
        unsafe {
            let bytes = std::slice::from_raw_parts(self.at(HEADER), usize::from(self.name_len));
            std::str::from_utf8_unchecked(bytes)
        }
    }

    /// Reads what belongs together.
    #[inline]
    pub(crate) fn read<R>(&self, read: impl FnMut() -> R) -> R {
        self.lock.read(read)
    }

    /// Writes what belongs together. Only from the one writer.
    #[inline]
    pub(crate) fn write<R>(&self, write: impl FnOnce() -> R) -> R {
        self.lock.write(write)
    }

    // What follows reads and writes single values; wrap it in `read` or `write`.

    #[inline]
    pub(crate) fn rules_epoch(&self) -> u32 {
        self.rules_epoch.load(Relaxed)
    }

    pub(crate) fn set_rules(&self, epoch: u32, overridden: bool) {
        self.rules_epoch.store(epoch, Relaxed);
        self.set_flag(OVERRIDDEN, overridden);
    }

    #[inline]
    pub(crate) fn overridden(&self) -> bool {
        self.flags.load(Relaxed) & OVERRIDDEN != 0
    }

    /// See `saving`.
    #[inline]
    pub(super) fn mark(&self) -> bool {
        self.flags.load(Relaxed) & MARK != 0
    }

    /// See `saving`.
    #[inline]
    pub(super) fn set_mark(&self, mark: bool) {
        self.set_flag(MARK, mark);
    }

    #[inline]
    fn set_flag(&self, flag: u32, set: bool) {
        // There is one writer, so nothing comes in between.
        let others = self.flags.load(Relaxed) & !flag;
        self.flags
            .store(others | if set { flag } else { 0 }, Relaxed);
    }

    #[inline]
    pub(crate) fn net_in(&self) -> i64 {
        self.net_in.load(Relaxed)
    }

    #[inline]
    pub(crate) fn add_net_in(&self, units: i64) {
        self.net_in.store(self.net_in() + units, Relaxed);
    }

    /// Number of cells.
    #[inline]
    pub(crate) fn cells(&self) -> usize {
        // A reader that is overtaken must not run out of the block, whatever it reads.
        self.cells.load(Relaxed).min(self.cells_max) as usize
    }

    #[inline]
    pub(crate) fn sum(&self, channel: usize) -> i64 {
        self.sums()[channel][0].load(Relaxed)
    }

    #[inline]
    pub(crate) fn set_sum(&self, channel: usize, units: i64) {
        self.sums()[channel][0].store(units, Relaxed);
    }

    /// What a channel was told last, or is to be told.
    #[inline]
    pub(crate) fn published(&self, channel: usize) -> Published {
        Published::from_bits(self.sums()[channel][1].load(Relaxed))
    }

    #[inline]
    pub(crate) fn set_published(&self, channel: usize, published: Published) {
        self.sums()[channel][1].store(published.bits(), Relaxed);
    }

    #[inline]
    pub(crate) fn location(&self, cell: usize) -> Loc {
        Loc(self.locations()[cell].load(Relaxed))
    }

    /// The place of a location's cell, or the place to put it.
    #[inline]
    pub(crate) fn find(&self, at: Loc) -> Result<usize, usize> {
        let locations = &self.locations()[..self.cells()];
        if locations.len() <= LINEAR_SEARCH_MAX {
            for (cell, location) in locations.iter().enumerate() {
                let location = location.load(Relaxed);
                if location >= at.0 {
                    return if location == at.0 {
                        Ok(cell)
                    } else {
                        Err(cell)
                    };
                }
            }
            return Err(locations.len());
        }
        locations.binary_search_by(|location| location.load(Relaxed).cmp(&at.0))
    }

    /// The balances of a cell.
    #[inline]
    pub(crate) fn balances(&self, cell: usize) -> Balances {
        let mut balances = Balances::ZERO;
        if self.wide {
            let cells = self.wide_balances();
            for (units, stored) in balances.0.iter_mut().zip(&cells[cell]) {
                *units = stored.load(Relaxed);
            }
        } else {
            let cells = self.narrow_balances();
            for (units, stored) in balances.0.iter_mut().zip(&cells[cell]) {
                *units = i64::from(stored.load(Relaxed));
            }
        }
        balances
    }

    /// Brings the balances of a location into the cache.
    #[inline]
    pub(crate) fn prefetch_cell(&self, at: Loc) {
        let Ok(cell) = self.find(at) else { return };
        let bytes = cell_bytes(self.wide);
        let first = self.balances_at() + cell * bytes;
        // SAFETY: both lie within the balances of a cell that is there.
        let (first, last) = unsafe { (self.at::<u8>(first), self.at::<u8>(first + bytes - 1)) };
        prefetch(first);
        // They may lie in two cache lines.
        prefetch(last);
    }

    /// True if this block can hold `balances`.
    #[inline]
    pub(crate) fn holds(&self, balances: &Balances) -> bool {
        self.wide || fits_narrow(balances)
    }

    /// Sets the balances of a cell, which [`Block::holds`] them.
    #[inline]
    pub(crate) fn set_balances(&self, cell: usize, balances: &Balances) {
        if self.wide {
            for (stored, units) in self.wide_balances()[cell].iter().zip(balances.0) {
                stored.store(units, Relaxed);
            }
        } else {
            debug_assert!(self.holds(balances));
            for (stored, units) in self.narrow_balances()[cell].iter().zip(balances.0) {
                stored.store(units as i32, Relaxed);
            }
        }
    }

    /// Where the last recent movement of a cell is. For the writer alone.
    #[inline]
    pub(crate) fn trail(&self, cell: usize) -> Trail {
        Trail(self.trails()[cell].load(Relaxed))
    }

    #[inline]
    pub(crate) fn set_trail(&self, cell: usize, trail: Trail) {
        self.trails()[cell].store(trail.0, Relaxed);
    }

    /// Puts a new cell at `cell`, where [`Block::find`] said, moving others along.
    ///
    /// # Panics
    /// If there is no room.
    pub(crate) fn insert(&self, cell: usize, at: Loc) {
        let cells = self.cells();
        assert!(cells < self.cells_max as usize, "the block has no room");
        for moved in (cell..cells).rev() {
            self.set_balances(moved + 1, &self.balances(moved));
            self.locations()[moved + 1].store(self.location(moved).0, Relaxed);
            self.set_trail(moved + 1, self.trail(moved));
        }
        self.locations()[cell].store(at.0, Relaxed);
        self.set_trail(cell, Trail::NONE);
        self.set_balances(cell, &Balances::ZERO);
        self.cells.store(cells as u32 + 1, Relaxed);
    }

    /// Puts a new cell behind all others, whose locations have lower numbers. Only while nobody else
    /// knows the block.
    ///
    /// # Panics
    /// If there is no room.
    pub(crate) fn append(&self, cell: usize, at: Loc, balances: &Balances) {
        debug_assert_eq!(cell, self.cells());
        self.locations()[cell].store(at.0, Relaxed);
        self.set_balances(cell, balances);
        self.cells.store(cell as u32 + 1, Relaxed);
    }

    /// A copy with another shape, which must have room for what is here.
    pub(crate) fn copy(&self, shape: Shape) -> NonNull<Block> {
        let block = Block::allocate(self.hash, self.name(), shape);
        // SAFETY: it was just allocated, and nobody else knows it.
        let copy = unsafe { block.as_ref() };
        copy.set_rules(self.rules_epoch(), self.overridden());
        copy.set_mark(self.mark());
        copy.add_net_in(self.net_in());
        for channel in 0..usize::from(self.channels.min(shape.channels)) {
            copy.set_sum(channel, self.sum(channel));
            copy.set_published(channel, self.published(channel));
        }
        for cell in 0..self.cells() {
            copy.insert(cell, self.location(cell));
            copy.set_balances(cell, &self.balances(cell));
            copy.set_trail(cell, self.trail(cell));
        }
        block
    }

    fn sums(&self) -> &[[AtomicI64; 2]] {
        // SAFETY: the layout has `channels` pairs at this offset; atomics may be shared.
        unsafe { std::slice::from_raw_parts(self.at(self.sums_at()), usize::from(self.channels)) }
    }

    fn narrow_balances(&self) -> &[[AtomicI32; ACCOUNTS]] {
        debug_assert!(!self.wide);
        // SAFETY: a narrow layout has `cells_max` cells of seven i32 at this offset.
        unsafe { std::slice::from_raw_parts(self.at(self.balances_at()), self.cells_max as usize) }
    }

    fn wide_balances(&self) -> &[[AtomicI64; ACCOUNTS]] {
        debug_assert!(self.wide);
        // SAFETY: a wide layout has `cells_max` cells of seven i64 at this offset.
        unsafe { std::slice::from_raw_parts(self.at(self.balances_at()), self.cells_max as usize) }
    }

    fn locations(&self) -> &[AtomicU32] {
        // SAFETY: the layout has `cells_max` numbers at this offset.
        unsafe { std::slice::from_raw_parts(self.at(self.locations_at()), self.cells_max as usize) }
    }

    fn trails(&self) -> &[AtomicU32] {
        let at = self.locations_at() + self.cells_max as usize * size_of::<u32>();
        // SAFETY: behind the locations, the layout has as many trails.
        unsafe { std::slice::from_raw_parts(self.at(at), self.cells_max as usize) }
    }

    fn sums_at(&self) -> usize {
        HEADER + usize::from(self.name_len).next_multiple_of(8)
    }

    fn locations_at(&self) -> usize {
        self.sums_at() + usize::from(self.channels) * size_of::<[i64; 2]>()
    }

    fn balances_at(&self) -> usize {
        self.locations_at() + locations_bytes(self.cells_max)
    }

    /// Address of what lies at `offset`.
    ///
    /// # Safety
    /// `offset` is within the block and aligned for `T`.
    unsafe fn at<T>(&self, offset: usize) -> *const T {
        // `self` borrows the header alone; the allocation, which is larger, was exposed when it
        // was made.
        std::ptr::with_exposed_provenance(std::ptr::from_ref(self).addr() + offset)
    }
}

#[inline]
fn fits_narrow(balances: &Balances) -> bool {
    balances.0.iter().all(|units| i32::try_from(*units).is_ok())
}

fn cell_bytes(wide: bool) -> usize {
    ACCOUNTS
        * if wide {
            size_of::<i64>()
        } else {
            size_of::<i32>()
        }
}

/// Of locations and trails.
fn locations_bytes(cells_max: u32) -> usize {
    cells_max as usize * 2 * size_of::<u32>()
}

/// As many cells as fit into the memory that an allocator gives for a block of this shape: mimalloc,
/// like others, has four sizes for each doubling, and what is between two of them would be lost.
pub(crate) fn cells_that_fit(name_len: usize, shape: Shape) -> u32 {
    let bytes = layout(name_len, shape).size();
    let given = bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(16));
    let cell = locations_bytes(1) + cell_bytes(shape.wide);
    shape.cells_max + ((given - bytes) / cell) as u32
}

fn layout(name_len: usize, shape: Shape) -> Layout {
    let bytes = HEADER
        + name_len.next_multiple_of(8)
        + usize::from(shape.channels) * size_of::<[i64; 2]>()
        + locations_bytes(shape.cells_max)
        + shape.cells_max as usize * cell_bytes(shape.wide);
    Layout::from_size_align(bytes, align_of::<Block>()).expect("a block is far smaller than memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        cells_max: 40,
        channels: 3,
        wide: false,
    };

    #[test]
    fn no_cell_more_would_fit() {
        let shape = |cells_max| Shape { cells_max, ..SHAPE };
        let bytes = |cells_max| layout(13, shape(cells_max)).size();
        for cells in 1..200 {
            let fits = cells_that_fit(13, shape(cells));
            assert!(fits >= cells && bytes(fits) < bytes(cells) * 5 / 4 + 16);
            assert_eq!(cells_that_fit(13, shape(fits)), fits);
        }
        // Ten locations and three channels: within 512 bytes, and not 640.
        assert_eq!((cells_that_fit(13, shape(10)), bytes(11)), (11, 500));
    }

    #[test]
    fn holds_what_was_put() {
        for wide in [false, true] {
            let block = Block::allocate(SkuHash(7), "4006381333931", Shape { wide, ..SHAPE });
            // SAFETY: just allocated.
            let b = unsafe { block.as_ref() };
            assert_eq!(
                (b.name(), b.hash(), b.cells()),
                ("4006381333931", SkuHash(7), 0)
            );
            // Backwards, so that every insertion moves the others.
            for n in (0..40).rev() {
                assert_eq!(b.find(Loc(n * 2)), Err(0));
                b.insert(0, Loc(n * 2));
                b.set_balances(
                    0,
                    &Balances([i64::from(n), -1, 2, 3, 4, 5, i64::from(n) * 1000]),
                );
                b.set_sum(2, i64::from(n));
            }
            for n in 0..40 {
                assert_eq!(b.find(Loc(n * 2)), Ok(n as usize));
                assert_eq!(b.find(Loc(n * 2 + 1)), Err(n as usize + 1));
                let expected = Balances([i64::from(n), -1, 2, 3, 4, 5, i64::from(n) * 1000]);
                assert_eq!(b.balances(n as usize), expected);
            }
            // SAFETY: freed once, and used no more.
            unsafe { Block::free(block) };
        }
    }

    #[test]
    fn a_copy_is_equal_and_can_be_wider() {
        let block = Block::allocate(SkuHash(7), "A", SHAPE);
        // SAFETY: just allocated.
        let b = unsafe { block.as_ref() };
        b.insert(0, Loc(3));
        let most = Balances::of(crate::domain::balances::Account::Good, i64::from(i32::MAX));
        b.set_balances(0, &most);
        b.set_sum(1, -9);
        b.set_published(1, Published::waiting(8));
        b.add_net_in(5);
        b.set_rules(4, true);
        let more = Balances::of(
            crate::domain::balances::Account::Good,
            i64::from(i32::MAX) + 1,
        );
        assert!(b.holds(&most) && !b.holds(&more));
        let copy = b.copy(Shape {
            cells_max: 41,
            channels: 5,
            wide: true,
        });
        // SAFETY: just allocated.
        let c = unsafe { copy.as_ref() };
        assert!(c.holds(&more));
        assert_eq!((c.name(), c.cells(), c.net_in()), ("A", 1, 5));
        assert_eq!(
            (c.sum(1), c.sum(4), c.rules_epoch(), c.overridden()),
            (-9, 0, 4, true)
        );
        assert_eq!(c.balances(0), most);
        assert_eq!(c.published(1), Published::waiting(8));
        assert_eq!(c.published(4), Published::default());
        // SAFETY: each freed once, and used no more.
        unsafe {
            Block::free(block);
            Block::free(copy);
        }
    }
}
