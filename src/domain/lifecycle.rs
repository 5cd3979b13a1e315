//! Lifecycles: what a line puts on its cells is a pure function of its milestone totals and of the
//! time, so it cannot depend on the order in which milestones arrive.
//!
//! Order, inbound, transfer and return lines have one core in common. Units are *opened*
//! (reserved, expected, dispatched, authorized), *withdrawn* (released, cancelled, lost) and
//! *fulfilled* (shipped, received), and what is open, `max(0, opened - withdrawn - fulfilled)`, is
//! claimed of one account: reserved, in transit, or return expected.
//!
//! For each location there is one number, `net`: what was opened there and moved to it, less what
//! was moved away, withdrawn there, and fulfilled there. A location claims `max(0, net)`. What
//! went below zero (a fulfilment elsewhere, say) and what was withdrawn without naming a location
//! is taken from these claims in order of location name. In total that is always what is open,
//! since moves cancel out.
//!
//! A return line also decides what becomes of the units that came back, see [`ReturnedAt`].

use smallvec::SmallVec;

use super::{
    balances::{Account, Balances, Loc, LocationNames},
    keys::{LineKey, LineKind},
    movement::{Disposition, TimeUs},
    posting::{Milestone, UNSTATED_US},
};

/// What a line claims, by location; no order, no zeros.
pub type Claims = SmallVec<[(Loc, i64); 2]>;

impl LineKind {
    /// The account that lines of this kind claim.
    pub const fn account(self) -> Account {
        match self {
            LineKind::Order => Account::Reserved,
            LineKind::Inbound | LineKind::Transfer => Account::InTransit,
            LineKind::Return => Account::ReturnExpected,
        }
    }
}

/// What a milestone does to the core of a line.
pub(super) enum Step {
    /// Opened at a location, with a time.
    Open(Loc, TimeUs),
    /// Withdrawn at a location, or wherever.
    Withdraw(Option<Loc>),
    /// Fulfilled at a location.
    Fulfil(Loc),
    /// Moved from one location to another.
    Move(Loc, Loc),
    /// Nothing.
    None,
}

impl Milestone {
    pub(super) const fn step(&self) -> Step {
        match *self {
            Milestone::Reserved { at, expires_us } => Step::Open(at, expires_us),
            Milestone::Expected { at, eta_us } => Step::Open(at, eta_us),
            Milestone::Dispatched { to, eta_us, .. } => Step::Open(to, eta_us),
            Milestone::Authorized(at) => Step::Open(at, UNSTATED_US),
            Milestone::Released(at) => Step::Withdraw(at),
            Milestone::SupplyCancelled | Milestone::Lost | Milestone::ReturnCancelled => {
                Step::Withdraw(None)
            }
            Milestone::Shipped(at)
            | Milestone::Received { at, .. }
            | Milestone::Arrived { at, .. }
            | Milestone::Returned(at) => Step::Fulfil(at),
            Milestone::Reassigned { from, to } => Step::Move(from, to),
            Milestone::Inspected { .. } | Milestone::Refunded => Step::None,
        }
    }
}

/// Milestone totals of one line, in units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Reserved, expected, dispatched or authorized in all.
    pub opened: i64,
    /// Released, cancelled or lost in all.
    pub withdrawn: i64,
    /// Shipped or received in all.
    pub fulfilled: i64,
    /// Of the withdrawn, what named no location.
    pub withdrawn_anywhere: i64,
    /// The latest time stated: an order line's expiry, the eta of supply.
    pub until_us: TimeUs,
    /// `net` of each location that was ever named; no order.
    pub nets: SmallVec<[(Loc, i64); 1]>,
    /// Order lines: units that return lines name as theirs.
    pub returned: i64,
    /// Return lines: what came back.
    pub returns: Option<Box<Returns>>,
}

/// What a return line has beside its core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Returns {
    /// Refunded in all.
    pub refunded: i64,
    /// By location; no order.
    pub at: SmallVec<[ReturnedAt; 1]>,
    /// The order line that is returned; of several that facts name, that with the greatest key.
    pub order: Option<ReturnedLine>,
}

/// The order line that a return names, and how people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnedLine {
    /// Its key.
    pub key: LineKey,
    /// The order's number.
    pub order: Box<str>,
    /// The line's number.
    pub line: Box<str>,
}

/// Units of one return line at one location.
///
/// The units received are given to the dispositions inspected in a fixed order, restock last; what
/// is left over awaits inspection. An inspection of more units than were received waits until they
/// are. So no unit is sellable before both its receipt and its inspection are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReturnedAt {
    /// Where.
    pub at: Loc,
    /// Units received.
    pub received: i64,
    /// Units inspected, by disposition, in the order of [`DISPOSITIONS`].
    pub inspected: [i64; DISPOSITIONS.len()],
}

/// The order in which units received are given to what was inspected.
pub const DISPOSITIONS: [Disposition; 6] = [
    Disposition::Scrap,
    Disposition::Liquidate,
    Disposition::VendorReturn,
    Disposition::Quarantine,
    Disposition::Refurbish,
    Disposition::Restock,
];

impl Disposition {
    /// Where units go; `None`: outside.
    pub const fn account(self) -> Option<Account> {
        match self {
            Disposition::Scrap => None,
            Disposition::Liquidate => Some(Account::Damaged),
            Disposition::VendorReturn | Disposition::Quarantine | Disposition::Refurbish => {
                Some(Account::Quarantined)
            }
            Disposition::Restock => Some(Account::Good),
        }
    }
}

impl ReturnedAt {
    /// Nothing came back there.
    pub const fn nothing(at: Loc) -> Self {
        Self {
            at,
            received: 0,
            inspected: [0; DISPOSITIONS.len()],
        }
    }

    /// What lies there of it, by account.
    pub fn balances(&self) -> Balances {
        let mut balances = Balances::ZERO;
        let mut left = self.received;
        for (disposition, inspected) in DISPOSITIONS.into_iter().zip(self.inspected) {
            let given = inspected.min(left);
            left -= given;
            if let Some(account) = disposition.account() {
                balances[account] += given;
            }
        }
        balances[Account::ReturnPending] += left;
        balances
    }

    /// Units inspected beyond those received.
    pub fn inspected_beyond(&self) -> i64 {
        (self.inspected.iter().sum::<i64>() - self.received).max(0)
    }

    /// All that was received was inspected, and no more.
    fn is_settled(&self) -> bool {
        self.inspected.iter().sum::<i64>() == self.received
    }
}

/// By how many units the facts of a line do not fit each other; all 0 if they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Misfits {
    /// Fulfilled beyond what was opened and not withdrawn.
    pub beyond: i64,
    /// Order lines: returned beyond what was shipped.
    pub returned: i64,
    /// Return lines: refunded beyond what was received.
    pub refunded: i64,
    /// Supply: open after its eta.
    pub overdue: i64,
}

impl Misfits {
    /// Fulfilled beyond what was opened and not withdrawn: of what was withdrawn too much alone,
    /// nothing was fulfilled.
    pub(super) fn beyond(opened: i64, withdrawn: i64, fulfilled: i64) -> i64 {
        (fulfilled + withdrawn - opened).clamp(0, fulfilled)
    }
}

impl Default for Line {
    fn default() -> Self {
        Self {
            opened: 0,
            withdrawn: 0,
            fulfilled: 0,
            withdrawn_anywhere: 0,
            until_us: UNSTATED_US,
            nets: SmallVec::new(),
            returned: 0,
            returns: None,
        }
    }
}

impl Line {
    /// Adds a milestone to the totals.
    pub fn record(&mut self, milestone: Milestone, units: i64) {
        match milestone.step() {
            Step::Open(at, until_us) => {
                self.opened += units;
                self.until_us = self.until_us.max(until_us);
                *self.net(at) += units;
            }
            Step::Withdraw(at) => {
                self.withdrawn += units;
                match at {
                    Some(at) => *self.net(at) -= units,
                    None => self.withdrawn_anywhere += units,
                }
            }
            Step::Fulfil(at) => {
                self.fulfilled += units;
                *self.net(at) -= units;
            }
            Step::Move(from, to) => {
                *self.net(from) -= units;
                *self.net(to) += units;
            }
            Step::None => {}
        }
        match milestone {
            Milestone::Returned(at) => self.returned_at(at).received += units,
            Milestone::Inspected { at, disposition } => {
                let place = DISPOSITIONS.iter().position(|known| *known == disposition);
                let place = place.expect("all dispositions are listed");
                self.returned_at(at).inspected[place] += units;
            }
            Milestone::Refunded => self.returns.get_or_insert_default().refunded += units,
            _ => {}
        }
    }

    /// What the line claims, if it has not expired.
    pub fn claims(&self, names: &impl LocationNames) -> Claims {
        let mut claims: Claims = self
            .nets
            .iter()
            .filter(|(_, net)| *net > 0)
            .copied()
            .collect();
        let overdrawn: i64 = self.nets.iter().map(|(_, net)| (-net).max(0)).sum();
        let mut to_take = self.withdrawn_anywhere + overdrawn;
        if to_take > 0 {
            claims.sort_unstable_by(|a, b| names.name(a.0).cmp(names.name(b.0)));
            for (_, claim) in &mut claims {
                let taken = to_take.min(*claim);
                *claim -= taken;
                to_take -= taken;
            }
            claims.retain(|(_, claim)| *claim > 0);
        }
        debug_assert_eq!(
            claims.iter().map(|(_, claim)| claim).sum::<i64>(),
            self.open(),
            "claims by location do not add up to the claim of the line"
        );
        claims
    }

    /// Units opened, and neither withdrawn nor fulfilled.
    pub fn open(&self) -> i64 {
        (self.opened - self.withdrawn - self.fulfilled).max(0)
    }

    /// What of a return line lies at a location.
    pub fn at(&self, at: Loc) -> ReturnedAt {
        let returns = self.returns.as_deref();
        returns
            .and_then(|returns| returns.at.iter().find(|place| place.at == at))
            .copied()
            .unwrap_or(ReturnedAt::nothing(at))
    }

    /// Units of the order line that a return line is for: authorized and not cancelled, or
    /// received.
    pub fn claimed_back(&self) -> i64 {
        (self.opened - self.withdrawn).max(self.fulfilled).max(0)
    }

    /// How its facts do not fit each other.
    pub fn misfits(&self, kind: LineKind, now_us: TimeUs) -> Misfits {
        let refunded = self
            .returns
            .as_deref()
            .map_or(0, |returns| returns.refunded);
        Misfits {
            beyond: Misfits::beyond(self.opened, self.withdrawn, self.fulfilled),
            // Of an order that nothing else is known of, it cannot be told.
            returned: if kind == LineKind::Order && !self.is_unknown() {
                (self.returned - self.fulfilled).max(0)
            } else {
                0
            },
            refunded: if kind == LineKind::Return {
                (refunded - self.fulfilled).max(0)
            } else {
                0
            },
            overdue: if is_overdue(kind, self.until_us, now_us) {
                self.open()
            } else {
                0
            },
        }
    }

    /// Nothing is known of it but what others say.
    pub fn is_unknown(&self) -> bool {
        self.opened == 0 && self.withdrawn == 0 && self.fulfilled == 0 && self.nets.is_empty()
    }

    /// As if it had never been.
    pub fn is_nothing(&self) -> bool {
        self.is_unknown() && self.returned == 0 && self.returns.is_none()
    }

    /// Nothing more is to come of it, and nothing is wrong with it.
    pub fn is_settled(&self, kind: LineKind, now_us: TimeUs) -> bool {
        (self.open() == 0 || has_expired(kind, self.until_us, now_us))
            && self.misfits(kind, now_us) == Misfits::default()
            && self
                .returns
                .as_deref()
                .is_none_or(|returns| returns.at.iter().all(ReturnedAt::is_settled))
    }

    /// Came back, and was not refunded (yet).
    pub fn is_unrefunded(&self) -> bool {
        let refunded = self
            .returns
            .as_deref()
            .map_or(0, |returns| returns.refunded);
        refunded < self.fulfilled
    }

    fn net(&mut self, at: Loc) -> &mut i64 {
        let index = self.nets.iter().position(|(loc, _)| *loc == at);
        let index = index.unwrap_or_else(|| {
            self.nets.push((at, 0));
            self.nets.len() - 1
        });
        &mut self.nets[index].1
    }

    fn returned_at(&mut self, at: Loc) -> &mut ReturnedAt {
        let places = &mut self.returns.get_or_insert_default().at;
        let index = places.iter().position(|place| place.at == at);
        let index = index.unwrap_or_else(|| {
            places.push(ReturnedAt::nothing(at));
            places.len() - 1
        });
        &mut places[index]
    }
}

/// Whether an order line's claims are over.
pub(super) fn has_expired(kind: LineKind, until_us: TimeUs, now_us: TimeUs) -> bool {
    kind == LineKind::Order && until_us != UNSTATED_US && until_us <= now_us
}

/// Whether supply should have come.
pub(super) fn is_overdue(kind: LineKind, until_us: TimeUs, now_us: TimeUs) -> bool {
    matches!(kind, LineKind::Inbound | LineKind::Transfer)
        && until_us != UNSTATED_US
        && until_us < now_us
}
