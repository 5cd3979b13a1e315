use std::borrow::Cow;

use prost::Message;

use super::*;
use crate::wire::movement::from_proto;
use crate::wire::record::{
    Body, CommandView, RECORD_HEADER_BYTES_MAX, encode_commands, encode_record, framed_bytes,
    read_record,
};
use crate::wire::{Found, Unreadable};

fn movements_of(body: &Body<'_>) -> Result<Vec<Result<Movement<'static>, Invalid>>, Unreadable> {
    let Body::Movements(movements) = body else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    // Leaked, so that what is found can be compared after its record: these are tests.
    let movements: &'static _ = Box::leak(Box::new(crate::wire::record::Movements {
        batch: Cow::Owned(movements.batch.to_vec()),
        offset: movements.offset,
    }));
    movements.for_each(|found: Found<'static>| all.push(found.movement))?;
    Ok(all)
}

fn commands_of(read: Vec<CommandView<'_>>) -> Vec<pb::Command> {
    let command = |read| match read {
        CommandView::Reserve(request, lines) => {
            let request = pb::ReserveRequest::decode(request).expect("it was read");
            assert_eq!(request.lines.len(), lines);
            pb::Command {
                command: Some(pb::command::Command::Reserve(request)),
            }
        }
        CommandView::Other(command) => command,
    };
    read.into_iter().map(command).collect()
}

/// Whether both readers agree on these bytes.
fn agree(bytes: &[u8]) {
    let theirs = pb::Record::decode(bytes);
    let ours = read_record(bytes).and_then(|view| Ok((movements_of(&view.body)?, view)));
    match (theirs, ours) {
        (Ok(theirs), Ok((movements, ours))) => {
            assert_eq!(
                (theirs.version, theirs.instance, theirs.token),
                (ours.version, ours.instance, ours.token)
            );
            match (theirs.body.expect("a body"), ours.body) {
                (pb::record::Body::Movements(theirs), Body::Movements(_)) => {
                    let theirs: Vec<_> = theirs.movements.iter().map(from_proto).collect();
                    assert_eq!(theirs, movements);
                }
                (pb::record::Body::Rules(theirs), Body::Rules(ours)) => assert_eq!(theirs, ours),
                (pb::record::Body::Tick(_), Body::Tick) => {}
                (pb::record::Body::Commands(theirs), Body::Commands(ours)) => {
                    assert_eq!(theirs.commands, commands_of(ours));
                }
                (pb::record::Body::Authority(theirs), Body::Authority(ours)) => {
                    assert_eq!(theirs, ours);
                }
                (pb::record::Body::Comparison(theirs), Body::Comparison(ours)) => {
                    assert_eq!(*ours, theirs);
                }
                (pb::record::Body::Resolve(theirs), Body::Resolve(ours)) => {
                    assert_eq!(theirs, ours);
                }
                (theirs, ours) => panic!("prost reads {theirs:?}, we {ours:?}"),
            }
        }
        (Err(error), Ok((movements, _))) => {
            assert!(error.to_string().contains("UTF-8"), "{error}");
            assert!(movements.iter().any(|movement| {
                matches!(movement, Err(invalid) if invalid.reason == "is not UTF-8; encode texts so")
            }));
        }
        (Ok(theirs), Err(Unreadable::FutureVersion(version))) => {
            let inner = match theirs.body {
                Some(pb::record::Body::Movements(batch)) => batch.version,
                _ => 0,
            };
            assert!(version > 1 && (theirs.version == version || inner == version));
        }
        (Ok(theirs), Err(Unreadable::Malformed(malformed))) => {
            assert!(theirs.version == 0 || theirs.body.is_none(), "{malformed}");
        }
        (Err(_), Err(_)) => {}
    }
}

fn arb_command() -> impl Strategy<Value = pb::Command> {
    use pb::command::Command as Pb;
    let line = (arb_text(), any::<i64>(), prop::option::of(arb_text())).prop_map(
        |(sku, quantity, location)| pb::ReserveLine {
            line: String::new(),
            sku,
            quantity,
            location: location.unwrap_or_default(),
        },
    );
    let time_to_live = prop::option::of((any::<i64>(), any::<i32>()))
        .prop_map(|time| time.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }));
    let lines = prop::collection::vec(line, 0..4);
    (0..5, arb_text(), arb_text(), lines, time_to_live).prop_map(
        |(kind, id, reservation, lines, time_to_live)| {
            let command = match kind {
                0 => Some(Pb::Reserve(pb::ReserveRequest {
                    id,
                    channel: reservation,
                    lines,
                    time_to_live,
                    ..Default::default()
                })),
                1 => Some(Pb::Confirm(pb::ConfirmRequest { id, reservation })),
                2 => Some(Pb::Release(pb::ReleaseRequest {
                    id,
                    reservation,
                    lines: Vec::new(),
                })),
                3 => Some(Pb::Extend(pb::ExtendRequest {
                    id,
                    reservation,
                    time_to_live,
                })),
                _ => None,
            };
            pb::Command { command }
        },
    )
}

fn arb_record() -> impl Strategy<Value = pb::Record> {
    let body = prop_oneof![
        3 => prop::collection::vec(arb_movement(), 0..4).prop_map(|movements| {
            pb::record::Body::Movements(pb::MovementBatch { version: 0, movements })
        }),
        1 => (arb_text(), prop::option::of(any::<u64>())).prop_map(|(toml, expected_version)| {
            pb::record::Body::Rules(pb::RulesPut {
                toml,
                expected_version,
                ..Default::default()
            })
        }),
        1 => Just(pb::record::Body::Tick(pb::Tick {})),
        2 => prop::collection::vec(arb_command(), 0..4)
            .prop_map(|commands| pb::record::Body::Commands(pb::CommandBatch { commands })),
        1 => (arb_text(), prop::option::of(any::<u64>())).prop_map(|(toml, expected_version)| {
            pb::record::Body::Authority(pb::AuthorityPut {
                toml,
                expected_version,
                ..Default::default()
            })
        }),
        1 => (arb_text(), arb_text(), any::<u32>(), 0..9i32, any::<i64>()).prop_map(
            |(report, sku, part, verdict, stated)| {
                let line = pb::ReportLine {
                    sku,
                    verdict,
                    stated,
                    ..Default::default()
                };
                pb::record::Body::Comparison(pb::Comparison {
                    report,
                    part,
                    lines: vec![line],
                    ..Default::default()
                })
            }
        ),
        1 => (arb_text(), 0..5i32, 0..9i32, prop::collection::vec(any::<u8>(), 0..20)).prop_map(
            |(exception, resolution, disposition, original)| {
                pb::record::Body::Resolve(pb::ResolveException {
                    exception,
                    resolution,
                    disposition,
                    original,
                    ..Default::default()
                })
            }
        ),
    ];
    (any::<u64>(), any::<u64>(), body).prop_map(|(instance, token, body)| pb::Record {
        version: 1,
        instance,
        token,
        body: Some(body),
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn agrees_on_records(
        records in prop::collection::vec(arb_record(), 1..4),
        slips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        // Records one after the other are one, merged: all bodies but the last kind are void.
        let mut bytes: Vec<u8> = records.iter().flat_map(Message::encode_to_vec).collect();
        agree(&bytes);
        for (at, byte) in slips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        agree(&bytes);
    }

    #[test]
    fn gathers_what_prost_would_write(
        movements in prop::collection::vec(arb_movement(), 0..6),
        instance: u64,
        token: u64,
    ) {
        let encoded: Vec<_> = movements.iter().map(Message::encode_to_vec).collect();
        let record = encode_record(instance, token, encoded.iter().map(Vec::as_slice));
        let body_bytes: usize = encoded.iter().map(|bytes| framed_bytes(bytes.len())).sum();
        prop_assert!(record.len() <= RECORD_HEADER_BYTES_MAX + body_bytes);
        let expected = pb::Record {
            version: 1,
            instance,
            token,
            body: Some(pb::record::Body::Movements(pb::MovementBatch {
                version: 0,
                movements,
            })),
        };
        prop_assert_eq!(&pb::Record::decode(record.clone()), &Ok(expected));
        let view = read_record(&record).expect("a record");
        prop_assert_eq!((view.instance, view.token), (instance, token));
        let borrowed = matches!(
            view.body,
            Body::Movements(crate::wire::record::Movements { batch: Cow::Borrowed(_), .. })
        );
        prop_assert!(borrowed);
        agree(&record);
    }

    #[test]
    fn gathers_commands_as_prost_would_write_them(
        commands in prop::collection::vec(arb_command(), 0..6),
        instance: u64,
        token: u64,
    ) {
        let encoded: Vec<_> = commands.iter().map(Message::encode_to_vec).collect();
        let record = encode_commands(instance, token, encoded.iter().map(Vec::as_slice));
        let body_bytes: usize = encoded.iter().map(|bytes| framed_bytes(bytes.len())).sum();
        prop_assert!(record.len() <= RECORD_HEADER_BYTES_MAX + body_bytes);
        let view = read_record(&record).expect("a record");
        prop_assert_eq!((view.instance, view.token), (instance, token));
        let Body::Commands(read) = view.body else {
            panic!("it has commands");
        };
        let is_reserve = |command: &pb::Command| {
            matches!(command.command, Some(pb::command::Command::Reserve(_)))
        };
        for (command, read) in commands.iter().zip(&read) {
            prop_assert_eq!(is_reserve(command), matches!(read, CommandView::Reserve(..)));
        }
        prop_assert_eq!(commands_of(read), commands);
        agree(&record);
    }
}

#[test]
fn a_later_version_is_told_from_damage() {
    let mut later = pb::Record {
        version: 2,
        instance: 7,
        token: 9,
        body: Some(pb::record::Body::Tick(pb::Tick {})),
    };
    assert_eq!(
        read_record(&later.encode_to_vec()),
        Err(Unreadable::FutureVersion(2))
    );
    // What follows its version is none of our business.
    assert_eq!(
        read_record(&[0x08, 5, 0xff]),
        Err(Unreadable::FutureVersion(5))
    );
    later.version = 0;
    assert_eq!(
        read_record(&later.encode_to_vec())
            .expect_err("no version")
            .to_string(),
        "the message is a record without a version"
    );
    later.version = 1;
    later.body = None;
    assert_eq!(
        read_record(&later.encode_to_vec())
            .expect_err("no body")
            .to_string(),
        "the message is a record without a body"
    );
    later.body = Some(pb::record::Body::Movements(pb::MovementBatch {
        version: 3,
        movements: vec![example()],
    }));
    let bytes = later.encode_to_vec();
    let view = read_record(&bytes).expect("a record");
    assert_eq!(movements_of(&view.body), Err(Unreadable::FutureVersion(3)));
}

#[test]
fn a_command_that_is_none_spoils_its_record() {
    let good = pb::Command {
        command: Some(pb::command::Command::Confirm(pb::ConfirmRequest {
            id: "c-1".into(),
            reservation: "r-1".into(),
        })),
    }
    .encode_to_vec();
    assert!(read_record(&encode_commands(1, 1, [&*good, &*good])).is_ok());
    let not_utf8: &[u8] = &[0x12, 3, 0x0a, 1, 0xff];
    for broken in [&good[..good.len() - 1], not_utf8, &[0x10, 1]] {
        let record = encode_commands(1, 1, [&*good, broken]);
        let error = read_record(&record).expect_err("malformed");
        assert!(matches!(error, Unreadable::Malformed(_)), "{error}");
        agree(&record);
    }
}

#[test]
fn bodies_of_another_wire_type_are_malformed() {
    for body in 10..=16u8 {
        let key = u32::from(body) << 3;
        let bytes: &[u8] = match key {
            // One byte of a varint has seven bits.
            ..128 => &[0x08, 1, key as u8, 1],
            _ => &[0x08, 1, key as u8 | 0x80, (key >> 7) as u8, 1],
        };
        let error = read_record(bytes).expect_err("malformed");
        assert!(error.to_string().contains("wire type"), "{error}");
        agree(bytes);
    }
}

#[test]
fn offsets_are_those_of_the_record() {
    let broken: &[u8] = &[0x0a, 200];
    let record = encode_record(1, 1, [broken]);
    let view = read_record(&record).expect("its frame is right");
    let Err(Unreadable::Malformed(malformed)) = movements_of(&view.body) else {
        panic!("its movement is broken");
    };
    // The length that is wrong is the record's last byte.
    assert_eq!(malformed.offset, Some(record.len() - 1));
}
