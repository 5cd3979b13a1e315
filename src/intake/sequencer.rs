//! The sequencer: one thread that takes the decoded log in order, lets each movement in once,
//! and hands it to the shard of its SKU.
//!
//! Idempotency is decided here and not in the shards, since an id may come again with another
//! SKU: what it does must not depend on the number of shards.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use crossbeam::channel::Sender;
use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};

use super::{
    decode::{Decoded, Facts, Head, Item},
    parked::ParkedList,
};
use crate::{
    domain::{
        admission::{Admission, Horizon, Verdict},
        exceptions::{Outcome, ParkedKind},
        movement::TimeUs,
        rules::Rules,
    },
    limits::PREFETCH_POSTINGS,
    log::Position,
    proto::v1 as pb,
    shard::{
        Audit, Receipt, RulesInForce,
        worker::{Caller, Completion, Effect, Job, Shared, Work},
    },
};

/// What the sequencer is given to do.
pub(crate) enum Step {
    /// The log went on.
    Decoded(Decoded),
    /// Walk over all cells, at the position where this is met.
    Audit(oneshot::Sender<(Audit, Position)>),
}

/// Callers of this instance that wait for a record, by its token.
pub(crate) type Pending = DashMap<u64, Waiting>;

/// Who waits for a record.
pub(crate) enum Waiting {
    /// Callers, each with the number of its movements, in the order of the record.
    Movements(Vec<(Caller, usize)>),
    /// Who put rules.
    Rules(oneshot::Sender<Position>),
}

/// Counts that others may read.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) applied: AtomicU64,
    pub(crate) duplicate: AtomicU64,
    pub(crate) parked: AtomicU64,
    pub(crate) ids_remembered: AtomicU64,
    pub(crate) id_bytes: AtomicU64,
    /// Microseconds; -1: none have been forgotten.
    pub(crate) forgotten_before_us: AtomicI64,
}

pub(crate) struct Sequencer {
    pub(crate) instance: u64,
    pub(crate) shards: Vec<Sender<Work>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) parked: Arc<ParkedList>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) horizon: Horizon,
}

/// What the sequencer knows at a position of the log.
pub(crate) struct State {
    admission: Admission,
    position: Position,
    rules: Arc<RulesInForce>,
}

impl Sequencer {
    /// Works until no more steps can come, or a shard has ended.
    pub(crate) fn run(self, mut steps: mpsc::Receiver<Step>) {
        let mut state = self.begin();
        while let Some(step) = steps.blocking_recv() {
            if self.step(&mut state, step).is_err() {
                return;
            }
        }
    }

    /// What is known before the first position.
    pub(crate) fn begin(&self) -> State {
        self.tally.forgotten_before_us.store(-1, Relaxed);
        State {
            admission: Admission::new(self.horizon),
            position: 0,
            rules: Arc::new(RulesInForce::built_in()),
        }
    }

    /// Takes one step.
    pub(crate) fn step(&self, state: &mut State, step: Step) -> Result<(), Stopped> {
        match step {
            Step::Decoded(Decoded::Facts(facts)) => self.facts(state, &facts),
            Step::Decoded(Decoded::Rules {
                position,
                time_us,
                origin,
                put,
            }) => self.rules(state, position, time_us, origin, put),
            Step::Audit(answer) => self.audit(state, answer),
        }
    }

    fn facts(&self, state: &mut State, facts: &Facts) -> Result<(), Stopped> {
        let mut jobs: Vec<Vec<Job>> = (0..self.shards.len())
            .map(|_| Vec::with_capacity(facts.items.len() / self.shards.len() + 16))
            .collect();
        let mut effects = Vec::new();
        let mut counts = [0u64; 3];
        for group in &mut facts.entries.iter() {
            state.admission.advance(group.time_us);
            let waiting = self.waiting_for(group.origin);
            let mut outcomes = match &waiting {
                Some(_) => vec![None; group.items.len() + group.malformed.len()],
                None => Vec::new(),
            };
            for malformed in &group.malformed {
                counts[2] += 1;
                set(&mut outcomes, malformed.index, ParkedKind::Malformed.into());
                self.parked.park(malformed.clone());
            }
            for items in facts.items[group.items.clone()].chunks(PREFETCH_POSTINGS) {
                for item in items {
                    state.admission.prefetch(item.key);
                }
                for item in items {
                    let (outcome, duplicate) = self.admit(state, group, item);
                    if outcome == Outcome::Applied && !duplicate {
                        counts[0] += 1;
                        let shard = item.posting.sku.shard(self.shards.len());
                        jobs[shard].push(Job {
                            posting: item.posting,
                            name_at: item.name_at,
                            name_len: item.name_len,
                        });
                    } else if duplicate {
                        counts[1] += 1;
                    } else {
                        counts[2] += 1;
                    }
                    set(&mut outcomes, item.index, (outcome, duplicate));
                }
            }
            if let Some(Waiting::Movements(callers)) = waiting {
                answer(callers, outcomes, group, &mut effects);
            }
            state.position = group.position;
        }
        self.count(state, counts);
        let names: Arc<str> = facts.names.as_str().into();
        let completion = self.completion(state, effects);
        for (shard, jobs) in self.shards.iter().zip(jobs) {
            let work = Work::Apply(jobs, Arc::clone(&names), Arc::clone(&completion));
            shard.send(work).map_err(|_| Stopped)?;
        }
        Ok(())
    }

    fn admit(&self, state: &mut State, head: &Head, item: &Item) -> (Outcome, bool) {
        let verdict = state
            .admission
            .admit(item.key, item.content, item.occurred_us);
        match verdict {
            Verdict::Apply => (Outcome::Applied, false),
            Verdict::Repeat(outcome) => (outcome.into(), true),
            Verdict::Park(kind) => {
                self.parked.park(head.park(item, kind));
                (Outcome::Parked(kind), false)
            }
        }
    }

    fn rules(
        &self,
        state: &mut State,
        position: Position,
        time_us: TimeUs,
        origin: (u64, u64),
        put: pb::RulesPut,
    ) -> Result<(), Stopped> {
        state.position = position;
        state.admission.advance(time_us);
        let mut effects = Vec::new();
        let as_expected = put
            .expected_version
            .is_none_or(|version| version == state.rules.version);
        let rules = match Rules::parse(&put.toml) {
            Ok((rules, _)) if as_expected => Some(rules),
            Ok(_) => None,
            Err(error) => {
                tracing::error!(position, %error, "a rules record cannot be read: no effect");
                None
            }
        };
        let takes_effect = rules.is_some();
        if let Some(rules) = rules {
            state.rules = Arc::new(RulesInForce {
                epoch: state.rules.epoch + 1,
                version: position,
                rules: Arc::new(rules),
                put_us: state.admission.now_us(),
                actor: put.actor,
                note: put.note,
            });
            effects.push(Effect::PutRules(Arc::clone(&state.rules)));
        }
        if let Some(Waiting::Rules(caller)) = self.waiting_for(Some(origin)) {
            effects.push(Effect::AnswerRules(caller, state.rules.version));
        }
        let completion = self.completion(state, effects);
        for shard in &self.shards {
            let completion = Arc::clone(&completion);
            let work = if takes_effect {
                Work::Rules(Arc::clone(&state.rules), completion)
            } else {
                Work::Apply(Vec::new(), "".into(), completion)
            };
            shard.send(work).map_err(|_| Stopped)?;
        }
        Ok(())
    }

    fn audit(
        &self,
        state: &State,
        answer: oneshot::Sender<(Audit, Position)>,
    ) -> Result<(), Stopped> {
        let sum = Arc::new(Mutex::new(Audit {
            digest: self.parked.digest(),
            ..Audit::default()
        }));
        let effect = Effect::AnswerAudit(answer, Arc::clone(&sum), state.position);
        let completion = self.completion(state, vec![effect]);
        for shard in &self.shards {
            let work = Work::Audit(Arc::clone(&sum), Arc::clone(&completion));
            shard.send(work).map_err(|_| Stopped)?;
        }
        Ok(())
    }

    fn waiting_for(&self, origin: Option<(u64, u64)>) -> Option<Waiting> {
        let (_, token) = origin.filter(|(instance, _)| *instance == self.instance)?;
        self.pending.remove(&token).map(|(_, waiting)| waiting)
    }

    fn completion(&self, state: &State, effects: Vec<Effect>) -> Arc<Completion> {
        Completion::new(
            self.shards.len(),
            state.position,
            state.admission.now_us(),
            effects,
            &self.shared,
        )
    }

    fn count(&self, state: &State, [applied, duplicate, parked]: [u64; 3]) {
        self.tally.applied.fetch_add(applied, Relaxed);
        self.tally.duplicate.fetch_add(duplicate, Relaxed);
        self.tally.parked.fetch_add(parked, Relaxed);
        let ids = state.admission.ids();
        self.tally.ids_remembered.store(ids.len() as u64, Relaxed);
        self.tally.id_bytes.store(ids.bytes() as u64, Relaxed);
        let forgotten = state.admission.forgotten_before_us().unwrap_or(-1);
        self.tally.forgotten_before_us.store(forgotten, Relaxed);
    }
}

/// A shard has ended: the instance is stopping.
#[derive(Debug)]
pub(crate) struct Stopped;

impl From<ParkedKind> for (Outcome, bool) {
    fn from(kind: ParkedKind) -> Self {
        (Outcome::Parked(kind), false)
    }
}

fn set(outcomes: &mut [Option<(Outcome, bool)>], index: u32, outcome: (Outcome, bool)) {
    if let Some(place) = outcomes.get_mut(index as usize) {
        *place = Some(outcome);
    }
}

/// Gives each caller its share of the record's outcomes.
fn answer(
    callers: Vec<(Caller, usize)>,
    outcomes: Vec<Option<(Outcome, bool)>>,
    head: &Head,
    effects: &mut Vec<Effect>,
) {
    let mut outcomes = outcomes.into_iter();
    for (caller, count) in callers {
        let share: Option<Vec<_>> = outcomes.by_ref().take(count).collect();
        // A record of ours that cannot be read whole: the caller learns that by its sender's end.
        let Some(share) = share.filter(|share| share.len() == count) else {
            continue;
        };
        let receipt = Receipt {
            position: head.position,
            time_us: head.time_us,
            outcomes: share,
        };
        effects.push(Effect::Answer(caller, receipt));
    }
}
