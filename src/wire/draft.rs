//! What the text formats (CloudEvents, flat JSON, CSV) have in common: which fields there are,
//! which kind uses which, and what their values mean.

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
    AsOf,
    Good,
    Quarantined,
    Damaged,
    ReturnPending,
    Condition,
    Reason,
    From,
    To,
    Order,
    Inbound,
    Transfer,
    Return,
    Line,
    OrderLine,
    Channel,
    ExpiresAt,
    Eta,
    Disposition,
    Amount,
    Currency,
    CorrelationId,
    Reference,
    Actor,
}

use Field as F;

impl Field {
    pub(super) const COUNT: usize = 31;

    #[rustfmt::skip]
    pub(super) const ALL: [Field; Self::COUNT] = [
        F::Type, F::Id, F::Source, F::OccurredAt, F::Sku, F::Quantity, F::Location, F::AsOf,
        F::Good, F::Quarantined, F::Damaged, F::ReturnPending, F::Condition, F::Reason, F::From, F::To, F::Order, F::Inbound, F::Transfer, F::Return, F::Line,
        F::OrderLine, F::Channel, F::ExpiresAt, F::Eta, F::Disposition, F::Amount, F::Currency,
        F::CorrelationId, F::Reference, F::Actor,
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
            F::AsOf => "as_of",
            F::Good => "good",
            F::Quarantined => "quarantined",
            F::Damaged => "damaged",
            F::ReturnPending => "return_pending",
            F::Condition => "condition",
            F::Reason => "reason",
            F::From => "from",
            F::To => "to",
            F::Order => "order",
            F::Inbound => "inbound",
            F::Transfer => "transfer",
            F::Return => "return",
            F::Line => "line",
            F::OrderLine => "order_line",
            F::Channel => "channel",
            F::ExpiresAt => "expires_at",
            F::Eta => "eta",
            F::Disposition => "disposition",
            F::Amount => "amount",
            F::Currency => "currency",
            F::CorrelationId => "correlation_id",
            F::Reference => "reference",
            F::Actor => "actor",
        }
    }

    pub(super) fn of_name(name: &str, among: &[Field]) -> Option<Field> {
        among.iter().copied().find(|field| field.name() == name)
    }

    /// Whether it is an integer; all others are texts.
    pub(super) const fn is_integer(self) -> bool {
        matches!(self, F::Quantity | F::Amount) || self.is_count()
    }

    /// Whether it is the units of a condition that were counted.
    const fn is_count(self) -> bool {
        matches!(
            self,
            F::Good | F::Quarantined | F::Damaged | F::ReturnPending
        )
    }

    /// Whether it is a field of every kind.
    const fn is_common(self) -> bool {
        (self as u8) <= (F::Quantity as u8) || (self as u8) >= (F::CorrelationId as u8)
    }
}

/// A kind, the fields it needs beside the common ones, those it may have, and which of these only
/// together.
pub(super) struct KindFields {
    pub(super) name: &'static str,
    needs: &'static [Field],
    may: &'static [Field],
    together: [Field; 2],
}

const fn kind(name: &'static str, needs: &'static [Field], may: &'static [Field]) -> KindFields {
    KindFields {
        name,
        needs,
        may,
        // Each with itself: no condition.
        together: [F::Type; 2],
    }
}

impl KindFields {
    const fn together(self, first: Field, second: Field) -> Self {
        Self {
            together: [first, second],
            ..self
        }
    }
}

const ORDER_LINE: &[Field] = &[F::Order, F::Line, F::Location];

#[rustfmt::skip]
pub(super) const KINDS: [KindFields; 21] = [
    kind("received", &[F::Location], &[F::Condition, F::Inbound, F::Line]).together(F::Inbound, F::Line),
    kind("issued", &[F::Location, F::Reason], &[F::Condition]),
    kind("reclassified", &[F::Location, F::From, F::To], &[]),
    kind("adjusted", &[F::Location, F::Reason], &[F::Condition]),
    kind("counted", &[F::Location], &[F::AsOf, F::Good, F::Quarantined, F::Damaged, F::ReturnPending]),
    kind("reserved", &[F::Order, F::Line, F::Location, F::Channel], &[F::ExpiresAt]),
    kind("released", &[F::Order, F::Line], &[F::Location]),
    kind("reassigned", &[F::Order, F::Line, F::From, F::To], &[]),
    kind("picked", ORDER_LINE, &[]),
    kind("packed", ORDER_LINE, &[]),
    kind("shipped", ORDER_LINE, &[]),
    kind("inbound_expected", &[F::Inbound, F::Line, F::Location], &[F::Eta]),
    kind("inbound_cancelled", &[F::Inbound, F::Line], &[]),
    kind("transfer_shipped", &[F::Transfer, F::Line, F::From, F::To], &[F::Eta]),
    kind("transfer_received", &[F::Transfer, F::Line, F::Location], &[F::Condition]),
    kind("transfer_closed", &[F::Transfer, F::Line], &[]),
    kind("return_authorized", &[F::Return, F::Line, F::Location], &[F::Order, F::OrderLine]).together(F::Order, F::OrderLine),
    kind("return_cancelled", &[F::Return, F::Line], &[]),
    kind("return_received", &[F::Return, F::Line, F::Location], &[]),
    // Without a disposition it is parked for a person to give it one, so it may be missing.
    kind("return_inspected", &[F::Return, F::Line, F::Location], &[F::Disposition]),
    kind("return_refunded", &[F::Return, F::Line], &[F::Amount, F::Currency]),
];

pub(super) const CONDITIONS: [(&str, pb::Condition); 4] = [
    ("good", pb::Condition::Good),
    ("quarantined", pb::Condition::Quarantined),
    ("damaged", pb::Condition::Damaged),
    ("return_pending", pb::Condition::ReturnPending),
];

pub(super) const ISSUE_REASONS: [(&str, pb::IssueReason); 5] = [
    ("sale", pb::IssueReason::Sale),
    ("scrap", pb::IssueReason::Scrap),
    ("vendor_return", pb::IssueReason::VendorReturn),
    ("internal", pb::IssueReason::Internal),
    ("other", pb::IssueReason::Other),
];

pub(super) const DISPOSITIONS: [(&str, pb::Disposition); 6] = [
    ("restock", pb::Disposition::Restock),
    ("refurbish", pb::Disposition::Refurbish),
    ("quarantine", pb::Disposition::Quarantine),
    ("vendor_return", pb::Disposition::VendorReturn),
    ("liquidate", pb::Disposition::Liquidate),
    ("scrap", pb::Disposition::Scrap),
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
    integers: [Option<i64>; Field::COUNT],
}

impl<'a> Draft<'a> {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            texts: [const { None }; Field::COUNT],
            integers: [None; Field::COUNT],
        }
    }

    pub(super) fn set(&mut self, field: Field, text: impl Into<Cow<'a, str>>) {
        self.texts[field as usize] = Some(text.into());
    }

    /// Sets a field that [is an integer](Field::is_integer).
    pub(super) fn set_integer(&mut self, field: Field, value: i64) {
        self.integers[field as usize] = Some(value);
    }

    pub(super) fn has(&self, field: Field) -> bool {
        self.texts[field as usize].is_some() || self.integers[field as usize].is_some()
    }

    fn invalid(&self, field: Field, reason: impl Into<String>) -> Invalid {
        Invalid::new(self.form.path(field), reason)
    }

    /// The movement, once all fields are set.
    pub(super) fn finish(mut self) -> Result<pb::Movement, Invalid> {
        self.need(F::Type, "it is required")?;
        let kind = self.kind()?;
        for field in [F::Id, F::Source, F::OccurredAt, F::Sku] {
            self.need(field, "it is required")?;
        }
        // A count states its units by condition.
        if kind.name != "counted" {
            self.need(F::Quantity, "it is required")?;
        }
        for field in kind.needs {
            self.need(*field, &format!("`{}` needs it", kind.name))?;
        }
        for field in Field::ALL.into_iter().filter(|field| !field.is_common()) {
            if self.has(field) && !kind.needs.contains(&field) && !kind.may.contains(&field) {
                return Err(self.not_of_kind(field, kind));
            }
        }
        let [first, second] = kind.together;
        for (given, other) in [(first, second), (second, first)] {
            if self.has(given) && !self.has(other) {
                let reason = format!("is missing; `{}` needs it", given.name());
                return Err(self.invalid(other, reason));
            }
        }
        Ok(pb::Movement {
            occurred_at: self.take_time(F::OccurredAt)?,
            kind: Some(self.take_kind(kind)?),
            id: self.take(F::Id),
            source: self.take(F::Source),
            sku: self.take(F::Sku),
            quantity: self.integer(F::Quantity).unwrap_or_default(),
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

    fn integer(&self, field: Field) -> Option<i64> {
        self.integers[field as usize]
    }

    fn take(&mut self, field: Field) -> String {
        self.texts[field as usize]
            .take()
            .map_or_else(String::new, Cow::into_owned)
    }

    fn take_time(&mut self, field: Field) -> Result<Option<prost_types::Timestamp>, Invalid> {
        let Some(text) = self.texts[field as usize].take() else {
            return Ok(None);
        };
        let time = time::parse(&text).map_err(|reason| self.invalid(field, reason))?;
        Ok(Some(time))
    }

    /// An unknown disposition is one that is missing, as in the other formats: the movement is not
    /// invalid but waits for a person.
    fn disposition(&self) -> i32 {
        let text = self.texts[F::Disposition as usize].as_deref();
        DISPOSITIONS
            .iter()
            .find(|(word, _)| text == Some(word))
            .map_or(0, |(_, disposition)| (*disposition).into())
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
                inbound: self.take(F::Inbound),
                line: self.take(F::Line),
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
            "counted" => Kind::Counted(pb::Counted {
                as_of: self.take_time(F::AsOf)?,
                good: self.integer(F::Good),
                quarantined: self.integer(F::Quarantined),
                damaged: self.integer(F::Damaged),
                return_pending: self.integer(F::ReturnPending),
                location: self.take(F::Location),
            }),
            "reserved" => Kind::Reserved(pb::Reserved {
                expires_at: self.take_time(F::ExpiresAt)?,
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
            "inbound_expected" => Kind::InboundExpected(pb::InboundExpected {
                eta: self.take_time(F::Eta)?,
                inbound: self.take(F::Inbound),
                line: self.take(F::Line),
                location: self.take(F::Location),
            }),
            "inbound_cancelled" => Kind::InboundCancelled(pb::InboundCancelled {
                inbound: self.take(F::Inbound),
                line: self.take(F::Line),
            }),
            "transfer_shipped" => Kind::TransferShipped(pb::TransferShipped {
                eta: self.take_time(F::Eta)?,
                transfer: self.take(F::Transfer),
                line: self.take(F::Line),
                from: self.take(F::From),
                to: self.take(F::To),
            }),
            "transfer_received" => Kind::TransferReceived(pb::TransferReceived {
                condition: self.word(F::Condition, &CONDITIONS)?,
                transfer: self.take(F::Transfer),
                line: self.take(F::Line),
                location: self.take(F::Location),
            }),
            "transfer_closed" => Kind::TransferClosed(pb::TransferClosed {
                transfer: self.take(F::Transfer),
                line: self.take(F::Line),
            }),
            "return_authorized" => Kind::ReturnAuthorized(pb::ReturnAuthorized {
                r#return: self.take(F::Return),
                line: self.take(F::Line),
                location: self.take(F::Location),
                order: self.take(F::Order),
                order_line: self.take(F::OrderLine),
            }),
            "return_cancelled" => Kind::ReturnCancelled(pb::ReturnCancelled {
                r#return: self.take(F::Return),
                line: self.take(F::Line),
            }),
            "return_received" => Kind::ReturnReceived(pb::ReturnReceived {
                r#return: self.take(F::Return),
                line: self.take(F::Line),
                location: self.take(F::Location),
            }),
            "return_inspected" => Kind::ReturnInspected(pb::ReturnInspected {
                disposition: self.disposition(),
                r#return: self.take(F::Return),
                line: self.take(F::Line),
                location: self.take(F::Location),
            }),
            "return_refunded" => Kind::ReturnRefunded(pb::ReturnRefunded {
                amount: self.integer(F::Amount).unwrap_or_default(),
                r#return: self.take(F::Return),
                line: self.take(F::Line),
                currency: self.take(F::Currency),
            }),
            name => unreachable!("{name} is in KINDS"),
        })
    }
}

/// Reads a field that [is an integer](Field::is_integer).
///
/// # Errors
/// The reason, to follow the name of the field.
pub(super) fn parse_integer(field: Field, text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|error| {
        let is_plain = text.len() < 32 && text.bytes().all(|byte| byte.is_ascii_graphic());
        let shown = if is_plain {
            text.to_owned()
        } else {
            quoted(text)
        };
        match (error.kind(), field) {
            (PosOverflow | NegOverflow, _) => format!("is {shown}, which is beyond 64 bits"),
            (_, F::Amount) => format!(
                "is {shown}; an integer in the currency's minor unit (cents), without fraction or exponent"
            ),
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
