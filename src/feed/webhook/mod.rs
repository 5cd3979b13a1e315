//! Webhooks: what changes on a channel, sent to a receiver over HTTP, signed.
//!
//! Each webhook has a task of its own ([`sender`]), so that none can hold up another. What waits
//! is conflated and sent by urgency ([`pending`]) within the receiver's quota ([`quota`]), and tried
//! again until it is taken ([`breaker`]). Who delivers, how far that got, and what was refused for
//! good is decided in the log (`intake::deliveries`): of several instances one delivers, and another
//! goes on when it is gone. [`body`] is the contract with receivers, [`document`] the settings.

pub mod body;
pub mod breaker;
pub mod client;
pub mod document;
mod lease;
pub mod outbox;
pub mod pending;
pub mod quota;
mod sender;
pub mod signature;

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

pub use document::{Outside, Settings};

use super::Feeds;
use crate::shard::worker::task_or_abort;
use sender::Sender;

/// The webhooks of an instance.
#[derive(Debug)]
pub struct Webhooks {
    stop: watch::Sender<bool>,
    senders: Vec<JoinHandle<()>>,
}

impl Webhooks {
    /// Begins to deliver. `alone`: no other instance can be on this log, so nobody has to wait for a
    /// lease to be over. Begins once the instance has caught up with the log.
    ///
    /// # Errors
    /// If a receiver is to be spoken to by TLS, and this machine trusts no certificates.
    pub fn start(feeds: &Arc<Feeds>, all: Vec<Settings>, alone: bool) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let senders = all
            .into_iter()
            .map(|settings| Sender::new(feeds, settings, alone))
            .collect::<io::Result<Vec<_>>>()?;
        let run = |sender: Sender| tokio::spawn(task_or_abort(sender.run(stopped.clone())));
        Ok(Self {
            senders: senders.into_iter().map(run).collect(),
            stop,
        })
    }

    /// Stops: requests under way may end within `grace`, progress is written, and another instance
    /// may go on. Call it before the instance stops.
    pub async fn stop(self, grace: Duration) {
        self.stop.send_replace(true);
        let deadline = tokio::time::Instant::now() + grace;
        for mut sender in self.senders {
            if tokio::time::timeout_at(deadline, &mut sender)
                .await
                .is_err()
            {
                tracing::warn!("a webhook did not stop in time; what it was at comes again");
                sender.abort();
            }
        }
    }
}
