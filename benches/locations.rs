//! What the `ats` of a SKU costs by the number of its locations.
//!
//! As many SKUs at 1 location as at 10, 100 and 1,000 lie in one pipeline; each round asks for all
//! of one kind, in random order, ten SKUs a query, through [`View::read`] and
//! `Reading::available`, without the network. Once with whatever the round before has left in the
//! caches, and once after the caches were flushed by walking over other memory, so that every
//! block comes from memory.
//!
//! `--skus` of each kind (5,000), `--rounds`.
//!
//! [`View::read`]: sellable::shard::View::read

#[path = "support/mod.rs"]
mod support;

use std::{hint::black_box, time::Instant};

use sellable::{bench::Pipeline, domain::admission::Horizon, log::Lane, shard::View};
use support::{Goal, Positions, Random, Rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KINDS: [usize; 4] = [1, 10, 100, 1_000];
/// SKUs of one query.
const CART: usize = 10;
/// More than any cache holds.
const FLUSH_BYTES: usize = 128 << 20;

fn main() {
    if !support::is_bench() {
        return;
    }
    let skus = support::size("skus", 5_000);
    let rounds = support::size("rounds", 11);
    support::introduce(&format!(
        "locations: {skus} SKUs of each kind, {CART} SKUs a query, channel `app`"
    ));
    let mut pipeline = Pipeline::new(Horizon::DEFAULT);
    let mut positions = Positions::default();
    let rules = positions.entry(Lane::Record, support::rules_record(support::RULES));
    let rules = pipeline.decode(vec![rules]).expect("rules");
    pipeline.apply(rules);
    load(&mut pipeline, &mut positions, skus);

    let mut random = Random(3);
    let names = |kind: usize| {
        let mut numbers: Vec<usize> = (0..skus).collect();
        random.shuffle(&mut numbers);
        let name = |number: usize| support::sku(kind * skus + number);
        numbers.into_iter().map(name).collect::<Vec<String>>()
    };
    let names: Vec<Vec<String>> = (0..KINDS.len()).map(names).collect();
    let mut other = vec![1u8; FLUSH_BYTES];
    let view = pipeline.view();
    for (state, flush, passes) in [("caches warm", false, 20), ("from memory", true, 1)] {
        support::head(state, "ns for one SKU");
        for (kind, locations) in KINDS.iter().enumerate().skip(1) {
            let mut run = |kind: usize| {
                if flush {
                    other.iter_mut().step_by(64).for_each(|byte| *byte += 1);
                    black_box(&other);
                } else {
                    ask(view, &names[kind]);
                }
                let start = Instant::now();
                for _ in 0..passes {
                    ask(view, &names[kind]);
                }
                support::ns_each(start, passes * skus)
            };
            let mut figures = Rounds::default();
            for round in 0..rounds {
                let first = run(if round % 2 == 0 { kind } else { 0 });
                let second = run(if round % 2 == 0 { 0 } else { kind });
                let [ours, theirs] = if round % 2 == 0 {
                    [first, second]
                } else {
                    [second, first]
                };
                figures.push(ours, theirs);
            }
            let name = format!("{locations} locations");
            let goal = match locations {
                1_000 => Goal::AtMost(1.2),
                _ => Goal::None,
            };
            support::row(&name, "1 location", &figures, goal);
        }
        println!();
    }
}

fn ask(view: &View, skus: &[String]) {
    let mut units = 0;
    for cart in skus.chunks(CART) {
        let reading = view.read();
        let channel = reading.rules.rules.channel("app").expect("a channel");
        reading.available(channel, cart, |_, ats| {
            units += ats.expect("a SKU that is there");
        });
    }
    black_box(units);
}

fn load(pipeline: &mut Pipeline, positions: &mut Positions, skus: usize) {
    let mut id = 0;
    let mut movements = Vec::new();
    let mut apply = |movements: &mut Vec<_>| {
        let payload = support::encode(std::mem::take(movements));
        let entry = positions.entry(support::producer(), payload);
        let batch = pipeline.decode(vec![entry]).expect("movements");
        pipeline.apply_unadmitted(batch);
    };
    for number in 0..skus {
        for (kind, locations) in KINDS.iter().enumerate() {
            for at in 0..*locations {
                id += 1;
                let sku = support::sku(kind * skus + number);
                movements.push(support::received(id, sku, 100, support::location(at)));
                if movements.len() == 1_000 {
                    apply(&mut movements);
                }
            }
        }
    }
    apply(&mut movements);
    let sizes = pipeline.view().sizes();
    assert_eq!(sizes.cells, id);
}
