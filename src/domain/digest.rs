//! The digest: one number for the whole state, by names and not by internal numbers.
//!
//! It is a sum over the parts of the state, so it depends neither on the order in which they are
//! visited nor on how they are spread over shards.

use std::ops::{AddAssign, SubAssign};

use xxhash_rust::xxh3::xxh3_128;

use super::{
    balances::{Balances, LocationNames},
    keys::LineKey,
    lifecycle::{Line, Returns},
    movement::TimeUs,
};

/// Sum of the hashes of the parts of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Digest(pub u128);

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl SubAssign for Digest {
    fn sub_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Computes digests. Keeps a buffer, so that no part costs an allocation.
#[derive(Debug, Default)]
pub struct Digester {
    buffer: Vec<u8>,
}

impl Digester {
    /// Of one cell. A cell with nothing in it is as one that never was.
    pub fn cell(&mut self, sku: &str, location: &str, balances: &Balances) -> Digest {
        if balances.is_zero() {
            return Digest::default();
        }
        self.start(b"cell");
        self.text(sku);
        self.text(location);
        for units in balances.0 {
            self.buffer.extend_from_slice(&units.to_le_bytes());
        }
        self.finish()
    }

    /// Of one followed line.
    pub fn line(&mut self, key: LineKey, line: &Line, names: &impl LocationNames) -> Digest {
        let mut digest = Digest::default();
        for (loc, net) in line.nets.iter().filter(|(_, net)| *net != 0) {
            self.start(b"net");
            self.buffer.extend_from_slice(&key.get().to_le_bytes());
            self.text(names.name(*loc));
            self.buffer.extend_from_slice(&net.to_le_bytes());
            digest += self.finish();
        }
        self.start(b"line");
        self.buffer.extend_from_slice(&key.get().to_le_bytes());
        for total in [
            line.opened,
            line.withdrawn,
            line.fulfilled,
            line.withdrawn_anywhere,
            line.until_us,
            line.returned,
        ] {
            self.buffer.extend_from_slice(&total.to_le_bytes());
        }
        digest += self.finish();
        if let Some(returns) = line.returns.as_deref() {
            digest += self.returns(key, returns, names);
        }
        digest
    }

    fn returns(&mut self, key: LineKey, returns: &Returns, names: &impl LocationNames) -> Digest {
        let mut digest = Digest::default();
        for there in &returns.at {
            self.start(b"returned");
            self.buffer.extend_from_slice(&key.get().to_le_bytes());
            self.text(names.name(there.at));
            for units in std::iter::once(there.received).chain(there.inspected) {
                self.buffer.extend_from_slice(&units.to_le_bytes());
            }
            digest += self.finish();
        }
        self.start(b"return");
        self.buffer.extend_from_slice(&key.get().to_le_bytes());
        self.buffer
            .extend_from_slice(&returns.refunded.to_le_bytes());
        let order = returns.order.as_ref().map_or(0, |order| order.key.get());
        self.buffer.extend_from_slice(&order.to_le_bytes());
        digest += self.finish();
        digest
    }

    /// Of what a count, or a snapshot, says of a condition of a cell.
    pub fn said(
        &mut self,
        (sku, location, condition): (&str, &str, u8),
        by: [&str; 2],
        as_of_us: TimeUs,
        units: i64,
    ) -> Digest {
        self.start(b"said");
        for text in [sku, location, by[0], by[1]] {
            self.text(text);
        }
        self.buffer.push(condition);
        self.buffer.extend_from_slice(&as_of_us.to_le_bytes());
        self.buffer.extend_from_slice(&units.to_le_bytes());
        self.finish()
    }

    /// Of one parked movement, by its key in the list of exceptions.
    pub fn parked(&mut self, key: u128) -> Digest {
        self.start(b"parked");
        self.buffer.extend_from_slice(&key.to_le_bytes());
        self.finish()
    }

    fn start(&mut self, tag: &[u8]) {
        self.buffer.clear();
        self.buffer.extend_from_slice(tag);
        self.buffer.push(0);
    }

    fn text(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(0);
    }

    fn finish(&self) -> Digest {
        Digest(xxh3_128(&self.buffer))
    }
}
