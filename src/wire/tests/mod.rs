//! Tests of the formats.

mod borrowed;
mod csv;
mod json;
mod media;
mod movement;
mod record;
mod round_trip;
mod time;

use proptest::prelude::*;

use crate::domain::movement::{Condition, Invalid, IssueReason, Kind, Movement};
use crate::proto::v1 as pb;

/// The finding as people see it: `field: reason`.
fn said<T: std::fmt::Debug>(result: Result<T, Invalid>) -> String {
    result.expect_err("should be invalid").to_string()
}

/// A movement as the domain has it, with its text owned: so that proptest can make it.
fn arb_movement() -> impl Strategy<Value = pb::Movement> {
    let texts = (
        arb_text(),
        "[A-Za-z0-9_-]{1,12}",
        arb_text(),
        prop::option::of(arb_text()),
        prop::option::of(arb_text()),
        prop::option::of(arb_text()),
    );
    // Beyond 1970 to 9999 no movement is valid.
    let time_us = prop_oneof![
        0..=crate::limits::TIME_US_MAX,
        1_700_000_000_000_000..1_900_000_000_000_000i64,
        Just(crate::limits::TIME_US_MAX),
    ];
    let quantity = prop_oneof![any::<i64>(), 1..1000i64];
    (texts, time_us, quantity, arb_kind()).prop_map(
        |((id, source, sku, correlation_id, reference, actor), time_us, quantity, kind)| {
            pb::Movement {
                id,
                source,
                occurred_at: Some(crate::wire::movement::timestamp(time_us)),
                sku,
                quantity,
                correlation_id: correlation_id.unwrap_or_default(),
                reference: reference.unwrap_or_default(),
                actor: actor.unwrap_or_default(),
                kind: Some(kind),
            }
        },
    )
}

fn arb_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9_-]{1,20}",
        "[ -~]{1,9}",
        "\\PC{1,12}",
        "[\",\n\\\\ü€😀]{1,5}",
        "[a-zü]{30,200}",
    ]
}

fn arb_kind() -> impl Strategy<Value = pb::movement::Kind> {
    use pb::movement::Kind as Pb;
    let texts = (arb_text(), arb_text(), arb_text(), arb_text());
    (0..10, texts, 1..5i32, 1..5i32, 1..6i32, any::<bool>()).prop_map(
        |(kind, (a, b, c, d), from, to, reason, given)| match kind {
            0 => Pb::Received(pb::Received {
                location: a,
                condition: if given { from } else { 0 },
            }),
            1 => Pb::Issued(pb::Issued {
                location: a,
                condition: if given { from } else { 0 },
                reason,
            }),
            2 => Pb::Reclassified(pb::Reclassified {
                location: a,
                from,
                to,
            }),
            3 => Pb::Adjusted(pb::Adjusted {
                location: a,
                condition: if given { from } else { 0 },
                reason: b,
            }),
            4 => Pb::Reserved(pb::Reserved {
                order: a,
                line: b,
                location: c,
                channel: d,
            }),
            5 => Pb::Released(pb::Released {
                order: a,
                line: b,
                location: if given { c } else { String::new() },
            }),
            6 => Pb::Reassigned(pb::Reassigned {
                order: a,
                line: b,
                from: c,
                to: d,
            }),
            7 => Pb::Picked(pb::Picked {
                order: a,
                line: b,
                location: c,
            }),
            8 => Pb::Packed(pb::Packed {
                order: a,
                line: b,
                location: c,
            }),
            _ => Pb::Shipped(pb::Shipped {
                order: a,
                line: b,
                location: c,
            }),
        },
    )
}

/// A plain movement of every kind.
fn examples() -> Vec<Movement<'static>> {
    let order_line = ("O-1", "2", "DC-1");
    let (order, line, location) = order_line;
    let kinds = [
        Kind::Received {
            location,
            condition: Condition::Quarantined,
        },
        Kind::Issued {
            location,
            condition: Condition::Good,
            reason: IssueReason::VendorReturn,
        },
        Kind::Reclassified {
            location,
            from: Condition::ReturnPending,
            to: Condition::Damaged,
        },
        Kind::Adjusted {
            location,
            condition: Condition::Good,
            reason: "found",
        },
        Kind::Reserved {
            order,
            line,
            location,
            channel: "web",
        },
        Kind::Released {
            order,
            line,
            location: None,
        },
        Kind::Released {
            order,
            line,
            location: Some(location),
        },
        Kind::Reassigned {
            order,
            line,
            from: location,
            to: "DC-2",
        },
        Kind::Picked {
            order,
            line,
            location,
        },
        Kind::Packed {
            order,
            line,
            location,
        },
        Kind::Shipped {
            order,
            line,
            location,
        },
    ];
    kinds
        .into_iter()
        .map(|kind| Movement {
            id: "m-1",
            source: "wms",
            occurred_us: 1_795_168_800_500_000,
            sku: "SKU-1",
            quantity: 5,
            correlation_id: "c-1",
            reference: "DN 7",
            actor: "scanner 3",
            kind,
        })
        .collect()
}

fn example() -> pb::Movement {
    crate::wire::movement::to_proto(&examples()[0])
}
