//! Movements between the generated protobuf structs and the domain.

use crate::domain::movement::{
    Condition, Disposition, Invalid, IssueReason, Kind, Movement, TimeUs,
};
use crate::limits;
use crate::proto::v1 as pb;

/// The domain's view of a decoded protobuf movement; borrows its text.
///
/// # Errors
/// What the domain cannot express: no time or no kind, an enum value that is unknown or missing
/// without a documented default, a time that is none. Limits are left to [`Movement::check`], and
/// so is a document without its line. A disposition that is unknown is one that is missing: both
/// are for a person to decide, not for the sender to correct.
pub fn from_proto(movement: &pb::Movement) -> Result<Movement<'_>, Invalid> {
    let time = movement.occurred_at.as_ref().ok_or_else(missing_time)?;
    Ok(Movement {
        id: &movement.id,
        source: &movement.source,
        occurred_us: time_us("occurred_at", time.seconds, time.nanos)?,
        sku: &movement.sku,
        quantity: movement.quantity,
        correlation_id: &movement.correlation_id,
        reference: &movement.reference,
        actor: &movement.actor,
        kind: kind(movement.kind.as_ref().ok_or_else(missing_kind)?)?,
    })
}

fn kind(kind: &pb::movement::Kind) -> Result<Kind<'_>, Invalid> {
    use pb::movement::Kind as Pb;
    Ok(match kind {
        Pb::Received(k) => Kind::Received {
            location: &k.location,
            condition: condition_or_good("received.condition", k.condition)?,
            inbound: both(&k.inbound, &k.line),
        },
        Pb::Issued(k) => Kind::Issued {
            location: &k.location,
            condition: condition_or_good("issued.condition", k.condition)?,
            reason: issue_reason("issued.reason", k.reason)?,
        },
        Pb::Reclassified(k) => Kind::Reclassified {
            location: &k.location,
            from: condition("reclassified.from", k.from)?,
            to: condition("reclassified.to", k.to)?,
        },
        Pb::Adjusted(k) => Kind::Adjusted {
            location: &k.location,
            condition: condition_or_good("adjusted.condition", k.condition)?,
            reason: &k.reason,
        },
        Pb::Counted(k) => Kind::Counted {
            location: &k.location,
            as_of_us: optional_time_us("counted.as_of", k.as_of.as_ref())?,
            units: [k.good, k.quarantined, k.damaged, k.return_pending],
        },
        Pb::Reserved(k) => Kind::Reserved {
            order: &k.order,
            line: &k.line,
            location: &k.location,
            channel: &k.channel,
            expires_us: optional_time_us("reserved.expires_at", k.expires_at.as_ref())?,
        },
        Pb::Released(k) => Kind::Released {
            order: &k.order,
            line: &k.line,
            location: given(&k.location),
        },
        Pb::Reassigned(k) => Kind::Reassigned {
            order: &k.order,
            line: &k.line,
            from: &k.from,
            to: &k.to,
        },
        Pb::Picked(k) => Kind::Picked {
            order: &k.order,
            line: &k.line,
            location: &k.location,
        },
        Pb::Packed(k) => Kind::Packed {
            order: &k.order,
            line: &k.line,
            location: &k.location,
        },
        Pb::Shipped(k) => Kind::Shipped {
            order: &k.order,
            line: &k.line,
            location: &k.location,
        },
        Pb::InboundExpected(k) => Kind::InboundExpected {
            inbound: &k.inbound,
            line: &k.line,
            location: &k.location,
            eta_us: optional_time_us("inbound_expected.eta", k.eta.as_ref())?,
        },
        Pb::InboundCancelled(k) => Kind::InboundCancelled {
            inbound: &k.inbound,
            line: &k.line,
        },
        Pb::TransferShipped(k) => Kind::TransferShipped {
            transfer: &k.transfer,
            line: &k.line,
            from: &k.from,
            to: &k.to,
            eta_us: optional_time_us("transfer_shipped.eta", k.eta.as_ref())?,
        },
        Pb::TransferReceived(k) => Kind::TransferReceived {
            transfer: &k.transfer,
            line: &k.line,
            location: &k.location,
            condition: condition_or_good("transfer_received.condition", k.condition)?,
        },
        Pb::TransferClosed(k) => Kind::TransferClosed {
            transfer: &k.transfer,
            line: &k.line,
        },
        Pb::ReturnAuthorized(k) => Kind::ReturnAuthorized {
            rma: &k.r#return,
            line: &k.line,
            location: &k.location,
            order: both(&k.order, &k.order_line),
        },
        Pb::ReturnCancelled(k) => Kind::ReturnCancelled {
            rma: &k.r#return,
            line: &k.line,
        },
        Pb::ReturnReceived(k) => Kind::ReturnReceived {
            rma: &k.r#return,
            line: &k.line,
            location: &k.location,
        },
        Pb::ReturnInspected(k) => Kind::ReturnInspected {
            rma: &k.r#return,
            line: &k.line,
            location: &k.location,
            disposition: disposition(k.disposition),
        },
        Pb::ReturnRefunded(k) => Kind::ReturnRefunded {
            rma: &k.r#return,
            line: &k.line,
            amount: k.amount,
            currency: &k.currency,
        },
    })
}

/// The protobuf movement that says the same.
pub fn to_proto(movement: &Movement<'_>) -> pb::Movement {
    pb::Movement {
        id: movement.id.into(),
        source: movement.source.into(),
        occurred_at: Some(timestamp(movement.occurred_us)),
        sku: movement.sku.into(),
        quantity: movement.quantity,
        correlation_id: movement.correlation_id.into(),
        reference: movement.reference.into(),
        actor: movement.actor.into(),
        kind: Some(proto_kind(&movement.kind)),
    }
}

fn proto_kind(kind: &Kind<'_>) -> pb::movement::Kind {
    use pb::movement::Kind as Pb;
    match *kind {
        Kind::Received {
            location,
            condition,
            inbound,
        } => {
            let (inbound, line) = inbound.unwrap_or_default();
            Pb::Received(pb::Received {
                location: location.into(),
                condition: proto_condition(condition).into(),
                inbound: inbound.into(),
                line: line.into(),
            })
        }
        Kind::Issued {
            location,
            condition,
            reason,
        } => Pb::Issued(pb::Issued {
            location: location.into(),
            condition: proto_condition(condition).into(),
            reason: proto_issue_reason(reason).into(),
        }),
        Kind::Reclassified { location, from, to } => Pb::Reclassified(pb::Reclassified {
            location: location.into(),
            from: proto_condition(from).into(),
            to: proto_condition(to).into(),
        }),
        Kind::Adjusted {
            location,
            condition,
            reason,
        } => Pb::Adjusted(pb::Adjusted {
            location: location.into(),
            condition: proto_condition(condition).into(),
            reason: reason.into(),
        }),
        Kind::Counted {
            location,
            as_of_us,
            units: [good, quarantined, damaged, return_pending],
        } => Pb::Counted(pb::Counted {
            location: location.into(),
            as_of: as_of_us.map(timestamp),
            good,
            quarantined,
            damaged,
            return_pending,
        }),
        Kind::Reserved {
            order,
            line,
            location,
            channel,
            expires_us,
        } => Pb::Reserved(pb::Reserved {
            order: order.into(),
            line: line.into(),
            location: location.into(),
            channel: channel.into(),
            expires_at: expires_us.map(timestamp),
        }),
        Kind::Released {
            order,
            line,
            location,
        } => Pb::Released(pb::Released {
            order: order.into(),
            line: line.into(),
            location: location.unwrap_or_default().into(),
        }),
        Kind::Reassigned {
            order,
            line,
            from,
            to,
        } => Pb::Reassigned(pb::Reassigned {
            order: order.into(),
            line: line.into(),
            from: from.into(),
            to: to.into(),
        }),
        Kind::Picked {
            order,
            line,
            location,
        } => Pb::Picked(pb::Picked {
            order: order.into(),
            line: line.into(),
            location: location.into(),
        }),
        Kind::Packed {
            order,
            line,
            location,
        } => Pb::Packed(pb::Packed {
            order: order.into(),
            line: line.into(),
            location: location.into(),
        }),
        Kind::Shipped {
            order,
            line,
            location,
        } => Pb::Shipped(pb::Shipped {
            order: order.into(),
            line: line.into(),
            location: location.into(),
        }),
        Kind::InboundExpected {
            inbound,
            line,
            location,
            eta_us,
        } => Pb::InboundExpected(pb::InboundExpected {
            inbound: inbound.into(),
            line: line.into(),
            location: location.into(),
            eta: eta_us.map(timestamp),
        }),
        Kind::InboundCancelled { inbound, line } => Pb::InboundCancelled(pb::InboundCancelled {
            inbound: inbound.into(),
            line: line.into(),
        }),
        Kind::TransferShipped {
            transfer,
            line,
            from,
            to,
            eta_us,
        } => Pb::TransferShipped(pb::TransferShipped {
            transfer: transfer.into(),
            line: line.into(),
            from: from.into(),
            to: to.into(),
            eta: eta_us.map(timestamp),
        }),
        Kind::TransferReceived {
            transfer,
            line,
            location,
            condition,
        } => Pb::TransferReceived(pb::TransferReceived {
            transfer: transfer.into(),
            line: line.into(),
            location: location.into(),
            condition: proto_condition(condition).into(),
        }),
        Kind::TransferClosed { transfer, line } => Pb::TransferClosed(pb::TransferClosed {
            transfer: transfer.into(),
            line: line.into(),
        }),
        Kind::ReturnAuthorized {
            rma,
            line,
            location,
            order,
        } => {
            let (order, order_line) = order.unwrap_or_default();
            Pb::ReturnAuthorized(pb::ReturnAuthorized {
                r#return: rma.into(),
                line: line.into(),
                location: location.into(),
                order: order.into(),
                order_line: order_line.into(),
            })
        }
        Kind::ReturnCancelled { rma, line } => Pb::ReturnCancelled(pb::ReturnCancelled {
            r#return: rma.into(),
            line: line.into(),
        }),
        Kind::ReturnReceived {
            rma,
            line,
            location,
        } => Pb::ReturnReceived(pb::ReturnReceived {
            r#return: rma.into(),
            line: line.into(),
            location: location.into(),
        }),
        Kind::ReturnInspected {
            rma,
            line,
            location,
            disposition,
        } => Pb::ReturnInspected(pb::ReturnInspected {
            r#return: rma.into(),
            line: line.into(),
            location: location.into(),
            disposition: disposition
                .map_or(pb::Disposition::Unspecified, proto_disposition)
                .into(),
        }),
        Kind::ReturnRefunded {
            rma,
            line,
            amount,
            currency,
        } => Pb::ReturnRefunded(pb::ReturnRefunded {
            r#return: rma.into(),
            line: line.into(),
            amount,
            currency: currency.into(),
        }),
    }
}

/// The protobuf timestamp of a time.
pub fn timestamp(time_us: TimeUs) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time_us.div_euclid(1_000_000),
        nanos: (time_us.rem_euclid(1_000_000) * 1_000) as i32,
    }
}

/// The contract's condition.
pub const fn proto_condition(condition: Condition) -> pb::Condition {
    match condition {
        Condition::Good => pb::Condition::Good,
        Condition::Quarantined => pb::Condition::Quarantined,
        Condition::Damaged => pb::Condition::Damaged,
        Condition::ReturnPending => pb::Condition::ReturnPending,
    }
}

/// The contract's reason of an issue.
pub const fn proto_issue_reason(reason: IssueReason) -> pb::IssueReason {
    match reason {
        IssueReason::Sale => pb::IssueReason::Sale,
        IssueReason::Scrap => pb::IssueReason::Scrap,
        IssueReason::VendorReturn => pb::IssueReason::VendorReturn,
        IssueReason::Internal => pb::IssueReason::Internal,
        IssueReason::Other => pb::IssueReason::Other,
    }
}

/// The contract's disposition.
pub const fn proto_disposition(disposition: Disposition) -> pb::Disposition {
    match disposition {
        Disposition::Restock => pb::Disposition::Restock,
        Disposition::Refurbish => pb::Disposition::Refurbish,
        Disposition::Quarantine => pb::Disposition::Quarantine,
        Disposition::VendorReturn => pb::Disposition::VendorReturn,
        Disposition::Liquidate => pb::Disposition::Liquidate,
        Disposition::Scrap => pb::Disposition::Scrap,
    }
}

/// The disposition that this number means; `None` if it is missing, or not known to this version.
#[inline]
pub fn disposition(value: i32) -> Option<Disposition> {
    match pb::Disposition::try_from(value) {
        Ok(pb::Disposition::Restock) => Some(Disposition::Restock),
        Ok(pb::Disposition::Refurbish) => Some(Disposition::Refurbish),
        Ok(pb::Disposition::Quarantine) => Some(Disposition::Quarantine),
        Ok(pb::Disposition::VendorReturn) => Some(Disposition::VendorReturn),
        Ok(pb::Disposition::Liquidate) => Some(Disposition::Liquidate),
        Ok(pb::Disposition::Scrap) => Some(Disposition::Scrap),
        Ok(pb::Disposition::Unspecified) | Err(_) => None,
    }
}

#[cold]
pub(super) fn missing_time() -> Invalid {
    Invalid::new("occurred_at", "is missing; it is required")
}

#[cold]
pub(super) fn missing_kind() -> Invalid {
    Invalid::new(
        "kind",
        "is missing, or newer than this version knows; give one that it knows, or upgrade this instance",
    )
}

/// Cuts off what is finer than a microsecond.
#[inline]
pub(super) fn time_us(field: &'static str, seconds: i64, nanos: i32) -> Result<TimeUs, Invalid> {
    // Here too, not only in `check`: beyond it microseconds would overflow.
    if !(0..=999_999_999).contains(&nanos)
        || !(0..=limits::TIME_US_MAX / 1_000_000).contains(&seconds)
    {
        return Err(no_time(field, nanos));
    }
    Ok(seconds * 1_000_000 + i64::from(nanos) / 1_000)
}

#[cold]
fn no_time(field: &'static str, nanos: i32) -> Invalid {
    if (0..=999_999_999).contains(&nanos) {
        Invalid::new(field, "is outside the years 1970 to 9999")
    } else {
        Invalid::new(field, format!("has {nanos} nanos; 0 to 999999999"))
    }
}

/// A time that need not be there.
///
/// # Errors
/// If it is outside the years 1970 to 9999.
pub fn optional_time_us(
    field: &'static str,
    time: Option<&prost_types::Timestamp>,
) -> Result<Option<TimeUs>, Invalid> {
    time.map(|time| time_us(field, time.seconds, time.nanos))
        .transpose()
}

#[inline]
pub(super) fn condition_or_good(field: &'static str, value: i32) -> Result<Condition, Invalid> {
    if value == pb::Condition::Unspecified as i32 {
        return Ok(Condition::Good);
    }
    condition(field, value)
}

#[inline]
pub(super) fn condition(field: &'static str, value: i32) -> Result<Condition, Invalid> {
    match pb::Condition::try_from(value) {
        Ok(pb::Condition::Good) => Ok(Condition::Good),
        Ok(pb::Condition::Quarantined) => Ok(Condition::Quarantined),
        Ok(pb::Condition::Damaged) => Ok(Condition::Damaged),
        Ok(pb::Condition::ReturnPending) => Ok(Condition::ReturnPending),
        Ok(pb::Condition::Unspecified) => Err(Invalid::new(field, "is missing; it is required")),
        Err(_) => Err(unknown_value(field, value)),
    }
}

#[inline]
pub(super) fn issue_reason(field: &'static str, value: i32) -> Result<IssueReason, Invalid> {
    match pb::IssueReason::try_from(value) {
        Ok(pb::IssueReason::Sale) => Ok(IssueReason::Sale),
        Ok(pb::IssueReason::Scrap) => Ok(IssueReason::Scrap),
        Ok(pb::IssueReason::VendorReturn) => Ok(IssueReason::VendorReturn),
        Ok(pb::IssueReason::Internal) => Ok(IssueReason::Internal),
        Ok(pb::IssueReason::Other) => Ok(IssueReason::Other),
        Ok(pb::IssueReason::Unspecified) => Err(Invalid::new(field, "is missing; it is required")),
        Err(_) => Err(unknown_value(field, value)),
    }
}

#[cold]
fn unknown_value(field: &'static str, value: i32) -> Invalid {
    Invalid::new(
        field,
        format!(
            "is {value}, which this version does not know; give one that it knows, or upgrade this instance"
        ),
    )
}

/// Protobuf has no absent text: empty is absent.
#[inline]
pub(super) fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A document and its line, of which a kind has both or neither. One alone is kept, for
/// [`Movement::check`] to name the other.
#[inline]
pub(super) fn both<'a>(document: &'a str, line: &'a str) -> Option<(&'a str, &'a str)> {
    (!document.is_empty() || !line.is_empty()).then_some((document, line))
}
