//! The books of a shard: balances by SKU in blocks that can be read while they are written, and
//! for each channel the sum of what its locations contribute.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use crossbeam::epoch::{self, Guard};
use smallvec::SmallVec;

use super::{
    block::{Block, LINES_TO_POST, Shape, cells_that_fit},
    changes::{Cause, Change, Changes, Published, UNITS_MAX},
    index::Index,
    locations::Locations,
    rulebook::RulesInForce,
};
use crate::domain::{
    balances::{Account, Balances, Loc, LocationNames},
    digest::{Digest, Digester},
    keys::SkuHash,
    ledger::{Books, CellChange, Posted},
    movement::TimeUs,
    recent::Trail,
    reserve::{Offer, Offers},
    rules::{ChannelIx, Membership, Memberships, Policy, Rules},
};

/// Counts that others may read while the writer works.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) skus: AtomicU64,
    pub(crate) cells: AtomicU64,
    pub(crate) block_bytes: AtomicU64,
    pub(crate) order_lines: AtomicU64,
    /// When something happens by itself next; `TimeUs::MAX`: never.
    pub(crate) next_timer_us: AtomicI64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            skus: AtomicU64::new(0),
            cells: AtomicU64::new(0),
            block_bytes: AtomicU64::new(0),
            order_lines: AtomicU64::new(0),
            next_timer_us: AtomicI64::new(TimeUs::MAX),
        }
    }
}

/// What a walk over all cells finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audit {
    /// Digest of what was walked over.
    pub digest: Digest,
    /// Cells with anything in them.
    pub cells: u64,
    /// Followed lines of orders, inbound deliveries, transfers and returns.
    pub order_lines: u64,
    /// SKUs whose physical balances are not what came in less what went out: a bug.
    pub conservation_violations: u64,
    /// Units physically there.
    pub units: i64,
}

impl std::ops::AddAssign for Audit {
    fn add_assign(&mut self, other: Self) {
        self.digest += other.digest;
        self.cells += other.cells;
        self.order_lines += other.order_lines;
        self.conservation_violations += other.conservation_violations;
        self.units += other.units;
    }
}

/// See the module.
pub(crate) struct ShardBooks {
    index: Arc<Index>,
    desk: Desk,
}

/// All that the writer needs beside the index.
struct Desk {
    locations: Arc<Locations>,
    rules: Arc<RulesInForce>,
    memberships: Memberships,
    counts: Arc<Counts>,
    saving: Saving,
    changes: Changes,
}

impl ShardBooks {
    pub(crate) fn new(index: Arc<Index>, locations: Arc<Locations>, counts: Arc<Counts>) -> Self {
        let rules = Arc::new(RulesInForce::built_in());
        let desk = Desk {
            locations,
            memberships: Memberships::new(Arc::clone(&rules.rules)),
            rules,
            counts,
            saving: Saving::default(),
            changes: Changes::default(),
        };
        Self { index, desk }
    }

    /// Makes all sums anew by other rules, and publishes what changes with them. Readers go on
    /// meanwhile.
    pub(crate) fn put_rules(&mut self, rules: Arc<RulesInForce>) {
        let published = match rules.rules.has_publish_steps() {
            true => rules.rules.channel_count(),
            false => 0,
        };
        if self.desk.saving.published + published > 0 {
            // What is being saved has the published numbers, and the channels, of the rules before.
            self.save_all();
        }
        let Self { index, desk } = self;
        desk.saving.published = published;
        let carried = Carried::between(&desk.rules.rules, &rules.rules);
        desk.changes.renumber(|channel| carried.now(channel));
        desk.memberships = Memberships::new(Arc::clone(&rules.rules));
        desk.rules = rules;
        let channels = desk.channels();
        let mut outgrown = Vec::new();
        index.for_each(&epoch::pin(), |block| {
            if block.shape().channels < channels {
                outgrown.push(block.copy(Shape {
                    channels,
                    ..block.shape()
                }));
            } else {
                block.write(|| desk.make_anew(block, &carried));
            }
        });
        for block in outgrown {
            // SAFETY: just allocated, and handed over below.
            desk.make_anew(unsafe { block.as_ref() }, &carried);
            desk.put_in_place(index, block);
        }
    }

    /// From here on, changes of published numbers are kept until they are taken.
    pub(crate) fn keep_changes(&mut self) {
        self.desk.changes.are_taken = true;
    }

    /// What happens from here on has this cause.
    #[inline]
    pub(crate) fn because(&mut self, cause: Cause) {
        self.desk.changes.cause = cause;
    }

    /// Takes changes of published numbers, so many or a few more. True if that is all.
    pub(crate) fn take_changes(&mut self, max: usize, taken: &mut Vec<Change>) -> bool {
        let Self { index, desk } = self;
        // SAFETY: as in `post`.
        let guard = unsafe { epoch::unprotected() };
        for _ in 0..max {
            let Some(waiting) = desk.changes.pop() else {
                return true;
            };
            let channel = waiting.channel.index();
            index.for_each_hashed(waiting.sku, guard, |block| {
                let published = block.published(channel);
                block.set_published(channel, Published::taken(published.units));
                if !published.waits && waiting.before.is_some() {
                    return;
                }
                // Who read the state in between was told another number: a number that came back
                // is told, too, but it is no step from there to here.
                let before = waiting.before.filter(|before| *before != published.units);
                taken.push(Change {
                    channel: waiting.channel,
                    sku: block.name().into(),
                    before,
                    units: published.units,
                    logged_us: waiting.cause.logged_us,
                    occurred_us: waiting.cause.occurred_us,
                });
            });
        }
        desk.changes.is_empty()
    }

    /// The published number of a SKU is to be delivered once more. False if no movement ever named
    /// it.
    pub(crate) fn republish(&mut self, channel: ChannelIx, sku: SkuHash, name: &str) -> bool {
        let Self { index, desk } = self;
        // SAFETY: as in `post`.
        let guard = unsafe { epoch::unprotected() };
        let is_known = index.get(sku, name, guard).is_some();
        if is_known && desk.changes.are_taken {
            desk.changes.push(sku, channel, None);
        }
        is_known
    }

    /// What a channel may sell of a SKU and which of its locations offer how much of it, less what
    /// is `taken` already; `None` if no movement ever named the SKU. With `only`, no other
    /// location's offer is told.
    pub(crate) fn offers(
        &mut self,
        sku: SkuHash,
        name: &str,
        channel: ChannelIx,
        only: Option<Loc>,
        taken: &[(Loc, i64)],
    ) -> Option<Offers> {
        let Self { index, desk } = self;
        // SAFETY: as in `post`.
        let block = index.get(sku, name, unsafe { epoch::unprotected() })?;
        let policy = policy_of(&desk.rules.rules, channel, block, block.overridden());
        let offer = |cell: usize| {
            let (at, mut balances) = (block.location(cell), block.balances(cell));
            for (loc, units) in taken {
                if *loc == at {
                    balances[Account::Reserved] += units;
                }
            }
            let members = desk.memberships.of(at.0, desk.locations.name(at));
            let member = members.iter().find(|member| member.channel == channel);
            member
                .filter(|member| member.sells(policy))
                .map(|member| Offer {
                    at,
                    rank: member.rank,
                    units: contribution(member, policy, &balances),
                })
        };
        let by_location = match only {
            Some(at) => block.find(at).ok().and_then(offer).into_iter().collect(),
            None => (0..block.cells()).filter_map(offer).collect(),
        };
        // What is shown holds for all lines of a cart together.
        let taken: i64 = taken.iter().map(|(_, units)| units).sum();
        let ats = policy.ats(block.sum(channel.index()));
        Some(Offers {
            ats: (ats - taken).max(0),
            by_location,
            in_order: false,
        })
    }

    /// Whether a channel sells a SKU from a location, whatever there is of it. Not for the hot path.
    pub(crate) fn sells(&self, channel: ChannelIx, sku: &str, location: &str) -> bool {
        let rules = &self.desk.rules.rules;
        let memberships = rules.memberships(location);
        let mut members = memberships.iter();
        members.any(|member| member.channel == channel && member.sells(rules.policy(channel, sku)))
    }

    /// Walks over all cells.
    pub(crate) fn audit(&self) -> Audit {
        let mut digester = Digester::default();
        let mut audit = Audit::default();
        self.index.for_each(&epoch::pin(), |block| {
            let mut on_hand = 0;
            for cell in 0..block.cells() {
                let balances = block.balances(cell);
                let location = self.desk.locations.name(block.location(cell));
                audit.digest += digester.cell(block.name(), location, &balances);
                audit.cells += u64::from(!balances.is_zero());
                on_hand += balances.on_hand();
            }
            audit.units += on_hand;
            audit.conservation_violations += u64::from(on_hand != block.net_in());
        });
        audit
    }
}

impl Desk {
    fn channels(&self) -> u16 {
        u16::try_from(self.rules.rules.channel_count()).expect("channels are bounded")
    }

    fn make_sums(&mut self, block: &Block) {
        let rules = &self.rules.rules;
        let overridden = rules.has_overrides_for(block.name());
        block.set_rules(self.rules.epoch, overridden);
        let mut sums: SmallVec<[i64; 16]> = SmallVec::from_elem(0, rules.channel_count());
        for cell in 0..block.cells() {
            let (at, balances) = (block.location(cell), block.balances(cell));
            for member in self.memberships.of(at.0, self.locations.name(at)) {
                let policy = policy_of(rules, member.channel, block, overridden);
                sums[member.channel.index()] += contribution(member, policy, &balances);
            }
        }
        for (channel, sum) in sums.into_iter().enumerate() {
            block.set_sum(channel, sum);
        }
    }

    /// The same for a block that has published numbers by other rules.
    fn make_anew(&mut self, block: &Block, carried: &Carried) {
        let before: SmallVec<[Published; 16]> = (0..carried.channels_before)
            .map(|channel| block.published(channel))
            .collect();
        self.make_sums(block);
        for (channel, from) in carried.from.iter().enumerate() {
            let published = from.map_or(Published::default(), |from| before[from.index()]);
            block.set_published(channel, published);
        }
        let Self { rules, changes, .. } = self;
        for (channel, _) in rules.rules.channels() {
            let policy = policy_of(&rules.rules, channel, block, block.overridden());
            publish(block, channel, policy, changes);
        }
    }

    /// Takes back what channels were told, or else takes it for what they may sell.
    fn take_published(&self, block: &Block, told: impl ExactSizeIterator<Item = i64>) {
        let rules = &self.rules.rules;
        if told.len() == rules.channel_count() {
            for (channel, units) in told.enumerate() {
                block.set_published(channel, Published::taken(units));
            }
            return;
        }
        for (channel, _) in rules.channels() {
            let policy = policy_of(rules, channel, block, block.overridden());
            let units = policy.ats(block.sum(channel.index())).min(UNITS_MAX);
            block.set_published(channel.index(), Published::taken(units));
        }
    }

    fn make_block(&self, hash: SkuHash, name: &str) -> NonNull<Block> {
        let shape = Shape {
            cells_max: 1,
            channels: self.channels(),
            wide: false,
        };
        let block = Block::allocate(hash, name, shape);
        // SAFETY: just allocated.
        let made = unsafe { block.as_ref() };
        made.set_mark(self.saving.mark);
        made.set_rules(self.rules.epoch, self.rules.rules.has_overrides_for(name));
        self.counts.skus.fetch_add(1, Relaxed);
        self.counts
            .block_bytes
            .fetch_add(made.bytes() as u64, Relaxed);
        block
    }

    fn put_in_place(&self, index: &Index, new: NonNull<Block>) {
        // SAFETY: the caller just made it and hands it over.
        let bytes = unsafe { new.as_ref() }.bytes();
        let old_bytes = index.replace(new);
        self.counts.block_bytes.fetch_add(bytes as u64, Relaxed);
        self.counts.block_bytes.fetch_sub(old_bytes as u64, Relaxed);
    }

    /// The block of the same SKU that has room for what the changes give; another one, if need be.
    fn make_room<'g>(
        &self,
        index: &Index,
        block: &'g Block,
        changes: &[CellChange],
        guard: &'g Guard,
    ) -> &'g Block {
        let (mut cells, mut wide) = (block.cells() as u32, block.shape().wide);
        for change in changes {
            let after = match block.find(change.at) {
                Ok(cell) => sum_of(block.balances(cell), change.by),
                Err(_) => {
                    cells += 1;
                    change.by
                }
            };
            wide |= !block.holds(&after);
        }
        let new_cells = cells - block.cells() as u32;
        self.counts.cells.fetch_add(u64::from(new_cells), Relaxed);
        if cells > block.shape().cells_max || wide != block.shape().wide {
            return self.enlarge(index, block, cells, wide, guard);
        }
        block
    }

    /// Another block for the same SKU, with room for `cells` cells, in the place of `block`.
    #[cold]
    fn enlarge<'g>(
        &self,
        index: &Index,
        block: &Block,
        cells: u32,
        wide: bool,
        guard: &'g Guard,
    ) -> &'g Block {
        let shape = with_room(
            block.name(),
            Shape {
                cells_max: cells.max(block.shape().cells_max),
                channels: self.channels(),
                wide,
            },
        );
        let (hash, copy) = (block.hash(), block.copy(shape));
        self.put_in_place(index, copy);
        // SAFETY: just allocated.
        let name = unsafe { copy.as_ref() }.name();
        index
            .get(hash, name, guard)
            .expect("it was just put in place")
    }

    /// Changes a cell, and with it the sums of the channels that sell from it. Gives those channels:
    /// they are to be told once the whole movement is in.
    #[inline]
    fn set(
        &mut self,
        block: &Block,
        cell: usize,
        at: Loc,
        before: &Balances,
        after: &Balances,
    ) -> Some64 {
        block.set_balances(cell, after);
        let same = |account| before[account] == after[account];
        if same(Account::Good) && same(Account::Reserved) {
            return Some64::default();
        }
        if self.memberships.get(at.0).is_none() {
            self.memberships.of(at.0, self.locations.name(at));
        }
        let rules = &self.rules.rules;
        let overridden = block.overridden();
        let mut changed = Some64::default();
        for member in self.memberships.get(at.0).unwrap_or_default() {
            let policy = policy_of(rules, member.channel, block, overridden);
            let by = contribution(member, policy, after) - contribution(member, policy, before);
            if by != 0 {
                let channel = member.channel.index();
                block.set_sum(channel, block.sum(channel) + by);
                changed.add(member.channel);
            }
        }
        changed
    }

    /// Publishes what those channels that sell from a location may sell now, where that is worth it.
    #[inline]
    fn publish(&mut self, block: &Block, at: Loc, changed: Some64) {
        if changed.is_empty() {
            return;
        }
        let rules = &self.rules.rules;
        let overridden = block.overridden();
        for member in self.memberships.get(at.0).unwrap_or_default() {
            if changed.may_have(member.channel) {
                let policy = policy_of(rules, member.channel, block, overridden);
                publish(block, member.channel, policy, &mut self.changes);
            }
        }
    }
}

/// Some channels; of more than 64, perhaps a few others with them.
#[derive(Debug, Clone, Copy, Default)]
struct Some64(u64);

impl Some64 {
    #[inline]
    fn add(&mut self, channel: ChannelIx) {
        self.0 |= 1 << (channel.index() % 64);
    }

    #[inline]
    fn may_have(self, channel: ChannelIx) -> bool {
        self.0 >> (channel.index() % 64) & 1 != 0
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOrAssign for Some64 {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Publishes what a channel may sell now, if that is worth it.
#[inline]
fn publish(block: &Block, channel: ChannelIx, policy: &Policy, changes: &mut Changes) {
    let at = channel.index();
    let ats = policy.ats(block.sum(at)).min(UNITS_MAX);
    let before = block.published(at);
    if !policy.is_worth_publishing(before.units, ats) {
        return;
    }
    if !changes.are_taken {
        block.set_published(at, Published::taken(ats));
        return;
    }
    block.set_published(at, Published::waiting(ats));
    if !before.waits {
        changes.push(block.hash(), channel, Some(before.units));
    }
}

/// Which channels of some rules are which of those before.
struct Carried {
    channels_before: usize,
    /// By channel now.
    from: Vec<Option<ChannelIx>>,
}

impl Carried {
    fn between(before: &Rules, now: &Rules) -> Self {
        Self {
            channels_before: before.channel_count(),
            from: now
                .channels()
                .map(|(_, name)| before.channel(name))
                .collect(),
        }
    }

    /// What a channel of before is now.
    fn now(&self, before: ChannelIx) -> Option<ChannelIx> {
        let at = self.from.iter().position(|from| *from == Some(before))?;
        Some(ChannelIx(u16::try_from(at).expect("channels are bounded")))
    }
}

#[inline]
fn policy_of<'r>(
    rules: &'r Rules,
    channel: ChannelIx,
    block: &Block,
    overridden: bool,
) -> &'r Policy {
    if overridden {
        rules.policy(channel, block.name())
    } else {
        rules.base_policy(channel)
    }
}

#[inline]
fn contribution(member: &Membership, policy: &Policy, balances: &Balances) -> i64 {
    member.contribution(policy, balances[Account::Good], balances[Account::Reserved])
}

impl Books for ShardBooks {
    fn post(
        &mut self,
        sku: SkuHash,
        name: &str,
        changes: &[CellChange],
        net_in: i64,
        last: Option<(Loc, Trail)>,
    ) -> Posted {
        let Self { index, desk } = self;
        // SAFETY: the writer alone retires tables and blocks, and it does not use what it has
        // retired.
        let guard = unsafe { epoch::unprotected() };
        let mut block = index.get_or_insert(sku, name, guard, || desk.make_block(sku, name));
        desk.saving.save_once(block);

        // Nearly always: one cell, which is there and has room.
        if let [change] = changes
            && let Ok(cell) = block.find(change.at)
        {
            let before = block.balances(cell);
            let after = sum_of(before, change.by);
            if block.holds(&after) {
                block.write(|| {
                    let changed = desk.set(block, cell, change.at, &before, &after);
                    desk.publish(block, change.at, changed);
                    block.add_net_in(net_in);
                });
                return Posted {
                    wrong: before.is_wrong() | after.is_wrong(),
                    before: last.map_or(Trail::NONE, |(_, last)| swap_trail(block, cell, last)),
                };
            }
        }

        // First all that may need another block, so that readers see the movement whole.
        block = desk.make_room(index, block, changes, guard);
        let (mut wrong, mut changed) = (false, Some64::default());
        block.write(|| {
            for change in changes {
                let cell = block.find(change.at).unwrap_or_else(|cell| {
                    block.insert(cell, change.at);
                    cell
                });
                let before = block.balances(cell);
                let after = sum_of(before, change.by);
                wrong |= before.is_wrong() | after.is_wrong();
                changed |= desk.set(block, cell, change.at, &before, &after);
            }
            // Not before: half a movement is never published.
            for change in changes {
                desk.publish(block, change.at, changed);
            }
            block.add_net_in(net_in);
        });
        let before = last.map(|(at, last)| {
            let cell = block.find(at).expect("it is one of those that changed");
            swap_trail(block, cell, last)
        });
        Posted {
            wrong,
            before: before.unwrap_or_default(),
        }
    }

    fn cell(&self, sku: SkuHash, name: &str, at: Loc) -> (Balances, Trail) {
        // SAFETY: as in `post`.
        let block = self.index.get(sku, name, unsafe { epoch::unprotected() });
        block
            .and_then(|block| {
                let cell = block.find(at).ok()?;
                Some((block.balances(cell), block.trail(cell)))
            })
            .unwrap_or_default()
    }

    fn swap_trail(&mut self, sku: SkuHash, at: Loc, last: Trail) -> Option<Trail> {
        // SAFETY: as in `post`.
        let block = self
            .index
            .get_hashed(sku, unsafe { epoch::unprotected() })?;
        let cell = block.find(at).ok()?;
        Some(swap_trail(block, cell, last))
    }

    fn prefetch_index(&self, sku: SkuHash) {
        // SAFETY: as in `post`.
        self.index
            .prefetch_slot(sku, unsafe { epoch::unprotected() });
    }

    fn prefetch_sku(&self, sku: SkuHash) {
        // SAFETY: as in `post`.
        self.index
            .prefetch_block(sku, LINES_TO_POST, unsafe { epoch::unprotected() });
    }

    fn prefetch_cell(&self, sku: SkuHash, at: Loc) {
        // SAFETY: as in `post`.
        self.index
            .prefetch_cell(sku, at, unsafe { epoch::unprotected() });
    }
}

/// Readers do not look at trails, so the lock is not needed.
#[inline]
fn swap_trail(block: &Block, cell: usize, last: Trail) -> Trail {
    let before = block.trail(cell);
    block.set_trail(cell, last);
    before
}

#[inline]
fn sum_of(mut balances: Balances, by: Balances) -> Balances {
    balances += by;
    balances
}

/// With room for a few more cells, so that not every new one makes a new block.
fn with_room(name: &str, shape: Shape) -> Shape {
    let few_more = Shape {
        cells_max: shape.cells_max + shape.cells_max / 8,
        ..shape
    };
    Shape {
        cells_max: cells_that_fit(name.len(), few_more),
        ..shape
    }
}

mod saving;

use saving::Saving;
pub(crate) use saving::cells_of;

#[cfg(test)]
mod tests;
