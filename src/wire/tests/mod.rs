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

use crate::domain::movement::{
    Condition, Disposition, Invalid, IssueReason, KIND_NAMES, Kind, Movement,
};
use crate::proto::v1 as pb;

/// The finding as people see it: `field: reason`.
fn said<T: std::fmt::Debug>(result: Result<T, Invalid>) -> String {
    result.expect_err("should be invalid").to_string()
}

/// A movement as the domain has it, with its text owned: so that proptest can make it.
fn arb_movement() -> impl Strategy<Value = pb::Movement> {
    arb_movement_of(0..KIND_NAMES.len())
}

/// Like [`arb_movement`], of these kinds, by their place in [`KIND_NAMES`].
fn arb_movement_of(kinds: impl Strategy<Value = usize>) -> impl Strategy<Value = pb::Movement> {
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
    (texts, time_us, quantity, arb_kind(kinds)).prop_map(
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

fn arb_time() -> impl Strategy<Value = prost_types::Timestamp> {
    let seconds = prop_oneof![Just(0), 0..=crate::limits::TIME_US_MAX / 1_000_000];
    let nanos = prop_oneof![Just(0), 0..1_000_000_000];
    (seconds, nanos).prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos })
}

fn arb_kind(kinds: impl Strategy<Value = usize>) -> impl Strategy<Value = pb::movement::Kind> {
    let texts = (arb_text(), arb_text(), arb_text(), arb_text(), arb_text());
    let enums = (1..5i32, 1..5i32, 1..6i32, 0..7i32);
    let amount = prop_oneof![Just(0), any::<i64>(), 1..10_000i64];
    let others = (any::<bool>(), prop::option::of(arb_time()), amount);
    (kinds, texts, enums, others).prop_map(|(kind, texts, enums, others)| {
        if kind < 11 {
            kind_on_hand(kind, texts, enums, others)
        } else {
            kind_under_way(kind, texts, enums, others)
        }
    })
}

type Texts = (String, String, String, String, String);
type Enums = (i32, i32, i32, i32);
type Others = (bool, Option<prost_types::Timestamp>, i64);

fn kind_on_hand(
    kind: usize,
    (a, b, c, d, _): Texts,
    (from, to, reason, some): Enums,
    (given, time, units): Others,
) -> pb::movement::Kind {
    use pb::movement::Kind as Pb;
    let or_none = |text: String| if given { text } else { String::new() };
    match kind {
        0 => Pb::Received(pb::Received {
            location: a,
            condition: if given { from } else { 0 },
            inbound: or_none(b),
            line: or_none(c),
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
        4 => Pb::Counted(pb::Counted {
            location: a,
            as_of: time,
            good: (from > 1).then_some(units),
            quarantined: (to > 1).then_some(0),
            damaged: (reason > 1).then_some(-units.saturating_abs()),
            return_pending: (some > 1).then_some(units),
        }),
        5 => Pb::Reserved(pb::Reserved {
            order: a,
            line: b,
            location: c,
            channel: d,
            expires_at: time,
        }),
        6 => Pb::Released(pb::Released {
            order: a,
            line: b,
            location: or_none(c),
        }),
        7 => Pb::Reassigned(pb::Reassigned {
            order: a,
            line: b,
            from: c,
            to: d,
        }),
        8 => Pb::Picked(pb::Picked {
            order: a,
            line: b,
            location: c,
        }),
        9 => Pb::Packed(pb::Packed {
            order: a,
            line: b,
            location: c,
        }),
        _ => Pb::Shipped(pb::Shipped {
            order: a,
            line: b,
            location: c,
        }),
    }
}

fn kind_under_way(
    kind: usize,
    (a, b, c, d, e): Texts,
    (condition, _, _, disposition): Enums,
    (given, time, amount): Others,
) -> pb::movement::Kind {
    use pb::movement::Kind as Pb;
    let or_none = |text: String| if given { text } else { String::new() };
    match kind {
        11 => Pb::InboundExpected(pb::InboundExpected {
            inbound: a,
            line: b,
            location: c,
            eta: time,
        }),
        12 => Pb::InboundCancelled(pb::InboundCancelled {
            inbound: a,
            line: b,
        }),
        13 => Pb::TransferShipped(pb::TransferShipped {
            transfer: a,
            line: b,
            from: c,
            to: d,
            eta: time,
        }),
        14 => Pb::TransferReceived(pb::TransferReceived {
            transfer: a,
            line: b,
            location: c,
            condition: if given { condition } else { 0 },
        }),
        15 => Pb::TransferClosed(pb::TransferClosed {
            transfer: a,
            line: b,
        }),
        16 => Pb::ReturnAuthorized(pb::ReturnAuthorized {
            r#return: a,
            line: b,
            location: c,
            order: or_none(d),
            order_line: or_none(e),
        }),
        17 => Pb::ReturnCancelled(pb::ReturnCancelled {
            r#return: a,
            line: b,
        }),
        18 => Pb::ReturnReceived(pb::ReturnReceived {
            r#return: a,
            line: b,
            location: c,
        }),
        19 => Pb::ReturnInspected(pb::ReturnInspected {
            r#return: a,
            line: b,
            location: c,
            disposition,
        }),
        _ => Pb::ReturnRefunded(pb::ReturnRefunded {
            r#return: a,
            line: b,
            amount,
            currency: or_none("EUR".into()),
        }),
    }
}

const TIME_US: i64 = 1_795_168_800_500_000;

/// A plain movement of every kind, in the order of [`KIND_NAMES`], and of those with optional
/// fields one with and one without.
fn examples() -> Vec<Movement<'static>> {
    kinds_on_hand()
        .into_iter()
        .chain(kinds_under_way())
        .map(|kind| Movement {
            id: "m-1",
            source: "wms",
            occurred_us: TIME_US,
            sku: "SKU-1",
            quantity: if matches!(kind, Kind::Counted { .. }) {
                0
            } else {
                5
            },
            correlation_id: "c-1",
            reference: "DN 7",
            actor: "scanner 3",
            kind,
        })
        .collect()
}

fn kinds_on_hand() -> [Kind<'static>; 15] {
    let (order, line, location) = ("O-1", "2", "DC-1");
    [
        Kind::Received {
            location,
            condition: Condition::Quarantined,
            inbound: None,
        },
        Kind::Received {
            location,
            condition: Condition::Good,
            inbound: Some(("PO-1", line)),
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
        Kind::Counted {
            location,
            as_of_us: None,
            units: [Some(7), None, None, None],
        },
        Kind::Counted {
            location,
            as_of_us: Some(TIME_US - 60_000_000),
            units: [Some(0), Some(1), Some(2), Some(1_000_000_000)],
        },
        Kind::Reserved {
            order,
            line,
            location,
            channel: "web",
            expires_us: None,
        },
        Kind::Reserved {
            order,
            line,
            location,
            channel: "web",
            expires_us: Some(TIME_US),
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
    ]
}

fn kinds_under_way() -> [Kind<'static>; 14] {
    let (line, location) = ("2", "DC-1");
    let (inbound, transfer, rma) = ("PO-1", "T-1", "RMA-1");
    [
        Kind::InboundExpected {
            inbound,
            line,
            location,
            eta_us: None,
        },
        Kind::InboundExpected {
            inbound,
            line,
            location,
            eta_us: Some(TIME_US),
        },
        Kind::InboundCancelled { inbound, line },
        Kind::TransferShipped {
            transfer,
            line,
            from: location,
            to: "DC-2",
            eta_us: Some(TIME_US),
        },
        Kind::TransferReceived {
            transfer,
            line,
            location,
            condition: Condition::Damaged,
        },
        Kind::TransferClosed { transfer, line },
        Kind::ReturnAuthorized {
            rma,
            line,
            location,
            order: None,
        },
        Kind::ReturnAuthorized {
            rma,
            line,
            location,
            order: Some(("O-1", "3")),
        },
        Kind::ReturnCancelled { rma, line },
        Kind::ReturnReceived {
            rma,
            line,
            location,
        },
        Kind::ReturnInspected {
            rma,
            line,
            location,
            disposition: None,
        },
        Kind::ReturnInspected {
            rma,
            line,
            location,
            disposition: Some(Disposition::VendorReturn),
        },
        Kind::ReturnRefunded {
            rma,
            line,
            amount: 0,
            currency: "",
        },
        Kind::ReturnRefunded {
            rma,
            line,
            amount: 1_999,
            currency: "EUR",
        },
    ]
}

fn example() -> pb::Movement {
    crate::wire::movement::to_proto(&examples()[0])
}

/// The example with another kind.
fn of_kind(kind: pb::movement::Kind) -> pb::Movement {
    pb::Movement {
        kind: Some(kind),
        ..example()
    }
}

#[test]
fn there_is_an_example_of_every_kind() {
    let mut names: Vec<_> = examples()
        .iter()
        .map(|movement| movement.kind.name())
        .collect();
    names.dedup();
    assert_eq!(names, KIND_NAMES);
}

/// An inspection with this disposition.
fn inspected(disposition: i32) -> pb::Movement {
    of_kind(pb::movement::Kind::ReturnInspected(pb::ReturnInspected {
        r#return: "RMA-1".into(),
        line: "2".into(),
        location: "DC-1".into(),
        disposition,
    }))
}
