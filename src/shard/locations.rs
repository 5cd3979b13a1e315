//! Locations by number. Numbers are given in order of arrival and mean nothing outside this
//! process.

use std::sync::Arc;

use dashmap::DashMap;

use crate::domain::{
    balances::{Loc, LocationNames},
    saved::{Broken, Input, Output},
};

/// Names and numbers of all locations ever seen. Shared by all threads.
#[derive(Debug, Default)]
pub struct Locations {
    numbers: DashMap<Arc<str>, Loc>,
    names: boxcar::Vec<Arc<str>>,
}

/// Names and numbers of all sources of movements ever seen; numbered in the same way.
pub type Sources = Locations;

impl Locations {
    /// The number of a location; a new one if it was never seen.
    pub fn number(&self, name: &str) -> Loc {
        if let Some(loc) = self.get(name) {
            return loc;
        }
        let name: Arc<str> = name.into();
        // The name is stored before its number can be found by anyone.
        *self.numbers.entry(Arc::clone(&name)).or_insert_with(|| {
            let number = self.names.push(name);
            Loc(u32::try_from(number).expect("fewer than 2^32 locations"))
        })
    }

    /// The number of a location, if it was ever seen.
    pub fn get(&self, name: &str) -> Option<Loc> {
        self.numbers.get(name).map(|loc| *loc)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.count()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts all names into a checkpoint.
    pub(crate) fn save(&self, output: &mut Output) {
        let names: Vec<&str> = self.names().collect();
        output.count(names.len());
        names.into_iter().for_each(|name| output.text(name));
    }

    /// Takes all names from a checkpoint; they have the numbers that they had.
    pub(crate) fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let locations = Self::default();
        for number in 0..input.count()? {
            if locations.number(input.text()?).0 as usize != number {
                return Err(Broken("it has a name twice"));
            }
        }
        Ok(locations)
    }

    /// All names, in order of number.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(_, name)| &**name)
    }
}

impl LocationNames for Locations {
    fn name(&self, loc: Loc) -> &str {
        &self.names[loc.0 as usize]
    }
}
