use super::*;
use crate::wire::movement::{from_proto, to_proto};

use pb::movement::Kind as Pb;

#[test]
fn there_and_back() {
    for movement in examples() {
        assert_eq!(from_proto(&to_proto(&movement)), Ok(movement));
    }
}

#[test]
fn unspecified_condition_is_good_where_a_default_is_documented() {
    let location = || "DC-1".to_owned();
    for kind in [
        Pb::Received(pb::Received {
            location: location(),
            ..pb::Received::default()
        }),
        Pb::TransferReceived(pb::TransferReceived {
            transfer: "T-1".into(),
            line: "1".into(),
            location: location(),
            condition: 0,
        }),
        Pb::Issued(pb::Issued {
            location: location(),
            condition: 0,
            reason: 1,
        }),
        Pb::Adjusted(pb::Adjusted {
            location: location(),
            condition: 0,
            reason: "x".into(),
        }),
    ] {
        let movement = of_kind(kind);
        match from_proto(&movement).expect("valid").kind {
            Kind::Received { condition, .. }
            | Kind::Issued { condition, .. }
            | Kind::Adjusted { condition, .. }
            | Kind::TransferReceived { condition, .. } => assert_eq!(condition, Condition::Good),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_the_domain_cannot_express_is_invalid() {
    fn time(seconds: i64, nanos: i32) -> pb::Movement {
        pb::Movement {
            occurred_at: Some(prost_types::Timestamp { seconds, nanos }),
            ..example()
        }
    }
    let location = || "DC-1".to_owned();
    let received = |condition| {
        of_kind(Pb::Received(pb::Received {
            location: location(),
            condition,
            ..pb::Received::default()
        }))
    };
    let issued = |condition, reason| {
        of_kind(Pb::Issued(pb::Issued {
            location: location(),
            condition,
            reason,
        }))
    };
    let reclassified = |from, to| {
        of_kind(Pb::Reclassified(pb::Reclassified {
            location: location(),
            from,
            to,
        }))
    };
    let adjusted = |condition| {
        of_kind(Pb::Adjusted(pb::Adjusted {
            location: location(),
            condition,
            reason: "x".into(),
        }))
    };
    let arrived = |condition| {
        of_kind(Pb::TransferReceived(pb::TransferReceived {
            condition,
            ..Default::default()
        }))
    };
    let expires = |seconds, nanos| {
        of_kind(Pb::Reserved(pb::Reserved {
            expires_at: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        }))
    };
    let expected = |seconds, nanos| {
        of_kind(Pb::InboundExpected(pb::InboundExpected {
            eta: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        }))
    };
    let dispatched = |seconds, nanos| {
        of_kind(Pb::TransferShipped(pb::TransferShipped {
            eta: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        }))
    };
    let no_time = pb::Movement {
        occurred_at: None,
        ..example()
    };
    let no_kind = pb::Movement {
        kind: None,
        ..example()
    };
    #[rustfmt::skip]
    let cases = [
        (no_time, "occurred_at: is missing; it is required"),
        (time(0, -1), "occurred_at: has -1 nanos; 0 to 999999999"),
        (time(0, 1_000_000_000), "occurred_at: has 1000000000 nanos; 0 to 999999999"),
        (time(-1, 0), "occurred_at: is outside the years 1970 to 9999"),
        (time(253_402_300_800, 0), "occurred_at: is outside the years 1970 to 9999"),
        (time(i64::MAX, 0), "occurred_at: is outside the years 1970 to 9999"),
        (time(i64::MIN, 0), "occurred_at: is outside the years 1970 to 9999"),
        (no_kind, "kind: is missing, or newer than this version knows; give one that it knows, or upgrade this instance"),
        (received(5), "received.condition: is 5, which this version does not know; give one that it knows, or upgrade this instance"),
        (received(-1), "received.condition: is -1, which this version does not know; give one that it knows, or upgrade this instance"),
        (issued(9, 1), "issued.condition: is 9, which this version does not know; give one that it knows, or upgrade this instance"),
        (issued(1, 0), "issued.reason: is missing; it is required"),
        (issued(1, 6), "issued.reason: is 6, which this version does not know; give one that it knows, or upgrade this instance"),
        (reclassified(0, 1), "reclassified.from: is missing; it is required"),
        (reclassified(1, 0), "reclassified.to: is missing; it is required"),
        (reclassified(1, 7), "reclassified.to: is 7, which this version does not know; give one that it knows, or upgrade this instance"),
        (adjusted(8), "adjusted.condition: is 8, which this version does not know; give one that it knows, or upgrade this instance"),
        (arrived(9), "transfer_received.condition: is 9, which this version does not know; give one that it knows, or upgrade this instance"),
        (expires(0, -1), "reserved.expires_at: has -1 nanos; 0 to 999999999"),
        (expires(-1, 0), "reserved.expires_at: is outside the years 1970 to 9999"),
        (expected(i64::MAX, 0), "inbound_expected.eta: is outside the years 1970 to 9999"),
        (dispatched(0, 1_000_000_000), "transfer_shipped.eta: has 1000000000 nanos; 0 to 999999999"),
    ];
    for (movement, expected) in cases {
        assert_eq!(said(from_proto(&movement)), expected);
    }
}

#[test]
fn a_disposition_that_is_not_known_is_none() {
    for (number, expected) in [
        (1, Some(Disposition::Restock)),
        (2, Some(Disposition::Refurbish)),
        (3, Some(Disposition::Quarantine)),
        (4, Some(Disposition::VendorReturn)),
        (5, Some(Disposition::Liquidate)),
        (6, Some(Disposition::Scrap)),
        (0, None),
        (7, None),
        (-1, None),
        (i32::MAX, None),
    ] {
        let movement = inspected(number);
        let movement = from_proto(&movement).expect("never invalid");
        assert!(
            matches!(movement.kind, Kind::ReturnInspected { disposition, .. } if disposition == expected),
            "{number}"
        );
        assert_eq!(movement.check(TIME_US), Ok(()));
    }
}

#[test]
fn a_document_without_its_line_is_named_by_the_check() {
    let received = |inbound: &str, line: &str| {
        of_kind(Pb::Received(pb::Received {
            location: "DC-1".into(),
            condition: 0,
            inbound: inbound.into(),
            line: line.into(),
        }))
    };
    let authorized = |order: &str, order_line: &str| {
        of_kind(Pb::ReturnAuthorized(pb::ReturnAuthorized {
            r#return: "RMA-1".into(),
            line: "1".into(),
            location: "DC-1".into(),
            order: order.into(),
            order_line: order_line.into(),
        }))
    };
    for (movement, field) in [
        (received("PO-1", ""), "received.line"),
        (received("", "1"), "received.inbound"),
        (authorized("O-1", ""), "return_authorized.order_line"),
        (authorized("", "1"), "return_authorized.order"),
    ] {
        let movement = from_proto(&movement).expect("left to the check");
        assert_eq!(
            said(movement.check(TIME_US)),
            format!("{field}: is empty; it is required")
        );
    }
    for movement in [received("", ""), authorized("", "")] {
        let movement = from_proto(&movement).expect("valid");
        assert_eq!(movement.check(TIME_US), Ok(()));
    }
}

#[test]
fn time_is_kept_to_the_microsecond() {
    let movement = pb::Movement {
        occurred_at: Some(prost_types::Timestamp {
            seconds: 253_402_300_799,
            nanos: 999_999_999,
        }),
        ..example()
    };
    assert_eq!(
        from_proto(&movement).expect("valid").occurred_us,
        crate::limits::TIME_US_MAX
    );
}
