//! What the sums say is what the cells say, whatever the rules, and also while they change; and what
//! is published follows from that.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    domain::ledger::{Books, CellChange},
    shard::books::ShardBooks,
};

const SKUS: [&str; 5] = ["A", "AB", "ABC", "B1", "B2"];
const SHARDS: usize = 2;
/// Of overrides.
const KEYS: [&str; 6] = ["A", "A*", "AB", "AB*", "B*", "B1"];

/// What happens to the books and to the rules.
#[derive(Debug, Clone)]
enum Event {
    /// Units and claims of a SKU at a location.
    Post(usize, u8, i64, i64),
    /// Other rules: one shard makes its sums anew, then the other, then readers go by them.
    Rules(String),
    /// So many changes of published numbers are taken from each shard.
    Take(usize),
    /// The books are saved, and go on as they were saved.
    Restore,
}

/// A list of entries without repeats, as TOML.
fn entries(all: &'static [&'static str], least: usize) -> impl Strategy<Value = String> {
    prop::sample::subsequence(all, least..=all.len())
        .prop_shuffle()
        .prop_map(|entries| format!("{entries:?}"))
}

/// The terms that a channel and an override may both set.
fn terms() -> impl Strategy<Value = String> {
    let exclude = entries(&["L1", "L2", "*5", "@east"], 0);
    (
        prop::option::of(0..6i64),
        prop::option::of(0..=100i64),
        prop::option::of(0..=100i64),
        prop::option::of(0..20i64),
        prop::option::of(20..60i64),
        prop::option::weighted(0.2, any::<bool>()),
        prop::option::of(exclude),
        prop::option::weighted(0.3, 0..12i64),
        prop::option::weighted(0.3, 0..=100i64),
    )
        .prop_map(
            |(buffer, percent, share, minimum, maximum, paused, exclude, step, step_percent)| {
                let numbers = [
                    ("buffer", buffer),
                    ("buffer_percent", percent),
                    ("share_percent", share),
                    ("minimum", minimum),
                    ("maximum", maximum),
                    ("publish_step", step),
                    ("publish_step_percent", step_percent),
                ];
                let mut text = String::new();
                for (key, value) in numbers {
                    text += &value.map_or_else(String::new, |value| format!("{key} = {value}\n"));
                }
                text += &paused.map_or_else(String::new, |paused| format!("paused = {paused}\n"));
                text += &exclude.map_or_else(String::new, |list| format!("exclude = {list}\n"));
                text
            },
        )
}

fn channel(name: &'static str) -> impl Strategy<Value = String> {
    let sources = entries(&["L1", "L3", "*4", "L?", "@east", "@west", "*"], 1);
    let key = prop::sample::select(&KEYS[..]);
    let overrides = prop::collection::btree_map(key, terms(), 0..4);
    (sources, terms(), overrides).prop_map(move |(sources, terms, overrides)| {
        let mut text = format!("[channel.{name}]\nsources = {sources}\n{terms}");
        for (key, terms) in overrides.into_iter().filter(|(_, terms)| !terms.is_empty()) {
            text += &format!("[channel.{name}.override.\"{key}\"]\n{terms}");
        }
        text
    })
}

fn document() -> impl Strategy<Value = String> {
    let channels = (
        prop::option::of(channel("a")),
        prop::option::of(channel("b")),
        prop::option::of(channel("c")),
        prop::option::of(channel("d")),
    );
    channels.prop_map(|(a, b, c, d)| {
        let groups = "[groups]\neast = ['L1', 'L2', 'L3', 'L15']\nwest = ['L2?', 'L4']\n";
        [Some(groups.to_owned()), a, b, c, d]
            .into_iter()
            .flatten()
            .collect()
    })
}

fn event() -> impl Strategy<Value = Event> {
    let sku = 0..SKUS.len();
    prop_oneof![
        8 => (sku, 0..26u8, -20..40i64, -5..15i64)
            .prop_map(|(sku, at, good, reserved)| Event::Post(sku, at, good, reserved)),
        1 => document().prop_map(Event::Rules),
        2 => (0..8usize).prop_map(Event::Take),
        1 => Just(Event::Restore),
    ]
}

struct Bench {
    books: Vec<ShardBooks>,
    locations: Arc<Locations>,
    view: View,
    epoch: u32,
    /// What each channel was told of each SKU, by the definition.
    published: Numbers,
    /// What came of taking changes.
    taken: Numbers,
}

/// Numbers that are not 0, by channel and SKU.
type Numbers = BTreeMap<(String, &'static str), i64>;

impl Bench {
    fn new() -> Self {
        let locations = Arc::new(Locations::default());
        let shared = Arc::<Shared>::default();
        let shards: Box<[(Arc<Index>, Arc<Counts>)]> = (0..SHARDS)
            .map(|_| (Arc::new(Index::new()), Arc::default()))
            .collect();
        let books = Self::empty_books(&shards, &locations);
        Self {
            books,
            view: View {
                shards,
                locations: Arc::clone(&locations),
                shared,
            },
            locations,
            epoch: 0,
            published: Numbers::new(),
            taken: Numbers::new(),
        }
    }

    fn empty_books(
        shards: &[(Arc<Index>, Arc<Counts>)],
        locations: &Arc<Locations>,
    ) -> Vec<ShardBooks> {
        let of = |(index, counts): &(Arc<Index>, Arc<Counts>)| {
            let (index, counts) = (Arc::clone(index), Arc::clone(counts));
            let mut books = ShardBooks::new(index, Arc::clone(locations), counts);
            books.keep_changes();
            books
        };
        shards.iter().map(of).collect()
    }

    /// Something happened: what is to be published of it, by the definition.
    fn publish(&mut self) {
        let reading = self.view.read();
        for (channel, name) in reading.rules.rules.channels() {
            for sku in SKUS {
                let told = self.published.entry((name.to_owned(), sku)).or_default();
                let explained = reading.explain(channel, sku);
                if explained.policy.is_worth_publishing(*told, explained.ats) {
                    *told = explained.ats;
                }
            }
        }
    }

    fn check_published(&self) -> Result<(), TestCaseError> {
        for ((channel, sku), units) in &self.published {
            let told = self.view.published(channel, sku);
            prop_assert_eq!(told.map(Option::unwrap_or_default), Ok(*units));
        }
        let reading = self.view.read();
        for (_, channel) in reading.rules.rules.channels() {
            let mut all = BTreeMap::new();
            for part in 0..self.view.parts() {
                let read = self.view.published_part(channel, part, |sku, units| {
                    all.insert(sku.to_owned(), units);
                });
                prop_assert_eq!(read, Ok(()));
            }
            for sku in SKUS {
                let told = self.view.published(channel, sku).expect("a channel");
                prop_assert_eq!(all.get(sku).copied(), told);
            }
        }
        Ok(())
    }

    /// Takes changes of published numbers. Once all are taken, the numbers are those published.
    fn take(&mut self, max: usize) -> Result<(), TestCaseError> {
        let rules = self.view.read().rules.rules.clone();
        let mut is_complete = true;
        for books in &mut self.books {
            let mut changes = Vec::new();
            is_complete &= books.take_changes(max, &mut changes);
            prop_assert!(changes.len() <= max);
            for change in changes {
                let sku = SKUS.into_iter().find(|sku| **sku == *change.sku);
                let channel = rules.channel_name(change.channel).to_owned();
                let key = (channel, sku.expect("one of these"));
                let before = self.taken.insert(key.clone(), change.units);
                let before = before.unwrap_or_default();
                let is_same = before == change.units;
                prop_assert_eq!(change.before, (!is_same).then_some(before));
                prop_assert_eq!(Some(&change.units), self.published.get(&key));
            }
        }
        if is_complete {
            let not_zero = |numbers: &Numbers| -> Numbers {
                let own = numbers.iter().filter(|(_, units)| **units != 0);
                own.map(|(key, units)| (key.clone(), *units)).collect()
            };
            prop_assert_eq!(not_zero(&self.taken), not_zero(&self.published));
        }
        Ok(())
    }

    /// Goes on from what a checkpoint has.
    fn restore(&mut self) -> Result<(), TestCaseError> {
        self.books.iter_mut().for_each(ShardBooks::begin_saving);
        let rules = Arc::clone(&self.view.read().rules);
        self.finish_saving(&rules)?;
        // Who receives goes on with what was published there.
        self.taken = self.published.clone();
        Ok(())
    }

    /// Goes on from what a checkpoint has that was begun before, under these rules.
    fn finish_saving(&mut self, rules: &Arc<RulesInForce>) -> Result<(), TestCaseError> {
        let shards: Box<[(Arc<Index>, Arc<Counts>)]> = (0..SHARDS)
            .map(|_| (Arc::new(Index::new()), Arc::default()))
            .collect();
        let mut restored = Self::empty_books(&shards, &self.locations);
        for (number, books) in self.books.iter_mut().enumerate() {
            while books.save_slice() {}
            let saved = std::mem::take(books.saved()).into_bytes();
            restored[number].put_rules(Arc::clone(rules));
            let taken = restored[number].take_back(&saved, (number, SHARDS), true);
            prop_assert!(taken.is_ok());
        }
        self.books = restored;
        self.view.shards = shards;
        Ok(())
    }

    fn post(&mut self, sku: usize, at: u8, good: i64, reserved: i64) {
        let hash = SkuHash::of(SKUS[sku]);
        let mut by = Balances::of(Account::Good, good);
        by[Account::Reserved] = reserved;
        // Numbers in order of arrival, so that new locations appear in any order.
        let at = self.locations.number(&format!("L{at}"));
        let books = &mut self.books[hash.shard(SHARDS)];
        books.post(hash, SKUS[sku], &[CellChange { at, by }], good, None);
    }

    /// Compares all answers with those from the cells; gives how many there were.
    fn check(&self) -> Result<usize, TestCaseError> {
        let reading = self.view.read();
        let mut answers = 0;
        for (channel, name) in reading.rules.rules.channels() {
            let mut found = Vec::new();
            reading.available(channel, SKUS.into_iter(), |_, ats| found.push(ats));
            for (sku, ats) in SKUS.iter().zip(found) {
                let explained = reading.explain(channel, sku);
                let expected = explained.known.then_some(explained.ats);
                prop_assert_eq!(ats, expected, "{} of channel {}", sku, name);
                // The terms add up to the sum, and the sentences lead to the answer.
                let sum: i64 = explained.locations.iter().map(|term| term.available).sum();
                prop_assert_eq!(sum, explained.sum);
                let steps = explained.policy.steps(sum);
                let last = steps
                    .last()
                    .and_then(|step| step.trim_end_matches('.').rsplit(' ').next());
                let last = last.map_or(sum, |number| number.parse().unwrap_or(-1));
                prop_assert_eq!(last, explained.ats, "{:?}", steps);
                answers += 1;
            }
        }
        Ok(answers)
    }

    /// Changes the rules in steps, with checks, and movements, between them.
    fn change_rules(&mut self, toml: &str) -> Result<(), TestCaseError> {
        let (rules, _) =
            Rules::parse(toml).map_err(|error| TestCaseError::fail(format!("{error}\n{toml}")))?;
        self.epoch += 1;
        let rules = Arc::new(RulesInForce {
            epoch: self.epoch,
            rules: Arc::new(rules),
            ..RulesInForce::built_in()
        });
        let expected = self.view.dry_run(&rules.rules);
        let before = self.totals();
        // A reader that began under the old rules and has not finished.
        let view = &self.view;
        let early = view.read();
        for books in &mut self.books {
            books.put_rules(Arc::clone(&rules));
        }
        for (channel, _) in early.rules.rules.channels() {
            let mut found = Vec::new();
            early.available(channel, SKUS.into_iter(), |_, ats| found.push(ats));
            for (sku, ats) in SKUS.iter().zip(found) {
                let explained = early.explain(channel, sku);
                prop_assert_eq!(ats, explained.known.then_some(explained.ats));
            }
        }
        drop(early);
        self.check()?;
        self.view.rulebook().put(Arc::clone(&rules));
        self.check()?;
        for numbers in [&mut self.published, &mut self.taken] {
            numbers.retain(|(channel, _), _| rules.rules.channel(channel).is_some());
        }
        let published = self.published.clone();
        self.publish();
        for (channel, tally) in &expected {
            let pushed = self.published.iter().filter(|(key, units)| {
                key.0 == *channel && published.get(key).copied().unwrap_or_default() != **units
            });
            prop_assert_eq!(tally.skus_published, pushed.count() as u64);
        }
        // The dry run foretold it.
        for (channel, tally) in expected {
            let units = |totals: &Vec<(String, i64)>| {
                let of = totals.iter().find(|(name, _)| *name == channel);
                of.map_or(0, |(_, units)| *units)
            };
            prop_assert_eq!(i128::from(tally.units_before), i128::from(units(&before)));
            prop_assert_eq!(
                i128::from(tally.units_after),
                i128::from(units(&self.totals()))
            );
        }
        Ok(())
    }

    /// Units that each channel may sell of all SKUs.
    fn totals(&self) -> Vec<(String, i64)> {
        let reading = self.view.read();
        let of = |(channel, name): (ChannelIx, &str)| {
            let mut units = 0;
            reading.available(channel, SKUS.into_iter(), |_, ats| {
                units += ats.unwrap_or(0)
            });
            (name.to_owned(), units)
        };
        reading.rules.rules.channels().map(of).collect()
    }
}

proptest! {
    #[test]
    fn an_answer_is_what_its_terms_explain(
        first in document(),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut bench = Bench::new();
        bench.change_rules(&first)?;
        for event in events {
            match event {
                Event::Post(sku, at, good, reserved) => {
                    bench.post(sku, at, good, reserved);
                    bench.publish();
                }
                Event::Rules(toml) => bench.change_rules(&toml)?,
                Event::Take(max) => bench.take(max)?,
                Event::Restore => bench.restore()?,
            }
            bench.check()?;
            bench.check_published()?;
        }
        bench.take(usize::MAX)?;
    }

    /// One shard has gone over to the next rules and the other has not, and movements go on.
    #[test]
    fn an_answer_is_right_in_the_midst_of_a_change(
        documents in (document(), document()),
        before in prop::collection::vec((0..SKUS.len(), 0..26u8, 0..40i64, 0..9i64), 1..30),
        after in prop::collection::vec((0..SKUS.len(), 0..26u8, -9..40i64, 0..9i64), 1..30),
        readers_first in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        bench.change_rules(&documents.0)?;
        for (sku, at, good, reserved) in before {
            bench.post(sku, at, good, reserved);
        }
        let (rules, _) = Rules::parse(&documents.1).expect("is valid");
        let next = Arc::new(RulesInForce {
            epoch: bench.epoch + 1,
            rules: Arc::new(rules),
            ..RulesInForce::built_in()
        });
        if readers_first {
            bench.view.rulebook().put(Arc::clone(&next));
        }
        bench.books[0].put_rules(next);
        for (sku, at, good, reserved) in after {
            bench.post(sku, at, good, reserved);
            bench.check()?;
        }
    }

    /// The rules change, and movements go on, while a checkpoint is taken.
    #[test]
    fn a_checkpoint_has_what_was_published_when_it_was_begun(
        documents in (document(), document()),
        before in prop::collection::vec((0..SKUS.len(), 0..26u8, 0..40i64, 0..9i64), 1..30),
        after in prop::collection::vec((0..SKUS.len(), 0..26u8, -9..40i64, 0..9i64), 0..30),
        slices in 0..300usize,
    ) {
        let mut bench = Bench::new();
        bench.change_rules(&documents.0)?;
        for (sku, at, good, reserved) in before {
            bench.post(sku, at, good, reserved);
            bench.publish();
        }
        let rules = Arc::clone(&bench.view.read().rules);
        let published = bench.published.clone();
        for books in &mut bench.books {
            books.begin_saving();
            for _ in 0..slices {
                books.save_slice();
            }
        }
        bench.change_rules(&documents.1)?;
        for (sku, at, good, reserved) in after {
            bench.post(sku, at, good, reserved);
        }
        bench.finish_saving(&rules)?;
        bench.view.rulebook().put(rules);
        bench.published = published;
        bench.check_published()?;
    }
}
