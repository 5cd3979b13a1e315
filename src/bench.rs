//! The way of a movement from the log's bytes to the view on the caller's own thread, for
//! benchmarks and profiles. It runs the code that an instance runs, with the same queue between
//! sequencer and shard; only the threads are missing. Not part of the public interface.

use std::sync::Arc;

use crossbeam::channel::{Receiver, bounded};

use crate::{
    domain::admission::Horizon,
    intake::{
        ParkedList,
        decode::{Decoded, Decoder},
        sequencer::{Sequencer, State, Step},
    },
    log::{Entry, LogError},
    shard::{
        Locations, View,
        worker::{Completion, Job, Shared, Work, Writer},
    },
};

/// Decoded entries.
#[derive(Debug)]
pub struct Batch(Vec<Decoded>);

/// Decoder, sequencer and one shard, without threads of their own.
pub struct Pipeline {
    decoder: Decoder,
    sequencer: Sequencer,
    state: State,
    queue: Receiver<Work>,
    writer: Writer,
    view: View,
}

impl Pipeline {
    /// One that has seen nothing.
    pub fn new(horizon: Horizon) -> Self {
        let locations = Arc::<Locations>::default();
        let shared = Arc::<Shared>::default();
        let writer = Writer::new(Arc::clone(&locations));
        let (jobs, queue) = bounded(crate::limits::SHARD_QUEUE_BATCHES_MAX);
        let sequencer = Sequencer {
            instance: 1,
            shards: vec![jobs],
            shared: Arc::clone(&shared),
            pending: Arc::default(),
            parked: Arc::new(ParkedList::new(1_000)),
            tally: Arc::default(),
            horizon,
        };
        let part = (Arc::clone(&writer.index), Arc::clone(&writer.counts));
        Self {
            decoder: Decoder::new(Arc::clone(&locations)),
            state: sequencer.begin(),
            view: View::new(std::iter::once(part), locations, shared),
            sequencer,
            queue,
            writer,
        }
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

    /// What the sequencer and the writer of a shard do: lets each movement in once, applies it,
    /// and publishes it to the view.
    pub fn apply(&mut self, batch: Batch) {
        for decoded in batch.0 {
            self.sequencer
                .step(&mut self.state, Step::Decoded(decoded))
                .expect("the queue is open");
            while let Ok(work) = self.queue.try_recv() {
                self.writer.work(work);
            }
        }
    }

    /// Applies without letting in: remembers no ids. To measure what the books alone take.
    ///
    /// # Panics
    /// If the batch holds anything but facts.
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
                name_at: item.name_at,
                name_len: item.name_len,
            };
            let shared = &self.sequencer.shared;
            let completion = Completion::new(1, last.position, last.time_us, Vec::new(), shared);
            let jobs = facts.items.iter().map(job).collect();
            let work = Work::Apply(jobs, facts.names.as_str().into(), completion);
            self.writer.work(work);
        }
    }

    /// What readers see.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Movements applied, repeated and parked.
    pub fn outcomes(&self) -> [u64; 3] {
        use std::sync::atomic::Ordering::Relaxed;
        let tally = &self.sequencer.tally;
        [&tally.applied, &tally.duplicate, &tally.parked].map(|count| count.load(Relaxed))
    }
}
