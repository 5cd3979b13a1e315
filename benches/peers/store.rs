//! What all that are compared can do, and the callers that ask them for it.

use crate::{
    load::Caller,
    support::{self, Random},
};

/// Locations of each SKU.
pub(crate) const LOCATIONS: usize = 10;
/// In each cell, to begin with: more than is ever asked for.
pub(crate) const UNITS: i64 = 100_000_000;
/// In a cart.
pub(crate) const CART_SKUS: usize = 10;
/// Lines of a large reservation.
pub(crate) const LINES: usize = 100;
/// How long ids are remembered: as long as Sellable does by default.
pub(crate) const REMEMBERED_S: u64 = 7 * 24 * 3_600;

/// One SKU at one location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) sku: usize,
    pub(crate) location: usize,
}

impl Cell {
    /// The one that all callers want when they want the same.
    pub(crate) const HOT: Cell = Cell {
        sku: 0,
        location: 0,
    };

    /// All cells of so many SKUs.
    pub(crate) fn all(skus: usize) -> impl Iterator<Item = Cell> {
        (0..skus).flat_map(|sku| (0..LOCATIONS).map(move |location| Cell { sku, location }))
    }

    /// Names of the SKU and of the location.
    pub(crate) fn names(self) -> (String, String) {
        (support::sku(self.sku), support::location(self.location))
    }
}

/// A connection to what holds stock, or a part in one.
pub(crate) trait Store: Send + 'static {
    /// Reserves, once for each `id`, and never more than there is. True if it is, or was the first
    /// time, granted.
    fn reserve(&mut self, id: &str, cell: Cell, units: i64) -> impl Future<Output = bool> + Send;

    /// The same for one unit of each of `cells`, which may name a cell more than once: all or none.
    fn reserve_lines(&mut self, id: &str, cells: &[Cell]) -> impl Future<Output = bool> + Send;

    /// Units of these SKUs that may be sold, over all locations.
    fn cart(&mut self, skus: &[usize]) -> impl Future<Output = i64> + Send;

    /// Units reserved of all SKUs.
    fn reserved(&mut self) -> impl Future<Output = i64> + Send;
}

/// It grants, refuses when there is not enough, and does nothing twice; all with a SKU that nobody
/// else asks for.
///
/// # Panics
/// If it does not.
pub(crate) async fn check(name: &str, store: &mut impl Store, sku: usize) {
    let [full, other] = [0, 1].map(|location| Cell { sku, location });
    let before = store.reserved().await;
    // Each twice: the second time nothing may change, and the answer is the first one.
    for again in [false, true] {
        let granted = store.reserve("check-some", full, 2).await;
        let reserved = store.reserved().await - before;
        assert_eq!((granted, reserved), (true, 2), "{name}: some, {again}");
    }
    for again in [false, true] {
        let granted = store.reserve("check-too-many", full, UNITS - 1).await;
        let reserved = store.reserved().await - before;
        assert_eq!((granted, reserved), (false, 2), "{name}: too many, {again}");
    }
    for again in [false, true] {
        let granted = store.reserve("check-rest", full, UNITS - 2).await;
        let reserved = store.reserved().await - before;
        assert_eq!((granted, reserved), (true, UNITS), "{name}: rest, {again}");
    }
    for again in [false, true] {
        let granted = store.reserve_lines("check-half", &[other, full]).await;
        let reserved = store.reserved().await - before;
        assert_eq!((granted, reserved), (false, UNITS), "{name}: half, {again}");
    }
    for again in [false, true] {
        let granted = store.reserve_lines("check-lines", &[other; LINES]).await;
        let reserved = store.reserved().await - before - UNITS;
        let lines = LINES as i64;
        assert_eq!((granted, reserved), (true, lines), "{name}: lines, {again}");
    }
}

/// Makes ids, each once in a run.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    prefix: String,
    next: u64,
}

impl Ids {
    /// Of one caller.
    pub(crate) fn new(run: usize, caller: usize) -> Self {
        Self {
            prefix: format!("cart-{run:03}-{caller:03}"),
            next: 0,
        }
    }

    pub(crate) fn next(&mut self) -> String {
        self.next += 1;
        format!("{}-{:09}", self.prefix, self.next)
    }
}

/// Reserves one line a call.
pub(crate) struct OneLine<S> {
    store: S,
    ids: Ids,
    random: Random,
    /// One SKU: all on one cell.
    skus: usize,
}

impl<S: Store> OneLine<S> {
    /// As many callers as there are stores.
    pub(crate) fn callers(stores: Vec<S>, run: usize, skus: usize) -> Vec<Self> {
        let caller = |(at, store)| Self {
            store,
            ids: Ids::new(run, at),
            random: Random(at as u64 + 1),
            skus,
        };
        stores.into_iter().enumerate().map(caller).collect()
    }
}

impl<S: Store> Caller for OneLine<S> {
    async fn call(&mut self) -> u64 {
        let cell = match self.skus {
            1 => Cell::HOT,
            skus => Cell {
                sku: self.random.below(skus),
                location: self.random.below(LOCATIONS),
            },
        };
        let granted = self.store.reserve(&self.ids.next(), cell, 1).await;
        assert!(granted, "there is enough");
        1
    }
}

/// Reserves many lines a call, all on one cell.
pub(crate) struct ManyLines<S> {
    store: S,
    ids: Ids,
}

impl<S: Store> ManyLines<S> {
    /// As many callers as there are stores.
    pub(crate) fn callers(stores: Vec<S>, run: usize) -> Vec<Self> {
        let caller = |(at, store)| Self {
            store,
            ids: Ids::new(run, at),
        };
        stores.into_iter().enumerate().map(caller).collect()
    }
}

impl<S: Store> Caller for ManyLines<S> {
    async fn call(&mut self) -> u64 {
        let id = self.ids.next();
        let granted = self.store.reserve_lines(&id, &[Cell::HOT; LINES]).await;
        assert!(granted, "there is enough");
        LINES as u64
    }
}

/// Looks at one cart a call.
pub(crate) struct Carts<S> {
    store: S,
    random: Random,
    skus: usize,
}

impl<S: Store> Carts<S> {
    /// As many callers as there are stores.
    pub(crate) fn callers(stores: Vec<S>, skus: usize) -> Vec<Self> {
        let caller = |(at, store)| Self {
            store,
            random: Random(at as u64 + 1),
            skus,
        };
        stores.into_iter().enumerate().map(caller).collect()
    }
}

impl<S: Store> Caller for Carts<S> {
    async fn call(&mut self) -> u64 {
        let skus = [(); CART_SKUS].map(|()| self.random.below(self.skus));
        let units = self.store.cart(&skus).await;
        assert_eq!(units, CART_UNITS, "nothing is reserved yet");
        1
    }
}
/// In a cart before anything is reserved.
pub(crate) const CART_UNITS: i64 = (CART_SKUS * LOCATIONS) as i64 * UNITS;
