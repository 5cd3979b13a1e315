//! Watchers: callers of `Feeds.Watch`, who are told what a channel may sell as it changes.
//!
//! A watcher keeps what it was told, as a marketplace connector would. Two promises are held up
//! against it: positions never leave a gap or go back, and once everything was delivered, its
//! numbers are those that queries answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::JoinHandle};
use tonic::{Code, Streaming};

use super::Link;
use crate::{
    Failure,
    catalogue::Catalogue,
    findings::{Check, Findings},
    proto::{AvailabilityUpdate, GetRequest, WatchRequest, availability_update::Kind},
    words::code_name,
};

/// Positions of which it is remembered when the first watcher was told; probes ask for them soon.
const REMEMBERED: usize = 8_192;
/// How long a watcher may take to be told of everything, once nothing happens any more.
const LAST_MAX: Duration = Duration::from_secs(15);
/// SKUs of one query that compares, the most there may be.
const BATCH: usize = 1_000;
/// How long the state of a channel may take.
const STATE_MAX: Duration = Duration::from_secs(60);

/// All watchers of a session. Dropping them ends their streams.
#[derive(Debug, Default)]
pub struct Watchers {
    each: Vec<Arc<Watcher>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One of them.
#[derive(Debug)]
pub struct Watcher {
    channel: String,
    seen: Mutex<Seen>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    /// It has been told of everything up to here.
    position: u64,
    /// By SKU: its number; none if it was never told one.
    numbers: Vec<Option<i64>>,
    /// When it was told of which position, the newest last.
    told: VecDeque<(u64, Instant)>,
    updates: u64,
    /// What was wrong, first.
    wrong: Option<String>,
}

impl Watchers {
    /// Opens so many for each channel, and waits until each has the whole state.
    ///
    /// # Errors
    /// If the server has no feeds, or one is not told the state.
    pub async fn open(
        links: &[Link],
        catalogue: &Arc<Catalogue>,
        per_channel: u32,
    ) -> Result<Self, Failure> {
        let mut watchers = Self::default();
        for channel in catalogue.channels() {
            for _ in 0..per_channel {
                let link = &links[watchers.each.len() % links.len()];
                watchers.add(link, channel, catalogue).await?;
            }
        }
        for watcher in &watchers.each {
            if watcher.reach(1, STATE_MAX).await.is_none() {
                let what = format!("a watcher of {} is not told the state", watcher.channel);
                return Err(Failure::failed(what));
            }
        }
        Ok(watchers)
    }

    async fn add(
        &mut self,
        link: &Link,
        channel: &str,
        catalogue: &Arc<Catalogue>,
    ) -> Result<(), Failure> {
        let request = WatchRequest {
            channel: channel.to_owned(),
            ..WatchRequest::default()
        };
        let updates = link.feeds().watch(request).await.map_err(|status| {
            let code = code_name(status.code());
            let failure = Failure::failed(format!(
                "the server refuses a watcher of {channel}: {code}: {}",
                status.message()
            ));
            match status.code() {
                Code::Unimplemented => {
                    failure.hint("use a server that has feeds, or set watchers.per_channel = 0")
                }
                _ => failure,
            }
        })?;
        let watcher = Arc::new(Watcher {
            channel: channel.to_owned(),
            seen: Mutex::new(Seen {
                numbers: vec![None; catalogue.skus() as usize],
                ..Seen::default()
            }),
            news: Notify::new(),
        });
        let follow = watcher
            .clone()
            .follow(updates.into_inner(), catalogue.clone());
        self.tasks.push(tokio::spawn(follow));
        self.each.push(watcher);
        Ok(())
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Numbers and states that all of them were told.
    pub fn updates(&self) -> u64 {
        self.each.iter().map(|watcher| watcher.seen().updates).sum()
    }

    /// When the first watcher, which is one of the first channel, has been told of everything up to
    /// a position; none if that takes too long.
    pub(super) async fn told(&self, position: u64, patience: Duration) -> Option<Instant> {
        self.each.first()?.reach(position, patience).await
    }

    /// Compares what they were told with what queries answer. Nothing may happen meanwhile.
    pub async fn check(&self, link: &Link, catalogue: &Catalogue, last: u64, into: &Findings) {
        for watcher in &self.each {
            watcher.check(link, catalogue, last, into).await;
        }
    }
}

impl Watcher {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(
        self: Arc<Self>,
        mut updates: Streaming<AvailabilityUpdate>,
        catalogue: Arc<Catalogue>,
    ) {
        loop {
            match updates.message().await {
                Ok(Some(update)) => self.seen().take(&update, &catalogue),
                Ok(None) => break self.seen().wrong("the server ended the stream".to_owned()),
                Err(status) => break self.seen().wrong(status.message().to_owned()),
            }
            self.news.notify_waiters();
        }
        self.news.notify_waiters();
    }

    async fn reach(&self, position: u64, patience: Duration) -> Option<Instant> {
        let reached = async {
            loop {
                // Before looking, so that no news is missed in between.
                let news = self.news.notified();
                {
                    let seen = self.seen();
                    if seen.position >= position {
                        let told = seen.told.iter().find(|(told, _)| *told >= position);
                        break told.map(|(_, at)| *at);
                    }
                    if seen.wrong.is_some() {
                        break None;
                    }
                }
                news.await;
            }
        };
        tokio::time::timeout(patience, reached).await.ok().flatten()
    }

    async fn check(&self, link: &Link, catalogue: &Catalogue, last: u64, into: &Findings) {
        let reached = self.reach(last, LAST_MAX).await.is_some();
        let (numbers, position, wrong) = {
            let seen = self.seen();
            (seen.numbers.clone(), seen.position, seen.wrong.clone())
        };
        let channel = &self.channel;
        into.that(Check::Watched, reached && wrong.is_none(), || {
            format!("a watcher of {channel} is at {position} of {last}; {wrong:?}")
        });
        for (n, batch) in numbers.chunks(BATCH).enumerate() {
            // A catalogue has at most some millions of SKUs.
            let first = (n * BATCH) as u32;
            let request = GetRequest {
                channel: channel.clone(),
                skus: (first..)
                    .take(batch.len())
                    .map(|sku| catalogue.sku(sku))
                    .collect(),
                ..GetRequest::default()
            };
            let Ok(answer) = link.availability().get(request).await else {
                into.note(Check::Watched, "a query that compares was not answered");
                return;
            };
            for (item, told) in answer.into_inner().items.iter().zip(batch) {
                // Nothing is told of what never could be sold.
                let right = told.unwrap_or(0) == item.ats;
                into.that(Check::Watched, right, || {
                    let (sku, ats) = (&item.sku, item.ats);
                    format!("{sku} on {channel}: told {told:?}, queries answer {ats}")
                });
            }
        }
    }
}

impl Seen {
    fn take(&mut self, update: &AvailabilityUpdate, catalogue: &Catalogue) {
        self.updates += 1;
        if update.after_position > self.position {
            let (after, position) = (update.after_position, self.position);
            self.wrong(format!("a gap: after {after} follows {position}"));
        }
        // Parts of a state have no position but for the last.
        let is_state = update.kind() == Kind::State;
        if !is_state && update.position < self.position {
            let (next, position) = (update.position, self.position);
            self.wrong(format!("back from {position} to {next}"));
        }
        for number in &update.numbers {
            if let Some(sku) = catalogue.number_of(&number.sku)
                && let Some(known) = self.numbers.get_mut(sku as usize)
            {
                *known = Some(number.units);
            }
        }
        if update.position > self.position {
            self.position = update.position;
            if self.told.len() == REMEMBERED {
                self.told.pop_front();
            }
            self.told.push_back((update.position, Instant::now()));
        }
    }

    fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{proto::PublishedNumber, scenario};

    fn update(kind: Kind, after: u64, position: u64, units: i64) -> AvailabilityUpdate {
        AvailabilityUpdate {
            kind: kind.into(),
            after_position: after,
            position,
            numbers: vec![PublishedNumber {
                sku: "lt-0000001".to_owned(),
                units,
            }],
            ..AvailabilityUpdate::default()
        }
    }

    fn told(updates: &[AvailabilityUpdate]) -> Seen {
        let config = scenario::Catalogue {
            skus: 2,
            ..scenario::Catalogue::default()
        };
        let catalogue = Catalogue::new(&config, "lt", 1);
        let mut seen = Seen {
            numbers: vec![None; 2],
            ..Seen::default()
        };
        for update in updates {
            seen.take(update, &catalogue);
        }
        seen
    }

    #[test]
    fn the_state_comes_in_parts_and_changes_follow_without_a_gap() {
        let seen = told(&[
            update(Kind::State, 0, 0, 5),
            update(Kind::State, 0, 8, 6),
            update(Kind::Changes, 8, 12, 7),
            update(Kind::Heartbeat, 12, 15, 7),
        ]);
        assert_eq!((seen.wrong.clone(), seen.position), (None, 15));
        assert_eq!(seen.numbers, [None, Some(7)]);
    }

    #[test]
    fn gaps_and_steps_back_are_found() {
        let gap = told(&[
            update(Kind::State, 0, 8, 1),
            update(Kind::Changes, 9, 12, 2),
        ]);
        assert_eq!(gap.wrong.as_deref(), Some("a gap: after 9 follows 8"));
        let back = told(&[update(Kind::State, 0, 8, 1), update(Kind::Changes, 5, 7, 2)]);
        assert_eq!(back.wrong.as_deref(), Some("back from 8 to 7"));
    }
}
