//! What there is: names of SKUs and locations, which location has which SKU, opening stock, rules.
//!
//! A cell is a SKU at one of its locations. Cells are numbered densely, `sku × width + slot`, so
//! that books of them are a plain array: the centres have the first slots, stores the others.

use std::fmt::Write;

use crate::{
    proto::{Condition, Movement, Received, movement::Kind},
    random::Random,
    scenario,
};

/// Name of the source of all movements, and so the token of their NATS subject.
pub const SOURCE: &str = "loadtest";
/// SKUs that take the freshness probes, one after the other: each has to show its number of
/// probes, and a probe of the same SKU would hide behind the next one.
pub const PROBE_SKUS: u32 = 64;

const STREAM: u128 = 0x00CA_7A10;

/// Names and stock of a run.
#[derive(Debug)]
pub struct Catalogue {
    prefix: String,
    config: scenario::Catalogue,
    /// By SKU and slot of a store: the store.
    stores: Vec<u16>,
}

impl Catalogue {
    /// Equal seeds have the same SKUs in the same stores; `prefix` begins every name of a run, so
    /// that runs on one server do not meet.
    pub fn new(config: &scenario::Catalogue, prefix: &str, seed: u64) -> Self {
        let mut random = Random::new(seed, STREAM);
        let per_sku = usize::from(config.stores_per_sku);
        let mut stores = Vec::with_capacity(config.skus as usize * per_sku);
        for _ in 0..config.skus {
            // Neighbors in a ring from a random one on: different ones, at one draw for each SKU.
            let first = random.below(u64::from(config.stores)) as u16;
            let next = |n: u16| (u32::from(first) + u32::from(n)) % u32::from(config.stores);
            stores.extend((0..config.stores_per_sku).map(|n| next(n) as u16));
        }
        Self {
            prefix: prefix.to_owned(),
            config: config.clone(),
            stores,
        }
    }

    /// SKUs that are sold.
    pub fn skus(&self) -> u32 {
        self.config.skus
    }

    /// Locations of each SKU.
    pub fn width(&self) -> u32 {
        u32::from(self.config.centres) + u32::from(self.config.stores_per_sku)
    }

    /// Distribution centres; they have the first slots.
    pub fn centres(&self) -> u32 {
        u32::from(self.config.centres)
    }

    /// Cells in all.
    pub fn cells(&self) -> usize {
        self.config.skus as usize * self.width() as usize
    }

    /// Number of a cell.
    pub fn cell(&self, sku: u32, slot: u32) -> usize {
        sku as usize * self.width() as usize + slot as usize
    }

    /// Online channels.
    pub fn channels(&self) -> &[String] {
        &self.config.channels
    }

    /// Name of a SKU.
    pub fn sku(&self, sku: u32) -> String {
        format!("{}-{sku:07}", self.prefix)
    }

    /// The SKU of a name, if it is one of this run that is sold.
    pub fn number_of(&self, name: &str) -> Option<u32> {
        let digits = name.strip_prefix(&self.prefix)?.strip_prefix('-')?;
        digits.parse().ok()
    }

    /// Name of a SKU that takes probes.
    pub fn probe_sku(&self, n: u64) -> String {
        format!("{}-probe-{:02}", self.prefix, n % u64::from(PROBE_SKUS))
    }

    /// Identity of something of this run: a movement, an order, a command.
    pub fn id(&self, kind: &str, n: u64) -> String {
        format!("{}-{kind}-{n}", self.prefix)
    }

    /// Name of the location of a cell.
    pub fn location(&self, sku: u32, slot: u32) -> String {
        if slot < self.centres() {
            return centre(slot);
        }
        let at = sku as usize * usize::from(self.config.stores_per_sku)
            + (slot - self.centres()) as usize;
        store(self.stores[at])
    }

    /// Slot of a location, if the SKU is there.
    pub fn slot(&self, sku: u32, location: &str) -> Option<u32> {
        (0..self.width()).find(|slot| self.location(sku, *slot) == location)
    }

    /// Opening stock of a cell, in units.
    pub fn opening(&self, slot: u32) -> i64 {
        if slot < self.centres() {
            self.config.centre_units
        } else {
            self.config.store_units
        }
    }

    /// Movements that bring the opening stock, cell by cell, then one unit of each probe SKU.
    pub fn opening_movements(&self) -> impl Iterator<Item = Movement> + '_ {
        let cells = (0..self.skus()).flat_map(|sku| (0..self.width()).map(move |slot| (sku, slot)));
        let stock = cells.map(|(sku, slot)| {
            received(
                self.id("open", self.cell(sku, slot) as u64),
                self.sku(sku),
                self.opening(slot),
                self.location(sku, slot),
            )
        });
        let probes = (0..u64::from(PROBE_SKUS))
            .map(|n| received(self.id("open-probe", n), self.probe_sku(n), 1, centre(0)));
        stock.chain(probes)
    }

    /// A rules document for the channels: the first sells all of the centres' stock, each further
    /// one less of it, and `stores` what is on the shelves.
    pub fn rules(&self) -> String {
        let mut toml = String::from(
            "# Rules of a load test.\n\n[groups]\ncentres = [\"lt-dc-*\"]\nstores = [\"lt-store-*\"]\n",
        );
        for (n, channel) in self.channels().iter().enumerate() {
            // `write!` into a string cannot fail.
            let _ = write!(toml, "\n[channel.{channel:?}]\nsources = [\"@centres\"]\n");
            if n > 0 {
                let share = 100 - 5 * (n % 10);
                let _ = write!(toml, "buffer = {}\nshare_percent = {share}\n", n % 4);
            }
        }
        if self.config.stores > 0 && !self.channels().iter().any(|name| name == "stores") {
            toml.push_str("\n[channel.stores]\nsources = [\"@stores\"]\n");
        }
        toml
    }
}

/// Name of a distribution centre. It is the same in every run: rules name locations.
pub fn centre(n: u32) -> String {
    format!("lt-dc-{:02}", n + 1)
}

fn store(n: u16) -> String {
    format!("lt-store-{:04}", n + 1)
}

/// A movement that puts units on a shelf; without its time.
pub fn received(id: String, sku: String, quantity: i64, location: String) -> Movement {
    movement(
        id,
        sku,
        quantity,
        Kind::Received(Received {
            location,
            condition: Condition::Good.into(),
            ..Received::default()
        }),
    )
}

/// A movement of this program; without its time.
pub fn movement(id: String, sku: String, quantity: i64, kind: Kind) -> Movement {
    Movement {
        id,
        source: SOURCE.to_owned(),
        sku,
        quantity,
        kind: Some(kind),
        ..Movement::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn catalogue() -> Catalogue {
        let config = scenario::Catalogue {
            skus: 50,
            centres: 2,
            stores: 7,
            stores_per_sku: 3,
            ..scenario::Catalogue::default()
        };
        Catalogue::new(&config, "lt1", 5)
    }

    #[test]
    fn every_sku_has_different_locations_that_are_found_again() {
        let catalogue = catalogue();
        for sku in 0..catalogue.skus() {
            let names: HashSet<String> = (0..catalogue.width())
                .map(|slot| catalogue.location(sku, slot))
                .collect();
            assert_eq!(names.len(), 5);
            for slot in 0..catalogue.width() {
                let name = catalogue.location(sku, slot);
                assert_eq!(catalogue.slot(sku, &name), Some(slot));
            }
            assert_eq!(catalogue.slot(sku, "elsewhere"), None);
            assert_eq!(catalogue.number_of(&catalogue.sku(sku)), Some(sku));
        }
        for other in ["lt1-probe-07", "lt10000001", "4006381333931"] {
            assert_eq!(catalogue.number_of(other), None, "{other}");
        }
    }

    #[test]
    fn opening_stock_is_one_movement_a_cell() {
        let catalogue = catalogue();
        let movements: Vec<Movement> = catalogue.opening_movements().collect();
        assert_eq!(movements.len(), 250 + PROBE_SKUS as usize);
        let ids: HashSet<&str> = movements.iter().map(|moved| moved.id.as_str()).collect();
        assert_eq!(ids.len(), movements.len());
    }

    #[test]
    fn rules_name_every_channel() {
        let rules: toml::Table = catalogue().rules().parse().expect("TOML");
        let channels = rules["channel"].as_table().expect("channels");
        let names: Vec<&str> = channels.keys().map(String::as_str).collect();
        for name in ["web", "app", "marketplace", "stores"] {
            assert!(names.contains(&name), "{names:?}");
        }
    }
}
