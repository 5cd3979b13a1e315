//! Times in text: RFC 3339, strictly.
//!
//! jiff's own parser also takes forms that RFC 3339 does not have, and its timestamps end a day
//! before the year 9999 does; so dates and clock times are jiff's, the form and the offset ours.

use std::fmt::Write as _;

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

use super::quoted;

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);
const EXAMPLE: &str = "a time is like 2026-11-20T10:00:00Z or 2026-11-20T11:00:00.5+01:00";

/// Reads an RFC 3339 time.
///
/// # Errors
/// The reason, to follow the name of a field.
pub fn parse(text: &str) -> Result<prost_types::Timestamp, String> {
    let no_time = || format!("is {}; {EXAMPLE}", quoted(text));
    let (clock, offset_seconds) = split_offset(text).ok_or_else(|| {
        if has_clock_form(text) {
            format!("is {}, without an offset from UTC; {EXAMPLE}", quoted(text))
        } else {
            no_time()
        }
    })?;
    if !has_clock_form(clock) {
        return Err(no_time());
    }
    let moment: DateTime = clock
        .parse()
        .map_err(|error| format!("is {}: {error}", quoted(text)))?;
    let since = moment
        .duration_since(EPOCH)
        .checked_sub(SignedDuration::from_secs(offset_seconds))
        .ok_or_else(no_time)?;
    // Nanoseconds of a protobuf timestamp count forward, also before 1970.
    let nanos = since.subsec_nanos();
    let back = nanos < 0;
    Ok(prost_types::Timestamp {
        seconds: since.as_secs() - i64::from(back),
        nanos: if back { nanos + 1_000_000_000 } else { nanos },
    })
}

/// Splits `Z` or `+hh:mm` off.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let (clock, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = offset.as_bytes() else {
        return None;
    };
    let hours = two_digits(*h1, *h2).filter(|hours| *hours < 24)?;
    let minutes = two_digits(*m1, *m2).filter(|minutes| *minutes < 60)?;
    let seconds = hours * 3600 + minutes * 60;
    Some((clock, if *sign == b'-' { -seconds } else { seconds }))
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// Whether it looks like `2026-11-20T10:00:00`, with or without a fraction of up to 9 digits.
fn has_clock_form(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let Some((clock, fraction)) = text.as_bytes().split_at_checked(FORM.len()) else {
        return false;
    };
    let is_clock = clock.iter().zip(FORM).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        b'T' => byte.eq_ignore_ascii_case(form),
        _ => byte == form,
    });
    let is_fraction = match fraction {
        [] => true,
        [b'.', digits @ ..] => {
            matches!(digits.len(), 1..=9) && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    is_clock && is_fraction
}

/// Writes a time in RFC 3339, in UTC.
///
/// # Errors
/// If it is outside the years 0 to 9999, which have no form in RFC 3339.
pub(super) fn format(time: &prost_types::Timestamp) -> Result<String, String> {
    let outside = || "is outside the years 0 to 9999".to_owned();
    let nanos = u32::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .ok_or_else(|| format!("has {} nanos; 0 to 999999999", time.nanos))?;
    let moment = EPOCH
        .checked_add(SignedDuration::from_secs(time.seconds))
        .ok()
        .filter(|moment| moment.year() >= 0)
        .ok_or_else(outside)?;
    let mut text = moment.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    if nanos != 0 {
        write!(text, ".{nanos:09}").map_err(|error| error.to_string())?;
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
    Ok(text)
}
