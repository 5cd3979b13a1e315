//! Numbers that may be two: ranges and ramps.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser::SerializeSeq,
};

/// From the first to the last, both included: `3`, or `[1, 20]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The least.
    pub from: u32,
    /// The greatest.
    pub to: u32,
}

impl Span {
    /// Both ends belong to it.
    pub const fn new(from: u32, to: u32) -> Self {
        Self { from, to }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(2))?;
        seq.serialize_element(&self.from)?;
        seq.serialize_element(&self.to)?;
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

struct SpanVisitor;

impl<'de> Visitor<'de> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or two as [least, greatest]")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Span, E> {
        let value = u32::try_from(value)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))?;
        Ok(Span::new(value, value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Span, A::Error> {
        let missing = |n| de::Error::invalid_length(n, &self);
        let from = seq.next_element()?.ok_or_else(|| missing(0))?;
        let to = seq.next_element()?.ok_or_else(|| missing(1))?;
        if seq.next_element::<u32>()?.is_some() {
            return Err(missing(3));
        }
        if to < from {
            return Err(de::Error::custom(format!(
                "[{from}, {to}] is empty: write the least first"
            )));
        }
        Ok(Span { from, to })
    }
}

/// Calls per second: `500`, or `{ from = 50, to = 500 }`, which rises or falls evenly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    /// At the start of the phase.
    pub from: f64,
    /// At its end.
    pub to: f64,
}

impl Rate {
    /// The same from start to end.
    pub const fn constant(rate: f64) -> Self {
        Self {
            from: rate,
            to: rate,
        }
    }

    /// A part of it, or a multiple.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            from: self.from * factor,
            to: self.to * factor,
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RateVisitor)
    }
}

struct RateVisitor;

impl<'de> Visitor<'de> for RateVisitor {
    type Value = Rate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("calls per second: a number, or { from = 50, to = 500 }")
    }

    fn visit_i64<E>(self, value: i64) -> Result<Rate, E> {
        Ok(Rate::constant(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Rate, E> {
        Ok(Rate::constant(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rate, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Ramp {
            from: f64,
            to: f64,
        }
        let Ramp { from, to } = Ramp::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Rate { from, to })
    }
}
