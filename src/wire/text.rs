//! Movements written as text: for tools, examples and tests.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use crate::domain::movement::Invalid;
use crate::proto::v1 as pb;

use super::draft::{Field, texts_of};

/// The type of a CloudEvent that states a movement of this kind.
pub fn cloud_event_type(kind: &str) -> String {
    format!("sellable.movement.{kind}.v1")
}

/// The CloudEvent that says the same.
///
/// # Errors
/// What has no form in text: no time, no kind, an unknown enum value.
pub fn to_cloud_event(movement: &pb::Movement) -> Result<Value, Invalid> {
    with_cloud_event(movement, |event| serde_json::to_value(event))
}

/// The CloudEvent that says the same, on one line, in the order in which people read it.
///
/// # Errors
/// What has no form in text: no time, no kind, an unknown enum value.
pub fn to_cloud_event_line(movement: &pb::Movement) -> Result<String, Invalid> {
    with_cloud_event(movement, |event| serde_json::to_string(event))
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    r#type: String,
    source: &'a str,
    id: &'a str,
    time: &'a str,
    datacontenttype: &'static str,
    data: Members<'a>,
}

fn with_cloud_event<T>(
    movement: &pb::Movement,
    write: impl FnOnce(&CloudEvent<'_>) -> serde_json::Result<T>,
) -> Result<T, Invalid> {
    let texts = texts_of(movement)?;
    let text = |field: Field| texts[field as usize].as_str();
    let event = CloudEvent {
        specversion: "1.0",
        r#type: cloud_event_type(text(Field::Type)),
        source: text(Field::Source),
        id: text(Field::Id),
        time: text(Field::OccurredAt),
        datacontenttype: "application/json",
        data: Members {
            texts: &texts,
            fields: Field::DATA,
            quantity: movement.quantity,
        },
    };
    Ok(write(&event).expect(ALWAYS_JSON))
}

/// One line of a file, without its end.
///
/// # Errors
/// What has no form in text: no time, no kind, an unknown enum value.
pub fn to_json_line(movement: &pb::Movement) -> Result<String, Invalid> {
    let members = Members {
        texts: &texts_of(movement)?,
        fields: &Field::ALL,
        quantity: movement.quantity,
    };
    Ok(serde_json::to_string(&members).expect(ALWAYS_JSON))
}

const ALWAYS_JSON: &str = "texts and integers always have a form in JSON";

/// The fields that are there, in order.
struct Members<'a> {
    texts: &'a [String; Field::COUNT],
    fields: &'a [Field],
    quantity: i64,
}

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in self.fields {
            let text = &self.texts[*field as usize];
            if *field == Field::Quantity {
                map.serialize_entry(field.name(), &self.quantity)?;
            } else if !text.is_empty() {
                map.serialize_entry(field.name(), text)?;
            }
        }
        map.end()
    }
}

/// The header row of a CSV file with all columns.
pub const CSV_HEADER: [&str; Field::COUNT] = {
    let mut header = [""; Field::COUNT];
    let mut column = 0;
    while column < Field::COUNT {
        header[column] = Field::ALL[column].name();
        column += 1;
    }
    header
};

/// One row of a CSV file with the columns of [`CSV_HEADER`].
///
/// # Errors
/// What has no form in text: no time, no kind, an unknown enum value.
pub fn to_csv_row(movement: &pb::Movement) -> Result<[String; CSV_HEADER.len()], Invalid> {
    texts_of(movement)
}
