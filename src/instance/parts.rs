//! What an instance is made of, still without threads: empty, or as a checkpoint has it.

use std::sync::Arc;

use super::Options;
use crate::{
    checkpoint::{Kind, format::Contents, format::Reject},
    domain::{
        movement::TimeUs,
        saved::{Broken, Input},
    },
    intake::{
        AuthorityBook, DeliveryBook, ParkedList, ReportBook,
        saving::{self, Restored},
        sequencer::{Pending, Sequencer, State, Tally},
    },
    log::Position,
    shard::{
        Audit, Locations, Sources, View,
        queue::ShardQueue,
        saving::Restoring,
        worker::{Shared, Writer},
    },
};

/// See the module.
pub(crate) struct Parts {
    pub(crate) writers: Vec<Writer>,
    pub(crate) locations: Arc<Locations>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) parked: Arc<ParkedList>,
    pub(crate) authority: Arc<AuthorityBook>,
    pub(crate) reports: Arc<ReportBook>,
    pub(crate) deliveries: Arc<DeliveryBook>,
    pub(crate) tally: Arc<Tally>,
    /// The last position that is in it, and the log's time there.
    pub(crate) position: Position,
    pub(crate) time_us: TimeUs,
    restored: Option<Restored>,
}

impl Parts {
    /// Empty ones.
    pub(crate) fn new(options: &Options) -> Self {
        let locations = Arc::<Locations>::default();
        let writer = |number| {
            let names = Arc::clone(&locations);
            Writer::new(number as u32, names, options.lines_retain_us)
        };
        Self {
            writers: (0..options.shards).map(writer).collect(),
            locations,
            sources: Arc::default(),
            shared: Arc::default(),
            parked: Arc::new(ParkedList::new(options.parked_kept_max)),
            authority: Arc::default(),
            reports: Arc::default(),
            deliveries: Arc::default(),
            tally: Arc::default(),
            position: 0,
            time_us: 0,
            restored: None,
        }
    }

    /// What a checkpoint has; the digest is checked. A thread for each shard, and one for ids.
    ///
    /// # Errors
    /// If the file is damaged, or does not give the state that it says it gives.
    pub(crate) fn load(contents: &Contents, options: &Options) -> Result<Self, Reject> {
        let names = contents.read_only_one(Kind::Names)?;
        let mut names = Input::new(&names);
        let locations = Arc::new(Locations::load(&mut names)?);
        let sources = Arc::new(Sources::load(&mut names)?);
        let commands = contents.sections(Kind::Commands);
        let sections = saving::Sections {
            sequencer: contents.read_only_one(Kind::Sequencer)?,
            rules: contents.read_only_one(Kind::Rules)?,
            authority: contents.read_only_one(Kind::Authority)?,
            parked: contents.read_only_one(Kind::Parked)?,
            reports: contents.read_only_one(Kind::Reports)?,
            deliveries: contents.read_only_one(Kind::Deliveries)?,
            commands: commands
                .map(|section| contents.read(section))
                .collect::<Result<_, _>>()?,
        };
        let mut own = saving::Restoring::load(
            &sections,
            options.horizon,
            options.shards,
            options.parked_kept_max,
        )?;
        drop(sections);
        if own.position() != contents.meta.position() {
            return Err(Broken("its parts are of different positions").into());
        }
        let now_us = own.now_us();
        let rules = Arc::clone(&own.rulebook.in_force());
        let shard = |number: usize| -> Result<(Writer, Audit), Reject> {
            let place = (number, options.shards);
            let mut shard = Restoring::new(
                place,
                &contents.totals,
                Arc::clone(&locations),
                Arc::clone(&rules),
                options.lines_retain_us,
            );
            // Recent movements belong to cells, which have to be there before.
            for kind in [
                Kind::Blocks,
                Kind::Lines,
                Kind::Timers,
                Kind::Exceptions,
                Kind::Recent,
                Kind::Counted,
            ] {
                for section in contents.sections(kind) {
                    let label = section.label;
                    let same = usize::from(label.shards) == options.shards;
                    if !same || usize::from(label.shard) == number {
                        shard.take(kind, &contents.read(section)?, same)?;
                    }
                }
            }
            Ok(shard.finish(now_us))
        };
        let (ids, shards) = std::thread::scope(|scope| {
            scope.spawn(|| contents.read_ahead());
            let shards: Vec<_> = (0..options.shards)
                .map(|number| scope.spawn(move || shard(number)))
                .collect();
            let ids = contents.sections(Kind::Ids).try_for_each(|section| {
                own.take_ids(&contents.read(section)?)?;
                Ok::<_, Reject>(())
            });
            let joined = shards.into_iter().map(|shard| {
                let joined = shard.join();
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            (ids, joined.collect::<Result<Vec<_>, Reject>>())
        });
        ids?;
        let (writers, audits): (Vec<_>, Vec<_>) = shards?.into_iter().unzip();
        let (restored, known) = own.finish();
        let mut audit = Audit {
            digest: known.parked.digest(),
            ..Audit::default()
        };
        audits.into_iter().for_each(|part| audit += part);
        if audit.digest != contents.totals.digest {
            return Err(Broken("what it gives has another digest than it says").into());
        }
        if audit.conservation_violations > 0 {
            return Err(Broken("units were made or lost in it").into());
        }
        let shared = Shared {
            rulebook: known.rulebook,
            ..Shared::default()
        };
        let (position, time_us) = (contents.meta.position(), contents.meta.time_us);
        shared.progress.reach(position, time_us);
        Ok(Self {
            writers,
            locations,
            sources,
            shared: Arc::new(shared),
            parked: Arc::new(known.parked),
            authority: Arc::new(known.authority),
            reports: Arc::new(known.reports),
            deliveries: Arc::new(known.deliveries),
            tally: Arc::new(known.tally),
            position,
            time_us,
            restored: Some(restored),
        })
    }

    /// What readers see of it.
    pub(crate) fn view(&self) -> View {
        let part = |writer: &Writer| (Arc::clone(&writer.index), Arc::clone(&writer.counts));
        let parts = self.writers.iter().map(part);
        View::new(parts, Arc::clone(&self.locations), Arc::clone(&self.shared))
    }

    /// The sequencer over it, and the state with which it begins.
    pub(crate) fn sequencer(
        &mut self,
        instance: u64,
        queues: Vec<ShardQueue>,
        pending: Arc<Pending>,
        options: &Options,
    ) -> (Sequencer, State) {
        let sequencer = Sequencer {
            instance,
            shards: queues,
            shared: Arc::clone(&self.shared),
            pending,
            parked: Arc::clone(&self.parked),
            authority: Arc::clone(&self.authority),
            reports: Arc::clone(&self.reports),
            deliveries: Arc::clone(&self.deliveries),
            locations: Arc::clone(&self.locations),
            sources: Arc::clone(&self.sources),
            tally: Arc::clone(&self.tally),
            horizon: options.horizon,
        };
        let state = match self.restored.take() {
            Some(restored) => sequencer.resume(restored),
            None => sequencer.begin(),
        };
        (sequencer, state)
    }
}
