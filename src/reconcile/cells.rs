//! Which cells a snapshot has stated so far.

use hashbrown::{HashTable, hash_table::Entry};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::domain::keys::SkuHash;

/// Told apart by 64 bits of a hash: among ten million cells, two of them are taken for one in one
/// snapshot of 400,000.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// The number of the line, then both halves of the hash: 12 bytes and not 16.
    table: HashTable<(u32, u32, u32)>,
}

/// Hash of a location for [`Cells`]; others of the same name would cancel out with a SKU's.
pub(super) fn location_hash(name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), 0x6c6f_6361_7469_6f6e)
}

fn cell(sku: SkuHash, location: u64) -> u64 {
    sku.0 ^ location
}

impl Cells {
    /// Notes that a line states this cell.
    ///
    /// # Errors
    /// The number of the line that has stated it before.
    pub(super) fn insert(&mut self, sku: SkuHash, location: u64, line: u32) -> Result<(), u32> {
        let hash = cell(sku, location);
        let own = (line, hash as u32, (hash >> 32) as u32);
        let same = |other: &(u32, u32, u32)| (other.1, other.2) == (own.1, own.2);
        match self.table.entry(hash, same, hash_of) {
            Entry::Occupied(other) => Err(other.get().0),
            Entry::Vacant(place) => {
                place.insert(own);
                Ok(())
            }
        }
    }

    /// Whether a line states this cell.
    pub(super) fn has(&self, sku: SkuHash, location: u64) -> bool {
        let hash = cell(sku, location);
        let same = |own: &(u32, u32, u32)| hash_of(own) == hash;
        self.table.find(hash, same).is_some()
    }
}

fn hash_of(own: &(u32, u32, u32)) -> u64 {
    u64::from(own.1) | u64::from(own.2) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_is_stated_twice_is_found_with_its_first_line() {
        let mut cells = Cells::default();
        let mut line = 0;
        for sku in 0..300 {
            for location in 0..30 {
                let sku = SkuHash::of(&sku.to_string());
                let location = location_hash(&location.to_string());
                assert!(!cells.has(sku, location));
                line += 1;
                assert_eq!(cells.insert(sku, location, line), Ok(()));
                assert!(cells.has(sku, location));
            }
        }
        let (sku, location) = (SkuHash::of("1"), location_hash("1"));
        assert_eq!(cells.insert(sku, location, 99_999), Err(32));
        // The same name as both is as good as any other.
        let twice = |name: &str| cell(SkuHash::of(name), location_hash(name));
        assert_ne!(twice("1"), twice("2"));
    }
}
