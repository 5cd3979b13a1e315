//! What waits to be sent to one receiver: of each SKU its newest number, the most urgent first.
//!
//! Nothing is left out because the receiver has the number already: it may have been asked for once
//! more, after a read-back found another one shown. Such a number only waits the longest.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    domain::movement::TimeUs,
    feed::{Update, UpdateKind},
    log::Position,
};

/// What is sent first, when not all can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It fell to zero, or may have: each sale from now on is one too many.
    SoldOut,
    /// It fell.
    Decrease,
    /// What the receiver has is not known: it may be more.
    Unknown,
    /// It rose: some sales are missed meanwhile.
    Increase,
    /// It is what the receiver has.
    Same,
}

impl Urgency {
    /// Of `units`, told to a receiver that has `before`, as far as that is known.
    pub fn of(before: Option<i64>, units: i64) -> Self {
        match before {
            Some(before) if before == units => Self::Same,
            _ if units <= 0 => Self::SoldOut,
            Some(before) if units < before => Self::Decrease,
            Some(_) => Self::Increase,
            None => Self::Unknown,
        }
    }
}

/// A number that waits, or is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The SKU.
    pub sku: Arc<str>,
    /// Its newest number, in units.
    pub units: i64,
    /// The number is that of this position, at least.
    pub as_of: Position,
    /// When the oldest change in it occurred, and was logged, if it is one.
    pub oldest_us: Option<(TimeUs, TimeUs)>,
    /// How often it was refused, and nothing else with it.
    pub refused: u32,
    /// What the receiver has, as far as that is known.
    before: Option<i64>,
    /// Its place among those of the same urgency.
    turn: u64,
    /// The update that it has been owed for the longest; none for what is sent once more.
    owed: Option<u64>,
}

impl Waiting {
    fn urgency(&self) -> Urgency {
        Urgency::of(self.before, self.units)
    }

    fn key(&self) -> (Urgency, u64) {
        (self.urgency(), self.turn)
    }
}

/// What becomes of a number that was on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was taken, or given up.
    Done,
    /// It waits again, at its old place, unless a newer one does.
    Again,
    /// The same; it was refused.
    Refused,
}

/// See the module. Holds as many SKUs as it is given: who fills it looks at [`Pending::len`].
#[derive(Debug)]
pub struct Pending {
    waiting: HashMap<Arc<str>, Waiting>,
    order: BTreeMap<(Urgency, u64), Arc<str>>,
    /// On their way, and neither taken nor refused yet.
    sent: HashMap<Arc<str>, Waiting>,
    debts: Debts,
    turns: u64,
    conflated: u64,
}

impl Pending {
    /// Nothing waits; everything up to `reached` was delivered.
    pub fn new(reached: Position) -> Self {
        Self {
            waiting: HashMap::new(),
            order: BTreeMap::new(),
            sent: HashMap::new(),
            debts: Debts::new(reached),
            turns: 0,
            conflated: 0,
        }
    }

    /// SKUs that wait, or are on their way.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    /// True if nothing waits, and nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SKUs that wait and are not on their way.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Everything up to here was delivered.
    pub fn reached(&self) -> Position {
        self.debts.reached
    }

    /// Changes that a newer one took the place of.
    pub fn conflated(&self) -> u64 {
        self.conflated
    }

    /// Takes the numbers of an update.
    pub fn take(&mut self, update: &Update) {
        let id = self.debts.begin(update.position);
        let is_change = update.kind == UpdateKind::Changes;
        for number in &update.numbers {
            let oldest_us = is_change.then_some((number.occurred_us, number.logged_us));
            let sku = &number.sku;
            if let Some(mut own) = self.take_out(sku) {
                self.conflated += 1;
                own.units = number.units;
                own.as_of = own.as_of.max(update.as_of);
                own.oldest_us = own.oldest_us.or(oldest_us);
                own.refused = 0;
                // It may be one that is only sent once more: from now on it is owed.
                own.owed = own.owed.or_else(|| Some(self.debts.add(id)));
                self.put(own);
                continue;
            }
            let before = self.sent.get(sku).map(|sent| sent.units);
            let own = Waiting {
                sku: Arc::clone(sku),
                units: number.units,
                as_of: update.as_of,
                oldest_us,
                refused: 0,
                before: before.or(number.before),
                turn: self.next_turn(),
                owed: Some(self.debts.add(id)),
            };
            self.put(own);
        }
        self.debts.settle(id);
    }

    /// Has a number sent once more, unless a newer one waits already.
    pub fn again(&mut self, sku: &str, units: i64, as_of: Position) {
        if self.waiting.contains_key(sku) {
            return;
        }
        let own = Waiting {
            sku: sku.into(),
            units,
            as_of,
            oldest_us: None,
            refused: 0,
            before: None,
            turn: self.next_turn(),
            owed: None,
        };
        self.put(own);
    }

    /// Takes the most urgent ones out, at most so many, as on their way. Until that has
    /// [`ended`](Pending::ended), there must be no other.
    pub fn send(&mut self, items_max: usize) -> Vec<Waiting> {
        debug_assert!(self.sent.is_empty(), "one batch at a time");
        let mut batch = Vec::with_capacity(items_max.min(self.order.len()));
        while batch.len() < items_max
            && let Some((_, sku)) = self.order.pop_first()
        {
            let own = self.waiting.remove(&sku).expect("all in order wait");
            self.sent.insert(sku, own.clone());
            batch.push(own);
        }
        batch
    }

    /// Where the receiver will be once what is on its way is taken.
    pub fn reached_once_taken(&self) -> Position {
        let owed = self.sent.values().filter_map(|sent| sent.owed);
        self.debts.reached_without(owed)
    }

    /// What is on its way was answered, or never will be: `fate` says what becomes of each number,
    /// given whether a newer one of its SKU waits.
    pub fn ended(&mut self, mut fate: impl FnMut(&Waiting, bool) -> Fate) {
        for (sku, mut own) in std::mem::take(&mut self.sent) {
            let newer = self.waiting.contains_key(&sku);
            match fate(&own, newer) {
                Fate::Done => {
                    own.owed.into_iter().for_each(|id| self.debts.pay(id));
                    continue;
                }
                Fate::Again => {}
                Fate::Refused => own.refused += 1,
            }
            if let Some(newer) = self.take_out(&sku) {
                self.conflated += 1;
                // Of both debts, the older one stays.
                if let (Some(_), Some(id)) = (own.owed, newer.owed) {
                    self.debts.pay(id);
                }
                own = Waiting {
                    units: newer.units,
                    as_of: newer.as_of,
                    oldest_us: own.oldest_us.or(newer.oldest_us),
                    refused: 0,
                    owed: own.owed.or(newer.owed),
                    ..own
                };
            }
            self.put(own);
        }
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn put(&mut self, own: Waiting) {
        self.order.insert(own.key(), Arc::clone(&own.sku));
        self.waiting.insert(Arc::clone(&own.sku), own);
    }

    fn take_out(&mut self, sku: &str) -> Option<Waiting> {
        let own = self.waiting.remove(sku)?;
        self.order.remove(&own.key());
        Some(own)
    }
}

/// Which position everything was delivered up to: each number is owed for the oldest update that it
/// has been owed for, and an update is delivered once none of its own, or of those before, is owed.
#[derive(Debug)]
struct Debts {
    reached: Position,
    /// Updates of which numbers are owed, in the order in which they came. One of which none is left
    /// goes into the one before, so there are never more of them than numbers.
    open: BTreeMap<u64, Debt>,
    updates: u64,
}

#[derive(Debug)]
struct Debt {
    /// Everything up to here is delivered once all up to this update is.
    through: Position,
    numbers: usize,
}

impl Debts {
    fn new(reached: Position) -> Self {
        Self {
            reached,
            open: BTreeMap::new(),
            updates: 0,
        }
    }

    /// An update came; gives its name.
    fn begin(&mut self, through: Position) -> u64 {
        self.updates += 1;
        let numbers = 0;
        self.open.insert(self.updates, Debt { through, numbers });
        self.updates
    }

    fn add(&mut self, id: u64) -> u64 {
        self.debt(id).numbers += 1;
        id
    }

    fn pay(&mut self, id: u64) {
        self.debt(id).numbers -= 1;
        self.settle(id);
    }

    fn debt(&mut self, id: u64) -> &mut Debt {
        self.open.get_mut(&id).expect("a number is owed for it")
    }

    /// Lets an update go if none of its numbers is owed.
    fn settle(&mut self, id: u64) {
        if self.debt(id).numbers > 0 {
            return;
        }
        let through = self.debt(id).through;
        self.open.remove(&id);
        let before = self.open.range_mut(..id).next_back();
        let before = before.map_or(&mut self.reached, |(_, debt)| &mut debt.through);
        *before = through.max(*before);
    }

    /// Where it would lead to if these were paid.
    fn reached_without(&self, paid: impl Iterator<Item = u64>) -> Position {
        let mut count = HashMap::new();
        paid.for_each(|id| *count.entry(id).or_insert(0) += 1);
        let is_paid = |(id, debt): &(&u64, &Debt)| count.get(*id) == Some(&debt.numbers);
        let paid = self.open.iter().take_while(is_paid);
        paid.fold(self.reached, |reached, (_, debt)| reached.max(debt.through))
    }
}

#[cfg(test)]
mod tests;
