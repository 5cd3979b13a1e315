//! A receiver's way through the changes of a channel, at its own pace.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::sync::watch;

use super::{
    Delivery, Number, Update, UpdateKind,
    hub::{Feed, Shared, rules_change},
};
use crate::{limits::FEED_STATE_NUMBERS_MAX, log::Position, shard::NotReadable};

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

/// See the module. It takes some hundred bytes, and the numbers of one update.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    feed: Arc<Feed>,
    /// Only these; empty: all.
    skus: Box<[Arc<str>]>,
    changed: watch::Receiver<u64>,
    phase: Phase,
    /// What the receiver was told last.
    position: Position,
    /// Changes that were passed over, a newer one having come.
    conflated: u64,
}

#[derive(Debug)]
enum Phase {
    /// Is about to read the state.
    Begin,
    /// Goes on after a position, once that is published.
    Resume(Position),
    /// Reads the state, part by part; changes follow after `since`.
    State {
        part: usize,
        /// Read already, and still to be told.
        numbers: Vec<Number>,
        since: Position,
    },
    /// What was read of the state is no later than `until`: before changes are told, they have to be
    /// as late, so that no number ever goes back.
    Settle { until: Position, since: Position },
    /// Tells the changes from this number on.
    Changes { next_no: u64 },
}

impl Subscription {
    pub(super) fn new(
        shared: Arc<Shared>,
        feed: Arc<Feed>,
        mut skus: Vec<String>,
        start: Start,
    ) -> Self {
        skus.sort_unstable();
        skus.dedup();
        feed.subscriptions.fetch_add(1, Relaxed);
        let changed = feed.changed.subscribe();
        Self {
            shared,
            feed,
            skus: skus.into_iter().map(Into::into).collect(),
            changed,
            phase: match start {
                Start::State => Phase::Begin,
                Start::After(position) => Phase::Resume(position),
            },
            position: 0,
            conflated: 0,
        }
    }

    /// The next update; waits for it. Gives a heartbeat if nothing changed for a while. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// See [`Ended`].
    pub async fn next(&mut self) -> Result<Arc<Update>, Ended> {
        loop {
            self.changed.borrow_and_update();
            if let Some(why) = self.feed.lock().ended {
                return Err(why);
            }
            match &self.phase {
                Phase::Begin => {
                    // All that is published by now is in the state, and not told once more.
                    let shared = Arc::clone(&self.shared);
                    let since = async move { shared.publish_now().await };
                    let since = self.or_ended(since).await?;
                    self.phase = Phase::State {
                        part: 0,
                        numbers: Vec::new(),
                        since,
                    };
                }
                Phase::Resume(position) => {
                    let position = *position;
                    self.published_up_to(position).await?;
                    self.resume(position);
                }
                Phase::State { .. } => match self.read_state() {
                    Ok(Some(update)) => return Ok(Arc::new(update)),
                    Ok(None) => tokio::task::yield_now().await,
                    Err(NotReadable::NoChannel) => return Err(Ended::NoChannel),
                    Err(NotReadable::RulesChange) => rules_change().await,
                },
                Phase::Settle { until, since } => {
                    let (until, since) = (*until, *since);
                    self.published_up_to(until).await?;
                    self.resume(since);
                }
                Phase::Changes { next_no } => {
                    if let Some(update) = self.read_changes(*next_no) {
                        return Ok(update);
                    }
                    if let Phase::Changes { .. } = self.phase {
                        let wait = self.changed.changed();
                        let heartbeat = self.shared.options.heartbeat;
                        match tokio::time::timeout(heartbeat, wait).await {
                            // The sender is there as long as the feed, which is held.
                            Ok(_) => {}
                            Err(_) => return Ok(Arc::new(self.heartbeat())),
                        }
                    }
                }
            }
        }
    }

    /// The channel.
    pub fn channel(&self) -> &str {
        &self.feed.channel
    }

    /// Where callers of `Watch` on this channel are counted.
    pub fn grpc(&self) -> &Delivery {
        &self.feed.grpc
    }

    /// Changes that were passed over so far, a newer one having come.
    pub fn conflated(&self) -> u64 {
        self.conflated
    }

    async fn published_up_to(&mut self, position: Position) -> Result<(), Ended> {
        let shared = Arc::clone(&self.shared);
        self.or_ended(async move { shared.published_up_to(position).await })
            .await
    }

    /// Waits for something, unless the feed ends before.
    async fn or_ended<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Ended> {
        let mut what = pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return Ok(done),
                _ = self.changed.changed() => {
                    if let Some(why) = self.feed.lock().ended {
                        return Err(why);
                    }
                }
            }
        }
    }

    /// Goes on with changes after a position, or else with the state.
    fn resume(&mut self, position: Position) {
        let state = self.feed.lock();
        self.phase = match state.recent.first_after(position) {
            Some(next_no) => {
                self.position = position;
                Phase::Changes { next_no }
            }
            None => Phase::Begin,
        };
    }

    /// The next part of the state; `None`: there is nothing in it yet.
    fn read_state(&mut self) -> Result<Option<Update>, NotReadable> {
        let view = self.shared.instance.view();
        let Phase::State {
            part,
            numbers,
            since,
        } = &mut self.phase
        else {
            return Ok(None);
        };
        let channel = &self.feed.channel;
        let parts = if self.skus.is_empty() {
            view.parts()
        } else {
            1
        };
        if *part < parts && numbers.len() < FEED_STATE_NUMBERS_MAX {
            let begun = numbers.len();
            let read = if self.skus.is_empty() {
                view.published_part(channel, *part, |sku, units| {
                    numbers.push(state_number(sku.into(), units));
                })
            } else {
                self.skus.iter().try_for_each(|sku| {
                    let units = view.published(channel, sku)?;
                    numbers.extend(units.map(|units| state_number(Arc::clone(sku), units)));
                    Ok(())
                })
            };
            if let Err(error) = read {
                numbers.truncate(begun);
                return Err(error);
            }
            *part += 1;
        }
        let is_last = *part >= parts && numbers.len() <= FEED_STATE_NUMBERS_MAX;
        if numbers.len() < FEED_STATE_NUMBERS_MAX && !is_last {
            return Ok(None);
        }
        let rest = numbers.split_off(numbers.len().min(FEED_STATE_NUMBERS_MAX));
        let told = std::mem::replace(numbers, rest);
        let (since, until) = (*since, view.begun());
        let position = if is_last { since } else { 0 };
        if is_last {
            self.phase = Phase::Settle { until, since };
        }
        Ok(Some(self.update(
            UpdateKind::State,
            [0, position, until],
            told,
        )))
    }

    fn read_changes(&mut self, from: u64) -> Option<Arc<Update>> {
        let feed = Arc::clone(&self.feed);
        let mut state = feed.lock();
        if !state.recent.knows_from(from) {
            // So far behind that the rest is not known any more.
            self.phase = Phase::Begin;
            return None;
        }
        let newest = state.recent.next_no();
        if from == newest {
            return None;
        }
        if self.skus.is_empty() {
            let made = feed.update_from(&mut state, from, self.position);
            self.phase = Phase::Changes {
                next_no: made.next_no,
            };
            self.position = made.update.position;
            self.conflated += made.conflated;
            return Some(made.update);
        }
        let numbers = state.recent.collect_of(&self.skus, from);
        let positions = [
            self.position,
            state.position.max(self.position),
            state.as_of,
        ];
        drop(state);
        self.phase = Phase::Changes { next_no: newest };
        if numbers.is_empty() {
            return None;
        }
        let update = self.update(UpdateKind::Changes, positions, numbers);
        Some(Arc::new(update))
    }

    /// Nothing changed up to where the feed is.
    fn heartbeat(&mut self) -> Update {
        let state = self.feed.lock();
        let is_all =
            matches!(self.phase, Phase::Changes { next_no } if next_no == state.recent.next_no());
        let position = if is_all {
            state.position.max(self.position)
        } else {
            self.position
        };
        let positions = [self.position, position, state.as_of];
        drop(state);
        self.update(UpdateKind::Heartbeat, positions, Vec::new())
    }

    fn update(
        &mut self,
        kind: UpdateKind,
        positions: [Position; 3],
        numbers: Vec<Number>,
    ) -> Update {
        self.position = positions[1];
        let of = (&self.feed.channel, &self.feed.log);
        Update::new(kind, of, positions, numbers)
    }
}

pub(super) fn state_number(sku: Arc<str>, units: i64) -> Number {
    Number {
        sku,
        units,
        before: None,
        logged_us: 0,
        occurred_us: 0,
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.subscriptions.fetch_sub(1, Relaxed);
    }
}
