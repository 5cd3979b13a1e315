//! Which channels sell from a location, and with which priority.

use std::sync::Arc;

use super::{ChannelIx, Policy, Rules};

/// A location's place among the sources of one channel.
///
/// It holds for all SKUs; whether the location is excluded depends on the SKU's [`Policy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The channel.
    pub channel: ChannelIx,
    /// Priority: the lowest first, equal ones by location name. It has gaps; the place that people
    /// see is counted from the sorted locations.
    pub rank: u32,
    /// The channel's lists of exclusions that name this location; mostly none. Never all: a
    /// location that no SKU of the channel is sold from is no member.
    pub(super) excluded_by: Box<[u32]>,
}

impl Membership {
    /// Whether the channel sells a SKU of this policy from this location. The policy must be one
    /// of the same channel and rules.
    #[inline]
    pub fn sells(&self, policy: &Policy) -> bool {
        self.excluded_by.is_empty() || !self.excluded_by.contains(&policy.exclude_list)
    }

    /// What the location contributes to the channel's sum for a SKU of this policy, in units,
    /// from its balances `good` and `reserved`: [`Policy::cell_available`] if the channel
    /// [sells](Self::sells) from it, otherwise 0.
    #[inline]
    pub fn contribution(&self, policy: &Policy, good: i64, reserved: i64) -> i64 {
        if self.sells(policy) {
            policy.cell_available(good.saturating_sub(reserved), good)
        } else {
            0
        }
    }
}

/// The memberships of each location, by its internal number, found when first asked for.
///
/// A movement at a location then costs only the channels that sell from there, and no look at any
/// name. Make a new one when the rules change.
#[derive(Debug, Clone)]
pub struct Memberships {
    rules: Arc<Rules>,
    by_location: Vec<Option<Box<[Membership]>>>,
}

impl Memberships {
    /// Knows no location yet.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            by_location: Vec::new(),
        }
    }

    /// The rules it was made for.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The channels that sell from a location, in order of channel. `number` is the location's
    /// dense internal number (memory grows with the largest one), `name` its name; the same
    /// number must always come with the same name.
    #[inline]
    pub fn of(&mut self, number: u32, name: &str) -> &[Membership] {
        let at = number as usize;
        if self.by_location.len() <= at {
            self.by_location.resize_with(at + 1, || None);
        }
        let rules = &self.rules;
        self.by_location[at].get_or_insert_with(|| rules.memberships(name).into_boxed_slice())
    }

    /// As [`Memberships::of`], if the location was asked for before. Needs no name.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&[Membership]> {
        self.by_location.get(number as usize)?.as_deref()
    }
}
