//! The lifecycle of an order line: what it claims is a pure function of its milestone totals.
//!
//! For each location there is one number, `net`: what was reserved there and reassigned to it, less
//! what was reassigned away, released there, and shipped from there. A location claims
//! `max(0, net)`. What went below zero (shipments from elsewhere, say) and what was released
//! without naming a location is taken from these claims in order of location name. In total that
//! is always `max(0, reserved - released - shipped)`, since reassignments cancel out.

use smallvec::SmallVec;

use super::{
    balances::{Loc, LocationNames},
    posting::Milestone,
};

/// What an order line claims, by location; no order, no zeros.
pub type Claims = SmallVec<[(Loc, i64); 2]>;

/// Milestone totals of one order line, in units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderLine {
    /// Reserved in all.
    pub reserved: i64,
    /// Released in all.
    pub released: i64,
    /// Shipped in all.
    pub shipped: i64,
    /// Of the released, those that named no location.
    pub released_anywhere: i64,
    /// `net` of each location that was ever named; no order.
    pub nets: SmallVec<[(Loc, i64); 1]>,
}

impl OrderLine {
    /// Adds a milestone to the totals.
    pub fn record(&mut self, milestone: Milestone, units: i64) {
        match milestone {
            Milestone::Reserved(at) => {
                self.reserved += units;
                *self.net(at) += units;
            }
            Milestone::Released(at) => {
                self.released += units;
                match at {
                    Some(at) => *self.net(at) -= units,
                    None => self.released_anywhere += units,
                }
            }
            Milestone::Reassigned { from, to } => {
                *self.net(from) -= units;
                *self.net(to) += units;
            }
            Milestone::Shipped(at) => {
                self.shipped += units;
                *self.net(at) -= units;
            }
        }
    }

    /// What the line claims now.
    pub fn claims(&self, names: &impl LocationNames) -> Claims {
        let mut claims: Claims = self
            .nets
            .iter()
            .filter(|(_, net)| *net > 0)
            .copied()
            .collect();
        let overdrawn: i64 = self.nets.iter().map(|(_, net)| (-net).max(0)).sum();
        let mut to_take = self.released_anywhere + overdrawn;
        if to_take > 0 {
            claims.sort_unstable_by(|a, b| names.name(a.0).cmp(names.name(b.0)));
            for (_, claim) in &mut claims {
                let taken = to_take.min(*claim);
                *claim -= taken;
                to_take -= taken;
            }
            claims.retain(|(_, claim)| *claim > 0);
        }
        debug_assert_eq!(
            claims.iter().map(|(_, claim)| claim).sum::<i64>(),
            (self.reserved - self.released - self.shipped).max(0),
            "claims by location do not add up to the claim of the line"
        );
        claims
    }

    fn net(&mut self, at: Loc) -> &mut i64 {
        let index = self.nets.iter().position(|(loc, _)| *loc == at);
        let index = index.unwrap_or_else(|| {
            self.nets.push((at, 0));
            self.nets.len() - 1
        });
        &mut self.nets[index].1
    }
}
