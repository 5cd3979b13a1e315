use crate::wire::time::{format, parse};

#[test]
fn rfc_3339_and_back() {
    #[rustfmt::skip]
    let cases = [
        ("2026-11-20T10:00:00Z", 1_795_168_800, 0, "2026-11-20T10:00:00Z"),
        ("2026-11-20t10:00:00z", 1_795_168_800, 0, "2026-11-20T10:00:00Z"),
        ("2026-11-20T11:00:00.5+01:00", 1_795_168_800, 500_000_000, "2026-11-20T10:00:00.5Z"),
        ("2026-11-20T04:30:00.000001-05:30", 1_795_168_800, 1_000, "2026-11-20T10:00:00.000001Z"),
        ("2026-11-20T10:00:00.123456789-00:00", 1_795_168_800, 123_456_789, "2026-11-20T10:00:00.123456789Z"),
        ("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59.25Z", -1, 250_000_000, "1969-12-31T23:59:59.25Z"),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799, 999_999_000, "9999-12-31T23:59:59.999999Z"),
        ("2028-02-29T00:00:00Z", 1_835_395_200, 0, "2028-02-29T00:00:00Z"),
    ];
    for (text, seconds, nanos, written) in cases {
        let time = parse(text).expect(text);
        assert_eq!((time.seconds, time.nanos), (seconds, nanos), "{text}");
        assert_eq!(format(&time).expect(text), written);
    }
}

#[test]
fn what_is_no_time_is_refused() {
    const EXAMPLE: &str = "a time is like 2026-11-20T10:00:00Z or 2026-11-20T11:00:00.5+01:00";
    for text in [
        "",
        "Z",
        "now",
        "2026-11-20",
        "2026-11-20T10:00Z",
        "2026-11-20 10:00:00Z",
        "20261120T100000Z",
        "2026-11-20T10:00:00.Z",
        "2026-11-20T10:00:00,5Z",
        "2026-11-20T10:00:00+0100",
        "2026-11-20T10:00:00+24:00",
        "2026-11-20T10:00:00+01:60",
        "2026-11-20T10:00:00Z[UTC]",
        "2026-11-20T10:00:00ü0:00",
        "+002026-11-20T10:00:00Z",
        "1795168800",
        "2026-11-20T10:00:00.1234567890Z",
    ] {
        let reason = parse(text).expect_err(text);
        assert_eq!(reason, format!("is {text:?}; {EXAMPLE}"));
    }
    assert_eq!(
        parse("2026-11-20T10:00:00").expect_err("no offset"),
        format!("is \"2026-11-20T10:00:00\", without an offset from UTC; {EXAMPLE}")
    );
    for text in [
        "2026-02-30T10:00:00Z",
        "2026-13-01T10:00:00Z",
        "2026-11-20T24:00:00Z",
    ] {
        let reason = parse(text).expect_err(text);
        assert!(reason.starts_with(&format!("is {text:?}: ")), "{reason}");
    }
}

#[test]
fn what_has_no_form_is_not_written() {
    let time = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    for seconds in [i64::MIN, -62_167_219_201, 253_402_300_800, i64::MAX] {
        assert_eq!(
            format(&time(seconds, 0)).expect_err("outside"),
            "is outside the years 0 to 9999"
        );
    }
    assert_eq!(
        format(&time(0, -1)).expect_err("no nanos"),
        "has -1 nanos; 0 to 999999999"
    );
}
