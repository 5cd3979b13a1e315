//! The balances of a cell: one SKU at one location.

use std::ops::{AddAssign, Index, IndexMut};

use super::movement::Condition;

/// Number of a location within this process. It depends on the order of arrival, so nothing that
/// replicas must agree on may depend on it; use the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loc(pub u32);

/// Names of locations by their number.
pub trait LocationNames {
    /// The name of `loc`.
    fn name(&self, loc: Loc) -> &str;
}

/// One of the seven balances of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Account {
    /// Physical: sound, on the shelf; includes what is reserved.
    Good = 0,
    /// Physical: on hold.
    Quarantined = 1,
    /// Physical: not sellable.
    Damaged = 2,
    /// Physical: came back, awaits inspection.
    ReturnPending = 3,
    /// Claim: promised, not shipped.
    Reserved = 4,
    /// Expectation: on its way to this location.
    InTransit = 5,
    /// Expectation: return authorized, not received.
    ReturnExpected = 6,
}

impl Account {
    /// The physical ones.
    pub const PHYSICAL: [Account; 4] = [
        Account::Good,
        Account::Quarantined,
        Account::Damaged,
        Account::ReturnPending,
    ];

    /// The name of the account.
    pub const fn name(self) -> &'static str {
        match self {
            Account::Good => "good",
            Account::Quarantined => "quarantined",
            Account::Damaged => "damaged",
            Account::ReturnPending => "return_pending",
            Account::Reserved => "reserved",
            Account::InTransit => "in_transit",
            Account::ReturnExpected => "return_expected",
        }
    }
}

/// Number of accounts of a cell.
pub const ACCOUNTS: usize = 7;

impl From<Condition> for Account {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Good => Account::Good,
            Condition::Quarantined => Account::Quarantined,
            Condition::Damaged => Account::Damaged,
            Condition::ReturnPending => Account::ReturnPending,
        }
    }
}

/// The balances of one cell, or a change of them, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Balances(pub [i64; ACCOUNTS]);

impl Balances {
    /// Nothing.
    pub const ZERO: Self = Self([0; ACCOUNTS]);

    /// A change of `units` in one account.
    pub fn of(account: Account, units: i64) -> Self {
        let mut balances = Self::ZERO;
        balances[account] = units;
        balances
    }

    /// Everything physically there: good + quarantined + damaged + return pending.
    pub const fn on_hand(&self) -> i64 {
        self.0[0] + self.0[1] + self.0[2] + self.0[3]
    }

    /// Good and not promised; negative if oversold.
    pub const fn free(&self) -> i64 {
        self.0[Account::Good as usize] - self.0[Account::Reserved as usize]
    }

    /// True if a person should look: oversold, or a physical balance below 0.
    #[inline]
    pub fn is_wrong(&self) -> bool {
        let [good, quarantined, damaged, return_pending, reserved, ..] = self.0;
        // The sign bit of any of them.
        (good | quarantined | damaged | return_pending | (good - reserved)) < 0
    }

    /// True if there is nothing in any account.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|units| *units == 0)
    }
}

impl Index<Account> for Balances {
    type Output = i64;
    fn index(&self, account: Account) -> &i64 {
        &self.0[account as usize]
    }
}

impl IndexMut<Account> for Balances {
    fn index_mut(&mut self, account: Account) -> &mut i64 {
        &mut self.0[account as usize]
    }
}

impl AddAssign for Balances {
    fn add_assign(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}
