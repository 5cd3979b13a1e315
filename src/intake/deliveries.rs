//! How far webhooks have got, who delivers to each, and what it refused for good: a function of the
//! log, the same on every instance.
//!
//! An instance that delivers writes that down every few seconds. Its record takes effect if no
//! other instance's lease holds by the log's time, so all agree on who delivers, and an instance
//! that is gone is succeeded by another once its lease is over.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use crate::{
    domain::{
        movement::TimeUs,
        saved::{Broken, Input, Output},
    },
    limits::{DEAD_LETTERS_MAX, WEBHOOK_LEASE_MS_MAX, WEBHOOK_NAME_BYTES_MAX, WEBHOOKS_KNOWN_MAX},
    log::Position,
    proto::v1 as pb,
    wire::movement::timestamp,
};

/// Every webhook that a record was about, by name.
pub type Standings = BTreeMap<String, Arc<Standing>>;

/// How one webhook stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The instance that delivers; `None`: it gave that up.
    pub holder: Option<u64>,
    /// By the log's time, nobody else delivers before this.
    pub lease_until_us: TimeUs,
    /// Everything up to here was delivered, dead letters aside.
    pub position: Position,
    /// Numbers that were refused for good, and are owed, by SKU: at most [`DEAD_LETTERS_MAX`].
    pub dead_letters: BTreeMap<String, DeadLetter>,
}

/// A number that was refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The number, in units.
    pub units: i64,
    /// Why.
    pub reason: String,
    /// When it was given up, by the log's time.
    pub given_up_us: TimeUs,
    /// The number is that of this position, at least.
    pub position: Position,
    /// It is to be tried again.
    pub retry: bool,
}

impl DeadLetter {
    /// The message.
    pub fn to_proto(&self, sku: &str) -> pb::DeadLetter {
        pb::DeadLetter {
            sku: sku.to_owned(),
            units: self.units,
            reason: self.reason.clone(),
            given_up_at: Some(timestamp(self.given_up_us)),
            position: self.position,
        }
    }
}

impl Standing {
    /// Whether another instance's lease holds.
    pub fn is_of_another(&self, instance: u64, now_us: TimeUs) -> bool {
        self.holder.is_some_and(|holder| holder != instance) && now_us < self.lease_until_us
    }

    fn retry(&mut self, skus: &[String]) -> u64 {
        let mut retried = 0;
        for (sku, letter) in &mut self.dead_letters {
            if skus.is_empty() || skus.contains(sku) {
                letter.retry = true;
                retried += 1;
            }
        }
        retried
    }

    /// False, and nothing changes, if there would be too many dead letters.
    fn report(&mut self, record: pb::DeliveryProgress, instance: u64, time_us: TimeUs) -> bool {
        let mut letters = self.dead_letters.clone();
        record.settled.iter().for_each(|sku| {
            letters.remove(sku);
        });
        letters.extend(record.dead_letters.into_iter().map(|letter| {
            let own = DeadLetter {
                units: letter.units,
                reason: letter.reason,
                given_up_us: time_us,
                position: letter.position,
                retry: false,
            };
            (letter.sku, own)
        }));
        if letters.len() > DEAD_LETTERS_MAX {
            return false;
        }
        let lease_ms = record.lease_ms.min(WEBHOOK_LEASE_MS_MAX);
        *self = Self {
            holder: (lease_ms > 0).then_some(instance),
            lease_until_us: time_us.saturating_add(lease_ms as i64 * 1_000),
            position: self.position.max(record.position),
            dead_letters: letters,
        };
        true
    }
}

/// What became of such a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    /// False: another instance's lease holds, or there is no such webhook to retry, and nothing
    /// changed.
    pub took_effect: bool,
    /// Dead letters that are tried again.
    pub retried: u64,
}

/// See the module. Who reads it may also wait for a change.
#[derive(Debug, Default)]
pub struct DeliveryBook(watch::Sender<Arc<Standings>>);

impl DeliveryBook {
    /// How a webhook stands; `None` if no record was about it.
    pub fn get(&self, webhook: &str) -> Option<Arc<Standing>> {
        self.0.borrow().get(webhook).cloned()
    }

    /// How all of them stand, now and after each change.
    pub fn watch(&self) -> watch::Receiver<Arc<Standings>> {
        self.0.subscribe()
    }

    /// Takes what a record of an instance says. Records come in the order of the log, one after the
    /// other.
    pub(crate) fn take(
        &self,
        record: pb::DeliveryProgress,
        instance: u64,
        time_us: TimeUs,
    ) -> Reported {
        let mut reported = Reported {
            took_effect: false,
            retried: 0,
        };
        let mut all = Standings::clone(&self.0.borrow());
        let known = all.get(&record.webhook);
        // No instance writes such names; every instance passes over them alike.
        let is_new = known.is_none();
        let named = (1..=WEBHOOK_NAME_BYTES_MAX).contains(&record.webhook.len());
        if is_new && (record.retry || !named || all.len() >= WEBHOOKS_KNOWN_MAX) {
            return reported;
        }
        let mut standing = known.map(|own| Standing::clone(own)).unwrap_or_default();
        let name = record.webhook.clone();
        if record.retry {
            reported.retried = standing.retry(&record.retry_skus);
            reported.took_effect = true;
        } else if !standing.is_of_another(instance, time_us) {
            reported.took_effect = standing.report(record, instance, time_us);
        }
        if reported.took_effect {
            all.insert(name, Arc::new(standing));
            self.0.send_replace(Arc::new(all));
        }
        reported
    }

    /// What a checkpoint has of it: saved by whoever takes that, as it is now.
    pub(crate) fn begin_saving(&self) -> impl FnOnce() -> Output + Send + 'static {
        let all = Arc::clone(&self.0.borrow());
        move || {
            let mut output = Output::new();
            output.count(all.len());
            for (name, standing) in all.iter() {
                output.text(name);
                output.option(standing.holder, Output::u64);
                output.i64(standing.lease_until_us);
                output.u64(standing.position);
                output.count(standing.dead_letters.len());
                for (sku, letter) in &standing.dead_letters {
                    output.text(sku);
                    output.i64(letter.units);
                    output.text(&letter.reason);
                    output.i64(letter.given_up_us);
                    output.u64(letter.position);
                    output.flag(letter.retry);
                }
            }
            output
        }
    }

    /// Takes it back.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let letter = |input: &mut Input<'_>| {
            let sku = input.text()?.to_owned();
            let letter = DeadLetter {
                units: input.i64()?,
                reason: input.text()?.to_owned(),
                given_up_us: input.i64()?,
                position: input.u64()?,
                retry: input.flag()?,
            };
            Ok((sku, letter))
        };
        let all = (0..input.count()?).map(|_| {
            let name = input.text()?.to_owned();
            let standing = Standing {
                holder: input.option(Input::u64)?,
                lease_until_us: input.i64()?,
                position: input.u64()?,
                dead_letters: (0..input.count()?)
                    .map(|_| letter(input))
                    .collect::<Result<_, Broken>>()?,
            };
            Ok((name, Arc::new(standing)))
        });
        let all = all.collect::<Result<Standings, Broken>>()?;
        Ok(Self(watch::Sender::new(Arc::new(all))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: TimeUs = 1_000_000;

    fn progress(lease_ms: u64, position: Position) -> pb::DeliveryProgress {
        pb::DeliveryProgress {
            webhook: "market".into(),
            lease_ms,
            position,
            ..pb::DeliveryProgress::default()
        }
    }

    fn letter(sku: &str, units: i64) -> pb::DeadLetter {
        pb::DeadLetter {
            sku: sku.into(),
            units,
            reason: "422: no such article".into(),
            given_up_at: None,
            position: 7,
        }
    }

    fn retry(skus: &[&str]) -> pb::DeliveryProgress {
        pb::DeliveryProgress {
            webhook: "market".into(),
            retry: true,
            retry_skus: skus.iter().map(ToString::to_string).collect(),
            ..pb::DeliveryProgress::default()
        }
    }

    fn owed(book: &DeliveryBook) -> Vec<(String, bool)> {
        let standing = book.get("market").expect("known");
        let letters = standing.dead_letters.iter();
        letters.map(|(sku, own)| (sku.clone(), own.retry)).collect()
    }

    #[test]
    fn one_instance_delivers_until_its_lease_is_over_or_given_up() {
        let book = DeliveryBook::default();
        let report = |instance, lease_ms, position, second| {
            let record = progress(lease_ms, position);
            let reported = book.take(record, instance, second * SECOND_US);
            let standing = book.get("market").expect("known");
            (reported.took_effect, standing.holder, standing.position)
        };
        assert_eq!(report(1, 10_000, 5, 0), (true, Some(1), 5));
        assert_eq!(report(2, 10_000, 9, 9), (false, Some(1), 5), "it holds");
        assert_eq!(report(1, 10_000, 4, 9), (true, Some(1), 5), "never less");
        assert_eq!(report(2, 10_000, 9, 18), (false, Some(1), 5));
        assert_eq!(report(2, 10_000, 9, 19), (true, Some(2), 9), "it is over");
        assert_eq!(report(1, 10_000, 30, 20), (false, Some(2), 9));
        assert_eq!(report(2, 0, 12, 21), (true, None, 12), "given up");
        assert_eq!(report(1, 10_000, 13, 21), (true, Some(1), 13));
        // An expired lease that nobody took is still its holder's.
        assert_eq!(report(1, u64::MAX, 14, 99), (true, Some(1), 14));
        let longest_s = WEBHOOK_LEASE_MS_MAX as i64 / 1_000;
        assert_eq!(report(2, 1, 15, 99 + longest_s), (true, Some(2), 15));
    }

    #[test]
    fn dead_letters_are_owed_until_they_are_settled() {
        let book = DeliveryBook::default();
        let given_up = |letters: &[(&str, i64)], settled: &[&str]| pb::DeliveryProgress {
            dead_letters: letters
                .iter()
                .map(|(sku, units)| letter(sku, *units))
                .collect(),
            settled: settled.iter().map(ToString::to_string).collect(),
            ..progress(10_000, 7)
        };
        assert!(!book.take(retry(&[]), 1, 0).took_effect, "nobody knows it");
        book.take(given_up(&[("A", 3), ("B", 4)], &[]), 1, 2 * SECOND_US);
        assert_eq!(owed(&book), [("A".into(), false), ("B".into(), false)]);
        let shown = book.get("market").expect("known").dead_letters["A"].to_proto("A");
        let wanted = pb::DeadLetter {
            given_up_at: Some(timestamp(2 * SECOND_US)),
            ..letter("A", 3)
        };
        assert_eq!(shown, wanted);
        // Whoever asks needs no lease, and what is tried again stays owed until it is taken.
        let reported = book.take(retry(&["B", "C"]), 9, 3 * SECOND_US);
        assert_eq!((reported.took_effect, reported.retried), (true, 1));
        assert_eq!(owed(&book), [("A".into(), false), ("B".into(), true)]);
        book.take(given_up(&[("B", 2)], &["A"]), 1, 4 * SECOND_US);
        assert_eq!(owed(&book), [("B".into(), false)], "refused once more");
        assert_eq!(book.take(retry(&[]), 9, 5 * SECOND_US).retried, 1);
        book.take(given_up(&[], &["B"]), 1, 6 * SECOND_US);
        assert_eq!(owed(&book), []);
    }

    #[test]
    fn what_no_instance_writes_has_no_effect() {
        let book = DeliveryBook::default();
        let named = |webhook: String| pb::DeliveryProgress {
            webhook,
            ..progress(1, 1)
        };
        assert!(!book.take(named(String::new()), 1, 1).took_effect);
        assert!(!book.take(named("n".repeat(65)), 1, 1).took_effect);
        for n in 0..WEBHOOKS_KNOWN_MAX {
            assert!(book.take(named(n.to_string()), 1, 1).took_effect);
        }
        assert!(!book.take(progress(1, 1), 1, 1).took_effect);
        let too_many = pb::DeliveryProgress {
            dead_letters: (0..=DEAD_LETTERS_MAX)
                .map(|n| letter(&n.to_string(), 1))
                .collect(),
            ..named("0".into())
        };
        assert!(!book.take(too_many, 1, 2).took_effect);
        assert_eq!(book.get("0").expect("known").dead_letters.len(), 0);
    }

    #[test]
    fn a_checkpoint_has_all_of_it() {
        let book = DeliveryBook::default();
        let two = pb::DeliveryProgress {
            dead_letters: vec![letter("A", 3), letter("B", 0)],
            ..progress(10_000, 7)
        };
        book.take(two, 1, SECOND_US);
        book.take(retry(&["B"]), 2, SECOND_US);
        let other = pb::DeliveryProgress {
            webhook: "shop".into(),
            ..progress(0, 9)
        };
        book.take(other, 2, SECOND_US);
        let saved = book.begin_saving();
        let before = Arc::clone(&book.0.borrow());
        // What comes afterwards is not in it.
        book.take(progress(10_000, 8), 1, SECOND_US);
        let bytes = saved().into_bytes();
        let loaded = DeliveryBook::load(&mut Input::new(&bytes)).expect("sound");
        assert_eq!(*loaded.0.borrow(), before);
        loaded.take(progress(10_000, 8), 1, SECOND_US);
        assert_eq!(*loaded.0.borrow(), *book.0.borrow());
        for cut in 0..bytes.len() {
            let cut = DeliveryBook::load(&mut Input::new(&bytes[..cut]));
            assert!(cut.is_err(), "a book that is cut off is broken");
        }
    }
}
