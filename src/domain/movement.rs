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
    /// Units, 1 to [`limits::QUANTITY_MAX`]; negative only if `adjusted`.
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

/// What happened; the names and effects are those of `proto/sellable/v1/movement.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are documented in the contract")]
pub enum Kind<'a> {
    Received {
        location: &'a str,
        condition: Condition,
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
    Reserved {
        order: &'a str,
        line: &'a str,
        location: &'a str,
        channel: &'a str,
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
    /// The name of the kind in the contract.
    pub const fn name(&self) -> &'static str {
        match self {
            Kind::Received { .. } => "received",
            Kind::Issued { .. } => "issued",
            Kind::Reclassified { .. } => "reclassified",
            Kind::Adjusted { .. } => "adjusted",
            Kind::Reserved { .. } => "reserved",
            Kind::Released { .. } => "released",
            Kind::Reassigned { .. } => "reassigned",
            Kind::Picked { .. } => "picked",
            Kind::Packed { .. } => "packed",
            Kind::Shipped { .. } => "shipped",
        }
    }
}

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
            Kind::Received { location, .. } => place("received.location", location),
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
            Kind::Reserved {
                order,
                line,
                location,
                channel,
            } => {
                text("reserved.order", order, limits::ID_BYTES_MAX)?;
                text("reserved.line", line, limits::LINE_BYTES_MAX)?;
                place("reserved.location", location)?;
                text("reserved.channel", channel, limits::CHANNEL_BYTES_MAX)
            }
            Kind::Released {
                order,
                line,
                location,
            } => {
                text("released.order", order, limits::ID_BYTES_MAX)?;
                text("released.line", line, limits::LINE_BYTES_MAX)?;
                location.map_or(Ok(()), |l| place("released.location", l))
            }
            Kind::Reassigned {
                order,
                line,
                from,
                to,
            } => {
                text("reassigned.order", order, limits::ID_BYTES_MAX)?;
                text("reassigned.line", line, limits::LINE_BYTES_MAX)?;
                place("reassigned.from", from)?;
                place("reassigned.to", to)?;
                if from == to {
                    return Err(Invalid::new(
                        "reassigned.to",
                        "is the same as `from`; a reassignment moves the claim",
                    ));
                }
                Ok(())
            }
            Kind::Picked {
                order,
                line,
                location,
            } => order_line(
                ["picked.order", "picked.line", "picked.location"],
                order,
                line,
                location,
            ),
            Kind::Packed {
                order,
                line,
                location,
            } => order_line(
                ["packed.order", "packed.line", "packed.location"],
                order,
                line,
                location,
            ),
            Kind::Shipped {
                order,
                line,
                location,
            } => order_line(
                ["shipped.order", "shipped.line", "shipped.location"],
                order,
                line,
                location,
            ),
        }
    }
}

fn order_line(
    fields: [&'static str; 3],
    order: &str,
    line: &str,
    location: &str,
) -> Result<(), Invalid> {
    text(fields[0], order, limits::ID_BYTES_MAX)?;
    text(fields[1], line, limits::LINE_BYTES_MAX)?;
    place(fields[2], location)
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
    let bytes = value.as_bytes();
    // Control characters are ASCII below 0x20, 0x7F, and U+0080 to U+009F.
    if bytes.iter().any(|b| *b < 0x20 || *b >= 0x7f) && value.chars().any(char::is_control) {
        return Err(Invalid::new(field, "has a control character"));
    }
    if value.trim().len() != value.len() {
        return Err(Invalid::new(field, "starts or ends with white space"));
    }
    Ok(())
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
