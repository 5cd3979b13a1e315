//! The sequencer: one thread that takes the decoded log in order, lets each movement in once,
//! and hands it to the shard of its SKU.
//!
//! Idempotency is decided here and not in the shards, since an id may come again with another
//! SKU: what it does must not depend on the number of shards.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
};

use dashmap::DashMap;
use tokio::sync::oneshot;

use super::{
    authority::{AuthorityBook, AuthorityInForce},
    commands::{CommandVerdict, Commands, Place, ReservationView, Told},
    decode::{Asked, At, Decoded, Facts, Head, Item},
    deliveries::{DeliveryBook, Reported},
    parked::ParkedList,
    reports::{self, ReportBook},
    resolve::Resolved,
    saving::TakeCheckpoint,
};
use crate::{
    checkpoint::saving::Outlet,
    domain::{
        admission::{Admission, Horizon, Verdict},
        authority::Permissions,
        balances::{Loc, LocationNames},
        exceptions::{Outcome, ParkedKind},
        keys::SkuHash,
        movement::TimeUs,
        recent::RecentView,
        reconcile::Statement,
        rules::Rules,
    },
    limits::{AHEAD_US_MAX, PREFETCH_POSTINGS},
    log::Position,
    proto::v1 as pb,
    shard::{
        Audit, Change, Locations, Receipt, RulesInForce, Sources,
        compare::{Comparing, by_shard},
        queue::{self, ShardQueue},
        worker::{
            Batch, Completion, Cutting, Effect, Inspection, Job, Receipts, Republishing, Shared,
            Work,
        },
    },
};

/// What the sequencer is given to do.
pub(crate) enum Step {
    /// The log went on.
    Decoded(Decoded),
    /// Walk over all cells, at the position where this is met.
    Audit(oneshot::Sender<(Audit, Position)>),
    /// Compare lines of a snapshot, and tell the position where that was; or, if its moment is too
    /// long ago, the oldest for which that can be done.
    Compare(Arc<Comparing>, oneshot::Sender<Result<Position, TimeUs>>),
    /// Take some of the changes of published numbers, as they are where this is met.
    Cut(oneshot::Sender<Cut>),
    /// Show the recent movements.
    Recent(oneshot::Sender<Vec<RecentView>>),
    /// Tell how the reservation of this id stands.
    Inspect(String, oneshot::Sender<Option<ReservationView>>),
    /// Begin to save the state, as it is where this is met.
    Checkpoint(TakeCheckpoint),
}

/// Changes of published numbers, taken at one position.
#[derive(Debug)]
pub struct Cut {
    /// The position: the numbers are those of there.
    pub position: Position,
    /// The log's time there.
    pub time_us: TimeUs,
    /// The rules there, which the channels are of.
    pub rules: Arc<RulesInForce>,
    /// What changed since it was taken before, in no order.
    pub changes: Vec<Change>,
    /// Whether that is all that changed up to the position.
    pub is_complete: bool,
}

/// Those of this instance that wait for a record, by its token.
#[derive(Default)]
pub(crate) struct Pending {
    waiting: DashMap<u64, Waiting>,
    is_closed: AtomicBool,
}

impl Pending {
    /// Whoever waits for what is not decided any more learns that by its sender's end.
    pub(crate) fn insert(&self, token: u64, waiting: Waiting) {
        self.waiting.insert(token, waiting);
        if self.is_closed.load(SeqCst) {
            self.waiting.remove(&token);
        }
    }

    pub(crate) fn remove(&self, token: u64) -> Option<Waiting> {
        self.waiting.remove(&token).map(|(_, waiting)| waiting)
    }

    /// Nothing will be decided any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, SeqCst);
        self.waiting.clear();
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Who waits for a record.
pub(crate) enum Waiting {
    /// Movements: how many of them each caller has, in the order of the record.
    Movements(Vec<usize>, Receipts),
    /// Commands.
    Commands(Receipts<Told>),
    /// Who put rules, or a document of source authority.
    Document(oneshot::Sender<Position>),
    /// Who decided about an exception.
    Resolve(oneshot::Sender<(Resolved, Position)>),
    /// Who wrote how far a webhook has got.
    Delivery(oneshot::Sender<Reported>),
}

/// Counts that others may read.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) applied: AtomicU64,
    pub(crate) duplicate: AtomicU64,
    pub(crate) parked: AtomicU64,
    /// In the order of [`CommandVerdict::ALL`].
    pub(crate) commands: [AtomicU64; CommandVerdict::ALL.len()],
    pub(crate) ids_remembered: AtomicU64,
    pub(crate) id_bytes: AtomicU64,
    /// Microseconds; -1: none have been forgotten.
    pub(crate) forgotten_before_us: AtomicI64,
}

pub(crate) struct Sequencer {
    pub(crate) instance: u64,
    pub(crate) shards: Vec<ShardQueue>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) parked: Arc<ParkedList>,
    pub(crate) authority: Arc<AuthorityBook>,
    pub(crate) reports: Arc<ReportBook>,
    pub(crate) deliveries: Arc<DeliveryBook>,
    pub(crate) locations: Arc<Locations>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) horizon: Horizon,
}

/// What the sequencer knows at a position of the log.
pub(crate) struct State {
    pub(super) admission: Admission,
    pub(super) position: Position,
    pub(super) rules: Arc<RulesInForce>,
    pub(super) authority: Arc<AuthorityInForce>,
    pub(super) permissions: Permissions,
    pub(super) commands: Commands,
    pub(super) saving: Option<Outlet>,
}

impl Sequencer {
    /// What is known before the first position.
    pub(crate) fn begin(&self) -> State {
        self.tally.forgotten_before_us.store(-1, Relaxed);
        let authority = Arc::new(AuthorityInForce::built_in());
        State {
            admission: Admission::new(self.horizon),
            position: 0,
            rules: Arc::new(RulesInForce::built_in()),
            permissions: Permissions::new(Arc::clone(&authority.authority)),
            authority,
            commands: Commands::new(self.horizon),
            saving: None,
        }
    }

    /// Takes one step.
    pub(crate) fn step(&self, state: &mut State, step: Step) -> Result<(), Stopped> {
        match step {
            Step::Decoded(Decoded::Facts(facts)) => self.facts(state, &facts),
            Step::Decoded(Decoded::Commands(at, commands)) => self.commands(state, at, &commands),
            Step::Decoded(Decoded::Rules(at, put)) => self.rules(state, at, put),
            Step::Decoded(Decoded::Authority(at, put)) => self.authority(state, at, put),
            Step::Decoded(Decoded::Resolve(at, resolve)) => self.resolve(state, at, *resolve),
            Step::Decoded(Decoded::Comparison(at, found)) => self.comparison(state, at, *found),
            Step::Decoded(Decoded::Delivery(at, progress)) => self.delivery(state, at, progress),
            Step::Decoded(Decoded::Republish(at, republish)) => {
                self.republish(state, at, &republish)
            }
            Step::Audit(answer) => self.audit(state, answer),
            Step::Inspect(id, answer) => self.inspect(state, &id, answer),
            Step::Compare(comparing, answer) => self.compare(state, comparing, answer),
            Step::Cut(answer) => self.cut(state, answer),
            Step::Recent(answer) => self.recent(state, answer),
            Step::Checkpoint(take) => self.checkpoint(state, take),
        }
    }

    /// The log went on to here.
    pub(super) fn advance(&self, state: &mut State, at: At) {
        state.position = at.position;
        state.admission.advance(at.time_us);
    }

    fn facts(&self, state: &mut State, facts: &Facts) -> Result<(), Stopped> {
        let names: Arc<str> = facts.names.as_str().into();
        let mut batches: Vec<Batch> = (0..self.shards.len())
            .map(|_| Batch {
                jobs: Vec::with_capacity(facts.items.len() / self.shards.len() + 16),
                names: Arc::clone(&names),
                ..Batch::default()
            })
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
                        batches[shard].jobs.push(Job {
                            posting: item.posting,
                            names: item.names,
                        });
                    } else if duplicate {
                        counts[1] += 1;
                    } else {
                        counts[2] += 1;
                    }
                    set(&mut outcomes, item.index, (outcome, duplicate));
                }
            }
            for batch in &mut batches {
                batch.end_entry(group.time_us);
            }
            if let Some(Waiting::Movements(counts, told)) = waiting {
                effects.push(Effect::Answer(told, receipts(&counts, outcomes, group)));
            }
            state.position = group.position;
        }
        self.count(state, counts);
        let completion = self.completion(state, effects);
        for (shard, mut batch) in self.shards.iter().zip(batches) {
            batch.forgotten_before_us = state.admission.forgotten_before_us();
            let work = Work::Apply(batch, Arc::clone(&completion));
            shard.hand_over(work)?;
        }
        Ok(())
    }

    #[inline]
    fn admit(&self, state: &mut State, head: &Head, item: &Item) -> (Outcome, bool) {
        let may = self.may(state, item);
        if (!may || item.lacks_disposition) && !state.admission.is_repeat(item.key, item.content) {
            let kind = if may {
                ParkedKind::UnknownDisposition
            } else {
                ParkedKind::UnauthorizedSource
            };
            let mut parked = head.park(item, kind);
            if !may {
                let location = item.acts_at.map(|at| self.locations.name(at));
                let source = self.sources.name(Loc(item.source));
                let refusal = state
                    .authority
                    .authority
                    .refusal(source, item.kind, location);
                parked.reason = format!("{refusal}; {UNLESS_RIGHT}");
            }
            self.parked.park(parked);
            return (Outcome::Parked(kind), false);
        }
        let verdict = state
            .admission
            .admit(item.key, item.content, item.known_after_us);
        match verdict {
            Verdict::Apply => (Outcome::Applied, false),
            Verdict::Repeat(outcome) => (outcome.into(), true),
            Verdict::Park(kind) => {
                self.parked.park(head.park(item, kind));
                (Outcome::Parked(kind), false)
            }
        }
    }

    #[inline]
    fn may(&self, state: &mut State, item: &Item) -> bool {
        if state.authority.authority.is_open() {
            return true;
        }
        let source = self.sources.name(Loc(item.source));
        let location = item.acts_at.map(|at| (at.0, self.locations.name(at)));
        state
            .permissions
            .may(item.source, source, location, item.kind)
    }

    fn commands(&self, state: &mut State, at: At, commands: &[Asked]) -> Result<(), Stopped> {
        self.advance(state, at);
        let place = Place {
            position: at.position,
            time_us: state.admission.now_us(),
            rules: &state.rules.rules,
            locations: &self.locations,
            shards: self.shards.len(),
        };
        let told = match self.waiting_for(Some(at.origin)) {
            Some(Waiting::Commands(told)) => Some(told),
            _ => None,
        };
        let mut todo = Vec::with_capacity(commands.len());
        let mut decisions = Vec::with_capacity(commands.len());
        for command in commands {
            let (decision, command) = state.commands.decide(command, &place);
            todo.extend(command);
            decisions.push(decision);
        }
        let tally = Arc::clone(&self.tally);
        let tell = move || {
            for decision in &decisions {
                tally.commands[decision.verdict() as usize].fetch_add(1, Relaxed);
            }
            // Who asked puts it into words, not the writer.
            if let Some(told) = told {
                let _ = told.send(decisions.into_iter().map(Some).collect());
            }
        };
        let completion = self.completion(state, vec![Effect::Tell(Box::new(tell))]);
        let todo: Arc<[_]> = todo.into();
        self.to_all(|| Work::Commands(Arc::clone(&todo), Arc::clone(&completion)))
    }

    fn inspect(
        &self,
        state: &State,
        id: &str,
        answer: oneshot::Sender<Option<ReservationView>>,
    ) -> Result<(), Stopped> {
        let Some((reservation, confirmed, until_us)) = state.commands.reservation(id) else {
            // Who gave up waiting is not there any more.
            let _ = answer.send(None);
            return Ok(());
        };
        let inspection = Arc::new(Inspection {
            lines: reservation.lines.iter().map(|_| OnceLock::new()).collect(),
            reservation,
        });
        let (position, time_us) = (state.position, state.admission.now_us());
        let told = Arc::clone(&inspection);
        let tell = move || {
            let lines = told.lines.iter().map(|line| {
                let told = line.get().cloned();
                told.expect("every line is in a shard, and every shard has told")
            });
            let _ = answer.send(Some(ReservationView {
                lines: lines.collect(),
                reservation: Arc::clone(&told.reservation),
                confirmed,
                until_us,
                position,
                time_us,
            }));
        };
        let completion = self.completion(state, vec![Effect::Tell(Box::new(tell))]);
        self.to_all(|| Work::Inspect(Arc::clone(&inspection), Arc::clone(&completion)))
    }

    fn rules(&self, state: &mut State, at: At, put: pb::RulesPut) -> Result<(), Stopped> {
        self.advance(state, at);
        let position = at.position;
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
        if let Some(Waiting::Document(caller)) = self.waiting_for(Some(at.origin)) {
            effects.push(Effect::AnswerRules(caller, state.rules.version));
        }
        let completion = self.completion(state, effects);
        if !takes_effect {
            return self.nothing(&completion);
        }
        self.to_all(|| Work::Rules(Arc::clone(&state.rules), Arc::clone(&completion)))
    }

    fn authority(&self, state: &mut State, at: At, put: pb::AuthorityPut) -> Result<(), Stopped> {
        self.advance(state, at);
        let position = at.position;
        match state
            .authority
            .after(put, position, state.admission.now_us())
        {
            Ok(Some(authority)) => {
                state.authority = Arc::new(authority);
                state.permissions = Permissions::new(Arc::clone(&state.authority.authority));
                self.authority.put(Arc::clone(&state.authority));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(position, %error, "an authority record cannot be read: no effect");
            }
        }
        let mut effects = Vec::new();
        if let Some(Waiting::Document(caller)) = self.waiting_for(Some(at.origin)) {
            effects.push(Effect::AnswerRules(caller, state.authority.version));
        }
        self.nothing(&self.completion(state, effects))
    }

    /// What a comparison found is in force at its record, part by part; its report can be read once
    /// all of them are.
    fn comparison(&self, state: &mut State, at: At, found: pb::Comparison) -> Result<(), Stopped> {
        self.advance(state, at);
        let statements = reports::statements(&found);
        // Before the position is reached, so that who waits for that finds it.
        self.reports
            .take(found, at.position, state.admission.now_us());
        if statements.is_empty() {
            return self.nothing(&self.completion(state, Vec::new()));
        }
        self.statements(state, statements, Vec::new())
    }

    /// How far a webhook has got, and whose it is.
    fn delivery(
        &self,
        state: &mut State,
        at: At,
        progress: pb::DeliveryProgress,
    ) -> Result<(), Stopped> {
        self.advance(state, at);
        let (instance, _) = at.origin;
        // Before the position is reached, so that who waits for that finds it.
        let reported = self
            .deliveries
            .take(progress, instance, state.admission.now_us());
        let mut effects = Vec::new();
        if let Some(Waiting::Delivery(caller)) = self.waiting_for(Some(at.origin)) {
            // Who gave up waiting looks into the book.
            let tell = move || {
                let _ = caller.send(reported);
            };
            effects.push(Effect::Tell(Box::new(tell)));
        }
        self.nothing(&self.completion(state, effects))
    }

    /// Published numbers are to be delivered once more.
    fn republish(
        &self,
        state: &mut State,
        at: At,
        republish: &pb::Republish,
    ) -> Result<(), Stopped> {
        self.advance(state, at);
        let mut effects = Vec::new();
        if let Some(Waiting::Document(caller)) = self.waiting_for(Some(at.origin)) {
            effects.push(Effect::AnswerRules(caller, at.position));
        }
        let completion = self.completion(state, effects);
        let Some(channel) = state.rules.rules.channel(&republish.channel) else {
            return self.nothing(&completion);
        };
        let mut skus: Republishing = vec![Vec::new(); self.shards.len()];
        for sku in &republish.skus {
            skus[SkuHash::of(sku).shard(self.shards.len())].push(sku.as_str().into());
        }
        let skus = Arc::new(skus);
        self.to_all(|| Work::Republish(channel, Arc::clone(&skus), Arc::clone(&completion)))
    }

    fn cut(&self, state: &State, answer: oneshot::Sender<Cut>) -> Result<(), Stopped> {
        let cutting = Arc::<Cutting>::default();
        let (rules, told) = (Arc::clone(&state.rules), Arc::clone(&cutting));
        let (position, time_us) = (state.position, state.admission.now_us());
        let tell = move || {
            let mut changes = told.changes.lock().unwrap_or_else(PoisonError::into_inner);
            // Who gave up waiting has gone with the feeds.
            let _ = answer.send(Cut {
                position,
                time_us,
                rules,
                changes: std::mem::take(&mut *changes),
                is_complete: !told.has_more.load(Relaxed),
            });
        };
        let completion = self.completion(state, vec![Effect::Tell(Box::new(tell))]);
        self.to_all(|| Work::Cut(Arc::clone(&cutting), Arc::clone(&completion)))
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
        self.to_all(|| Work::Audit(Arc::clone(&sum), Arc::clone(&completion)))
    }

    fn compare(
        &self,
        state: &State,
        comparing: Arc<Comparing>,
        answer: oneshot::Sender<Result<Position, TimeUs>>,
    ) -> Result<(), Stopped> {
        let as_of = comparing.as_of();
        let from_us = as_of.us.saturating_sub(as_of.tolerance_us);
        if state.admission.is_stale(from_us) {
            let before_us = state.admission.forgotten_before_us().unwrap_or_default();
            // Who gave up waiting is not there any more.
            let _ = answer.send(Err(before_us + AHEAD_US_MAX));
            return Ok(());
        }
        let position = state.position;
        let tell = move || {
            let _ = answer.send(Ok(position));
        };
        let completion = self.completion(state, vec![Effect::Tell(Box::new(tell))]);
        self.to_all(|| Work::Compare(Arc::clone(&comparing), Arc::clone(&completion)))
    }

    fn recent(
        &self,
        state: &State,
        answer: oneshot::Sender<Vec<RecentView>>,
    ) -> Result<(), Stopped> {
        let views = Arc::<Mutex<Vec<RecentView>>>::default();
        let shown = Arc::clone(&views);
        let tell = move || {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = answer.send(std::mem::take(&mut *shown));
        };
        let completion = self.completion(state, vec![Effect::Tell(Box::new(tell))]);
        self.to_all(|| Work::Recent(Arc::clone(&views), Arc::clone(&completion)))
    }

    /// Gives the shards what a comparison found.
    pub(super) fn statements(
        &self,
        state: &State,
        statements: Vec<Statement>,
        effects: Vec<Effect>,
    ) -> Result<(), Stopped> {
        let statements = by_shard(statements, self.shards.len(), &self.locations);
        let statements = Arc::new(statements);
        let forgotten_us = state.admission.forgotten_before_us();
        let completion = self.completion(state, effects);
        self.to_all(|| {
            Work::Statements(
                Arc::clone(&statements),
                forgotten_us,
                Arc::clone(&completion),
            )
        })
    }

    /// Every shard is told that the log went on, and nothing else.
    pub(super) fn nothing(&self, completion: &Arc<Completion>) -> Result<(), Stopped> {
        self.to_all(|| Work::Apply(Batch::default(), Arc::clone(completion)))
    }

    pub(super) fn to_all(&self, work: impl Fn() -> Work) -> Result<(), Stopped> {
        for shard in &self.shards {
            shard.hand_over(work())?;
        }
        Ok(())
    }

    pub(super) fn waiting_for(&self, origin: Option<(u64, u64)>) -> Option<Waiting> {
        let (_, token) = origin.filter(|(instance, _)| *instance == self.instance)?;
        self.pending.remove(token)
    }

    pub(super) fn completion(&self, state: &State, effects: Vec<Effect>) -> Arc<Completion> {
        Completion::new(
            self.shards.len(),
            state.position,
            state.admission.now_us(),
            effects,
            &self.shared,
        )
    }

    pub(super) fn count(&self, state: &State, [applied, duplicate, parked]: [u64; 3]) {
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

/// What helps against a movement that its source may not post.
const UNLESS_RIGHT: &str =
    "release it if it is right, or correct the source authority and send it again";

/// A shard has ended: the instance is stopping.
#[derive(Debug)]
pub(crate) struct Stopped;

impl From<queue::Ended> for Stopped {
    fn from(_: queue::Ended) -> Self {
        Self
    }
}

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
fn receipts(
    counts: &[usize],
    outcomes: Vec<Option<(Outcome, bool)>>,
    head: &Head,
) -> Vec<Option<Receipt>> {
    let mut outcomes = outcomes.into_iter();
    let receipt = |count: &usize| {
        let share: Option<Vec<_>> = outcomes.by_ref().take(*count).collect();
        // A record of ours that cannot be read whole.
        let outcomes = share.filter(|share| share.len() == *count)?;
        Some(Receipt {
            position: head.position,
            time_us: head.time_us,
            outcomes,
        })
    };
    counts.iter().map(receipt).collect()
}
