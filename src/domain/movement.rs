//! Movements: the facts that execution systems report.

use crate::limits;

/// A moment, in microseconds since 1970-01-01T00:00:00Z.
pub type TimeUs = i64;

/// One fact that happened to stock. Borrows its text from the message it came in.
///
/// Build one from a wire format (`crate::wire`), then [`Movement::check`] it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movement<'a> {
    /// Identity within `source`.
    pub id: &'a str,
    /// The system that reports it.
    pub source: &'a str,
    /// When it happened, by the source's clock.
    pub occurred_us: TimeUs,
    /// Stock keeping unit.
    pub sku: &'a str,
    /// Units, 1 to [`limits::QUANTITY_MAX`]; negative only if `adjusted`, and 0 if `counted`.
    pub quantity: i64,
    /// Joins the movements of one business transaction; may be empty.
    pub correlation_id: &'a str,
    /// The document it stems from; may be empty.
    pub reference: &'a str,
    /// Who caused it; may be empty.
    pub actor: &'a str,
    /// What happened.
    pub kind: Kind<'a>,
}

/// Physical condition of stock on hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Condition {
    /// Sound, on the shelf; includes what is reserved.
    Good = 0,
    /// On hold.
    Quarantined = 1,
    /// Not sellable.
    Damaged = 2,
    /// Came back, awaits inspection.
    ReturnPending = 3,
}

/// Why stock was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum IssueReason {
    /// Sold over the counter.
    Sale = 0,
    /// Destroyed or written off.
    Scrap = 1,
    /// Sent back to the supplier.
    VendorReturn = 2,
    /// Used by the retailer itself.
    Internal = 3,
    /// Anything else.
    Other = 4,
}

/// What becomes of returned units after their inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Disposition {
    /// Sellable again: good.
    Restock = 1,
    /// Quarantined, until it is as new.
    Refurbish = 2,
    /// Quarantined: on hold.
    Quarantine = 3,
    /// Quarantined, until it is sent back to the supplier.
    VendorReturn = 4,
    /// Damaged: sold off elsewhere.
    Liquidate = 5,
    /// Destroyed: leaves the books.
    Scrap = 6,
}

/// What happened; the names and effects are those of `proto/sellable/v1/movement.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are documented in the contract")]
pub enum Kind<'a> {
    Received {
        location: &'a str,
        condition: Condition,
        /// Inbound delivery and its line.
        inbound: Option<(&'a str, &'a str)>,
    },
    Issued {
        location: &'a str,
        condition: Condition,
        reason: IssueReason,
    },
    Reclassified {
        location: &'a str,
        from: Condition,
        to: Condition,
    },
    Adjusted {
        location: &'a str,
        condition: Condition,
        reason: &'a str,
    },
    Counted {
        location: &'a str,
        /// `None`: when it occurred.
        as_of_us: Option<TimeUs>,
        /// By physical condition: good, quarantined, damaged, return pending. `None`: not counted.
        units: [Option<i64>; 4],
    },
    Reserved {
        order: &'a str,
        line: &'a str,
        location: &'a str,
        channel: &'a str,
        /// `None`: never.
        expires_us: Option<TimeUs>,
    },
    Released {
        order: &'a str,
        line: &'a str,
        location: Option<&'a str>,
    },
    Reassigned {
        order: &'a str,
        line: &'a str,
        from: &'a str,
        to: &'a str,
    },
    Picked {
        order: &'a str,
        line: &'a str,
        location: &'a str,
    },
    Packed {
        order: &'a str,
        line: &'a str,
        location: &'a str,
    },
    Shipped {
        order: &'a str,
        line: &'a str,
        location: &'a str,
    },
    InboundExpected {
        inbound: &'a str,
        line: &'a str,
        location: &'a str,
        eta_us: Option<TimeUs>,
    },
    InboundCancelled {
        inbound: &'a str,
        line: &'a str,
    },
    TransferShipped {
        transfer: &'a str,
        line: &'a str,
        from: &'a str,
        to: &'a str,
        eta_us: Option<TimeUs>,
    },
    TransferReceived {
        transfer: &'a str,
        line: &'a str,
        location: &'a str,
        condition: Condition,
    },
    TransferClosed {
        transfer: &'a str,
        line: &'a str,
    },
    ReturnAuthorized {
        rma: &'a str,
        line: &'a str,
        location: &'a str,
        /// The order that is returned, and its line.
        order: Option<(&'a str, &'a str)>,
    },
    ReturnCancelled {
        rma: &'a str,
        line: &'a str,
    },
    ReturnReceived {
        rma: &'a str,
        line: &'a str,
        location: &'a str,
    },
    ReturnInspected {
        rma: &'a str,
        line: &'a str,
        location: &'a str,
        /// `None`: missing, or one that this version does not know.
        disposition: Option<Disposition>,
    },
    ReturnRefunded {
        rma: &'a str,
        line: &'a str,
        /// In the currency's minor unit.
        amount: i64,
        /// ISO 4217; empty if there is no amount.
        currency: &'a str,
    },
}

/// Why a movement is invalid: the field, by its path in the contract, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field, e.g. `received.location`.
    pub field: String,
    /// Reason, and what would be right.
    pub reason: String,
}

impl Invalid {
    /// A finding about `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for Invalid {}

impl Kind<'_> {
    /// The kind's place in [`KIND_NAMES`].
    pub const fn number(&self) -> u8 {
        match self {
            Kind::Received { .. } => 0,
            Kind::Issued { .. } => 1,
            Kind::Reclassified { .. } => 2,
            Kind::Adjusted { .. } => 3,
            Kind::Counted { .. } => 4,
            Kind::Reserved { .. } => 5,
            Kind::Released { .. } => 6,
            Kind::Reassigned { .. } => 7,
            Kind::Picked { .. } => 8,
            Kind::Packed { .. } => 9,
            Kind::Shipped { .. } => 10,
            Kind::InboundExpected { .. } => 11,
            Kind::InboundCancelled { .. } => 12,
            Kind::TransferShipped { .. } => 13,
            Kind::TransferReceived { .. } => 14,
            Kind::TransferClosed { .. } => 15,
            Kind::ReturnAuthorized { .. } => 16,
            Kind::ReturnCancelled { .. } => 17,
            Kind::ReturnReceived { .. } => 18,
            Kind::ReturnInspected { .. } => 19,
            Kind::ReturnRefunded { .. } => 20,
        }
    }

    /// The name of the kind in the contract.
    pub const fn name(&self) -> &'static str {
        KIND_NAMES[self.number() as usize]
    }

    /// The document and line that it is a milestone of; `None` if it is of none.
    pub const fn document(&self) -> Option<(&str, &str)> {
        match *self {
            Kind::Received { inbound, .. } => inbound,
            Kind::Issued { .. }
            | Kind::Reclassified { .. }
            | Kind::Adjusted { .. }
            | Kind::Counted { .. } => None,
            Kind::Reserved { order, line, .. }
            | Kind::Released { order, line, .. }
            | Kind::Reassigned { order, line, .. }
            | Kind::Picked { order, line, .. }
            | Kind::Packed { order, line, .. }
            | Kind::Shipped { order, line, .. } => Some((order, line)),
            Kind::InboundExpected { inbound, line, .. }
            | Kind::InboundCancelled { inbound, line } => Some((inbound, line)),
            Kind::TransferShipped { transfer, line, .. }
            | Kind::TransferReceived { transfer, line, .. }
            | Kind::TransferClosed { transfer, line } => Some((transfer, line)),
            Kind::ReturnAuthorized { rma, line, .. }
            | Kind::ReturnCancelled { rma, line }
            | Kind::ReturnReceived { rma, line, .. }
            | Kind::ReturnInspected { rma, line, .. }
            | Kind::ReturnRefunded { rma, line, .. } => Some((rma, line)),
        }
    }

    /// The location at which the source acts: source authority goes by it. `None` if the
    /// movement names none.
    pub const fn acts_at(&self) -> Option<&str> {
        match *self {
            Kind::Received { location, .. }
            | Kind::Issued { location, .. }
            | Kind::Reclassified { location, .. }
            | Kind::Adjusted { location, .. }
            | Kind::Counted { location, .. }
            | Kind::Reserved { location, .. }
            | Kind::Picked { location, .. }
            | Kind::Packed { location, .. }
            | Kind::Shipped { location, .. }
            | Kind::InboundExpected { location, .. }
            | Kind::TransferReceived { location, .. }
            | Kind::ReturnAuthorized { location, .. }
            | Kind::ReturnReceived { location, .. }
            | Kind::ReturnInspected { location, .. } => Some(location),
            Kind::Released { location, .. } => location,
            Kind::Reassigned { from, .. } | Kind::TransferShipped { from, .. } => Some(from),
            Kind::InboundCancelled { .. }
            | Kind::TransferClosed { .. }
            | Kind::ReturnCancelled { .. }
            | Kind::ReturnRefunded { .. } => None,
        }
    }
}

/// Names of all kinds, in the order of the contract.
pub const KIND_NAMES: [&str; 21] = [
    "received",
    "issued",
    "reclassified",
    "adjusted",
    "counted",
    "reserved",
    "released",
    "reassigned",
    "picked",
    "packed",
    "shipped",
    "inbound_expected",
    "inbound_cancelled",
    "transfer_shipped",
    "transfer_received",
    "transfer_closed",
    "return_authorized",
    "return_cancelled",
    "return_received",
    "return_inspected",
    "return_refunded",
];

impl Movement<'_> {
    /// Checks every documented limit. `now_us` is the time against which `occurred_at` may not
    /// lie ahead by more than [`limits::AHEAD_US_MAX`]: the log's, once it is in the log.
    ///
    /// # Errors
    /// The first field that breaks its limit, in the order of the contract.
    pub fn check(&self, now_us: TimeUs) -> Result<(), Invalid> {
        text("id", self.id, limits::ID_BYTES_MAX)?;
        check_source(self.source)?;
        check_time(self.occurred_us, now_us)?;
        text("sku", self.sku, limits::SKU_BYTES_MAX)?;
        self.check_quantity()?;
        optional_text("correlation_id", self.correlation_id, limits::ID_BYTES_MAX)?;
        optional_text("reference", self.reference, limits::REFERENCE_BYTES_MAX)?;
        optional_text("actor", self.actor, limits::ID_BYTES_MAX)?;
        self.check_kind()
    }

    fn check_quantity(&self) -> Result<(), Invalid> {
        let signed = matches!(self.kind, Kind::Adjusted { .. });
        if matches!(self.kind, Kind::Counted { .. }) {
            return match self.quantity {
                0 => Ok(()),
                units => Err(Invalid::new(
                    "quantity",
                    format!(
                        "is {units}; `counted` states its units by condition, in `good` and so on"
                    ),
                )),
            };
        }
        let magnitude = self.quantity.unsigned_abs();
        if magnitude == 0 {
            return Err(Invalid::new("quantity", "is 0; a movement moves something"));
        }
        if magnitude > limits::QUANTITY_MAX.unsigned_abs() {
            return Err(Invalid::new(
                "quantity",
                format!(
                    "is {}; at most {} units in one movement",
                    self.quantity,
                    limits::QUANTITY_MAX
                ),
            ));
        }
        if self.quantity < 0 && !signed {
            return Err(Invalid::new(
                "quantity",
                format!(
                    "is {}; only `adjusted` may be negative, `{}` says the direction by its kind",
                    self.quantity,
                    self.kind.name()
                ),
            ));
        }
        Ok(())
    }

    fn check_kind(&self) -> Result<(), Invalid> {
        match self.kind {
            Kind::Received {
                location, inbound, ..
            } => {
                place("received.location", location)?;
                document(["received.inbound", "received.line"], inbound)
            }
            Kind::Issued { location, .. } => place("issued.location", location),
            Kind::Reclassified { location, from, to } => {
                place("reclassified.location", location)?;
                if from == to {
                    return Err(Invalid::new(
                        "reclassified.to",
                        "is the same as `from`; a reclassification changes the condition",
                    ));
                }
                Ok(())
            }
            Kind::Adjusted {
                location, reason, ..
            } => {
                place("adjusted.location", location)?;
                text("adjusted.reason", reason, limits::REASON_BYTES_MAX)
            }
            Kind::Counted {
                location,
                as_of_us,
                units,
            } => {
                place("counted.location", location)?;
                moment("counted.as_of", as_of_us)?;
                if as_of_us.is_some_and(|us| us > self.occurred_us) {
                    return Err(Invalid::new(
                        "counted.as_of",
                        "is after `occurred_at`; a count tells of the past",
                    ));
                }
                counted(units)
            }
            Kind::Reserved {
                order,
                line,
                location,
                channel,
                expires_us,
            } => {
                document(["reserved.order", "reserved.line"], Some((order, line)))?;
                place("reserved.location", location)?;
                text("reserved.channel", channel, limits::CHANNEL_BYTES_MAX)?;
                moment("reserved.expires_at", expires_us)
            }
            Kind::Released {
                order,
                line,
                location,
            } => {
                document(["released.order", "released.line"], Some((order, line)))?;
                location.map_or(Ok(()), |l| place("released.location", l))
            }
            Kind::Reassigned {
                order,
                line,
                from,
                to,
            } => {
                document(["reassigned.order", "reassigned.line"], Some((order, line)))?;
                places(
                    ["reassigned.from", "reassigned.to"],
                    from,
                    to,
                    "is the same as `from`; a reassignment moves the claim",
                )
            }
            Kind::Picked {
                order,
                line,
                location,
            } => {
                document(["picked.order", "picked.line"], Some((order, line)))?;
                place("picked.location", location)
            }
            Kind::Packed {
                order,
                line,
                location,
            } => {
                document(["packed.order", "packed.line"], Some((order, line)))?;
                place("packed.location", location)
            }
            Kind::Shipped {
                order,
                line,
                location,
            } => {
                document(["shipped.order", "shipped.line"], Some((order, line)))?;
                place("shipped.location", location)
            }
            _ => self.check_supply_or_return(),
        }
    }

    fn check_supply_or_return(&self) -> Result<(), Invalid> {
        match self.kind {
            Kind::InboundExpected {
                inbound,
                line,
                location,
                eta_us,
            } => {
                let fields = ["inbound_expected.inbound", "inbound_expected.line"];
                document(fields, Some((inbound, line)))?;
                place("inbound_expected.location", location)?;
                moment("inbound_expected.eta", eta_us)
            }
            Kind::InboundCancelled { inbound, line } => {
                let fields = ["inbound_cancelled.inbound", "inbound_cancelled.line"];
                document(fields, Some((inbound, line)))
            }
            Kind::TransferShipped {
                transfer,
                line,
                from,
                to,
                eta_us,
            } => {
                let fields = ["transfer_shipped.transfer", "transfer_shipped.line"];
                document(fields, Some((transfer, line)))?;
                places(
                    ["transfer_shipped.from", "transfer_shipped.to"],
                    from,
                    to,
                    "is the same as `from`; a transfer goes to another location",
                )?;
                moment("transfer_shipped.eta", eta_us)
            }
            Kind::TransferReceived {
                transfer,
                line,
                location,
                ..
            } => {
                let fields = ["transfer_received.transfer", "transfer_received.line"];
                document(fields, Some((transfer, line)))?;
                place("transfer_received.location", location)
            }
            Kind::TransferClosed { transfer, line } => {
                let fields = ["transfer_closed.transfer", "transfer_closed.line"];
                document(fields, Some((transfer, line)))
            }
            Kind::ReturnAuthorized {
                rma,
                line,
                location,
                order,
            } => {
                let fields = ["return_authorized.return", "return_authorized.line"];
                document(fields, Some((rma, line)))?;
                place("return_authorized.location", location)?;
                let fields = ["return_authorized.order", "return_authorized.order_line"];
                document(fields, order)
            }
            Kind::ReturnCancelled { rma, line } => {
                let fields = ["return_cancelled.return", "return_cancelled.line"];
                document(fields, Some((rma, line)))
            }
            Kind::ReturnReceived {
                rma,
                line,
                location,
            } => {
                let fields = ["return_received.return", "return_received.line"];
                document(fields, Some((rma, line)))?;
                place("return_received.location", location)
            }
            Kind::ReturnInspected {
                rma,
                line,
                location,
                ..
            } => {
                let fields = ["return_inspected.return", "return_inspected.line"];
                document(fields, Some((rma, line)))?;
                place("return_inspected.location", location)
            }
            Kind::ReturnRefunded {
                rma,
                line,
                amount,
                currency,
            } => {
                let fields = ["return_refunded.return", "return_refunded.line"];
                document(fields, Some((rma, line)))?;
                money(amount, currency)
            }
            // All others were checked before.
            _ => Ok(()),
        }
    }
}

/// Checks a document and its line: both, or neither. Two empty texts are neither only where that
/// is allowed, and there the decoders give `None`.
fn document(fields: [&'static str; 2], given: Option<(&str, &str)>) -> Result<(), Invalid> {
    let Some((document, line)) = given else {
        return Ok(());
    };
    text(fields[0], document, limits::ID_BYTES_MAX)?;
    text(fields[1], line, limits::LINE_BYTES_MAX)
}

fn places(
    fields: [&'static str; 2],
    from: &str,
    to: &str,
    same: &'static str,
) -> Result<(), Invalid> {
    place(fields[0], from)?;
    place(fields[1], to)?;
    if from == to {
        return Err(Invalid::new(fields[1], same));
    }
    Ok(())
}

fn moment(field: &'static str, given: Option<TimeUs>) -> Result<(), Invalid> {
    match given {
        Some(us) if !(0..=limits::TIME_US_MAX).contains(&us) => {
            Err(Invalid::new(field, "is outside the years 1970 to 9999"))
        }
        _ => Ok(()),
    }
}

fn counted(units: [Option<i64>; 4]) -> Result<(), Invalid> {
    const FIELDS: [&str; 4] = [
        "counted.good",
        "counted.quarantined",
        "counted.damaged",
        "counted.return_pending",
    ];
    if units == [None; 4] {
        return Err(Invalid::new(
            FIELDS[0],
            "is missing, and so are `quarantined`, `damaged` and `return_pending`; a count states \
             at least one",
        ));
    }
    for (field, units) in FIELDS.into_iter().zip(units) {
        match units {
            Some(units) if !(0..=limits::QUANTITY_MAX).contains(&units) => {
                let reason = format!("is {units}; 0 to {} units", limits::QUANTITY_MAX);
                return Err(Invalid::new(field, reason));
            }
            _ => {}
        }
    }
    Ok(())
}

fn money(amount: i64, currency: &str) -> Result<(), Invalid> {
    if amount < 0 {
        return Err(Invalid::new(
            "return_refunded.amount",
            format!("is {amount}; what was paid back is not negative"),
        ));
    }
    if currency.is_empty() && amount == 0 {
        return Ok(());
    }
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(Invalid::new(
            "return_refunded.currency",
            "is not three capital letters (ISO 4217), and an amount needs one",
        ));
    }
    Ok(())
}

fn place(field: &'static str, value: &str) -> Result<(), Invalid> {
    text(field, value, limits::LOCATION_BYTES_MAX)
}

/// Checks a required text.
///
/// # Errors
/// If it is empty, longer than `bytes_max`, has control characters, or space at an end.
pub fn text(field: &'static str, value: &str, bytes_max: usize) -> Result<(), Invalid> {
    if value.is_empty() {
        return Err(Invalid::new(field, "is empty; it is required"));
    }
    optional_text(field, value, bytes_max)
}

fn optional_text(field: &'static str, value: &str, bytes_max: usize) -> Result<(), Invalid> {
    if value.len() > bytes_max {
        return Err(Invalid::new(
            field,
            format!("has {} bytes; at most {bytes_max}", value.len()),
        ));
    }
    if is_plain(value.as_bytes()) {
        return Ok(());
    }
    if value.chars().any(char::is_control) {
        return Err(Invalid::new(field, "has a control character"));
    }
    if value.trim().len() != value.len() {
        return Err(Invalid::new(field, "starts or ends with white space"));
    }
    Ok(())
}

/// Whether a text is of printable ASCII and has no space at an end, as nearly all texts. Looks at all
/// bytes: to stop at the first that is not would take longer, one by one.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let printable = text
        .iter()
        .fold(true, |plain, byte| plain & (b' '..=b'~').contains(byte));
    let space = Some(&b' ');
    printable & (text.first() != space) & (text.last() != space)
}

/// Checks the name of a source, which is also a token of a NATS subject.
///
/// # Errors
/// If it is empty, too long, or has other characters than `A-Z a-z 0-9 _ -`.
pub fn check_source(source: &str) -> Result<(), Invalid> {
    text("source", source, limits::SOURCE_BYTES_MAX)?;
    match source
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_')
    {
        None => Ok(()),
        Some(bad) => Err(Invalid::new(
            "source",
            format!("has {bad:?}; only A-Z a-z 0-9 _ and - (it is a token of a NATS subject)"),
        )),
    }
}

fn check_time(occurred_us: TimeUs, now_us: TimeUs) -> Result<(), Invalid> {
    if !(0..=limits::TIME_US_MAX).contains(&occurred_us) {
        return Err(Invalid::new(
            "occurred_at",
            "is outside the years 1970 to 9999",
        ));
    }
    let ahead_us = occurred_us - now_us;
    if ahead_us > limits::AHEAD_US_MAX {
        return Err(Invalid::new(
            "occurred_at",
            format!(
                "lies {} s ahead of the log's time; at most {} s (is the source's clock right, and is it UTC?)",
                ahead_us / 1_000_000,
                limits::AHEAD_US_MAX / 1_000_000
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The short way for plain texts lets nothing through, and keeps nothing out.
        #[test]
        fn a_text_has_no_control_character_and_no_space_at_an_end(
            value in prop_oneof!["[a !~]{0,6}", "[a !~\t\u{7f}\u{85}\u{a0}\u{3000}é\u{1f}]{0,20}"],
        ) {
            let allowed = !value.chars().any(char::is_control) && value.trim() == value;
            prop_assert_eq!(optional_text("sku", &value, 80).is_ok(), allowed);
        }
    }
}
