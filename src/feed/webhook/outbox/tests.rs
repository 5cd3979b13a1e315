//! What follows from answers.

use std::num::NonZeroU32;

use governor::clock::FakeRelativeClock;

use super::*;
use crate::{
    feed::{Number, UpdateKind, Way, webhook::document},
    intake::DeadLetter,
};

struct Bench {
    outbox: Outbox<FakeRelativeClock>,
    clock: FakeRelativeClock,
    now: Instant,
    position: Position,
}

struct Nowhere;

impl document::Outside for Nowhere {
    fn file(&self, _: &std::path::Path) -> Result<String, String> {
        Err("there are no files".into())
    }

    fn variable(&self, _: &str) -> Option<String> {
        Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into())
    }
}

impl Bench {
    fn new(keys: &str, standing: Standing) -> Self {
        let text = format!(
            "[webhook.w]\nchannel = \"web\"\nurl = \"http://w\"\nsecret_env = \"S\"\n{keys}"
        );
        let (mut settings, _) = document::read(&text, &Nowhere).expect("sound");
        let settings = Arc::new(settings.pop().expect("one"));
        let delivery = Delivery::new(Way::Webhook, "w");
        let clock = FakeRelativeClock::default();
        let position = standing.position;
        let standing = Arc::new(standing);
        Self {
            outbox: Outbox::new(&settings, &"log".into(), &delivery, standing, &clock),
            clock,
            now: Instant::now(),
            position,
        }
    }

    fn change(&mut self, numbers: &[(&str, i64, i64)]) {
        self.position += 1;
        let number = |(sku, units, before): &(&str, i64, i64)| Number {
            sku: (*sku).into(),
            units: *units,
            before: Some(*before),
            logged_us: 1,
            occurred_us: 1,
        };
        let update = Update::new(
            UpdateKind::Changes,
            (&"web".into(), &"log".into()),
            [self.position - 1, self.position, self.position],
            numbers.iter().map(number).collect(),
        );
        self.outbox.take(&update, self.now);
    }

    fn go_on(&mut self, by: Duration) {
        self.now += by;
        self.clock.advance(by);
    }

    /// Waits for what has to be waited for, and sends.
    fn send(&mut self) -> Message {
        loop {
            match self.outbox.next(self.now) {
                Next::Nothing => panic!("nothing waits"),
                Next::Wait(until, _) => self.go_on(until - self.now),
                Next::Send => match self.outbox.send(jiff::Timestamp::UNIX_EPOCH) {
                    Ok(message) => return message,
                    Err(wait) => self.go_on(wait),
                },
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        self.outbox.answered(answer, self.now, u64::MAX);
    }

    fn status(&self) -> pb::DeliveryStatus {
        self.outbox.delivery.status()
    }

    /// The log takes what there is to report.
    fn report(&mut self) -> Report {
        let report = self.outbox.report();
        self.outbox.reported(&report);
        report
    }
}

fn taken() -> Answer {
    rejecting(&[])
}

fn rejecting(skus: &[&str]) -> Answer {
    let reason = |sku: &&str| ((*sku).to_owned(), "not ours".to_owned());
    Answer::Taken {
        rejected: skus.iter().map(reason).collect(),
    }
}

fn refused() -> Answer {
    Answer::Refused("422: no such article".into())
}

fn failed() -> Answer {
    Answer::Failed(Failure {
        why: "500: oh no".into(),
        retry_after: None,
        is_gone: false,
    })
}

fn skus(message: &Message) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
    let numbers = body["data"]["numbers"].as_array().expect("numbers");
    let sku = |number: &serde_json::Value| number["sku"].as_str().expect("a text").to_owned();
    numbers.iter().map(sku).collect()
}

fn positions(message: &Message) -> (u64, u64) {
    let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
    let position = |name: &str| body["data"][name].as_u64().expect("a position");
    (position("after_position"), position("position"))
}

fn standing(letters: &[(&str, bool)]) -> Standing {
    let letter = |(sku, retry): &(&str, bool)| {
        let letter = DeadLetter {
            units: 3,
            reason: "422".into(),
            given_up_us: 9,
            position: 1,
            retry: *retry,
        };
        ((*sku).to_owned(), letter)
    };
    Standing {
        position: 5,
        dead_letters: letters.iter().map(letter).collect(),
        ..Standing::default()
    }
}

#[test]
fn numbers_wait_a_little_for_others_to_come_with_them() {
    let mut bench = Bench::new("batch_items = 3", Standing::default());
    assert_eq!(bench.outbox.next(bench.now), Next::Nothing);
    bench.change(&[("A", 1, 2)]);
    let until = bench.now + Duration::from_millis(20);
    let wait = Next::Wait(until, State::Delivering);
    assert_eq!(bench.outbox.next(bench.now), wait);
    bench.change(&[("B", 1, 2), ("C", 0, 2)]);
    assert_eq!(bench.outbox.next(bench.now), Next::Send, "they are enough");
    let message = bench.send();
    assert_eq!(skus(&message), ["C", "A", "B"]);
    assert_eq!(positions(&message), (0, 2));
    assert!(!bench.outbox.has_report());
    bench.answer(taken());
    assert_eq!(bench.outbox.next(bench.now), Next::Nothing);
    assert!(bench.outbox.has_report());
    assert_eq!(bench.report().position, 2);
    assert!(!bench.outbox.has_report());
    let status = bench.status();
    assert_eq!((status.messages, status.numbers), (1, 3));
    assert_eq!((status.position, status.waiting), (2, 0));
}

#[test]
fn the_same_numbers_are_the_same_message() {
    let mut bench = Bench::new("", Standing::default());
    bench.change(&[("A", 1, 2), ("B", 1, 2)]);
    let first = bench.send();
    bench.answer(failed());
    assert_eq!(bench.status().last_error, "500: oh no");
    let wait = bench.outbox.next(bench.now);
    assert!(matches!(wait, Next::Wait(_, State::Retrying)), "{wait:?}");
    assert_eq!(bench.send(), first, "to the byte");
    bench.answer(failed());
    bench.change(&[("B", 0, 1)]);
    let newer = bench.send();
    assert_eq!(skus(&newer), ["B", "A"]);
    assert_ne!(newer.id, first.id);
    bench.answer(failed());
    assert_eq!(bench.send(), newer);
    bench.answer(taken());
    bench.change(&[("B", 0, 0)]);
    assert_ne!(bench.send().id, newer.id);
    assert_eq!(bench.outbox.report().position, 2);
}

#[test]
fn failures_open_the_circuit_and_never_move_the_position() {
    let mut bench = Bench::new("", Standing::default());
    bench.change(&[("A", 1, 2)]);
    for _ in 0..20 {
        bench.send();
        bench.answer(failed());
        bench.change(&[("A", 1, 2)]);
        assert!(!bench.outbox.has_report());
    }
    let wait = bench.outbox.next(bench.now);
    assert!(
        matches!(wait, Next::Wait(_, State::CircuitOpen)),
        "{wait:?}"
    );
    assert_eq!((bench.status().failures, bench.status().position), (20, 0));
    bench.send();
    bench.answer(taken());
    assert_eq!(bench.report().position, 21);
    assert_eq!(bench.status().last_error, "");
}

#[test]
fn a_number_that_is_refused_is_found_and_given_up() {
    let mut bench = Bench::new("batch_items = 100", Standing::default());
    let names: Vec<String> = (0..100).map(|n| format!("{n:02}")).collect();
    let numbers: Vec<_> = names.iter().map(|sku| (sku.as_str(), 1, 2)).collect();
    bench.change(&numbers);
    let (mut delivered, mut requests) = (Vec::new(), 0);
    while !bench.outbox.is_empty() {
        let message = bench.send();
        requests += 1;
        if skus(&message).contains(&"42".to_owned()) {
            bench.answer(refused());
        } else {
            delivered.extend(skus(&message));
            bench.answer(taken());
        }
        assert!(requests < 40, "it goes on for ever");
    }
    delivered.sort();
    let all_but_one: Vec<_> = names.iter().filter(|sku| *sku != "42").cloned().collect();
    assert_eq!(delivered, all_but_one);
    let report = bench.report();
    assert_eq!((report.position, report.dead_letters.len()), (1, 1));
    let letter = &report.dead_letters[0];
    assert_eq!((letter.sku.as_str(), letter.units), ("42", 1));
    assert_eq!(letter.reason, "422: no such article");
    assert!(!bench.outbox.has_report());
}

#[test]
fn a_receiver_names_what_it_rejects() {
    let mut bench = Bench::new("", Standing::default());
    bench.change(&[("A", 1, 2), ("B", 1, 2), ("C", 1, 2)]);
    bench.send();
    // A newer number may be taken: it is no dead letter.
    bench.change(&[("C", 5, 1)]);
    bench.answer(rejecting(&["A", "C"]));
    assert_eq!(bench.status().dead_letters, 1);
    assert_eq!(bench.status().numbers, 1);
    let report = bench.report();
    assert_eq!(report.position, 1);
    assert_eq!(report.dead_letters[0].reason, "200: not ours");
    assert_eq!(skus(&bench.send()), ["C"]);
    // The log knows it by now; a newer number that is taken settles it.
    bench
        .outbox
        .stands(standing(&[("A", false)]).into(), bench.now);
    bench.answer(taken());
    bench.change(&[("A", 3, 1)]);
    bench.send();
    bench.answer(taken());
    let report = bench.report();
    assert_eq!((report.position, report.settled), (3, vec!["A".to_owned()]));
    bench.outbox.stands(standing(&[]).into(), bench.now);
    assert_eq!(bench.status().dead_letters, 0);
}

#[test]
fn dead_letters_are_tried_again_once_each_time() {
    let marked = || Arc::new(standing(&[("A", true), ("B", false)]));
    let mut bench = Bench::new("attempts_max = 1", standing(&[("A", true), ("B", false)]));
    bench.outbox.stands(marked(), bench.now);
    assert_eq!(skus(&bench.send()), ["A"]);
    bench.outbox.stands(marked(), bench.now);
    bench.answer(refused());
    bench.outbox.stands(marked(), bench.now);
    assert_eq!(bench.outbox.next(bench.now), Next::Nothing);
    let report = bench.report();
    assert_eq!(report.dead_letters.len(), 1);
    // Given up anew in the log, and marked once more.
    let mut again = standing(&[("A", true), ("B", false)]);
    again.dead_letters.get_mut("A").expect("there").given_up_us = 10;
    bench.outbox.stands(again.into(), bench.now);
    assert_eq!(skus(&bench.send()), ["A"]);
    bench.answer(taken());
    assert_eq!(bench.report().settled, ["A"]);
    assert_eq!(bench.outbox.report().position, 5);
}

#[test]
fn more_dead_letters_than_there_may_be_stop_it() {
    let letters: Vec<String> = (0..DEAD_LETTERS_MAX).map(|n| format!("{n:05}")).collect();
    let letters: Vec<_> = letters.iter().map(|sku| (sku.as_str(), false)).collect();
    let mut bench = Bench::new("attempts_max = 1", standing(&letters));
    bench.change(&[("A", 1, 2)]);
    for answer in [refused(), rejecting(&["A"])] {
        bench.send();
        bench.answer(answer);
        assert!(bench.outbox.report().dead_letters.is_empty());
        let wait = bench.outbox.next(bench.now);
        assert!(
            matches!(wait, Next::Wait(_, State::CircuitOpen)),
            "{wait:?}"
        );
        assert!(bench.status().last_error.starts_with("10000 numbers"));
    }
    // One of those that are there is only told anew.
    bench.change(&[("00000", 0, 2)]);
    bench.send();
    bench.answer(rejecting(&["A", "00000"]));
    assert_eq!(bench.outbox.report().dead_letters.len(), 1);
    assert_eq!(bench.outbox.report().position, 5, "A is still owed");
}

#[test]
fn many_dead_letters_take_several_records() {
    let mut bench = Bench::new("batch_items = 1000", Standing::default());
    let names: Vec<String> = (0..2_500).map(|n| format!("{n:04}")).collect();
    let numbers: Vec<_> = names.iter().map(|sku| (sku.as_str(), 1, 2)).collect();
    bench.change(&numbers);
    while !bench.outbox.is_empty() {
        let message = bench.send();
        let all = skus(&message);
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        bench.answer(rejecting(&all));
    }
    let reports = [bench.report(), bench.report(), bench.report()];
    let told = reports.map(|report| (report.dead_letters.len(), report.position));
    assert_eq!(told, [(1_000, 0), (1_000, 0), (500, 1)]);
    assert!(!bench.outbox.has_report());
}

#[test]
fn under_a_quota_what_sells_out_overtakes() {
    let keys = "items_per_window = 10\nwindow_seconds = 10\n";
    let mut bench = Bench::new(keys, Standing::default());
    bench.change(&[("A", 9, 2), ("B", 8, 2), ("C", 7, 9)]);
    assert_eq!(skus(&bench.send()), ["C"]);
    bench.answer(taken());
    let begun = bench.now;
    assert_eq!(bench.outbox.next(bench.now), Next::Send);
    assert!(bench.outbox.send(jiff::Timestamp::UNIX_EPOCH).is_err());
    bench.change(&[("D", 0, 9)]);
    assert_eq!(skus(&bench.send()), ["D"]);
    assert!(bench.now - begun >= Duration::from_secs(1));
    let limits = bench.outbox.settings.quota.expect("a quota");
    assert_eq!(limits.items, NonZeroU32::new(10));
}
