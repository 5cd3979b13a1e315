//! What decoding a movement costs: prost and conversion, against straight from the bytes.
//!
//! `cargo bench --bench decode` prints nanoseconds per movement of both, and their ratio. Each
//! is the best of several rounds, taken in turn, so that a noisy machine harms both alike.

use std::hint::black_box;
use std::time::Instant;

use prost::Message;
use sellable::log::{Lane, MediaType};
use sellable::proto::v1 as pb;
use sellable::wire::media::{self, Scratch};
use sellable::wire::{borrowed, movement, text};

const MOVEMENTS: usize = 1_000;
const ROUNDS: usize = 40;
const BATCHES_PER_ROUND: usize = 20;

fn main() {
    println!(
        "{:<34} {:>9} {:>9} {:>6}",
        "ns/movement", "prost", "borrowed", "ratio"
    );
    for (name, only) in [
        ("mixed kinds", None),
        ("received", Some(0)),
        ("reserved", Some(1)),
    ] {
        let batch = batch(only);
        let bytes = batch.encode_to_vec();
        let mut best = [f64::INFINITY; 2];
        for _ in 0..ROUNDS {
            best[0] = best[0].min(time(|| with_prost(&bytes)));
            best[1] = best[1].min(time(|| straight(&bytes)));
        }
        println!(
            "{:<34} {:>9.1} {:>9.1} {:>6.2}",
            format!("{name} ({} B each)", bytes.len() / MOVEMENTS),
            best[0],
            best[1],
            best[0] / best[1]
        );
    }
    let events = cloud_events(&batch(None));
    let lane = Lane::Producer {
        source: "wms".into(),
        media_type: MediaType::Json,
    };
    let mut scratch = Scratch::default();
    let best = (0..ROUNDS)
        .map(|_| time(|| from_json(&lane, events.as_bytes(), &mut scratch)))
        .fold(f64::INFINITY, f64::min);
    let bytes = events.len() / MOVEMENTS;
    println!("CloudEvents in JSON ({bytes} B each): {best:.1}");
}

fn cloud_events(batch: &pb::MovementBatch) -> String {
    let events: Vec<_> = batch
        .movements
        .iter()
        .map(|movement| text::to_cloud_event_line(movement).expect("has a form"))
        .collect();
    format!("[{}]", events.join(","))
}

fn from_json(lane: &Lane, payload: &[u8], scratch: &mut Scratch) -> i64 {
    let mut sum = 0;
    media::decode_payload(lane, black_box(payload), scratch, |found| {
        sum += found.movement.expect("a movement").quantity;
    })
    .expect("a batch");
    sum
}

fn time(mut decode: impl FnMut() -> i64) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCHES_PER_ROUND {
        black_box(decode());
    }
    start.elapsed().as_nanos() as f64 / (BATCHES_PER_ROUND * MOVEMENTS) as f64
}

/// Both end in the same: every movement is there as the domain's, and is looked at.
fn with_prost(bytes: &[u8]) -> i64 {
    let batch = pb::MovementBatch::decode(black_box(bytes)).expect("a batch");
    let mut sum = 0;
    for movement in &batch.movements {
        let movement = movement::from_proto(movement).expect("a movement");
        sum += black_box(&movement).quantity;
    }
    sum
}

fn straight(bytes: &[u8]) -> i64 {
    let mut sum = 0;
    borrowed::for_each_movement(black_box(bytes), |found| {
        let movement = found.movement.expect("a movement");
        sum += black_box(&movement).quantity;
    })
    .expect("a batch");
    sum
}

fn batch(only: Option<usize>) -> pb::MovementBatch {
    use pb::movement::Kind;
    let movements = (0..MOVEMENTS)
        .map(|number| {
            let order = format!("ORD-2026-{number:07}");
            let line = format!("{}", number % 9 + 1);
            let location = format!("STORE-{:04}", number % 700);
            // Without a pattern that a branch predictor could learn.
            let scattered = number.wrapping_mul(0x9E37_79B9) >> 7;
            let kind = match only.unwrap_or(scattered % 4) {
                0 => Kind::Received(pb::Received {
                    location,
                    condition: pb::Condition::Good.into(),
                    ..pb::Received::default()
                }),
                1 => Kind::Reserved(pb::Reserved {
                    order,
                    line,
                    location,
                    channel: "web".into(),
                    expires_at: None,
                }),
                2 => Kind::Shipped(pb::Shipped {
                    order,
                    line,
                    location,
                }),
                _ => Kind::Issued(pb::Issued {
                    location,
                    condition: 0,
                    reason: pb::IssueReason::Sale.into(),
                }),
            };
            pb::Movement {
                id: format!("0198c5f2-7d1e-7a31-9c40-{number:012}"),
                source: "wms".into(),
                occurred_at: Some(prost_types::Timestamp {
                    seconds: 1_795_168_800 + number as i64,
                    nanos: 123_456_000,
                }),
                sku: format!("0401234{scattered:07}"),
                quantity: number as i64 % 300 + 1,
                correlation_id: String::new(),
                reference: if number % 3 == 0 {
                    format!("DN-{number:08}")
                } else {
                    String::new()
                },
                actor: String::new(),
                kind: Some(kind),
            }
        })
        .collect();
    pb::MovementBatch {
        version: 1,
        movements,
    }
}
