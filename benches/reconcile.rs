//! A snapshot compared with the books of its own time, once it is parsed.
//!
//! Every cell came before the moment of the snapshot, and a part of them (`--since`, in percent)
//! moved since, so that the books of now are not those of the moment. The snapshot states what the
//! books held, but for a few lines. Measured is all that an instance does: checks, the set of cells
//! stated so far, the shards' comparison, what the cells hold now, counting, ranking, and the
//! report's records in a log in memory. Against: applying as many movements from memory, and
//! reading as many cells.
//!
//! `--skus` (20,000), `--locations` (10), `--shards` (1), `--since` (20), `--rounds` (7).

#[path = "support/mod.rs"]
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost_types::Timestamp;
use sellable::{
    domain::reconcile::Chunk,
    instance::{Instance, Options},
    limits::{SNAPSHOT_CHUNK_LINES, SNAPSHOT_MESSAGE_LINES_MAX},
    log::{Log, memory::MemoryLog},
    proto::v1::{self as pb, snapshot_header::Moment},
    reconcile::Comparison,
};
use support::{Goal, Rounds};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// When everything came; the snapshot is as of a minute later, and what moved since did so a minute
/// after that.
const CAME: i64 = 1_700_000_000;
const MINUTE: i64 = 60;
const UNITS: i64 = 100;
/// Of so many lines, one differs.
const DIFFERS: usize = 10_000;

fn main() {
    if !support::is_bench() {
        return;
    }
    let (skus, locations) = (
        support::size("skus", 20_000),
        support::size("locations", 10),
    );
    let since = support::size("since", 20);
    let rounds = support::size("rounds", 7);
    let options = Options {
        shards: support::size("shards", 1),
        ..Options::default()
    };
    support::introduce(&format!(
        "reconcile: {skus} SKUs at {locations} locations, {since} % moved since, {} shards",
        options.shards
    ));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");

    let cells = skus * locations;
    let log: Arc<dyn Log> = Arc::new(filled(skus, locations, since));
    let movements = cells + cells * since / 100;
    let instance = runtime.block_on(start(&log, &options));
    let lines = snapshot(skus, locations);
    let chunks = chunks(&instance, &lines);
    let memory: Arc<dyn Log> = Arc::new(filled(skus, locations, since));
    let mut number = 0;
    let mut compared = || {
        number += 1;
        compare(&runtime, &instance, &lines, number)
    };
    compared();
    let applied = || {
        let start_at = Instant::now();
        let other = runtime.block_on(start(&memory, &options));
        let figure = support::per_second(movements, start_at.elapsed());
        runtime.block_on(other.stop());
        figure
    };
    applied();
    let by_apply = Rounds::alternate(rounds, &mut compared, applied);
    let by_read = Rounds::alternate(rounds, &mut compared, || read(&instance, &chunks));
    support::head("one snapshot", "lines or movements a second");
    support::row("compared", "applied from memory", &by_apply, Goal::None);
    support::row("compared", "cells read", &by_read, Goal::None);
    println!();
    let goal = Goal::AtLeast(1e6);
    println!(
        "compared: {} lines a second; goal {goal}. {}",
        support::figure(by_apply.ours()),
        goal.verdict(by_apply.ours()),
    );
    runtime.block_on(instance.stop());
}

/// A log in memory in which every cell came, and some moved.
fn filled(skus: usize, locations: usize, since: usize) -> MemoryLog {
    let log = MemoryLog::new();
    let mut batch = Vec::new();
    let mut id = 0;
    let mut publish = |movement: pb::Movement, is_last: bool| {
        batch.push(movement);
        if batch.len() == 1_000 || is_last {
            let movements = std::mem::take(&mut batch);
            log.publish(support::producer(), support::encode(movements));
        }
    };
    for round in 0..2 {
        let last = skus * locations - 1;
        for cell in 0..=last {
            let moves = round == 0 || cell % 100 < since;
            if !moves && cell != last {
                continue;
            }
            id += 1;
            let (sku, at) = (support::sku(cell % skus), support::location(cell / skus));
            let units = if round == 0 { UNITS } else { 1 };
            let mut movement = support::received(id, sku, units, at);
            movement.occurred_at = Some(Timestamp {
                seconds: CAME + round * 2 * MINUTE,
                nanos: 0,
            });
            publish(movement, cell == last);
        }
    }
    log
}

async fn start(log: &Arc<dyn Log>, options: &Options) -> Arc<Instance> {
    let instance = Instance::start(Arc::clone(log), options).await;
    let instance = instance.expect("it starts");
    instance.caught_up().await;
    instance
}

/// What the books held, but for a few lines, in no order of theirs.
fn snapshot(skus: usize, locations: usize) -> Vec<pb::SnapshotLine> {
    let mut lines: Vec<_> = (0..skus * locations)
        .map(|cell| pb::SnapshotLine {
            sku: support::sku(cell % skus),
            location: support::location(cell / skus),
            good: Some(UNITS + i64::from(cell % DIFFERS == 7)),
            ..pb::SnapshotLine::default()
        })
        .collect();
    support::Random(11).shuffle(&mut lines);
    lines
}

fn compare(
    runtime: &Runtime,
    instance: &Arc<Instance>,
    lines: &[pb::SnapshotLine],
    number: usize,
) -> f64 {
    let header = pb::SnapshotHeader {
        snapshot: format!("s-{number}"),
        source: "erp".into(),
        moment: Some(Moment::AsOf(Timestamp {
            seconds: CAME + MINUTE,
            nanos: 0,
        })),
        clock_tolerance_ms: 2_000,
        ..pb::SnapshotHeader::default()
    };
    let messages: Vec<Vec<pb::SnapshotLine>> = lines
        .chunks(SNAPSHOT_MESSAGE_LINES_MAX)
        .map(<[_]>::to_vec)
        .collect();
    let (elapsed, report) = runtime.block_on(async {
        let start = Instant::now();
        let begun = Comparison::begin(instance, header, Default::default()).await;
        let mut comparison = begun.expect("a comparison");
        for lines in messages {
            comparison.add(lines).await.expect("added");
        }
        let end = pb::SnapshotEnd {
            lines: lines.len() as u64,
            skipped_lines: 0,
        };
        let finished = comparison.finish(end).await.expect("compared");
        (start.elapsed(), finished.report)
    });
    let summary = report.summary.expect("a summary");
    let differs = (0..lines.len()).filter(|cell| cell % DIFFERS == 7).count();
    assert_eq!(
        (summary.cells, summary.variance),
        (lines.len() as u64, differs as u64)
    );
    support::per_second(lines.len(), elapsed)
}

fn chunks(instance: &Instance, lines: &[pb::SnapshotLine]) -> Vec<Chunk> {
    let chunk = |lines: &[pb::SnapshotLine]| {
        let mut chunk = Chunk::default();
        for line in lines {
            let at = instance.locations().get(&line.location);
            chunk.push(&line.sku, at, [line.good, None, None, None]);
        }
        chunk
    };
    lines.chunks(SNAPSHOT_CHUNK_LINES).map(chunk).collect()
}

/// Reads the cells. Cells a second.
fn read(instance: &Instance, chunks: &[Chunk]) -> f64 {
    let start = Instant::now();
    let (mut cells, mut units) = (0, 0);
    for chunk in chunks {
        instance.view().read().cells(chunk, |cell| {
            cells += 1;
            units += cell.map_or(0, |own| own.on_hand());
        });
    }
    let elapsed: Duration = start.elapsed();
    assert!(units > 0);
    support::per_second(cells, elapsed)
}
