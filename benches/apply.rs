//! Facts applied per second on one core, all included, against dependent cache misses.
//!
//! Ours: sequencer and shard on one thread, as an instance runs them on two: idempotency, the
//! queue between them, order lines, balances, the sums of three channels, publication to the
//! view. Not included: reading and decoding the log, which has threads of its own by design; a
//! line of its own says what it costs.
//!
//! Every movement goes to a SKU and a location at random, and 2 % are repeats. The floor is a
//! read-modify-write of one cache line among as many lines as there are cells, each dependent on
//! the one before: the least that a movement without any look-ahead could cost.
//!
//! `--skus`, `--locations`: the cells (1,000,000 SKUs at 10). `--entries`, `--messages`: movements
//! of an entry and entries decoded at once. `--rounds`.

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use sellable::{
    bench::Pipeline,
    domain::admission::Horizon,
    log::{Entry, Lane},
};
use support::{Goal, Misses, Mix, Positions, Rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Shape {
    movements: usize,
    entries: usize,
}

fn main() {
    if !support::is_bench() {
        return;
    }
    let skus = support::size("skus", 1_000_000);
    let locations = support::size("locations", 10);
    let rounds = support::size("rounds", 9);
    let per_round = support::size("per-round", 400_000);
    let shape = Shape {
        movements: support::size("movements", 100),
        entries: support::size("entries", 40),
    };
    support::introduce(&format!(
        "apply: {skus} SKUs at {locations} locations each, {} movements a batch, 3 channels",
        shape.movements * shape.entries
    ));

    let mut positions = Positions::default();
    let mut pipeline = Pipeline::new(Horizon::DEFAULT);
    let rules = positions.entry(Lane::Record, support::rules_record(support::RULES));
    let rules = pipeline.decode(vec![rules]).expect("rules");
    pipeline.apply(rules);
    load(&mut pipeline, &mut positions, skus, locations);

    let first_id = (skus * locations) as u64;
    let open_min = per_round / 2;
    let mut mix = Mix::new(skus, locations, first_id, open_min);
    // Opens the order lines, and warms up.
    for _ in 0..open_min / shape.movements / shape.entries + 1 {
        let entries = batch(&mut positions, &shape, || mix.reserved());
        let batch = pipeline.decode(entries).expect("movements");
        pipeline.apply(batch);
    }
    let mut misses = Misses::among(skus * locations);
    misses.ns(per_round);

    let sizes = pipeline.view().sizes();
    println!(
        "{} cells, {} order lines, {} ids",
        support::figure(sizes.cells as f64),
        support::figure(sizes.order_lines as f64),
        support::figure(pipeline.outcomes()[0] as f64),
    );
    println!();
    let mut with_decode = Rounds::default();
    let mut lone_decode = Vec::new();
    let applied = Rounds::alternate(
        rounds,
        || {
            let (mut decoding, mut applying) = (Duration::ZERO, Duration::ZERO);
            let mut count = 0;
            while count < per_round {
                let entries = batch(&mut positions, &shape, || mix.next());
                let start = Instant::now();
                let batch = pipeline.decode(entries).expect("movements");
                let decoded = Instant::now();
                pipeline.apply(batch);
                applying += decoded.elapsed();
                decoding += decoded - start;
                count += shape.movements * shape.entries;
            }
            lone_decode.push(decoding.as_nanos() as f64 / count as f64);
            support::per_second(count, applying)
        },
        || 1e9 / misses.ns(per_round),
    );
    for (at, decode) in lone_decode.iter().enumerate() {
        let (ours, theirs) = applied.round(at);
        with_decode.push(1e9 / (1e9 / ours + decode), theirs);
    }
    support::head("one core", "a second");
    let misses = "dependent cache misses";
    support::row("applied", misses, &applied, Goal::AtLeast(0.5));
    support::row("decoded and applied", misses, &with_decode, Goal::None);
    println!();
    println!(
        "applied: {:.0} ns a movement; decoded: {:.0} ns; a miss: {:.0} ns. Further goal: 1.",
        1e9 / applied.ours(),
        support::median(&lone_decode),
        1e9 / applied.theirs()
    );
    let [applied, duplicate, parked] = pipeline.outcomes();
    println!("applied {applied}, repeats {duplicate}, parked {parked}");
}

fn batch(
    positions: &mut Positions,
    shape: &Shape,
    mut next: impl FnMut() -> sellable::proto::v1::Movement,
) -> Vec<Entry> {
    (0..shape.entries)
        .map(|_| {
            let movements = (0..shape.movements).map(|_| next()).collect();
            positions.entry(support::producer(), support::encode(movements))
        })
        .collect()
}

/// Fills every cell, location by location, as stores state their stock one after the other.
fn load(pipeline: &mut Pipeline, positions: &mut Positions, skus: usize, locations: usize) {
    let mut id = 0;
    for at in 0..locations {
        for first in (0..skus).step_by(1_000) {
            let movements = (first..skus.min(first + 1_000))
                .map(|number| {
                    id += 1;
                    let (sku, at) = (support::sku(number), support::location(at));
                    support::received(id, sku, 1_000, at)
                })
                .collect();
            let entry = positions.entry(support::producer(), support::encode(movements));
            let batch = pipeline.decode(vec![entry]).expect("movements");
            pipeline.apply(batch);
        }
    }
}
