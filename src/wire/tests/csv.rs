use ::csv::{ByteRecord, StringRecord};

use super::*;
use crate::wire::csv::Columns;

fn columns(header: &str) -> Result<Columns, Invalid> {
    Columns::from_header(&StringRecord::from_iter(header.split(',')))
}

fn row(header: &str, row: &[u8]) -> Result<pb::Movement, Invalid> {
    let row = ByteRecord::from_iter(row.split(|byte| *byte == b','));
    columns(header).expect("a header").read(&row, None)
}

const HEADER: &str = "type,id,source,occurred_at,sku,quantity,location,condition,reason,order";

#[test]
fn columns_go_by_name() {
    let movement = row(
        "\u{feff}quantity, sku ,id,type,occurred_at,source,location",
        b"5,SKU-1,m-1,received,2026-11-20T10:00:00Z,wms,DC-1",
    )
    .expect("valid");
    assert_eq!((movement.quantity, &*movement.sku), (5, "SKU-1"));
}

#[test]
fn missing_source_may_come_from_the_caller() {
    let header = columns("type,id,occurred_at,sku,quantity,location").expect("a header");
    let row = ByteRecord::from(vec![
        "received",
        "m-1",
        "2026-11-20T10:00:00Z",
        "S",
        "5",
        "D",
    ]);
    assert_eq!(header.read(&row, Some("wms")).expect("valid").source, "wms");
    assert_eq!(
        said(header.read(&row, None)),
        "source: is missing; it is required"
    );
}

#[test]
fn bad_headers_say_which_column() {
    #[rustfmt::skip]
    let cases = [
        ("type,id,occurred_at,sku,qty", "header: has the unknown column \"qty\"; columns are type, id, source, occurred_at, sku, quantity, location, as_of, good, quarantined, damaged, return_pending, condition, reason, from, to, order, inbound, transfer, return, line, order_line, channel, expires_at, eta, disposition, amount, currency, correlation_id, reference, actor"),
        ("type,id,Occurred-At,sku,quantity", "header: has the unknown column \"Occurred-At\"; did you mean `occurred_at`?"),
        ("type,id,occurred_at,sku,quantity,sku", "header: has the column `sku` twice"),
        ("type,id,occurred_at,sku", "header: has no column `quantity` (a header row is required)"),
        ("", "header: has the unknown column \"\"; columns are type, id, source, occurred_at, sku, quantity, location, as_of, good, quarantined, damaged, return_pending, condition, reason, from, to, order, inbound, transfer, return, line, order_line, channel, expires_at, eta, disposition, amount, currency, correlation_id, reference, actor"),
    ];
    for (header, expected) in cases {
        assert_eq!(said(columns(header)), expected);
    }
}

#[test]
fn supply_and_returns_go_by_their_columns() {
    const HEADER: &str = "type,id,source,occurred_at,sku,quantity,location,return,inbound,line,order_line,order,eta,disposition,amount,currency";
    let row = |row: &str| {
        let [kind, rest] = row.splitn(2, ',').collect::<Vec<_>>()[..] else {
            panic!("a kind and the rest");
        };
        let text = format!("{kind},m-1,wms,2026-11-20T10:00:00Z,S,5,{rest}");
        self::row(HEADER, text.as_bytes())
    };
    let kind = |text: &str| row(text).expect("valid").kind.expect("a kind");
    assert_eq!(
        kind("return_refunded,,RMA-1,,2,,,,,1999,EUR"),
        pb::movement::Kind::ReturnRefunded(pb::ReturnRefunded {
            r#return: "RMA-1".into(),
            line: "2".into(),
            amount: 1_999,
            currency: "EUR".into(),
        })
    );
    for (disposition, expected) in [("scrap", 6), ("", 0), ("donate", 0), ("SCRAP", 0)] {
        assert_eq!(
            Some(kind(&format!(
                "return_inspected,DC-1,RMA-1,,2,,,,{disposition},,"
            ))),
            inspected(expected).kind
        );
    }
    #[rustfmt::skip]
    let cases = [
        ("received,D,,PO-1,,,,,,,", "line: is missing; `inbound` needs it"),
        ("received,D,,,2,,,,,,", "inbound: is missing; `line` needs it"),
        ("return_authorized,D,R,,2,,O-1,,,,", "order_line: is missing; `order` needs it"),
        ("return_authorized,D,R,,2,3,,,,,", "order: is missing; `order_line` needs it"),
        ("return_refunded,,R,,2,,,,,19.99,EUR", "amount: is 19.99; an integer in the currency's minor unit (cents), without fraction or exponent"),
        ("inbound_expected,D,,P,2,,,tomorrow,,,", "eta: is \"tomorrow\"; a time is like 2026-11-20T10:00:00Z or 2026-11-20T11:00:00.5+01:00"),
        ("return_received,D,R,,2,,,,scrap,,", "disposition: is no field of `return_received`, which has return, line, location"),
    ];
    for (text, expected) in cases {
        assert_eq!(said(row(text)), expected);
    }
}

#[test]
fn bad_rows_name_the_column() {
    #[rustfmt::skip]
    let cases: [(&[u8], &str); 13] = [
        (b"received,m-1,wms,2026-11-20T10:00:00Z,S,5,D,,", "row: has 9 fields, and the header has 10"),
        (b",m-1,wms,2026-11-20T10:00:00Z,S,5,D,,,", "type: is missing; it is required"),
        (b"shiped,m-1,wms,2026-11-20T10:00:00Z,S,5,D,,,", "type: is \"shiped\", which this version does not know; did you mean `shipped`?"),
        (b"received,,wms,2026-11-20T10:00:00Z,S,5,D,,,", "id: is missing; it is required"),
        (b"received,m-1,wms,20.11.2026,S,5,D,,,", "occurred_at: is \"20.11.2026\"; a time is like 2026-11-20T10:00:00Z or 2026-11-20T11:00:00.5+01:00"),
        (b"received,m-1,wms,2026-11-20T10:00:00Z,S,5.0,D,,,", "quantity: is 5.0; an integer, without fraction or exponent"),
        (b"received,m-1,wms,2026-11-20T10:00:00Z,S, 5,D,,,", "quantity: is \" 5\"; an integer, without fraction or exponent"),
        (b"received,m-1,wms,2026-11-20T10:00:00Z,S,,D,,,", "quantity: is missing; it is required"),
        (b"received,m-1,wms,2026-11-20T10:00:00Z,S,99999999999999999999,D,,,", "quantity: is 99999999999999999999, which is beyond 64 bits"),
        (b"received,m-1,wms,2026-11-20T10:00:00Z,S,5,D,,,O-1", "order: is no field of `received`, which has location, condition, inbound, line"),
        (b"received,m-1,wms,2026-11-20T10:00:00Z,S,5,D,bad,,", "condition: is \"bad\"; one of good, quarantined, damaged, return_pending"),
        (b"issued,m-1,wms,2026-11-20T10:00:00Z,S,5,D,,,", "reason: is missing; `issued` needs it"),
        (b"received,m-1,wms,2026-11-20T10:00:00Z,\xff,5,D,,,", "sku: is not UTF-8; encode texts so"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(said(row(HEADER, bytes)), expected);
    }
}
