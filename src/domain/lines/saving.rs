//! Saving lines for a checkpoint, and taking them back.
//!
//! Lines are saved some at a time while the writer goes on. Each has a mark that says whether it was
//! saved already; one that is about to change, or to be retired, before it has had its turn is
//! saved first. So what comes out is how all lines stood when it began.

use hashbrown::HashTable;
use slab::Slab;

use super::{Compact, FULL, Lines, MARK, hash_of, part_of};
use crate::domain::{
    balances::Loc,
    keys::LineKey,
    lifecycle::{DISPOSITIONS, Line, ReturnedAt, ReturnedLine, Returns},
    saved::{Broken, Input, Output},
};

/// Places of the table that are looked at in one slice.
const PLACES_OF_SLICE: usize = 256;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// The mark that lines have once they are saved, and all when nothing is under way.
    pub(super) mark: u32,
    /// The next part; `None`: nothing is under way.
    next: Option<usize>,
    /// How far it has come in that part.
    place: usize,
    output: Output,
}

impl Saving {
    /// One more line comes into a part that has no room left: all of it may have other places from
    /// then on. What was saved of it is marked.
    #[cold]
    pub(super) fn makes_room(&mut self, number: usize) {
        if self.next == Some(number) {
            self.place = 0;
        }
    }

    /// Saves a line as it is, unless that was done.
    #[inline]
    pub(super) fn save_once(&mut self, compact: &mut Compact, full: &Slab<Line>) {
        if compact.touched & MARK != self.mark {
            put(&mut self.output, compact, full);
            compact.touched ^= MARK;
        }
    }
}

impl Lines {
    /// All lines, as they are now, are to be saved.
    ///
    /// # Panics
    /// If that is under way already.
    pub fn begin_saving(&mut self) {
        let saving = &mut self.saving;
        assert!(saving.next.is_none(), "lines are being saved already");
        saving.mark ^= MARK;
        saving.next = Some(0);
    }

    /// Saves some more. True if there are more.
    pub fn save_slice(&mut self) -> bool {
        self.save_places(PLACES_OF_SLICE)
    }

    fn save_places(&mut self, places: usize) -> bool {
        let Self {
            parts,
            full,
            saving,
        } = self;
        let Some(part) = saving.next else {
            return false;
        };
        let table = &mut parts[part];
        let begin = saving.place;
        let end = (begin + places).min(table.num_buckets());
        for place in begin..end {
            if let Some(compact) = table.get_bucket_mut(place) {
                saving.save_once(compact, full);
            }
        }
        saving.place = end;
        if end < table.num_buckets() {
            return true;
        }
        saving.place = 0;
        saving.next = Some(part + 1).filter(|next| *next < parts.len());
        saving.next.is_some()
    }

    /// What was saved and not yet taken.
    pub fn saved(&mut self) -> &mut Output {
        &mut self.saving.output
    }

    /// Makes room for so many more lines.
    pub fn reserve(&mut self, lines: usize) {
        // They do not spread quite evenly.
        let each = lines / self.parts.len() + lines / self.parts.len() / 16;
        for part in &mut self.parts {
            part.reserve(each, |compact| hash_of(compact.key));
        }
    }

    /// Takes back those saved lines that belong to this one of so many shards.
    ///
    /// # Errors
    /// If these are no saved lines.
    pub fn take_back(
        &mut self,
        bytes: &[u8],
        (shard, shards): (usize, usize),
    ) -> Result<(), Broken> {
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let (mut compact, line) = take(&mut input)?;
            if compact.key.shard(shards) != shard {
                continue;
            }
            if let Some(line) = line {
                compact.opened =
                    u32::try_from(self.full.insert(line)).expect("fewer than 2^32 lines");
            }
            compact.touched |= self.saving.mark;
            let part: &mut HashTable<Compact> = &mut self.parts[part_of(compact.key)];
            part.insert_unique(hash_of(compact.key), compact, |c| hash_of(c.key));
        }
        Ok(())
    }
}

/// Visits all lines of what was saved.
///
/// # Errors
/// If these are no saved lines.
pub fn each_saved(bytes: &[u8], mut visit: impl FnMut(LineKey, &Line)) -> Result<(), Broken> {
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let (compact, line) = take(&mut input)?;
        visit(compact.key, &line.unwrap_or_else(|| compact.expand()));
    }
    Ok(())
}

fn put(output: &mut Output, compact: &Compact, full: &Slab<Line>) {
    output.u64(compact.key.0[0]);
    output.u64(compact.key.0[1]);
    output.i64(compact.until_us);
    output.u32(compact.loc);
    output.u32(compact.opened);
    output.u32(compact.withdrawn_here);
    output.u32(compact.withdrawn_anywhere);
    output.u32(compact.fulfilled);
    output.u32(compact.minute());
    if compact.loc == FULL {
        put_full(output, &full[compact.opened as usize]);
    }
}

fn take(input: &mut Input<'_>) -> Result<(Compact, Option<Line>), Broken> {
    let compact = Compact {
        key: LineKey([input.u64()?, input.u64()?]),
        until_us: input.i64()?,
        loc: input.u32()?,
        opened: input.u32()?,
        withdrawn_here: input.u32()?,
        withdrawn_anywhere: input.u32()?,
        fulfilled: input.u32()?,
        touched: input.u32()?,
    };
    let line = match compact.loc {
        FULL => Some(take_full(input)?),
        _ => None,
    };
    Ok((compact, line))
}

fn put_full(output: &mut Output, line: &Line) {
    for total in [
        line.opened,
        line.withdrawn,
        line.fulfilled,
        line.withdrawn_anywhere,
        line.until_us,
        line.returned,
    ] {
        output.i64(total);
    }
    output.count(line.nets.len());
    for (at, net) in &line.nets {
        output.u32(at.0);
        output.i64(*net);
    }
    output.option(line.returns.as_deref(), |output, returns| {
        output.i64(returns.refunded);
        output.count(returns.at.len());
        for there in &returns.at {
            output.u32(there.at.0);
            output.i64(there.received);
            there.inspected.iter().for_each(|units| output.i64(*units));
        }
        output.option(returns.order.as_ref(), |output, order| {
            output.u64(order.key.0[0]);
            output.u64(order.key.0[1]);
            output.text(&order.order);
            output.text(&order.line);
        });
    });
}

fn take_full(input: &mut Input<'_>) -> Result<Line, Broken> {
    let mut line = Line {
        opened: input.i64()?,
        withdrawn: input.i64()?,
        fulfilled: input.i64()?,
        withdrawn_anywhere: input.i64()?,
        until_us: input.i64()?,
        returned: input.i64()?,
        ..Line::default()
    };
    for _ in 0..input.count()? {
        line.nets.push((Loc(input.u32()?), input.i64()?));
    }
    line.returns = input.option(|input| {
        let mut returns = Returns {
            refunded: input.i64()?,
            ..Returns::default()
        };
        for _ in 0..input.count()? {
            let mut there = ReturnedAt {
                at: Loc(input.u32()?),
                received: input.i64()?,
                inspected: [0; DISPOSITIONS.len()],
            };
            for units in &mut there.inspected {
                *units = input.i64()?;
            }
            returns.at.push(there);
        }
        returns.order = input.option(|input| {
            Ok(ReturnedLine {
                key: LineKey([input.u64()?, input.u64()?]),
                order: input.text()?.into(),
                line: input.text()?.into(),
            })
        })?;
        Ok(Box::new(returns))
    })?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::LazyLock};

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        balances::LocationNames,
        keys::{Keyer, LineKind},
        posting::{Milestone, NEVER_US},
    };

    struct Names;

    impl LocationNames for Names {
        fn name(&self, _: Loc) -> &'static str {
            "dc"
        }
    }

    const AT: Loc = Loc(1);

    /// Lines of one part, so that it grows, and has other places when many have gone.
    static KEYS: LazyLock<Vec<LineKey>> = LazyLock::new(|| {
        let mut keyer = Keyer::new();
        let all = (0..).map(|n: u32| keyer.line(LineKind::Order, &n.to_string(), "1", "A"));
        all.filter(|key| part_of(*key) == 0).take(600).collect()
    });

    proptest! {
        /// Lines that come in, change and are retired while others are saved.
        #[test]
        fn what_is_saved_is_how_they_stood(
            before in prop::collection::vec(0usize..300, 0..300),
            after in prop::collection::vec((0usize..600, 0u8..8, 0usize..60), 0..1_000),
        ) {
            let mut lines = Lines::default();
            let mut now_us = 60_000_000;
            let reserved = Milestone::Reserved { at: AT, expires_us: NEVER_US };
            for number in before {
                lines.record(KEYS[number], reserved, 1, now_us, &Names);
            }
            let mut expected = BTreeMap::new();
            lines.for_each(|key, line| {
                expected.insert(key, line.clone());
            });
            lines.begin_saving();
            for (number, what, places) in after {
                match what {
                    0..3 => drop(lines.record(KEYS[number], reserved, 1, now_us, &Names)),
                    3..6 => {
                        let units = lines.get(KEYS[number]).map_or(0, |line| line.opened);
                        if units > 0 {
                            let shipped = Milestone::Shipped(AT);
                            lines.record(KEYS[number], shipped, units, now_us, &Names);
                        }
                    }
                    6 => {
                        lines.change_full(KEYS[number], now_us, &Names, |line| line.returned += 1);
                    }
                    _ => {
                        now_us += 60_000_000;
                        lines.retire(0, (now_us / 60_000_000) as u32, 1);
                    }
                }
                if places < 20 {
                    lines.save_places(places + 1);
                }
            }
            while lines.save_slice() {}
            let mut saved = BTreeMap::new();
            each_saved(&lines.saved().take(), |key, line| {
                assert!(saved.insert(key, line.clone()).is_none(), "it was saved twice");
            }).expect("these are lines");
            prop_assert_eq!(saved, expected);
        }
    }
}
