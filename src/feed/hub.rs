//! All feeds of an instance: takes what changed, and tells who waits for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{
    Delivery, Ended, Number, Start, Subscription, Times, Update, UpdateKind, Way, recent::Recent,
};
use crate::{
    instance::{Instance, now_us},
    intake::Cut,
    limits::{FEED_UPDATE_NUMBERS_MAX, FEED_UPDATES_MADE_MAX},
    log::Position,
    proto::v1 as pb,
    shard::{Change, NotReadable},
};

/// How feeds are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Shortest time between two updates of a channel: what changes meanwhile is conflated.
    pub interval: Duration,
    /// SKUs of a channel whose last change is kept, to resume from.
    pub kept_max: usize,
    /// A receiver to which nothing was sent for so long is sent a heartbeat.
    pub heartbeat: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(5),
            kept_max: 100_000,
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// Time between two updates while nobody receives any: they are only to be resumed from.
const INTERVAL_ALONE: Duration = Duration::from_millis(250);

/// Changes that are published without a pause: less than a millisecond's work.
const CHANGES_AT_ONCE: usize = 2_048;

/// Why there is no subscription, or no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The rules have no such channel.
    #[error("there is no channel {0:?}")]
    NoChannel(String),
}

/// See the module. Ends when it is dropped, and with the instance.
#[derive(Debug)]
pub struct Feeds {
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// What subscriptions hold, too.
pub(super) struct Shared {
    pub(super) instance: Arc<Instance>,
    pub(super) options: Options,
    log: Arc<str>,
    feeds: RwLock<BTreeMap<Arc<str>, Arc<Feed>>>,
    /// The numbers of all feeds are those of this position.
    as_of: watch::Sender<Position>,
    /// Somebody waits for what has changed until now.
    hurry: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("log", &self.log).finish()
    }
}

/// What there is of one channel.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) channel: Arc<str>,
    pub(super) log: Arc<str>,
    state: Mutex<FeedState>,
    /// Counts what receivers are woken for.
    pub(super) changed: watch::Sender<u64>,
    /// Subscriptions, whoever holds them.
    pub(super) subscriptions: AtomicU64,
    published: AtomicU64,
    shown_different: AtomicU64,
    occurred_to_published: Times,
    logged_to_published: Times,
    deliveries: Mutex<Vec<Weak<Delivery>>>,
    /// All callers of `Watch`.
    pub(super) grpc: Arc<Delivery>,
}

#[derive(Debug)]
pub(super) struct FeedState {
    pub(super) recent: Recent,
    /// Everything up to here is published.
    pub(super) position: Position,
    /// The numbers are those of here.
    pub(super) as_of: Position,
    /// Position of the last update; there was nothing to tell since.
    told: Position,
    /// Updates that were made since the last change, by the number from which on they tell changes:
    /// receivers that are at the same place share them.
    made: BTreeMap<u64, Made>,
    pub(super) ended: Option<Ended>,
}

/// An update of the changes from a number on.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) update: Arc<Update>,
    /// Where to go on after it.
    pub(super) next_no: u64,
    /// Changes that were passed over, a newer one having come.
    pub(super) conflated: u64,
}

impl Feed {
    fn new(channel: &str, log: Arc<str>, position: Position, kept_max: usize) -> Self {
        let grpc = Delivery::new(Way::Grpc, "");
        Self {
            channel: channel.into(),
            log,
            state: Mutex::new(FeedState {
                recent: Recent::new(position, kept_max),
                position,
                as_of: position,
                told: position,
                made: BTreeMap::new(),
                ended: None,
            }),
            changed: watch::Sender::new(0),
            subscriptions: AtomicU64::new(0),
            published: AtomicU64::new(0),
            shown_different: AtomicU64::new(0),
            occurred_to_published: Times::default(),
            logged_to_published: Times::default(),
            deliveries: Mutex::new(vec![Arc::downgrade(&grpc)]),
            grpc,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes some of what changed. Times are measured unless it is long ago.
    fn take(&self, changes: &[Change], cut: &Cut, is_last: bool, is_live: bool) {
        let (now_us, count) = (now_us(), changes.len() as u64);
        if is_live && count > 0 {
            self.occurred_to_published
                .record_each(changes.iter().map(|own| own.occurred_us), now_us);
            self.logged_to_published
                .record_each(changes.iter().map(|own| own.logged_us), now_us);
        }
        self.published.fetch_add(count, Relaxed);
        let mut state = self.lock();
        let (after, from) = (state.position, state.recent.next_no());
        for change in changes {
            let number = Number {
                sku: Arc::clone(&change.sku),
                units: change.units,
                before: change.before,
                logged_us: change.logged_us,
                occurred_us: change.occurred_us,
            };
            state.recent.put(number, cut.position, after);
        }
        if cut.is_complete && is_last {
            state.position = cut.position;
        }
        state.as_of = cut.position;
        if count == 0 {
            return;
        }
        state.made.clear();
        if self.subscriptions.load(Relaxed) > 0 {
            self.make(&mut state, from);
        }
        state.told = state.position;
        drop(state);
        self.changed.send_modify(|changed| *changed += 1);
    }

    /// The next update for a receiver that has the changes before a number, and everything up to a
    /// position: mostly one that was made for others already. One that read the state while a large
    /// wave was being published may be ahead of the others, and is never taken back.
    pub(super) fn update_from(&self, state: &mut FeedState, from: u64, position: Position) -> Made {
        if let Some(made) = state.made.get(&from)
            && made.update.after <= position
            && made.update.position >= position
        {
            return made.clone();
        }
        let collected = state.recent.collect(from, FEED_UPDATE_NUMBERS_MAX);
        let complete_to = collected.complete_to.unwrap_or(state.position);
        let update = Update::new(
            UpdateKind::Changes,
            (&self.channel, &self.log),
            [position, complete_to.max(position), state.as_of],
            collected.numbers,
        );
        let made = Made {
            update: Arc::new(update),
            next_no: collected.next_no,
            conflated: collected.conflated,
        };
        if state.made.len() < FEED_UPDATES_MADE_MAX {
            state.made.insert(from, made.clone());
        }
        made
    }

    /// Makes the updates for all who are up to date.
    fn make(&self, state: &mut FeedState, mut from: u64) {
        let mut position = state.told;
        while from < state.recent.next_no() {
            let made = self.update_from(state, from, position);
            (from, position) = (made.next_no, made.update.position);
        }
    }

    fn end(&self, why: Ended) {
        self.lock().ended = Some(why);
        self.changed.send_modify(|changed| *changed += 1);
    }

    fn status(&self) -> pb::FeedStatus {
        let mut deliveries = self.lock_deliveries();
        deliveries.retain(|delivery| delivery.strong_count() > 0);
        let alive = deliveries.iter().filter_map(Weak::upgrade);
        let deliveries = alive.map(|delivery| delivery.status()).collect();
        let state = self.lock();
        pb::FeedStatus {
            channel: self.channel.as_ref().into(),
            position: state.position,
            resume_from: state.recent.known_after(),
            published: self.published.load(Relaxed),
            kept: state.recent.len() as u64,
            shown_different: self.shown_different.load(Relaxed),
            occurred_to_published: Some(self.occurred_to_published.summary()),
            logged_to_published: Some(self.logged_to_published.summary()),
            deliveries,
        }
    }

    fn lock_deliveries(&self) -> MutexGuard<'_, Vec<Weak<Delivery>>> {
        self.deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn new(instance: &Arc<Instance>, options: Options) -> Self {
        let position = instance.began_at();
        Self {
            instance: Arc::clone(instance),
            options,
            log: instance.log_identity().token().into(),
            feeds: RwLock::default(),
            as_of: watch::Sender::new(position),
            hurry: Notify::new(),
        }
    }

    /// The feed of a channel of the rules in force.
    pub(super) fn feed(&self, channel: &str) -> Result<Arc<Feed>, SubscribeError> {
        let read = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = read.get(channel) {
            return Ok(Arc::clone(feed));
        }
        drop(read);
        let rules = self.instance.view().rulebook().in_force();
        if rules.rules.channel(channel).is_none() {
            return Err(SubscribeError::NoChannel(channel.to_owned()));
        }
        Ok(self.feed_or_new(channel))
    }

    fn feed_or_new(&self, channel: &str) -> Arc<Feed> {
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(channel) {
            return Arc::clone(feed);
        }
        let (log, position) = (Arc::clone(&self.log), *self.as_of.borrow());
        let feed = Arc::new(Feed::new(channel, log, position, self.options.kept_max));
        feeds.insert(Arc::clone(&feed.channel), Arc::clone(&feed));
        feed
    }

    fn all(&self) -> Vec<Arc<Feed>> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        feeds.values().cloned().collect()
    }

    /// Has all published that is applied now, without delay. Gives the position of the numbers then.
    pub(super) async fn publish_now(&self) -> Position {
        let applied = self.instance.view().progress().position();
        self.hurry.notify_one();
        self.published_up_to(applied).await;
        *self.as_of.borrow()
    }

    /// Waits until what is published includes a position.
    pub(super) async fn published_up_to(&self, position: Position) {
        // The sender is here.
        let _ = self
            .as_of
            .subscribe()
            .wait_for(|own| *own >= position)
            .await;
    }

    /// Takes what changed, time and again.
    async fn publish(self: Arc<Self>) {
        let instance = Arc::clone(&self.instance);
        let mut last = None::<Instant>;
        loop {
            let as_of = *self.as_of.borrow();
            if as_of > 0 || last.is_some() {
                instance.view().progress().wait_for(as_of + 1).await;
            }
            let busy = self
                .all()
                .iter()
                .any(|feed| feed.subscriptions.load(Relaxed) > 0);
            let interval = match busy {
                true => self.options.interval,
                false => INTERVAL_ALONE.max(self.options.interval),
            };
            if let Some(last) = last {
                tokio::select! {
                    () = tokio::time::sleep_until(last + interval) => {}
                    () = self.hurry.notified() => {}
                }
            }
            // The rest of a large wave does not wait for anything to happen.
            loop {
                last = Some(Instant::now());
                let Ok(cut) = instance.cut().await else {
                    self.all().iter().for_each(|feed| feed.end(Ended::Stopping));
                    return;
                };
                let is_complete = cut.is_complete;
                self.take(cut).await;
                // A start is not to be slowed down by what nobody waits for yet.
                if is_complete || !instance.ready() {
                    break;
                }
            }
        }
    }

    async fn take(&self, mut cut: Cut) {
        let rules = Arc::clone(&cut.rules);
        let mut by_channel = vec![Vec::new(); rules.rules.channel_count()];
        for change in std::mem::take(&mut cut.changes) {
            by_channel[change.channel.index()].push(change);
        }
        let is_live = self.instance.ready();
        for (channel, name) in rules.rules.channels() {
            let changes = std::mem::take(&mut by_channel[channel.index()]);
            let feed = self.feed_or_new(name);
            let mut rest = &changes[..];
            loop {
                let (some, after) = rest.split_at(rest.len().min(CHANGES_AT_ONCE));
                feed.take(some, &cut, after.is_empty(), is_live);
                rest = after;
                if rest.is_empty() {
                    break;
                }
                // Queries have their turn.
                tokio::task::yield_now().await;
            }
        }
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|name, feed| {
            let stays = rules.rules.channel(name).is_some();
            if !stays {
                feed.end(Ended::NoChannel);
            }
            stays
        });
        drop(feeds);
        self.as_of.send_replace(cut.position);
    }
}

impl Feeds {
    /// Begins to publish what changes. The instance has to run with
    /// [`feeds`](crate::instance::Options::feeds).
    pub fn start(instance: &Arc<Instance>, options: Options) -> Arc<Self> {
        let shared = Arc::new(Shared::new(instance, options));
        let task = tokio::spawn(Arc::clone(&shared).publish()).abort_handle();
        Arc::new(Self { shared, task })
    }

    /// The log that positions are of.
    pub fn log(&self) -> &Arc<str> {
        &self.shared.log
    }

    /// The instance whose feeds these are.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.shared.instance
    }

    /// The numbers of all feeds are those of this position.
    pub fn as_of(&self) -> Position {
        *self.shared.as_of.borrow()
    }

    /// Waits until what is published includes a position. Bound it with a time-out.
    pub async fn published_up_to(&self, position: Position) {
        self.shared.published_up_to(position).await;
    }

    /// Has all published that is applied now, without delay.
    pub async fn publish_now(&self) {
        self.shared.publish_now().await;
    }

    /// Subscribes to a channel; to these SKUs, or to all if there are none. Of a position that is
    /// ahead of this instance, it waits until that is published.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(
        &self,
        channel: &str,
        skus: Vec<String>,
        start: Start,
    ) -> Result<Subscription, SubscribeError> {
        let feed = self.shared.feed(channel)?;
        Ok(Subscription::new(
            Arc::clone(&self.shared),
            feed,
            skus,
            start,
        ))
    }

    pub(super) fn feed(&self, channel: &str) -> Result<Arc<Feed>, SubscribeError> {
        self.shared.feed(channel)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The published number of a SKU as it is now; `None` if no movement ever named the SKU.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn published(&self, channel: &str, sku: &str) -> Result<Option<i64>, SubscribeError> {
        loop {
            match self.shared.instance.view().published(channel, sku) {
                Ok(units) => return Ok(units),
                Err(NotReadable::NoChannel) => {
                    return Err(SubscribeError::NoChannel(channel.to_owned()));
                }
                Err(NotReadable::RulesChange) => rules_change().await,
            }
        }
    }

    /// The channels of the rules in force.
    pub fn channels(&self) -> Vec<Arc<str>> {
        let rules = self.instance().view().rulebook().in_force();
        let names = rules.rules.channels();
        names.map(|(_, name)| name.into()).collect()
    }

    /// Whether anything changed after a position; `None` if there is no such channel.
    pub fn has_changes_after(&self, channel: &str, position: Position) -> Option<bool> {
        let feed = self.shared.feed(channel).ok()?;
        let state = feed.lock();
        let first = state.recent.first_after(position);
        Some(first.is_none_or(|first| first < state.recent.next_no()))
    }

    /// The last change of a SKU: its position, and when it was logged; `None` if it is so long ago
    /// that it is not kept, or there is none.
    pub fn last_change(&self, channel: &str, sku: &str) -> Option<(Position, i64)> {
        let feed = self.shared.feed(channel).ok()?;
        let state = feed.lock();
        let entry = state.recent.of(sku)?;
        Some((entry.as_of, entry.number.logged_us))
    }

    /// How far NATS and webhooks have got with a channel, the one that is furthest behind; `None` if
    /// there are none.
    pub fn delivered(&self, channel: &str) -> Option<Position> {
        let feed = self.shared.feed(channel).ok()?;
        let deliveries = feed.lock_deliveries();
        let alive = deliveries.iter().filter_map(Weak::upgrade);
        let own = alive.filter(|delivery| delivery.way != Way::Grpc);
        own.map(|delivery| delivery.position()).min()
    }

    /// Read-back found differences.
    pub fn count_shown_different(&self, channel: &str, count: u64) {
        if let Ok(feed) = self.shared.feed(channel) {
            feed.shown_different.fetch_add(count, Relaxed);
        }
    }

    /// The state of a way of delivery is told, as long as it is there. Once more changes nothing.
    pub fn register(&self, channel: &str, delivery: &Arc<Delivery>) {
        let Ok(feed) = self.shared.feed(channel) else {
            return;
        };
        let (mut all, own) = (feed.lock_deliveries(), Arc::downgrade(delivery));
        if !all.iter().any(|other| other.ptr_eq(&own)) {
            all.push(own);
        }
    }

    /// How all feeds stand, by channel.
    pub fn status(&self) -> Vec<pb::FeedStatus> {
        let feeds = self.channels().into_iter();
        let feeds = feeds.filter_map(|channel| self.feed(&channel).ok());
        feeds.map(|feed| feed.status()).collect()
    }

    /// Visits the channels with what they measured: how long it took until changes were published,
    /// since they occurred and since they were logged, and ways of delivery.
    pub fn measured(&self, mut visit: impl FnMut(&str, [&Times; 2], &[Arc<Delivery>])) {
        for feed in self.shared.all() {
            let deliveries: Vec<Arc<Delivery>> = feed
                .lock_deliveries()
                .iter()
                .filter_map(Weak::upgrade)
                .collect();
            let times = [&feed.occurred_to_published, &feed.logged_to_published];
            visit(&feed.channel, times, &deliveries);
        }
    }

    /// Ends all subscriptions, so that callers go elsewhere.
    pub fn stop(&self) {
        self.task.abort();
        for feed in self.shared.all() {
            feed.end(Ended::Stopping);
        }
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits a little for rules to be in force everywhere.
pub(super) async fn rules_change() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ahead_of_the_others_is_not_taken_back() {
        let feed = Feed::new("web", "log".into(), 0, 100);
        let mut state = feed.lock();
        let from = state.recent.next_no();
        let number = Number {
            sku: "A".into(),
            units: 1,
            before: None,
            logged_us: 0,
            occurred_us: 0,
        };
        // Part of a large wave: nothing is complete after position 0 yet.
        state.recent.put(number, 15, 0);
        let mut update = |position| feed.update_from(&mut state, from, position).update;
        let behind = update(0);
        assert_eq!((behind.after, behind.position), (0, 0));
        let ahead = update(15);
        assert_eq!((ahead.after, ahead.position), (15, 15));
        assert_eq!(ahead.numbers, behind.numbers);
        assert_eq!(update(0).position, 0);
    }
}
