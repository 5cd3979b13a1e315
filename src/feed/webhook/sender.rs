//! The task of one webhook: waits for its turn, takes what changes, sends it, and writes down how far
//! that got.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use futures::FutureExt;
use governor::clock::MonotonicClock;
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

use super::{
    client::Client,
    document::Settings,
    lease::{Lease, Turn},
    outbox::{Next, Outbox, Report},
};
use crate::{
    feed::{Delivery, Ended, Feeds, Start, State, Subscription, Way},
    instance::Instance,
    intake::{PostError, Standing, Standings},
};

/// Progress is written that often, at most.
const REPORT_EVERY: Duration = Duration::from_secs(3);
/// What cannot be done now is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Sender {
    feeds: Arc<Feeds>,
    settings: Arc<Settings>,
    client: Client,
    delivery: Arc<Delivery>,
    lease: Lease,
    standings: watch::Receiver<Arc<Standings>>,
}

/// Why it delivers no more.
enum Over {
    /// It is to stop, or the instance is stopping.
    Stopped,
    /// Another instance delivers.
    Lost,
    /// The rules have no such channel any more.
    NoChannel,
}

impl From<Ended> for Over {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::NoChannel => Self::NoChannel,
            Ended::Stopping => Self::Stopped,
        }
    }
}

impl Sender {
    pub(super) fn new(feeds: &Arc<Feeds>, settings: Settings, alone: bool) -> io::Result<Self> {
        let client = Client::new(&settings.url, settings.timeout).map_err(|error| {
            let (name, url) = (&settings.name, &settings.url);
            let text = format!("the webhook {name:?} cannot be sent to {url}: {error}");
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self {
            feeds: Arc::clone(feeds),
            client,
            delivery: Delivery::new(Way::Webhook, &settings.name),
            lease: Lease::new(&settings.name, alone, settings.timeout),
            standings: feeds.instance().deliveries().watch(),
            settings: Arc::new(settings),
        })
    }

    /// Delivers until it is to stop.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut stopped = stop.clone();
        let stopped = async move {
            // An error means that nobody is there any more.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        tokio::pin!(stopped);
        let instance = Arc::clone(self.instance());
        loop {
            let turn = async {
                instance.caught_up().await;
                self.turn().await;
            };
            tokio::select! {
                biased;
                () = &mut stopped => return,
                () = turn => {}
            }
            match self.deliver(&mut stop).await {
                Over::Stopped => return,
                Over::Lost => tracing::info!(webhook = self.name(), "another instance delivers"),
                Over::NoChannel => {}
            }
        }
    }

    fn name(&self) -> &str {
        &self.settings.name
    }

    fn instance(&self) -> &Arc<Instance> {
        self.feeds.instance()
    }

    fn standing(&mut self) -> Arc<Standing> {
        let all = self.standings.borrow_and_update();
        all.get(&self.settings.name).cloned().unwrap_or_default()
    }

    async fn subscribe(&self, position: u64) -> Subscription {
        let mut is_said = false;
        loop {
            let start = match position {
                0 => Start::State,
                position => Start::After(position),
            };
            match self
                .feeds
                .subscribe(&self.settings.channel, Vec::new(), start)
            {
                Ok(subscription) => {
                    self.feeds.register(&self.settings.channel, &self.delivery);
                    return subscription;
                }
                Err(error) if !is_said => {
                    is_said = true;
                    // Without a channel there is no place where its state could be told.
                    tracing::warn!(webhook = self.name(), %error, "waiting for its channel");
                }
                Err(_) => {}
            }
            sleep(AGAIN).await;
        }
    }

    /// Waits until this instance is the one that delivers.
    async fn turn(&mut self) {
        // There is no use in being the one without a channel.
        drop(self.subscribe(1).await);
        loop {
            let standing = self.standing();
            self.delivery.reached(standing.position);
            match self.lease.turn(self.feeds.instance(), &standing) {
                Turn::Ours => {
                    if self.claim().await {
                        return;
                    }
                }
                Turn::Theirs(left) => {
                    self.delivery.set_state(State::Standby);
                    tokio::select! {
                        () = sleep(left) => {}
                        _ = self.standings.changed() => {}
                    }
                }
                Turn::Over => {
                    self.delivery.set_state(State::Standby);
                    let is_left = async {
                        self.work(standing.position).await;
                        sleep(Lease::grace()).await;
                    };
                    let mut standings = self.standings.clone();
                    tokio::select! {
                        () = is_left => if self.claim().await {
                            return;
                        },
                        _ = standings.changed() => {}
                    }
                }
            }
        }
    }

    /// Waits until something changed after a position.
    async fn work(&self, position: u64) {
        loop {
            let mut updates = self.subscribe(position).await;
            while let Ok(update) = updates.next().await {
                if !update.numbers.is_empty() {
                    return;
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn claim(&mut self) -> bool {
        let instance = Arc::clone(self.instance());
        match self.lease.write(&instance, &Report::default()).await {
            Ok(true) => true,
            Ok(false) => {
                // What was decided instead is known only once it was looked at.
                sleep(Duration::from_millis(100)).await;
                false
            }
            Err(error) => {
                self.delivery.failed(&error.to_string());
                sleep(AGAIN).await;
                false
            }
        }
    }

    /// Delivers as long as it is this instance's turn.
    async fn deliver(&mut self, stop: &mut watch::Receiver<bool>) -> Over {
        let standing = self.standing();
        // Whoever delivered before told nothing of a later position than that of our claim. What is
        // told from now on is later, so that no receiver takes it for old.
        let claimed = self.instance().view().progress().position();
        let subscribed = async {
            self.feeds.published_up_to(claimed).await;
            self.subscribe(standing.position).await
        };
        let updates = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            updates = subscribed => Some(updates),
        };
        let Some(mut updates) = updates else {
            self.release(&Report::default()).await;
            return Over::Stopped;
        };
        self.delivery.set_state(State::Delivering);
        let clock = MonotonicClock;
        let log = Arc::clone(self.feeds.log());
        let mut outbox = Outbox::new(&self.settings, &log, &self.delivery, standing, &clock);
        let over = self.deliver_from(&mut updates, &mut outbox, stop).await;
        if !matches!(over, Over::Lost) {
            self.give_up(&mut outbox).await;
        }
        self.delivery.waiting.store(0, Relaxed);
        over
    }

    async fn deliver_from(
        &mut self,
        updates: &mut Subscription,
        outbox: &mut Outbox,
        stop: &mut watch::Receiver<bool>,
    ) -> Over {
        let mut report_at = Instant::now() + REPORT_EVERY;
        let mut throttled = None::<Instant>;
        loop {
            if *stop.borrow_and_update() {
                return Over::Stopped;
            }
            if self.standings.has_changed().unwrap_or(false) {
                outbox.stands(self.standing(), Instant::now());
            }
            // Everything that is there, so that the most urgent of it goes first.
            while !outbox.is_full()
                && let Some(update) = updates.next().now_or_never()
            {
                match update {
                    Ok(update) => outbox.take(&update, Instant::now()),
                    Err(ended) => return ended.into(),
                }
            }
            let now = Instant::now();
            let renew_at = self.lease.renew_at().filter(|_| !outbox.is_empty());
            let report = outbox.has_report().then_some(report_at);
            let due = [renew_at, report].into_iter().flatten().min();
            if due.is_some_and(|due| due <= now) || !self.lease.holds(now) && !outbox.is_empty() {
                match self.report(outbox).await {
                    Ok(true) => {}
                    Ok(false) => return Over::Lost,
                    Err(error) => {
                        tracing::warn!(webhook = self.name(), %error, "its progress is not written");
                        sleep(AGAIN).await;
                        if !self.lease.holds(Instant::now()) {
                            return Over::Lost;
                        }
                    }
                }
                report_at = Instant::now() + REPORT_EVERY;
                continue;
            }
            let wake = match outbox.next(now) {
                Next::Nothing => None,
                Next::Wait(until, state) => {
                    if state != State::Delivering {
                        self.delivery.set_state(state);
                    }
                    Some(until)
                }
                Next::Send if throttled.is_some_and(|until| now < until) => throttled,
                Next::Send => match outbox.send(jiff::Timestamp::now()) {
                    Ok(message) => {
                        throttled = None;
                        if let Err(over) = self.attempt(&message, updates, outbox).await {
                            return over;
                        }
                        continue;
                    }
                    Err(wait) => {
                        self.delivery.set_state(State::Throttled);
                        throttled = Some(now + wait);
                        throttled
                    }
                },
            };
            let wake = wake.into_iter().chain(due).min();
            let slept = async {
                match wake {
                    Some(wake) => sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                _ = self.standings.changed() => outbox.stands(self.standing(), Instant::now()),
                update = updates.next(), if !outbox.is_full() => match update {
                    Ok(update) => outbox.take(&update, Instant::now()),
                    Err(ended) => return ended.into(),
                },
                () = slept => {}
            }
        }
    }

    /// Sends a message, and takes what changes meanwhile.
    async fn attempt(
        &self,
        message: &super::body::Message,
        updates: &mut Subscription,
        outbox: &mut Outbox,
    ) -> Result<(), Over> {
        let sent = self.client.send(&self.settings, message, SystemTime::now());
        tokio::pin!(sent);
        let mut ended = None;
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut sent => break answer,
                update = updates.next(), if !outbox.is_full() && ended.is_none() => match update {
                    Ok(update) => outbox.take(&update, Instant::now()),
                    // What is on its way may still arrive, and is then worth knowing.
                    Err(why) => ended = Some(why),
                },
            }
        };
        outbox.answered(answer, Instant::now(), fastrand::u64(..));
        ended.map_or(Ok(()), |why| Err(why.into()))
    }

    /// Writes what there is to write, and renews the lease. False: another instance delivers.
    async fn report(&mut self, outbox: &mut Outbox) -> Result<bool, PostError> {
        let instance = Arc::clone(self.instance());
        loop {
            let report = outbox.report();
            if !self.lease.write(&instance, &report).await? {
                return Ok(false);
            }
            outbox.reported(&report);
            // More than fits one record.
            if outbox.report().dead_letters.is_empty() {
                return Ok(true);
            }
        }
    }

    /// The last progress, so that little is sent twice.
    async fn give_up(&mut self, outbox: &mut Outbox) {
        // What does not fit one record goes before.
        match self.report(outbox).await {
            Ok(true) => self.release(&outbox.report()).await,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(webhook = self.name(), %error, "its last progress is not written");
            }
        }
    }

    /// Lets another instance deliver.
    async fn release(&mut self, report: &Report) {
        let instance = Arc::clone(self.instance());
        if let Err(error) = self.lease.give_up(&instance, report).await {
            tracing::warn!(webhook = self.name(), %error, "its lease is not given up");
        }
    }
}
