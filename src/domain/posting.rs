//! Postings: what a movement does to the books, with names reduced to keys.

use super::{
    balances::{Account, Loc},
    keys::{Keyer, LineKey, LineKind, MovementKey, SkuHash},
    movement::{Disposition, Kind, Movement, TimeUs},
};

/// A time that never comes: what has no time limit.
pub const NEVER_US: TimeUs = TimeUs::MAX;
/// A time before all others: what was never stated.
pub const UNSTATED_US: TimeUs = TimeUs::MIN;

/// In [`Effect::Count`]: this condition was not counted.
pub const UNCOUNTED: i32 = -1;

/// What one movement does to the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// The SKU; its name travels beside.
    pub sku: SkuHash,
    /// Units; negative only in [`Effect::In`] of an adjustment.
    pub quantity: i32,
    /// The effect.
    pub effect: Effect,
    /// The movement that has it.
    pub fact: Fact,
}

/// What is remembered of a movement beside its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fact {
    /// When it happened, by the source's clock.
    pub occurred_us: TimeUs,
    /// The first half of its [`super::keys::MovementKey`].
    pub id: u64,
    /// The number of its source within this process.
    pub source: u32,
}

impl Fact {
    /// Of the movement with this key, and this number of its source.
    pub fn of(movement: &Movement<'_>, key: MovementKey, source: u32) -> Self {
        Self {
            occurred_us: movement.occurred_us,
            id: key.first_half(),
            source,
        }
    }
}

/// Effects on accounts and followed lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Outside to an account; from it, if the quantity is negative.
    In {
        /// Where.
        at: Loc,
        /// To.
        to: Account,
    },
    /// An account to outside.
    Out {
        /// Where.
        at: Loc,
        /// From.
        from: Account,
    },
    /// One account to another.
    Within {
        /// Where.
        at: Loc,
        /// From.
        from: Account,
        /// To.
        to: Account,
    },
    /// The balances of a cell are fixed as of a moment. The id and the source of the movement
    /// travel beside, as the names of a document and its line: counts of one moment go by them.
    Count {
        /// Where.
        at: Loc,
        /// As of when.
        as_of_us: TimeUs,
        /// Units, by [`Account::PHYSICAL`]; [`UNCOUNTED`]: not counted.
        units: [i32; 4],
    },
    /// A milestone of a followed line, of the kind that the milestone belongs to.
    Line {
        /// Which.
        line: LineKey,
        /// What.
        milestone: Milestone,
    },
    /// Nothing: a milestone kept for the trace.
    None,
}

/// Milestones that count, by the kind of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    /// Order: promised at a location, until a time or [`NEVER_US`].
    Reserved {
        /// Where.
        at: Loc,
        /// Until when.
        expires_us: TimeUs,
    },
    /// Order: given back at a location, or wherever.
    Released(Option<Loc>),
    /// Order: the promise moved.
    Reassigned {
        /// From.
        from: Loc,
        /// To.
        to: Loc,
    },
    /// Order: left a location.
    Shipped(Loc),
    /// Inbound: announced, for a time or [`UNSTATED_US`].
    Expected {
        /// Where.
        at: Loc,
        /// For when.
        eta_us: TimeUs,
    },
    /// Inbound: arrived.
    Received {
        /// Where.
        at: Loc,
        /// In which condition.
        to: Account,
    },
    /// Inbound: will not come.
    SupplyCancelled,
    /// Transfer: left one location for another, to arrive at a time or [`UNSTATED_US`].
    Dispatched {
        /// From.
        from: Loc,
        /// To.
        to: Loc,
        /// When it should arrive.
        eta_us: TimeUs,
    },
    /// Transfer: arrived.
    Arrived {
        /// Where.
        at: Loc,
        /// In which condition.
        to: Account,
    },
    /// Transfer: will not arrive.
    Lost,
    /// Return: may come. Which order line it returns, the ledger is told beside, see
    /// [`super::ledger::Names`].
    Authorized(Loc),
    /// Return: will not come.
    ReturnCancelled,
    /// Return: came.
    Returned(Loc),
    /// Return: inspected.
    Inspected {
        /// Where.
        at: Loc,
        /// What becomes of it.
        disposition: Disposition,
    },
    /// Return: paid back.
    Refunded,
}

impl Posting {
    /// Reduces a checked movement. `loc` numbers a location by its name, `fact` is
    /// what is remembered of it. An inspection without a disposition has no effect; it is not to
    /// be applied.
    ///
    /// # Panics
    /// If the quantity is outside the limits that [`Movement::check`] enforces.
    pub fn of(
        movement: &Movement<'_>,
        keyer: &mut Keyer,
        fact: Fact,
        mut loc: impl FnMut(&str) -> Loc,
    ) -> Self {
        let effect = match movement.kind {
            Kind::Received {
                location,
                condition,
                inbound: None,
            }
            | Kind::Adjusted {
                location,
                condition,
                ..
            } => Effect::In {
                at: loc(location),
                to: condition.into(),
            },
            Kind::Issued {
                location,
                condition,
                ..
            } => Effect::Out {
                at: loc(location),
                from: condition.into(),
            },
            Kind::Reclassified { location, from, to } => Effect::Within {
                at: loc(location),
                from: from.into(),
                to: to.into(),
            },
            Kind::Counted {
                location,
                as_of_us,
                units,
            } => Effect::Count {
                at: loc(location),
                as_of_us: as_of_us.unwrap_or(movement.occurred_us),
                units: units.map(|units| {
                    units.map_or(UNCOUNTED, |units| {
                        i32::try_from(units).expect("the units were checked")
                    })
                }),
            },
            ref kind => match milestone(kind, loc) {
                Some((of, milestone)) => {
                    let (document, line) = kind.document().expect("a milestone is of a document");
                    Effect::Line {
                        line: keyer.line(of, document, line, movement.sku),
                        milestone,
                    }
                }
                None => Effect::None,
            },
        };
        Self {
            sku: SkuHash::of(movement.sku),
            quantity: i32::try_from(movement.quantity).expect("the quantity was checked"),
            effect,
            fact,
        }
    }
}

/// What counts of a kind that is a milestone.
fn milestone(kind: &Kind<'_>, mut loc: impl FnMut(&str) -> Loc) -> Option<(LineKind, Milestone)> {
    use super::keys::LineKind::{Inbound, Order, Return, Transfer};
    Some(match *kind {
        Kind::Reserved {
            location,
            expires_us,
            ..
        } => {
            let (at, expires_us) = (loc(location), expires_us.unwrap_or(NEVER_US));
            (Order, Milestone::Reserved { at, expires_us })
        }
        Kind::Released { location, .. } => (Order, Milestone::Released(location.map(loc))),
        Kind::Reassigned { from, to, .. } => {
            let (from, to) = (loc(from), loc(to));
            (Order, Milestone::Reassigned { from, to })
        }
        Kind::Shipped { location, .. } => (Order, Milestone::Shipped(loc(location))),
        Kind::InboundExpected {
            location, eta_us, ..
        } => {
            let (at, eta_us) = (loc(location), eta_us.unwrap_or(UNSTATED_US));
            (Inbound, Milestone::Expected { at, eta_us })
        }
        Kind::Received {
            location,
            condition,
            ..
        } => {
            let (at, to) = (loc(location), condition.into());
            (Inbound, Milestone::Received { at, to })
        }
        Kind::InboundCancelled { .. } => (Inbound, Milestone::SupplyCancelled),
        Kind::TransferShipped {
            from, to, eta_us, ..
        } => {
            let (from, to) = (loc(from), loc(to));
            let eta_us = eta_us.unwrap_or(UNSTATED_US);
            (Transfer, Milestone::Dispatched { from, to, eta_us })
        }
        Kind::TransferReceived {
            location,
            condition,
            ..
        } => {
            let (at, to) = (loc(location), condition.into());
            (Transfer, Milestone::Arrived { at, to })
        }
        Kind::TransferClosed { .. } => (Transfer, Milestone::Lost),
        Kind::ReturnAuthorized { location, .. } => (Return, Milestone::Authorized(loc(location))),
        Kind::ReturnCancelled { .. } => (Return, Milestone::ReturnCancelled),
        Kind::ReturnReceived { location, .. } => (Return, Milestone::Returned(loc(location))),
        Kind::ReturnInspected {
            location,
            disposition,
            ..
        } => {
            let (at, disposition) = (loc(location), disposition?);
            (Return, Milestone::Inspected { at, disposition })
        }
        Kind::ReturnRefunded { .. } => (Return, Milestone::Refunded),
        Kind::Issued { .. }
        | Kind::Reclassified { .. }
        | Kind::Adjusted { .. }
        | Kind::Counted { .. }
        | Kind::Picked { .. }
        | Kind::Packed { .. } => return None,
    })
}

impl Effect {
    /// The location whose cell it most likely changes.
    #[inline]
    pub fn location(&self) -> Option<Loc> {
        match *self {
            Effect::In { at, .. }
            | Effect::Out { at, .. }
            | Effect::Within { at, .. }
            | Effect::Count { at, .. } => Some(at),
            Effect::Line { milestone, .. } => match milestone {
                Milestone::Reserved { at, .. }
                | Milestone::Shipped(at)
                | Milestone::Expected { at, .. }
                | Milestone::Received { at, .. }
                | Milestone::Arrived { at, .. }
                | Milestone::Authorized(at)
                | Milestone::Returned(at)
                | Milestone::Inspected { at, .. } => Some(at),
                Milestone::Released(at) => at,
                Milestone::Reassigned { from, .. } | Milestone::Dispatched { from, .. } => {
                    Some(from)
                }
                Milestone::SupplyCancelled
                | Milestone::Lost
                | Milestone::ReturnCancelled
                | Milestone::Refunded => None,
            },
            Effect::None => None,
        }
    }
}

const _: () = assert!(crate::limits::QUANTITY_MAX <= i32::MAX as i64);
const _: () = assert!(size_of::<Posting>() <= 80);
