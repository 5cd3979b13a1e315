//! Movements in JSON: CloudEvents 1.0 in structured mode, and a flat form for files.
//!
//! Values are taken apart by hand rather than by derived code, so that a finding can name the
//! field and say what would be right, and so that nothing is guessed: a number in quotes, a
//! fraction, a repeated or an unknown name is a mistake of the sender's, and says so.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::movement::Invalid;
use crate::proto::v1 as pb;

use super::draft::{Draft, Field, Form, closest_of, parse_integer};
use super::{Malformed, quoted};

/// A movement that was read from JSON, or why it is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// Its id, also if it is invalid, as far as it could be read.
    pub id: String,
    /// Its source, also if it is invalid, as far as it could be read.
    pub source: String,
    /// The movement, or why it is none.
    pub movement: Result<pb::Movement, Invalid>,
}

/// Takes a message apart: the elements of an array, or the one object it is. Their syntax is
/// right; what they say is not looked at.
///
/// # Errors
/// If it is not UTF-8, not JSON, or neither an array nor an object.
pub fn elements(message: &[u8]) -> Result<Vec<&str>, Malformed> {
    let text = std::str::from_utf8(message)
        .map_err(|error| Malformed::at(error.valid_up_to(), "is JSON that is not UTF-8"))?;
    let not_json = |error: serde_json::Error| Malformed::new(format!("is not JSON: {error}"));
    if starts_with(text, '[') {
        let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(not_json)?;
        return Ok(elements.into_iter().map(RawValue::get).collect());
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(not_json)?;
    if !starts_with(raw.get(), '{') {
        return Err(Malformed::new(
            "is JSON, but neither an event nor an array of events",
        ));
    }
    Ok(vec![raw.get()])
}

/// Reads a CloudEvent. `source` counts if it has none (CloudEvents requires one, so this is a
/// courtesy where the transport knows it).
pub fn cloud_event(text: &str, source: Option<&str>) -> Parsed {
    parse(text, source, |members| {
        if find(members, "specversion").is_none() {
            return Err(Invalid::new(
                "specversion",
                "is missing; a movement in JSON is a CloudEvent, with \"specversion\": \"1.0\"",
            ));
        }
        read_event(members)
    })
}

/// Reads a line of a file: a CloudEvent if it has a `specversion`, else the flat form. `source`
/// counts if it has none.
pub fn line(line: &[u8], source: Option<&str>) -> Parsed {
    match std::str::from_utf8(line) {
        Ok(text) => parse(text, source, |members| {
            if find(members, "specversion").is_some() {
                read_event(members)
            } else {
                read_flat(members)
            }
        }),
        Err(error) => unread(Invalid::new(
            "json",
            format!("is not UTF-8 (at byte {})", error.valid_up_to()),
        )),
    }
}

fn unread(invalid: Invalid) -> Parsed {
    Parsed {
        id: String::new(),
        source: String::new(),
        movement: Err(invalid),
    }
}

fn parse<'a>(
    text: &'a str,
    source: Option<&'a str>,
    read: impl FnOnce(&Members<'a>) -> Result<Draft<'a>, Invalid>,
) -> Parsed {
    let members = match object(text) {
        Ok(members) => members,
        Err(invalid) => return unread(invalid),
    };
    let best_effort = |name| match find(&members, name).map(value) {
        Some(Json::Text(Ok(text))) => text.into_owned(),
        _ => String::new(),
    };
    let id = best_effort("id");
    let mut own_source = best_effort("source");
    if own_source.is_empty() {
        own_source = source.unwrap_or_default().to_owned();
    }
    let movement = distinct(&members, "").and_then(|()| {
        let mut draft = read(&members)?;
        if let (false, Some(source)) = (draft.has(Field::Source), source) {
            draft.set(Field::Source, source);
        }
        draft.finish()
    });
    Parsed {
        id,
        source: own_source,
        movement,
    }
}

fn read_flat<'a>(members: &Members<'a>) -> Result<Draft<'a>, Invalid> {
    let mut draft = Draft::new(Form::Flat);
    for (name, raw) in members {
        set_field(&mut draft, Form::Flat, &Field::ALL, name, raw)?;
    }
    Ok(draft)
}

fn read_event<'a>(members: &Members<'a>) -> Result<Draft<'a>, Invalid> {
    let mut draft = Draft::new(Form::CloudEvent);
    let mut data = None;
    let mut correlation = None;
    for (name, raw) in members {
        let value = value(raw);
        if matches!(value, Json::Null) {
            // CloudEvents: an attribute that is null is one that is not set.
            continue;
        }
        match &**name {
            "specversion" => read_specversion(value)?,
            "type" => {
                let kind = read_type(&value.text("type")?)?;
                draft.set(Field::Type, kind);
            }
            "id" => draft.set(Field::Id, value.text("id")?),
            "source" => {
                let source = value.text("source")?;
                if !source.is_empty() {
                    draft.set(Field::Source, source);
                }
            }
            "time" => draft.set(Field::OccurredAt, value.text("time")?),
            "datacontenttype" => read_content_type(&value.text("datacontenttype")?)?,
            "data" => match value {
                Json::Object => data = Some(*raw),
                other => {
                    return Err(Invalid::new(
                        "data",
                        format!("is {}; an object", other.what()),
                    ));
                }
            },
            "data_base64" => {
                return Err(Invalid::new(
                    "data_base64",
                    "is not taken; a movement is a JSON object in `data`",
                ));
            }
            "correlationid" => correlation = Some(value.text("correlationid")?),
            // `subject`, `dataschema`, and extensions: others may use them, we do not.
            _ => {}
        }
    }
    let data = data.ok_or_else(|| Invalid::new("data", "is missing; it is required"))?;
    let members = object(data.get())?;
    distinct(&members, "data.")?;
    for (name, raw) in &members {
        set_field(&mut draft, Form::CloudEvent, Field::DATA, name, raw)?;
    }
    if let (false, Some(correlation)) = (draft.has(Field::CorrelationId), correlation) {
        draft.set(Field::CorrelationId, correlation);
    }
    Ok(draft)
}

fn read_specversion(value: Json<'_>) -> Result<(), Invalid> {
    let version = value.text("specversion")?;
    if version == "1.0" {
        return Ok(());
    }
    Err(Invalid::new(
        "specversion",
        format!("is {}; \"1.0\"", quoted(&version)),
    ))
}

/// The kind that the type of an event names.
fn read_type(text: &str) -> Result<String, Invalid> {
    const EXAMPLE: &str = "a type is like sellable.movement.received.v1";
    let (kind, version) = text
        .strip_prefix("sellable.movement.")
        .and_then(|rest| rest.rsplit_once(".v"))
        .ok_or_else(|| Invalid::new("type", format!("is {}; {EXAMPLE}", quoted(text))))?;
    match version.parse::<u32>() {
        Ok(1) => Ok(kind.to_owned()),
        Ok(2..) => Err(Invalid::new(
            "type",
            format!(
                "is {}, which is newer than this version knows (v1)",
                quoted(text)
            ),
        )),
        _ => Err(Invalid::new(
            "type",
            format!("is {}; {EXAMPLE}", quoted(text)),
        )),
    }
}

fn read_content_type(text: &str) -> Result<(), Invalid> {
    let media_type = text.split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    if matches!(&*media_type, "application/json" | "text/json") || media_type.ends_with("+json") {
        return Ok(());
    }
    Err(Invalid::new(
        "datacontenttype",
        format!("is {}; application/json", quoted(text)),
    ))
}

fn set_field<'a>(
    draft: &mut Draft<'a>,
    form: Form,
    among: &[Field],
    name: &str,
    raw: &'a RawValue,
) -> Result<(), Invalid> {
    let Some(field) = Field::of_name(name, among) else {
        return Err(unknown_field(form, among, name));
    };
    let path = form.path(field);
    let value = value(raw);
    if !field.is_integer() {
        draft.set(field, value.text(&path)?);
        return Ok(());
    }
    let reason = match value {
        Json::Number(digits) => match parse_integer(field, digits) {
            Ok(value) => {
                draft.set_integer(field, value);
                return Ok(());
            }
            Err(reason) => reason,
        },
        Json::Text(Ok(text)) if text.parse::<i64>().is_ok() => {
            format!("is the text {}; an integer, without quotes", quoted(&text))
        }
        other => format!("is {}; an integer", other.what()),
    };
    Err(Invalid::new(path, reason))
}

fn unknown_field(form: Form, among: &[Field], name: &str) -> Invalid {
    let names: Vec<_> = among.iter().map(|field| field.name()).collect();
    let hint = match (form, Field::of_name(name, &Field::ALL)) {
        (Form::CloudEvent, Some(field)) => {
            format!("the event itself has it, as `{}`", form.path(field))
        }
        _ => closest_of(name, &names).unwrap_or_else(|| format!("fields are {}", names.join(", "))),
    };
    let path = match form {
        Form::Flat => quotable(name),
        Form::CloudEvent => format!("data.{}", quotable(name)),
    };
    Invalid::new(path, format!("is unknown; {hint}"))
}

/// A name that a stranger chose, fit to stand in a path.
fn quotable(name: &str) -> String {
    const CHARS_MAX: usize = 64;
    name.chars()
        .take(CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect()
}

/// The members of an object in order, repeated ones too.
type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

fn find<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    members
        .iter()
        .find(|(member, _)| member == name)
        .map(|(_, raw)| *raw)
}

fn distinct(members: &Members<'_>, prefix: &str) -> Result<(), Invalid> {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Invalid::new(
            format!("{prefix}{}", quotable(pair[0])),
            "is there twice",
        )),
    }
}

fn object(text: &str) -> Result<Members<'_>, Invalid> {
    let not_json = |error: serde_json::Error| Invalid::new("json", format!("is wrong: {error}"));
    if starts_with(text, '{') {
        return serde_json::from_str(text)
            .map(|MembersOf(members)| members)
            .map_err(not_json);
    }
    // Something else: say what, if it is JSON at all.
    let raw: &RawValue = serde_json::from_str(text).map_err(not_json)?;
    Err(Invalid::new(
        "json",
        format!("is {}; an object", value(raw).what()),
    ))
}

/// Whether a JSON text's value starts with this character.
fn starts_with(text: &str, first: char) -> bool {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
        .starts_with(first)
}

struct MembersOf<'a>(Members<'a>);

impl<'de> Deserialize<'de> for MembersOf<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = MembersOf<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Text(name), raw)) = map.next_entry()? {
                    members.push((name, raw));
                }
                Ok(MembersOf(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Text, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A value by its type; its syntax is known to be right.
enum Json<'a> {
    /// `Err` if an escape in it is half of a character.
    Text(Result<Cow<'a, str>, ()>),
    Number(&'a str),
    Bool,
    Null,
    Array,
    Object,
}

fn value(raw: &RawValue) -> Json<'_> {
    match raw.get().as_bytes().first() {
        Some(b'"') => Json::Text(
            serde_json::from_str(raw.get())
                .map(|Text(text)| text)
                .map_err(drop),
        ),
        Some(b'{') => Json::Object,
        Some(b'[') => Json::Array,
        Some(b't' | b'f') => Json::Bool,
        Some(b'n') => Json::Null,
        _ => Json::Number(raw.get()),
    }
}

impl<'a> Json<'a> {
    fn what(&self) -> &'static str {
        match self {
            Json::Text(_) => "a text",
            Json::Number(_) => "a number",
            Json::Bool => "true or false",
            Json::Null => "null",
            Json::Array => "an array",
            Json::Object => "an object",
        }
    }

    fn text(self, path: &str) -> Result<Cow<'a, str>, Invalid> {
        let reason = match self {
            Json::Text(Ok(text)) => return Ok(text),
            Json::Text(Err(())) => "has an escape that is no character".to_owned(),
            Json::Number(digits) if digits.len() < 32 => {
                format!("is the number {digits}; a text, in quotes")
            }
            Json::Null => "is null; leave it out, or give a text".to_owned(),
            other => format!("is {}; a text", other.what()),
        };
        Err(Invalid::new(path, reason))
    }
}
