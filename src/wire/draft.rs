//! What the text formats (CloudEvents, flat JSON, CSV) have in common: which fields there are,
//! which kind uses which, and how their values are written.

use std::borrow::Cow;

use crate::domain::movement::Invalid;
use crate::proto::v1 as pb;

use super::{quoted, time};

/// A field of a movement in text. In the order of CSV columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    Type,
    Id,
    Source,
    OccurredAt,
    Sku,
    Quantity,
    Location,
    Condition,
    Reason,
    From,
    To,
    Order,
    Line,
    Channel,
    CorrelationId,
    Reference,
    Actor,
}

use Field as F;

impl Field {
    pub(super) const COUNT: usize = 17;

    #[rustfmt::skip]
    pub(super) const ALL: [Field; Self::COUNT] = [
        F::Type, F::Id, F::Source, F::OccurredAt, F::Sku, F::Quantity, F::Location, F::Condition,
        F::Reason, F::From, F::To, F::Order, F::Line, F::Channel, F::CorrelationId, F::Reference,
        F::Actor,
    ];

    /// Those that the `data` of a CloudEvent has; the envelope has the others.
    pub(super) const DATA: &'static [Field] = Self::ALL.split_at(4).1;

    pub(super) const fn name(self) -> &'static str {
        match self {
            F::Type => "type",
            F::Id => "id",
            F::Source => "source",
            F::OccurredAt => "occurred_at",
            F::Sku => "sku",
            F::Quantity => "quantity",
            F::Location => "location",
            F::Condition => "condition",
            F::Reason => "reason",
            F::From => "from",
            F::To => "to",
            F::Order => "order",
            F::Line => "line",
            F::Channel => "channel",
            F::CorrelationId => "correlation_id",
            F::Reference => "reference",
            F::Actor => "actor",
        }
    }

    pub(super) fn of_name(name: &str, among: &[Field]) -> Option<Field> {
        among.iter().copied().find(|field| field.name() == name)
    }

    /// Whether it is a field of every kind.
    const fn is_common(self) -> bool {
        (self as u8) <= (F::Quantity as u8) || (self as u8) >= (F::CorrelationId as u8)
    }
}

/// A kind, the fields it needs beside the common ones, and those it may have.
pub(super) struct KindFields {
    pub(super) name: &'static str,
    needs: &'static [Field],
    may: &'static [Field],
}

const ORDER_LINE: &[Field] = &[F::Order, F::Line, F::Location];

#[rustfmt::skip]
pub(super) const KINDS: [KindFields; 10] = [
    KindFields { name: "received", needs: &[F::Location], may: &[F::Condition] },
    KindFields { name: "issued", needs: &[F::Location, F::Reason], may: &[F::Condition] },
    KindFields { name: "reclassified", needs: &[F::Location, F::From, F::To], may: &[] },
    KindFields { name: "adjusted", needs: &[F::Location, F::Reason], may: &[F::Condition] },
    KindFields { name: "reserved", needs: &[F::Order, F::Line, F::Location, F::Channel], may: &[] },
    KindFields { name: "released", needs: &[F::Order, F::Line], may: &[F::Location] },
    KindFields { name: "reassigned", needs: &[F::Order, F::Line, F::From, F::To], may: &[] },
    KindFields { name: "picked", needs: ORDER_LINE, may: &[] },
    KindFields { name: "packed", needs: ORDER_LINE, may: &[] },
    KindFields { name: "shipped", needs: ORDER_LINE, may: &[] },
];

const CONDITIONS: [(&str, pb::Condition); 4] = [
    ("good", pb::Condition::Good),
    ("quarantined", pb::Condition::Quarantined),
    ("damaged", pb::Condition::Damaged),
    ("return_pending", pb::Condition::ReturnPending),
];

const ISSUE_REASONS: [(&str, pb::IssueReason); 5] = [
    ("sale", pb::IssueReason::Sale),
    ("scrap", pb::IssueReason::Scrap),
    ("vendor_return", pb::IssueReason::VendorReturn),
    ("internal", pb::IssueReason::Internal),
    ("other", pb::IssueReason::Other),
];

/// Where fields stand, so that a finding names them as their author wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Side by side: a line of JSON, a row of CSV.
    Flat,
    /// In the envelope and the data of a CloudEvent.
    CloudEvent,
}

impl Form {
    pub(super) fn path(self, field: Field) -> String {
        match (self, field) {
            (Form::CloudEvent, F::OccurredAt) => "time".to_owned(),
            (Form::CloudEvent, F::Type | F::Id | F::Source) | (Form::Flat, _) => {
                field.name().to_owned()
            }
            (Form::CloudEvent, _) => format!("data.{}", field.name()),
        }
    }
}

/// A movement being gathered from text. `Type` holds the bare name of the kind.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    form: Form,
    texts: [Option<Cow<'a, str>>; Field::COUNT],
    quantity: Option<i64>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            texts: [const { None }; Field::COUNT],
            quantity: None,
        }
    }

    pub(super) fn set(&mut self, field: Field, text: impl Into<Cow<'a, str>>) {
        self.texts[field as usize] = Some(text.into());
    }

    pub(super) fn set_quantity(&mut self, quantity: i64) {
        self.quantity = Some(quantity);
    }

    pub(super) fn has(&self, field: Field) -> bool {
        match field {
            F::Quantity => self.quantity.is_some(),
            _ => self.texts[field as usize].is_some(),
        }
    }

    fn invalid(&self, field: Field, reason: impl Into<String>) -> Invalid {
        Invalid::new(self.form.path(field), reason)
    }

    /// The movement, once all fields are set.
    pub(super) fn finish(mut self) -> Result<pb::Movement, Invalid> {
        self.need(F::Type, "it is required")?;
        let kind = self.kind()?;
        for field in [F::Id, F::Source, F::OccurredAt, F::Sku, F::Quantity] {
            self.need(field, "it is required")?;
        }
        for field in kind.needs {
            self.need(*field, &format!("`{}` needs it", kind.name))?;
        }
        for field in Field::ALL.into_iter().filter(|field| !field.is_common()) {
            if self.has(field) && !kind.needs.contains(&field) && !kind.may.contains(&field) {
                return Err(self.not_of_kind(field, kind));
            }
        }
        let occurred_at = time::parse(&self.take(F::OccurredAt))
            .map_err(|reason| self.invalid(F::OccurredAt, reason))?;
        Ok(pb::Movement {
            kind: Some(self.take_kind(kind)?),
            id: self.take(F::Id),
            source: self.take(F::Source),
            occurred_at: Some(occurred_at),
            sku: self.take(F::Sku),
            quantity: self.quantity.unwrap_or_default(),
            correlation_id: self.take(F::CorrelationId),
            reference: self.take(F::Reference),
            actor: self.take(F::Actor),
        })
    }

    fn need(&self, field: Field, why: &str) -> Result<(), Invalid> {
        if self.has(field) {
            return Ok(());
        }
        Err(self.invalid(field, format!("is missing; {why}")))
    }

    fn kind(&self) -> Result<&'static KindFields, Invalid> {
        let name = self.texts[F::Type as usize].as_deref().unwrap_or_default();
        KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names = KINDS.map(|kind| kind.name);
            let shown = quoted(name);
            let reason = match closest(name, names) {
                Some(close) => format!("is {shown}, which this version does not know; {close}"),
                None => format!(
                    "is {shown}, which this version does not know; one of {}",
                    names.join(", ")
                ),
            };
            self.invalid(F::Type, reason)
        })
    }

    fn not_of_kind(&self, field: Field, kind: &KindFields) -> Invalid {
        let names: Vec<_> = kind
            .needs
            .iter()
            .chain(kind.may)
            .map(|f| f.name())
            .collect();
        self.invalid(
            field,
            format!(
                "is no field of `{}`, which has {}",
                kind.name,
                names.join(", ")
            ),
        )
    }

    fn take(&mut self, field: Field) -> String {
        self.texts[field as usize]
            .take()
            .map_or_else(String::new, Cow::into_owned)
    }

    /// One of a list of words; absent is 0, what protobuf calls unspecified.
    fn word<T: Into<i32> + Copy, const N: usize>(
        &self,
        field: Field,
        words: &[(&'static str, T); N],
    ) -> Result<i32, Invalid> {
        let Some(text) = self.texts[field as usize].as_deref() else {
            return Ok(0);
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok((*value).into()),
            None => {
                let known = words.each_ref().map(|(word, _)| *word);
                let reason = match closest(text, known) {
                    Some(close) => format!("is {}; {close}", quoted(text)),
                    None => format!("is {}; one of {}", quoted(text), known.join(", ")),
                };
                Err(self.invalid(field, reason))
            }
        }
    }

    fn take_kind(&mut self, kind: &KindFields) -> Result<pb::movement::Kind, Invalid> {
        use pb::movement::Kind;
        Ok(match kind.name {
            "received" => Kind::Received(pb::Received {
                condition: self.word(F::Condition, &CONDITIONS)?,
                location: self.take(F::Location),
            }),
            "issued" => Kind::Issued(pb::Issued {
                condition: self.word(F::Condition, &CONDITIONS)?,
                reason: self.word(F::Reason, &ISSUE_REASONS)?,
                location: self.take(F::Location),
            }),
            "reclassified" => Kind::Reclassified(pb::Reclassified {
                from: self.word(F::From, &CONDITIONS)?,
                to: self.word(F::To, &CONDITIONS)?,
                location: self.take(F::Location),
            }),
            "adjusted" => Kind::Adjusted(pb::Adjusted {
                condition: self.word(F::Condition, &CONDITIONS)?,
                location: self.take(F::Location),
                reason: self.take(F::Reason),
            }),
            "reserved" => Kind::Reserved(pb::Reserved {
                order: self.take(F::Order),
                line: self.take(F::Line),
                location: self.take(F::Location),
                channel: self.take(F::Channel),
            }),
            "released" => Kind::Released(pb::Released {
                order: self.take(F::Order),
                line: self.take(F::Line),
                location: self.take(F::Location),
            }),
            "reassigned" => Kind::Reassigned(pb::Reassigned {
                order: self.take(F::Order),
                line: self.take(F::Line),
                from: self.take(F::From),
                to: self.take(F::To),
            }),
            "picked" => Kind::Picked(pb::Picked {
                order: self.take(F::Order),
                line: self.take(F::Line),
                location: self.take(F::Location),
            }),
            "packed" => Kind::Packed(pb::Packed {
                order: self.take(F::Order),
                line: self.take(F::Line),
                location: self.take(F::Location),
            }),
            "shipped" => Kind::Shipped(pb::Shipped {
                order: self.take(F::Order),
                line: self.take(F::Line),
                location: self.take(F::Location),
            }),
            name => unreachable!("{name} is in KINDS"),
        })
    }
}

/// Reads a quantity.
///
/// # Errors
/// The reason, to follow the name of a field.
pub(super) fn parse_quantity(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|error| {
        let is_plain = text.len() < 32 && text.bytes().all(|byte| byte.is_ascii_graphic());
        let shown = if is_plain {
            text.to_owned()
        } else {
            quoted(text)
        };
        match error.kind() {
            PosOverflow | NegOverflow => format!("is {shown}, which is beyond 64 bits"),
            _ => format!("is {shown}; an integer, without fraction or exponent"),
        }
    })
}

/// `did you mean`, if a known word is but a slip away.
pub(super) fn closest<const N: usize>(text: &str, known: [&'static str; N]) -> Option<String> {
    closest_of(text, &known)
}

/// Like [`closest`].
pub(super) fn closest_of(text: &str, known: &[&'static str]) -> Option<String> {
    // The distance takes time in proportion to the length: spare it what cannot be close.
    if text.len() > 32 {
        return None;
    }
    let slips_max = if text.len() < 5 { 1 } else { 2 };
    let folded = text.to_ascii_lowercase().replace(['-', ' '], "_");
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&folded, word), word))
        .filter(|(slips, _)| *slips <= slips_max)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

/// The texts of a movement, by field; `Quantity` is its digits. What is empty is absent.
///
/// # Errors
/// What has no form in text: no time, no kind, an unknown enum value.
pub(super) fn texts_of(movement: &pb::Movement) -> Result<[String; Field::COUNT], Invalid> {
    use pb::movement::Kind;

    let kind = movement
        .kind
        .as_ref()
        .ok_or_else(super::movement::missing_kind)?;
    let time = movement
        .occurred_at
        .as_ref()
        .ok_or_else(super::movement::missing_time)?;
    let time = time::format(time).map_err(|reason| Invalid::new("occurred_at", reason))?;

    let mut texts = [const { String::new() }; Field::COUNT];
    let mut texts_of_kind = |name: &str, fields: &[(Field, &str)]| {
        texts[F::Type as usize] = name.to_owned();
        for (field, text) in fields {
            texts[*field as usize] = (*text).to_owned();
        }
    };
    match kind {
        Kind::Received(k) => texts_of_kind(
            "received",
            &[
                (F::Location, &k.location),
                (
                    F::Condition,
                    condition_word("received.condition", k.condition)?,
                ),
            ],
        ),
        Kind::Issued(k) => texts_of_kind(
            "issued",
            &[
                (F::Location, &k.location),
                (
                    F::Condition,
                    condition_word("issued.condition", k.condition)?,
                ),
                (
                    F::Reason,
                    word_of("issued.reason", k.reason, &ISSUE_REASONS)?,
                ),
            ],
        ),
        Kind::Reclassified(k) => texts_of_kind(
            "reclassified",
            &[
                (F::Location, &k.location),
                (F::From, condition_word("reclassified.from", k.from)?),
                (F::To, condition_word("reclassified.to", k.to)?),
            ],
        ),
        Kind::Adjusted(k) => texts_of_kind(
            "adjusted",
            &[
                (F::Location, &k.location),
                (
                    F::Condition,
                    condition_word("adjusted.condition", k.condition)?,
                ),
                (F::Reason, &k.reason),
            ],
        ),
        Kind::Reserved(k) => texts_of_kind(
            "reserved",
            &[
                (F::Order, &k.order),
                (F::Line, &k.line),
                (F::Location, &k.location),
                (F::Channel, &k.channel),
            ],
        ),
        Kind::Released(k) => texts_of_kind(
            "released",
            &[
                (F::Order, &k.order),
                (F::Line, &k.line),
                (F::Location, &k.location),
            ],
        ),
        Kind::Reassigned(k) => texts_of_kind(
            "reassigned",
            &[
                (F::Order, &k.order),
                (F::Line, &k.line),
                (F::From, &k.from),
                (F::To, &k.to),
            ],
        ),
        Kind::Picked(k) => texts_of_kind(
            "picked",
            &[
                (F::Order, &k.order),
                (F::Line, &k.line),
                (F::Location, &k.location),
            ],
        ),
        Kind::Packed(k) => texts_of_kind(
            "packed",
            &[
                (F::Order, &k.order),
                (F::Line, &k.line),
                (F::Location, &k.location),
            ],
        ),
        Kind::Shipped(k) => texts_of_kind(
            "shipped",
            &[
                (F::Order, &k.order),
                (F::Line, &k.line),
                (F::Location, &k.location),
            ],
        ),
    }
    texts[F::OccurredAt as usize] = time;
    texts[F::Quantity as usize] = movement.quantity.to_string();
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
    Ok(texts)
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
