//! Facts, owned, and the movements that report them.

use sellable::{
    domain::{
        keys::LineKind,
        movement::{Condition, Disposition, IssueReason, Kind, Movement, TimeUs},
    },
    proto::v1 as pb,
    wire::movement::to_proto,
};

/// When the last facts of these histories occurred, and the log's time begins: inside one horizon.
pub(crate) const OCCURRED_US: TimeUs = 1_700_000_000_000_000;

/// A fact, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) id: String,
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    pub(crate) occurred_us: TimeUs,
    pub(crate) what: What,
}

/// Document and line number.
pub(crate) type Line = (String, String);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Received(String, Condition),
    Issued(String, Condition),
    Reclassified(String, Condition, Condition),
    Adjusted(String, Condition),
    /// How long before it was reported, in microseconds; units by condition.
    Counted(String, TimeUs, [Option<i64>; 4]),
    /// Order; until when.
    Reserved(Line, String, Option<TimeUs>),
    Released(Line, Option<String>),
    Reassigned(Line, String, String),
    Picked(Line, String),
    Packed(Line, String),
    Shipped(Line, String),
    /// Order: a command gave it more time. No movement reports that.
    Prolonged(Line, Option<TimeUs>),
    /// Inbound; eta.
    Expected(Line, String, Option<TimeUs>),
    ReceivedOf(Line, String, Condition),
    SupplyCancelled(Line),
    /// Transfer: from, to, eta.
    Dispatched(Line, String, String, Option<TimeUs>),
    Arrived(Line, String, Condition),
    Lost(Line),
    /// Return; the order line that is returned.
    Authorized(Line, String, Option<Line>),
    ReturnCancelled(Line),
    Returned(Line, String),
    /// Without a disposition it is parked.
    Inspected(Line, String, Option<Disposition>),
    Refunded(Line),
}

impl What {
    /// The line whose totals it counts in.
    pub(crate) fn line(&self) -> Option<(LineKind, &Line)> {
        Some(match self {
            What::Reserved(line, ..)
            | What::Released(line, _)
            | What::Reassigned(line, ..)
            | What::Shipped(line, _)
            | What::Prolonged(line, _) => (LineKind::Order, line),
            What::Expected(line, ..) | What::ReceivedOf(line, ..) | What::SupplyCancelled(line) => {
                (LineKind::Inbound, line)
            }
            What::Dispatched(line, ..) | What::Arrived(line, ..) | What::Lost(line) => {
                (LineKind::Transfer, line)
            }
            What::Authorized(line, ..)
            | What::ReturnCancelled(line)
            | What::Returned(line, _)
            | What::Inspected(line, ..)
            | What::Refunded(line) => (LineKind::Return, line),
            What::Received(..)
            | What::Issued(..)
            | What::Reclassified(..)
            | What::Adjusted(..)
            | What::Counted(..)
            | What::Picked(..)
            | What::Packed(..) => return None,
        })
    }

    /// It is a count.
    pub(crate) fn is_count(&self) -> bool {
        matches!(self, What::Counted(..))
    }

    /// It cannot be applied: a person has to say what becomes of the units.
    pub(crate) fn is_undecided(&self) -> bool {
        matches!(self, What::Inspected(_, _, None))
    }
}

impl Fact {
    /// Of a count, the moment of which it tells; of others, when they occurred.
    pub(crate) fn as_of_us(&self) -> TimeUs {
        match &self.what {
            What::Counted(_, before_us, _) => self.occurred_us - before_us,
            _ => self.occurred_us,
        }
    }

    /// The movement that reports it.
    pub(crate) fn movement(&self) -> Movement<'_> {
        Movement {
            id: &self.id,
            source: "wms",
            occurred_us: self.occurred_us,
            sku: &self.sku,
            quantity: self.quantity,
            correlation_id: "",
            reference: "",
            actor: "",
            kind: self.kind(),
        }
    }

    fn kind(&self) -> Kind<'_> {
        match &self.what {
            What::Received(location, condition) => Kind::Received {
                location,
                condition: *condition,
                inbound: None,
            },
            What::Issued(location, condition) => Kind::Issued {
                location,
                condition: *condition,
                reason: IssueReason::Sale,
            },
            What::Reclassified(location, from, to) => Kind::Reclassified {
                location,
                from: *from,
                to: *to,
            },
            What::Adjusted(location, condition) => Kind::Adjusted {
                location,
                condition: *condition,
                reason: "count",
            },
            What::Counted(location, before_us, units) => Kind::Counted {
                location,
                as_of_us: (*before_us > 0).then_some(self.occurred_us - before_us),
                units: *units,
            },
            What::Reserved((order, line), location, expires_us) => Kind::Reserved {
                order,
                line,
                location,
                channel: "web",
                expires_us: *expires_us,
            },
            What::Released((order, line), location) => Kind::Released {
                order,
                line,
                location: location.as_deref(),
            },
            What::Reassigned((order, line), from, to) => Kind::Reassigned {
                order,
                line,
                from,
                to,
            },
            What::Picked((order, line), location) => Kind::Picked {
                order,
                line,
                location,
            },
            What::Packed((order, line), location) => Kind::Packed {
                order,
                line,
                location,
            },
            What::Shipped((order, line), location) => Kind::Shipped {
                order,
                line,
                location,
            },
            What::Prolonged(..) => unreachable!("no movement reports it"),
            _ => self.kind_of_supply_or_return(),
        }
    }

    fn kind_of_supply_or_return(&self) -> Kind<'_> {
        match &self.what {
            What::Expected((inbound, line), location, eta_us) => Kind::InboundExpected {
                inbound,
                line,
                location,
                eta_us: *eta_us,
            },
            What::ReceivedOf((inbound, line), location, condition) => Kind::Received {
                location,
                condition: *condition,
                inbound: Some((inbound, line)),
            },
            What::SupplyCancelled((inbound, line)) => Kind::InboundCancelled { inbound, line },
            What::Dispatched((transfer, line), from, to, eta_us) => Kind::TransferShipped {
                transfer,
                line,
                from,
                to,
                eta_us: *eta_us,
            },
            What::Arrived((transfer, line), location, condition) => Kind::TransferReceived {
                transfer,
                line,
                location,
                condition: *condition,
            },
            What::Lost((transfer, line)) => Kind::TransferClosed { transfer, line },
            What::Authorized((rma, line), location, order) => Kind::ReturnAuthorized {
                rma,
                line,
                location,
                order: order
                    .as_ref()
                    .map(|(order, line)| (order.as_str(), line.as_str())),
            },
            What::ReturnCancelled((rma, line)) => Kind::ReturnCancelled { rma, line },
            What::Returned((rma, line), location) => Kind::ReturnReceived {
                rma,
                line,
                location,
            },
            What::Inspected((rma, line), location, disposition) => Kind::ReturnInspected {
                rma,
                line,
                location,
                disposition: *disposition,
            },
            What::Refunded((rma, line)) => Kind::ReturnRefunded {
                rma,
                line,
                amount: 0,
                currency: "",
            },
            other => unreachable!("{other:?} is neither"),
        }
    }

    /// The same, for the wire.
    pub(crate) fn proto(&self) -> pb::Movement {
        to_proto(&self.movement())
    }
}
