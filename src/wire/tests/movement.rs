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
        let movement = pb::Movement {
            kind: Some(kind),
            ..example()
        };
        match from_proto(&movement).expect("valid").kind {
            Kind::Received { condition, .. }
            | Kind::Issued { condition, .. }
            | Kind::Adjusted { condition, .. } => assert_eq!(condition, Condition::Good),
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
    fn kind(kind: Pb) -> pb::Movement {
        pb::Movement {
            kind: Some(kind),
            ..example()
        }
    }
    let location = || "DC-1".to_owned();
    let received = |condition| {
        kind(Pb::Received(pb::Received {
            location: location(),
            condition,
        }))
    };
    let issued = |condition, reason| {
        kind(Pb::Issued(pb::Issued {
            location: location(),
            condition,
            reason,
        }))
    };
    let reclassified = |from, to| {
        kind(Pb::Reclassified(pb::Reclassified {
            location: location(),
            from,
            to,
        }))
    };
    let adjusted = |condition| {
        kind(Pb::Adjusted(pb::Adjusted {
            location: location(),
            condition,
            reason: "x".into(),
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
    ];
    for (movement, expected) in cases {
        assert_eq!(said(from_proto(&movement)), expected);
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
