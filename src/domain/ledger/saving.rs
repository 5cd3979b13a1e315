//! Saving a ledger for a checkpoint while it is written, and taking it back.
//!
//! [`Ledger::begin_saving`] says from which moment on the state is meant; every call of
//! [`Ledger::save_slice`] then saves a little more of it. Whatever is about to change before it has
//! had its turn is saved first, as it was at that moment.
//!
//! A part of the ledger that is added later has its place here: its turn in [`Ledger::save_slice`],
//! its bytes in [`SavedPart`], and its way back in [`Ledger::take_back`].

use super::{Books, Ledger, Timer};
use crate::domain::{
    keys::LineKey,
    movement::TimeUs,
    saved::{Broken, Input, Output},
};

/// Timers that are saved at once.
const TIMERS_OF_SLICE: usize = 256;

/// The parts of a ledger that are saved, beside its books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedPart {
    /// Followed lines.
    Lines,
    /// What is to happen when the log's time comes.
    Timers,
    /// Recent movements. The books have to be taken back before.
    Recent,
    /// What was counted, and what snapshots state.
    Counted,
}

impl SavedPart {
    /// All of them.
    pub const ALL: [SavedPart; 4] = [
        SavedPart::Lines,
        SavedPart::Timers,
        SavedPart::Recent,
        SavedPart::Counted,
    ];
}

impl<B: Books> Ledger<B> {
    /// All of it, as it is now, is to be saved.
    ///
    /// # Panics
    /// If that is under way already.
    pub fn begin_saving(&mut self) {
        self.lines.begin_saving();
        self.saving.timers.begin();
        self.saving.recent = self.recent.view();
        self.counted.begin_saving();
    }

    /// Saves a little more. True if there is more to save.
    pub fn save_slice(&mut self) -> bool {
        let Self { timers, saving, .. } = self;
        if self.lines.save_slice()
            || saving.recent.save_next(&mut saving.saved_recent)
            || self.counted.save_slice()
        {
            return true;
        }
        let output = &mut saving.saved_timers;
        saving
            .timers
            .slice(timers, TIMERS_OF_SLICE, |place, timer| {
                put(output, place, timer);
            })
    }

    /// What was saved of a part and not yet taken. May be cut wherever it is taken.
    pub fn saved(&mut self, part: SavedPart) -> &mut Output {
        match part {
            SavedPart::Lines => self.lines.saved(),
            SavedPart::Timers => &mut self.saving.saved_timers,
            SavedPart::Recent => &mut self.saving.saved_recent,
            SavedPart::Counted => self.counted.saved(),
        }
    }

    /// Takes back of what was saved of a part that which belongs to this one of so many shards. `own`:
    /// the same of as many shards saved it.
    ///
    /// # Errors
    /// If these bytes were not saved so.
    pub fn take_back(
        &mut self,
        part: SavedPart,
        bytes: &[u8],
        place: (usize, usize),
        own: bool,
    ) -> Result<(), Broken> {
        match part {
            SavedPart::Lines => self.lines.take_back(bytes, place),
            SavedPart::Timers => self.take_back_timers(bytes, place),
            SavedPart::Recent => self.take_back_recent(bytes, place, own),
            SavedPart::Counted => self.counted.take_back(bytes, place),
        }
    }

    /// Makes room for so many lines.
    pub fn reserve_lines(&mut self, lines: usize) {
        self.lines.reserve(lines);
    }

    /// Goes on from this time of the log. Only before anything is applied.
    pub fn go_on_at(&mut self, now_us: TimeUs) {
        self.now_us = now_us;
    }

    fn take_back_recent(
        &mut self,
        bytes: &[u8],
        place: (usize, usize),
        own: bool,
    ) -> Result<(), Broken> {
        let Self { books, recent, .. } = self;
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            if own {
                recent.take_back_page(&mut input)?;
                continue;
            }
            recent.take_back_share(&mut input, place, |sku, at, last| {
                let before = books.swap_trail(sku, at, last);
                before.ok_or(Broken(
                    "it has a recent movement of a cell that is not there",
                ))
            })?;
        }
        Ok(())
    }

    fn take_back_timers(
        &mut self,
        bytes: &[u8],
        (shard, shards): (usize, usize),
    ) -> Result<(), Broken> {
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let place = (input.i64()?, LineKey([input.u64()?, input.u64()?]));
            let timer = Timer {
                sku: input.text()?.into(),
                document: input.text()?.into(),
                line: input.text()?.into(),
            };
            if place.1.shard(shards) == shard {
                self.timers.insert(place, timer);
            }
        }
        Ok(())
    }

    /// To be called before a timer is put in or removed.
    pub(super) fn save_timer(&mut self, place: (TimeUs, LineKey)) {
        if self.saving.timers.touch(place)
            && let Some(timer) = self.timers.get(&place)
        {
            put(&mut self.saving.saved_timers, &place, timer);
        }
    }
}

fn put(output: &mut Output, (at_us, key): &(TimeUs, LineKey), timer: &Timer) {
    output.i64(*at_us);
    output.u64(key.0[0]);
    output.u64(key.0[1]);
    output.text(&timer.sku);
    output.text(&timer.document);
    output.text(&timer.line);
}
