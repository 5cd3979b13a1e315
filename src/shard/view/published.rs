//! Published numbers, as they are now.

use std::sync::atomic::Ordering::SeqCst;

use crossbeam::epoch;

use super::View;
use crate::{domain::keys::SkuHash, log::Position, shard::index::SEGMENTS};

/// Why a published number cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReadable {
    /// The rules in force have no such channel.
    #[error("the rules have no such channel")]
    NoChannel,
    /// Other rules are about to be in force; some SKUs go by them already. Try again at once.
    #[error("the rules are changing")]
    RulesChange,
}

impl View {
    /// The last position of which anything can be seen yet: what is read next may be as late, not
    /// later, and whatever was read before is not.
    pub fn begun(&self) -> Position {
        // None begins with what a checkpoint has.
        self.shared
            .begun
            .load(SeqCst)
            .max(self.progress().position())
    }

    /// A channel's published number of a SKU; `None` if no movement ever named it.
    ///
    /// # Errors
    /// See [`NotReadable`].
    pub fn published(&self, channel: &str, sku: &str) -> Result<Option<i64>, NotReadable> {
        let rules = self.rulebook().in_force();
        let channel = rules.rules.channel(channel).ok_or(NotReadable::NoChannel)?;
        let guard = epoch::pin();
        let hash = SkuHash::of(sku);
        let (index, _) = &self.shards[hash.shard(self.shards.len())];
        let Some(block) = index.get(hash, sku, &guard) else {
            return Ok(None);
        };
        let told = block.read(|| {
            let is_current = block.rules_epoch() == rules.epoch;
            is_current.then(|| block.published(channel.index()).units)
        });
        told.map(Some).ok_or(NotReadable::RulesChange)
    }

    /// A channel's published numbers of one of the [`View::parts`], in no order. What comes in
    /// meanwhile may be missed.
    ///
    /// # Errors
    /// See [`NotReadable`].
    ///
    /// # Panics
    /// If there is no such part.
    pub fn published_part(
        &self,
        channel: &str,
        part: usize,
        mut visit: impl FnMut(&str, i64),
    ) -> Result<(), NotReadable> {
        let rules = self.rulebook().in_force();
        let channel = rules.rules.channel(channel).ok_or(NotReadable::NoChannel)?;
        let guard = epoch::pin();
        let (index, _) = &self.shards[part / SEGMENTS];
        let mut is_current = true;
        index.for_each_of(part % SEGMENTS, &guard, |block| {
            let told = block.read(|| {
                let is_current = block.rules_epoch() == rules.epoch;
                is_current.then(|| block.published(channel.index()).units)
            });
            match told {
                Some(units) => visit(block.name(), units),
                None => is_current = false,
            }
        });
        match is_current {
            true => Ok(()),
            false => Err(NotReadable::RulesChange),
        }
    }
}
