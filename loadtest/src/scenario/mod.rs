//! What a run does, as a documented TOML file. The keys are in the README of this crate.

pub mod builtin;
mod check;
mod number;

use serde::{Deserialize, Serialize};

use crate::Failure;
pub use number::{Rate, Span};

/// A scenario: its catalogue, how people shop, what moves, and what happens in which phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Short name.
    pub name: String,
    /// One line: what it is about.
    pub summary: String,
    /// What there is at the start.
    #[serde(default)]
    pub catalogue: Catalogue,
    /// How people look and buy.
    #[serde(default)]
    pub shopping: Shopping,
    /// What stores and warehouses report.
    #[serde(default)]
    pub movements: Movements,
    /// Who is told of every change.
    #[serde(default)]
    pub watchers: Watchers,
    /// A recording to post, beside everything else.
    pub replay: Option<Replay>,
    /// What has to be reached for the run to hold.
    #[serde(default)]
    pub objective: Objective,
    /// What happens, one after the other.
    #[serde(rename = "phase", default)]
    pub phases: Vec<Phase>,
}

/// What there is at the start: SKUs, locations, channels, stock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalogue {
    /// SKUs.
    pub skus: u32,
    /// Distribution centres; all have every SKU, and the online channels sell from them.
    pub centres: u16,
    /// Stores.
    pub stores: u16,
    /// Stores that have a SKU.
    pub stores_per_sku: u16,
    /// Opening stock of each SKU at each centre, in units.
    pub centre_units: i64,
    /// Opening stock of each SKU at each store that has it, in units.
    pub store_units: i64,
    /// Online channels, the first one taking the freshness probes.
    pub channels: Vec<String>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            skus: 10_000,
            centres: 2,
            stores: 20,
            stores_per_sku: 4,
            centre_units: 1_000,
            store_units: 20,
            channels: vec!["web".into(), "app".into(), "marketplace".into()],
        }
    }
}

/// How people look and buy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shopping {
    /// How steeply popularity falls: the n-th SKU has a weight of 1 / n^zipf. 0: all alike.
    pub zipf: f64,
    /// Different SKUs of one query.
    pub skus_per_query: Span,
    /// How carts are reserved.
    pub reserve_via: ReserveVia,
    /// Lines of one cart.
    pub cart_lines: Span,
    /// Units of one line.
    pub units_per_line: Span,
    /// Of 100 carts that were granted: orders that are placed. Small carts are the most frequent.
    pub confirm_percent: u32,
    /// Of 100 carts that were granted: given back. The rest is left to expire.
    pub release_percent: u32,
    /// From a cart to its order, or its release, in milliseconds.
    pub think_ms: Span,
    /// Of 100 orders: shipped within the run.
    pub ship_percent: u32,
    /// From the order to its shipment, in milliseconds.
    pub pack_ms: Span,
    /// When a cart that is left expires, in seconds.
    pub abandon_seconds: u32,
}

impl Default for Shopping {
    fn default() -> Self {
        Self {
            zipf: 1.0,
            skus_per_query: Span::new(1, 20),
            reserve_via: ReserveVia::Calls,
            cart_lines: Span::new(1, 5),
            units_per_line: Span::new(1, 2),
            confirm_percent: 70,
            release_percent: 20,
            think_ms: Span::new(100, 1_500),
            ship_percent: 80,
            pack_ms: Span::new(200, 1_500),
            abandon_seconds: 2,
        }
    }
}

/// What stores and warehouses report, beside what shopping causes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Movements {
    /// How they travel.
    pub via: Via,
    /// Movements in one message.
    pub batch: u32,
    /// Of 100 movements: sold over the counter of a store. The rest is received at a centre or a
    /// store.
    pub sold_percent: u32,
    /// Units of one movement.
    pub units: Span,
}

impl Default for Movements {
    fn default() -> Self {
        Self {
            via: Via::Grpc,
            batch: 10,
            sold_percent: 60,
            units: Span::new(1, 3),
        }
    }
}

/// How movements travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// `Movements.PostStream`.
    Grpc,
    /// Published on `movements.loadtest`, acknowledged by JetStream.
    Nats,
}

/// How carts are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReserveVia {
    /// `Reservations.Reserve`, a call for each.
    Calls,
    /// `Reservations.ReserveStream`, a stream on each connection.
    Stream,
}

/// Who is told of every change, by `Feeds.Watch`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watchers {
    /// Watchers of each online channel, from before the first phase until after the last.
    pub per_channel: u32,
}

/// A recording to post.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// NDJSON, one movement a line as `sellable post` takes them, in any order. A relative path is
    /// taken from the scenario's folder. Empty: to be given with `--replay`.
    #[serde(default)]
    pub file: String,
    /// How many seconds of the recording pass in one second.
    pub speed: f64,
}

/// What has to be reached for the run to hold. What is left out is not asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    /// Queries: 99th percentile at most, in milliseconds.
    pub query_p99_ms: Option<f64>,
    /// Reservations: 99th percentile at most, in milliseconds.
    pub reserve_p99_ms: Option<f64>,
    /// Freshness: 99th percentile at most, in milliseconds.
    pub freshness_p99_ms: Option<f64>,
}

/// A stretch of time. Rates are in calls per second: a number, or `{ from = 10, to = 500 }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Short name, for the plots.
    pub name: String,
    /// Length.
    pub seconds: u32,
    /// Its calls are sent and checked, but not measured.
    #[serde(default)]
    pub warm_up: bool,
    /// `Availability.Get`.
    #[serde(default)]
    pub queries: Rate,
    /// Carts, each followed by what becomes of the cart.
    #[serde(default)]
    pub reserves: Rate,
    /// Movements, sent in messages of `movements.batch`.
    #[serde(default)]
    pub movements: Rate,
    /// Returns of shipped orders: received, inspected and restocked.
    #[serde(default)]
    pub returns: Rate,
    /// Freshness probes: a movement, and a query that has to show it.
    #[serde(default)]
    pub probes: Rate,
}

impl Scenario {
    /// Reads a scenario. `name` tells where the text is from.
    ///
    /// # Errors
    /// If it is no TOML, has a key that there is not, or a value that is out of range.
    pub fn parse(text: &str, name: &str) -> Result<Self, Failure> {
        let scenario: Self = toml::from_str(text).map_err(|error| {
            Failure::usage(format!("{name}: {}", error.to_string().trim_end()))
                .hint("every key is documented in loadtest/README.md; `sellable-loadtest scenarios NAME` prints an example")
        })?;
        scenario.check(name)?;
        Ok(scenario)
    }

    /// Checks that every value is within its range.
    ///
    /// # Errors
    /// If one is not; its key is named.
    pub fn check(&self, name: &str) -> Result<(), Failure> {
        check::check(self).map_err(|wrong| Failure::usage(format!("{name}: {wrong}")))
    }

    /// Length of all phases, in seconds.
    pub fn seconds(&self) -> u64 {
        self.phases
            .iter()
            .map(|phase| u64::from(phase.seconds))
            .sum()
    }

    /// Length of the phases that come first and are not measured, in seconds.
    pub fn warm_up_seconds(&self) -> u64 {
        let warm_up = self.phases.iter().take_while(|phase| phase.warm_up);
        warm_up.map(|phase| u64::from(phase.seconds)).sum()
    }

    /// Its phases with one of their rates.
    pub fn rates(&self, of: impl Fn(&Phase) -> Rate) -> Vec<(u32, Rate)> {
        let phases = self.phases.iter();
        phases.map(|phase| (phase.seconds, of(phase))).collect()
    }
}

#[cfg(test)]
mod tests;
