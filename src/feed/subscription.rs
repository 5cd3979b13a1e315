//! A receiver's way through the changes of a channel, at its own pace.

use std::sync::Arc;

use super::Update;
use crate::log::Position;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the current state.
    State,
    /// With what changed after a position; with the state, if that is not known any more.
    After(Position),
}

/// Why a subscription goes on no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Rules without the channel are in force.
    #[error("the rules have no such channel any more")]
    NoChannel,
    /// The instance is stopping.
    #[error("the instance is stopping")]
    Stopping,
}

/// See the module.
#[derive(Debug)]
pub struct Subscription {}

impl Subscription {
    /// The next update; waits for it. Gives a heartbeat if nothing changed for a while. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// See [`Ended`].
    pub async fn next(&mut self) -> Result<Arc<Update>, Ended> {
        todo!()
    }
}
