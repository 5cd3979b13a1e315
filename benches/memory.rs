//! Bytes of memory for a cell, and for a remembered movement id.
//!
//! Each figure is how much the resident memory of a fresh process grew, with the allocator of
//! `sellable`, over the number of cells or ids: blocks, index, and whatever the allocator needs
//! beside, memory included that it has not given back after two seconds. `of these, in use` is what the service itself
//! counts.
//!
//! `--cells` and `--ids` (10,000,000 each).

#[path = "support/mod.rs"]
mod support;

use std::{process::Command, time::Duration};

use sellable::{
    bench::Pipeline,
    domain::{
        admission::{Admission, Horizon, Verdict},
        keys::Keyer,
    },
    log::Lane,
};
use support::{Goal, Positions, figure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Quoted from the design: names and values only.
const REDIS_CELL: &str = "a Redis hash, quoted: 120 to 160";
/// Quoted from the design.
const REDIS_ID: &str = "a Redis key, quoted: 73";

fn main() {
    if !support::is_bench() {
        return;
    }
    let cells = support::size("cells", 10_000_000);
    let ids = support::size("ids", 10_000_000);
    match support::size("case", 0) {
        0 => report(cells, ids),
        1 => measure_cells(cells / 10, 10, true),
        2 => measure_cells(cells / 100, 100, true),
        3 => measure_cells(cells / 10, 10, false),
        _ => measure_ids(ids),
    }
}

fn report(cells: usize, ids: usize) {
    support::introduce("memory");
    println!("| | bytes each | of these, in use | against | goal | |");
    println!("|---|---:|---:|---|---:|---|");
    let skus = |locations| figure((cells / locations) as f64);
    let by_location = "arriving location by location";
    let cases = [
        format!("cell, {} SKUs at 10, {by_location}", skus(10)),
        format!("cell, {} SKUs at 100, {by_location}", skus(100)),
        format!("cell, {} SKUs at 10, arriving SKU by SKU", skus(10)),
        format!("remembered id, {} ids", figure(ids as f64)),
    ];
    for (at, name) in cases.iter().enumerate() {
        let program = std::env::current_exe().expect("this program");
        let output = Command::new(program)
            .args(["--bench", "--case", &(at + 1).to_string()])
            .args(["--cells", &cells.to_string(), "--ids", &ids.to_string()])
            .output()
            .expect("it runs again");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut numbers = text.split_whitespace().filter_map(|text| text.parse().ok());
        let (Some(bytes), Some(in_use)) = (numbers.next(), numbers.next()) else {
            panic!("case {at}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let (against, goal) = match at {
            3 => (REDIS_ID, Goal::AtMost(24.0)),
            _ => (REDIS_CELL, Goal::AtMost(100.0)),
        };
        println!(
            "| {name} | **{}** | {} | {against} | {goal} | {} |",
            figure(bytes),
            figure(in_use),
            goal.verdict(bytes)
        );
    }
}

/// Resident memory once the allocator has given back what it meant to: it waits a second, and looks
/// when memory is freed.
#[expect(
    clippy::disallowed_methods,
    reason = "the allocator's own delay is what it waits for"
)]
fn settled_bytes() -> usize {
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(600));
        drop(std::hint::black_box(vec![1u8; 4 << 20]));
    }
    support::resident_bytes()
}

fn measure_cells(skus: usize, locations: usize, by_location: bool) {
    let mut pipeline = Pipeline::new(Horizon::DEFAULT);
    let mut positions = Positions::default();
    let rules = positions.entry(Lane::Record, support::rules_record(support::RULES));
    let rules = pipeline.decode(vec![rules]).expect("rules");
    pipeline.apply(rules);
    let mut apply = |first: usize, count: usize| {
        let movement = |number: usize| {
            let (sku, at) = match by_location {
                true => (number % skus, number / skus),
                false => (number / locations, number % locations),
            };
            let (sku, at) = (support::sku(sku), support::location(at));
            support::received(number as u64, sku, 100, at)
        };
        let movements = (first..first + count).map(movement).collect();
        let entry = positions.entry(support::producer(), support::encode(movements));
        let batch = pipeline.decode(vec![entry]).expect("movements");
        pipeline.apply_unadmitted(batch);
    };
    // What the way there needs itself is there after the first.
    apply(0, 1_000);
    let before = support::resident_bytes();
    let cells = skus * locations;
    for first in (1_000..cells).step_by(1_000) {
        apply(first, (cells - first).min(1_000));
    }
    let grown = settled_bytes() - before;
    let sizes = pipeline.view().sizes();
    assert_eq!(sizes.cells, cells as u64);
    println!(
        "{} {}",
        grown as f64 / (cells - 1_000) as f64,
        sizes.bytes as f64 / cells as f64
    );
}

fn measure_ids(ids: usize) {
    let mut admission = Admission::new(Horizon::DEFAULT);
    admission.advance(support::NOW_US);
    let mut keyer = Keyer::new();
    let before = support::resident_bytes();
    for number in 0..ids {
        let key = keyer.movement("wms", &format!("0198c5f2-7d1e-7a31-9c40-{number:012}"));
        let verdict = admission.admit(key, number as u64, support::NOW_US);
        assert_eq!(verdict, Verdict::Apply);
    }
    let grown = settled_bytes() - before;
    println!(
        "{} {}",
        grown as f64 / ids as f64,
        admission.ids().bytes() as f64 / ids as f64
    );
}
