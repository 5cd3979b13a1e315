use super::*;

fn question() -> Question {
    Question {
        objective: Objective::default(),
        rate_first: 1_000.0,
        rate_max: 50_000.0,
        movements_per_query: 0.2,
        reserves_per_query: 0.02,
        skus_per_query: 20,
        probes: 100.0,
        warm_up_seconds: 1,
        measure_seconds: 2,
        within_percent: 10,
        headroom_percent: 40,
    }
}

/// Rates that are tried where all up to `capacity` hold, and the one that is found.
fn tried(capacity: f64) -> (Vec<f64>, f64) {
    let question = question();
    let (mut known, mut rates) = (Known::default(), Vec::new());
    while let Some(rate) = known.next(&question) {
        rates.push(rate);
        match rate <= capacity {
            true => known.holds = rate,
            false => known.broken = Some((rate, "slow".to_owned())),
        }
    }
    (rates, known.holds)
}

#[test]
fn it_doubles_until_it_breaks_and_halves_what_is_between() {
    let (rates, found) = tried(5_300.0);
    assert_eq!(rates[..4], [1_000.0, 2_000.0, 4_000.0, 8_000.0]);
    assert_eq!(rates[4..], [6_000.0, 5_000.0, 5_500.0]);
    assert_eq!(found, 5_000.0);
}

#[test]
fn a_first_rate_that_is_too_much_is_halved() {
    let (rates, found) = tried(300.0);
    assert_eq!(rates[..3], [1_000.0, 500.0, 250.0]);
    assert!((270.0..=300.0).contains(&found), "{found}");
}

#[test]
fn it_ends_where_nothing_holds_and_where_everything_does() {
    let (rates, found) = tried(0.0);
    assert_eq!((rates.last().copied(), found), (Some(32.0), 0.0));
    let (rates, found) = tried(1e9);
    assert_eq!((rates.last(), found), (Some(&50_000.0), 50_000.0));
}
