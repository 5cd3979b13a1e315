use prost::Message;

use super::*;
use crate::wire::borrowed::{for_each_movement, read_movement};
use crate::wire::movement::{from_proto, to_proto};
use crate::wire::{Found, Malformed};

/// What our decoder makes of a batch.
fn read(bytes: &[u8]) -> Result<(u32, Vec<Found<'_>>), Malformed> {
    let mut all = Vec::new();
    let batch = for_each_movement(bytes, |found| all.push(found))?;
    assert_eq!(batch.movements, all.len());
    for (index, found) in all.iter().enumerate() {
        assert_eq!(found.index, index);
        let alone = read_movement(index, found.raw);
        assert_eq!(
            alone.as_ref(),
            Ok(found),
            "raw bytes are those of the movement"
        );
        if let Ok(movement) = &found.movement {
            assert_eq!((found.id, found.source), (movement.id, movement.source));
        }
    }
    Ok((batch.version, all))
}

fn is_about_utf8(found: &Found<'_>) -> bool {
    matches!(&found.movement, Err(invalid) if invalid.reason == "is not UTF-8; encode texts so")
}

/// Both decoders must agree on these bytes: on whether they are a batch, and on what it says.
fn agree(bytes: &[u8]) {
    let ours = read(bytes);
    match (pb::MovementBatch::decode(bytes), ours) {
        (Ok(theirs), Ok((version, ours))) => {
            assert_eq!(theirs.version, version);
            assert_eq!(theirs.movements.len(), ours.len());
            for (theirs, ours) in theirs.movements.iter().zip(&ours) {
                assert_eq!(from_proto(theirs), ours.movement);
                assert_eq!((&*theirs.id, &*theirs.source), (ours.id, ours.source));
            }
        }
        (Err(_), Err(malformed)) => {
            assert!(malformed.offset.is_some_and(|at| at <= bytes.len()));
        }
        (Err(error), Ok((_, ours))) => {
            // The documented difference.
            let text = error.to_string();
            assert!(text.contains("UTF-8"), "{text}");
            assert!(ours.iter().any(is_about_utf8), "{text}");
        }
        (Ok(theirs), Err(ours)) => panic!("prost reads {theirs:?}, we say {ours}"),
    }
}

/// A field that the contract does not have, of any wire type.
fn arb_unknown() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![11..19u32, 36..40u32, 55..200u32, Just((1 << 29) - 1)];
    let leaf = (
        number.clone(),
        any::<u64>(),
        0..4u32,
        prop::collection::vec(any::<u8>(), 0..9),
    )
        .prop_map(|(number, value, kind, bytes)| {
            use prost::encoding::{WireType, encode_key, encode_varint};
            let mut field = Vec::new();
            match kind {
                0 => {
                    encode_key(number, WireType::Varint, &mut field);
                    encode_varint(value, &mut field);
                }
                1 => {
                    encode_key(number, WireType::SixtyFourBit, &mut field);
                    field.extend(value.to_le_bytes());
                }
                2 => {
                    encode_key(number, WireType::ThirtyTwoBit, &mut field);
                    field.extend((value as u32).to_le_bytes());
                }
                _ => {
                    encode_key(number, WireType::LengthDelimited, &mut field);
                    encode_varint(bytes.len() as u64, &mut field);
                    field.extend(bytes);
                }
            }
            field
        });
    leaf.prop_recursive(3, 8, 3, move |inner| {
        (number.clone(), prop::collection::vec(inner, 0..3)).prop_map(|(number, inner)| {
            use prost::encoding::{WireType, encode_key};
            let mut group = Vec::new();
            encode_key(number, WireType::StartGroup, &mut group);
            group.extend(inner.concat());
            encode_key(number, WireType::EndGroup, &mut group);
            group
        })
    })
}

/// The fields of an encoded message, each with its key.
fn split(message: &[u8]) -> Vec<Vec<u8>> {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let (number, wire_type) = decode_key(&mut rest).expect("a key");
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).expect("a field");
        fields.push(start[..start.len() - rest.len()].to_vec());
    }
    fields
}

fn field(number: u32, content: &[u8]) -> Vec<u8> {
    use prost::encoding::{WireType, encode_key, encode_varint};
    let mut field = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(content.len() as u64, &mut field);
    field.extend_from_slice(content);
    field
}

/// Number and content of a field, if that is one of these.
fn nested(mut field: &[u8], is_message: impl Fn(u32) -> bool) -> Option<(u32, &[u8])> {
    use prost::encoding::{decode_key, decode_varint};
    let (number, _) = decode_key(&mut field).expect("a key");
    if !is_message(number) {
        return None;
    }
    decode_varint(&mut field).expect("a length");
    Some((number, field))
}

/// The content of a kind, with an unknown field before the first: within its time, if it has one.
fn with_unknown(kind: u32, content: &[u8], unknown: &[u8]) -> Vec<u8> {
    let mut fields = split(content);
    let time = match kind {
        30 | 42 => 5,
        40 => 4,
        _ => 0,
    };
    for at in &mut fields {
        if let Some((number, content)) = nested(at, |number| number == time) {
            *at = field(number, &[unknown, content].concat());
            return fields.concat();
        }
    }
    [unknown, content].concat()
}

/// The bytes of a movement as a newer or an odd producer might write them: fields of several
/// movements in any order, repeated, with unknown ones between.
fn arb_odd_movement() -> impl Strategy<Value = Vec<u8>> {
    // Mostly of one kind, whose parts merge then.
    let movements = (0..KIND_NAMES.len()).prop_flat_map(|kind| {
        let kinds = prop_oneof![3 => Just(kind), 1 => 0..KIND_NAMES.len()];
        prop::collection::vec(arb_movement_of(kinds), 1..4)
    });
    let unknown = prop::collection::vec(arb_unknown(), 0..4);
    (movements, unknown, any::<bool>(), any::<u64>()).prop_perturb(
        |(movements, unknown, shuffle, _), mut rng| {
            let mut fields: Vec<Vec<u8>> = movements
                .iter()
                .flat_map(|movement| split(&movement.encode_to_vec()))
                .collect();
            for unknown in unknown {
                let at = rng.random_range(0..=fields.len());
                let is_message = |number| matches!(number, 3 | 20..=35 | 40..=54);
                match fields.get(at).and_then(|field| nested(field, is_message)) {
                    // Within a nested message too.
                    Some((number, content)) => {
                        fields[at] = field(number, &with_unknown(number, content, &unknown));
                    }
                    None => fields.insert(at, unknown),
                }
            }
            if shuffle {
                for last in (1..fields.len()).rev() {
                    fields.swap(last, rng.random_range(0..=last));
                }
            }
            fields.concat()
        },
    )
}

fn arb_odd_batch() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop_oneof![
        6 => arb_odd_movement().prop_map(|movement| field(2, &movement)),
        1 => arb_unknown(),
        1 => any::<u64>().prop_map(|version| {
            let mut field = vec![0x08];
            prost::encoding::encode_varint(version, &mut field);
            field
        }),
    ];
    prop::collection::vec(parts, 0..6).prop_map(|parts| parts.concat())
}

/// Bytes that are wrong in a place or two.
fn arb_mutated() -> impl Strategy<Value = Vec<u8>> {
    let slips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..5u8), 1..4);
    (arb_odd_batch(), slips).prop_map(|(mut bytes, slips)| {
        for (index, byte, slip) in slips {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match slip {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.insert(at, byte),
                3 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_on_plain_batches(movements in prop::collection::vec(arb_movement(), 0..5)) {
        let batch = pb::MovementBatch { version: 1, movements };
        let bytes = batch.encode_to_vec();
        let (version, ours) = read(&bytes).expect("a batch");
        prop_assert_eq!(version, 1);
        for (theirs, ours) in batch.movements.iter().zip(ours) {
            prop_assert_eq!(ours.raw, theirs.encode_to_vec());
            prop_assert_eq!(from_proto(theirs), ours.movement);
        }
    }

    #[test]
    fn agrees_on_odd_batches(bytes in arb_odd_batch()) {
        prop_assert!(read(&bytes).is_ok());
        agree(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn agrees_on_mutated_batches(bytes in arb_mutated()) {
        agree(&bytes);
    }

    #[test]
    fn agrees_on_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        agree(&bytes);
        agree(&field(2, &bytes));
        agree(&field(2, &field(3, &bytes)));
        for kind in [20, 30, 40, 42, 43, 50, 53, 54] {
            agree(&field(2, &field(kind, &bytes)));
        }
        for (kind, time) in [(30, 5), (40, 4), (42, 5)] {
            agree(&field(2, &field(kind, &field(time, &bytes))));
        }
    }
}

#[test]
fn agrees_on_every_truncation_and_every_wrong_byte() {
    let movements: Vec<_> = examples()
        .iter()
        .map(crate::wire::movement::to_proto)
        .collect();
    let bytes = pb::MovementBatch {
        version: 1,
        movements,
    }
    .encode_to_vec();
    for end in 0..=bytes.len() {
        agree(&bytes[..end]);
    }
    for at in 0..bytes.len() {
        for wrong in [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            bytes[at].wrapping_add(1),
            bytes[at] ^ 4,
        ] {
            let mut bytes = bytes.clone();
            bytes[at] = wrong;
            agree(&bytes);
        }
    }
}

#[test]
fn agrees_on_nesting_to_the_last_level() {
    let groups = |depth: usize| [vec![0x5b; depth], vec![0x5c; depth]].concat();
    for depth in 90..=102 {
        let groups = groups(depth);
        agree(&groups);
        agree(&field(2, &groups));
        agree(&field(2, &field(3, &groups)));
        agree(&field(2, &field(20, &groups)));
        agree(&field(2, &field(30, &field(5, &groups))));
    }
    assert!(read(&groups(100)).is_ok());
    let error = read(&groups(101)).expect_err("too deep");
    assert_eq!(error.reason, "is nested too deep");
}

#[test]
fn repeated_parts_of_a_kind_merge_and_another_kind_replaces() {
    let head = split(&example().encode_to_vec())
        .into_iter()
        .filter(|field| field[0] < 0x80)
        .collect::<Vec<_>>()
        .concat();
    let location = field(1, b"DC-9");
    let condition = [0x10, 3];
    let merged = [&*head, &*field(20, &location), &*field(20, &condition)].concat();
    let found = read_movement(0, &merged).expect("a movement");
    assert_eq!(
        found.movement.expect("valid").kind,
        Kind::Received {
            location: "DC-9",
            condition: Condition::Damaged,
            inbound: None,
        }
    );
    // Issued comes between: what was before it is forgotten.
    let replaced = [
        &*head,
        &*field(20, &condition),
        &*field(21, b""),
        &*field(20, &location),
    ]
    .concat();
    let found = read_movement(0, &replaced).expect("a movement");
    assert_eq!(
        found.movement.expect("valid").kind,
        Kind::Received {
            location: "DC-9",
            condition: Condition::Good,
            inbound: None,
        }
    );
    agree(&field(2, &merged));
    agree(&field(2, &replaced));
}

#[test]
fn times_of_a_kind_merge_and_are_told_from_none() {
    let head = split(&example().encode_to_vec())
        .into_iter()
        .filter(|field| field[0] < 0x80)
        .collect::<Vec<_>>()
        .concat();
    let seconds = field(5, &[0x08, 7]);
    let nanos = field(5, &[0x10, 0xd0, 0x0f]);
    let reserved = |parts: &[&[u8]]| {
        let kinds: Vec<_> = parts.iter().map(|part| field(30, part)).collect();
        let bytes = [&*head, &*kinds.concat()].concat();
        agree(&field(2, &bytes));
        match read_movement(0, &bytes).expect("a movement").movement {
            Ok(Movement {
                kind: Kind::Reserved { expires_us, .. },
                ..
            }) => expires_us,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reserved(&[&[]]), None);
    assert_eq!(reserved(&[&field(5, &[])]), Some(0));
    assert_eq!(reserved(&[&seconds]), Some(7_000_000));
    assert_eq!(reserved(&[&seconds, &nanos]), Some(7_000_002));
    assert_eq!(reserved(&[&[&*nanos, &*seconds].concat()]), Some(7_000_002));
    // Another kind comes between: its time is forgotten.
    let between = [
        field(30, &seconds),
        field(40, &field(4, &[0x08, 9])),
        field(30, &nanos),
    ];
    let bytes = [&*head, &*between.concat()].concat();
    agree(&field(2, &bytes));
    let found = read_movement(0, &bytes).expect("a movement");
    assert!(matches!(
        found.movement.expect("valid").kind,
        Kind::Reserved {
            expires_us: Some(2),
            ..
        }
    ));
}

#[test]
fn numbers_are_cut_to_what_they_are() {
    let numbered = |kind: u32, number: u32, value: u64| {
        let mut content = Vec::new();
        prost::encoding::encode_key(number, prost::encoding::WireType::Varint, &mut content);
        prost::encoding::encode_varint(value, &mut content);
        let mut movement = example().encode_to_vec();
        movement.extend(field(kind, &content));
        agree(&field(2, &movement));
        let found = read_movement(0, &movement).expect("a movement");
        to_proto(&found.movement.expect("valid"))
    };
    for value in [0, 1, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        let Some(pb::movement::Kind::ReturnRefunded(refunded)) = numbered(54, 3, value).kind else {
            panic!("refunded");
        };
        assert_eq!(refunded.amount, value as i64);
    }
    for (value, disposition) in [(1, 1), (6, 6), (7, 0), (1 << 32 | 2, 2), (u64::MAX, 0)] {
        let Some(pb::movement::Kind::ReturnInspected(inspected)) = numbered(53, 4, value).kind
        else {
            panic!("inspected");
        };
        assert_eq!(inspected.disposition, disposition);
    }
}

#[test]
fn bad_text_invalidates_its_movement_alone() {
    let good = example().encode_to_vec();
    for (number, name) in [
        (1, "id"),
        (2, "source"),
        (4, "sku"),
        (6, "correlation_id"),
        (7, "reference"),
        (8, "actor"),
    ] {
        let bad = [&*good, &*field(number, b"a\xff")].concat();
        let batch = [field(2, &good), field(2, &bad), field(2, &good)].concat();
        let (_, all) = read(&batch).expect("a batch");
        assert!(all[0].movement.is_ok() && all[2].movement.is_ok());
        assert_eq!(
            all[1].movement,
            Err(Invalid::new(name, "is not UTF-8; encode texts so")),
            "{name}"
        );
        assert_eq!(all[1].id, if number == 1 { "" } else { "m-1" });
        assert_eq!(all[1].source, if number == 2 { "" } else { "wms" });
        agree(&batch);
        // A later, right value does not heal it: prost too would have stopped before.
        let healed = [&*bad, &*field(number, b"a")].concat();
        let found = read_movement(0, &healed).expect("a movement");
        assert!(is_about_utf8(&found), "{name}");
        agree(&field(2, &healed));
    }
    let bad = [&*good, &*field(30, &field(4, b"\xc3"))].concat();
    let found = read_movement(0, &bad).expect("a movement");
    assert_eq!(
        said(found.movement),
        "reserved.channel: is not UTF-8; encode texts so"
    );
    for (kind, number, path) in [
        (20, 3, "received.inbound"),
        (20, 4, "received.line"),
        (40, 1, "inbound_expected.inbound"),
        (41, 2, "inbound_cancelled.line"),
        (42, 4, "transfer_shipped.to"),
        (43, 3, "transfer_received.location"),
        (44, 1, "transfer_closed.transfer"),
        (50, 5, "return_authorized.order_line"),
        (51, 1, "return_cancelled.return"),
        (52, 3, "return_received.location"),
        (53, 1, "return_inspected.return"),
        (54, 4, "return_refunded.currency"),
    ] {
        let bad = [&*good, &*field(kind, &field(number, b"\xc3"))].concat();
        agree(&field(2, &bad));
        let found = read_movement(0, &bad).expect("a movement");
        assert_eq!(
            said(found.movement),
            format!("{path}: is not UTF-8; encode texts so")
        );
    }
}

#[test]
fn malformed_bytes_say_where_and_why() {
    #[rustfmt::skip]
    let cases: [(&[u8], &str); 13] = [
        (&[0x12], "the message ends within a number (at byte 1)"),
        (&[0x12, 5, 0], "the message has a length that reaches past the end (at byte 2)"),
        (&[0x12, 2, 0x0a, 5, 0, 0, 0, 0, 0], "the message has a length that reaches past the end (at byte 4)"),
        (&[0x80], "the message ends within a number (at byte 0)"),
        (&[0xff; 11], "the message has a number of more than 64 bits (at byte 0)"),
        (&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], "the message has a number of more than 64 bits (at byte 1)"),
        (&[0x00], "the message has a key that is no field number and wire type (at byte 0)"),
        (&[0x0f], "the message has a key that is no field number and wire type (at byte 0)"),
        (&[0x0a, 0], "the message has a field with another wire type than the contract's (at byte 1)"),
        (&[0x12, 2, 0x08, 1], "the message has a field with another wire type than the contract's (at byte 3)"),
        (&[0x59, 0, 0], "the message ends within a number (at byte 1)"),
        (&[0x5c], "the message ends a group that it did not start (at byte 1)"),
        (&[0x5b, 0x64], "the message ends a group that it did not start (at byte 2)"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(bytes).expect_err("malformed").to_string(), expected);
        agree(bytes);
    }
}
