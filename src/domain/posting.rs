//! Postings: what a movement does to the books, with names reduced to keys.

use super::{
    balances::{Account, Loc},
    keys::{Keyer, LineKey, SkuHash},
    movement::{Kind, Movement},
};

/// What one movement does to the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// The SKU; its name travels beside.
    pub sku: SkuHash,
    /// Units; negative only in [`Effect::In`] of an adjustment.
    pub quantity: i32,
    /// The effect.
    pub effect: Effect,
}

/// Effects on accounts and order lines.
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
    /// A milestone of an order line.
    OrderLine {
        /// Which.
        line: LineKey,
        /// What.
        milestone: Milestone,
    },
    /// Nothing: a milestone kept for the trace.
    None,
}

/// Milestones of an order line that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    /// Promised at a location.
    Reserved(Loc),
    /// Given back at a location, or wherever.
    Released(Option<Loc>),
    /// The promise moved.
    Reassigned {
        /// From.
        from: Loc,
        /// To.
        to: Loc,
    },
    /// Left a location.
    Shipped(Loc),
}

impl Posting {
    /// Reduces a checked movement. `loc` numbers a location by its name.
    ///
    /// # Panics
    /// If the quantity is outside the limits that [`Movement::check`] enforces.
    pub fn of(
        movement: &Movement<'_>,
        keyer: &mut Keyer,
        mut loc: impl FnMut(&str) -> Loc,
    ) -> Self {
        let mut line = |order, line| keyer.line(order, line, movement.sku);
        let effect = match movement.kind {
            Kind::Received {
                location,
                condition,
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
            Kind::Reserved {
                order,
                line: number,
                location,
                ..
            } => Effect::OrderLine {
                line: line(order, number),
                milestone: Milestone::Reserved(loc(location)),
            },
            Kind::Released {
                order,
                line: number,
                location,
            } => Effect::OrderLine {
                line: line(order, number),
                milestone: Milestone::Released(location.map(loc)),
            },
            Kind::Reassigned {
                order,
                line: number,
                from,
                to,
            } => Effect::OrderLine {
                line: line(order, number),
                milestone: Milestone::Reassigned {
                    from: loc(from),
                    to: loc(to),
                },
            },
            Kind::Shipped {
                order,
                line: number,
                location,
            } => Effect::OrderLine {
                line: line(order, number),
                milestone: Milestone::Shipped(loc(location)),
            },
            Kind::Picked { .. } | Kind::Packed { .. } => Effect::None,
        };
        Self {
            sku: SkuHash::of(movement.sku),
            quantity: i32::try_from(movement.quantity).expect("the quantity was checked"),
            effect,
        }
    }
}

impl Effect {
    /// The location whose cell it most likely changes.
    #[inline]
    pub fn location(&self) -> Option<Loc> {
        match *self {
            Effect::In { at, .. } | Effect::Out { at, .. } | Effect::Within { at, .. } => Some(at),
            Effect::OrderLine { milestone, .. } => match milestone {
                Milestone::Reserved(at) | Milestone::Shipped(at) => Some(at),
                Milestone::Released(at) => at,
                Milestone::Reassigned { from, .. } => Some(from),
            },
            Effect::None => None,
        }
    }
}

const _: () = assert!(crate::limits::QUANTITY_MAX <= i32::MAX as i64);
const _: () = assert!(size_of::<Posting>() <= 48);
