//! The view: what readers see. Reading takes no lock and never makes a writer wait.

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::Guard as RulesGuard;
use crossbeam::epoch::{self, Guard};
use smallvec::SmallVec;

use super::{
    block::{Block, LINES_TO_QUERY},
    books::Counts,
    index::Index,
    locations::Locations,
    progress::Progress,
    rulebook::{Rulebook, RulesInForce},
    worker::Shared,
};
use crate::{
    domain::{
        balances::{Account, Balances, Loc, LocationNames},
        keys::SkuHash,
        movement::TimeUs,
        rules::{ChangeTally, ChannelIx, Memberships, Policy, Rules, channel_pairs},
    },
    limits::PREFETCH_QUERIES,
    log::Position,
};

/// What readers see of all shards.
pub struct View {
    shards: Box<[(Arc<Index>, Arc<Counts>)]>,
    locations: Arc<Locations>,
    shared: Arc<Shared>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// SKUs known.
    pub skus: u64,
    /// Cells known.
    pub cells: u64,
    /// Locations known.
    pub locations: u64,
    /// Lines followed: of orders, inbound deliveries, transfers and returns.
    pub order_lines: u64,
    /// Bytes of the blocks and of the index.
    pub bytes: u64,
}

/// Every term of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// False if no movement ever named this SKU.
    pub known: bool,
    /// Every location that has the SKU: those that the channel sells from by priority, then the
    /// others by name.
    pub locations: Vec<LocationTerm>,
    /// Sum of what the locations contribute.
    pub sum: i64,
    /// The channel's terms for this SKU.
    pub policy: Policy,
    /// The key of the override that applied.
    pub override_by: Option<String>,
    /// Units that the channel may sell.
    pub ats: i64,
}

/// What one location contributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationTerm {
    /// The location.
    pub location: String,
    /// Place in the channel's order of priority, from 1; 0 if it does not sell from here.
    pub priority: u32,
    /// The balances.
    pub balances: Balances,
    /// Units withheld.
    pub withheld: i64,
    /// Units contributed.
    pub available: i64,
}

type Cells = SmallVec<[(Loc, Balances); 8]>;

impl View {
    pub(crate) fn new(
        shards: impl Iterator<Item = (Arc<Index>, Arc<Counts>)>,
        locations: Arc<Locations>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            shards: shards.collect(),
            locations,
            shared,
        }
    }

    /// Begins to read: the position and the rules are those of now, the SKUs as they are when
    /// they are read, which includes at least that position.
    pub fn read(&self) -> Reading<'_> {
        Reading {
            view: self,
            position: self.progress().position(),
            time_us: self.progress().time_us(),
            rules: self.rulebook().in_force(),
            guard: epoch::pin(),
            memberships: RefCell::new(None),
        }
    }

    /// How far the log has been applied.
    pub fn progress(&self) -> &Progress {
        &self.shared.progress
    }

    /// The channel rules.
    pub fn rulebook(&self) -> &Rulebook {
        &self.shared.rulebook
    }

    /// The locations seen so far.
    pub fn locations(&self) -> &Locations {
        &self.locations
    }

    /// How much there is.
    pub fn sizes(&self) -> Sizes {
        let guard = epoch::pin();
        let mut sizes = Sizes {
            locations: self.locations.len() as u64,
            ..Sizes::default()
        };
        for (index, counts) in &self.shards {
            sizes.skus += counts.skus.load(Relaxed);
            sizes.cells += counts.cells.load(Relaxed);
            sizes.order_lines += counts.order_lines.load(Relaxed);
            sizes.bytes += counts.block_bytes.load(Relaxed) + index.bytes(&guard) as u64;
        }
        sizes
    }

    /// When something happens by itself next, by the log's time; [`TimeUs::MAX`]: never.
    pub fn next_timer_us(&self) -> TimeUs {
        let shards = self.shards.iter();
        let next = shards.map(|(_, counts)| counts.next_timer_us.load(Relaxed));
        next.min().unwrap_or(TimeUs::MAX)
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What other rules would change, by channel, in order of name. Walks over all cells; takes
    /// no lock.
    pub fn dry_run(&self, after: &Arc<Rules>) -> Vec<(String, ChangeTally)> {
        let reading = self.read();
        let before = &reading.rules.rules;
        let pairs = channel_pairs(before, after);
        let mut members_before = Memberships::new(Arc::clone(before));
        let mut members_after = Memberships::new(Arc::clone(after));
        let mut tallies: Vec<(String, ChangeTally)> = pairs
            .iter()
            .map(|pair| (pair.name.to_owned(), ChangeTally::default()))
            .collect();
        for (index, _) in &self.shards {
            index.for_each(&reading.guard, |block| {
                let cells = cells_of(block);
                for (pair, (_, tally)) in pairs.iter().zip(&mut tallies) {
                    let ats = |members: &mut Memberships, channel: Option<ChannelIx>| {
                        let ats = |channel| self.ats_of_cells(members, channel, block, &cells);
                        channel.map_or(0, ats)
                    };
                    let was = ats(&mut members_before, pair.before);
                    let becomes = ats(&mut members_after, pair.after);
                    tally.feed(block.name(), was, becomes);
                    let told = pair
                        .before
                        .filter(|channel| channel.index() < usize::from(block.shape().channels));
                    let published =
                        told.map_or(0, |channel| block.published(channel.index()).units);
                    let is_pushed = pair.after.is_some_and(|channel| {
                        let policy = after.policy(channel, block.name());
                        policy.is_worth_publishing(published, becomes)
                    });
                    tally.skus_published += u64::from(is_pushed);
                }
            });
        }
        tallies
    }

    /// What a channel may sell, from the cells and not from the sum that the writer keeps.
    fn ats_of_cells(
        &self,
        memberships: &mut Memberships,
        channel: ChannelIx,
        block: &Block,
        cells: &Cells,
    ) -> i64 {
        let rules = Arc::clone(memberships.rules());
        let policy = rules.policy(channel, block.name());
        let contribution = |(at, balances): &(Loc, Balances)| {
            memberships
                .of(at.0, self.locations.name(*at))
                .iter()
                .find(|member| member.channel == channel)
                .map_or(0, |member| {
                    member.contribution(
                        policy,
                        balances[Account::Good],
                        balances[Account::Reserved],
                    )
                })
        };
        policy.ats(cells.iter().map(contribution).sum())
    }
}

/// A reader at work. Short-lived: as long as it is there, outgrown memory is not freed.
pub struct Reading<'v> {
    view: &'v View,
    /// The position that what is read includes at least.
    pub position: Position,
    /// The log's time there.
    pub time_us: TimeUs,
    /// The rules by which it is read.
    pub rules: RulesGuard<Arc<RulesInForce>>,
    guard: Guard,
    /// Only made while the rules change.
    memberships: RefCell<Option<Memberships>>,
}

impl Reading<'_> {
    /// What a channel of these rules may sell of each SKU, in units; `None` if no movement ever
    /// named it. `answer` gets each SKU and what there is of it, in order.
    pub fn available<'s>(
        &self,
        channel: ChannelIx,
        mut skus: impl Iterator<Item = &'s str> + Clone,
        mut answer: impl FnMut(&'s str, Option<i64>),
    ) {
        let mut ahead = skus.clone();
        loop {
            // In waves, so that the cache misses of a group overlap.
            let mut hashes: [SkuHash; PREFETCH_QUERIES] = [SkuHash(0); PREFETCH_QUERIES];
            let mut count = 0;
            for (hash, sku) in hashes.iter_mut().zip(&mut ahead) {
                *hash = SkuHash::of(sku);
                self.index(*hash).prefetch_slot(*hash, &self.guard);
                count += 1;
            }
            if count > 1 {
                for hash in &hashes[..count] {
                    self.index(*hash)
                        .prefetch_block(*hash, LINES_TO_QUERY, &self.guard);
                }
            }
            for (hash, sku) in hashes[..count].iter().zip(&mut skus) {
                let block = self.index(*hash).get(*hash, sku, &self.guard);
                answer(sku, block.map(|block| self.ats(channel, block)));
            }
            if count < PREFETCH_QUERIES {
                return;
            }
        }
    }

    /// Every term of the answer for one SKU.
    pub fn explain(&self, channel: ChannelIx, sku: &str) -> Explanation {
        let rules = &self.rules.rules;
        let policy = rules.policy(channel, sku);
        let hash = SkuHash::of(sku);
        let block = self.index(hash).get(hash, sku, &self.guard);
        let cells = block.map(cells_of).unwrap_or_default();
        let mut ranked: Vec<(Option<u32>, LocationTerm)> = cells
            .iter()
            .map(|(at, balances)| self.term(channel, policy, *at, *balances))
            .collect();
        ranked.sort_by(|(rank, term), (other_rank, other)| {
            let last = u32::MAX;
            (rank.is_none(), rank.unwrap_or(last), &term.location).cmp(&(
                other_rank.is_none(),
                other_rank.unwrap_or(last),
                &other.location,
            ))
        });
        for (place, (_, term)) in ranked.iter_mut().filter(|(r, _)| r.is_some()).enumerate() {
            term.priority = place as u32 + 1;
        }
        let locations: Vec<LocationTerm> = ranked.into_iter().map(|(_, term)| term).collect();
        let sum = locations.iter().map(|term| term.available).sum();
        Explanation {
            known: block.is_some(),
            locations,
            sum,
            override_by: rules.override_key(channel, sku).map(str::to_owned),
            ats: policy.ats(sum),
            policy: policy.clone(),
        }
    }

    fn term(
        &self,
        channel: ChannelIx,
        policy: &Policy,
        at: Loc,
        balances: Balances,
    ) -> (Option<u32>, LocationTerm) {
        let name = self.view.locations.name(at);
        let memberships = self.rules.rules.memberships(name);
        let member = memberships
            .iter()
            .find(|member| member.channel == channel && member.sells(policy));
        let good = balances[Account::Good];
        let available = member.map_or(0, |member| {
            member.contribution(policy, good, balances[Account::Reserved])
        });
        let term = LocationTerm {
            location: name.to_owned(),
            priority: 0,
            balances,
            withheld: policy.withheld(good),
            available,
        };
        (member.map(|member| member.rank), term)
    }

    #[inline]
    fn index(&self, hash: SkuHash) -> &Index {
        &self.view.shards[hash.shard(self.view.shards.len())].0
    }

    #[inline]
    fn ats(&self, channel: ChannelIx, block: &Block) -> i64 {
        let rules = &self.rules;
        let sum = block.read(|| {
            let current = block.rules_epoch() == rules.epoch
                && channel.index() < usize::from(block.shape().channels);
            current.then(|| (block.sum(channel.index()), block.overridden()))
        });
        match sum {
            Some((sum, false)) => rules.rules.base_policy(channel).ats(sum),
            Some((sum, true)) => rules.rules.policy(channel, block.name()).ats(sum),
            // While the rules change, a block may still, or already, go by others: its sum says
            // nothing, its cells do.
            None => {
                let mut memberships = self.memberships.borrow_mut();
                let memberships =
                    memberships.get_or_insert_with(|| Memberships::new(Arc::clone(&rules.rules)));
                self.view
                    .ats_of_cells(memberships, channel, block, &cells_of(block))
            }
        }
    }
}

/// All cells of a block, as they belong together.
fn cells_of(block: &Block) -> Cells {
    block.read(|| {
        (0..block.cells())
            .map(|cell| (block.location(cell), block.balances(cell)))
            .collect()
    })
}

mod cells;
mod published;

pub use published::NotReadable;
#[cfg(test)]
mod tests;
