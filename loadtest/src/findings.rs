//! What was checked, and what was wrong.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Most examples kept of what is wrong, for each check.
const EXAMPLES_MAX: usize = 8;

/// What is checked, in the order in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Never less than nothing free, in the log's order.
    Oversell,
    /// Every cell holds what the own books say.
    Balances,
    /// Nothing is below zero.
    BelowZero,
    /// Sent again, a movement is known.
    MovementsIn,
    /// Sent again, a reservation gets its first decision.
    DecidedOnce,
    /// A grant covers the cart, a refusal names what was short.
    Reservations,
    /// A query after a movement shows it.
    ReadYourWrites,
    /// An answer has one item for each SKU, in their order, not below zero.
    Answers,
    /// Watchers were told the numbers that queries answer.
    Watched,
    /// The number follows from its terms.
    Explained,
    /// What was left has expired.
    Expired,
    /// Units in less units out are the balances.
    Conserved,
    /// Every call whose answer was lost was settled in the end.
    Settled,
}

impl Check {
    const ALL: [(Self, &'static str); 13] = [
        (
            Self::Oversell,
            "never oversold: less than nothing was free at no position of the log",
        ),
        (
            Self::Balances,
            "balances are what the generator's own books say",
        ),
        (Self::BelowZero, "no balance is below zero"),
        (
            Self::MovementsIn,
            "acknowledged movements are in: sent again, they are known",
        ),
        (
            Self::DecidedOnce,
            "reservations are decided once: sent again, the same decision",
        ),
        (
            Self::Reservations,
            "grants cover the cart, refusals name what is short",
        ),
        (
            Self::ReadYourWrites,
            "an acknowledged movement is visible to the next query",
        ),
        (Self::Answers, "queries answer every SKU, in order"),
        (
            Self::Watched,
            "watchers were told what queries answer, without a gap",
        ),
        (Self::Explained, "numbers follow from their explained terms"),
        (Self::Expired, "carts that were left have expired"),
        (Self::Conserved, "no unit was made or lost (digest)"),
        (
            Self::Settled,
            "calls without an answer were settled by asking again",
        ),
    ];

    /// What is checked, in a line.
    pub fn what(self) -> &'static str {
        let found = Self::ALL.iter().find(|(check, _)| *check == self);
        found.map_or("", |(_, what)| what)
    }
}

/// What came of one check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is checked, in a line.
    pub what: String,
    /// How often.
    pub checked: u64,
    /// How often it was wrong.
    pub wrong: u64,
    /// The first that were.
    pub examples: Vec<String>,
    /// Why less was checked than one would think; mostly empty.
    pub note: String,
}

/// Collects findings, from all tasks.
#[derive(Debug, Default)]
pub struct Findings(Mutex<BTreeMap<Check, Finding>>);

impl Findings {
    /// So many were checked and are right.
    pub fn right(&self, check: Check, count: u64) {
        self.at(check, |finding| finding.checked += count);
    }

    /// One was checked and is wrong.
    pub fn wrong(&self, check: Check, example: impl FnOnce() -> String) {
        self.at(check, |finding| {
            finding.checked += 1;
            finding.wrong += 1;
            if finding.examples.len() < EXAMPLES_MAX {
                finding.examples.push(example());
            }
        });
    }

    /// One was checked.
    pub fn that(&self, check: Check, right: bool, example: impl FnOnce() -> String) {
        if right {
            self.right(check, 1);
        } else {
            self.wrong(check, example);
        }
    }

    /// Why less was checked than one would think.
    pub fn note(&self, check: Check, note: impl Into<String>) {
        self.at(check, |finding| finding.note = note.into());
    }

    /// All of them, by check.
    pub fn all(&self) -> Vec<Finding> {
        let findings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        findings.values().cloned().collect()
    }

    fn at(&self, check: Check, change: impl FnOnce(&mut Finding)) {
        let mut findings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(findings.entry(check).or_insert_with(|| Finding {
            what: check.what().to_owned(),
            ..Finding::default()
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_examples_are_kept() {
        let findings = Findings::default();
        findings.right(Check::Balances, 5);
        for n in 0..20 {
            findings.wrong(Check::Balances, || n.to_string());
        }
        let all = findings.all();
        assert_eq!((all[0].checked, all[0].wrong), (25, 20));
        assert_eq!(all[0].examples.len(), EXAMPLES_MAX);
    }

    #[test]
    fn every_check_says_what_it_is() {
        for (check, _) in Check::ALL {
            assert!(!check.what().is_empty(), "{check:?}");
        }
    }
}
