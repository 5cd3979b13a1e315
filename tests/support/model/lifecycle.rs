//! Milestone totals of one line, and what they put on the cells.

use std::collections::{BTreeMap, BTreeSet};

use sellable::domain::{
    balances::Account,
    keys::LineKind,
    movement::{Disposition, TimeUs},
};

use super::{
    Misreading,
    fact::{Fact, Line, What},
};

/// Units by location name.
pub(crate) type ByLocation = BTreeMap<String, i64>;

pub(crate) fn sum(units: &ByLocation) -> i64 {
    units.values().sum()
}

/// Totals of one line of any kind: units by milestone, and by location where there is one.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Reserved, expected, on its way, or authorized.
    pub(crate) opened: ByLocation,
    /// Released at a location.
    pub(crate) withdrawn: ByLocation,
    /// Released anywhere, cancelled, or lost.
    pub(crate) withdrawn_anywhere: i64,
    /// Shipped, or received.
    pub(crate) fulfilled: ByLocation,
    pub(crate) moved_in: ByLocation,
    pub(crate) moved_out: ByLocation,
    /// What each of the facts that opened it said about time: when it expires, or when it should
    /// arrive.
    pub(crate) stated_us: Vec<Option<TimeUs>>,
    /// Returned units that came back.
    pub(crate) received: ByLocation,
    /// By location and disposition.
    pub(crate) inspected: BTreeMap<(String, u8), i64>,
    pub(crate) refunded: i64,
    /// Order lines that are returned.
    pub(crate) orders: BTreeSet<Line>,
}

/// "In this fixed order, restock last: scrap, liquidate, vendor_return, quarantine, refurbish,
/// restock", and "scrap → outside; liquidate → damaged; vendor_return, quarantine, refurbish →
/// quarantined; restock → good".
const IN_THIS_ORDER: [(Disposition, Option<Account>); 6] = [
    (Disposition::Scrap, None),
    (Disposition::Liquidate, Some(Account::Damaged)),
    (Disposition::VendorReturn, Some(Account::Quarantined)),
    (Disposition::Quarantine, Some(Account::Quarantined)),
    (Disposition::Refurbish, Some(Account::Quarantined)),
    (Disposition::Restock, Some(Account::Good)),
];

impl Totals {
    /// Takes one fact about this line into account.
    pub(crate) fn take(&mut self, fact: &Fact) {
        let q = fact.quantity;
        let add = |units: &mut ByLocation, at: &String| {
            *units.entry(at.clone()).or_default() += q;
        };
        match &fact.what {
            What::Reserved(_, at, us) | What::Expected(_, at, us) => {
                add(&mut self.opened, at);
                self.stated_us.push(*us);
            }
            What::Dispatched(_, _, to, us) => {
                add(&mut self.opened, to);
                self.stated_us.push(*us);
            }
            What::Authorized(_, at, order) => {
                add(&mut self.opened, at);
                self.orders.extend(order.clone());
            }
            What::Released(_, Some(at)) => add(&mut self.withdrawn, at),
            What::Released(_, None)
            | What::SupplyCancelled(_)
            | What::Lost(_)
            | What::ReturnCancelled(_) => self.withdrawn_anywhere += q,
            What::Reassigned(_, from, to) => {
                add(&mut self.moved_out, from);
                add(&mut self.moved_in, to);
            }
            What::Shipped(_, at) | What::ReceivedOf(_, at, _) | What::Arrived(_, at, _) => {
                add(&mut self.fulfilled, at);
            }
            What::Returned(_, at) => {
                add(&mut self.fulfilled, at);
                add(&mut self.received, at);
            }
            What::Inspected(_, at, disposition) => {
                let disposition = disposition.expect("others are parked");
                let key = (at.clone(), disposition as u8);
                *self.inspected.entry(key).or_default() += q;
            }
            What::Refunded(_) => self.refunded += q,
            What::Prolonged(_, us) => self.stated_us.push(*us),
            other => unreachable!("{other:?} is not about a line"),
        }
    }

    /// Opened, withdrawn and fulfilled in all.
    pub(crate) fn all(&self) -> [i64; 3] {
        let withdrawn = sum(&self.withdrawn) + self.withdrawn_anywhere;
        [sum(&self.opened), withdrawn, sum(&self.fulfilled)]
    }

    /// "Its claim is `max(0, reserved - released - shipped)` in total. By location: what was
    /// reserved there, plus reassigned in, minus reassigned out, minus shipped from there, not
    /// below 0; shipments from elsewhere and releases that name no location are taken from the
    /// remaining claims in order of location name. Expired: what is still claimed is released."
    /// A release that names a location is taken from there. Supply and returns "likewise".
    pub(crate) fn claims(
        &self,
        kind: LineKind,
        now_us: TimeUs,
        misreading: Misreading,
    ) -> ByLocation {
        if kind == LineKind::Order && self.has_expired(now_us, misreading) {
            return ByLocation::new();
        }
        let of = |totals: &ByLocation, at: &String| totals.get(at).copied().unwrap_or(0);
        let [opened, withdrawn, fulfilled] = self.all();
        let claim = (opened - withdrawn - fulfilled).max(0);
        let locations: BTreeSet<&String> = [
            &self.opened,
            &self.withdrawn,
            &self.fulfilled,
            &self.moved_in,
            &self.moved_out,
        ]
        .into_iter()
        .flat_map(BTreeMap::keys)
        .collect();
        let mut claims: ByLocation = locations
            .into_iter()
            .map(|at| {
                let there = of(&self.opened, at) + of(&self.moved_in, at)
                    - of(&self.moved_out, at)
                    - of(&self.withdrawn, at)
                    - of(&self.fulfilled, at);
                (at.clone(), there.max(0))
            })
            .collect();
        let mut surplus = sum(&claims) - claim;
        let mut take = |there: &mut i64| {
            let taken = surplus.min(*there);
            *there -= taken;
            surplus -= taken;
        };
        if misreading == Misreading::LastNameFirst {
            claims.values_mut().rev().for_each(&mut take);
        }
        claims.values_mut().for_each(take);
        claims.retain(|_, units| *units > 0);
        claims
    }

    /// Of several times the latest counts, and what has none never expires.
    fn has_expired(&self, now_us: TimeUs, misreading: Misreading) -> bool {
        let over = |us: &Option<TimeUs>| us.is_some_and(|us| us <= now_us);
        match misreading {
            Misreading::NoExpiry => return false,
            Misreading::FirstTimeCounts => return self.stated_us.iter().any(over),
            _ => {}
        }
        !self.stated_us.is_empty() && self.stated_us.iter().all(over)
    }

    /// Units inspected at a location.
    pub(crate) fn inspected_at(&self, at: &String) -> i64 {
        let there = self.inspected.iter().filter(|((place, _), _)| place == at);
        there.map(|(_, units)| units).sum()
    }

    /// What lies at a location of the units received there, by account; and how many of them were
    /// scrapped.
    pub(crate) fn disposed(
        &self,
        at: &String,
        misreading: Misreading,
    ) -> (Vec<(Account, i64)>, i64) {
        let mut left = self.received.get(at).copied().unwrap_or(0);
        let (mut there, mut scrapped) = (Vec::new(), 0);
        let mut order = IN_THIS_ORDER;
        if misreading == Misreading::RestockFirst {
            order.rotate_right(1);
        }
        for (disposition, account) in order {
            let inspected = self.inspected.get(&(at.clone(), disposition as u8));
            let inspected = inspected.copied().unwrap_or(0);
            let given = if misreading == Misreading::InspectedBeforeReceipt {
                inspected
            } else {
                left.min(inspected)
            };
            left -= given;
            match account {
                Some(account) => there.push((account, given)),
                None => scrapped += given,
            }
        }
        there.push((Account::ReturnPending, left));
        (there, scrapped)
    }
}
