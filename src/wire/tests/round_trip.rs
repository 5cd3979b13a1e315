//! Every movement through every format and back.

use super::*;
use crate::wire::csv::Columns;
use crate::wire::json::{cloud_event, line};
use crate::wire::movement::{from_proto, to_proto};
use crate::wire::text::{
    CSV_HEADER, to_cloud_event, to_cloud_event_line, to_csv_row, to_json_line,
};

fn through_all(movement: &pb::Movement) {
    let event = to_cloud_event(movement).expect("has a form").to_string();
    assert_eq!(cloud_event(&event, None).movement.as_ref(), Ok(movement));
    assert_eq!(line(event.as_bytes(), None).movement.as_ref(), Ok(movement));

    let event = to_cloud_event_line(movement).expect("has a form");
    assert_eq!(cloud_event(&event, None).movement.as_ref(), Ok(movement));

    let flat = to_json_line(movement).expect("has a form");
    assert!(!flat.contains('\n'));
    assert_eq!(line(flat.as_bytes(), None).movement.as_ref(), Ok(movement));

    let mut file = ::csv::Writer::from_writer(Vec::new());
    file.write_record(CSV_HEADER).expect("a header");
    file.write_record(to_csv_row(movement).expect("has a form"))
        .expect("a row");
    let file = file.into_inner().expect("a file");
    let mut file = ::csv::Reader::from_reader(&*file);
    let columns = Columns::from_header(file.headers().expect("a header")).expect("columns");
    let mut row = ::csv::ByteRecord::new();
    assert!(file.read_byte_record(&mut row).expect("a row"));
    assert_eq!(columns.read(&row, None).as_ref(), Ok(movement));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_movements(movement in arb_movement()) {
        through_all(&movement);
        let domain = from_proto(&movement).expect("valid");
        let back = to_proto(&domain);
        prop_assert_eq!(from_proto(&back), Ok(domain));
    }
}

#[test]
fn every_kind() {
    for movement in examples() {
        movement
            .check(movement.occurred_us)
            .expect("examples are within all limits");
        through_all(&to_proto(&movement));
    }
}

#[test]
fn lines_are_in_the_order_in_which_people_read() {
    assert_eq!(
        to_json_line(&example()).expect("has a form"),
        r#"{"type":"received","id":"m-1","source":"wms","occurred_at":"2026-11-20T10:00:00.5Z","sku":"SKU-1","quantity":5,"location":"DC-1","condition":"quarantined","correlation_id":"c-1","reference":"DN 7","actor":"scanner 3"}"#
    );
    assert_eq!(
        to_cloud_event_line(&example()).expect("has a form"),
        r#"{"specversion":"1.0","type":"sellable.movement.received.v1","source":"wms","id":"m-1","time":"2026-11-20T10:00:00.5Z","datacontenttype":"application/json","data":{"sku":"SKU-1","quantity":5,"location":"DC-1","condition":"quarantined","correlation_id":"c-1","reference":"DN 7","actor":"scanner 3"}}"#
    );
}

#[test]
fn lines_of_supply_and_returns_read_well() {
    let lines: Vec<_> = examples()
        .iter()
        .filter(|movement| {
            matches!(
                movement.kind,
                Kind::TransferShipped { .. }
                    | Kind::ReturnAuthorized { order: Some(_), .. }
                    | Kind::ReturnInspected {
                        disposition: Some(_),
                        ..
                    }
                    | Kind::ReturnRefunded { .. }
            )
        })
        .map(|movement| {
            let movement = pb::Movement {
                occurred_at: Some(prost_types::Timestamp::default()),
                correlation_id: String::new(),
                reference: String::new(),
                actor: String::new(),
                ..to_proto(movement)
            };
            let line = to_json_line(&movement).expect("has a form");
            line.replace(r#","id":"m-1","source":"wms","occurred_at":"1970-01-01T00:00:00Z","sku":"SKU-1","quantity":5"#, "")
        })
        .collect();
    assert_eq!(
        lines,
        [
            r#"{"type":"transfer_shipped","from":"DC-1","to":"DC-2","transfer":"T-1","line":"2","eta":"2026-11-20T10:00:00.5Z"}"#,
            r#"{"type":"return_authorized","location":"DC-1","order":"O-1","return":"RMA-1","line":"2","order_line":"3"}"#,
            r#"{"type":"return_inspected","location":"DC-1","return":"RMA-1","line":"2","disposition":"vendor_return"}"#,
            r#"{"type":"return_refunded","return":"RMA-1","line":"2"}"#,
            r#"{"type":"return_refunded","return":"RMA-1","line":"2","amount":1999,"currency":"EUR"}"#,
        ]
    );
}

#[test]
fn every_disposition_has_a_word_and_an_unknown_one_its_number() {
    for (number, word) in [
        (1, "restock"),
        (2, "refurbish"),
        (3, "quarantine"),
        (4, "vendor_return"),
        (5, "liquidate"),
        (6, "scrap"),
    ] {
        let movement = inspected(number);
        through_all(&movement);
        let text = to_json_line(&movement).expect("has a form");
        assert!(
            text.contains(&format!(r#""disposition":"{word}""#)),
            "{text}"
        );
    }
    // A person who is to decide about it sees what there is; read back it is still unknown.
    let unknown = to_json_line(&inspected(77)).expect("has a form");
    assert!(unknown.contains(r#""disposition":"77""#), "{unknown}");
    assert_eq!(line(unknown.as_bytes(), None).movement, Ok(inspected(0)));
}

#[test]
fn what_has_no_form_is_not_written() {
    let no_kind = pb::Movement {
        kind: None,
        ..example()
    };
    let no_time = pb::Movement {
        occurred_at: None,
        ..example()
    };
    let unknown = pb::Movement {
        kind: Some(pb::movement::Kind::Received(pb::Received {
            location: "DC-1".into(),
            condition: 77,
            ..pb::Received::default()
        })),
        ..example()
    };
    let bad_time = of_kind(pb::movement::Kind::Reserved(pb::Reserved {
        expires_at: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..pb::Reserved::default()
    }));
    for (movement, expected) in [
        (
            bad_time,
            "reserved.expires_at: is outside the years 0 to 9999",
        ),
        (
            no_kind,
            "kind: is missing, or newer than this version knows; give one that it knows, or upgrade this instance",
        ),
        (no_time, "occurred_at: is missing; it is required"),
        (
            unknown,
            "received.condition: is 77, which this version does not know",
        ),
    ] {
        assert_eq!(said(to_cloud_event(&movement)), expected);
        assert_eq!(said(to_json_line(&movement)), expected);
        assert_eq!(said(to_csv_row(&movement)), expected);
    }
}
