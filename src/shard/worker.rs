//! The one writer of a shard: applies batches in log order, then says so.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use crossbeam::{
    channel::{Sender, bounded},
    epoch,
};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    books::{Audit, Counts, ShardBooks},
    index::Index,
    locations::Locations,
    progress::Progress,
    rulebook::{Rulebook, RulesInForce},
};
use crate::{
    domain::{exceptions::Outcome, ledger::Ledger, movement::TimeUs, posting::Posting},
    limits::{PREFETCH_POSTINGS, SHARD_QUEUE_BATCHES_MAX},
    log::Position,
};

/// One posting for a shard, and where the SKU's name is among the names of its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) posting: Posting,
    pub(crate) name_at: u32,
    pub(crate) name_len: u8,
}

/// What is to be done at one position of the log, by every shard.
pub(crate) enum Work {
    /// Apply these.
    Apply(Vec<Job>, Arc<str>, Arc<Completion>),
    /// Go by other rules from here on.
    Rules(Arc<RulesInForce>, Arc<Completion>),
    /// Walk over all cells.
    Audit(Arc<Mutex<Audit>>, Arc<Completion>),
}

/// What became of the movements that one caller posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Position of their record.
    pub position: Position,
    /// The log's time there.
    pub time_us: TimeUs,
    /// One for each: the outcome, and whether it is a repeat.
    pub outcomes: Vec<(Outcome, bool)>,
}

/// A caller that waits for its receipt.
pub(crate) struct Caller {
    pub(crate) answer: oneshot::Sender<Receipt>,
    /// What it waits in, free again once it is answered.
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

/// What is done when the last shard has finished a position: effects are data until then.
pub(crate) enum Effect {
    /// Answer a caller.
    Answer(Caller, Receipt),
    /// Readers go by these rules; answer who put them with whether they took effect.
    PutRules(Arc<RulesInForce>),
    /// Answer who put rules with the version in force.
    AnswerRules(oneshot::Sender<Position>, Position),
    /// Answer with the sum of all shards' audits.
    AnswerAudit(
        oneshot::Sender<(Audit, Position)>,
        Arc<Mutex<Audit>>,
        Position,
    ),
}

/// Shared by the shards that work on the same position.
pub(crate) struct Completion {
    remaining: AtomicUsize,
    position: Position,
    time_us: TimeUs,
    effects: Mutex<Vec<Effect>>,
    shared: Arc<Shared>,
}

/// What shards and readers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) progress: Progress,
    pub(crate) rulebook: Rulebook,
}

impl Completion {
    pub(crate) fn new(
        shards: usize,
        position: Position,
        time_us: TimeUs,
        effects: Vec<Effect>,
        shared: &Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new(Self {
            remaining: AtomicUsize::new(shards),
            position,
            time_us,
            effects: Mutex::new(effects),
            shared: Arc::clone(shared),
        })
    }

    /// One shard has finished. The last one publishes the position, then runs the effects.
    fn finish(&self) {
        if self.remaining.fetch_sub(1, AcqRel) > 1 {
            return;
        }
        let mut effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        let effects = std::mem::take(&mut *effects);
        for effect in &effects {
            if let Effect::PutRules(rules) = effect {
                self.shared.rulebook.put(Arc::clone(rules));
            }
        }
        self.shared.progress.reach(self.position, self.time_us);
        for effect in effects {
            // Who gave up waiting is not there any more; that changes nothing.
            match effect {
                Effect::Answer(caller, receipt) => {
                    let _ = caller.answer.send(receipt);
                }
                Effect::PutRules(_) => {}
                Effect::AnswerRules(to, version) => {
                    let _ = to.send(version);
                }
                Effect::AnswerAudit(to, audit, position) => {
                    let audit = *audit.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = to.send((audit, position));
                }
            }
        }
    }
}

/// A running shard.
pub(crate) struct Shard {
    pub(crate) index: Arc<Index>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) queue: Sender<Work>,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the writer of shard `number`. It ends when the queue is closed and empty.
///
/// # Errors
/// If the system has no thread for it.
pub(crate) fn start(number: usize, locations: Arc<Locations>) -> std::io::Result<Shard> {
    let (queue, work) = bounded(SHARD_QUEUE_BATCHES_MAX);
    let mut writer = Writer::new(locations);
    let (index, counts) = (Arc::clone(&writer.index), Arc::clone(&writer.counts));
    let thread = std::thread::Builder::new()
        .name(format!("shard-{number}"))
        .spawn(move || or_abort(|| work.into_iter().for_each(|work| writer.work(work))))?;
    Ok(Shard {
        index,
        counts,
        queue,
        thread,
    })
}

/// Runs a thread's work; if it panics, the process ends. A thread that panicked has met a bug; to
/// go on without it would be to answer from books that stand still. The log has everything: a
/// restart recovers.
pub(crate) fn or_abort(work: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
        abort();
    }
}

/// The same for a task. One that is cancelled has not panicked: it just ends.
pub(crate) async fn task_or_abort(work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        abort();
    }
}

fn abort() -> ! {
    tracing::error!("a thread or a task has panicked; the process ends");
    std::process::abort()
}

/// The writer of one shard.
pub(crate) struct Writer {
    pub(crate) index: Arc<Index>,
    pub(crate) counts: Arc<Counts>,
    ledger: Ledger<ShardBooks>,
    locations: Arc<Locations>,
}

impl Writer {
    /// One without any SKUs.
    pub(crate) fn new(locations: Arc<Locations>) -> Self {
        let (index, counts) = (Arc::new(Index::new()), Arc::<Counts>::default());
        let books = ShardBooks::new(
            Arc::clone(&index),
            Arc::clone(&locations),
            Arc::clone(&counts),
        );
        Self {
            index,
            counts,
            ledger: Ledger::new(books),
            locations,
        }
    }

    /// Does what is to be done at one position, then says so.
    pub(crate) fn work(&mut self, work: Work) {
        match work {
            Work::Apply(jobs, names, completion) => {
                self.apply(&jobs, &names);
                self.counts
                    .order_lines
                    .store(self.ledger.lines().len() as u64, Relaxed);
                completion.finish();
            }
            Work::Rules(rules, completion) => {
                self.ledger.books_mut().put_rules(rules);
                completion.finish();
            }
            Work::Audit(sum, completion) => {
                let mut audit = self.ledger.books().audit();
                audit.order_lines = self.ledger.lines().len() as u64;
                audit.digest += self.ledger.lines_digest(&*self.locations);
                *sum.lock().unwrap_or_else(PoisonError::into_inner) += audit;
                completion.finish();
            }
        }
        // Lets go of blocks that were outgrown, also when no more are.
        epoch::pin().flush();
    }

    fn apply(&mut self, jobs: &[Job], names: &str) {
        let mut groups = jobs.chunks(PREFETCH_POSTINGS).peekable();
        if let Some(first) = groups.peek() {
            self.ledger
                .prefetch_index(first.iter().map(|job| &job.posting));
        }
        while let Some(group) = groups.next() {
            self.ledger.prefetch(group.iter().map(|job| &job.posting));
            // Arrives while this group is applied.
            if let Some(next) = groups.peek() {
                self.ledger
                    .prefetch_index(next.iter().map(|job| &job.posting));
            }
            for job in group {
                let name_at = job.name_at as usize;
                let name = &names[name_at..name_at + usize::from(job.name_len)];
                self.ledger.apply(&job.posting, name, &*self.locations);
            }
        }
    }
}
