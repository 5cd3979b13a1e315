//! Counting what is in the sections of a checkpoint, beside the thread that writes them.
//!
//! Of all that a checkpoint does off the writers' threads, making its digest takes the longest, and
//! nobody waits for it. So a thread of the idle scheduling class does it: whoever wakes up goes
//! before it at once, and to the kernel its processor is a free one, on which a query is put rather
//! than behind a writer that is at work.
//!
//! Where all processors are busy, such a thread stands still, for a second on end. So nothing may
//! ever wait for it. It takes no lock that others take, opens no file, since it would hold up the
//! file system's journal, and with that the log, if it stood still in the middle of a write; what it
//! does not keep up with is counted by the thread that writes.

use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use super::{Kind, Totals, saving::NotTaken};
use crate::{
    domain::saved::Broken,
    limits::{CHECKPOINT_COUNTED_SECTIONS_MAX, CHECKPOINT_WRITE_EVERY_MS},
};

/// Adds up what is in a section.
pub(super) trait Count: Fn(&mut Totals, Kind, &[u8]) -> Result<(), Broken> + Sync {}

impl<F: Fn(&mut Totals, Kind, &[u8]) -> Result<(), Broken> + Sync> Count for F {}

type Section = (Kind, Vec<u8>);

/// What one thread has counted.
struct Counted {
    totals: Totals,
    broken: Result<(), Broken>,
}

impl Counted {
    fn new() -> Self {
        Self {
            totals: Totals::default(),
            broken: Ok(()),
        }
    }

    fn add(&mut self, count: &impl Count, (kind, payload): Section) {
        if self.broken.is_ok() {
            self.broken = count(&mut self.totals, kind, &payload);
        }
    }
}

/// The side of the thread that writes.
pub(super) struct Counting<'c, C> {
    count: &'c C,
    sections: Sender<Section>,
    waiting: Receiver<Section>,
    own: Counted,
}

/// Calls `write` with what counts while it writes; gives what it gives, and the totals.
pub(super) fn counting<C: Count, T>(
    count: &C,
    write: impl FnOnce(&mut Counting<'_, C>) -> Result<T, NotTaken>,
) -> Result<(T, Totals), NotTaken> {
    let (sections, waiting) = bounded(CHECKPOINT_COUNTED_SECTIONS_MAX);
    std::thread::scope(|scope| {
        let to_count = waiting.clone();
        let beside = move || {
            be_idle();
            let mut counted = Counted::new();
            loop {
                match to_count.try_recv() {
                    Ok(section) => counted.add(count, section),
                    Err(TryRecvError::Empty) => {
                        std::thread::park_timeout(Duration::from_millis(CHECKPOINT_WRITE_EVERY_MS));
                    }
                    Err(TryRecvError::Disconnected) => return counted,
                }
            }
        };
        // Without such a thread, everything is counted here.
        let builder = std::thread::Builder::new().name("checkpoint-sum".into());
        let beside = builder.spawn_scoped(scope, beside).ok();
        let mut counting = Counting {
            count,
            sections,
            waiting,
            own: Counted::new(),
        };
        let written = write(&mut counting);
        let Counting {
            sections,
            waiting,
            mut own,
            ..
        } = counting;
        drop(sections);
        waiting.iter().for_each(|section| own.add(count, section));
        let mut all = vec![own];
        all.extend(beside.map(|beside| beside.join().expect("counting does not panic")));
        let written = written?;
        let mut totals = Totals::default();
        for Counted {
            totals: part,
            broken,
        } in all
        {
            broken?;
            totals.add(&part);
        }
        Ok((written, totals))
    })
}

impl<C: Count> Counting<'_, C> {
    /// Counts a section, sooner or later.
    pub(super) fn count(&mut self, kind: Kind, payload: Vec<u8>) {
        match self.sections.try_send((kind, payload)) {
            Ok(()) => {}
            Err(TrySendError::Full(section) | TrySendError::Disconnected(section)) => {
                self.own.add(self.count, section);
            }
        }
    }
}

/// Lets everyone go before this thread, which cannot be taken back: who has no privileges may not
/// leave this class again. Where it is not allowed, it does without.
#[cfg(target_os = "linux")]
fn be_idle() {
    // SAFETY: all of it may be zero; its priority has to be, in this class.
    let priority: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: zero means the calling thread, and `priority` is only read, during the call.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) };
}

#[cfg(not(target_os = "linux"))]
fn be_idle() {}
