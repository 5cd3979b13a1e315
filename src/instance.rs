//! One running instance: a log, what follows it, and what answers from it.
//!
//! Everything here is derived from the log. The network is not part of it: `api` and `ops` stand
//! in front, and tests and benchmarks use it as it is.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use crate::{
    domain::{admission::Horizon, movement::TimeUs},
    intake::{
        AuthorityBook, AuthorityInForce, CommandReceipt, CommandVerdict, DeliveryBook, ParkedList,
        PostError, ReportBook, ReservationView, Resolved,
        decode::Decoder,
        follow::follow,
        following,
        gather::{Deciding, GatherOptions, Gatherer, OfCommands, OfMovements, Writer},
        sequencer::{Pending, Step, Tally, Waiting},
        sequencing::Sequencing,
    },
    limits::{RECORD_LINES_FULL, SEQUENCER_QUEUE_STEPS_MAX, UNAPPLIED_LINES_MAX},
    log::{AppendError, Identity, Log, LogError, Position},
    proto::v1 as pb,
    shard::{Audit, Locations, Receipt, Sources, View, worker},
};

mod checkpoints;
mod deliveries;
mod exceptions;
mod feeds;
pub(crate) mod parts;
mod reconcile;
mod reports;
mod ticker;

pub use crate::checkpoint::saving::NotTaken;
use checkpoints::Checkpoints;
pub(crate) use checkpoints::counted;
pub use checkpoints::{Checkpoint, CheckpointOptions, CheckpointStatus};
pub use exceptions::{ExceptionsDesk, Filter, OpenOrParked, PageToken};
use parts::Parts;
pub use reconcile::CompareError;

/// How an instance is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shards, that is, writer threads; at least 1.
    pub shards: usize,
    /// How long, and how many, movement ids are remembered. Must be the same for all instances
    /// on one log.
    pub horizon: Horizon,
    /// How long settled lines are kept after their last change, in microseconds. Must be the same
    /// for all instances on one log.
    pub lines_retain_us: i64,
    /// Movements that may wait to be written.
    pub waiting_movements_max: usize,
    /// Commands that may wait to be written.
    pub waiting_commands_max: usize,
    /// Movements of one record, at most.
    pub record_movements_max: usize,
    /// Appends of movements under way at once, but for records that are full.
    pub appends_max: usize,
    /// Appends of commands under way at once, each until it is decided.
    pub command_appends_max: usize,
    /// How long a record waits for more movements, once it has one.
    pub gather_wait: Duration,
    /// Parked movements whose details are held in memory.
    pub parked_kept_max: usize,
    /// Whether changes of published numbers are kept for feeds. Then somebody has to take them.
    pub feeds: bool,
    /// Where and when checkpoints are taken; `None`: there are none, and every start reads the log
    /// from its beginning.
    pub checkpoints: Option<CheckpointOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 1,
            horizon: Horizon::DEFAULT,
            lines_retain_us: Horizon::DEFAULT.us,
            waiting_movements_max: 100_000,
            waiting_commands_max: 20_000,
            record_movements_max: crate::limits::RECORD_MOVEMENTS_MAX,
            appends_max: 2,
            command_appends_max: 2,
            gather_wait: Duration::ZERO,
            parked_kept_max: 100_000,
            feeds: false,
            checkpoints: None,
        }
    }
}

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Counts of movements since the start of the log, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Movements {
    /// In the books.
    pub applied: u64,
    /// Repeats.
    pub duplicate: u64,
    /// Parked.
    pub parked: u64,
}

/// What is remembered of movement ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ids {
    /// How many.
    pub remembered: u64,
    /// Bytes of memory for them.
    pub bytes: u64,
    /// Ids that arrived before this have been forgotten.
    pub forgotten_before_us: Option<TimeUs>,
}

/// See the module.
pub struct Instance {
    id: u64,
    log: Arc<dyn Log>,
    view: View,
    gatherer: Gatherer<OfMovements>,
    commands: Gatherer<OfCommands>,
    writer: Writer,
    steps: Mutex<Option<mpsc::Sender<Step>>>,
    exceptions: ExceptionsDesk,
    authority: Arc<AuthorityBook>,
    reports: Arc<ReportBook>,
    deliveries: Arc<DeliveryBook>,
    locations: Arc<Locations>,
    sources: Arc<Sources>,
    shards: usize,
    tally: Arc<Tally>,
    failed: watch::Receiver<Option<LogError>>,
    /// The log's end when the instance started: ready once this is applied.
    ready_from: Position,
    /// The position of the checkpoint that it began with; 0 without any.
    began_at: Position,
    caught_up: AtomicBool,
    /// Its first rules are still to be put in force.
    rules_pending: AtomicBool,
    stopping: AtomicBool,
    draining: watch::Sender<bool>,
    started: Instant,
    follower: futures::future::AbortHandle,
    tasks: Mutex<Vec<AbortHandle>>,
    checkpoints: Option<Arc<Checkpoints>>,
    horizon: Horizon,
    lines_retain_us: i64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Instance {
    /// Starts: from the newest checkpoint that can be used, or else from the beginning of the log,
    /// and follows it from there. Returns once the checkpoint is loaded; see [`Instance::ready`].
    ///
    /// # Errors
    /// If the log cannot be read, does not hold what a checkpoint says was applied, or has neither its
    /// beginning nor a checkpoint to go on from; or there are no threads.
    pub async fn start(log: Arc<dyn Log>, options: &Options) -> Result<Arc<Self>, StartError> {
        assert!(options.shards > 0, "at least one shard");
        let bounds = log.bounds().await?;
        let (mut parts, checkpoints) = checkpoints::begin(&*log, bounds, options).await?;
        let id = random_id();
        let view = parts.view();
        let pending = Arc::<Pending>::default();
        let (steps, next_steps) = mpsc::channel(SEQUENCER_QUEUE_STEPS_MAX);
        if options.feeds {
            parts
                .writers
                .iter_mut()
                .for_each(worker::Writer::keep_changes);
        }
        let shards: Vec<worker::Shard> = std::mem::take(&mut parts.writers)
            .into_iter()
            .map(|writer| worker::start(writer, options.shards))
            .collect::<Result<_, _>>()?;
        let mut queues = Vec::with_capacity(shards.len());
        let mut threads = Vec::with_capacity(shards.len() + 1);
        let mut open = Vec::with_capacity(shards.len());
        for shard in shards {
            queues.push(shard.queue);
            threads.push(shard.thread);
            open.push(shard.exceptions);
        }
        let (sequencer, state) = parts.sequencer(id, queues, Arc::clone(&pending), options);
        let Parts {
            locations,
            sources,
            parked,
            authority,
            reports,
            deliveries,
            tally,
            position,
            time_us,
            ..
        } = parts;
        // The queues of the shards close when the sequencer has ended, and the shards with them.
        let (sequencer, thread) =
            Sequencing { sequencer, state }.start(steps.clone(), next_steps)?;
        threads.push(thread);
        let exceptions = ExceptionsDesk::new(parked, open.into_iter());

        let (failure, failed) = watch::channel(None);
        let (follower, thread) = following::start(&log, {
            let log = Arc::clone(&log);
            let sources = Arc::clone(&sources);
            let decoder = {
                let locations = Arc::clone(&locations);
                Decoder::going_on_at(time_us, locations, sources, options.shards)
            };
            async move {
                let followed = follow(log, position + 1, decoder, sequencer).await;
                if let Err(error) = followed {
                    tracing::error!(%error, "the log can be followed no more");
                    failure.send_replace(Some(error));
                }
            }
        })?;
        threads.push(thread);
        let writer = Writer {
            log: Arc::clone(&log),
            instance: id,
            tokens: Arc::new(AtomicU64::new(1)),
            pending,
            failed: failed.clone(),
        };
        let gather = GatherOptions {
            waiting_max: options.waiting_movements_max,
            record_movements_max: options.record_movements_max,
            appends_max: options.appends_max,
            until_applied: false,
            full_lines: RECORD_LINES_FULL,
            unapplied_lines_max: UNAPPLIED_LINES_MAX,
            wait: options.gather_wait,
        };
        let gather_commands = GatherOptions {
            waiting_max: options.waiting_commands_max,
            appends_max: options.command_appends_max,
            until_applied: true,
            ..gather
        };
        let commands = Gatherer::new(writer.clone(), gather_commands, None);
        let instance = Arc::new(Self {
            id,
            log,
            view,
            gatherer: Gatherer::new(writer.clone(), gather, Some(commands.waiters())),
            commands,
            writer,
            steps: Mutex::new(Some(steps)),
            exceptions,
            authority,
            reports,
            deliveries,
            locations,
            sources,
            shards: options.shards,
            tally,
            failed,
            ready_from: bounds.last,
            began_at: position,
            caught_up: AtomicBool::new(false),
            rules_pending: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            draining: watch::Sender::new(false),
            started: Instant::now(),
            follower,
            tasks: Mutex::default(),
            checkpoints,
            horizon: options.horizon,
            lines_retain_us: options.lines_retain_us,
            threads: Mutex::new(threads),
        });
        let ticker = tokio::spawn(ticker::tick(Arc::downgrade(&instance)));
        instance.lock_tasks().push(ticker.abort_handle());
        if let Some(checkpoints) = instance.checkpoints.clone() {
            let weak = Arc::downgrade(&instance);
            let regularly = tokio::spawn(checkpoints::regularly(weak, checkpoints));
            instance.lock_tasks().push(regularly.abort_handle());
        }
        Ok(instance)
    }

    /// Identity of this instance, new at every start.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Which log it follows.
    pub fn log_identity(&self) -> Identity {
        self.log.identity()
    }

    /// What readers see.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Open exceptions, parked movements among them.
    pub fn exceptions(&self) -> &ExceptionsDesk {
        &self.exceptions
    }

    /// Movements that were not applied.
    pub fn parked(&self) -> &ParkedList {
        self.exceptions.parked()
    }

    /// The source authority in force, and those before.
    pub fn authority_book(&self) -> &AuthorityBook {
        &self.authority
    }

    /// The source authority in force.
    pub fn authority(&self) -> Arc<AuthorityInForce> {
        Arc::clone(&self.authority.in_force())
    }

    /// The locations seen so far.
    pub fn locations(&self) -> &Locations {
        &self.locations
    }

    /// Writes encoded `Movement`s, each of them checked, into the log, and waits until they are
    /// applied and visible.
    ///
    /// # Errors
    /// See [`PostError`]. Posting again is always safe.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which gathers those of its callers.
    pub async fn post(&self, movements: Vec<Bytes>) -> Result<Receipt, PostError> {
        self.check_writable()?;
        self.gatherer.post(movements).await
    }

    /// Writes an encoded `Command` of so many lines, which was checked, into the log, and waits until
    /// it is decided, applied and visible.
    ///
    /// # Errors
    /// See [`PostError`]. Sending the same again is always safe.
    ///
    /// # Panics
    /// As [`Instance::post`].
    pub async fn command(&self, command: Bytes, lines: usize) -> Result<CommandReceipt, PostError> {
        let told = self.decide(command, lines)?.await?;
        Ok(told.receipt(&self.locations))
    }

    /// The same, begun, with an answer that is not in words yet.
    pub(crate) fn decide(&self, command: Bytes, lines: usize) -> Result<Deciding, PostError> {
        self.check_writable()?;
        self.commands.decide(command, lines)
    }

    /// How the reservation of this id stands; `None` if there is none. `Err` if the instance is
    /// stopping.
    ///
    /// # Errors
    /// [`PostError::Stopping`].
    pub async fn reservation(&self, id: &str) -> Result<Option<ReservationView>, PostError> {
        let (answer, view) = oneshot::channel();
        let steps = self.lock_steps().clone().ok_or(PostError::Stopping)?;
        let step = Step::Inspect(id.to_owned(), answer);
        steps.send(step).await.map_err(|_| PostError::Stopping)?;
        view.await.map_err(|_| PostError::Stopping)
    }

    /// Puts channel rules into the log and waits until they are in force. Gives the version in
    /// force then, which is another one if `expected_version` did not hold.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn put_rules(&self, put: pb::RulesPut) -> Result<Position, PostError> {
        let body = pb::record::Body::Rules(put);
        self.write(body, Waiting::Document).await
    }

    /// The same for a document of source authority.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn put_authority(&self, put: pb::AuthorityPut) -> Result<Position, PostError> {
        let body = pb::record::Body::Authority(put);
        self.write(body, Waiting::Document).await
    }

    /// Writes what a person decided about an exception, and waits until it has taken effect.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn resolve(
        &self,
        resolve: pb::ResolveException,
    ) -> Result<(Resolved, Position), PostError> {
        let body = pb::record::Body::Resolve(resolve);
        self.write(body, Waiting::Resolve).await
    }

    /// Writes one record and waits until it has taken effect.
    async fn write<T>(
        &self,
        body: pb::record::Body,
        waiting: impl FnOnce(oneshot::Sender<T>) -> Waiting,
    ) -> Result<T, PostError> {
        self.check_writable()?;
        let (caller, told) = oneshot::channel();
        let instance = self.id;
        let record = |token| {
            let record = pb::Record {
                version: 1,
                instance,
                token,
                body: Some(body),
            };
            record.encode_to_vec().into()
        };
        self.writer.append(waiting(caller), record).await?;
        let mut failed = self.failed.clone();
        tokio::select! {
            told = told => told.map_err(|_| PostError::Stopping),
            _ = failed.wait_for(Option::is_some) => Err(PostError::Stopping),
        }
    }

    /// Digest and check of the whole state, and the position it was taken at; `None` if the
    /// instance is stopping.
    pub async fn audit(&self) -> Option<(Audit, Position)> {
        let (answer, audit) = oneshot::channel();
        let steps = self.lock_steps().clone()?;
        steps.send(Step::Audit(answer)).await.ok()?;
        audit.await.ok()
    }

    /// Whether it has caught up with the log as it stood at the start, and can go on.
    pub fn ready(&self) -> bool {
        if self.failed.borrow().is_some() || self.stopping.load(SeqCst) {
            return false;
        }
        if !self.caught_up.load(Relaxed) {
            let caught_up = self.view.progress().position() >= self.ready_from;
            self.caught_up.store(caught_up, Relaxed);
        }
        self.caught_up.load(Relaxed) && !self.rules_pending.load(Relaxed)
    }

    /// Whether rules are still to be put in force before it is ready: until then, it would deny
    /// channels that it is meant to have.
    pub fn set_rules_pending(&self, pending: bool) {
        self.rules_pending.store(pending, Relaxed);
    }

    /// Why it is not ready, for who asks.
    pub fn not_ready_because(&self) -> String {
        if let Some(error) = self.failed() {
            return error.to_string();
        }
        let position = self.view.progress().position();
        if self.stopping.load(SeqCst) {
            return "stopping".into();
        }
        if position >= self.ready_from && self.rules_pending.load(Relaxed) {
            return "putting the documents of `authority.file` and `rules.file` in force".into();
        }
        format!("catching up: position {position} of {}", self.ready_from)
    }

    /// Position of the checkpoint that it began with; 0 if it read the log from its beginning.
    pub fn began_at(&self) -> Position {
        self.began_at
    }

    /// Position from which on it is ready.
    pub fn ready_from(&self) -> Position {
        self.ready_from
    }

    /// Waits until it is ready, or has failed.
    pub async fn caught_up(&self) {
        let mut failed = self.failed.clone();
        tokio::select! {
            () = self.view.progress().wait_for(self.ready_from) => {}
            _ = failed.wait_for(Option::is_some) => {}
        }
    }

    /// Why it can follow the log no more; `None` if it can.
    pub fn failed(&self) -> Option<LogError> {
        self.failed.borrow().clone()
    }

    /// Waits until it can follow the log no more, and says why.
    pub async fn failure(&self) -> LogError {
        let mut failed = self.failed.clone();
        match failed
            .wait_for(Option::is_some)
            .await
            .map(|error| error.clone())
        {
            Ok(Some(error)) => error,
            // It ended without a failure: it was stopped.
            _ => std::future::pending().await,
        }
    }

    /// Last position in the log, as far as it can be told.
    ///
    /// # Errors
    /// If the log cannot be reached.
    pub async fn log_position(&self) -> Result<Position, LogError> {
        Ok(self.log.bounds().await?.last)
    }

    /// Why no writes are taken.
    pub fn not_writable(&self) -> Option<String> {
        if let Some(error) = &*self.failed.borrow() {
            return Some(error.to_string());
        }
        if self.stopping.load(SeqCst) {
            return Some("it is stopping".into());
        }
        self.log.not_writable()
    }

    /// What became of all movements so far.
    pub fn movements(&self) -> Movements {
        Movements {
            applied: self.tally.applied.load(Relaxed),
            duplicate: self.tally.duplicate.load(Relaxed),
            parked: self.tally.parked.load(Relaxed),
        }
    }

    /// What was decided about all commands so far, and how often.
    pub fn commands(&self) -> [(CommandVerdict, u64); CommandVerdict::ALL.len()] {
        CommandVerdict::ALL.map(|verdict| {
            let count = &self.tally.commands[verdict as usize];
            (verdict, count.load(Relaxed))
        })
    }

    /// What is remembered of ids.
    pub fn ids(&self) -> Ids {
        let forgotten = self.tally.forgotten_before_us.load(Relaxed);
        Ids {
            remembered: self.tally.ids_remembered.load(Relaxed),
            bytes: self.tally.id_bytes.load(Relaxed),
            forgotten_before_us: (forgotten >= 0).then_some(forgotten),
        }
    }

    /// Commands of callers that wait to be written or decided.
    pub fn waiting_commands(&self) -> usize {
        self.commands.waiting()
    }

    /// Movements of callers that wait to be written or applied.
    pub fn waiting_movements(&self) -> usize {
        self.gatherer.waiting()
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// From now on `/readyz` says no, so that no new calls are sent here, and streams of reservations
    /// end. Movements and commands are taken as before.
    pub fn begin_to_drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether it has begun to drain, or to stop.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Resolves when it has begun to drain, or to stop.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut draining = self.draining.subscribe();
        async move {
            // An error means that the instance is gone.
            let _ = draining.wait_for(|draining| *draining).await;
        }
    }

    /// Takes no more movements; those that were taken are answered.
    pub fn begin_to_stop(&self) {
        self.begin_to_drain();
        self.stopping.store(true, SeqCst);
    }

    /// Stops, and waits for its threads. Call it last.
    pub async fn stop(&self) {
        self.begin_to_stop();
        self.lock_tasks().drain(..).for_each(|task| task.abort());
        self.lock_steps().take();
        self.follower.abort();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                thread
                    .join()
                    .expect("a thread that panics ends the process");
            }
        });
        joined.await.expect("joining does not panic");
        self.writer.pending.close();
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.close().await;
        }
    }

    fn check_writable(&self) -> Result<(), PostError> {
        if self.stopping.load(SeqCst) || self.failed.borrow().is_some() {
            return Err(PostError::Stopping);
        }
        match self.log.not_writable() {
            Some(reason) => Err(AppendError::Poisoned(reason).into()),
            None => Ok(()),
        }
    }

    fn lock_tasks(&self) -> std::sync::MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_steps(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Step>>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.follower.abort();
        self.lock_tasks().drain(..).for_each(|task| task.abort());
        self.writer.pending.close();
    }
}

/// This machine's time, in microseconds since 1970.
pub(crate) fn now_us() -> TimeUs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A number that no other instance has.
fn random_id() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds this from the system's randomness.
    RandomState::new().hash_one(std::process::id())
}
