//! Identities as fixed-size keys.
//!
//! Keys and digests are XXH3 hashes of the names, with no seed: every instance must compute the
//! same. XXH3 is fast and stable, not cryptographic; who may post movements is trusted not to
//! search for collisions.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::movement::{Kind, Movement};

/// Separates texts in what is hashed. No valid text has a control character.
const SEPARATOR: u8 = 0;

/// Identity of a movement: its (`source`, `id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MovementKey(pub u128);

impl MovementKey {
    /// The first half, which is enough to find a movement among the recent ones of its source.
    pub const fn first_half(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

/// Identity of a followed line: its (kind, document, line, SKU).
///
/// The SKU belongs to it, because what the line claims lies on that SKU's cells; a substitution
/// is another SKU under the same line, and each is followed for itself. The kind is kept in the
/// two lowest bits of the second half, and in its sixteen highest those of the SKU's hash that say
/// which shard it belongs to, so that lines can be given to another number of shards without
/// their names. 110 bits are left to tell lines of one SKU apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineKey(pub [u64; 2]);

/// Kinds of documents whose lines are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LineKind {
    /// Of a customer's order.
    Order = 0,
    /// Of an inbound delivery: purchase order, advance ship notice.
    Inbound = 1,
    /// Of a transfer between our own locations.
    Transfer = 2,
    /// Of a customer's return.
    Return = 3,
}

impl LineKind {
    /// All kinds.
    pub const ALL: [LineKind; 4] = [
        LineKind::Order,
        LineKind::Inbound,
        LineKind::Transfer,
        LineKind::Return,
    ];
}

impl LineKey {
    /// The kind of the document.
    pub const fn kind(self) -> LineKind {
        match self.0[1] & 3 {
            0 => LineKind::Order,
            1 => LineKind::Inbound,
            2 => LineKind::Transfer,
            _ => LineKind::Return,
        }
    }

    /// The shard of `shards` that owns its SKU, and so this line.
    #[inline]
    pub const fn shard(self, shards: usize) -> usize {
        shard_of((self.0[1] >> SHARD_SHIFT) as usize, shards)
    }

    /// The key as one number.
    pub const fn get(self) -> u128 {
        (self.0[0] as u128) | ((self.0[1] as u128) << 64)
    }
}

/// Hash of a SKU's name: chooses its shard and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SkuHash(pub u64);

impl SkuHash {
    /// Hash of `sku`.
    pub fn of(sku: &str) -> Self {
        Self(xxh3_64(sku.as_bytes()))
    }

    /// The shard of `shards` that owns this SKU.
    #[inline]
    pub const fn shard(self, shards: usize) -> usize {
        shard_of((self.0 >> SHARD_SHIFT) as usize, shards)
    }
}

/// The highest bits of a SKU's hash choose its shard; the lower ones serve the index.
const SHARD_BITS: u32 = 16;
const SHARD_SHIFT: u32 = u64::BITS - SHARD_BITS;

/// These bits scaled to the number of shards.
const fn shard_of(bits: usize, shards: usize) -> usize {
    (bits * shards) >> SHARD_BITS
}

/// Computes keys. Keeps a buffer, so that no key costs an allocation.
#[derive(Debug, Default)]
pub struct Keyer {
    buffer: Vec<u8>,
}

impl Keyer {
    /// A new one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Key of the movement `id` of `source`.
    pub fn movement(&mut self, source: &str, id: &str) -> MovementKey {
        MovementKey(self.hash(&[source, id]))
    }

    /// Key of a line.
    pub fn line(&mut self, kind: LineKind, document: &str, line: &str, sku: &str) -> LineKey {
        let hash = self.hash(&[document, line, sku]);
        let of_sku = SkuHash::of(sku).0 >> SHARD_SHIFT << SHARD_SHIFT;
        let own = ((hash >> 64) as u64) << SHARD_BITS >> SHARD_BITS & !3;
        LineKey([hash as u64, of_sku | own | kind as u64])
    }

    /// Hash of everything a movement says beside its key: tells a repeat from a conflict.
    pub fn content(&mut self, movement: &Movement<'_>) -> u64 {
        let b = &mut self.buffer;
        b.clear();
        b.extend_from_slice(&movement.occurred_us.to_le_bytes());
        b.extend_from_slice(&movement.quantity.to_le_bytes());
        put(b, movement.kind.name());
        put(b, movement.sku);
        put(b, movement.correlation_id);
        put(b, movement.reference);
        put(b, movement.actor);
        put_kind(b, &movement.kind);
        xxh3_64(b)
    }

    fn hash(&mut self, texts: &[&str]) -> u128 {
        self.buffer.clear();
        for text in texts {
            put(&mut self.buffer, text);
        }
        xxh3_128(&self.buffer)
    }
}

fn put(buffer: &mut Vec<u8>, text: &str) {
    buffer.extend_from_slice(text.as_bytes());
    buffer.push(SEPARATOR);
}

/// Everything that a kind says. What was added to a kind later is only put if it is there, so
/// that the content of what was said before stays the same.
fn put_kind(b: &mut Vec<u8>, kind: &Kind<'_>) {
    let texts = |b: &mut Vec<u8>, texts: &[&str]| texts.iter().for_each(|text| put(b, text));
    let time = |b: &mut Vec<u8>, time: Option<i64>| {
        if let Some(us) = time {
            b.extend_from_slice(&us.to_le_bytes());
        }
    };
    match *kind {
        Kind::Received {
            location,
            condition,
            inbound,
        } => {
            put(b, location);
            b.push(condition as u8);
            if let Some((inbound, line)) = inbound {
                texts(b, &[inbound, line]);
            }
        }
        Kind::Issued {
            location,
            condition,
            reason,
        } => {
            put(b, location);
            b.extend_from_slice(&[condition as u8, reason as u8]);
        }
        Kind::Reclassified { location, from, to } => {
            put(b, location);
            b.extend_from_slice(&[from as u8, to as u8]);
        }
        Kind::Adjusted {
            location,
            condition,
            reason,
        } => {
            put(b, location);
            b.push(condition as u8);
            put(b, reason);
        }
        Kind::Counted {
            location,
            as_of_us,
            units,
        } => {
            put(b, location);
            for number in [as_of_us].into_iter().chain(units) {
                b.push(number.is_some() as u8);
                time(b, number);
            }
        }
        Kind::Reserved {
            order,
            line,
            location,
            channel,
            expires_us,
        } => {
            texts(b, &[order, line, location, channel]);
            time(b, expires_us);
        }
        Kind::Released {
            order,
            line,
            location,
        } => texts(b, &[order, line, location.unwrap_or("")]),
        Kind::Reassigned {
            order,
            line,
            from,
            to,
        } => texts(b, &[order, line, from, to]),
        Kind::Picked {
            order,
            line,
            location,
        }
        | Kind::Packed {
            order,
            line,
            location,
        }
        | Kind::Shipped {
            order,
            line,
            location,
        } => texts(b, &[order, line, location]),
        Kind::InboundExpected {
            inbound,
            line,
            location,
            eta_us,
        } => {
            texts(b, &[inbound, line, location]);
            time(b, eta_us);
        }
        Kind::InboundCancelled {
            inbound: document,
            line,
        }
        | Kind::TransferClosed {
            transfer: document,
            line,
        }
        | Kind::ReturnCancelled {
            rma: document,
            line,
        } => texts(b, &[document, line]),
        Kind::TransferShipped {
            transfer,
            line,
            from,
            to,
            eta_us,
        } => {
            texts(b, &[transfer, line, from, to]);
            time(b, eta_us);
        }
        Kind::TransferReceived {
            transfer,
            line,
            location,
            condition,
        } => {
            texts(b, &[transfer, line, location]);
            b.push(condition as u8);
        }
        Kind::ReturnAuthorized {
            rma,
            line,
            location,
            order,
        } => {
            texts(b, &[rma, line, location]);
            if let Some((order, order_line)) = order {
                texts(b, &[order, order_line]);
            }
        }
        Kind::ReturnReceived {
            rma,
            line,
            location,
        } => texts(b, &[rma, line, location]),
        Kind::ReturnInspected {
            rma,
            line,
            location,
            disposition,
        } => {
            texts(b, &[rma, line, location]);
            b.push(disposition.map_or(0, |disposition| disposition as u8));
        }
        Kind::ReturnRefunded {
            rma,
            line,
            amount,
            currency,
        } => {
            texts(b, &[rma, line, currency]);
            b.extend_from_slice(&amount.to_le_bytes());
        }
    }
}
