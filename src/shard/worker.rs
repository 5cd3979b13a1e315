//! The one writer of a shard: applies batches in log order, then says so.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed,
            Ordering::SeqCst,
        },
    },
    thread::JoinHandle,
};

use crossbeam::{
    channel::{Sender, bounded},
    epoch,
};
use futures::FutureExt;
use tokio::sync::oneshot;

use super::{
    books::{Audit, Counts, ShardBooks},
    changes::{Cause, Change},
    commands::{self, Command, Reservation},
    compare::{Comparing, StatedCell, Statements},
    index::Index,
    locations::Locations,
    progress::Progress,
    queue::{ShardQueue, Unfinished, are_few},
    rulebook::{Rulebook, RulesInForce},
    saving::{self, Saving},
};
use crate::{
    checkpoint::saving::Message,
    domain::{
        balances::LocationNames,
        exceptions::{Acknowledged, ExceptionId, OpenExceptions, Outcome},
        keys::SkuHash,
        ledger::{Ledger, Names},
        lifecycle::{self, Claims},
        movement::TimeUs,
        posting::Posting,
        recent::RecentView,
        rules::ChannelIx,
    },
    limits::{
        AT_ONCE_LINES_MAX, FEED_CUT_CHANGES_MAX, PREFETCH_COMMANDS, PREFETCH_POSTINGS,
        SHARD_QUEUE_BATCHES_MAX,
    },
    log::Position,
};

/// One posting for a shard, and where its names are among those of its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) posting: Posting,
    pub(crate) names: NamesAt,
}

/// Where the names of a posting are, one behind the other: SKU, document, line, and those of the
/// order that an authorized return is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamesAt {
    pub(crate) at: u32,
    pub(crate) lens: [u8; 5],
}

impl NamesAt {
    #[inline]
    fn of<'n>(&self, names: &'n str) -> Names<'n> {
        let mut at = self.at as usize;
        let [sku, document, line, order, order_line] = self.lens.map(|len| {
            let name = &names[at..at + usize::from(len)];
            at += usize::from(len);
            name
        });
        Names {
            sku,
            document: (document, line),
            order: (!order.is_empty()).then_some((order, order_line)),
        }
    }
}

/// Postings for one shard, in log order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) jobs: Vec<Job>,
    /// The log's time of those jobs that end before this place, and begin where the last ended.
    pub(crate) times: Vec<(u32, TimeUs)>,
    pub(crate) names: Arc<str>,
    /// Movements that arrived before this may be forgotten.
    pub(crate) forgotten_before_us: Option<TimeUs>,
}

impl Batch {
    /// The jobs added since the last call have this time.
    pub(crate) fn end_entry(&mut self, time_us: TimeUs) {
        let end = self.jobs.len() as u32;
        match self.times.last_mut() {
            Some((last, _)) if *last == end => {}
            Some((last, us)) if *us == time_us => *last = end,
            _ if end > 0 => self.times.push((end, time_us)),
            _ => {}
        }
    }
}

/// What is to be done at one position of the log, by every shard.
pub(crate) enum Work {
    /// Apply these.
    Apply(Batch, Arc<Completion>),
    /// Decide and carry out these.
    Commands(Arc<[Command]>, Arc<Completion>),
    /// Tell how the lines of a reservation stand.
    Inspect(Arc<Inspection>, Arc<Completion>),
    /// A person has seen an exception; note it if it is open here.
    Acknowledge(Arc<Acknowledgement>, Arc<Completion>),
    /// Go by other rules from here on.
    Rules(Arc<RulesInForce>, Arc<Completion>),
    /// Compare lines of a snapshot with the books of its time.
    Compare(Arc<Comparing>, Arc<Completion>),
    /// Take what a comparison found. Movements that arrived before the time may be forgotten.
    Statements(Arc<Statements>, Option<TimeUs>, Arc<Completion>),
    /// Show the recent movements.
    Recent(Arc<Mutex<Vec<RecentView>>>, Arc<Completion>),
    /// Take some of the changes of published numbers.
    Cut(Arc<Cutting>, Arc<Completion>),
    /// Deliver published numbers of a channel once more.
    Republish(ChannelIx, Arc<Republishing>, Arc<Completion>),
    /// Walk over all cells.
    Audit(Arc<Mutex<Audit>>, Arc<Completion>),
    /// Begin to save the state as it is here, as one of so many shards.
    Checkpoint(Sender<Message>, usize, Arc<Completion>),
}

/// Changes of published numbers; each shard adds its own.
#[derive(Debug, Default)]
pub(crate) struct Cutting {
    pub(crate) changes: Mutex<Vec<Change>>,
    /// Some shard has more.
    pub(crate) has_more: AtomicBool,
}

/// SKUs whose published numbers are delivered once more, by shard.
pub(crate) type Republishing = Vec<Vec<Box<str>>>;

impl Work {
    /// Whether to hand it to another thread would take longer than to do it. What the thread of the
    /// shard has to know of never is.
    pub(super) fn is_little(&self) -> bool {
        match self {
            Self::Apply(batch, _) => batch.jobs.len() <= AT_ONCE_LINES_MAX,
            Self::Commands(commands, _) => are_few(commands.iter()),
            _ => false,
        }
    }

    fn completion(&self) -> &Completion {
        match self {
            Self::Apply(_, completion)
            | Self::Commands(_, completion)
            | Self::Inspect(_, completion)
            | Self::Acknowledge(_, completion)
            | Self::Rules(_, completion)
            | Self::Compare(_, completion)
            | Self::Statements(_, _, completion)
            | Self::Recent(_, completion)
            | Self::Cut(_, completion)
            | Self::Republish(_, _, completion)
            | Self::Audit(_, completion)
            | Self::Checkpoint(_, _, completion) => completion,
        }
    }
}

/// How the lines of a reservation stand; each shard fills in its own.
pub(crate) struct Inspection {
    pub(crate) reservation: Arc<Reservation>,
    /// By line: its totals, and what it claims.
    pub(crate) lines: Box<[OnceLock<(lifecycle::Line, Claims)>]>,
}

/// A person has seen an exception.
pub(crate) struct Acknowledgement {
    pub(crate) id: ExceptionId,
    pub(crate) acknowledged: Acknowledged,
    /// Some shard has it open.
    pub(crate) found: AtomicBool,
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

/// Takes the receipts of a record, in its order. `None`: this part of it could not be read.
pub(crate) type Receipts<R = Receipt> = oneshot::Sender<Vec<Option<R>>>;

/// What is done when the last shard has finished a position: effects are data until then.
pub(crate) enum Effect {
    /// Answer those who posted a record.
    Answer(Receipts, Vec<Option<Receipt>>),
    /// Readers go by these rules; answer who put them with whether they took effect.
    PutRules(Arc<RulesInForce>),
    /// Answer who put rules with the version in force.
    AnswerRules(oneshot::Sender<Position>, Position),
    /// Answer whatever waits, now that everything is decided and visible.
    Tell(Box<dyn FnOnce() + Send>),
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
    /// The last position that shards may have begun with: what readers see is not later.
    pub(crate) begun: AtomicU64,
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
        shared.begun.fetch_max(position, SeqCst);
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
                Effect::Answer(to, receipts) => {
                    let _ = to.send(receipts);
                }
                Effect::PutRules(_) => {}
                Effect::AnswerRules(to, version) => {
                    let _ = to.send(version);
                }
                Effect::Tell(tell) => tell(),
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
    pub(crate) exceptions: Arc<Mutex<OpenExceptions>>,
    pub(crate) queue: ShardQueue,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread of a writer, one of so many. It ends when the queue is closed and empty.
///
/// # Errors
/// If the system has no thread for it.
pub(crate) fn start(writer: Writer, shards: usize) -> std::io::Result<Shard> {
    let (queue, work) = bounded(SHARD_QUEUE_BATCHES_MAX);
    let number = writer.number;
    let exceptions = Arc::clone(&writer.exceptions);
    let (writer, unfinished) = (Arc::new(Mutex::new(writer)), Unfinished::default());
    // Of several shards, each waits for the votes of the others.
    let for_others = (shards == 1).then(|| Arc::clone(&writer));
    let queue = ShardQueue::new(queue, unfinished.clone(), for_others);
    let thread = std::thread::Builder::new()
        .name(format!("shard-{number}"))
        .spawn(move || or_abort(|| saving::run(&writer, &work, &unfinished)))?;
    Ok(Shard {
        exceptions,
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
    pub(crate) exceptions: Arc<Mutex<OpenExceptions>>,
    pub(super) number: u32,
    pub(super) ledger: Ledger<ShardBooks>,
    pub(super) locations: Arc<Locations>,
    pub(super) saving: Option<Saving>,
}

impl Writer {
    /// One without any SKUs. Settled lines are retired `retain_us` after their last change.
    pub(crate) fn new(number: u32, locations: Arc<Locations>, retain_us: i64) -> Self {
        let (index, counts) = (Arc::new(Index::new()), Arc::<Counts>::default());
        let books = ShardBooks::new(
            Arc::clone(&index),
            Arc::clone(&locations),
            Arc::clone(&counts),
        );
        Self {
            index,
            counts,
            exceptions: Arc::default(),
            number,
            ledger: Ledger::new(books).retaining(retain_us),
            locations,
            saving: None,
        }
    }

    /// From here on, changes of published numbers are kept for who takes them.
    pub(crate) fn keep_changes(&mut self) {
        self.ledger.books_mut().keep_changes();
    }

    /// Does what is to be done at one position, then says so.
    pub(crate) fn work(&mut self, work: Work) {
        let cause = Cause::at(work.completion().time_us);
        self.ledger.books_mut().because(cause);
        let completion = match work {
            Work::Apply(batch, completion) => {
                self.apply(&batch);
                self.forget(batch.forgotten_before_us);
                self.ledger.advance(completion.time_us, &*self.locations);
                completion
            }
            Work::Commands(commands, completion) => {
                self.ledger.advance(completion.time_us, &*self.locations);
                let Self { ledger, number, .. } = self;
                for group in commands.chunks(PREFETCH_COMMANDS) {
                    commands::prefetch(ledger, group, *number);
                    for command in group {
                        commands::carry_out(ledger, command, *number, &*self.locations);
                    }
                }
                completion
            }
            Work::Inspect(inspection, completion) => {
                self.inspect(&inspection);
                completion
            }
            Work::Acknowledge(acknowledgement, completion) => {
                self.ledger.advance(completion.time_us, &*self.locations);
                self.publish();
                let Acknowledgement {
                    id, acknowledged, ..
                } = &*acknowledgement;
                if self
                    .lock_exceptions()
                    .acknowledge(*id, acknowledged.clone())
                {
                    acknowledgement.found.store(true, Relaxed);
                }
                completion
            }
            Work::Rules(rules, completion) => {
                self.ledger.advance(completion.time_us, &*self.locations);
                self.ledger.books_mut().put_rules(rules);
                completion
            }
            Work::Compare(comparing, completion) => {
                comparing.compare(&self.ledger, self.number as usize);
                completion
            }
            Work::Statements(statements, forgotten_before_us, completion) => {
                self.ledger.advance(completion.time_us, &*self.locations);
                self.forget(forgotten_before_us);
                for StatedCell { sku, at, statement } in &statements[self.number as usize] {
                    self.ledger.state(statement, *sku, *at, &*self.locations);
                }
                completion
            }
            Work::Recent(views, completion) => {
                let view = self.ledger.recent().view();
                views
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(view);
                completion
            }
            Work::Cut(cutting, completion) => {
                self.ledger.advance(completion.time_us, &*self.locations);
                self.cut(&cutting);
                completion
            }
            Work::Republish(channel, skus, completion) => {
                self.ledger.advance(completion.time_us, &*self.locations);
                for sku in &skus[self.number as usize] {
                    let hash = SkuHash::of(sku);
                    self.ledger.books_mut().republish(channel, hash, sku);
                }
                completion
            }
            Work::Audit(sum, completion) => {
                *sum.lock().unwrap_or_else(PoisonError::into_inner) += self.audit();
                completion
            }
            Work::Checkpoint(channel, shards, completion) => {
                self.ledger.advance(completion.time_us, &*self.locations);
                self.publish();
                self.begin_saving(&channel, shards);
                completion
            }
        };
        self.publish();
        completion.finish();
        // Lets go of blocks that were outgrown, also when no more are.
        epoch::pin().flush();
    }

    fn cut(&mut self, cutting: &Cutting) {
        let mut changes = Vec::new();
        let books = self.ledger.books_mut();
        if !books.take_changes(FEED_CUT_CHANGES_MAX, &mut changes) {
            cutting.has_more.store(true, Relaxed);
        }
        if !changes.is_empty() {
            let mut all = cutting
                .changes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.append(&mut changes);
        }
    }

    fn forget(&mut self, before_us: Option<TimeUs>) {
        if let Some(before_us) = before_us {
            self.ledger.forget(before_us);
        }
    }

    /// Walks over all that it has.
    pub(super) fn audit(&self) -> Audit {
        let mut audit = self.ledger.books().audit();
        audit.order_lines = self.ledger.lines().len() as u64;
        audit.digest += self.ledger.lines_digest(&*self.locations);
        audit.digest += self.ledger.counted_digest(&*self.locations);
        audit
    }

    /// Shows readers what is not in the blocks.
    pub(super) fn publish(&mut self) {
        let lines = self.ledger.lines().len() as u64;
        self.counts.order_lines.store(lines, Relaxed);
        let next_us = self.ledger.next_timer_us().unwrap_or(TimeUs::MAX);
        self.counts.next_timer_us.store(next_us, Relaxed);
        if self.ledger.has_findings() {
            let mut open = self
                .exceptions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for finding in self.ledger.take_findings() {
                open.take(finding);
            }
        }
    }

    pub(super) fn lock_exceptions(&self) -> MutexGuard<'_, OpenExceptions> {
        self.exceptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn inspect(&self, inspection: &Inspection) {
        let lines = inspection.reservation.lines.iter().zip(&inspection.lines);
        for (line, told) in lines.filter(|(line, _)| line.shard == self.number) {
            let (lines, now_us) = (self.ledger.lines(), self.ledger.now_us());
            let totals = lines.get(line.key).unwrap_or_default();
            let mut claims = lines.claims(line.key, now_us, &*self.locations);
            claims.sort_unstable_by_key(|(at, _)| self.locations.name(*at).to_owned());
            told.set((totals, claims))
                .expect("each line is told of once");
        }
    }

    /// The log's time goes on, and with it what happens by itself.
    fn advance_in_batch(&mut self, time_us: TimeUs) {
        self.ledger.books_mut().because(Cause::at(time_us));
        self.ledger.advance(time_us, &*self.locations);
    }

    fn apply(&mut self, batch: &Batch) {
        let Batch {
            jobs, times, names, ..
        } = batch;
        let mut times = times.iter().peekable();
        let mut at = 0;
        let mut groups = jobs.chunks(PREFETCH_POSTINGS).peekable();
        if let Some(first) = groups.peek() {
            self.ledger
                .prefetch_index(first.iter().map(|job| &job.posting));
        }
        if let Some((_, time_us)) = times.peek() {
            self.advance_in_batch(*time_us);
        }
        while let Some(group) = groups.next() {
            self.ledger.prefetch(group.iter().map(|job| &job.posting));
            // Arrives while this group is applied.
            if let Some(next) = groups.peek() {
                self.ledger
                    .prefetch_index(next.iter().map(|job| &job.posting));
            }
            for job in group {
                while times.next_if(|(end, _)| *end <= at).is_some() {
                    if let Some((_, time_us)) = times.peek() {
                        self.advance_in_batch(*time_us);
                    }
                }
                let cause = Cause {
                    logged_us: self.ledger.now_us(),
                    occurred_us: job.posting.fact.occurred_us,
                };
                self.ledger.books_mut().because(cause);
                self.ledger
                    .apply(&job.posting, job.names.of(names), &*self.locations);
                at += 1;
            }
        }
    }
}
