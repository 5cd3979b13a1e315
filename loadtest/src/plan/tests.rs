use super::*;
use crate::scenario::builtin;

fn plan(name: &str, seed: u64) -> Plan {
    let scenario = builtin::load(name).expect(name);
    let catalogue = Catalogue::new(&scenario.catalogue, "lt", seed);
    let recording = scenario.replay.as_ref().map(|_| {
        let text = builtin::RECORDING.as_bytes();
        Arc::new(Recording::read(text, "recording", "lt").expect("sound"))
    });
    Plan::new(&scenario, &catalogue, recording, seed)
}

fn digest(name: &str, seed: u64) -> (usize, String) {
    let mut plan = plan(name, seed);
    let calls = plan.by_ref().count();
    (calls, plan.digest())
}

#[test]
fn one_seed_plans_the_same_and_another_one_does_not() {
    for (name, _) in builtin::BUILT_IN {
        let first = digest(name, 1);
        assert!(first.0 > 1_000, "{name}: {first:?}");
        assert_eq!(first, digest(name, 1), "{name}");
        assert_ne!(first.1, digest(name, 2).1, "{name}");
    }
}

#[test]
fn everything_is_planned_in_order_of_time() {
    for (name, _) in builtin::BUILT_IN {
        let due: Vec<Duration> = plan(name, 1).map(|(due, _)| due).collect();
        assert!(due.is_sorted(), "{name}");
    }
}

#[test]
fn each_step_of_an_order_comes_after_the_one_before() {
    let mut state = std::collections::HashMap::new();
    let mut returned = 0;
    for (_, op) in plan("black_friday", 3) {
        match op {
            Op::Reserve(cart) => assert_eq!(state.insert(cart.order, "reserved"), None),
            Op::Confirm(order) => {
                assert_eq!(state.insert(order, "confirmed"), Some("reserved"));
            }
            Op::Release(order) => {
                assert_eq!(state.insert(order, "released"), Some("reserved"));
            }
            Op::Ship(order) => assert_eq!(state.insert(order, "shipped"), Some("confirmed")),
            Op::Return(order) => {
                assert_eq!(state.insert(order, "returned"), Some("shipped"));
                returned += 1;
            }
            _ => {}
        }
    }
    assert!(returned > 100, "{returned}");
}

#[test]
fn stores_never_sell_what_they_do_not_have() {
    let scenario = builtin::load("marketplace_storm").expect("built in");
    let catalogue = Catalogue::new(&scenario.catalogue, "lt", 1);
    let mut shelves = std::collections::HashMap::new();
    for (_, op) in plan("marketplace_storm", 1) {
        let Op::Move { moves, .. } = op else { continue };
        for moved in moves {
            let opening = catalogue.opening(moved.slot);
            let shelf = shelves.entry((moved.sku, moved.slot)).or_insert(opening);
            *shelf += match moved.change {
                Change::Received => i64::from(moved.units),
                Change::Sold => -i64::from(moved.units),
            };
            assert!(*shelf >= 0, "{moved:?}");
            assert!(moved.change == Change::Received || moved.slot >= catalogue.centres());
        }
    }
}

#[test]
fn a_recording_is_replayed_whole_and_at_its_speed() {
    let mut next = 0;
    for (due, op) in plan("replay", 1) {
        if let Op::Replay { first, count } = op {
            assert_eq!(first, next);
            assert!(count > 0);
            next += count;
            assert!(due < Duration::from_secs(20));
        }
    }
    assert_eq!(next, builtin::RECORDING.lines().count());
}
