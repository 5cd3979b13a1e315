//! Changes of published numbers that wait to be taken by the feeds.
//!
//! Whether a change is published is decided when it happens, so that it is a function of the log; it
//! is taken later, with those of other SKUs. Each SKU waits at most once for each channel, however
//! often it changes meanwhile, so that there is a bound to what waits.

use std::collections::VecDeque;

use crate::domain::{keys::SkuHash, movement::TimeUs, rules::ChannelIx};

/// A channel's number for one SKU, as it is kept in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Published {
    /// Units that the channel may sell, as far as it is told. At least 0.
    pub(crate) units: i64,
    /// A change waits to be taken.
    pub(crate) waits: bool,
}

impl Published {
    pub(crate) const fn taken(units: i64) -> Self {
        Self {
            units,
            waits: false,
        }
    }

    pub(crate) const fn waiting(units: i64) -> Self {
        Self { units, waits: true }
    }

    #[inline]
    pub(super) const fn from_bits(bits: i64) -> Self {
        Self {
            units: bits >> 1,
            waits: bits & 1 != 0,
        }
    }

    #[inline]
    pub(super) const fn bits(self) -> i64 {
        self.units << 1 | self.waits as i64
    }
}

/// Larger numbers are published as this one, which leaves a bit free. No shelf holds as much.
pub(super) const UNITS_MAX: i64 = i64::MAX >> 1;

/// What made a number change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cause {
    /// When it was appended to the log.
    pub(crate) logged_us: TimeUs,
    /// When it occurred.
    pub(crate) occurred_us: TimeUs,
}

impl Cause {
    /// Something that occurs by the log's own time.
    pub(crate) const fn at(time_us: TimeUs) -> Self {
        Self {
            logged_us: time_us,
            occurred_us: time_us,
        }
    }
}

/// A change of one SKU's number for one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The channel, by the rules of its [`Cut`].
    pub channel: ChannelIx,
    /// The SKU.
    pub sku: std::sync::Arc<str>,
    /// The number that was taken before; `None` if it is delivered once more without a change.
    pub before: Option<i64>,
    /// The number now.
    pub units: i64,
    /// When the first change since was appended to the log.
    pub logged_us: TimeUs,
    /// When that occurred.
    pub occurred_us: TimeUs,
}

/// A change that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) sku: SkuHash,
    pub(super) channel: ChannelIx,
    pub(super) before: Option<i64>,
    pub(super) cause: Cause,
}

/// All that wait in one shard, the first to come first.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Whether anybody takes them; else none wait.
    pub(super) are_taken: bool,
    /// What makes numbers change now.
    pub(super) cause: Cause,
    waiting: VecDeque<Waiting>,
}

impl Changes {
    /// One more waits.
    #[inline]
    pub(super) fn push(&mut self, sku: SkuHash, channel: ChannelIx, before: Option<i64>) {
        self.waiting.push_back(Waiting {
            sku,
            channel,
            before,
            cause: self.cause,
        });
    }

    /// The first that waits.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Channels have other numbers now; some are gone.
    pub(super) fn renumber(&mut self, now: impl Fn(ChannelIx) -> Option<ChannelIx>) {
        self.waiting
            .retain_mut(|waiting| match now(waiting.channel) {
                Some(channel) => {
                    waiting.channel = channel;
                    true
                }
                None => false,
            });
    }
}
