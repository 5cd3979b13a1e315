//! Movements written as text: for tools, examples and tests.

use serde_json::{Map, Value};

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
    let texts = texts_of(movement)?;
    let text = |field: Field| Value::from(texts[field as usize].as_str());
    let mut event = Map::new();
    event.insert("specversion".into(), "1.0".into());
    event.insert(
        "type".into(),
        cloud_event_type(&texts[Field::Type as usize]).into(),
    );
    event.insert("source".into(), text(Field::Source));
    event.insert("id".into(), text(Field::Id));
    event.insert("time".into(), text(Field::OccurredAt));
    event.insert("datacontenttype".into(), "application/json".into());
    let data = members(&texts, Field::DATA, movement.quantity);
    event.insert("data".into(), data.into());
    Ok(event.into())
}

/// One line of a file, without its end.
///
/// # Errors
/// What has no form in text: no time, no kind, an unknown enum value.
pub fn to_json_line(movement: &pb::Movement) -> Result<String, Invalid> {
    let texts = texts_of(movement)?;
    Ok(Value::from(members(&texts, &Field::ALL, movement.quantity)).to_string())
}

fn members(texts: &[String; Field::COUNT], fields: &[Field], quantity: i64) -> Map<String, Value> {
    fields
        .iter()
        .filter(|field| !texts[**field as usize].is_empty())
        .map(|field| {
            let value = match field {
                Field::Quantity => quantity.into(),
                _ => texts[*field as usize].as_str().into(),
            };
            (field.name().to_owned(), value)
        })
        .collect()
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
