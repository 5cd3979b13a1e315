use prost::Message;

use super::*;
use crate::limits::{BATCH_MOVEMENTS_MAX, MESSAGE_BYTES_MAX};
use crate::log::{Lane, MediaType};
use crate::wire::media::{Scratch, decode_payload};
use crate::wire::record::encode_record;
use crate::wire::text::to_cloud_event;
use crate::wire::{Found, Unreadable};

fn producer(media_type: MediaType) -> Lane {
    Lane::Producer {
        source: "wms".into(),
        media_type,
    }
}

fn decode<'a>(
    lane: &'a Lane,
    payload: &'a [u8],
    scratch: &'a mut Scratch,
) -> Result<Vec<Found<'a>>, Unreadable> {
    let mut all = Vec::new();
    let count = decode_payload(lane, payload, scratch, |found| all.push(found))?;
    assert_eq!(count, all.len());
    Ok(all)
}

fn with_source(source: &str) -> pb::Movement {
    pb::Movement {
        source: source.into(),
        ..example()
    }
}

fn protobuf(movements: Vec<pb::Movement>) -> Vec<u8> {
    pb::MovementBatch {
        version: 1,
        movements,
    }
    .encode_to_vec()
}

fn json(movements: &[pb::Movement]) -> String {
    let events = movements
        .iter()
        .map(|movement| to_cloud_event(movement).expect("has a form"));
    serde_json::Value::from_iter(events).to_string()
}

#[test]
fn every_format_gives_the_same() {
    let movements: Vec<_> = examples()
        .iter()
        .map(crate::wire::movement::to_proto)
        .collect();
    let one = to_cloud_event(&movements[0])
        .expect("has a form")
        .to_string();
    let batch = protobuf(movements.clone());
    let array = json(&movements);
    let every = movements.len();
    for (media_type, payload, count) in [
        (MediaType::Protobuf, &*batch, every),
        (MediaType::Unstated, &*batch, every),
        (MediaType::Json, array.as_bytes(), every),
        (MediaType::Unstated, array.as_bytes(), every),
        (MediaType::Json, one.as_bytes(), 1),
        (MediaType::Unstated, one.as_bytes(), 1),
    ] {
        let lane = producer(media_type);
        let mut scratch = Scratch::default();
        let all = decode(&lane, payload, &mut scratch).expect("readable");
        assert_eq!(all.len(), count);
        for (index, (found, expected)) in all.iter().zip(examples()).enumerate() {
            assert_eq!(found.movement, Ok(expected));
            assert_eq!((found.index, found.id, found.source), (index, "m-1", "wms"));
        }
    }
}

#[test]
fn subject_names_the_source() {
    let movements = [with_source(""), with_source("wms"), with_source("pos")];
    let batch = protobuf(movements.to_vec());
    let array = json(&movements);
    for payload in [&*batch, array.as_bytes()] {
        let lane = producer(MediaType::Unstated);
        let mut scratch = Scratch::default();
        let all = decode(&lane, payload, &mut scratch).expect("readable");
        assert!(all.iter().all(|found| found.source == "wms"));
        for found in &all[..2] {
            assert_eq!(found.movement.as_ref().expect("valid").source, "wms");
        }
        assert_eq!(
            said(all[2].movement.clone()),
            "source: is \"pos\", but it was published on `movements.wms`; leave it empty, or publish on its own subject"
        );
    }
}

#[test]
fn a_bad_event_does_not_lose_its_neighbours() {
    let good = to_cloud_event(&example()).expect("has a form").to_string();
    let payload = format!("[{good}, {{\"id\":\"m-2\"}}, 5, {good}]");
    let lane = producer(MediaType::Json);
    let mut scratch = Scratch::default();
    let all = decode(&lane, payload.as_bytes(), &mut scratch).expect("readable");
    assert!(all[0].movement.is_ok() && all[3].movement.is_ok());
    assert_eq!((all[1].id, all[1].raw), ("m-2", &b"{\"id\":\"m-2\"}"[..]));
    assert_eq!(
        said(all[2].movement.clone()),
        "json: is a number; an object"
    );
}

#[test]
fn an_unknown_disposition_is_read_and_its_bytes_are_kept() {
    let known = to_cloud_event(&inspected(1))
        .expect("has a form")
        .to_string();
    assert_eq!(known.matches("\"restock\"").count(), 1);
    let unknown = known.replace("\"restock\"", "\"donate\"");
    let missing = known.replace("\"disposition\":\"restock\",", "");
    assert_ne!(missing, known);
    let array = format!("[{unknown},{missing},{known}]");
    let batch = protobuf(vec![inspected(77), inspected(0), inspected(1)]);
    for payload in [&*batch, array.as_bytes()] {
        let lane = producer(MediaType::Unstated);
        let mut scratch = Scratch::default();
        let all = decode(&lane, payload, &mut scratch).expect("readable");
        let dispositions: Vec<_> = all
            .iter()
            .map(|found| match found.movement.as_ref().expect("valid").kind {
                Kind::ReturnInspected { disposition, .. } => disposition,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(dispositions, [None, None, Some(Disposition::Restock)]);
        let kept = [unknown.clone().into_bytes(), inspected(77).encode_to_vec()];
        assert!(kept.iter().any(|bytes| bytes == all[0].raw));
    }
}

#[test]
fn scratch_forgets_the_message_before() {
    let lane = producer(MediaType::Json);
    let mut scratch = Scratch::default();
    let array = json(&[example(), example()]);
    let one = json(&[with_source("")]);
    assert_eq!(
        decode(&lane, array.as_bytes(), &mut scratch).map(|all| all.len()),
        Ok(2)
    );
    assert_eq!(
        decode(&lane, one.as_bytes(), &mut scratch).map(|all| all.len()),
        Ok(1)
    );
}

#[test]
fn whole_messages_that_cannot_be_read() {
    let too_many = vec![example(); BATCH_MOVEMENTS_MAX + 1];
    let many_events = json(&too_many).into_bytes();
    let newer = pb::MovementBatch {
        version: 2,
        movements: vec![example()],
    };
    let other = MediaType::Other("text/csv".into());
    #[rustfmt::skip]
    let cases = [
        (MediaType::Unstated, vec![], "the message is empty"),
        (MediaType::Json, vec![], "the message is empty"),
        (MediaType::Protobuf, protobuf(vec![]), "the message has no movements"),
        (MediaType::Json, b"[]".to_vec(), "the message has no movements"),
        (MediaType::Unstated, vec![b'['; MESSAGE_BYTES_MAX + 1], "the message has 8388609 bytes; at most 8388608"),
        (MediaType::Protobuf, newer.encode_to_vec(), "the message is of version 2 of the contract, which is newer than this version knows (1)"),
        (MediaType::Protobuf, protobuf(too_many), "the message has more than 1000 movements"),
        (MediaType::Json, many_events, "the message has more than 1000 movements"),
        (other, protobuf(vec![example()]), "the message has the media type \"text/csv\"; application/protobuf, application/cloudevents+json or application/cloudevents-batch+json"),
        (MediaType::Json, b"{".to_vec(), "the message is not JSON: EOF while parsing an object at line 1 column 1"),
        (MediaType::Unstated, b"hello".to_vec(), "the message ends a group that it did not start (at byte 3)"),
    ];
    for (media_type, payload, expected) in cases {
        let lane = producer(media_type);
        let error = decode(&lane, &payload, &mut Scratch::default()).expect_err("unreadable");
        assert!(matches!(error, Unreadable::Malformed(_)));
        assert_eq!(error.to_string(), expected);
    }
    let most = protobuf(vec![example(); BATCH_MOVEMENTS_MAX]);
    let lane = producer(MediaType::Protobuf);
    let all = decode(&lane, &most, &mut Scratch::default()).map(|all| all.len());
    assert_eq!(all, Ok(BATCH_MOVEMENTS_MAX));
}

#[test]
fn records_of_instances_hold_any_sources() {
    let movements = [
        with_source("wms").encode_to_vec(),
        with_source("pos").encode_to_vec(),
    ];
    let record = encode_record(1, 2, movements.iter().map(Vec::as_slice));
    let mut scratch = Scratch::default();
    let all = decode(&Lane::Record, &record, &mut scratch).expect("readable");
    let sources: Vec<_> = all.iter().map(|found| found.source).collect();
    assert_eq!(sources, ["wms", "pos"]);

    // Two records one after the other are one, with the movements of both.
    let twice = [&*record, &*record].concat();
    let mut scratch = Scratch::default();
    let all = decode(&Lane::Record, &twice, &mut scratch).map(|all| all.len());
    assert_eq!(all, Ok(4));

    let tick = pb::Record {
        version: 1,
        instance: 1,
        token: 1,
        body: Some(pb::record::Body::Tick(pb::Tick {})),
    };
    let bodies = [
        pb::record::Body::Tick(pb::Tick {}),
        pb::record::Body::Rules(pb::RulesPut::default()),
        pb::record::Body::Commands(pb::CommandBatch::default()),
        pb::record::Body::Authority(pb::AuthorityPut::default()),
        pb::record::Body::Resolve(pb::ResolveException::default()),
    ];
    for body in bodies {
        let record = pb::Record {
            body: Some(body),
            ..tick.clone()
        };
        let all = decode(
            &Lane::Record,
            &record.encode_to_vec(),
            &mut Scratch::default(),
        )
        .map(|all| all.len());
        assert_eq!(all, Ok(0));
    }
    let later = pb::Record { version: 2, ..tick };
    assert_eq!(
        decode(
            &Lane::Record,
            &later.encode_to_vec(),
            &mut Scratch::default()
        )
        .map(|all| all.len()),
        Err(Unreadable::FutureVersion(2))
    );
}
