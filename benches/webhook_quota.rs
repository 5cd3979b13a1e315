//! How long it takes to tell a marketplace, under its quota, that a SKU is sold out.
//!
//! A flash sale in virtual time: sales make numbers fall, carts that are given up and deliveries make
//! them rise again, far more often than the quota allows to be told. Both sides have the same
//! changes, the same quota (`feed::webhook::quota`) and the same conflation; ours sends by urgency
//! (`feed::webhook::pending`), the other first come, first served. Measured is the time from the
//! change that made a number zero, where the marketplace showed more, until a message says so; and
//! how long, over all SKUs, more was shown than there is, also where a SKU came back before anybody
//! was told.
//!
//! Nothing here depends on the machine: the same seed gives the same figures. `--skus` (5,000),
//! `--seconds` of the sale (600), `--changes` a second (200), `--items` of the quota a minute (600),
//! `--requests` a minute (60), `--rounds` (5), each with another seed.

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::clock::FakeRelativeClock;
use sellable::feed::{
    Number, Update, UpdateKind,
    webhook::{
        pending::{Fate, Pending},
        quota::{Limits, Quota},
    },
};
use support::{Goal, Random, Rounds};

const BATCH_ITEMS: usize = 100;
const STEP: Duration = Duration::from_millis(5);

/// A change, and when it came.
struct Change {
    at: Duration,
    sku: usize,
    before: i64,
    units: i64,
}

/// What waits on one side.
trait Side {
    fn take(&mut self, change: &Change, name: &Arc<str>);
    fn waiting(&self) -> usize;
    fn send(&mut self, items: usize) -> Vec<(Arc<str>, i64)>;
}

/// By urgency.
struct ByUrgency(Pending, u64);

impl Side for ByUrgency {
    fn take(&mut self, change: &Change, name: &Arc<str>) {
        self.1 += 1;
        let number = Number {
            sku: Arc::clone(name),
            units: change.units,
            before: Some(change.before),
            logged_us: 0,
            occurred_us: 0,
        };
        let of = (&"market".into(), &"log".into());
        let positions = [self.1 - 1, self.1, self.1];
        let update = Update::new(UpdateKind::Changes, of, positions, vec![number]);
        self.0.take(&update);
    }

    fn waiting(&self) -> usize {
        self.0.waiting()
    }

    fn send(&mut self, items: usize) -> Vec<(Arc<str>, i64)> {
        let batch = self.0.send(items);
        self.0.ended(|_, _| Fate::Done);
        batch.into_iter().map(|own| (own.sku, own.units)).collect()
    }
}

/// First come, first served; of each SKU the newest number.
#[derive(Default)]
struct InTurn {
    turns: VecDeque<Arc<str>>,
    newest: HashMap<Arc<str>, i64>,
}

impl Side for InTurn {
    fn take(&mut self, change: &Change, name: &Arc<str>) {
        if self.newest.insert(Arc::clone(name), change.units).is_none() {
            self.turns.push_back(Arc::clone(name));
        }
    }

    fn waiting(&self) -> usize {
        self.turns.len()
    }

    fn send(&mut self, items: usize) -> Vec<(Arc<str>, i64)> {
        let turns = self.turns.drain(..items);
        turns
            .map(|sku| {
                let units = self.newest.remove(&sku).expect("it waits");
                (sku, units)
            })
            .collect()
    }
}

struct Sale {
    names: Vec<Arc<str>>,
    /// What the marketplace shows at the beginning.
    shown: Vec<i64>,
    changes: Vec<Change>,
    limits: Limits,
}

impl Sale {
    fn new(seed: u64) -> Self {
        let skus = support::size("skus", 5_000);
        let seconds = support::size("seconds", 600);
        let a_second = support::size("changes", 200);
        let mut random = Random(seed);
        let shown: Vec<i64> = (0..skus).map(|_| 1 + random.below(12) as i64).collect();
        let mut units = shown.clone();
        let change = |n: usize| {
            let at = Duration::from_secs(1) * n as u32 / a_second as u32;
            // A few are wanted most: the lower of two.
            let sku = random.below(skus).min(random.below(skus));
            let before = units[sku];
            let rises = before == 0 || random.below(100) < 35;
            let by = 1 + random.below(3) as i64;
            units[sku] = if rises {
                before + by
            } else {
                (before - by).max(0)
            };
            Change {
                at,
                sku,
                before,
                units: units[sku],
            }
        };
        let changes = (0..seconds * a_second).map(change).collect();
        let quota = |name, default| NonZeroU32::new(support::size(name, default) as u32);
        Self {
            names: (0..skus).map(|sku| support::sku(sku).into()).collect(),
            shown,
            changes,
            limits: Limits {
                requests: quota("requests", 60),
                items: quota("items", 600),
                window: Duration::from_secs(60),
            },
        }
    }

    fn run(&self, side: &mut dyn Side) -> Told {
        let clock = FakeRelativeClock::default();
        let mut quota = Quota::new(&self.limits, &clock);
        let (mut now, mut ready) = (Duration::ZERO, Duration::ZERO);
        let shown = self.names.iter().cloned().zip(self.shown.iter().copied());
        let mut shown: HashMap<Arc<str>, i64> = shown.collect();
        // Sold out, and not shown to be.
        let mut wrong = HashMap::<Arc<str>, Duration>::new();
        let mut told = Told::default();
        let mut changes = self.changes.iter().peekable();
        while changes.peek().is_some() || side.waiting() > 0 {
            while let Some(change) = changes.next_if(|change| change.at <= now) {
                let name = &self.names[change.sku];
                side.take(change, name);
                if change.units > 0 {
                    let since = wrong.remove(name).unwrap_or(change.at);
                    told.wrong_s += (change.at - since).as_secs_f64();
                } else if shown[name] > 0 {
                    wrong.entry(Arc::clone(name)).or_insert(change.at);
                }
            }
            while side.waiting() > 0 && now >= ready {
                match quota.take(side.waiting().min(BATCH_ITEMS)) {
                    Err(wait) => ready = now + wait,
                    Ok(items) => {
                        let batch = side.send(items);
                        told.messages += 1;
                        told.numbers += batch.len();
                        for (sku, units) in batch {
                            if units == 0
                                && let Some(since) = wrong.remove(&sku)
                            {
                                let took = (now - since).as_secs_f64();
                                told.wrong_s += took;
                                told.took_s.push(took);
                            }
                            shown.insert(sku, units);
                        }
                    }
                }
            }
            now += STEP;
            clock.advance(STEP);
        }
        told.took_s.sort_by(f64::total_cmp);
        told
    }
}

/// What came of a side.
#[derive(Default)]
struct Told {
    /// Seconds to tell each sell-out, in order.
    took_s: Vec<f64>,
    /// Seconds for which a SKU was sold out and not shown to be, of all SKUs.
    wrong_s: f64,
    messages: usize,
    numbers: usize,
}

fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile) as usize]
}

fn main() {
    if !support::is_bench() {
        return;
    }
    let rounds = support::size("rounds", 5);
    support::introduce("webhook_quota: time to tell a sell-out, under a quota, in a flash sale");
    let mut table = vec![Rounds::default(); 4];
    for round in 0..rounds {
        let sale = Sale::new(round as u64 + 1);
        let ours = sale.run(&mut ByUrgency(Pending::new(0), 0));
        let theirs = sale.run(&mut InTurn::default());
        println!("seed {}: {} changes", round + 1, sale.changes.len());
        for (name, side) in [("by urgency", &ours), ("in turn", &theirs)] {
            let (told, messages, numbers) = (side.took_s.len(), side.messages, side.numbers);
            println!("  {name}: {told} sell-outs told, {messages} messages, {numbers} numbers");
        }
        for (at, figure) in [0.5, 0.99, 1.0].into_iter().enumerate() {
            let [ours, theirs] = [&ours, &theirs].map(|side| quantile(&side.took_s, figure));
            table[at].push(theirs, ours);
        }
        table[3].push(theirs.wrong_s, ours.wrong_s);
    }
    println!();
    println!("| seconds | by urgency | in turn | in turn / by urgency | min to max | goal | |");
    println!("|---|---:|---:|---:|---:|---:|---|");
    for (rounds, (name, goal)) in table.iter().zip([
        ("to tell a sell-out: median", Goal::AtLeast(20.0)),
        ("99 of 100", Goal::AtLeast(5.0)),
        ("longest", Goal::None),
        (
            "shown although sold out, all SKUs together",
            Goal::AtLeast(10.0),
        ),
    ]) {
        let (low, middle, high) = rounds.ratio();
        println!(
            "| {name} | {:.2} | {:.2} | **{middle:.1}** | {low:.1} to {high:.1} | {goal} | {} |",
            rounds.theirs(),
            rounds.ours(),
            goal.verdict(middle),
        );
    }
}
