//! All order lines of a ledger, compactly: 40 bytes for a line whose milestones name one
//! location, which is nearly every line; the full form for the others.

use hashbrown::HashTable;

use super::{
    balances::{Loc, LocationNames},
    keys::LineKey,
    order_line::{Claims, OrderLine},
    posting::Milestone,
};

/// The table is split, so that growing stalls the writer for one part only.
const PARTS: usize = 64;

/// Marks a line that is kept in full form.
const FULL: u32 = u32::MAX;
/// Marks a line of which no milestone has named a location yet.
const NOWHERE: u32 = u32::MAX - 1;

/// A line whose milestones all named one location, or its place among the full ones.
#[derive(Debug, Clone, Copy)]
struct Compact {
    key: LineKey,
    /// The location, or [`FULL`], or [`NOWHERE`].
    loc: u32,
    /// Units reserved; the index into `Lines::full` if [`FULL`].
    reserved: u32,
    released_here: u32,
    released_anywhere: u32,
    shipped: u32,
}

const _: () = assert!(size_of::<Compact>() <= 40);

/// The order lines of a ledger.
#[derive(Debug)]
pub struct Lines {
    parts: Vec<HashTable<Compact>>,
    full: Vec<OrderLine>,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
            full: Vec::new(),
        }
    }
}

impl Lines {
    /// Adds a milestone and gives the line's claims before and after.
    pub fn record(
        &mut self,
        key: LineKey,
        milestone: Milestone,
        units: i64,
        names: &impl LocationNames,
    ) -> (Claims, Claims) {
        let part = &mut self.parts[part_of(key)];
        let entry = part.entry(hash_of(key), |c| c.key == key, |c| hash_of(c.key));
        let mut entry = entry.or_insert_with(|| Compact {
            key,
            loc: NOWHERE,
            reserved: 0,
            released_here: 0,
            released_anywhere: 0,
            shipped: 0,
        });
        let compact = entry.get_mut();
        if compact.loc != FULL {
            let before = compact.claims();
            if compact.record(milestone, units) {
                return (before, compact.claims());
            }
            // It names another location, or outgrew 32 bits: from now on in full form.
            let line = compact.expand();
            compact.loc = FULL;
            compact.reserved = u32::try_from(self.full.len()).expect("fewer than 2^32 lines");
            self.full.push(line);
        }
        let line = &mut self.full[compact.reserved as usize];
        let before = line.claims(names);
        line.record(milestone, units);
        (before, line.claims(names))
    }

    /// Brings what [`Lines::record`] will touch into the cache.
    #[inline]
    pub fn touch(&self, key: LineKey) {
        // A lookup whose result is not used: those of many keys overlap in the processor.
        let found = self.parts[part_of(key)].find(hash_of(key), |c| c.key == key);
        std::hint::black_box(found.is_some());
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The totals of one line.
    pub fn get(&self, key: LineKey) -> Option<OrderLine> {
        let compact = self.parts[part_of(key)].find(hash_of(key), |c| c.key == key)?;
        Some(self.expand(compact))
    }

    /// All lines. In no order: only for what does not depend on order, as the digest.
    pub fn for_each(&self, mut visit: impl FnMut(LineKey, &OrderLine)) {
        for compact in self.parts.iter().flat_map(HashTable::iter) {
            visit(compact.key, &self.expand(compact));
        }
    }

    /// Bytes that the lines occupy, allocated and not used included.
    pub fn bytes(&self) -> usize {
        // One control byte for each bucket.
        let buckets: usize = self.parts.iter().map(HashTable::num_buckets).sum();
        buckets * (size_of::<Compact>() + 1) + self.full.capacity() * size_of::<OrderLine>()
    }

    fn expand(&self, compact: &Compact) -> OrderLine {
        if compact.loc == FULL {
            self.full[compact.reserved as usize].clone()
        } else {
            compact.expand()
        }
    }
}

impl Compact {
    /// Adds a milestone if this form can hold it; else changes nothing.
    fn record(&mut self, milestone: Milestone, units: i64) -> bool {
        let (at, total) = match milestone {
            Milestone::Reserved(at) => (Some(at), &mut self.reserved),
            Milestone::Released(Some(at)) => (Some(at), &mut self.released_here),
            Milestone::Released(None) => (None, &mut self.released_anywhere),
            Milestone::Shipped(at) => (Some(at), &mut self.shipped),
            Milestone::Reassigned { .. } => return false,
        };
        if let Some(at) = at {
            if self.loc == NOWHERE {
                self.loc = at.0;
            } else if self.loc != at.0 {
                return false;
            }
        }
        let sum = u32::try_from(units)
            .ok()
            .and_then(|units| total.checked_add(units));
        sum.inspect(|sum| *total = *sum).is_some()
    }

    fn claims(&self) -> Claims {
        let claim = i64::from(self.reserved)
            - i64::from(self.released_here)
            - i64::from(self.released_anywhere)
            - i64::from(self.shipped);
        let mut claims = Claims::new();
        if claim > 0 {
            claims.push((Loc(self.loc), claim));
        }
        claims
    }

    fn expand(&self) -> OrderLine {
        let [reserved, here, anywhere, shipped] = [
            self.reserved,
            self.released_here,
            self.released_anywhere,
            self.shipped,
        ]
        .map(i64::from);
        let net = reserved - here - shipped;
        let mut line = OrderLine {
            reserved,
            released: here + anywhere,
            shipped,
            released_anywhere: anywhere,
            nets: smallvec::SmallVec::new(),
        };
        if reserved + here + shipped > 0 {
            line.nets.push((Loc(self.loc), net));
        }
        line
    }
}

fn part_of(key: LineKey) -> usize {
    (key.0[1] % PARTS as u64) as usize
}

fn hash_of(key: LineKey) -> u64 {
    key.0[0]
}
