//! Open exceptions of all shards, and parked movements, as one list: oldest first.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::{
        exceptions::{ExceptionId, Open, OpenExceptions, ParkedKind, StateKind},
        movement::TimeUs,
    },
    intake::{Parked, ParkedList},
};

/// See the module.
#[derive(Debug)]
pub struct ExceptionsDesk {
    parked: Arc<ParkedList>,
    shards: Vec<Arc<Mutex<OpenExceptions>>>,
}

/// Which exceptions are asked for; an empty one takes all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these kinds, if any is named here or in `state_kinds`.
    pub parked_kinds: Vec<ParkedKind>,
    /// Of these kinds, if any is named here or in `parked_kinds`.
    pub state_kinds: Vec<StateKind>,
    /// About this SKU.
    pub sku: String,
    /// About this location.
    pub location: String,
    /// Parked, of this source.
    pub source: String,
    /// Not acknowledged.
    pub unacknowledged_only: bool,
}

/// One exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenOrParked {
    /// A function of the state.
    Open(Open),
    /// A parked movement.
    Parked(Parked),
}

/// Where a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageToken(pub TimeUs, pub ExceptionId);

impl std::fmt::Display for PageToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.0, self.1)
    }
}

impl FromStr for PageToken {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (us, id) = text.split_once('-').unwrap_or((text, ""));
        let id = u128::from_str_radix(id, 16)?;
        Ok(Self(TimeUs::from_str_radix(us, 16)?, ExceptionId(id)))
    }
}

impl Filter {
    fn takes_all_kinds(&self) -> bool {
        self.parked_kinds.is_empty() && self.state_kinds.is_empty()
    }

    /// Whether this kind is asked for.
    pub fn takes_parked(&self, kind: ParkedKind) -> bool {
        self.takes_all_kinds() || self.parked_kinds.contains(&kind)
    }

    /// Whether this kind is asked for.
    pub fn takes_state(&self, kind: StateKind) -> bool {
        self.takes_all_kinds() || self.state_kinds.contains(&kind)
    }

    fn takes(&self, open: &Open) -> bool {
        let same = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        self.takes_state(open.kind)
            && same(&self.sku, &open.subject.sku)
            && same(&self.location, &open.subject.location)
            && self.source.is_empty()
            && !(self.unacknowledged_only && open.acknowledged.is_some())
    }

    fn takes_movement(&self, parked: &Parked) -> bool {
        // What a parked movement is about is in its bytes, which may not be readable.
        self.takes_parked(parked.kind)
            && self.sku.is_empty()
            && self.location.is_empty()
            && (self.source.is_empty() || self.source == parked.source)
            && !(self.unacknowledged_only && parked.acknowledged.is_some())
    }
}

impl ExceptionsDesk {
    pub(super) fn new(
        parked: Arc<ParkedList>,
        shards: impl Iterator<Item = Arc<Mutex<OpenExceptions>>>,
    ) -> Self {
        Self {
            parked,
            shards: shards.collect(),
        }
    }

    /// The parked movements.
    pub fn parked(&self) -> &ParkedList {
        &self.parked
    }

    /// Those that `filter` takes after the one at `after`, oldest first: at most `max`, and at most
    /// `bytes_max` of originals.
    pub fn page(
        &self,
        filter: &Filter,
        after: Option<PageToken>,
        max: usize,
        bytes_max: usize,
    ) -> Vec<(PageToken, OpenOrParked)> {
        let after = after.map(|PageToken(us, id)| (us, id));
        let parked = self.parked.page(after, max, bytes_max, |parked| {
            filter.takes_movement(parked)
        });
        // A page that was cut for its bytes ends there: what comes later is on the next one.
        let cut = (parked.len() < max)
            .then(|| parked.last().map(|(place, _)| *place))
            .flatten()
            .filter(|last| {
                let takes = |parked: &Parked| filter.takes_movement(parked);
                !self.parked.page(Some(*last), 1, 0, takes).is_empty()
            });
        let mut page: Vec<(PageToken, OpenOrParked)> = parked
            .into_iter()
            .map(|((us, id), parked)| (PageToken(us, id), OpenOrParked::Parked(parked)))
            .collect();
        for shard in &self.shards {
            let open = lock(shard);
            let open = open.after(after).filter(|(_, open)| filter.takes(open));
            page.extend(
                open.take(max).map(|((us, id), open)| {
                    (PageToken(*us, *id), OpenOrParked::Open(open.clone()))
                }),
            );
        }
        page.sort_unstable_by_key(|(place, _)| *place);
        page.truncate(max);
        if let Some((us, id)) = cut {
            page.retain(|(place, _)| *place <= PageToken(us, id));
        }
        page
    }

    /// Whether an exception is open.
    pub fn contains(&self, id: ExceptionId) -> bool {
        self.parked.kind(id).is_some() || self.shards.iter().any(|shard| lock(shard).contains(id))
    }

    /// All that are functions of the state, by identity.
    pub fn all_open(&self) -> BTreeMap<ExceptionId, Open> {
        let mut all = BTreeMap::new();
        for shard in &self.shards {
            let open = lock(shard);
            all.extend(open.after(None).map(|((_, id), open)| (*id, open.clone())));
        }
        all
    }

    /// By kind: how many are open.
    pub fn counts(&self) -> BTreeMap<StateKind, u64> {
        let mut counts = BTreeMap::new();
        for shard in &self.shards {
            for (kind, count) in lock(shard).counts() {
                *counts.entry(*kind).or_default() += count;
            }
        }
        counts
    }

    /// By kind: when the oldest was first seen.
    pub fn oldest(&self) -> BTreeMap<StateKind, TimeUs> {
        let mut oldest: BTreeMap<StateKind, TimeUs> = BTreeMap::new();
        for shard in &self.shards {
            for (kind, us) in lock(shard).oldest() {
                let known = oldest.entry(kind).or_insert(us);
                *known = us.min(*known);
            }
        }
        oldest
    }
}

fn lock(shard: &Mutex<OpenExceptions>) -> MutexGuard<'_, OpenExceptions> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
