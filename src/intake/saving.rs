//! The sequencer's part of a checkpoint: begins it at a position, saves in slices between steps,
//! and takes it back.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crossbeam::channel::Sender;
use tokio::sync::oneshot;

use super::{
    authority::AuthorityBook,
    commands::Commands,
    deliveries::DeliveryBook,
    parked::{self, ParkedList},
    reports::ReportBook,
    sequencer::{Sequencer, State, Stopped, Tally},
};
use crate::{
    checkpoint::{
        Kind, Totals,
        format::Label,
        saving::{Begun, Message, Outlet},
    },
    domain::{
        admission::{Admission, Horizon},
        authority::Permissions,
        movement::TimeUs,
        saved::{Broken, Input, Output},
    },
    log::Position,
    shard::{
        Rulebook,
        worker::{Effect, Work},
    },
};

/// A checkpoint that is to be taken.
pub(crate) struct TakeCheckpoint {
    /// Takes what is saved.
    pub(crate) channel: Sender<Message>,
    /// Takes what is known once all shards have begun; has room for it.
    pub(crate) begun: Sender<Begun>,
    /// Is told the position, and the log's time there.
    pub(crate) position: oneshot::Sender<(Position, TimeUs)>,
}

impl Sequencer {
    pub(super) fn checkpoint(
        &self,
        state: &mut State,
        take: TakeCheckpoint,
    ) -> Result<(), Stopped> {
        // Of the one before, the last may just have been taken.
        state.saving.take_if(|outlet| outlet.is_finished());
        assert!(state.saving.is_none(), "a checkpoint is under way already");
        let TakeCheckpoint {
            channel,
            begun,
            position,
        } = take;
        let mut outlet = Outlet::new(channel.clone());
        let mut names = Output::new();
        self.locations.save(&mut names);
        self.sources.save(&mut names);
        outlet.put(Label::of(Kind::Names), &mut names, true);

        let mut own = Output::new();
        own.u64(state.position);
        for count in [
            &self.tally.applied,
            &self.tally.duplicate,
            &self.tally.parked,
        ] {
            own.u64(count.load(Relaxed));
        }
        state.admission.begin_saving(&mut own);
        outlet.put(Label::of(Kind::Sequencer), &mut own, true);
        state.commands.begin_saving();

        let authority = self.authority.history();
        outlet.put_later(move || {
            let mut output = Output::new();
            output.count(authority.len());
            authority.iter().for_each(|own| own.save(&mut output));
            (Label::of(Kind::Authority), output.into_bytes())
        });
        let parked = self.parked.all();
        outlet.put_later(move || (Label::of(Kind::Parked), parked.into_bytes()));
        let reports = self.reports.begin_saving();
        outlet.put_later(move || (Label::of(Kind::Reports), reports().into_bytes()));
        let deliveries = self.deliveries.begin_saving();
        outlet.put_later(move || (Label::of(Kind::Deliveries), deliveries().into_bytes()));
        state.saving = Some(outlet);

        // What the last shard to finish a position makes known is known up to here, and no further.
        let (shared, tally) = (Arc::clone(&self.shared), Arc::clone(&self.tally));
        let tell = move || {
            let history = shared.rulebook.history();
            let counts: Vec<u64> = tally.commands.iter().map(|n| n.load(Relaxed)).collect();
            // Who takes the checkpoint may have given up.
            let _ = begun.try_send(Box::new(move || {
                let mut output = Output::new();
                output.count(history.len());
                history.iter().for_each(|rules| rules.save(&mut output));
                output.count(counts.len());
                counts.into_iter().for_each(|count| output.u64(count));
                vec![(Label::of(Kind::Rules), output.into_bytes())]
            }));
        };
        let _ = position.send((state.position, state.admission.now_us()));
        let completion = self.completion(state, vec![Effect::Tell(Box::new(tell))]);
        let shards = self.shards.len();
        self.to_all(|| Work::Checkpoint(channel.clone(), shards, Arc::clone(&completion)))
    }

    /// Saves a little more, if there is anything to save. True if there is more.
    pub(crate) fn save_slice(&self, state: &mut State) -> bool {
        let Some(outlet) = &mut state.saving else {
            return false;
        };
        if outlet.is_finished() {
            state.saving = None;
            return false;
        }
        if !outlet.flush() {
            return true;
        }
        let more = state.commands.save_slice() || state.admission.save_slice();
        outlet.put(Label::of(Kind::Ids), state.admission.saved_ids(), !more);
        if let Some(commands) = state.commands.take_saved(!more) {
            outlet.put_later(move || (Label::of(Kind::Commands), commands.into_bytes()));
        }
        if !more {
            outlet.finish();
        }
        true
    }
}

/// What a checkpoint has of the sequencer, on its way back.
pub(crate) struct Restoring {
    position: Position,
    admission: Admission,
    pub(crate) rulebook: Rulebook,
    pub(crate) authority: AuthorityBook,
    pub(crate) parked: ParkedList,
    pub(crate) reports: ReportBook,
    pub(crate) deliveries: DeliveryBook,
    pub(crate) tally: Tally,
    commands: Commands,
}

/// The sections that [`Restoring`] is made of.
pub(crate) struct Sections {
    pub(crate) sequencer: Vec<u8>,
    pub(crate) rules: Vec<u8>,
    pub(crate) authority: Vec<u8>,
    pub(crate) parked: Vec<u8>,
    pub(crate) reports: Vec<u8>,
    pub(crate) deliveries: Vec<u8>,
    pub(crate) commands: Vec<Vec<u8>>,
}

impl Restoring {
    /// Takes all but the ids.
    pub(crate) fn load(
        sections: &Sections,
        horizon: Horizon,
        shards: usize,
        kept_max: usize,
    ) -> Result<Self, Broken> {
        let mut own = Input::new(&sections.sequencer);
        let tally = Tally::default();
        let position = own.u64()?;
        for count in [&tally.applied, &tally.duplicate, &tally.parked] {
            count.store(own.u64()?, Relaxed);
        }
        let admission = Admission::load(horizon, &mut own)?;
        let mut rules = Input::new(&sections.rules);
        let rulebook = Rulebook::load(&mut rules)?;
        if rules.count()? != tally.commands.len() {
            return Err(Broken("it counts other kinds of decisions"));
        }
        for count in &tally.commands {
            count.store(rules.u64()?, Relaxed);
        }
        Ok(Self {
            position,
            admission,
            rulebook,
            authority: AuthorityBook::load(&mut Input::new(&sections.authority))?,
            parked: ParkedList::load(kept_max, &sections.parked)?,
            reports: ReportBook::load(&mut Input::new(&sections.reports))?,
            deliveries: DeliveryBook::load(&mut Input::new(&sections.deliveries))?,
            tally,
            commands: Commands::load(horizon, &sections.commands, shards)?,
        })
    }

    /// Takes ids.
    pub(crate) fn take_ids(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.admission.take_back_ids(bytes)
    }

    /// The last position that is in it.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The log's time.
    pub(crate) fn now_us(&self) -> TimeUs {
        self.admission.now_us()
    }
}

/// What others see, too.
pub(crate) struct Known {
    pub(crate) rulebook: Rulebook,
    pub(crate) authority: AuthorityBook,
    pub(crate) parked: ParkedList,
    pub(crate) reports: ReportBook,
    pub(crate) deliveries: DeliveryBook,
    pub(crate) tally: Tally,
}

/// What the sequencer goes on with.
pub(crate) struct Restored {
    position: Position,
    admission: Admission,
    commands: Commands,
}

impl Restoring {
    /// Everything was taken.
    pub(crate) fn finish(mut self) -> (Restored, Known) {
        self.admission.all_ids_taken_back();
        let state = Restored {
            position: self.position,
            admission: self.admission,
            commands: self.commands,
        };
        let known = Known {
            rulebook: self.rulebook,
            authority: self.authority,
            parked: self.parked,
            reports: self.reports,
            deliveries: self.deliveries,
            tally: self.tally,
        };
        (state, known)
    }
}

impl Sequencer {
    /// Goes on where a checkpoint was taken. The rules and the source authority are those that its
    /// books have in force.
    pub(crate) fn resume(&self, restored: Restored) -> State {
        let authority = Arc::clone(&self.authority.in_force());
        let state = State {
            admission: restored.admission,
            position: restored.position,
            rules: Arc::clone(&self.shared.rulebook.in_force()),
            permissions: Permissions::new(Arc::clone(&authority.authority)),
            authority,
            commands: restored.commands,
            saving: None,
        };
        self.count(&state, [0; 3]);
        state
    }
}

/// Adds what a section of the sequencer holds to the totals of a checkpoint.
pub(crate) fn count(totals: &mut Totals, kind: Kind, bytes: &[u8]) -> Result<(), Broken> {
    if kind == Kind::Parked {
        totals.digest += parked::digest_of(bytes)?;
    }
    Ok(())
}
