use super::*;
use crate::proto::Condition;

fn read(text: &str) -> Result<Recording, Failure> {
    Recording::read(text.as_bytes(), "recording", "run1")
}

#[test]
fn lines_are_read_by_the_contract_and_put_in_order_of_time() {
    let recording = read(
        r#"{"type":"issued","id":"b","source":"pos","occurred_at":"2026-11-20T08:00:02.500Z","sku":"S","quantity":2,"location":"store-1","reason":"sale"}

{"type":"received","id":"a","source":"wms","occurred_at":"2026-11-20T08:00:00Z","sku":"S","quantity":10,"location":"store-1","condition":"damaged"}
{"type":"shipped","id":"c","source":"wms","occurred_at":"2026-11-20T08:01:00Z","sku":"S","quantity":1,"location":"store-1","order":"o-1","line":"1"}
"#,
    )
    .expect("a recording");
    let ids: Vec<&str> = recording
        .movements()
        .iter()
        .map(|m| m.id.as_str())
        .collect();
    assert_eq!(ids, ["run1-a", "run1-b", "run1-c"]);
    assert_eq!(recording.offset(1), Some(Duration::from_millis(2_500)));
    assert_eq!(recording.offset(3), None);
    let Some(movement::Kind::Received(received)) = &recording.movements()[0].kind else {
        panic!("{recording:?}");
    };
    assert_eq!(received.condition(), Condition::Damaged);
    let Some(movement::Kind::Shipped(shipped)) = &recording.movements()[2].kind else {
        panic!("{recording:?}");
    };
    assert_eq!(shipped.order, "run1-o-1");
    let books = on_hand(recording.movements().iter());
    assert_eq!(books[&("run1-S".into(), "store-1".into())], Some(7));
}

#[test]
fn a_line_that_is_none_is_named() {
    for (line, says) in [
        ("{", "no JSON object"),
        (r#"{"id":"a"}"#, "type"),
        (r#"{"type":"stolen"}"#, "there is no kind \"stolen\""),
        (r#"{"type":"sku"}"#, "there is no kind \"sku\""),
        (r#"{"type":"issued","colour":"red"}"#, "colour"),
        (r#"{"type":"issued","reason":"whim"}"#, "WHIM"),
    ] {
        let failure = read(&format!("\n{line}\n")).expect_err(line);
        assert!(failure.message.contains("recording, line 2"), "{failure}");
        assert!(failure.message.contains(says), "{failure}");
    }
    assert!(read("\n").is_err());
}

#[test]
fn a_count_makes_units_untold() {
    let recording = read(
        r#"{"type":"received","id":"a","occurred_at":"2026-11-20T08:00:00Z","sku":"S","quantity":1,"location":"l"}
{"type":"counted","id":"b","occurred_at":"2026-11-20T08:00:00Z","sku":"S","location":"l","good":3}"#,
    )
    .expect("a recording");
    let books = on_hand(recording.movements().iter());
    assert_eq!(books[&("run1-S".into(), "l".into())], None);
}
