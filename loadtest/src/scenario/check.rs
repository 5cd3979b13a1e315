//! Values that are out of range, by the name of their key.

use std::{fmt::Display, ops::RangeInclusive};

use super::{Rate, Scenario, Span};
use crate::{
    orders::ORDERS_MAX,
    schedule::{RATE_MAX, SECONDS_MAX},
    zipf::EXPONENT_MAX,
};

/// Most cells of a catalogue: each takes 24 bytes here, and some 100 at the server.
const CELLS_MAX: u64 = 10_000_000;
const SKUS_MAX: u32 = 5_000_000;
const CENTRES_MAX: u16 = 100;
const STORES_MAX: u16 = 5_000;
const CHANNELS_MAX: usize = 200;
const UNITS_MAX: i64 = 1_000_000;
const SKUS_PER_QUERY_MAX: u32 = 1_000;
const CART_LINES_MAX: u32 = 100;
const BATCH_MAX: u32 = 1_000;
const DELAY_MS_MAX: u32 = 600_000;
const ABANDON_SECONDS_MAX: u32 = 3_600;
/// Most numbers that all watchers hold, 16 bytes each.
const WATCHED_MAX: u64 = 50_000_000;
const SPEED_MAX: f64 = 1_000_000.0;

/// What is wrong with a scenario, in one line.
pub(super) fn check(scenario: &Scenario) -> Result<(), String> {
    let catalogue = &scenario.catalogue;
    within("catalogue.skus", catalogue.skus, 1..=SKUS_MAX)?;
    within("catalogue.centres", catalogue.centres, 1..=CENTRES_MAX)?;
    within("catalogue.stores", catalogue.stores, 0..=STORES_MAX)?;
    within(
        "catalogue.stores_per_sku",
        catalogue.stores_per_sku,
        0..=catalogue.stores,
    )?;
    let cells = u64::from(catalogue.skus)
        * (u64::from(catalogue.centres) + u64::from(catalogue.stores_per_sku));
    if cells > CELLS_MAX {
        return Err(format!(
            "catalogue: skus × (centres + stores_per_sku) are {cells} cells, at most {CELLS_MAX}"
        ));
    }
    within(
        "catalogue.centre_units",
        catalogue.centre_units,
        1..=UNITS_MAX,
    )?;
    within(
        "catalogue.store_units",
        catalogue.store_units,
        1..=UNITS_MAX,
    )?;
    within(
        "catalogue.channels: their number",
        catalogue.channels.len(),
        1..=CHANNELS_MAX,
    )?;
    let shopping = &scenario.shopping;
    within("shopping.zipf", shopping.zipf, 0.0..=EXPONENT_MAX)?;
    let skus = catalogue.skus;
    span(
        "shopping.skus_per_query",
        shopping.skus_per_query,
        1..=SKUS_PER_QUERY_MAX.min(skus),
    )?;
    span(
        "shopping.cart_lines",
        shopping.cart_lines,
        1..=CART_LINES_MAX.min(skus),
    )?;
    span(
        "shopping.units_per_line",
        shopping.units_per_line,
        1..=10_000,
    )?;
    within(
        "shopping.confirm_percent",
        shopping.confirm_percent,
        0..=100,
    )?;
    within(
        "shopping.release_percent",
        shopping.release_percent,
        0..=100 - shopping.confirm_percent,
    )?;
    span("shopping.think_ms", shopping.think_ms, 0..=DELAY_MS_MAX)?;
    within("shopping.ship_percent", shopping.ship_percent, 0..=100)?;
    span("shopping.pack_ms", shopping.pack_ms, 0..=DELAY_MS_MAX)?;
    within(
        "shopping.abandon_seconds",
        shopping.abandon_seconds,
        1..=ABANDON_SECONDS_MAX,
    )?;
    let movements = &scenario.movements;
    within("movements.batch", movements.batch, 1..=BATCH_MAX)?;
    within("movements.sold_percent", movements.sold_percent, 0..=100)?;
    span("movements.units", movements.units, 1..=10_000)?;
    within(
        "watchers.per_channel",
        scenario.watchers.per_channel,
        0..=10_000,
    )?;
    let watchers = u64::from(scenario.watchers.per_channel) * catalogue.channels.len() as u64;
    let held = watchers * u64::from(skus);
    if held > WATCHED_MAX {
        return Err(format!(
            "watchers: {watchers} watchers of {skus} SKUs hold {held} numbers, at most {WATCHED_MAX}"
        ));
    }
    if let Some(replay) = &scenario.replay {
        within("replay.speed", replay.speed, 0.001..=SPEED_MAX)?;
    }
    let objective = &scenario.objective;
    for (name, limit) in [
        ("objective.query_p99_ms", objective.query_p99_ms),
        ("objective.reserve_p99_ms", objective.reserve_p99_ms),
        ("objective.freshness_p99_ms", objective.freshness_p99_ms),
    ] {
        if let Some(limit) = limit {
            within(name, limit, 0.001..=3_600_000.0)?;
        }
    }
    phases(scenario)
}

fn phases(scenario: &Scenario) -> Result<(), String> {
    if scenario.phases.is_empty() {
        return Err("there is no [[phase]]: a run needs at least one".to_owned());
    }
    let mut orders = 0.0;
    for (n, phase) in scenario.phases.iter().enumerate() {
        let at = |key: &str| format!("phase {} ({}): {key}", n + 1, phase.name);
        within(&at("seconds"), u64::from(phase.seconds), 1..=SECONDS_MAX)?;
        for (key, Rate { from, to }) in [
            ("queries", phase.queries),
            ("reserves", phase.reserves),
            ("movements", phase.movements),
            ("returns", phase.returns),
            ("probes", phase.probes),
        ] {
            for rate in [from, to] {
                within(&at(key), rate, 0.0..=RATE_MAX as f64)?;
            }
        }
        if phase.warm_up && !scenario.phases[..n].iter().all(|before| before.warm_up) {
            return Err(format!(
                "{} comes after a phase that is measured",
                at("warm_up")
            ));
        }
        orders += (phase.reserves.from + phase.reserves.to) / 2.0 * f64::from(phase.seconds);
    }
    if orders > ORDERS_MAX as f64 {
        return Err(format!(
            "the phases have {orders:.0} reserves in all, at most {ORDERS_MAX}: each is followed to its end"
        ));
    }
    if scenario.seconds() > SECONDS_MAX {
        return Err(format!(
            "the phases take {} seconds in all, at most {SECONDS_MAX}",
            scenario.seconds()
        ));
    }
    Ok(())
}

fn span(key: &str, span: Span, range: RangeInclusive<u32>) -> Result<(), String> {
    within(key, span.from, range.clone())?;
    within(key, span.to, range)
}

fn within<T: PartialOrd + Display>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!(
        "{key}: {value} is not from {} to {}",
        range.start(),
        range.end()
    ))
}
