//! Deciding about one line of a reservation: what is offered, and which of it is taken.

use std::cmp::{Ordering, Reverse};

use smallvec::SmallVec;

use super::balances::{Loc, LocationNames};

/// What a channel may sell of one SKU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offers {
    /// In all, in units.
    pub ats: i64,
    /// By location that the channel sells it from; in no order, if not `in_order`.
    pub by_location: SmallVec<[Offer; 16]>,
    /// By priority.
    pub in_order: bool,
}

/// What one location contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Where.
    pub at: Loc,
    /// Priority: the lowest first, equal ones by location name.
    pub rank: u32,
    /// Units.
    pub units: i64,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Units, at least 1.
    pub units: i64,
    /// Only from here.
    pub only: Option<Loc>,
    /// May be taken from several locations.
    pub split: bool,
}

/// Where units are taken, in order of priority.
pub type Allocations = SmallVec<[(Loc, i64); 2]>;

/// Why a line is not covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// Units that could have been had.
    pub available: i64,
    /// Why.
    pub reason: ShortReason,
}

/// See `sellable.v1.ShortReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortReason {
    /// The channel may not sell as many.
    Insufficient,
    /// No movement ever named the SKU.
    UnknownSku,
    /// The channel does not sell it from the location named.
    NotSoldFromLocation,
    /// No single location has as many.
    OnlySplit,
}

impl Offers {
    /// Covers what is wanted, or says why not. What is shown is granted, and no more: at most the
    /// channel's ATS in all, and of each location at most what it contributes.
    ///
    /// # Errors
    /// If it falls short.
    pub fn cover(&self, wanted: Wanted, names: &impl LocationNames) -> Result<Allocations, Short> {
        let Wanted { units, only, split } = wanted;
        let enough = units <= self.ats;
        let fits = |offer: &&Offer| only.is_none_or(|at| at == offer.at) && offer.units >= units;
        let mut fitting = self.by_location.iter().filter(fits);
        let single = match self.in_order {
            true => fitting.next(),
            false => fitting.min_by(|a, b| by_priority(a, b, names)),
        };
        if let Some(offer) = single.filter(|_| enough) {
            return Ok(Allocations::from_iter([(offer.at, units)]));
        }
        if only.is_none() && split && enough {
            let mut offers: SmallVec<[&Offer; 8]> =
                self.by_location.iter().filter(|o| o.units > 0).collect();
            if !self.in_order {
                offers.sort_unstable_by(|a, b| by_priority(a, b, names));
            }
            let mut left = units;
            let mut taken = Allocations::new();
            for offer in offers {
                let part = left.min(offer.units);
                taken.push((offer.at, part));
                left -= part;
                if left == 0 {
                    return Ok(taken);
                }
            }
        }
        Err(self.short(wanted, enough))
    }

    /// Puts them in order, for several lines to be covered.
    pub fn put_in_order(&mut self, names: &impl LocationNames) {
        self.by_location
            .sort_unstable_by(|a, b| by_priority(a, b, names));
        self.in_order = true;
    }

    #[cold]
    fn short(&self, Wanted { only, split, .. }: Wanted, enough: bool) -> Short {
        let offered = match only {
            Some(at) => self.by_location.iter().find(|offer| offer.at == at),
            None => self.by_location.iter().min_by_key(|o| Reverse(o.units)),
        };
        let all: i64 = self.by_location.iter().map(|offer| offer.units).sum();
        let most = if split && only.is_none() {
            all
        } else {
            offered.map_or(0, |offer| offer.units)
        };
        let reason = match (only, offered) {
            (Some(_), None) => ShortReason::NotSoldFromLocation,
            (None, _) if enough => ShortReason::OnlySplit,
            _ => ShortReason::Insufficient,
        };
        Short {
            available: most.min(self.ats),
            reason,
        }
    }
}

fn by_priority(a: &Offer, b: &Offer, names: &impl LocationNames) -> Ordering {
    let by_name = || names.name(a.at).cmp(names.name(b.at));
    a.rank.cmp(&b.rank).then_with(by_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;

    impl LocationNames for Names {
        /// By name, 3 comes before 2.
        fn name(&self, loc: Loc) -> &str {
            ["a", "z", "y", "b"][loc.0 as usize]
        }
    }

    fn offers(ats: i64, by_location: &[(u32, u32, i64)]) -> Offers {
        let offer = |(at, rank, units): &(u32, u32, i64)| Offer {
            at: Loc(*at),
            rank: *rank,
            units: *units,
        };
        Offers {
            ats,
            by_location: by_location.iter().map(offer).collect(),
            in_order: false,
        }
    }

    /// What is taken, as `location:units`, or why nothing is; the same if they are put in order.
    fn cover(offers: &Offers, units: i64, only: Option<u32>, split: bool) -> String {
        let only = only.map(Loc);
        let wanted = Wanted { units, only, split };
        let mut in_order = offers.clone();
        in_order.put_in_order(&Names);
        let covered = offers.cover(wanted, &Names);
        assert_eq!(in_order.cover(wanted, &Names), covered);
        match covered {
            Ok(taken) => taken
                .iter()
                .map(|(at, units)| format!("{}:{units}", Names.name(*at)))
                .collect::<Vec<_>>()
                .join(" "),
            Err(short) => format!("{:?} {}", short.reason, short.available),
        }
    }

    #[test]
    fn a_line_is_covered_by_priority_or_refused_with_what_there_was() {
        let shelf = offers(20, &[(0, 7, 8), (2, 5, 5), (3, 5, 5), (1, 1, 2)]);
        // units, only, split -> what becomes of it
        let table = [
            (2, None, false, "z:2"),
            (3, None, false, "b:3"), // the same rank as y, and earlier by name
            (6, None, false, "a:6"),
            (9, None, false, "OnlySplit 8"),
            (9, None, true, "z:2 b:5 y:2"),
            (20, None, true, "z:2 b:5 y:5 a:8"),
            (21, None, true, "Insufficient 20"),
            (21, None, false, "Insufficient 8"),
            (8, Some(0), false, "a:8"),
            (9, Some(0), true, "Insufficient 8"),
        ];
        for (units, only, split, expected) in table {
            let found = cover(&shelf, units, only, split);
            assert_eq!(
                found, expected,
                "{units} units, only {only:?}, split {split}"
            );
        }
    }

    #[test]
    fn never_more_than_is_shown() {
        let shelf = offers(3, &[(0, 1, 10), (1, 2, 10)]);
        assert_eq!(cover(&shelf, 3, None, false), "a:3");
        assert_eq!(cover(&shelf, 4, None, false), "Insufficient 3");
        assert_eq!(cover(&shelf, 4, None, true), "Insufficient 3");
        assert_eq!(cover(&shelf, 4, Some(0), false), "Insufficient 3");
        let elsewhere = cover(&shelf, 1, Some(3), false);
        assert_eq!(elsewhere, "NotSoldFromLocation 0");
        assert_eq!(cover(&offers(0, &[]), 1, None, true), "Insufficient 0");
    }
}
