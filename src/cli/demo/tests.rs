use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;
use crate::{
    domain::movement::{Condition, Kind, Movement},
    wire::movement::from_proto,
};

const NOW_US: TimeUs = 1_767_225_600_000_000;

fn small() -> Plan {
    Plan::new(7, 50, NOW_US)
}

#[test]
fn a_seed_always_gives_the_same_movements() {
    let some = |seed| {
        Generator::new(Plan::new(seed, 10, NOW_US))
            .take(6_000)
            .collect::<Vec<_>>()
    };
    assert_eq!(some(1), some(1));
    assert_ne!(some(1), some(2));
}

#[test]
fn skus_are_distinct_and_their_check_digits_right() {
    let skus: HashSet<String> = (0..50_000).map(catalog::sku).collect();
    assert_eq!(skus.len(), 50_000);
    for sku in &skus {
        assert_eq!(sku.len(), 13);
        assert!(sku.starts_with('2'), "{sku} is not for use in stores");
        let weighted: u32 = sku
            .bytes()
            .rev()
            .zip([1, 3].into_iter().cycle())
            .map(|(digit, weight)| u32::from(digit - b'0') * weight)
            .sum();
        assert_eq!(weighted % 10, 0, "{sku}");
    }
    // A published example of GS1.
    assert_eq!(catalog::check_digit("629104150021"), 3);
}

#[test]
fn every_movement_is_valid_and_none_lies_ahead() {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = 0_usize;
    for movement in Generator::new(small()) {
        let movement = from_proto(&movement).expect("is complete");
        movement.check(NOW_US).expect("is valid");
        assert!(movement.occurred_us <= NOW_US);
        // Within the time for which ids are remembered by default.
        assert!(movement.occurred_us > NOW_US - 6 * 86_400_000_000);
        *kinds.entry(movement.kind.name()).or_default() += 1;
        count += 1;
    }
    assert_eq!(kinds.len(), 10, "{kinds:?}");
    let estimate = small().movements_estimate() as usize;
    assert!(
        count.abs_diff(estimate) < estimate / 5,
        "{count}, and not {estimate}: {kinds:?}"
    );
}

#[derive(Default)]
struct Sum {
    balances: HashMap<(String, String), [i64; 4]>,
    /// Claims of an order line by location.
    claims: HashMap<(String, String), i64>,
    seen: HashMap<(String, String), pb::Movement>,
    repeated: usize,
    conflicting: usize,
    disordered: usize,
}

impl Sum {
    fn add(&mut self, movement: &pb::Movement) {
        let key = (movement.source.clone(), movement.id.clone());
        if let Some(first) = self.seen.get(&key) {
            self.repeated += 1;
            self.conflicting += usize::from(first != movement);
            return;
        }
        self.seen.insert(key, movement.clone());
        self.apply(&from_proto(movement).expect("is complete"));
    }

    fn physical(&mut self, sku: &str, location: &str, condition: Condition, units: i64) {
        let key = (sku.to_owned(), location.to_owned());
        self.balances.entry(key).or_default()[condition as usize] += units;
    }

    fn claim(&mut self, sku: &str, location: &str, units: i64) {
        let key = (sku.to_owned(), location.to_owned());
        *self.claims.entry(key).or_default() += units;
    }

    fn apply(&mut self, m: &Movement<'_>) {
        let (sku, q) = (m.sku, m.quantity);
        match m.kind {
            Kind::Received {
                location,
                condition,
                ..
            }
            | Kind::Adjusted {
                location,
                condition,
                ..
            } => {
                self.physical(sku, location, condition, q);
            }
            Kind::Issued {
                location,
                condition,
                ..
            } => self.physical(sku, location, condition, -q),
            Kind::Reclassified { location, from, to } => {
                self.physical(sku, location, from, -q);
                self.physical(sku, location, to, q);
            }
            Kind::Reserved { location, .. } => self.claim(sku, location, q),
            Kind::Released { location, .. } => {
                self.claim(sku, location.expect("the retailer names it"), -q);
            }
            Kind::Reassigned { from, to, .. } => {
                self.claim(sku, from, -q);
                self.claim(sku, to, q);
            }
            Kind::Shipped { location, .. } => {
                self.physical(sku, location, Condition::Good, -q);
                self.claim(sku, location, -q);
            }
            Kind::Picked { .. } | Kind::Packed { .. } => {}
            other => panic!("the retailer reports no `{}`", other.name()),
        }
    }
}

#[test]
fn the_books_add_up_in_the_end() {
    let mut generator = Generator::new(small());
    let mut sum = Sum::default();
    let mut latest = (0, 0);
    for movement in generator.by_ref() {
        let at = movement.occurred_at.expect("has a time");
        sum.disordered += usize::from((at.seconds, at.nanos) < latest);
        latest = latest.max((at.seconds, at.nanos));
        sum.add(&movement);
    }
    assert!(sum.repeated > 100 && sum.disordered > 1_000);
    assert!(sum.conflicting > 0);
    for (cell, balances) in &sum.balances {
        assert!(
            balances.iter().all(|units| *units >= 0),
            "{cell:?}: {balances:?}"
        );
    }
    let mut oversold: Vec<(String, String)> = Vec::new();
    for (cell, claim) in &sum.claims {
        assert!(*claim >= 0, "{cell:?}: {claim}");
        let good = sum.balances.get(cell).map_or(0, |balances| balances[0]);
        if good < *claim {
            oversold.push(cell.clone());
        }
    }
    let mut meant: Vec<(String, String)> = generator
        .oversold()
        .into_iter()
        .map(|(article, store)| (catalog::sku(article), store))
        .collect();
    oversold.sort();
    meant.sort();
    assert!(!meant.is_empty());
    assert_eq!(oversold, meant);
}

#[test]
fn the_full_retailer_has_the_promised_size() {
    let estimate = Plan::new(1, 1_000, NOW_US).movements_estimate();
    assert!((500_000..=700_000).contains(&estimate), "{estimate}");
}

#[test]
fn the_rules_are_valid() {
    let (rules, warnings) = crate::domain::rules::Rules::parse(RULES).expect("valid");
    assert!(warnings.is_empty(), "{warnings:?}");
    let channels: Vec<&str> = rules.channels().map(|(_, name)| name).collect();
    assert_eq!(channels, ["app", "marketplace", "web"]);
    let unknown =
        rules.warnings(|name| (0..catalog::LOCATIONS).any(|n| catalog::location(n) == name));
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn few_articles_sell_much() {
    let mut random = random::Random::new(3);
    let zipf = random::Zipf::new(20_000);
    let drawn = 100_000;
    let top = (0..drawn)
        .filter(|_| zipf.sample(&mut random) < 2_000)
        .count();
    assert!(top > drawn / 2, "{top} of {drawn} on the top tenth");
}
