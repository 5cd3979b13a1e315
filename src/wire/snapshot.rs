//! Lines of the ERP's snapshots: in CSV and in JSON, and their names and limits whatever they came
//! in.

use std::{borrow::Cow, fmt::Display};

use ::csv::{ByteRecord, StringRecord};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{draft::closest, quoted};
use crate::{
    domain::{
        movement::{Invalid, text},
        reconcile::StatedUnits,
    },
    limits::{LOCATION_BYTES_MAX, SKU_BYTES_MAX, SNAPSHOT_UNITS_MAX},
    proto::v1 as pb,
};

/// The columns of a snapshot, and the members of a line in JSON.
pub const COLUMNS: [&str; 6] = [
    "sku",
    "location",
    "good",
    "quarantined",
    "damaged",
    "return_pending",
];

/// Where the conditions begin among [`COLUMNS`].
const CONDITIONS: usize = 2;

/// What a line states, in the order of the conditions.
pub fn stated(line: &pb::SnapshotLine) -> StatedUnits {
    [
        line.good,
        line.quarantined,
        line.damaged,
        line.return_pending,
    ]
}

/// Checks every documented limit of a line.
///
/// # Errors
/// The first field that breaks its limit.
pub fn check(line: &pb::SnapshotLine) -> Result<(), Invalid> {
    text("sku", &line.sku, SKU_BYTES_MAX)?;
    text("location", &line.location, LOCATION_BYTES_MAX)?;
    let stated = stated(line);
    if stated == [None; 4] {
        return Err(Invalid::new(
            "good",
            "is missing, and no other condition is stated either; a line states at least one",
        ));
    }
    for (units, name) in stated.into_iter().zip(&COLUMNS[CONDITIONS..]) {
        if let Some(units) = units.filter(|units| units.unsigned_abs() > UNITS_MAX) {
            return Err(too_many(name, units));
        }
    }
    Ok(())
}

/// More units than a line may state.
pub fn too_many(field: &str, units: impl Display) -> Invalid {
    let reason = format!("is {units}; at most {UNITS_MAX} units, above or below 0");
    Invalid::new(field, reason)
}

const UNITS_MAX: u64 = SNAPSHOT_UNITS_MAX.unsigned_abs();

/// What names the columns of a CSV file.
const HEADER: &str = "header";

/// Where each of [`COLUMNS`] is among the names that `field` has, a header or a schema.
///
/// # Errors
/// If a column is unknown or there twice, or one is missing that every line needs. The finding is
/// about `field`.
pub fn places<'a>(
    field: &'static str,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<[Option<usize>; COLUMNS.len()], Invalid> {
    let mut places = [None; COLUMNS.len()];
    for (place, name) in names.into_iter().enumerate() {
        let Some(column) = COLUMNS.iter().position(|own| *own == name) else {
            let hint = closest(name, COLUMNS)
                .unwrap_or_else(|| format!("columns are {}", COLUMNS.join(", ")));
            let reason = format!("has the unknown column {}; {hint}", quoted(name));
            return Err(Invalid::new(field, reason));
        };
        if places[column].replace(place).is_some() {
            let reason = format!("has the column `{name}` twice");
            return Err(Invalid::new(field, reason));
        }
    }
    let missing = |column: usize| places[column].is_none();
    if let Some(column) = (0..CONDITIONS).find(|column| missing(*column)) {
        let name = COLUMNS[column];
        let remark = match field {
            HEADER => " (a header row is required)",
            _ => "",
        };
        let reason = format!("has no column `{name}`{remark}");
        return Err(Invalid::new(field, reason));
    }
    if (CONDITIONS..COLUMNS.len()).all(missing) {
        let reason = format!(
            "has no column of a condition: one of {}",
            COLUMNS[CONDITIONS..].join(", ")
        );
        return Err(Invalid::new(field, reason));
    }
    Ok(places)
}

/// The columns of a CSV file, by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Of each of [`COLUMNS`].
    places: [Option<usize>; COLUMNS.len()],
    count: usize,
}

impl Columns {
    /// Reads the header row.
    ///
    /// # Errors
    /// If a column is unknown or there twice, or one is missing that every line needs. The
    /// finding's field is `header`.
    pub fn from_header(header: &StringRecord) -> Result<Self, Invalid> {
        let names = header.iter().map(str::trim);
        let names = names.map(|name| name.trim_start_matches('\u{feff}'));
        let places = places(HEADER, names)?;
        Ok(Self {
            places,
            count: header.len(),
        })
    }

    /// Reads a row; the caller knows its number.
    ///
    /// # Errors
    /// What is wrong with it, by the name of the column.
    pub fn read(&self, row: &ByteRecord) -> Result<pb::SnapshotLine, Invalid> {
        if row.len() != self.count {
            let (has, wants) = (row.len(), self.count);
            let reason = format!("has {has} fields, and the header has {wants}");
            return Err(Invalid::new("row", reason));
        }
        let field = |column: usize| -> Result<&str, Invalid> {
            let bytes = self.places[column].and_then(|place| row.get(place));
            std::str::from_utf8(bytes.unwrap_or_default())
                .map_err(|_| Invalid::new(COLUMNS[column], "is not UTF-8; encode texts so"))
        };
        let units = |column: usize| -> Result<Option<i64>, Invalid> {
            match field(column)? {
                "" => Ok(None),
                text => integer(COLUMNS[column], text).map(Some),
            }
        };
        let line = pb::SnapshotLine {
            sku: field(0)?.to_owned(),
            location: field(1)?.to_owned(),
            good: units(2)?,
            quarantined: units(3)?,
            damaged: units(4)?,
            return_pending: units(5)?,
            line: 0,
        };
        check(&line)?;
        Ok(line)
    }
}

fn integer(field: &'static str, text: &str) -> Result<i64, Invalid> {
    text.parse().map_err(|_| {
        let shown = quoted(text);
        let reason = format!("is {shown}; a whole number of units, without point or separators");
        Invalid::new(field, reason)
    })
}

/// An object whose members are not looked at yet, so that a finding can name one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(borrow)]
    sku: Option<&'a RawValue>,
    #[serde(borrow)]
    location: Option<&'a RawValue>,
    #[serde(borrow)]
    good: Option<&'a RawValue>,
    #[serde(borrow)]
    quarantined: Option<&'a RawValue>,
    #[serde(borrow)]
    damaged: Option<&'a RawValue>,
    #[serde(borrow)]
    return_pending: Option<&'a RawValue>,
}

/// Reads a line of NDJSON.
///
/// # Errors
/// What is wrong with it, by the name of the member.
pub fn json_line(line: &[u8]) -> Result<pb::SnapshotLine, Invalid> {
    let not_utf8 = |error: std::str::Utf8Error| {
        let reason = format!("is not UTF-8 (at byte {})", error.valid_up_to());
        Invalid::new("json", reason)
    };
    let line = std::str::from_utf8(line).map_err(not_utf8)?;
    let object: Object<'_> = serde_json::from_str(line)
        .map_err(|error| Invalid::new("json", format!("is wrong: {error}")))?;
    let text = |field: &'static str, raw: Option<&RawValue>| -> Result<String, Invalid> {
        let Some(raw) = raw else {
            return Err(Invalid::new(field, "is missing"));
        };
        let read: Result<Cow<'_, str>, _> = serde_json::from_str(raw.get());
        let wrong = |_| Invalid::new(field, format!("is {}; a text", shown(raw)));
        read.map(Cow::into_owned).map_err(wrong)
    };
    let units = |field: &'static str, raw: Option<&RawValue>| -> Result<Option<i64>, Invalid> {
        let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
            return Ok(None);
        };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| {
            let reason = format!("is {}; a whole number of units, without quotes", shown(raw));
            Invalid::new(field, reason)
        })
    };
    let line = pb::SnapshotLine {
        sku: text(COLUMNS[0], object.sku)?,
        location: text(COLUMNS[1], object.location)?,
        good: units(COLUMNS[2], object.good)?,
        quarantined: units(COLUMNS[3], object.quarantined)?,
        damaged: units(COLUMNS[4], object.damaged)?,
        return_pending: units(COLUMNS[5], object.return_pending)?,
        line: 0,
    };
    check(&line)?;
    Ok(line)
}

/// A value as it was written, if it is short.
fn shown(raw: &RawValue) -> &str {
    match raw.get() {
        text if text.len() <= 40 => text,
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> Vec<Result<pb::SnapshotLine, Invalid>> {
        let mut reader = ::csv::ReaderBuilder::new()
            .flexible(true)
            .from_reader(text.as_bytes());
        let header = reader.headers().expect("a header").clone();
        let columns = match Columns::from_header(&header) {
            Ok(columns) => columns,
            Err(invalid) => return vec![Err(invalid)],
        };
        let rows = reader.byte_records();
        rows.map(|row| columns.read(&row.expect("a row"))).collect()
    }

    fn line(good: Option<i64>, damaged: Option<i64>) -> pb::SnapshotLine {
        pb::SnapshotLine {
            sku: "A".into(),
            location: "dc".into(),
            good,
            damaged,
            ..pb::SnapshotLine::default()
        }
    }

    fn wrong(found: &Result<pb::SnapshotLine, Invalid>, field: &str, says: &str) {
        let invalid = found.as_ref().expect_err("wrong");
        assert_eq!(invalid.field, field, "{invalid}");
        assert!(invalid.reason.contains(says), "{invalid}");
    }

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let read = csv("location,damaged,good,sku\ndc,,-5,A\ndc,3,,A\n");
        assert_eq!(read, [Ok(line(Some(-5), None)), Ok(line(None, Some(3)))]);
    }

    #[test]
    fn what_is_wrong_with_a_header_or_row_is_named() {
        for (text, field, says) in [
            ("sku,location,god\n", "header", "did you mean `good`?"),
            ("sku,location\n", "header", "no column of a condition"),
            ("sku,good\n", "header", "no column `location`"),
            ("sku,sku,location,good\n", "header", "twice"),
            ("sku,location,good\nA,dc\n", "row", "has 2 fields"),
            ("sku,location,good\nA,dc,\n", "good", "at least one"),
            ("sku,location,good\nA,dc,1.5\n", "good", "\"1.5\""),
            ("sku,location,good\nA,dc,\"1,500\"\n", "good", "separators"),
            ("sku,location,good\nA,,1\n", "location", "is empty"),
            ("sku,location,good\n A,dc,1\n", "sku", "white space"),
            (
                "sku,location,good\nA,dc,1000000000000001\n",
                "good",
                "at most",
            ),
            (
                "sku,location,good\nA,dc,99999999999999999999\n",
                "good",
                "whole number",
            ),
        ] {
            wrong(&csv(text)[0], field, says);
        }
    }

    #[test]
    fn lines_of_json_are_the_same() {
        let read = json_line(br#"{"sku":"A","location":"dc","good":5,"damaged":null}"#);
        assert_eq!(read, Ok(line(Some(5), None)));
        let escaped = json_line(br#"{"sku":"\u0041","location":"dc","damaged":-1}"#);
        assert_eq!(escaped, Ok(line(None, Some(-1))));
        for (text, field, says) in [
            (
                &br#"{"sku":"A","location":"dc","god":5}"#[..],
                "json",
                "god",
            ),
            (
                br#"{"sku":"A","location":"dc","good":"5"}"#,
                "good",
                "\"5\"",
            ),
            (br#"{"sku":"A","location":"dc","good":5.0}"#, "good", "5.0"),
            (br#"{"sku":7,"location":"dc","good":5}"#, "sku", "a text"),
            (br#"{"location":"dc","good":5}"#, "sku", "missing"),
            (
                br#"{"sku":"A","sku":"B","location":"dc","good":5}"#,
                "json",
                "duplicate",
            ),
            (br#"["A"]"#, "json", "wrong"),
            (b"\xff", "json", "UTF-8"),
            (b"{", "json", "wrong"),
        ] {
            wrong(&json_line(text), field, says);
        }
    }
}
