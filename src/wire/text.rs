//! Movements written as text: for tools, examples and tests.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{Error as _, SerializeMap, Serializer};
use serde_json::Value;

use crate::domain::movement::Invalid;
use crate::proto::v1 as pb;

use super::draft::{CONDITIONS, DISPOSITIONS, Field, Field as F, ISSUE_REASONS};
use super::{movement, time};

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
    };
    Ok(serde_json::to_string(&members).expect(ALWAYS_JSON))
}

const ALWAYS_JSON: &str = "texts and integers always have a form in JSON";

/// The fields that are there, in order.
struct Members<'a> {
    texts: &'a Texts,
    fields: &'a [Field],
}

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in self.fields {
            let text = &self.texts[*field as usize];
            if text.is_empty() {
                continue;
            }
            if field.is_integer() {
                let value: i64 = text.parse().map_err(S::Error::custom)?;
                map.serialize_entry(field.name(), &value)?;
            } else {
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

/// The texts of a movement, by field; integers are their digits. What is empty is absent.
type Texts = [String; Field::COUNT];

fn texts_of(movement: &pb::Movement) -> Result<Texts, Invalid> {
    let kind = movement.kind.as_ref().ok_or_else(movement::missing_kind)?;
    let time = movement.occurred_at.as_ref();
    let time = time.ok_or_else(movement::missing_time)?;

    let mut texts = [const { String::new() }; Field::COUNT];
    texts[F::Type as usize] = kind_name(kind).to_owned();
    texts[F::OccurredAt as usize] = time_text("occurred_at", Some(time))?;
    // A count has none.
    if movement.quantity != 0 || !matches!(kind, pb::movement::Kind::Counted(_)) {
        texts[F::Quantity as usize] = movement.quantity.to_string();
    }
    for (field, text) in [
        (F::Id, &movement.id),
        (F::Source, &movement.source),
        (F::Sku, &movement.sku),
        (F::CorrelationId, &movement.correlation_id),
        (F::Reference, &movement.reference),
        (F::Actor, &movement.actor),
    ] {
        texts[field as usize].clone_from(text);
    }
    put_kind(kind, &mut texts)?;
    Ok(texts)
}

const fn kind_name(kind: &pb::movement::Kind) -> &'static str {
    use pb::movement::Kind;
    match kind {
        Kind::Received(_) => "received",
        Kind::Issued(_) => "issued",
        Kind::Reclassified(_) => "reclassified",
        Kind::Adjusted(_) => "adjusted",
        Kind::Counted(_) => "counted",
        Kind::Reserved(_) => "reserved",
        Kind::Released(_) => "released",
        Kind::Reassigned(_) => "reassigned",
        Kind::Picked(_) => "picked",
        Kind::Packed(_) => "packed",
        Kind::Shipped(_) => "shipped",
        Kind::InboundExpected(_) => "inbound_expected",
        Kind::InboundCancelled(_) => "inbound_cancelled",
        Kind::TransferShipped(_) => "transfer_shipped",
        Kind::TransferReceived(_) => "transfer_received",
        Kind::TransferClosed(_) => "transfer_closed",
        Kind::ReturnAuthorized(_) => "return_authorized",
        Kind::ReturnCancelled(_) => "return_cancelled",
        Kind::ReturnReceived(_) => "return_received",
        Kind::ReturnInspected(_) => "return_inspected",
        Kind::ReturnRefunded(_) => "return_refunded",
    }
}

/// Puts what the kind says. Takes the messages apart whole, so that a field which the contract
/// adds cannot be forgotten here.
fn put_kind(kind: &pb::movement::Kind, texts: &mut Texts) -> Result<(), Invalid> {
    use pb::movement::Kind;

    let mut put = |fields: &[(Field, &str)]| {
        for (field, text) in fields {
            texts[*field as usize] = (*text).to_owned();
        }
    };
    match kind {
        Kind::Received(pb::Received {
            location,
            condition,
            inbound,
            line,
        }) => put(&[
            (F::Location, location),
            (
                F::Condition,
                condition_word("received.condition", *condition)?,
            ),
            (F::Inbound, inbound),
            (F::Line, line),
        ]),
        Kind::Issued(pb::Issued {
            location,
            condition,
            reason,
        }) => put(&[
            (F::Location, location),
            (
                F::Condition,
                condition_word("issued.condition", *condition)?,
            ),
            (
                F::Reason,
                word_of("issued.reason", *reason, &ISSUE_REASONS)?,
            ),
        ]),
        Kind::Reclassified(pb::Reclassified { location, from, to }) => put(&[
            (F::Location, location),
            (F::From, condition_word("reclassified.from", *from)?),
            (F::To, condition_word("reclassified.to", *to)?),
        ]),
        Kind::Adjusted(pb::Adjusted {
            location,
            condition,
            reason,
        }) => put(&[
            (F::Location, location),
            (
                F::Condition,
                condition_word("adjusted.condition", *condition)?,
            ),
            (F::Reason, reason),
        ]),
        Kind::Counted(pb::Counted {
            location,
            as_of,
            good,
            quarantined,
            damaged,
            return_pending,
        }) => {
            let units = |units: &Option<i64>| units.map_or_else(String::new, |u| u.to_string());
            put(&[
                (F::Location, location),
                (F::AsOf, &time_text("counted.as_of", as_of.as_ref())?),
                (F::Good, &units(good)),
                (F::Quarantined, &units(quarantined)),
                (F::Damaged, &units(damaged)),
                (F::ReturnPending, &units(return_pending)),
            ]);
        }
        Kind::Reserved(pb::Reserved {
            order,
            line,
            location,
            channel,
            expires_at,
        }) => put(&[
            (F::Order, order),
            (F::Line, line),
            (F::Location, location),
            (F::Channel, channel),
            (
                F::ExpiresAt,
                &time_text("reserved.expires_at", expires_at.as_ref())?,
            ),
        ]),
        Kind::Released(pb::Released {
            order,
            line,
            location,
        })
        | Kind::Picked(pb::Picked {
            order,
            line,
            location,
        })
        | Kind::Packed(pb::Packed {
            order,
            line,
            location,
        })
        | Kind::Shipped(pb::Shipped {
            order,
            line,
            location,
        }) => put(&[(F::Order, order), (F::Line, line), (F::Location, location)]),
        Kind::Reassigned(pb::Reassigned {
            order,
            line,
            from,
            to,
        }) => put(&[
            (F::Order, order),
            (F::Line, line),
            (F::From, from),
            (F::To, to),
        ]),
        Kind::InboundExpected(pb::InboundExpected {
            inbound,
            line,
            location,
            eta,
        }) => put(&[
            (F::Inbound, inbound),
            (F::Line, line),
            (F::Location, location),
            (F::Eta, &time_text("inbound_expected.eta", eta.as_ref())?),
        ]),
        Kind::InboundCancelled(pb::InboundCancelled { inbound, line }) => {
            put(&[(F::Inbound, inbound), (F::Line, line)]);
        }
        Kind::TransferShipped(pb::TransferShipped {
            transfer,
            line,
            from,
            to,
            eta,
        }) => put(&[
            (F::Transfer, transfer),
            (F::Line, line),
            (F::From, from),
            (F::To, to),
            (F::Eta, &time_text("transfer_shipped.eta", eta.as_ref())?),
        ]),
        Kind::TransferReceived(pb::TransferReceived {
            transfer,
            line,
            location,
            condition,
        }) => put(&[
            (F::Transfer, transfer),
            (F::Line, line),
            (F::Location, location),
            (
                F::Condition,
                condition_word("transfer_received.condition", *condition)?,
            ),
        ]),
        Kind::TransferClosed(pb::TransferClosed { transfer, line }) => {
            put(&[(F::Transfer, transfer), (F::Line, line)]);
        }
        Kind::ReturnAuthorized(pb::ReturnAuthorized {
            r#return,
            line,
            location,
            order,
            order_line,
        }) => put(&[
            (F::Return, r#return),
            (F::Line, line),
            (F::Location, location),
            (F::Order, order),
            (F::OrderLine, order_line),
        ]),
        Kind::ReturnCancelled(pb::ReturnCancelled { r#return, line }) => {
            put(&[(F::Return, r#return), (F::Line, line)]);
        }
        Kind::ReturnReceived(pb::ReturnReceived {
            r#return,
            line,
            location,
        }) => put(&[
            (F::Return, r#return),
            (F::Line, line),
            (F::Location, location),
        ]),
        Kind::ReturnInspected(pb::ReturnInspected {
            r#return,
            line,
            location,
            disposition,
        }) => put(&[
            (F::Return, r#return),
            (F::Line, line),
            (F::Location, location),
            (F::Disposition, &disposition_text(*disposition)),
        ]),
        Kind::ReturnRefunded(pb::ReturnRefunded {
            r#return,
            line,
            amount,
            currency,
        }) => put(&[
            (F::Return, r#return),
            (F::Line, line),
            (F::Amount, &amount_text(*amount)),
            (F::Currency, currency),
        ]),
    }
    Ok(())
}

/// Empty if there is none.
fn time_text(path: &'static str, time: Option<&prost_types::Timestamp>) -> Result<String, Invalid> {
    time.map_or_else(|| Ok(String::new()), time::format)
        .map_err(|reason| Invalid::new(path, reason))
}

/// Empty if there is none, which protobuf does not tell from 0.
fn amount_text(amount: i64) -> String {
    if amount == 0 {
        return String::new();
    }
    amount.to_string()
}

/// An unknown disposition is not invalid, and a person is to see it: by its number, which read
/// back is an unknown one too.
fn disposition_text(value: i32) -> Cow<'static, str> {
    word_of("", value, &DISPOSITIONS).map_or_else(|_| value.to_string().into(), Cow::Borrowed)
}

fn condition_word(path: &'static str, value: i32) -> Result<&'static str, Invalid> {
    word_of(path, value, &CONDITIONS)
}

fn word_of<T: Into<i32> + Copy, const N: usize>(
    path: &'static str,
    value: i32,
    words: &[(&'static str, T); N],
) -> Result<&'static str, Invalid> {
    if value == 0 {
        return Ok("");
    }
    words
        .iter()
        .find(|(_, known)| (*known).into() == value)
        .map(|(word, _)| *word)
        .ok_or_else(|| {
            Invalid::new(
                path,
                format!("is {value}, which this version does not know"),
            )
        })
}
