//! Order, conflation and positions, by example and against a slow, obvious model.

use proptest::prelude::*;

use super::*;
use crate::feed::Number;

fn number(sku: &str, units: i64, before: Option<i64>) -> Number {
    Number {
        sku: sku.into(),
        units,
        before,
        logged_us: 10,
        occurred_us: 5,
    }
}

fn update(kind: UpdateKind, position: Position, numbers: Vec<Number>) -> Update {
    let of = (&"web".into(), &"log".into());
    Update::new(kind, of, [0, position, position], numbers)
}

fn changes(position: Position, numbers: &[(&str, i64, i64)]) -> Update {
    let number = |(sku, units, before): &(&str, i64, i64)| number(sku, *units, Some(*before));
    let numbers = numbers.iter().map(number).collect();
    update(UpdateKind::Changes, position, numbers)
}

fn told(batch: &[Waiting]) -> Vec<(&str, i64)> {
    batch.iter().map(|own| (&*own.sku, own.units)).collect()
}

#[test]
fn what_is_sold_out_goes_first_and_then_what_falls() {
    let mut pending = Pending::new(0);
    pending.take(&changes(
        1,
        &[("up", 9, 1), ("down", 3, 8), ("same", 4, 4), ("out", 0, 7)],
    ));
    let unknown = vec![number("new", 5, None), number("none", 0, None)];
    pending.take(&update(UpdateKind::State, 2, unknown));
    pending.take(&changes(3, &[("down too", 1, 2), ("out too", 0, 1)]));
    let order = [
        "out", "none", "out too", "down", "down too", "new", "up", "same",
    ];
    let mut sent = Vec::new();
    while !pending.is_empty() {
        let batch = pending.send(3);
        sent.extend(batch.iter().map(|own| own.sku.to_string()));
        pending.ended(|_, _| Fate::Done);
    }
    assert_eq!(sent, order);
    assert_eq!(pending.reached(), 3);
}

#[test]
fn the_newest_number_takes_its_place_by_what_the_receiver_has() {
    let mut pending = Pending::new(0);
    pending.take(&changes(1, &[("A", 7, 5), ("B", 6, 5)]));
    // By the change before it falls; for the receiver, which has 5, it rises.
    pending.take(&changes(2, &[("B", 6, 7), ("A", 6, 7)]));
    pending.take(&changes(3, &[("C", 6, 5)]));
    assert_eq!(pending.conflated(), 2);
    assert_eq!(told(&pending.send(2)), [("A", 6), ("B", 6)], "in turn");
    // Now it is about to have 6.
    pending.take(&changes(4, &[("B", 5, 6)]));
    pending.ended(|_, _| Fate::Done);
    assert_eq!(told(&pending.send(1)), [("B", 5)], "a decrease");
    // What it was told is taken or not: then it has the 6, or still the 5 before.
    pending.ended(|_, _| Fate::Again);
    assert_eq!(told(&pending.send(9)), [("B", 5), ("C", 6)]);
    assert_eq!(pending.reached(), 2);
    pending.ended(|_, _| Fate::Done);
    assert_eq!(pending.reached(), 4);
}

#[test]
fn positions_wait_for_all_numbers_up_to_them() {
    let mut pending = Pending::new(5);
    let part = |position, sku| update(UpdateKind::State, position, vec![number(sku, 1, None)]);
    pending.take(&part(0, "A"));
    pending.take(&part(10, "B"));
    pending.take(&update(UpdateKind::Heartbeat, 12, Vec::new()));
    pending.take(&changes(13, &[("C", 0, 1)]));
    assert_eq!(pending.send(1)[0].sku.as_ref(), "C");
    assert_eq!(pending.reached_once_taken(), 5);
    pending.ended(|_, _| Fate::Done);
    assert_eq!(pending.reached(), 5);
    pending.send(1);
    pending.ended(|_, _| Fate::Done);
    assert_eq!(pending.reached(), 5, "a part of the state leads nowhere");
    pending.send(1);
    assert_eq!(pending.reached_once_taken(), 13);
    pending.ended(|_, _| Fate::Refused);
    assert_eq!(pending.reached(), 5);
    assert_eq!(pending.send(1)[0].refused, 1);
    pending.ended(|_, _| Fate::Done);
    assert_eq!(pending.reached(), 13);
    pending.take(&update(UpdateKind::Heartbeat, 20, Vec::new()));
    assert_eq!(pending.reached(), 20);
}

#[test]
fn a_number_that_is_only_sent_once_more_holds_nothing_up() {
    let mut pending = Pending::new(5);
    pending.again("A", 3, 4);
    pending.take(&changes(6, &[("B", 1, 2)]));
    pending.again("B", 9, 4);
    assert_eq!(told(&pending.send(1)), [("B", 1)], "it has a newer one");
    pending.ended(|_, _| Fate::Done);
    assert_eq!(pending.reached(), 6);
    pending.take(&changes(7, &[("A", 2, 3)]));
    assert_eq!(pending.reached(), 6, "now it is owed");
    pending.send(1);
    pending.ended(|_, _| Fate::Done);
    assert_eq!((pending.reached(), pending.len()), (7, 0));
}

/// One step of a run.
#[derive(Debug, Clone)]
enum Step {
    /// An update with these SKUs and numbers.
    Update(Vec<(u8, i64)>),
    /// Sends so many, with these updates coming meanwhile; each is taken if its bit is set.
    Send(usize, Vec<Vec<(u8, i64)>>, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || prop::collection::vec((0..6u8, 0..4i64), 0..4);
    prop_oneof![
        numbers().prop_map(Step::Update),
        (
            1..4usize,
            prop::collection::vec(numbers(), 0..2),
            any::<u8>()
        )
            .prop_map(|(items, meanwhile, taken)| Step::Send(items, meanwhile, taken)),
    ]
}

/// All updates as they came, and what a receiver made of the messages.
#[derive(Default)]
struct Model {
    position: Position,
    /// By position: the numbers of it.
    updates: Vec<Vec<(String, i64)>>,
    newest: BTreeMap<String, i64>,
    /// What the receiver has, and of which position that number is the newest.
    receiver: BTreeMap<String, (i64, Position)>,
}

impl Model {
    fn update(&mut self, pending: &mut Pending, numbers: &[(u8, i64)]) {
        self.position += 1;
        let numbers: BTreeMap<_, _> = numbers
            .iter()
            .map(|(sku, units)| (sku.to_string(), *units))
            .collect();
        let told = numbers
            .iter()
            .map(|(sku, units)| number(sku, *units, self.newest.get(sku).copied()));
        let told = told.collect();
        pending.take(&update(UpdateKind::Changes, self.position, told));
        self.newest.extend(numbers.clone());
        self.updates.push(numbers.into_iter().collect());
    }

    /// The last position up to which the receiver has each number, or a newer one.
    fn reached(&self) -> Position {
        let has = |position: Position, sku: &str| {
            let own = self.receiver.get(sku);
            own.is_some_and(|(_, of)| *of >= position)
        };
        let updates = (1..).zip(&self.updates);
        let whole = updates
            .take_while(|(position, numbers)| numbers.iter().all(|(sku, _)| has(*position, sku)));
        whole.count() as Position
    }
}

proptest! {
    /// Whatever is taken and whatever fails: each message has the newest numbers, the most urgent of
    /// those that wait; the position never goes beyond what the receiver has; and in the end it has
    /// all of it.
    #[test]
    fn nothing_is_lost(steps in prop::collection::vec(step(), 0..60)) {
        let mut pending = Pending::new(0);
        let mut model = Model::default();
        let last = Step::Send(100, Vec::new(), u8::MAX);
        for step in steps.into_iter().chain([last]) {
            let (items, meanwhile, taken) = match step {
                Step::Update(numbers) => {
                    model.update(&mut pending, &numbers);
                    continue;
                }
                Step::Send(items, meanwhile, taken) => (items, meanwhile, taken),
            };
            let waited = pending.waiting();
            let at = model.position;
            let batch = pending.send(items);
            prop_assert_eq!(batch.len(), items.min(waited));
            for own in &batch {
                prop_assert_eq!(own.units, model.newest[&*own.sku]);
            }
            let left = pending.order.first_key_value().map(|(key, _)| *key);
            let keys: Vec<_> = batch.iter().map(Waiting::key).chain(left).collect();
            prop_assert!(keys.is_sorted(), "{:?}", keys);
            let promised = pending.reached_once_taken();
            for numbers in meanwhile {
                model.update(&mut pending, &numbers);
            }
            let is_taken = |sku: &str| taken >> sku.parse::<u8>().expect("a number") & 1 == 1;
            pending.ended(|own, _| match is_taken(&own.sku) {
                true => Fate::Done,
                false => Fate::Again,
            });
            for own in batch.iter().filter(|own| is_taken(&own.sku)) {
                model.receiver.insert(own.sku.to_string(), (own.units, at));
            }
            prop_assert_eq!(pending.reached(), model.reached());
            if batch.iter().all(|own| is_taken(&own.sku)) {
                prop_assert!(pending.reached() >= promised);
            }
            prop_assert!(pending.debts.open.len() <= pending.len());
        }
        prop_assert_eq!(pending.len(), 0);
        prop_assert_eq!(pending.reached(), model.position);
        let has: BTreeMap<_, _> = model
            .receiver
            .iter()
            .map(|(sku, (units, _))| (sku.clone(), *units))
            .collect();
        prop_assert_eq!(has, model.newest);
    }
}
