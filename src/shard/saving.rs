//! A shard's part of a checkpoint: saved in slices between batches, and taken back.

use std::sync::{Arc, Mutex};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use super::{
    books::{Audit, Counts, ShardBooks, cells_of},
    index::Index,
    locations::Locations,
    queue::{Unfinished, lock},
    rulebook::RulesInForce,
    worker::{Work, Writer},
};
use crate::{
    checkpoint::{
        Kind, Totals,
        format::Label,
        saving::{Message, Outlet, Pace},
    },
    domain::{
        balances::LocationNames,
        digest::Digester,
        exceptions::{Finding, Open, OpenExceptions},
        keys::SkuHash,
        ledger::{Ledger, SavedPart, each_counted},
        lines::each_saved,
        movement::TimeUs,
        saved::{Broken, Input, Output},
    },
};

/// What is under way.
pub(super) struct Saving {
    outlet: Outlet,
    of: (u16, u16),
    pace: Pace,
}

const fn kind_of(part: SavedPart) -> Kind {
    match part {
        SavedPart::Lines => Kind::Lines,
        SavedPart::Timers => Kind::Timers,
        SavedPart::Recent => Kind::Recent,
        SavedPart::Counted => Kind::Counted,
    }
}

impl Saving {
    const fn label(&self, kind: Kind) -> Label {
        let (shard, shards) = self.of;
        Label {
            kind,
            shard,
            shards,
        }
    }
}

/// Works until the queue is closed and empty. While a checkpoint is taken, saves a slice now and
/// then, between two works or while there is nothing to do.
pub(super) fn run(writer: &Mutex<Writer>, queue: &Receiver<Work>, unfinished: &Unfinished) {
    loop {
        let pause = lock(writer)
            .saving
            .as_ref()
            .map(|saving| saving.pace.pause());
        let work = if let Some(pause) = pause {
            match queue.recv_timeout(pause) {
                Ok(work) => Some(work),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            match queue.recv() {
                Ok(work) => Some(work),
                Err(_) => return,
            }
        };
        let mut writer = lock(writer);
        if let Some(work) = work {
            writer.work(work);
            unfinished.finish();
        }
        let due = |saving: &&mut Saving| saving.pace.pause().is_zero();
        if let Some(saving) = writer.saving.as_mut().filter(due) {
            let mut pace = std::mem::take(&mut saving.pace);
            pace.slice(|| writer.save_slice());
            if let Some(saving) = &mut writer.saving {
                saving.pace = pace;
            }
        }
    }
}

impl Writer {
    /// The state as it is now is to be saved, as that of one of so many shards.
    pub(super) fn begin_saving(&mut self, channel: &Sender<Message>, shards: usize) {
        // Of the one before, the last may just have been taken.
        self.saving.take_if(|saving| saving.outlet.is_finished());
        assert!(self.saving.is_none(), "a checkpoint is under way already");
        self.ledger.books_mut().begin_saving();
        self.ledger.begin_saving();
        let mut saving = Saving {
            outlet: Outlet::new(channel.clone()),
            of: (self.number as u16, shards as u16),
            pace: Pace::default(),
        };
        let open = self.lock_exceptions().all();
        let label = saving.label(Kind::Exceptions);
        saving.outlet.put_later(move || {
            let mut output = Output::new();
            open.iter().for_each(|open| open.save(&mut output));
            (label, output.into_bytes())
        });
        self.saving = Some(saving);
    }

    /// Saves a little more, if there is anything to save. True if there is more.
    pub(crate) fn save_slice(&mut self) -> bool {
        let Self { saving, ledger, .. } = self;
        let Some(saving) = saving else {
            return false;
        };
        if saving.outlet.is_finished() {
            self.saving = None;
            return false;
        }
        if !saving.outlet.flush() {
            return true;
        }
        let more = ledger.books_mut().save_slice() || ledger.save_slice();
        let label = saving.label(Kind::Blocks);
        saving.outlet.put(label, ledger.books_mut().saved(), !more);
        for part in SavedPart::ALL {
            let label = saving.label(kind_of(part));
            saving.outlet.put(label, ledger.saved(part), !more);
        }
        if !more {
            saving.outlet.finish();
        }
        true
    }
}

/// What a checkpoint has of one shard, on its way back.
pub(crate) struct Restoring {
    ledger: Ledger<ShardBooks>,
    index: Arc<Index>,
    counts: Arc<Counts>,
    exceptions: OpenExceptions,
    locations: Arc<Locations>,
    place: (usize, usize),
}

impl Restoring {
    /// One of so many shards, still empty, with room for its part of what `totals` says.
    pub(crate) fn new(
        place: (usize, usize),
        totals: &Totals,
        locations: Arc<Locations>,
        rules: Arc<RulesInForce>,
        retain_us: i64,
    ) -> Self {
        let share = |count: u64| (count / place.1 as u64) as usize;
        let index = Arc::new(Index::with_room(share(totals.skus)));
        let counts = Arc::<Counts>::default();
        let mut books = ShardBooks::new(
            Arc::clone(&index),
            Arc::clone(&locations),
            Arc::clone(&counts),
        );
        books.put_rules(rules);
        let mut ledger = Ledger::new(books).retaining(retain_us);
        ledger.reserve_lines(share(totals.lines));
        Self {
            ledger,
            index,
            counts,
            exceptions: OpenExceptions::default(),
            locations,
            place,
        }
    }

    /// Takes what belongs to this shard of a section. `own`: the same of as many shards saved it.
    pub(crate) fn take(&mut self, kind: Kind, bytes: &[u8], own: bool) -> Result<(), Broken> {
        let Self { ledger, place, .. } = self;
        match kind {
            Kind::Blocks => ledger.books_mut().take_back(bytes, *place, own),
            Kind::Lines => ledger.take_back(SavedPart::Lines, bytes, *place, own),
            Kind::Timers => ledger.take_back(SavedPart::Timers, bytes, *place, own),
            Kind::Recent => ledger.take_back(SavedPart::Recent, bytes, *place, own),
            Kind::Counted => ledger.take_back(SavedPart::Counted, bytes, *place, own),
            Kind::Exceptions => self.take_exceptions(bytes),
            _ => Ok(()),
        }
    }

    fn take_exceptions(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut input = Input::new(bytes);
        let (shard, shards) = self.place;
        while !input.is_empty() {
            let open = Open::load(&mut input)?;
            if SkuHash::of(&open.subject.sku).shard(shards) == shard {
                self.exceptions.take(Finding::Open(open));
            }
        }
        Ok(())
    }

    /// Everything was taken: the writer, which goes on from this time of the log, and what a walk
    /// over all it has finds.
    pub(crate) fn finish(mut self, now_us: TimeUs) -> (Writer, Audit) {
        self.ledger.go_on_at(now_us);
        let mut writer = Writer {
            index: self.index,
            counts: self.counts,
            exceptions: Arc::new(Mutex::new(self.exceptions)),
            number: self.place.0 as u32,
            ledger: self.ledger,
            locations: self.locations,
            saving: None,
        };
        writer.publish();
        let audit = writer.audit();
        (writer, audit)
    }
}

/// Adds what a section of a shard holds to the totals of a checkpoint.
pub(crate) fn count(
    totals: &mut Totals,
    kind: Kind,
    bytes: &[u8],
    names: &Locations,
) -> Result<(), Broken> {
    let mut digester = Digester::default();
    match kind {
        Kind::Blocks => {
            totals.skus += cells_of(bytes, |sku, at, balances| {
                totals.digest += digester.cell(sku, names.name(at), balances);
                totals.cells += u64::from(!balances.is_zero());
            })?;
        }
        Kind::Lines => each_saved(bytes, |key, line| {
            totals.digest += digester.line(key, line, names);
            totals.lines += 1;
        })?,
        Kind::Counted => each_counted(bytes, |at, cell| {
            totals.digest += cell.digest(at, names, &mut digester);
        })?,
        _ => {}
    }
    Ok(())
}
