//! What commands print: tables for people, JSON for scripts.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use crate::{proto::v1 as pb, wire};

/// Writes to stdout. A reader that went away (`| head`) is no failure.
///
/// # Errors
/// If stdout cannot be written to.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Failed,
            format!("cannot write the output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Writes one line of JSON.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// A plain table. Columns whose heading starts with `>` are numbers, and go to the right.
pub fn table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.map(|heading| heading.trim_start_matches('>').to_uppercase()));
    table.add_rows(rows);
    for (n, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(n) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    lines_trimmed(&table.to_string())
}

/// Names and values below each other.
pub fn pairs(rows: Vec<(&str, String)>) -> String {
    pairs_as_wide_as("", rows)
}

/// The same below others, of which this name was the widest.
pub fn pairs_as_wide_as(name: &str, rows: Vec<(&str, String)>) -> String {
    let names = rows.iter().map(|(name, _)| *name).chain([name]);
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

fn lines_trimmed(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// A number with its digits grouped by three.
pub fn number(value: impl Into<i128>) -> String {
    let value: i128 = value.into();
    let digits = value.unsigned_abs().to_string();
    let mut out = String::from(if value < 0 { "-" } else { "" });
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A moment, in UTC to the second; `-` if absent.
pub fn moment(at: Option<&Timestamp>) -> String {
    at.and_then(|at| jiff::Timestamp::new(at.seconds, 0).ok())
        .map_or_else(|| "-".to_owned(), |at| at.to_string())
}

/// A span of milliseconds, in its largest unit or two.
pub fn span(milliseconds: i64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        ..1 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The moment as JSON, to the microsecond.
pub fn json_moment(at: Option<&Timestamp>) -> Value {
    at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok())
        .map_or(Value::Null, |at| at.to_string().into())
}

/// Balances as JSON.
pub fn json_balances(balances: Option<&pb::Balances>) -> Value {
    balances.map_or(Value::Null, |b| {
        json!({
            "good": b.good,
            "quarantined": b.quarantined,
            "damaged": b.damaged,
            "return_pending": b.return_pending,
            "reserved": b.reserved,
            "in_transit": b.in_transit,
            "return_expected": b.return_expected,
            "on_hand": b.on_hand,
            "free": b.free,
        })
    })
}

/// The kind of an exception, by its name in the settings and the documentation.
pub fn kind_name(kind: i32) -> String {
    pb::ExceptionKind::try_from(kind).map_or_else(
        |_| format!("kind_{kind}"),
        |kind| {
            kind.as_str_name()
                .trim_start_matches("EXCEPTION_KIND_")
                .to_ascii_lowercase()
        },
    )
}

/// The movement of an exception in a form that can be read: itself, where its bytes can be
/// decoded; text; or else digits.
pub fn json_original(exception: &pb::Exception) -> Value {
    let protobuf = exception.content_type.contains("protobuf");
    let decoded = protobuf
        .then(|| <pb::Movement as prost::Message>::decode(exception.original.as_slice()).ok())
        .flatten()
        .and_then(|movement| wire::text::to_json_line(&movement).ok())
        .and_then(|line| serde_json::from_str::<Value>(&line).ok());
    if let Some(movement) = decoded {
        return json!({ "movement": movement });
    }
    match std::str::from_utf8(&exception.original) {
        Ok(text) if !protobuf => json!({ "text": text }),
        _ => {
            let digits: String = exception
                .original
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            json!({ "hex": digits })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_read_well() {
        assert_eq!(number(0), "0");
        assert_eq!(number(-1_234_567), "-1,234,567");
        assert_eq!(number(100), "100");
        assert_eq!(span(900), "900 ms");
        assert_eq!(span(61_000), "1 min 1 s");
        assert_eq!(span(90_000_000), "1 d 1 h");
        assert_eq!(moment(None), "-");
    }

    #[test]
    fn tables_are_plain() {
        let text = table(
            ["sku", ">ats"],
            vec![
                ["A".to_owned(), "5".to_owned()],
                ["B-2".to_owned(), "1,000".to_owned()],
            ],
        );
        assert_eq!(text, "SKU    ATS\nA        5\nB-2  1,000\n");
    }

    #[test]
    fn an_original_is_shown_as_well_as_it_can_be() {
        let mut exception = pb::Exception {
            original: b"{\"id\":1".to_vec(),
            content_type: "application/json".to_owned(),
            ..pb::Exception::default()
        };
        assert_eq!(json_original(&exception), json!({ "text": "{\"id\":1" }));
        exception.content_type = "application/protobuf".to_owned();
        exception.original = vec![0xff, 0x01];
        assert_eq!(json_original(&exception), json!({ "hex": "ff01" }));
    }
}
