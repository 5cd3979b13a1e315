//! What the `ats` of a SKU costs by the number of its locations.
//!
//! SKUs at 1, 10, 100 and 1,000 locations lie in one pipeline; each measurement asks for as many
//! of one kind, in random order, ten SKUs a query, through [`View::read`] and
//! `Reading::available`, without the network. Once with whatever the round before has left in the
//! caches, and once after the caches were flushed by walking over other memory, so that every
//! block comes from memory. In processor time of the thread.
//!
//! A SKU at 1,000 locations is 300 times as large as one at 1, and so are the distances between
//! those that are asked for. So there are two kinds of SKUs at 1 location to compare with: picked
//! at random from so many that they take as much memory, and, as unlikely as they are in an
//! inventory, side by side, which spares the processor most of its look-ups of pages.
//!
//! `--skus` of each kind (5,000; at 1 location 300 times as many), `--rounds`.
//!
//! [`View::read`]: sellable::shard::View::read

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;

use sellable::{bench::Pipeline, domain::admission::Horizon, log::Lane, shard::View};
use support::{Goal, Positions, Random, Rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KINDS: [usize; 4] = [1, 10, 100, 1_000];
/// So many SKUs at 1 location take the memory of one at 1,000.
const SINGLES: usize = 300;
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
    let mut names = |kind: usize, from: usize| {
        let mut numbers: Vec<usize> = (0..from).collect();
        random.shuffle(&mut numbers);
        numbers.truncate(skus);
        let name = |number: usize| sku(kind, number);
        numbers.into_iter().map(name).collect::<Vec<String>>()
    };
    let names = [
        names(0, skus * SINGLES),
        names(0, skus),
        names(1, skus),
        names(2, skus),
        names(3, skus),
    ];
    let mut other = vec![1u8; FLUSH_BYTES];
    let view = pipeline.view();
    for (state, flush, passes) in [("caches warm", false, 20), ("from memory", true, 1)] {
        support::head(state, "ns for one SKU");
        let mut run = |kind: usize| {
            if flush {
                other
                    .iter_mut()
                    .step_by(64)
                    .for_each(|byte| *byte = byte.wrapping_add(1));
                black_box(&other);
            } else {
                ask(view, &names[kind]);
            }
            let start = support::thread_time();
            for _ in 0..passes {
                ask(view, &names[kind]);
            }
            support::ns_each(start, passes * skus)
        };
        for (against, name) in ["1 location", "1 location, side by side"]
            .iter()
            .enumerate()
        {
            for (kind, locations) in KINDS.iter().enumerate().skip(1) {
                let mut figures = Rounds::default();
                for round in 0..rounds {
                    let (ours, theirs) = if round % 2 == 0 {
                        let ours = run(kind + 1);
                        (ours, run(against))
                    } else {
                        let theirs = run(against);
                        (run(kind + 1), theirs)
                    };
                    figures.push(ours, theirs);
                }
                let goal = match locations {
                    1_000 => Goal::AtMost(1.2),
                    _ => Goal::None,
                };
                support::row(&format!("{locations} locations"), name, &figures, goal);
            }
        }
        println!();
    }
}

fn sku(kind: usize, number: usize) -> String {
    support::sku(kind * 10_000_000 + number)
}

fn ask(view: &View, skus: &[String]) {
    let mut units = 0;
    for cart in skus.chunks(CART) {
        let reading = view.read();
        let channel = reading.rules.rules.channel("app").expect("a channel");
        reading.available(channel, cart.iter().map(String::as_str), |_, ats| {
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
    for number in 0..skus * SINGLES {
        for (kind, locations) in KINDS.iter().enumerate() {
            if kind > 0 && number >= skus {
                continue;
            }
            for at in 0..*locations {
                id += 1;
                let sku = sku(kind, number);
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
