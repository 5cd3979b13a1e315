//! What a person decided about an exception takes effect.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{
    decode::{At, Item, Resolve},
    sequencer::{Sequencer, State, Stopped, Waiting},
};
use crate::{
    domain::{
        admission::Verdict,
        exceptions::{Acknowledged, ExceptionId, ParkedKind},
        movement::TimeUs,
        posting,
    },
    proto::v1::{self as pb, Resolution},
    shard::worker::{Acknowledgement, Batch, Effect, Job, Work},
};

/// What became of such a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// It took effect.
    Done,
    /// No such exception is open.
    NotFound,
    /// It cannot be resolved like this.
    Refused(String),
}

impl Sequencer {
    pub(super) fn resolve(
        &self,
        state: &mut State,
        at: At,
        Resolve { resolve, movement }: Resolve,
    ) -> Result<(), Stopped> {
        self.advance(state, at);
        let caller = match self.waiting_for(Some(at.origin)) {
            Some(Waiting::Resolve(caller)) => Some(caller),
            _ => None,
        };
        let id = u128::from_str_radix(&resolve.exception, 16).map(ExceptionId);
        let Ok(id) = id else {
            return self.resolved(state, caller, Resolved::NotFound, None);
        };
        if resolve.resolution() == Resolution::Acknowledge {
            return self.acknowledge(state, caller, id, &resolve);
        }
        let Some(kind) = self.parked.kind(id) else {
            return self.resolved(state, caller, Resolved::NotFound, None);
        };
        if resolve.resolution() != Resolution::Release {
            self.parked.close(id);
            return self.resolved(state, caller, Resolved::Done, None);
        }
        let released = movement.and_then(|(item, names)| {
            let apply = may_release(state, kind, &item)?;
            Ok(apply.then_some((item, names)))
        });
        match released {
            Ok(movement) => {
                self.parked.close(id);
                self.resolved(state, caller, Resolved::Done, movement)
            }
            Err(reason) => self.resolved(state, caller, Resolved::Refused(reason), None),
        }
    }

    /// Answers, and applies the movement that was released, if there is one.
    fn resolved(
        &self,
        state: &State,
        caller: Option<Caller>,
        resolved: Resolved,
        movement: Option<(Item, String)>,
    ) -> Result<(), Stopped> {
        let position = state.position;
        let tell = caller.map(|caller| {
            let tell = move || {
                // Who gave up waiting looks again.
                let _ = caller.send((resolved, position));
            };
            Effect::Tell(Box::new(tell))
        });
        self.count(state, [u64::from(movement.is_some()), 0, 0]);
        let completion = self.completion(state, tell.into_iter().collect());
        let Some((item, names)) = movement else {
            return self.nothing(&completion);
        };
        let mut batch = Batch {
            jobs: vec![Job {
                posting: item.posting,
                names: item.names,
            }],
            names: names.into(),
            ..Batch::default()
        };
        batch.end_entry(state.admission.now_us());
        let owner = item.posting.sku.shard(self.shards.len());
        for (number, shard) in self.shards.iter().enumerate() {
            let batch = if number == owner {
                std::mem::take(&mut batch)
            } else {
                Batch::default()
            };
            let work = Work::Apply(batch, Arc::clone(&completion));
            shard.hand_over(work)?;
        }
        Ok(())
    }

    fn acknowledge(
        &self,
        state: &State,
        caller: Option<Caller>,
        id: ExceptionId,
        resolve: &pb::ResolveException,
    ) -> Result<(), Stopped> {
        let acknowledged = acknowledged(resolve, state.admission.now_us());
        if self.parked.acknowledge(id, acknowledged.clone()) {
            return self.resolved(state, caller, Resolved::Done, None);
        }
        let acknowledgement = Arc::new(Acknowledgement {
            id,
            acknowledged,
            found: AtomicBool::new(false),
        });
        let position = state.position;
        let told = Arc::clone(&acknowledgement);
        let tell = caller.map(|caller| {
            let tell = move || {
                let resolved = if told.found.load(Relaxed) {
                    Resolved::Done
                } else {
                    Resolved::NotFound
                };
                let _ = caller.send((resolved, position));
            };
            Effect::Tell(Box::new(tell))
        });
        let completion = self.completion(state, tell.into_iter().collect());
        self.to_all(|| Work::Acknowledge(Arc::clone(&acknowledgement), Arc::clone(&completion)))
    }
}

type Caller = tokio::sync::oneshot::Sender<(Resolved, crate::log::Position)>;

fn acknowledged(resolve: &pb::ResolveException, at_us: TimeUs) -> Acknowledged {
    Acknowledged {
        actor: resolve.actor.clone(),
        at_us,
        note: resolve.note.clone(),
    }
}

/// Whether a parked movement is to be applied now; false: it has been already.
///
/// One that conflicts, or that is stale, is applied because a person says that it is right: its id
/// says nothing any more. The others go through the gate like any movement that arrives now, so
/// that one which its source has meanwhile sent again does not count twice.
fn may_release(state: &mut State, kind: ParkedKind, item: &Item) -> Result<bool, String> {
    if item.lacks_disposition {
        return Err("it has no disposition that is known; release it with one".into());
    }
    if matches!(item.posting.effect, posting::Effect::Count { .. })
        && state.admission.is_stale(item.known_after_us)
    {
        return Err(
            "what occurred after this count is no longer known in full; discard it, and \
                    count again"
                .into(),
        );
    }
    if matches!(kind, ParkedKind::ConflictingDuplicate | ParkedKind::Stale) {
        return Ok(true);
    }
    let admission = &mut state.admission;
    match admission.admit(item.key, item.content, admission.now_us()) {
        Verdict::Apply => Ok(true),
        Verdict::Repeat(_) => Ok(false),
        Verdict::Park(_) => Err(
            "its id was applied with other content by now; discard it, or post \
             it under another id"
                .into(),
        ),
    }
}
