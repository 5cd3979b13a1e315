//! What one webhook is to send, when, and what follows from each answer. It has no network, no log
//! and no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use governor::clock::{Clock, MonotonicClock};

use super::{
    body::{Data, Message},
    breaker::{Breaker, Circuit},
    client::{Answer, Failure},
    document::Settings,
    pending::{Fate, Pending, Waiting},
    quota::Quota,
};
use crate::{
    feed::{Delivery, State, Update},
    intake::Standing,
    limits::{DEAD_LETTERS_MAX, DEAD_LETTERS_RECORD_MAX, WEBHOOK_PENDING_SKUS_MAX},
    log::Position,
    proto::v1 as pb,
};

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing waits.
    Nothing,
    /// Nothing before this moment, unless more comes; and why.
    Wait(Instant, State),
    /// Something may be sent.
    Send,
}

/// What is to be written into the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Everything up to here was delivered.
    pub position: Position,
    /// Given up since the last report.
    pub dead_letters: Vec<pb::DeadLetter>,
    /// Owed no more since the last report.
    pub settled: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox<C: Clock = MonotonicClock> {
    settings: Arc<Settings>,
    log: Arc<str>,
    delivery: Arc<Delivery>,
    pending: Pending,
    breaker: Breaker,
    quota: Option<Quota<C>>,
    /// Since when something waits.
    since: Option<Instant>,
    /// Numbers of one request: fewer, while one that is refused is looked for.
    items_max: usize,
    batch: Vec<Waiting>,
    /// The last one that was not taken.
    message: Option<Message>,
    /// Given up, and not in the log yet.
    dead: BTreeMap<String, pb::DeadLetter>,
    /// Taken although they were given up, and not in the log yet.
    settled: BTreeSet<String>,
    /// The dead letters of the log.
    standing: Arc<Standing>,
    /// Dead letters that are tried again, and when they were given up.
    again: HashMap<String, i64>,
    /// Numbers were taken since the last report.
    is_news: bool,
    recorded: Position,
    conflated: u64,
}

impl<C: Clock + Clone> Outbox<C> {
    /// Goes on from where the webhook stands.
    pub fn new(
        settings: &Arc<Settings>,
        log: &Arc<str>,
        delivery: &Arc<Delivery>,
        standing: Arc<Standing>,
        clock: &C,
    ) -> Self {
        let quota = settings.quota.as_ref();
        let mut outbox = Self {
            settings: Arc::clone(settings),
            log: Arc::clone(log),
            delivery: Arc::clone(delivery),
            pending: Pending::new(standing.position),
            breaker: Breaker::new(settings.retry.start, settings.retry.end),
            quota: quota.map(|limits| Quota::new(limits, clock)),
            since: None,
            items_max: settings.batch_items,
            batch: Vec::new(),
            message: None,
            dead: BTreeMap::new(),
            settled: BTreeSet::new(),
            recorded: standing.position,
            standing: Arc::default(),
            again: HashMap::new(),
            is_news: false,
            conflated: 0,
        };
        outbox.stands(standing, Instant::now());
        outbox
    }

    /// Whether as much waits as may; then no more is to be taken.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= WEBHOOK_PENDING_SKUS_MAX
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes the numbers of an update.
    pub fn take(&mut self, update: &Update, now: Instant) {
        self.pending.take(update);
        self.count(now);
    }

    /// The log says how the webhook stands: dead letters may be wanted once more.
    pub fn stands(&mut self, standing: Arc<Standing>, now: Instant) {
        for (sku, letter) in standing.dead_letters.iter().filter(|(_, own)| own.retry) {
            if self.again.get(sku) != Some(&letter.given_up_us) {
                // Its number is the newest, or else a newer one waits, or comes.
                self.pending.again(sku, letter.units, letter.position);
                self.again.insert(sku.clone(), letter.given_up_us);
            }
        }
        self.again
            .retain(|sku, _| standing.dead_letters.contains_key(sku));
        self.standing = standing;
        self.count(now);
    }

    /// What comes next. The quota is looked at only when something is [sent](Outbox::send).
    pub fn next(&self, now: Instant) -> Next {
        let Some(since) = self.since else {
            return Next::Nothing;
        };
        let state = match self.breaker.circuit() {
            Circuit::Closed => State::Delivering,
            Circuit::Retrying(_) => State::Retrying,
            Circuit::Open(_) => State::CircuitOpen,
        };
        let is_whole = self.pending.waiting() >= self.settings.batch_items;
        let gathered = (!is_whole).then(|| since + self.settings.batch_delay);
        match gathered.max(self.breaker.until()) {
            Some(until) if until > now => Next::Wait(until, state),
            _ => Next::Send,
        }
    }

    /// The message to be sent now. What it is about is on its way until its answer is
    /// [taken](Outbox::answered). The same numbers as in the last attempt are the same message.
    ///
    /// # Errors
    /// How long the quota wants to be waited for.
    pub fn send(&mut self, wall: jiff::Timestamp) -> Result<Message, Duration> {
        let mut items = self.items_max.min(self.pending.waiting());
        if let Some(quota) = &mut self.quota {
            items = quota.take(items)?;
        }
        let batch = self.pending.send(items);
        let same =
            |(a, b): (&Waiting, &Waiting)| (&a.sku, a.units, a.as_of) == (&b.sku, b.units, b.as_of);
        let is_same = self.batch.len() == batch.len() && self.batch.iter().zip(&batch).all(same);
        if self.message.is_none() || !is_same {
            let data = Data {
                webhook: &self.settings.name,
                channel: &self.settings.channel,
                after_position: self.pending.reached(),
                position: self.pending.reached_once_taken(),
                log: &self.log,
                numbers: &batch,
            };
            self.message = Some(Message::new(data, wall));
        }
        self.batch = batch;
        Ok(self.message.clone().expect("just made"))
    }

    /// The answer to what was sent. `chance` is a random number.
    pub fn answered(&mut self, answer: Answer, now: Instant, chance: u64) {
        match answer {
            Answer::Taken { rejected } => self.taken(&rejected, now, chance),
            Answer::Refused(reason) => self.refused(&reason, now, chance),
            Answer::Failed(failure) => self.failed(&failure, now, chance),
        }
        self.count(now);
    }

    fn taken(&mut self, rejected: &HashMap<String, String>, now: Instant, chance: u64) {
        self.message = None;
        self.is_news = true;
        self.breaker.succeeded();
        self.items_max = (self.items_max * 2).min(self.settings.batch_items);
        let room = DEAD_LETTERS_MAX.saturating_sub(self.dead_letters());
        let (mut given_up, mut no_room) = (Vec::new(), false);
        let (mut taken, mut oldest_us) = (0, None::<(i64, i64)>);
        let (dead, settled, standing) = (&mut self.dead, &mut self.settled, &self.standing);
        self.pending.ended(|own, newer| {
            let Some(reason) = rejected.get(&*own.sku) else {
                taken += 1;
                oldest_us = [oldest_us, own.oldest_us]
                    .into_iter()
                    .flatten()
                    .min_by_key(|(_, logged_us)| *logged_us);
                dead.remove(&*own.sku);
                if standing.dead_letters.contains_key(&*own.sku) {
                    settled.insert(own.sku.to_string());
                }
                return Fate::Done;
            };
            // Whatever comes of the newer one counts.
            if newer {
                return Fate::Done;
            }
            let known = standing.dead_letters.contains_key(&*own.sku);
            if given_up.len() >= room && !known {
                no_room = true;
                return Fate::Refused;
            }
            given_up.push((own.clone(), super::body::reason(200, reason)));
            Fate::Done
        });
        self.delivery.delivered_numbers(taken, oldest_us);
        for (own, reason) in given_up {
            self.give_up(&own, reason);
        }
        if no_room {
            self.no_room(now, chance);
        } else {
            self.delivery.set_state(State::Delivering);
        }
    }

    /// Something in the message is refused: which number, is found by sending fewer of them.
    fn refused(&mut self, reason: &str, now: Instant, chance: u64) {
        self.delivery.failed(reason);
        let [own] = &self.batch[..] else {
            self.items_max = (self.batch.len() / 2).max(1);
            self.pending.ended(|_, _| Fate::Again);
            return;
        };
        let own = own.clone();
        if own.refused + 1 < self.settings.attempts_max {
            self.pending.ended(|_, _| Fate::Refused);
            self.breaker.failed(now, None, chance);
            return;
        }
        let known = self.standing.dead_letters.contains_key(&*own.sku);
        if self.dead_letters() >= DEAD_LETTERS_MAX && !known {
            self.pending.ended(|_, _| Fate::Refused);
            self.no_room(now, chance);
            return;
        }
        let mut has_newer = false;
        self.pending.ended(|_, newer| {
            has_newer = newer;
            Fate::Done
        });
        self.message = None;
        self.is_news = true;
        self.items_max = 2.min(self.settings.batch_items);
        // It answers, and is to get the others.
        self.breaker.succeeded();
        if !has_newer {
            self.give_up(&own, reason.to_owned());
        }
    }

    fn failed(&mut self, failure: &Failure, now: Instant, chance: u64) {
        self.delivery.failed(&failure.why);
        self.pending.ended(|_, _| Fate::Again);
        if failure.is_gone {
            self.breaker.gone(now, failure.retry_after, chance);
        } else {
            self.breaker.failed(now, failure.retry_after, chance);
        }
    }

    fn no_room(&mut self, now: Instant, chance: u64) {
        self.delivery.failed(&format!(
            "{DEAD_LETTERS_MAX} numbers were refused for good, and no more are given up: see what is \
             wrong with them, and have them tried again"
        ));
        self.breaker.gone(now, None, chance);
    }

    fn give_up(&mut self, own: &Waiting, reason: String) {
        let sku = own.sku.to_string();
        tracing::warn!(webhook = %self.settings.name, sku, units = own.units, reason, "refused for good");
        self.settled.remove(&sku);
        let letter = pb::DeadLetter {
            sku: sku.clone(),
            units: own.units,
            reason,
            given_up_at: None,
            position: own.as_of,
        };
        self.dead.insert(sku, letter);
    }

    /// Numbers that were given up, and are owed.
    fn dead_letters(&self) -> usize {
        let known = &self.standing.dead_letters;
        let new = self.dead.keys().filter(|sku| !known.contains_key(*sku));
        (known.len() + new.count()).saturating_sub(self.settled.len())
    }

    /// Whether there is something that the log does not know yet.
    pub fn has_report(&self) -> bool {
        let moved = self.is_news && self.pending.reached() > self.recorded;
        moved || !self.dead.is_empty() || !self.settled.is_empty()
    }

    /// What the log is to be told. The position does not go past a dead letter that is not in it: where
    /// there are too many for one record, it follows with the last of them.
    pub fn report(&self) -> Report {
        let dead = self.dead.values().take(DEAD_LETTERS_RECORD_MAX);
        let settled = self.settled.iter().take(DEAD_LETTERS_RECORD_MAX);
        Report {
            position: match self.dead.len() > DEAD_LETTERS_RECORD_MAX {
                true => self.recorded,
                false => self.pending.reached(),
            },
            dead_letters: dead.cloned().collect(),
            settled: settled.cloned().collect(),
        }
    }

    /// The log was told that.
    pub fn reported(&mut self, report: &Report) {
        for letter in &report.dead_letters {
            // A number that was given up since is another letter.
            if self.dead.get(&letter.sku) == Some(letter) {
                self.dead.remove(&letter.sku);
            }
        }
        for sku in &report.settled {
            self.settled.remove(sku);
        }
        self.recorded = report.position;
        self.is_news = self.is_news && self.pending.reached() > report.position;
    }

    fn count(&mut self, now: Instant) {
        use std::sync::atomic::Ordering::Relaxed;
        if self.pending.waiting() == 0 {
            self.since = None;
        } else {
            self.since.get_or_insert(now);
        }
        let delivery = &self.delivery;
        delivery.waiting.store(self.pending.len() as u64, Relaxed);
        let conflated = self.pending.conflated();
        delivery
            .conflated
            .fetch_add(conflated - self.conflated, Relaxed);
        self.conflated = conflated;
        let dead = self.dead_letters() as u64;
        delivery.dead_letters.store(dead, Relaxed);
        delivery.reached(self.pending.reached());
    }
}

#[cfg(test)]
mod tests;
