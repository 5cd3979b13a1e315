//! All followed lines of a ledger, compactly: 48 bytes for a line whose milestones name one
//! location and only open, withdraw and fulfil, which is nearly every line; the full form for the
//! others.

use hashbrown::HashTable;
use slab::Slab;

use super::{
    balances::{Loc, LocationNames},
    keys::{LineKey, LineKind},
    lifecycle::{Claims, Line, Misfits, Step, has_expired, is_overdue},
    movement::TimeUs,
    posting::{Milestone, UNSTATED_US},
};

/// The table is split, so that growing, and looking for what can be retired, stalls the writer
/// for one part only.
pub const PARTS: usize = 64;

/// Marks a line that is kept in full form.
const FULL: u32 = u32::MAX;
/// Marks a line of which no milestone has named a location yet.
const NOWHERE: u32 = u32::MAX - 1;

/// Whether the line was saved by the checkpoint under way: then it is as in `Saving::mark`. All are,
/// when none is under way.
const MARK: u32 = 1 << 31;

/// A line whose milestones all named one location, or its place among the full ones.
#[derive(Debug, Clone, Copy)]
struct Compact {
    key: LineKey,
    /// The latest time stated.
    until_us: TimeUs,
    /// The location, or [`FULL`], or [`NOWHERE`].
    loc: u32,
    /// Units opened; the index into `Lines::full` if [`FULL`].
    opened: u32,
    withdrawn_here: u32,
    withdrawn_anywhere: u32,
    fulfilled: u32,
    /// Minute of the log's time in which it was last changed; the highest bit is [`MARK`].
    touched: u32,
}

const _: () = assert!(size_of::<Compact>() <= 48);

/// How a line stood at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it claims.
    pub claims: Claims,
    /// How its facts do not fit.
    pub misfits: Misfits,
    /// The latest time stated.
    pub until_us: TimeUs,
}

/// A line before and after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub before: Standing,
    /// After.
    pub after: Standing,
}

/// The followed lines of a ledger.
#[derive(Debug)]
pub struct Lines {
    parts: Vec<HashTable<Compact>>,
    full: Slab<Line>,
    saving: Saving,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
            full: Slab::new(),
            saving: Saving::default(),
        }
    }
}

impl Lines {
    /// Adds a milestone, and tells how the line stands before and after.
    #[inline]
    pub fn record(
        &mut self,
        key: LineKey,
        milestone: Milestone,
        units: i64,
        now_us: TimeUs,
        names: &impl LocationNames,
    ) -> Change {
        let compact = self.touched(key, now_us);
        if compact.loc != FULL {
            let before = compact.standing(now_us);
            if compact.record(milestone, units) {
                let after = compact.standing(now_us);
                return Change { before, after };
            }
        }
        self.change_full(key, now_us, names, |line| line.record(milestone, units))
    }

    /// Changes a line in its full form.
    pub fn change_full(
        &mut self,
        key: LineKey,
        now_us: TimeUs,
        names: &impl LocationNames,
        change: impl FnOnce(&mut Line),
    ) -> Change {
        self.touched(key, now_us);
        let Self { parts, full, .. } = self;
        // Not with an entry, which makes room even for what is there: lines that are being saved
        // would move once more.
        let found = parts[part_of(key)].find_mut(hash_of(key), |c| c.key == key);
        let compact = found.expect("it was touched just now");
        if compact.loc != FULL {
            let line = compact.expand();
            compact.loc = FULL;
            compact.opened = u32::try_from(full.insert(line)).expect("fewer than 2^32 lines");
        }
        let place = compact.opened as usize;
        let line = &mut full[place];
        let before = standing(key.kind(), line, now_us, names);
        change(line);
        let after = standing(key.kind(), line, now_us, names);
        if line.is_nothing() {
            self.remove(key);
        }
        Change { before, after }
    }

    /// What a line claims at its time, unless that is over.
    pub fn claims(&self, key: LineKey, now_us: TimeUs, names: &impl LocationNames) -> Claims {
        match self.find(key) {
            None => Claims::new(),
            Some(compact) if compact.loc != FULL => compact.standing(now_us).claims,
            Some(compact) => {
                let line = &self.full[compact.opened as usize];
                standing(key.kind(), line, now_us, names).claims
            }
        }
    }

    /// Brings what [`Lines::record`] will touch into the cache.
    #[inline]
    pub fn touch(&self, key: LineKey) {
        // A lookup whose result is not used: those of many keys overlap in the processor.
        std::hint::black_box(self.find(key).is_some());
    }

    /// The latest time stated of a line, if there is such a line.
    pub fn until_us(&self, key: LineKey) -> Option<TimeUs> {
        let compact = self.find(key)?;
        Some(match compact.loc {
            FULL => self.full[compact.opened as usize].until_us,
            _ => compact.until_us,
        })
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
    pub fn get(&self, key: LineKey) -> Option<Line> {
        self.find(key).map(|compact| self.expand(compact))
    }

    /// All lines. In no order: only for what does not depend on order, as the digest.
    pub fn for_each(&self, mut visit: impl FnMut(LineKey, &Line)) {
        for compact in self.parts.iter().flat_map(HashTable::iter) {
            visit(compact.key, &self.expand(compact));
        }
    }

    /// Bytes that the lines occupy, allocated and not used included.
    pub fn bytes(&self) -> usize {
        // One control byte for each bucket.
        let buckets: usize = self.parts.iter().map(HashTable::num_buckets).sum();
        buckets * (size_of::<Compact>() + 1) + self.full.capacity() * size_of::<Line>()
    }

    /// Retires the lines of one part that are settled, and were last changed `after_minutes` or
    /// more before `minute`. A return that was not refunded is kept
    /// [`UNREFUNDED_FACTOR`] times as long, since a refund that comes after it was retired would
    /// seem to be one without a receipt. Gives their number.
    pub fn retire(&mut self, part: usize, minute: u32, after_minutes: u32) -> usize {
        let Self {
            parts,
            full,
            saving,
        } = self;
        let now_us = i64::from(minute) * MINUTE_US;
        let table = &mut parts[part];
        let before = table.len();
        table.retain(|compact| {
            let age = minute.saturating_sub(compact.minute());
            if age < after_minutes {
                return true;
            }
            let kind = compact.key.kind();
            let keep = if compact.loc != FULL {
                !compact.expand().is_settled(kind, now_us)
            } else {
                let line = &full[compact.opened as usize];
                let too_early =
                    line.is_unrefunded() && age < after_minutes.saturating_mul(UNREFUNDED_FACTOR);
                too_early || !line.is_settled(kind, now_us)
            };
            if !keep {
                saving.save_once(compact, full);
                if compact.loc == FULL {
                    full.remove(compact.opened as usize);
                }
            }
            keep
        });
        before - table.len()
    }

    /// The line of a key, about to be changed: a checkpoint under way has it as it was.
    #[inline]
    fn touched(&mut self, key: LineKey, now_us: TimeUs) -> &mut Compact {
        let Self {
            parts,
            full,
            saving,
        } = self;
        let number = part_of(key);
        let part = &mut parts[number];
        if part.len() == part.capacity() {
            saving.makes_room(number);
        }
        let compact = entry(part, key, saving.mark);
        saving.save_once(compact, full);
        compact.touched = minute_of(now_us) | saving.mark;
        compact
    }

    fn find(&self, key: LineKey) -> Option<&Compact> {
        self.parts[part_of(key)].find(hash_of(key), |c| c.key == key)
    }

    fn remove(&mut self, key: LineKey) {
        let part = &mut self.parts[part_of(key)];
        if let Ok(entry) = part.find_entry(hash_of(key), |c| c.key == key) {
            let (compact, _) = entry.remove();
            if compact.loc == FULL {
                self.full.remove(compact.opened as usize);
            }
        }
    }

    fn expand(&self, compact: &Compact) -> Line {
        if compact.loc == FULL {
            self.full[compact.opened as usize].clone()
        } else {
            compact.expand()
        }
    }
}

/// How much longer a return that awaits its refund is kept.
pub const UNREFUNDED_FACTOR: u32 = 8;

const MINUTE_US: i64 = 60 * 1_000_000;

/// Minutes of the log's time, since 1970; up to the year 6053, so that the highest bit is free.
pub(super) fn minute_of(us: TimeUs) -> u32 {
    (us / MINUTE_US).clamp(0, i64::from(MARK - 1)) as u32
}

/// The line of a key in its part; a new one, which has this mark, if there is none.
#[inline]
fn entry(part: &mut HashTable<Compact>, key: LineKey, mark: u32) -> &mut Compact {
    let entry = part.entry(hash_of(key), |c| c.key == key, |c| hash_of(c.key));
    let entry = entry.or_insert_with(|| Compact {
        key,
        until_us: UNSTATED_US,
        loc: NOWHERE,
        opened: 0,
        withdrawn_here: 0,
        withdrawn_anywhere: 0,
        fulfilled: 0,
        touched: mark,
    });
    entry.into_mut()
}

fn standing(kind: LineKind, line: &Line, now_us: TimeUs, names: &impl LocationNames) -> Standing {
    Standing {
        claims: if has_expired(kind, line.until_us, now_us) {
            Claims::new()
        } else {
            line.claims(names)
        },
        misfits: line.misfits(kind, now_us),
        until_us: line.until_us,
    }
}

impl Compact {
    fn minute(&self) -> u32 {
        self.touched & !MARK
    }

    /// Adds a milestone if this form can hold it; else changes nothing.
    #[inline]
    fn record(&mut self, milestone: Milestone, units: i64) -> bool {
        let kind = self.key.kind();
        let mut until_us = self.until_us;
        let (at, total) = match milestone.step() {
            Step::Open(at, stated_us) => {
                until_us = until_us.max(stated_us);
                (Some(at), &mut self.opened)
            }
            Step::Withdraw(Some(at)) => (Some(at), &mut self.withdrawn_here),
            Step::Withdraw(None) => (None, &mut self.withdrawn_anywhere),
            Step::Fulfil(at) if kind != LineKind::Return => (Some(at), &mut self.fulfilled),
            Step::Fulfil(_) | Step::Move(..) | Step::None => return false,
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
        let Some(sum) = sum else { return false };
        *total = sum;
        self.until_us = until_us;
        true
    }

    #[inline]
    fn standing(&self, now_us: TimeUs) -> Standing {
        let kind = self.key.kind();
        let [opened, here, anywhere, fulfilled] = self.totals();
        let open = opened - here - anywhere - fulfilled;
        let mut claims = Claims::new();
        if open > 0 && !has_expired(kind, self.until_us, now_us) {
            claims.push((Loc(self.loc), open));
        }
        let overdue = is_overdue(kind, self.until_us, now_us);
        Standing {
            claims,
            misfits: Misfits {
                beyond: Misfits::beyond(opened, here + anywhere, fulfilled),
                overdue: if overdue { open.max(0) } else { 0 },
                ..Misfits::default()
            },
            until_us: self.until_us,
        }
    }

    fn totals(&self) -> [i64; 4] {
        [
            self.opened,
            self.withdrawn_here,
            self.withdrawn_anywhere,
            self.fulfilled,
        ]
        .map(i64::from)
    }

    fn expand(&self) -> Line {
        let [opened, here, anywhere, fulfilled] = self.totals();
        let mut line = Line {
            opened,
            withdrawn: here + anywhere,
            fulfilled,
            withdrawn_anywhere: anywhere,
            until_us: self.until_us,
            ..Line::default()
        };
        if opened + here + fulfilled > 0 {
            line.nets.push((Loc(self.loc), opened - here - fulfilled));
        }
        line
    }
}

fn part_of(key: LineKey) -> usize {
    // The lowest two bits are the kind.
    ((key.0[1] >> 2) % PARTS as u64) as usize
}

fn hash_of(key: LineKey) -> u64 {
    key.0[0]
}

mod saving;

use saving::Saving;
pub use saving::each_saved;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{keys::Keyer, movement::Disposition};

    struct Names;

    impl LocationNames for Names {
        fn name(&self, _: Loc) -> &'static str {
            "dc"
        }
    }

    const AT: Loc = Loc(1);
    const DAY: u32 = 24 * 60;

    fn key(kind: LineKind, n: usize) -> LineKey {
        Keyer::new().line(kind, &n.to_string(), "1", "A")
    }

    fn at(minute: u32) -> TimeUs {
        i64::from(minute) * MINUTE_US
    }

    fn retire(lines: &mut Lines, minute: u32) -> usize {
        (0..PARTS)
            .map(|part| lines.retire(part, minute, 7 * DAY))
            .sum()
    }

    #[test]
    fn settled_lines_are_retired_after_their_time_and_others_are_not() {
        let mut lines = Lines::default();
        let reserved = |expires_us| Milestone::Reserved { at: AT, expires_us };
        let never = crate::domain::posting::NEVER_US;
        let (shipped, open, over, expired) = (
            key(LineKind::Order, 1),
            key(LineKind::Order, 2),
            key(LineKind::Order, 3),
            key(LineKind::Order, 4),
        );
        let mut record = |key, milestone, units| {
            lines.record(key, milestone, units, at(DAY), &Names);
        };
        record(shipped, reserved(never), 3);
        record(shipped, Milestone::Shipped(AT), 3);
        record(open, reserved(never), 3);
        record(open, Milestone::Shipped(AT), 2);
        record(over, reserved(never), 3);
        record(over, Milestone::Shipped(AT), 4);
        record(expired, reserved(at(2 * DAY)), 3);
        assert_eq!(retire(&mut lines, 8 * DAY - 1), 0);
        assert_eq!(retire(&mut lines, 8 * DAY), 2);
        assert_eq!(lines.len(), 2);
        assert!(lines.get(open).is_some() && lines.get(over).is_some());
        // What was found wrong is kept until it is right.
        let late = Milestone::Reserved {
            at: AT,
            expires_us: never,
        };
        lines.record(over, late, 1, at(9 * DAY), &Names);
        assert_eq!(retire(&mut lines, 16 * DAY - 1), 0);
        assert_eq!(retire(&mut lines, 16 * DAY), 1);
    }

    #[test]
    fn a_return_that_was_not_refunded_is_kept_longer() {
        let mut lines = Lines::default();
        for n in 0..2 {
            let line = key(LineKind::Return, n);
            let mut record = |milestone| {
                lines.record(line, milestone, 1, at(0), &Names);
            };
            record(Milestone::Authorized(AT));
            record(Milestone::Returned(AT));
            record(Milestone::Inspected {
                at: AT,
                disposition: Disposition::Scrap,
            });
            if n == 0 {
                record(Milestone::Refunded);
            }
        }
        assert_eq!(lines.len(), 2);
        assert_eq!(retire(&mut lines, 7 * DAY), 1);
        assert_eq!(retire(&mut lines, 7 * DAY * UNREFUNDED_FACTOR - 1), 0);
        assert_eq!(retire(&mut lines, 7 * DAY * UNREFUNDED_FACTOR), 1);
        assert_eq!((lines.len(), lines.full.len()), (0, 0));
    }

    #[test]
    fn a_line_that_others_name_no_more_is_as_one_that_never_was() {
        let mut lines = Lines::default();
        let order = key(LineKind::Order, 1);
        let mut returned = |units| {
            let change = lines.change_full(order, 0, &Names, |line| line.returned += units);
            (change.after.misfits.returned, lines.len())
        };
        // Of an order that nothing else is known of, it cannot be told.
        assert_eq!(returned(2), (0, 1));
        assert_eq!(returned(-2), (0, 0));
        assert!(lines.full.is_empty());
        assert!(lines.get(order).is_none());
    }
}
