//! Movements between the generated protobuf structs and the domain.

use crate::domain::movement::{Condition, Invalid, IssueReason, Kind, Movement, TimeUs};
use crate::limits;
use crate::proto::v1 as pb;

/// The domain's view of a decoded protobuf movement; borrows its text.
///
/// # Errors
/// What the domain cannot express: no time or no kind, an enum value that is unknown or missing
/// without a documented default, a time that is none. Limits are left to [`Movement::check`].
pub fn from_proto(movement: &pb::Movement) -> Result<Movement<'_>, Invalid> {
    let time = movement.occurred_at.as_ref().ok_or_else(missing_time)?;
    Ok(Movement {
        id: &movement.id,
        source: &movement.source,
        occurred_us: time_us(time.seconds, time.nanos)?,
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
        Pb::Reserved(k) => Kind::Reserved {
            order: &k.order,
            line: &k.line,
            location: &k.location,
            channel: &k.channel,
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
    })
}

/// The protobuf movement that says the same.
pub fn to_proto(movement: &Movement<'_>) -> pb::Movement {
    use pb::movement::Kind as Pb;
    let kind = match movement.kind {
        Kind::Received {
            location,
            condition,
        } => Pb::Received(pb::Received {
            location: location.into(),
            condition: proto_condition(condition).into(),
        }),
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
        Kind::Reserved {
            order,
            line,
            location,
            channel,
        } => Pb::Reserved(pb::Reserved {
            order: order.into(),
            line: line.into(),
            location: location.into(),
            channel: channel.into(),
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
    };
    pb::Movement {
        id: movement.id.into(),
        source: movement.source.into(),
        occurred_at: Some(timestamp(movement.occurred_us)),
        sku: movement.sku.into(),
        quantity: movement.quantity,
        correlation_id: movement.correlation_id.into(),
        reference: movement.reference.into(),
        actor: movement.actor.into(),
        kind: Some(kind),
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
pub(super) fn time_us(seconds: i64, nanos: i32) -> Result<TimeUs, Invalid> {
    if !(0..=999_999_999).contains(&nanos) {
        return Err(Invalid::new(
            "occurred_at",
            format!("has {nanos} nanos; 0 to 999999999"),
        ));
    }
    // Here too, not only in `check`: beyond it microseconds would overflow.
    if !(0..=limits::TIME_US_MAX / 1_000_000).contains(&seconds) {
        return Err(Invalid::new(
            "occurred_at",
            "is outside the years 1970 to 9999",
        ));
    }
    Ok(seconds * 1_000_000 + i64::from(nanos) / 1_000)
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
