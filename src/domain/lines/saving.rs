//! Saving lines for a checkpoint, and taking them back.
//!
//! Lines are saved part by part while the writer goes on. Each has a mark that says whether it was
//! saved already; one that is about to change, or to be retired, before its part has had its turn
//! is saved first. So what comes out is how all lines stood when it began.

use hashbrown::HashTable;
use slab::Slab;

use super::{Compact, FULL, Lines, MARK, hash_of, part_of};
use crate::domain::{
    balances::Loc,
    keys::LineKey,
    lifecycle::{DISPOSITIONS, Line, ReturnedAt, ReturnedLine, Returns},
    saved::{Broken, Input, Output},
};

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// The mark that lines have once they are saved, and all when nothing is under way.
    pub(super) mark: u32,
    /// The next part; `None`: nothing is under way.
    next: Option<usize>,
    output: Output,
}

impl Saving {
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

    /// Saves one more part. True if there are more.
    pub fn save_slice(&mut self) -> bool {
        let Self {
            parts,
            full,
            saving,
        } = self;
        let Some(part) = saving.next else {
            return false;
        };
        for compact in parts[part].iter_mut() {
            saving.save_once(compact, full);
        }
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
