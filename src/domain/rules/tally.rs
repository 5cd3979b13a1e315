//! What a change of rules would do, added up for a dry run.

use std::cmp::Reverse;

use super::{ChannelIx, Rules};
use crate::limits;

/// One SKU whose availability would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkuChange {
    /// The SKU.
    pub sku: String,
    /// Units that the channel may sell before.
    pub before: i64,
    /// Units that the channel may sell after.
    pub after: i64,
}

impl SkuChange {
    /// Largest change first, then by SKU.
    fn order(&self) -> (Reverse<u64>, &str) {
        (Reverse(self.before.abs_diff(self.after)), &self.sku)
    }
}

/// Adds up what would change for one channel. The result does not depend on the order in which
/// SKUs are fed, nor on how they are split over tallies that are merged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeTally {
    /// SKUs whose availability would change.
    pub skus_changed: u64,
    /// Of these, SKUs that would fall to zero.
    pub skus_to_zero: u64,
    /// Of these, SKUs that would rise from zero.
    pub skus_from_zero: u64,
    /// SKUs whose new number would be pushed to the channel's feeds.
    pub skus_published: u64,
    /// Units over all SKUs before; stays at the largest `i64` if there are more.
    pub units_before: i64,
    /// Units over all SKUs after; likewise.
    pub units_after: i64,
    largest: Vec<SkuChange>,
}

impl ChangeTally {
    /// Takes one SKU into account, once. A channel that one set of rules does not have sells 0
    /// under it. Both numbers are at least 0.
    pub fn feed(&mut self, sku: &str, before: i64, after: i64) {
        self.units_before = self.units_before.saturating_add(before);
        self.units_after = self.units_after.saturating_add(after);
        if before == after {
            return;
        }
        self.skus_changed += 1;
        self.skus_to_zero += u64::from(after == 0);
        self.skus_from_zero += u64::from(before == 0);
        // Most SKUs are not among the largest: find out before copying the name.
        let order = (Reverse(before.abs_diff(after)), sku);
        let at = self
            .largest
            .partition_point(|change| change.order() < order);
        if at < limits::RULES_CHANGES_MAX {
            let change = SkuChange {
                sku: sku.to_owned(),
                before,
                after,
            };
            self.largest.insert(at, change);
            self.largest.truncate(limits::RULES_CHANGES_MAX);
        }
    }

    /// Adds the tally of other SKUs of the same channel.
    pub fn merge(&mut self, other: ChangeTally) {
        self.skus_changed += other.skus_changed;
        self.skus_to_zero += other.skus_to_zero;
        self.skus_from_zero += other.skus_from_zero;
        self.skus_published += other.skus_published;
        self.units_before = self.units_before.saturating_add(other.units_before);
        self.units_after = self.units_after.saturating_add(other.units_after);
        self.largest.extend(other.largest);
        self.largest.sort_by(|a, b| a.order().cmp(&b.order()));
        self.largest.truncate(limits::RULES_CHANGES_MAX);
    }

    /// The largest changes, at most [`limits::RULES_CHANGES_MAX`]; the largest first, equal ones
    /// by SKU.
    pub fn largest(&self) -> &[SkuChange] {
        &self.largest
    }
}

/// One channel in two sets of rules; `None` where a set does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPair<'r> {
    /// The channel's name.
    pub name: &'r str,
    /// The channel in the rules before.
    pub before: Option<ChannelIx>,
    /// The channel in the rules after.
    pub after: Option<ChannelIx>,
}

/// Every channel of either set of rules, in order of name.
pub fn channel_pairs<'r>(before: &'r Rules, after: &'r Rules) -> Vec<ChannelPair<'r>> {
    let mut names: Vec<&str> = before
        .channels()
        .chain(after.channels())
        .map(|(_, name)| name)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| ChannelPair {
            name,
            before: before.channel(name),
            after: after.channel(name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tally_counts_what_changes() {
        let mut tally = ChangeTally::default();
        for (sku, before, after) in [
            ("SAME", 7, 7),
            ("GONE", 5, 0),
            ("NEW", 0, 3),
            ("LESS", 9, 4),
            ("NEVER", 0, 0),
        ] {
            tally.feed(sku, before, after);
        }
        assert_eq!(tally.skus_changed, 3);
        assert_eq!(tally.skus_to_zero, 1);
        assert_eq!(tally.skus_from_zero, 1);
        assert_eq!((tally.units_before, tally.units_after), (21, 14));
        let largest: Vec<&str> = tally.largest().iter().map(|c| c.sku.as_str()).collect();
        assert_eq!(largest, ["GONE", "LESS", "NEW"], "by size, then by SKU");
    }

    #[test]
    fn channels_that_come_and_go_are_paired_with_nothing() {
        let rules = |text| Rules::parse(text).unwrap().0;
        let before = rules("[channel.web]\nsources = ['a']\n[channel.app]\nsources = ['a']\n");
        let after = rules("[channel.web]\nsources = ['a']\n[channel.kiosk]\nsources = ['a']\n");
        let pairs = channel_pairs(&before, &after);
        let shown: Vec<_> = pairs
            .iter()
            .map(|p| (p.name, p.before.is_some(), p.after.is_some()))
            .collect();
        assert_eq!(
            shown,
            [
                ("app", true, false),
                ("kiosk", false, true),
                ("web", true, true)
            ]
        );
    }

    proptest! {
        #[test]
        fn neither_order_nor_split_matters(
            changes in prop::collection::btree_map("[A-D]{1,3}", (0..6i64, 0..6i64), 0..60),
            split in 0..60usize,
        ) {
            let mut whole = ChangeTally::default();
            for (sku, (before, after)) in &changes {
                whole.feed(sku, *before, *after);
            }
            let (mut left, mut right) = (ChangeTally::default(), ChangeTally::default());
            for (n, (sku, (before, after))) in changes.iter().enumerate().rev() {
                let part = if n < split { &mut left } else { &mut right };
                part.feed(sku, *before, *after);
            }
            right.merge(left);
            prop_assert_eq!(&right, &whole);

            let mut slow: Vec<_> = changes.iter().filter(|(_, (b, a))| a != b).collect();
            slow.sort_by_key(|(sku, (b, a))| (-(a - b).abs(), sku.to_string()));
            let slow: Vec<&str> = slow.iter().take(20).map(|(sku, _)| sku.as_str()).collect();
            let largest: Vec<&str> = whole.largest().iter().map(|c| c.sku.as_str()).collect();
            prop_assert_eq!(largest, slow);
        }
    }
}
