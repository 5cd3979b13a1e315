use super::*;
use crate::wire::json::{cloud_event, elements, line};

const EVENT: &str = r#"{"specversion":"1.0","type":"sellable.movement.received.v1","source":"wms","id":"m-1","time":"2026-11-20T10:00:00Z","data":{"sku":"SKU-1","quantity":5,"location":"DC-1"}}"#;
const LINE: &str = r#"{"type":"received","id":"m-1","source":"wms","occurred_at":"2026-11-20T10:00:00Z","sku":"SKU-1","quantity":5,"location":"DC-1"}"#;

fn plain() -> pb::Movement {
    pb::Movement {
        id: "m-1".into(),
        source: "wms".into(),
        occurred_at: Some(prost_types::Timestamp {
            seconds: 1_795_168_800,
            nanos: 0,
        }),
        sku: "SKU-1".into(),
        quantity: 5,
        kind: Some(pb::movement::Kind::Received(pb::Received {
            location: "DC-1".into(),
            ..pb::Received::default()
        })),
        ..Default::default()
    }
}

/// The text with one part of it replaced.
fn with(text: &str, part: &str, by: &str) -> String {
    assert_eq!(text.matches(part).count(), 1, "{part}");
    text.replace(part, by)
}

#[test]
fn plain_forms_are_read() {
    assert_eq!(cloud_event(EVENT, None).movement, Ok(plain()));
    assert_eq!(line(EVENT.as_bytes(), None).movement, Ok(plain()));
    assert_eq!(line(LINE.as_bytes(), None).movement, Ok(plain()));
    let spaced = format!("  {} \r\n", with(LINE, ",\"sku\"", " ,\n\"sku\""));
    assert_eq!(line(spaced.as_bytes(), None).movement, Ok(plain()));
}

#[test]
fn envelope_allows_what_cloud_events_allows() {
    let more = [
        r#""subject":"SKU-1","#,
        r#""subject":null,"dataschema":null,"correlationid":null,"#,
        r#""traceparent":"00-ab-cd-01","partitionkey":7,"myflag":true,"#,
        r#""datacontenttype":"application/json","#,
        r#""datacontenttype":"Application/JSON; charset=utf-8","#,
        r#""datacontenttype":"application/vnd.acme+json","#,
    ];
    for more in more {
        let event = with(EVENT, "{\"spec", &format!("{{{more}\"spec"));
        assert_eq!(cloud_event(&event, None).movement, Ok(plain()), "{more}");
    }
}

#[test]
fn correlation_of_the_envelope_counts_if_the_data_has_none() {
    let event = with(EVENT, "{\"spec", "{\"correlationid\":\"c-1\",\"spec");
    let movement = cloud_event(&event, None).movement.expect("valid");
    assert_eq!(movement.correlation_id, "c-1");
    let event = with(&event, "\"sku\"", "\"correlation_id\":\"c-2\",\"sku\"");
    let movement = cloud_event(&event, None).movement.expect("valid");
    assert_eq!(movement.correlation_id, "c-2");
}

#[test]
fn missing_source_may_come_from_the_transport() {
    for event in [
        with(EVENT, "\"source\":\"wms\",", ""),
        with(EVENT, "\"wms\"", "\"\""),
        with(EVENT, "\"wms\"", "null"),
    ] {
        let parsed = cloud_event(&event, Some("pos"));
        assert_eq!(parsed.source, "pos");
        assert_eq!(parsed.movement.expect("valid").source, "pos");
        assert_eq!(
            said(cloud_event(&event, None).movement),
            "source: is missing; it is required"
        );
    }
    assert_eq!(cloud_event(EVENT, Some("pos")).source, "wms");
}

#[test]
fn escapes_are_undone() {
    let event = with(EVENT, "\"SKU-1\"", r#""S\u004bU\n\ud83d\ude00\"""#);
    let movement = cloud_event(&event, None).movement.expect("valid");
    assert_eq!(movement.sku, "SKU\n😀\"");
    let event = with(EVENT, "\"quantity\"", r#""quant\u0069ty""#);
    assert_eq!(cloud_event(&event, None).movement, Ok(plain()));
}

#[test]
fn bad_events_name_the_field() {
    const TYPE: &str = "a type is like sellable.movement.received.v1";
    let data = r#"{"sku":"SKU-1","quantity":5,"location":"DC-1"}"#;
    let kind = "sellable.movement.received.v1";
    let issued = |data: &str| {
        let event = with(EVENT, ".received.", ".issued.");
        with(&event, "\"location\"", &format!("{data}\"location\""))
    };
    let time = "\"2026-11-20T10:00:00Z\"";
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    #[rustfmt::skip]
    let cases = [
        (with(EVENT, "\"specversion\":\"1.0\",", ""), "specversion: is missing; a movement in JSON is a CloudEvent, with \"specversion\": \"1.0\""),
        (with(EVENT, "\"1.0\"", "\"0.3\""), "specversion: is \"0.3\"; \"1.0\""),
        (with(EVENT, "\"1.0\"", "1.0"), "specversion: is the number 1.0; a text, in quotes"),
        (with(EVENT, "\"m-1\"", "17"), "id: is the number 17; a text, in quotes"),
        (with(EVENT, "\"id\":\"m-1\",", ""), "id: is missing; it is required"),
        (with(EVENT, "\"m-1\"", "null"), "id: is missing; it is required"),
        (with(EVENT, "\"m-1\"", "[\"m-1\"]"), "id: is an array; a text"),
        (with(EVENT, "\"wms\"", "true"), "source: is true or false; a text"),
        (with(EVENT, "\"time\":\"2026-11-20T10:00:00Z\",", ""), "time: is missing; it is required"),
        (with(EVENT, time, "\"2026-11-20T10:00:00\""), "time: is \"2026-11-20T10:00:00\", without an offset from UTC; a time is like 2026-11-20T10:00:00Z or 2026-11-20T11:00:00.5+01:00"),
        (with(EVENT, time, "1795168800"), "time: is the number 1795168800; a text, in quotes"),
        (with(EVENT, kind, "sellable.movement.received.v2"), "type: is \"sellable.movement.received.v2\", which is newer than this version knows (v1)"),
        (with(EVENT, kind, "sellable.movement.recieved.v1"), "type: is \"recieved\", which this version does not know; did you mean `received`?"),
        (with(EVENT, kind, "sellable.movement.x.v1"), "type: is \"x\", which this version does not know; one of received, issued, reclassified, adjusted, counted, reserved, released, reassigned, picked, packed, shipped, inbound_expected, inbound_cancelled, transfer_shipped, transfer_received, transfer_closed, return_authorized, return_cancelled, return_received, return_inspected, return_refunded"),
        (with(EVENT, kind, "received"), &format!("type: is \"received\"; {TYPE}")),
        (with(EVENT, kind, "sellable.movement.received"), &format!("type: is \"sellable.movement.received\"; {TYPE}")),
        (with(EVENT, kind, "sellable.movement.received.v0"), &format!("type: is \"sellable.movement.received.v0\"; {TYPE}")),
        (with(EVENT, &format!("\"type\":\"{kind}\","), ""), "type: is missing; it is required"),
        (with(EVENT, "\"data\":", "\"datacontenttype\":\"text/xml\",\"data\":"), "datacontenttype: is \"text/xml\"; application/json"),
        (with(EVENT, &format!(",\"data\":{data}"), ""), "data: is missing; it is required"),
        (with(EVENT, data, "null"), "data: is missing; it is required"),
        (with(EVENT, data, "\"eyJza3UiOiJ4In0=\""), "data: is a text; an object"),
        (with(EVENT, data, "[1]"), "data: is an array; an object"),
        (with(EVENT, data, &deep), "data: is an array; an object"),
        (with(EVENT, &format!("\"data\":{data}"), "\"data_base64\":\"eyJ9\""), "data_base64: is not taken; a movement is a JSON object in `data`"),
        (with(EVENT, "\"sku\"", "\"skuu\""), "data.skuu: is unknown; did you mean `sku`?"),
        (with(EVENT, "\"location\"", "\"loction\""), "data.loction: is unknown; did you mean `location`?"),
        (with(EVENT, "\"location\"", "\"correlationId\":\"x\",\"location\""), "data.correlationId: is unknown; did you mean `correlation_id`?"),
        (with(EVENT, "\"location\"", "\"colour\":1,\"location\""), "data.colour: is unknown; fields are sku, quantity, location, as_of, good, quarantined, damaged, return_pending, condition, reason, from, to, order, inbound, transfer, return, line, order_line, channel, expires_at, eta, disposition, amount, currency, correlation_id, reference, actor"),
        (with(EVENT, "\"location\"", "\"occurred_at\":1,\"location\""), "data.occurred_at: is unknown; the event itself has it, as `time`"),
        (with(EVENT, "\"location\"", "\"id\":1,\"location\""), "data.id: is unknown; the event itself has it, as `id`"),
        (with(EVENT, "\"location\"", "\"a\\u0007\":1,\"location\""), "data.a\\u{7}: is unknown; fields are sku, quantity, location, as_of, good, quarantined, damaged, return_pending, condition, reason, from, to, order, inbound, transfer, return, line, order_line, channel, expires_at, eta, disposition, amount, currency, correlation_id, reference, actor"),
        (with(EVENT, "\"location\":\"DC-1\"", "\"sku\":\"SKU-1\""), "data.sku: is there twice"),
        (with(EVENT, "\"id\"", "\"source\":\"wms\",\"id\""), "source: is there twice"),
        (with(EVENT, "\"id\"", "\"ext\":1,\"\\u0065xt\":2,\"id\""), "ext: is there twice"),
        (with(EVENT, ",\"location\":\"DC-1\"", ""), "data.location: is missing; `received` needs it"),
        (with(EVENT, "\"location\"", "\"channel\":\"web\",\"location\""), "data.channel: is no field of `received`, which has location, condition, inbound, line"),
        (with(EVENT, "\"location\"", "\"condition\":\"Good\",\"location\""), "data.condition: is \"Good\"; did you mean `good`?"),
        (with(EVENT, "\"location\"", "\"condition\":\"return-pending\",\"location\""), "data.condition: is \"return-pending\"; did you mean `return_pending`?"),
        (with(EVENT, "\"location\"", "\"condition\":\"\",\"location\""), "data.condition: is \"\"; one of good, quarantined, damaged, return_pending"),
        (with(EVENT, "\"location\"", "\"condition\":null,\"location\""), "data.condition: is null; leave it out, or give a text"),
        (issued("\"reason\":\"theft\","), "data.reason: is \"theft\"; one of sale, scrap, vendor_return, internal, other"),
        (issued("\"reason\":\"SALE\","), "data.reason: is \"SALE\"; did you mean `sale`?"),
        (issued(""), "data.reason: is missing; `issued` needs it"),
        (with(EVENT, "\"quantity\":5,", ""), "data.quantity: is missing; it is required"),
        (with(EVENT, ":5,", ":5.0,"), "data.quantity: is 5.0; an integer, without fraction or exponent"),
        (with(EVENT, ":5,", ":5e2,"), "data.quantity: is 5e2; an integer, without fraction or exponent"),
        (with(EVENT, ":5,", ":\"5\","), "data.quantity: is the text \"5\"; an integer, without quotes"),
        (with(EVENT, ":5,", ":\"five\","), "data.quantity: is a text; an integer"),
        (with(EVENT, ":5,", ":null,"), "data.quantity: is null; an integer"),
        (with(EVENT, ":5,", ":true,"), "data.quantity: is true or false; an integer"),
        (with(EVENT, ":5,", ":{},"), "data.quantity: is an object; an integer"),
        (with(EVENT, ":5,", ":9223372036854775808,"), "data.quantity: is 9223372036854775808, which is beyond 64 bits"),
        (with(EVENT, ":5,", ":-9223372036854775809,"), "data.quantity: is -9223372036854775809, which is beyond 64 bits"),
        (with(EVENT, "\"SKU-1\"", "4012345678901"), "data.sku: is the number 4012345678901; a text, in quotes"),
        (with(EVENT, "\"SKU-1\"", "\"\\ud83d\""), "data.sku: has an escape that is no character"),
        (with(EVENT, "\"SKU-1\"", &deep), "data.sku: is an array; a text"),
        (with(EVENT, "\"1.0\"", &format!("{:?}", "ü".repeat(100_000))), &format!("specversion: is \"{}\"...; \"1.0\"", "ü".repeat(64))),
        (with(EVENT, ":5,", &format!(":{},", "9".repeat(100_000))), &format!("data.quantity: is \"{}\"..., which is beyond 64 bits", "9".repeat(64))),
        ("[1]".to_owned(), "json: is an array; an object"),
        ("null".to_owned(), "json: is null; an object"),
        (String::new(), "json: is wrong: EOF while parsing a value at line 1 column 0"),
        ("{\n  \"a\": 1,\n}".to_owned(), "json: is wrong: trailing comma at line 3 column 1"),
        ("{\"a\" 1}".to_owned(), "json: is wrong: expected `:` at line 1 column 6"),
        (format!("{EVENT} x"), "json: is wrong: trailing characters at line 1 column 172"),
    ];
    for (event, expected) in cases {
        assert_eq!(said(cloud_event(&event, None).movement), expected);
    }
}

#[test]
fn bad_lines_name_the_field() {
    #[rustfmt::skip]
    let cases = [
        (with(LINE, "\"received\"", "\"sellable.movement.received.v1\""), "type: is \"sellable.movement.received.v1\", which this version does not know; one of received, issued, reclassified, adjusted, counted, reserved, released, reassigned, picked, packed, shipped, inbound_expected, inbound_cancelled, transfer_shipped, transfer_received, transfer_closed, return_authorized, return_cancelled, return_received, return_inspected, return_refunded"),
        (with(LINE, "\"type\":\"received\",", ""), "type: is missing; it is required"),
        (with(LINE, "\"source\":\"wms\",", ""), "source: is missing; it is required"),
        (with(LINE, "\"occurred_at\"", "\"occured_at\""), "occured_at: is unknown; did you mean `occurred_at`?"),
        (with(LINE, ",\"occurred_at\":\"2026-11-20T10:00:00Z\"", ""), "occurred_at: is missing; it is required"),
        (with(LINE, "\"m-1\"", "null"), "id: is null; leave it out, or give a text"),
        (with(LINE, ":5,", ":1e3,"), "quantity: is 1e3; an integer, without fraction or exponent"),
        (with(LINE, "\"DC-1\"", "\"DC-1\",\"order\":\"O\""), "order: is no field of `received`, which has location, condition, inbound, line"),
        (with(LINE, "\"DC-1\"", "\"DC-1\",\"id\":\"m-1\""), "id: is there twice"),
        ("5".to_owned(), "json: is a number; an object"),
    ];
    for (text, expected) in cases {
        assert_eq!(said(line(text.as_bytes(), None).movement), expected);
    }
    assert_eq!(
        said(line(b"{\"id\":\"\xff\"}", None).movement),
        "json: is not UTF-8 (at byte 7)"
    );
}

/// A flat line of this kind, with these fields beside the common ones.
fn line_of(kind: &str, fields: &str) -> String {
    format!(
        r#"{{"type":"{kind}","id":"m-1","source":"wms","occurred_at":"2026-11-20T10:00:00Z","sku":"S","quantity":5,{fields}}}"#
    )
}

#[test]
fn bad_supply_and_returns_name_the_field() {
    const TIME: &str = "a time is like 2026-11-20T10:00:00Z or 2026-11-20T11:00:00.5+01:00";
    let reserved = r#""order":"O","line":"1","location":"D","channel":"web""#;
    let expected = r#""inbound":"P","line":"1","location":"D""#;
    let shipped = r#""transfer":"T","line":"1","from":"D","to":"E""#;
    let authorized = r#""return":"R","line":"1","location":"D""#;
    let refunded = r#""return":"R","line":"1""#;
    #[rustfmt::skip]
    let cases = [
        ("received", r#""location":"D","inbound":"P""#.to_owned(), "line: is missing; `inbound` needs it".to_owned()),
        ("received", r#""location":"D","line":"1""#.to_owned(), "inbound: is missing; `line` needs it".to_owned()),
        ("reserved", format!("{reserved},\"expires_at\":\"soon\""), format!("expires_at: is \"soon\"; {TIME}")),
        ("reserved", format!("{reserved},\"expires_at\":17"), "expires_at: is the number 17; a text, in quotes".to_owned()),
        ("reserved", format!("{reserved},\"eta\":\"x\""), "eta: is no field of `reserved`, which has order, line, location, channel, expires_at".to_owned()),
        ("inbound_expected", format!("{expected},\"eta\":\"2026-11-20\""), format!("eta: is \"2026-11-20\"; {TIME}")),
        ("inbound_expected", r#""line":"1","location":"D""#.to_owned(), "inbound: is missing; `inbound_expected` needs it".to_owned()),
        ("inbound_cancelled", r#""inbound":"P""#.to_owned(), "line: is missing; `inbound_cancelled` needs it".to_owned()),
        ("inbound_cancelled", expected.to_owned(), "location: is no field of `inbound_cancelled`, which has inbound, line".to_owned()),
        ("transfer_shipped", format!("{shipped},\"eta\":\"2026-11-20T10:00:00\""), format!("eta: is \"2026-11-20T10:00:00\", without an offset from UTC; {TIME}")),
        ("transfer_shipped", r#""transfer":"T","line":"1","from":"D""#.to_owned(), "to: is missing; `transfer_shipped` needs it".to_owned()),
        ("transfer_shipped", format!("{shipped},\"location\":\"D\""), "location: is no field of `transfer_shipped`, which has transfer, line, from, to, eta".to_owned()),
        ("transfer_received", r#""transfer":"T","line":"1","location":"D","condition":"fine""#.to_owned(), "condition: is \"fine\"; one of good, quarantined, damaged, return_pending".to_owned()),
        ("transfer_received", r#""transfer":"T","line":"1""#.to_owned(), "location: is missing; `transfer_received` needs it".to_owned()),
        ("transfer_closed", r#""line":"1""#.to_owned(), "transfer: is missing; `transfer_closed` needs it".to_owned()),
        ("return_authorized", format!("{authorized},\"order\":\"O\""), "order_line: is missing; `order` needs it".to_owned()),
        ("return_authorized", format!("{authorized},\"order_line\":\"1\""), "order: is missing; `order_line` needs it".to_owned()),
        ("return_cancelled", r#""line":"1""#.to_owned(), "return: is missing; `return_cancelled` needs it".to_owned()),
        ("return_received", refunded.to_owned(), "location: is missing; `return_received` needs it".to_owned()),
        ("return_inspected", refunded.to_owned(), "location: is missing; `return_inspected` needs it".to_owned()),
        ("return_inspected", format!("{authorized},\"disposition\":5"), "disposition: is the number 5; a text, in quotes".to_owned()),
        ("return_inspected", format!("{authorized},\"reason\":\"scrap\""), "reason: is no field of `return_inspected`, which has return, line, location, disposition".to_owned()),
        ("return_refunded", format!("{refunded},\"amount\":19.99"), "amount: is 19.99; an integer in the currency's minor unit (cents), without fraction or exponent".to_owned()),
        ("return_refunded", format!("{refunded},\"amount\":\"1999\""), "amount: is the text \"1999\"; an integer, without quotes".to_owned()),
        ("return_refunded", format!("{refunded},\"amount\":null"), "amount: is null; an integer".to_owned()),
        ("return_refunded", format!("{refunded},\"amount\":9223372036854775808"), "amount: is 9223372036854775808, which is beyond 64 bits".to_owned()),
        ("return_refunded", format!("{refunded},\"currency\":978"), "currency: is the number 978; a text, in quotes".to_owned()),
        ("return_recieved", refunded.to_owned(), "type: is \"return_recieved\", which this version does not know; did you mean `return_received`?".to_owned()),
    ];
    for (kind, fields, expected) in cases {
        let text = line_of(kind, &fields);
        assert_eq!(
            said(line(text.as_bytes(), None).movement),
            expected,
            "{text}"
        );
    }
    // In an event the fields are those of its data.
    let event = with(EVENT, "\"location\"", "\"inbound\":\"P\",\"location\"");
    assert_eq!(
        said(cloud_event(&event, None).movement),
        "data.line: is missing; `inbound` needs it"
    );
    let event = with(&event, ".received.", ".inbound_expected.");
    let event = with(
        &event,
        "\"inbound\"",
        "\"line\":\"1\",\"eta\":\"soon\",\"inbound\"",
    );
    assert_eq!(
        said(cloud_event(&event, None).movement),
        format!("data.eta: is \"soon\"; {TIME}")
    );
}

#[test]
fn a_disposition_that_is_not_known_is_left_out() {
    for disposition in [
        "",
        r#","disposition":"donate""#,
        r#","disposition":"Restock""#,
        r#","disposition":"""#,
    ] {
        let fields = format!(r#""return":"RMA-1","line":"2","location":"DC-1"{disposition}"#);
        let movement = line(line_of("return_inspected", &fields).as_bytes(), None).movement;
        assert_eq!(
            movement.expect("valid").kind,
            inspected(0).kind,
            "{disposition}"
        );
    }
}

#[test]
fn identity_is_known_of_an_invalid_event_too() {
    let parsed = cloud_event(&with(EVENT, ":5,", ":5.0,"), None);
    assert_eq!((&*parsed.id, &*parsed.source), ("m-1", "wms"));
    assert!(parsed.movement.is_err());
    let parsed = cloud_event("{", Some("pos"));
    assert_eq!((&*parsed.id, &*parsed.source), ("", ""));
}

#[test]
fn messages_come_apart() {
    assert_eq!(elements(b"[]"), Ok(vec![]));
    assert_eq!(elements(b" {\"a\": [1]} "), Ok(vec!["{\"a\": [1]}"]));
    assert_eq!(
        elements(b"[{\"a\":1} , 5,\n[ ]]"),
        Ok(vec!["{\"a\":1}", "5", "[ ]"])
    );
    #[rustfmt::skip]
    let cases: [(&[u8], &str); 5] = [
        (b"[{}", "the message is not JSON: EOF while parsing a list at line 1 column 3"),
        (b"{}{}", "the message is not JSON: trailing characters at line 1 column 3"),
        (b"\"x\"", "the message is JSON, but neither an event nor an array of events"),
        (b"[\"\xff\"]", "the message is JSON that is not UTF-8 (at byte 2)"),
        (b"[{}\n,x]", "the message is not JSON: expected value at line 2 column 2"),
    ];
    for (message, expected) in cases {
        assert_eq!(
            elements(message).expect_err("malformed").to_string(),
            expected
        );
    }
    // Deep nesting overflows no stack.
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(elements(deep.as_bytes()).map(|all| all.len()), Ok(1));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn nothing_panics(
        slips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        flat: bool,
        cut: prop::sample::Index,
    ) {
        let mut bytes = if flat { LINE } else { EVENT }.as_bytes().to_vec();
        for (at, byte) in slips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let parsed = line(bytes, Some("pos"));
            if let Err(invalid) = parsed.movement {
                prop_assert!(!invalid.field.is_empty() && !invalid.reason.is_empty());
            }
            // The same parts, whichever way a message is taken apart.
            if let Ok(elements) = elements(bytes) {
                for element in elements {
                    cloud_event(element, None);
                }
            }
        }
    }
}
