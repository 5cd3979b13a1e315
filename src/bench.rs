//! The way of a movement from the log's bytes to the view on the caller's own thread, for
//! benchmarks, profiles, long runs of tests, and `sellable verify`. It runs the code that an
//! instance runs, with the same queues between sequencer and shards; only the threads are missing.
//! Not part of the public interface.

use std::{path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use crossbeam::channel::{Receiver, bounded};
use tokio::sync::oneshot;

use crate::{
    checkpoint::{
        Meta, Totals,
        format::{Contents, Reject},
        saving,
    },
    domain::{
        admission::Horizon,
        balances::Loc,
        exceptions::Open,
        movement::TimeUs,
        reconcile::{AsOf, Chunk, Compared},
    },
    instance::{NotTaken, Options, counted, parts::Parts},
    intake::{
        CommandReceipt, ParkedList,
        decode::{Asked, At, Decoded, Decoder},
        saving::TakeCheckpoint,
        sequencer::{Sequencer, State, Step, Waiting},
    },
    log::{Entry, LogError, Position},
    proto::v1 as pb,
    shard::{
        Audit, View,
        compare::Comparing,
        queue::{ShardQueue, Unfinished},
        worker::{self, Completion, Job, Work, Writer},
    },
};

/// Writes all records.
const INSTANCE: u64 = 1;

/// Decoded entries.
#[derive(Debug)]
pub struct Batch(Vec<Decoded>);

/// Decoder, sequencer and shards, without threads of their own.
pub struct Pipeline {
    decoder: Decoder,
    sequencer: Sequencer,
    state: State,
    shards: Vec<(Receiver<Work>, Writer)>,
    view: Arc<View>,
    saving: Option<JoinHandle<Saved>>,
    pace: saving::Pace,
}

type Saved = Result<(Meta, Totals, u64), NotTaken>;

fn options(horizon: Horizon, shards: u32) -> Options {
    Options {
        shards: shards as usize,
        horizon,
        lines_retain_us: horizon.us,
        parked_kept_max: 1_000,
        ..Options::default()
    }
}

impl Pipeline {
    /// One with one shard, that has seen nothing.
    pub fn new(horizon: Horizon) -> Self {
        Self::with_shards(horizon, 1)
    }

    /// One that has seen nothing.
    pub fn with_shards(horizon: Horizon, shards: u32) -> Self {
        Self::with_options(&options(horizon, shards))
    }

    /// One that has seen nothing. Of the options, those count that decide what the state is.
    pub fn with_options(options: &Options) -> Self {
        Self::of(Parts::new(options), options)
    }

    /// One that goes on where a checkpoint was taken.
    ///
    /// # Errors
    /// If the checkpoint is damaged, or does not give the state that it says it gives.
    pub fn restore(contents: &Contents, options: &Options) -> Result<Self, Reject> {
        Ok(Self::of(Parts::load(contents, options)?, options))
    }

    fn of(mut parts: Parts, options: &Options) -> Self {
        let view = Arc::new(parts.view());
        let (queues, shards): (Vec<_>, Vec<_>) = std::mem::take(&mut parts.writers)
            .into_iter()
            .map(|writer| {
                let (queue, work) = bounded(crate::limits::SHARD_QUEUE_BATCHES_MAX);
                // What is handed over is taken from the queue by this thread.
                let queue = ShardQueue::new(queue, Unfinished::default(), None);
                (queue, (work, writer))
            })
            .unzip();
        let (sequencer, state) = parts.sequencer(INSTANCE, queues, Arc::default(), options);
        let Parts {
            locations,
            sources,
            time_us,
            ..
        } = parts;
        Self {
            decoder: Decoder::going_on_at(time_us, locations, sources, shards.len()),
            sequencer,
            state,
            shards,
            view,
            saving: None,
            pace: saving::Pace::default(),
        }
    }

    /// Compares lines of a snapshot with the books of its time; `None` if that is too long ago.
    pub fn compare(&mut self, chunk: Arc<Chunk>, as_of: AsOf) -> Option<Vec<Compared>> {
        let comparing = Arc::new(Comparing::new(chunk, as_of, self.shards.len()));
        let (answer, mut told) = oneshot::channel();
        self.step(Step::Compare(Arc::clone(&comparing), answer));
        let told = told.try_recv().expect("it was compared on this thread");
        told.is_ok().then(|| comparing.result())
    }

    /// The number of a location, if any movement ever named it.
    pub fn location(&self, name: &str) -> Option<Loc> {
        self.sequencer.locations.get(name)
    }

    /// Begins to save the state as it is now into a file.
    ///
    /// # Panics
    /// If that is under way already.
    pub fn begin_checkpoint(&mut self, path: &Path, meta: Meta) {
        assert!(self.saving.is_none(), "a checkpoint is under way already");
        let (channel, messages) = saving::channel();
        let (begun_tell, begun) = bounded(1);
        let (meta_tell, meta_told) = bounded(1);
        let (position, _) = oneshot::channel();
        self.step(Step::Checkpoint(TakeCheckpoint {
            channel,
            begun: begun_tell,
            position,
        }));
        meta_tell.send(Ok(meta)).expect("there is room");
        let (path, names) = (path.to_owned(), Arc::clone(&self.sequencer.locations));
        let savers = self.shards.len() + 1;
        self.saving = Some(std::thread::spawn(move || {
            let count =
                |totals: &mut Totals, kind, bytes: &[u8]| counted(totals, kind, bytes, &names);
            saving::collect(&path, &messages, savers, &begun, &meta_told, count)
        }));
    }

    /// Saves a little more. True if there is more to save.
    pub fn save_slice(&mut self) -> bool {
        let mut more = self.sequencer.save_slice(&mut self.state);
        for (_, writer) in &mut self.shards {
            more |= writer.save_slice();
        }
        more
    }

    /// The same as fast as an instance does, which rests in between. True if there is more to save.
    pub fn save_slice_at_pace(&mut self) -> bool {
        if !self.pace.pause().is_zero() {
            return true;
        }
        let mut pace = std::mem::take(&mut self.pace);
        let more = pace.slice(|| self.save_slice());
        self.pace = pace;
        more
    }

    /// How long [`Pipeline::save_slice_at_pace`] rests from now on.
    pub fn saving_pause(&self) -> Duration {
        self.pace.pause()
    }

    /// True once the file is written of a checkpoint of which all was saved.
    pub fn is_checkpoint_written(&self) -> bool {
        self.saving.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Saves all that is left; gives what is in the file, and its size in bytes.
    ///
    /// # Errors
    /// If it cannot be written.
    ///
    /// # Panics
    /// If none was begun.
    pub fn finish_checkpoint(&mut self) -> Result<(Totals, u64), NotTaken> {
        while self.save_slice() {}
        let saving = self.saving.take().expect("one was begun");
        let saved = saving.join().expect("it does not panic");
        saved.map(|(_, totals, bytes)| (totals, bytes))
    }

    /// What an instance does before its writers: decodes, checks, and makes keys.
    ///
    /// # Errors
    /// If a later version wrote one of the entries.
    pub fn decode(&mut self, entries: Vec<Entry>) -> Result<Batch, LogError> {
        let mut decoded = Vec::new();
        for entry in entries {
            self.decoder.decode(entry, &mut decoded)?;
        }
        decoded.extend(self.decoder.rest());
        Ok(Batch(decoded))
    }

    /// What the sequencer and the writers of the shards do: lets each movement in once, applies
    /// it, and publishes it to the view.
    pub fn apply(&mut self, batch: Batch) {
        for decoded in batch.0 {
            self.step(Step::Decoded(decoded));
        }
    }

    fn step(&mut self, step: Step) {
        let votes = matches!(step, Step::Decoded(Decoded::Commands(..)));
        self.sequencer
            .step(&mut self.state, step)
            .expect("the queues are open");
        let work = |(queue, writer): &mut (Receiver<Work>, Writer)| {
            while let Ok(work) = queue.try_recv() {
                writer.work(work);
            }
        };
        if votes && self.shards.len() > 1 {
            // They wait for each other.
            std::thread::scope(|scope| {
                for shard in &mut self.shards {
                    scope.spawn(move || work(shard));
                }
            });
        } else {
            self.shards.iter_mut().for_each(work);
        }
    }

    /// Decides about commands that are one record, at its position and time.
    ///
    /// # Panics
    /// If one of them gets no answer.
    pub fn decide(
        &mut self,
        position: Position,
        time_us: TimeUs,
        commands: Vec<pb::Command>,
    ) -> Vec<CommandReceipt> {
        let (tell, mut told) = oneshot::channel();
        self.sequencer
            .pending
            .insert(position, Waiting::Commands(tell));
        let at = At {
            position,
            time_us,
            origin: (INSTANCE, position),
        };
        let asked = commands.into_iter().map(Asked::Other).collect();
        self.step(Step::Decoded(Decoded::Commands(at, asked)));
        let told = told.try_recv().expect("answers").into_iter();
        told.map(|told| told.expect("an answer").receipt(&self.sequencer.locations))
            .collect()
    }

    /// Digest and check of the whole state.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn audit(&mut self) -> Audit {
        let (answer, mut told) = oneshot::channel();
        self.step(Step::Audit(answer));
        told.try_recv().expect("an answer").0
    }

    /// All exceptions that are functions of the state, in no order.
    pub fn open_exceptions(&self) -> Vec<Open> {
        let mut open = Vec::new();
        for (_, writer) in &self.shards {
            let exceptions = writer.exceptions.lock();
            let exceptions = exceptions.unwrap_or_else(std::sync::PoisonError::into_inner);
            open.extend(exceptions.after(None).map(|(_, open)| open.clone()));
        }
        open
    }

    /// Movements that were not applied.
    pub fn parked(&self) -> &ParkedList {
        &self.sequencer.parked
    }

    /// Applies without letting in: remembers no ids. To measure what the books alone take.
    ///
    /// # Panics
    /// If the batch holds anything but facts, or there are several shards.
    pub fn apply_unadmitted(&mut self, batch: Batch) {
        for decoded in batch.0 {
            let Decoded::Facts(facts) = decoded else {
                panic!("only facts can be applied unadmitted");
            };
            let Some(last) = facts.entries.last() else {
                continue;
            };
            let job = |item: &crate::intake::decode::Item| Job {
                posting: item.posting,
                names: item.names,
            };
            let shared = &self.sequencer.shared;
            let completion = Completion::new(1, last.position, last.time_us, Vec::new(), shared);
            let mut batch = worker::Batch {
                jobs: facts.items.iter().map(job).collect(),
                names: facts.names.as_str().into(),
                ..worker::Batch::default()
            };
            batch.end_entry(last.time_us);
            let [(_, writer)] = &mut self.shards[..] else {
                panic!("only one shard can take facts unadmitted");
            };
            writer.work(Work::Apply(batch, completion));
        }
    }

    /// What readers see.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The same for another thread, which reads while this one applies.
    pub fn shared_view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Movements applied, repeated and parked.
    pub fn outcomes(&self) -> [u64; 3] {
        use std::sync::atomic::Ordering::Relaxed;
        let tally = &self.sequencer.tally;
        [&tally.applied, &tally.duplicate, &tally.parked].map(|count| count.load(Relaxed))
    }
}
