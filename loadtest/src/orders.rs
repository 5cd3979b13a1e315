//! What became of each cart, for the calls that follow it.

use std::time::Duration;

use tokio::sync::SetOnce;

/// Most carts of a run: each is followed to its end, in some 200 bytes.
pub const ORDERS_MAX: usize = 2_000_000;

/// Number of a cart, from 0.
pub type OrderNumber = u32;

const _: () = assert!(ORDERS_MAX < OrderNumber::MAX as usize);

/// What is planned for a cart, if it is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Given back.
    Released,
    /// Ordered, and not shipped within the run.
    Ordered,
    /// Ordered and shipped.
    Shipped,
    /// Left alone until it expires.
    Left,
}

/// Units of a granted line at one location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Number of the line as the server names it.
    pub line: String,
    /// The SKU.
    pub sku: u32,
    /// Slot of the location.
    pub slot: u32,
    /// Units.
    pub units: i64,
}

/// The answer to a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is held; empty if it was refused, or was never answered.
    pub held: Vec<Held>,
    /// False if nobody knows the answer, or there was no question.
    pub answered: bool,
    /// What was planned for it.
    pub fate: Fate,
    /// When it came, from the start of the run.
    pub at: Duration,
}

/// A cart's steps so far.
#[derive(Debug, Default)]
pub struct Order {
    /// What was decided.
    pub decided: SetOnce<Decision>,
    /// When it was confirmed or released, from the start of the run; none if that failed.
    pub settled: SetOnce<Option<Duration>>,
    /// When it was shipped; none if that failed.
    pub shipped: SetOnce<Option<Duration>>,
}

/// All carts of a run, by number.
#[derive(Debug)]
pub struct Orders(Vec<Order>);

impl Orders {
    /// Room for so many.
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| Order::default()).collect())
    }

    /// One of them.
    pub fn get(&self, number: OrderNumber) -> &Order {
        &self.0[number as usize]
    }

    /// Those that were decided, with what.
    pub fn decided(&self) -> impl Iterator<Item = (OrderNumber, &Decision)> {
        let numbered = (0..).zip(&self.0);
        numbered.filter_map(|(number, order)| Some((number, order.decided.get()?)))
    }
}
