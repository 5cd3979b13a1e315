//! Sizes of a catalogue and of a server, and how they are varied.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::words::number;

/// How large it all is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// SKUs.
    pub skus: u32,
    /// Locations of each SKU.
    pub locations: u16,
    /// Online channels.
    pub channels: u16,
    /// Shards of the server; 0: as it likes.
    pub shards: u32,
    /// Processors that the server may use; 0: all.
    pub processors: u32,
}

impl Size {
    /// Cells: SKUs at locations.
    pub fn cells(&self) -> u64 {
        u64::from(self.skus) * u64::from(self.locations)
    }

    /// One of its numbers.
    pub fn get(&self, dimension: Dimension) -> u32 {
        match dimension {
            Dimension::Skus => self.skus,
            Dimension::Locations => u32::from(self.locations),
            Dimension::Channels => u32::from(self.channels),
            Dimension::Shards => self.shards,
            Dimension::Processors => self.processors,
        }
    }

    /// The same with another one.
    #[must_use]
    pub fn with(mut self, dimension: Dimension, value: u32) -> Self {
        let small = u16::try_from(value).unwrap_or(u16::MAX);
        match dimension {
            Dimension::Skus => self.skus = value,
            Dimension::Locations => self.locations = small,
            Dimension::Channels => self.channels = small,
            Dimension::Shards => self.shards = value,
            Dimension::Processors => self.processors = value,
        }
        self
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} SKUs × {} locations, {} channels",
            number(u64::from(self.skus)),
            self.locations,
            self.channels
        )?;
        if self.shards > 0 {
            write!(f, ", shards {}", self.shards)?;
        }
        if self.processors > 0 {
            write!(f, ", processors {}", self.processors)?;
        }
        Ok(())
    }
}

/// What can be varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    /// SKUs, and with them cells.
    Skus,
    /// Locations of each SKU, and with them cells.
    Locations,
    /// Channels.
    Channels,
    /// Shards of the server.
    Shards,
    /// Processors of the server.
    Processors,
}

impl Dimension {
    const ALL: [(Self, &'static str, u32); 5] = [
        (Self::Skus, "skus", 5_000_000),
        (Self::Locations, "locations", 5_000),
        (Self::Channels, "channels", 200),
        (Self::Shards, "shards", 256),
        (Self::Processors, "processors", 1_024),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(dimension, ..)| *dimension == self);
        found.map_or("", |(_, name, _)| name)
    }
}

/// Values that one number of the base takes, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variation {
    /// Which number.
    pub dimension: Dimension,
    /// Its values.
    pub values: Vec<u32>,
}

impl FromStr for Variation {
    type Err = String;

    /// Reads `skus=1000,10000`.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Dimension::ALL.map(|(_, name, _)| name).join(", ");
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| format!("write it as skus=1000,10000; {} can be varied", names()))?;
        let (dimension, _, most) = Dimension::ALL
            .into_iter()
            .find(|(_, known, _)| *known == name)
            .ok_or_else(|| format!("{name:?} cannot be varied, but {}", names()))?;
        let values = values
            .split(',')
            .map(|value| match value.trim().parse() {
                Ok(value) if (1..=most).contains(&value) => Ok(value),
                _ => Err(format!("{name}: {value:?} is not from 1 to {most}")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { dimension, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variations_name_what_they_vary() {
        let variation: Variation = "shards=1,2, 4".parse().expect("sound");
        assert_eq!(variation.dimension, Dimension::Shards);
        assert_eq!(variation.values, [1, 2, 4]);
        for (bad, says) in [
            ("1,2", "write it as"),
            ("weight=1", "\"weight\" cannot be varied"),
            ("skus=0", "skus: \"0\" is not from 1"),
            ("channels=201", "from 1 to 200"),
        ] {
            let message = bad.parse::<Variation>().expect_err(bad);
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn every_number_of_a_size_can_be_varied() {
        let base = Size {
            skus: 1,
            locations: 1,
            channels: 1,
            shards: 1,
            processors: 1,
        };
        for (dimension, ..) in Dimension::ALL {
            assert_eq!(base.with(dimension, 7).get(dimension), 7);
        }
    }
}
