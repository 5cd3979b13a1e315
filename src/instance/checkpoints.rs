//! Checkpoints of an instance: which one it starts from, when it takes the next, and how.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use crossbeam::channel::bounded;
use tokio::sync::oneshot;

use super::{Instance, Options, StartError, now_us, parts::Parts};
use crate::{
    checkpoint::{
        Kind, Meta, Totals,
        format::Contents,
        saving::{self, NotTaken},
        store::Store,
    },
    domain::{digest::Digest, movement::TimeUs, saved::Broken},
    intake::{
        saving::{TakeCheckpoint, count as count_intake},
        sequencer::Step,
    },
    limits::{CHECKPOINT_FETCH_RECORDS_MIN, CHECKPOINT_LOOK_EVERY_MS},
    log::{Anchor, Bounds, Log, LogError, Position},
    shard::{Locations, saving::count as count_shard},
};

/// How long the log may take to say what its entry at a checkpoint's position is.
const CHECKPOINT_LOG_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a stop waits for the checkpoint under way.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Where and when checkpoints are taken.
#[derive(Debug, Clone)]
pub struct CheckpointOptions {
    /// Their directory; made if missing.
    pub dir: PathBuf,
    /// How many are kept, at least 1.
    pub keep: usize,
    /// One is taken after so many records of the log; 0: not for that reason.
    pub every_records: u64,
    /// One is taken after this time, if anything was applied since the last; zero: not for that
    /// reason.
    pub every: Duration,
    /// Whether the log is trimmed below the oldest one that is kept.
    pub trim: bool,
    /// A file to begin with, if the directory has none yet.
    pub bootstrap: Option<PathBuf>,
    /// Whether the newest one is left beside the log for new instances, if the engine has a place
    /// for it.
    pub publish: bool,
}

impl CheckpointOptions {
    /// Three in this directory, and none that is not asked for.
    pub fn on_demand(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            keep: 3,
            every_records: 0,
            every: Duration::ZERO,
            trim: false,
            bootstrap: None,
            publish: false,
        }
    }
}

/// A checkpoint that was taken, or started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its position.
    pub position: Position,
    /// Size of its file in bytes.
    pub bytes: u64,
    /// When it was begun, by the clock of the machine.
    pub taken_us: TimeUs,
    /// How long that took, or how long it took to load.
    pub duration: Duration,
    /// Digest of the state.
    pub digest: Digest,
    /// Its file.
    pub path: PathBuf,
}

/// The checkpoints of an instance.
#[derive(Debug)]
pub(super) struct Checkpoints {
    options: CheckpointOptions,
    /// Held while one is taken, so that there is one at a time; empty once stopped.
    store: tokio::sync::Mutex<Option<Arc<Store>>>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    checkpoint: Option<Checkpoint>,
    /// What the instance started from.
    started_from: Option<Position>,
    taken: u64,
    failed: u64,
}

/// How the checkpoints of an instance stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckpointStatus {
    /// The last one, taken by this instance or started from.
    pub last: Option<Checkpoint>,
    /// Position of the one that this instance started from; `None`: it read the log from its
    /// beginning.
    pub started_from: Option<Position>,
    /// Taken since the start.
    pub taken: u64,
    /// Tried in vain since the start.
    pub failed: u64,
}

/// What to start from: a checkpoint, or nothing.
pub(super) async fn begin(
    log: &dyn Log,
    bounds: Bounds,
    options: &Options,
) -> Result<(Parts, Option<Arc<Checkpoints>>), StartError> {
    let Some(own) = &options.checkpoints else {
        if bounds.first > 1 {
            let (wanted, first) = (1, bounds.first);
            return Err(LogError::Trimmed { wanted, first }.into());
        }
        return Ok((Parts::new(options), None));
    };
    let (dir, keep) = (own.dir.clone(), own.keep);
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir, keep)).await;
    let store = opened.expect("opening does not panic")?;
    bootstrap(log, bounds, &store, own).await?;
    let chosen = choose(log, bounds, &store, options).await?;
    let mut last = Last::default();
    let parts = match chosen {
        Some((parts, checkpoint)) => {
            tracing::info!(
                position = checkpoint.position,
                bytes = checkpoint.bytes,
                duration = ?checkpoint.duration,
                "started from the checkpoint {}",
                checkpoint.path.display()
            );
            last.started_from = Some(checkpoint.position);
            last.checkpoint = Some(checkpoint);
            parts
        }
        None => Parts::new(options),
    };
    let checkpoints = Checkpoints {
        options: own.clone(),
        store: tokio::sync::Mutex::new(Some(Arc::new(store))),
        last: Mutex::new(last),
    };
    Ok((parts, Some(Arc::new(checkpoints))))
}

/// Brings a checkpoint into a directory that has none: the file that is named, or what another
/// instance left beside the log, if the log's beginning is gone or far away.
async fn bootstrap(
    log: &dyn Log,
    bounds: Bounds,
    store: &Store,
    options: &CheckpointOptions,
) -> Result<(), StartError> {
    let setup = |reason: String| StartError::Log(LogError::Setup(reason));
    if store.list().is_ok_and(|files| !files.is_empty()) {
        return Ok(());
    }
    let unfinished = store.unfinished();
    if let Some(file) = &options.bootstrap {
        let copied = async {
            tokio::fs::copy(file, &unfinished).await?;
            tokio::fs::File::open(&unfinished).await?.sync_all().await
        };
        copied.await.map_err(|error| {
            setup(format!(
                "cannot copy {} to {}: {error}; check `checkpoint.bootstrap`",
                file.display(),
                unfinished.display()
            ))
        })?;
        return adopt(store, &file.display().to_string()).map_err(setup);
    }
    let Some(depot) = log.depot() else {
        return Ok(());
    };
    let fetched = async {
        let newest = depot.newest().await?;
        let far = |position: &Position| {
            bounds.first > 1 || *position >= bounds.first + CHECKPOINT_FETCH_RECORDS_MIN
        };
        let Some(position) = newest.filter(far) else {
            return Ok(false);
        };
        tracing::info!(
            position,
            "fetching the checkpoint that another instance left"
        );
        depot.fetch(&unfinished).await.map(|()| true)
    };
    let brought: Result<bool, LogError> = fetched.await;
    let adopted = match brought {
        Ok(false) => return Ok(()),
        Ok(true) => adopt(store, "what another instance left"),
        Err(error) => Err(error.to_string()),
    };
    match adopted {
        Ok(()) => Ok(()),
        // Without it, there is no other way.
        Err(reason) if bounds.first > 1 => Err(setup(reason)),
        Err(reason) => {
            tracing::warn!(%reason, "no checkpoint was fetched; reading the whole log");
            Ok(())
        }
    }
}

/// What was brought gets its name, if it is a checkpoint.
fn adopt(store: &Store, what: &str) -> Result<(), String> {
    let contents = Contents::open(&store.unfinished());
    let checked = contents.and_then(|contents| contents.check().map(|()| contents));
    let contents = checked.map_err(|reason| format!("{what} cannot be used: {reason}"))?;
    let committed = store.commit(contents.meta.position());
    committed
        .map(drop)
        .map_err(|error| format!("cannot write to {}: {error}", store.dir().display()))
}

/// The newest checkpoint that can be used; `None` if there is none, and the log has its beginning.
async fn choose(
    log: &dyn Log,
    bounds: Bounds,
    store: &Store,
    options: &Options,
) -> Result<Option<(Parts, Checkpoint)>, StartError> {
    let dir = store.dir().display().to_string();
    let setup = |reason: String| StartError::Log(LogError::Setup(reason));
    let files = store
        .list()
        .map_err(|error| setup(format!("cannot read {dir}: {error}")))?;
    let identity = log.identity();
    let (mut rejected, mut foreign, mut own) = (0, None, 0);
    for (named, path) in files {
        let started = Instant::now();
        let opened = Contents::open(&path);
        let position = opened.as_ref().map_or(named, |c| c.meta.position());
        let is_foreign = opened.as_ref().is_ok_and(|c| !c.meta.is_of(&identity));
        // Whatever else is wrong with it: what it has was applied once.
        if !is_foreign && position > bounds.last {
            return Err(LogError::Diverged(format!(
                "the checkpoint {} was taken at position {position}, but the log ends at {}: its \
                 tail was lost. Restore the log; or, if what was lost may be lost, move the \
                 checkpoints after position {} away",
                path.display(),
                bounds.last,
                bounds.last,
            ))
            .into());
        }
        let mut reject = |reason: &dyn std::fmt::Display| {
            rejected += 1;
            tracing::warn!(%reason, "the checkpoint {} is not used", path.display());
        };
        let contents = match opened {
            Ok(contents) => contents,
            Err(reason) => {
                reject(&reason);
                continue;
            }
        };
        let meta = &contents.meta;
        if is_foreign {
            reject(&format_args!("it is of another log, {}", meta.log_name));
            foreign.get_or_insert(path.display().to_string());
            continue;
        }
        own += 1;
        if (meta.horizon, meta.lines_retain_us) != (options.horizon, options.lines_retain_us) {
            reject(
                &"it was taken with other settings (`ids.horizon_hours`, `ids.max` or \
                  `lines.retain_hours`), which decide what is remembered",
            );
            continue;
        }
        if bounds.first > position + 1 {
            reject(&format_args!(
                "the log begins at {}, after what would have to be read next",
                bounds.first
            ));
            continue;
        }
        match log.check(meta.anchor).await {
            Ok(()) => {}
            Err(LogError::Trimmed { first, .. }) => {
                reject(&format_args!("the log was just trimmed up to {first}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let (taken_us, bytes, digest) = (meta.taken_us, contents.bytes, contents.totals.digest);
        let options = options.clone();
        let loaded = tokio::task::spawn_blocking(move || Parts::load(&contents, &options)).await;
        match loaded.expect("loading does not panic") {
            Ok(parts) => {
                let checkpoint = Checkpoint {
                    position,
                    bytes,
                    taken_us,
                    duration: started.elapsed(),
                    digest,
                    path,
                };
                return Ok(Some((parts, checkpoint)));
            }
            Err(reason) => reject(&reason),
        }
    }
    if let (Some(foreign), 0) = (foreign, own) {
        return Err(LogError::Diverged(format!(
            "the checkpoints in {dir} are of another log than this one, {} (one of them is \
             {foreign}). If the log was deleted and made anew, and is to begin anew, move them \
             away; otherwise correct `checkpoint.dir`, or where the log is",
            identity.name
        ))
        .into());
    }
    if bounds.first > 1 {
        return Err(setup(format!(
            "the log begins at position {}, and {dir} has no checkpoint from which to go on ({}). \
             Copy a checkpoint of another instance there, and start again",
            bounds.first,
            match rejected {
                0 => "it is empty".to_owned(),
                many => format!("{many} cannot be used, as told above"),
            }
        )));
    }
    Ok(None)
}

impl Checkpoints {
    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the one that is under way, though not for a network, and frees the directory.
    pub(super) async fn close(&self) {
        if let Ok(mut store) = tokio::time::timeout(CLOSE_WAIT_MAX, self.store.lock()).await {
            store.take();
        }
    }
}

impl Instance {
    /// Takes a checkpoint now. The instance goes on serving; nothing waits but what is told.
    ///
    /// # Errors
    /// See [`NotTaken`]. State and log are as they were.
    pub async fn checkpoint(self: &Arc<Self>) -> Result<Checkpoint, NotTaken> {
        let checkpoints = Arc::clone(self.checkpoints.as_ref().ok_or(NotTaken::Off)?);
        // Once begun, it goes to its end, also if who asked for it does not wait.
        let instance = Arc::clone(self);
        let taken = tokio::spawn(async move {
            let taken = instance.take(&checkpoints).await;
            let mut last = checkpoints.lock();
            match &taken {
                Ok(checkpoint) => {
                    last.taken += 1;
                    last.checkpoint = Some(checkpoint.clone());
                }
                Err(NotTaken::Empty | NotTaken::Stopping) => {}
                Err(_) => last.failed += 1,
            }
            taken
        });
        taken.await.unwrap_or(Err(NotTaken::Stopping))
    }

    /// How the checkpoints stand; `None` if this instance keeps none.
    pub fn checkpoints(&self) -> Option<CheckpointStatus> {
        let last = self.checkpoints.as_ref()?.lock();
        Some(CheckpointStatus {
            last: last.checkpoint.clone(),
            started_from: last.started_from,
            taken: last.taken,
            failed: last.failed,
        })
    }

    async fn take(&self, checkpoints: &Checkpoints) -> Result<Checkpoint, NotTaken> {
        let store = checkpoints.store.lock().await;
        let store = store.as_ref().ok_or(NotTaken::Stopping)?;
        if self.view.progress().position() == 0 {
            return Err(NotTaken::Empty);
        }
        let (started, taken_us) = (Instant::now(), now_us());
        let (channel, messages) = saving::channel();
        let (begun_tell, begun) = bounded(1);
        let (meta_tell, meta) = bounded(1);
        let (position_tell, position) = oneshot::channel();
        let steps = self.lock_steps().clone().ok_or(NotTaken::Stopping)?;
        let step = Step::Checkpoint(TakeCheckpoint {
            channel,
            begun: begun_tell,
            position: position_tell,
        });
        steps.send(step).await.map_err(|_| NotTaken::Stopping)?;
        drop(steps);

        let (path, names) = (store.unfinished(), Arc::clone(&self.locations));
        let savers = self.view.shards() + 1;
        let collected = tokio::task::spawn_blocking(move || {
            let count =
                |totals: &mut Totals, kind, bytes: &[u8]| counted(totals, kind, bytes, &names);
            saving::collect(&path, &messages, savers, &begun, &meta, count)
        });
        if let Ok((position, time_us)) = position.await {
            let meta = self.meta(position, time_us, taken_us).await;
            // It waits for nobody: there is room.
            let _ = meta_tell.send(meta);
        }
        drop(meta_tell);
        let (meta, totals, bytes) = collected.await.map_err(|_| NotTaken::Stopping)??;
        let position = meta.position();
        let own = Arc::clone(store);
        let committed = tokio::task::spawn_blocking(move || own.commit(position)).await;
        let path = committed.map_err(|_| NotTaken::Stopping)??;
        tracing::info!(position, bytes, duration = ?started.elapsed(), "took a checkpoint");
        if checkpoints.options.publish {
            self.publish(position, &path).await;
        }
        if checkpoints.options.trim {
            self.trim(store).await;
        }
        Ok(Checkpoint {
            position,
            bytes,
            taken_us,
            duration: started.elapsed(),
            digest: totals.digest,
            path,
        })
    }

    async fn meta(
        &self,
        position: Position,
        time_us: TimeUs,
        taken_us: TimeUs,
    ) -> Result<Meta, NotTaken> {
        let identity = self.log.identity();
        Ok(Meta {
            anchor: self.anchor(position).await?,
            log_engine: identity.engine.to_owned(),
            log_name: identity.name,
            log_created_us: identity.created_us,
            log_id: identity.id,
            time_us,
            taken_us,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            horizon: self.horizon,
            lines_retain_us: self.lines_retain_us,
            shards: self.view.shards() as u32,
        })
    }

    /// What the log holds at a position that was applied. Asked only for a checkpoint: to hash each
    /// entry as it passes would cost the replay more.
    async fn anchor(&self, position: Position) -> Result<Anchor, NotTaken> {
        let told = |error: LogError| NotTaken::Log(error.to_string());
        let read = async {
            let mut reader = self.log.reader(position).await.map_err(told)?;
            reader.next(1).await.map_err(told)
        };
        // A reader waits for a log that cannot be reached; what was saved waits for this.
        let entries = tokio::time::timeout(CHECKPOINT_LOG_WAIT_MAX, read).await;
        let entries = entries.map_err(|_| NotTaken::Log("it does not answer".to_owned()))??;
        let entry = entries.first();
        let entry = entry.filter(|entry| entry.position == position);
        let missing = || NotTaken::Log(format!("position {position} is not there"));
        entry.map(|entry| entry.anchor()).ok_or_else(missing)
    }

    /// Leaves a checkpoint beside the log, unless a newer one is there.
    async fn publish(&self, position: Position, path: &std::path::Path) {
        let Some(depot) = self.log.depot() else {
            return;
        };
        let published = async {
            if depot
                .newest()
                .await?
                .is_some_and(|newest| newest >= position)
            {
                return Ok(());
            }
            depot.leave(position, path).await
        };
        let published: Result<(), LogError> = published.await;
        match published {
            Ok(()) => tracing::info!(position, "left the checkpoint for other instances"),
            Err(error) => {
                tracing::warn!(%error, "the checkpoint is not left for other instances");
            }
        }
    }

    /// Forgets what of the log lies before the oldest checkpoint. The entry at its position stays, so
    /// that it can be compared.
    async fn trim(&self, store: &Arc<Store>) {
        let own = Arc::clone(store);
        // Reads them all.
        let looked = tokio::task::spawn_blocking(move || own.forgettable_below()).await;
        let Ok(below) = looked else { return };
        match below {
            Ok(None) => {}
            Ok(Some(below)) => match self.log.trim(below).await {
                Ok(()) => tracing::info!(below, "trimmed the log below the oldest checkpoint"),
                Err(error) => tracing::warn!(%error, "the log cannot be trimmed"),
            },
            Err(error) => {
                tracing::error!(%error, "the log is not trimmed: a checkpoint cannot be read again");
            }
        }
    }
}

/// Adds what a section holds to the totals.
pub(crate) fn counted(
    totals: &mut Totals,
    kind: Kind,
    bytes: &[u8],
    names: &Locations,
) -> Result<(), Broken> {
    count_intake(totals, kind, bytes)?;
    count_shard(totals, kind, bytes, names)
}

/// Takes checkpoints as often as the options say.
pub(super) async fn regularly(instance: Weak<Instance>, checkpoints: Arc<Checkpoints>) {
    let CheckpointOptions {
        every_records,
        every,
        ..
    } = checkpoints.options;
    let mut look = tokio::time::interval(Duration::from_millis(CHECKPOINT_LOOK_EVERY_MS));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_at = Instant::now();
    let mut last_position = checkpoints.lock().started_from.unwrap_or(0);
    loop {
        look.tick().await;
        let Some(instance) = instance.upgrade() else {
            return;
        };
        let position = instance.view().progress().position();
        let records = position.saturating_sub(last_position);
        let many = every_records > 0 && records >= every_records;
        let long = !every.is_zero() && records > 0 && last_at.elapsed() >= every;
        if !many && !long {
            continue;
        }
        if let Err(error) = instance.checkpoint().await {
            tracing::error!(%error, "no checkpoint was taken; trying again later");
        }
        // Also if it failed: it is tried again as often, not all the time.
        (last_at, last_position) = (Instant::now(), position);
    }
}
