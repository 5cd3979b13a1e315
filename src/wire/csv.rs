//! Movements in CSV: a header row, then a movement a row.
//!
//! Columns go by name, in any order. An empty field is absent. Text is taken as it stands:
//! nothing is trimmed.

use ::csv::{ByteRecord, StringRecord};

use crate::domain::movement::Invalid;
use crate::proto::v1 as pb;

use super::draft::{Draft, Field, Form, closest, parse_integer};
use super::quoted;
use super::text::CSV_HEADER;

/// The columns of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    fields: Vec<Field>,
}

impl Columns {
    /// Reads the header row.
    ///
    /// # Errors
    /// If a column is unknown or there twice, or one is missing that every movement needs. The
    /// finding's field is `header`.
    pub fn from_header(header: &StringRecord) -> Result<Self, Invalid> {
        let mut fields = Vec::with_capacity(header.len());
        for name in header {
            let name = name.trim().trim_start_matches('\u{feff}');
            let field = Field::of_name(name, &Field::ALL).ok_or_else(|| {
                let hint = closest(name, CSV_HEADER)
                    .unwrap_or_else(|| format!("columns are {}", CSV_HEADER.join(", ")));
                Invalid::new(
                    "header",
                    format!("has the unknown column {}; {hint}", quoted(name)),
                )
            })?;
            if fields.contains(&field) {
                return Err(Invalid::new(
                    "header",
                    format!("has the column `{name}` twice"),
                ));
            }
            fields.push(field);
        }
        // Not `source`: that may come from elsewhere.
        let needed = [
            Field::Type,
            Field::Id,
            Field::OccurredAt,
            Field::Sku,
            Field::Quantity,
        ];
        for field in needed {
            if !fields.contains(&field) {
                return Err(Invalid::new(
                    "header",
                    format!(
                        "has no column `{}` (a header row is required)",
                        field.name()
                    ),
                ));
            }
        }
        Ok(Self { fields })
    }

    /// Reads a row. `source` counts where the row has none.
    ///
    /// # Errors
    /// What is wrong with the movement, by the name of the column; the caller knows the line.
    pub fn read(&self, row: &ByteRecord, source: Option<&str>) -> Result<pb::Movement, Invalid> {
        if row.len() != self.fields.len() {
            return Err(Invalid::new(
                "row",
                format!(
                    "has {} fields, and the header has {}",
                    row.len(),
                    self.fields.len()
                ),
            ));
        }
        let mut draft = Draft::new(Form::Flat);
        for (field, value) in self.fields.iter().zip(row) {
            if value.is_empty() {
                continue;
            }
            let text = std::str::from_utf8(value)
                .map_err(|_| Invalid::new(field.name(), "is not UTF-8; encode texts so"))?;
            if field.is_integer() {
                let value = parse_integer(*field, text)
                    .map_err(|reason| Invalid::new(field.name(), reason))?;
                draft.set_integer(*field, value);
            } else {
                draft.set(*field, text);
            }
        }
        if let (false, Some(source)) = (draft.has(Field::Source), source) {
            draft.set(Field::Source, source);
        }
        draft.finish()
    }
}
