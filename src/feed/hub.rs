//! All feeds of an instance.

use std::{sync::Arc, time::Duration};

use super::{Delivery, Start, Subscription};
use crate::{instance::Instance, log::Position};

/// How feeds are run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Shortest time between two updates of a channel: what changes meanwhile is conflated.
    pub interval: Duration,
    /// SKUs of a channel whose last change is kept, to resume from.
    pub kept_max: usize,
    /// A receiver to which nothing was sent for so long is sent a heartbeat.
    pub heartbeat: Duration,
}

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The rules have no such channel.
    #[error("there is no channel {0:?}")]
    NoChannel(String),
    /// The position lies ahead of this instance.
    #[error("position {asked} is ahead of this instance, which has published up to {published}")]
    Ahead {
        /// The position.
        asked: Position,
        /// Where this instance is.
        published: Position,
    },
}

/// See the module. Ends when it is dropped, and with the instance.
#[derive(Debug)]
pub struct Feeds {}

impl Feeds {
    /// Begins to publish what changes.
    pub fn start(_instance: &Arc<Instance>, _options: Options) -> Arc<Self> {
        todo!()
    }

    /// The log that positions are of, in words.
    pub fn log(&self) -> &Arc<str> {
        todo!()
    }

    /// Subscribes to a channel; to these SKUs, or to all if there are none. A channel that comes with
    /// later rules can be subscribed to then.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(
        &self,
        _channel: &str,
        _skus: Vec<String>,
        _start: Start,
    ) -> Result<Subscription, SubscribeError> {
        todo!()
    }

    /// The published number of a SKU as it is now; `None` if there is no such channel, or no movement
    /// ever named the SKU.
    pub fn published(&self, _channel: &str, _sku: &str) -> Option<i64> {
        todo!()
    }

    /// A way of delivery whose state is to be told.
    pub fn register(&self, _channel: &str, _delivery: &Arc<Delivery>) {
        todo!()
    }
}
