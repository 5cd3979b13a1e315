//! What sources may do, by internal numbers: for the path that every movement takes.

use std::sync::Arc;

use hashbrown::HashTable;

use super::compiled::{Authority, Scope, bit};

/// What is allowed, found from the names when first asked for and kept by numbers.
///
/// Whether a kind is allowed mostly follows from the source alone. Where it depends on the
/// location, only the pairs that really occur are kept: a thousand sources at a hundred thousand
/// locations are many, but each works at few. Make a new one when the authority changes.
#[derive(Debug, Clone)]
pub struct Permissions {
    authority: Arc<Authority>,
    /// By the source's number.
    scopes: Vec<Option<Scope>>,
    at_locations: HashTable<AtLocation>,
}

#[derive(Debug, Clone, Copy)]
struct AtLocation {
    /// Source and location.
    pair: u64,
    /// The kinds allowed, a bit for each.
    kinds: u32,
}

impl Permissions {
    /// Has been asked nothing yet.
    pub fn new(authority: Arc<Authority>) -> Self {
        Self {
            authority,
            scopes: Vec::new(),
            at_locations: HashTable::new(),
        }
    }

    /// The authority it was made for.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Whether a source may post a movement of this kind, acting at a location if it names one:
    /// [`Authority::may`]. Numbers of sources and of locations are dense, each for itself (memory
    /// grows with the largest of a source); the same number must always come with the same name.
    #[inline]
    pub fn may(
        &mut self,
        source: u32,
        source_name: &str,
        location: Option<(u32, &str)>,
        kind: u8,
    ) -> bool {
        if self.authority.is_open() {
            return true;
        }
        let scope = self.scope(source, source_name);
        let bit = bit(kind);
        if scope.everywhere & bit != 0 {
            return true;
        }
        if scope.somewhere & bit == 0 {
            return false;
        }
        let Some((location, location_name)) = location else {
            return true;
        };
        let pair = u64::from(source) << 32 | u64::from(location);
        let found = self
            .at_locations
            .find(spread(pair), |own| own.pair == pair)
            .map(|own| own.kinds);
        let kinds = found.unwrap_or_else(|| {
            let kinds = self.authority.kinds_at(source_name, location_name);
            let found = AtLocation { pair, kinds };
            self.at_locations
                .insert_unique(spread(pair), found, |own| spread(own.pair));
            kinds
        });
        kinds & bit != 0
    }

    #[inline]
    fn scope(&mut self, source: u32, name: &str) -> Scope {
        let at = source as usize;
        if let Some(Some(scope)) = self.scopes.get(at) {
            return *scope;
        }
        if self.scopes.len() <= at {
            self.scopes.resize(at + 1, None);
        }
        *self.scopes[at].insert(self.authority.scope(name))
    }
}

/// A hash for pairs of small numbers, which nobody outside can choose: all bits of the product
/// reach both ends, by which the table finds its buckets.
#[inline]
fn spread(pair: u64) -> u64 {
    let product = u128::from(pair) * 0x9E37_79B9_7F4A_7C15;
    (product >> 64) as u64 ^ product as u64
}
