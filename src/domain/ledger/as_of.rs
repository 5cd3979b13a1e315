//! The books as of a moment: counts, and what a snapshot states.
//!
//! Let `plain(T)` be the sum of the effects of all facts that occurred up to `T`, counts aside. A
//! count of `q` units as of `A` says that `plain(A)` should have been `q`, so from `A` on the books
//! are shifted by `q - plain(A)`, until the next count. So
//!
//! ```text
//! book(T) = plain(T) + shift of the latest count up to T
//! ```
//!
//! and what is kept for a count is its `plain(A)`, brought up to date by each fact that occurred up
//! to `A` and arrives later. `plain(T)` itself is the balance now, less the shift now, less the
//! effects of what occurred after `T`, which are among the recent movements. What a return line
//! does is no sum of its movements' effects, but depends on its totals; so for those that occurred
//! after `T` it is what its totals give now, less what they gave then.

use smallvec::SmallVec;

use super::{
    Balances, Books, Changes, Ledger, Names,
    counted::{CONDITIONS, Count, Stated},
};
use crate::{
    domain::{
        balances::{Account, Loc, LocationNames},
        digest::{Digest, Digester},
        exceptions::{About, StateKind},
        keys::{LineKey, SkuHash},
        lifecycle::{DISPOSITIONS, ReturnedAt},
        movement::TimeUs,
        posting::UNCOUNTED,
        recent::{Physical, Recent, Trail},
        reconcile::{AsOf, Compared, StatedUnits, Statement, Verdict, explain},
    },
    limits::AHEAD_US_MAX,
};

type Units = [i64; CONDITIONS];

/// A condition whose variance has changed: the snapshot, and the units before and now.
type Reviewed = (usize, Box<str>, i64, i64);

impl<B: Books> Ledger<B> {
    /// Movements that arrived before this may be forgotten from now on.
    pub fn forget(&mut self, before_us: TimeUs) {
        if self.forgotten_before_us.is_some_and(|us| us >= before_us) {
            return;
        }
        self.forgotten_before_us = Some(before_us);
        self.recent.forget(before_us);
        let since_us = self.kept_since_us();
        self.counted.forget(since_us);
    }

    /// The books can be told as of any moment from this one on: a movement may occur a little
    /// after it arrives.
    pub fn kept_since_us(&self) -> TimeUs {
        let before_us = self.forgotten_before_us;
        before_us.map_or(TimeUs::MIN, |us| us.saturating_add(AHEAD_US_MAX))
    }

    /// The physical balances as of `us`, which is not before [`Ledger::kept_since_us`].
    pub fn book(&self, sku: SkuHash, name: &str, at: Loc, us: TimeUs) -> Units {
        let (balances, last) = self.books.cell(sku, name, at);
        let after = self.after(sku, at, last, us);
        let cell = self.counted.get(sku, at);
        std::array::from_fn(|condition| {
            let mut book = balances[Account::PHYSICAL[condition]] - after[condition];
            if let Some(cell) = cell {
                let then = cell.in_force(condition, us).map_or(0, Count::shift);
                book += then - cell.shift(condition);
            }
            book
        })
    }

    /// What all that occurred after `us` does to the cell whose last recent movement is at `last`,
    /// counts aside.
    fn after(&self, sku: SkuHash, at: Loc, last: Trail, us: TimeUs) -> Units {
        let mut sum = Units::default();
        let mut returns = Returns::default();
        for recent in self.recent.chain(sku, at, last) {
            if recent.fact.occurred_us > us && !returns.take(at, &recent.physical) {
                add(&mut sum, &recent.physical.by(), 1);
            }
        }
        for (line, later) in &returns.0 {
            let now = self.returned(*line, at);
            add(&mut sum, &now.balances(), 1);
            add(&mut sum, &less(now, later).balances(), -1);
        }
        sum
    }

    fn returned(&self, line: LineKey, at: Loc) -> ReturnedAt {
        self.lines.get(line).unwrap_or_default().at(at)
    }

    /// A count fixes balances as of its time.
    #[cold]
    pub(super) fn count(
        &mut self,
        sku: SkuHash,
        at: Loc,
        as_of_us: TimeUs,
        units: [i32; CONDITIONS],
        about: Names<'_>,
        names: &impl LocationNames,
    ) {
        let (balances, last) = self.books.cell(sku, about.sku, at);
        let after = self.after(sku, at, last, as_of_us);
        let cell = self.counted.of(sku, about.sku, at);
        let (id, source) = about.document;
        let mut shift = Balances::ZERO;
        for (condition, account) in Account::PHYSICAL.into_iter().enumerate() {
            if units[condition] == UNCOUNTED {
                continue;
            }
            let before = cell.shift(condition);
            cell.put(
                condition,
                Count {
                    as_of_us,
                    id: id.into(),
                    source: source.into(),
                    units: i64::from(units[condition]),
                    plain: balances[account] - before - after[condition],
                },
            );
            shift[account] = cell.shift(condition) - before;
        }
        let mut changes = Changes::default();
        changes.physical(at, &shift);
        self.post(sku, about.sku, &changes.0, shift.on_hand(), names);
        self.review_stated(sku, at, about.sku, names);
    }

    /// A fact about a cell of which something was said: what was counted up to then includes it.
    /// Gives by how much the balances are shifted otherwise from now on. What lies of a return line
    /// at the place is told as it was and as it is.
    #[cold]
    pub(super) fn recount(
        &mut self,
        sku: SkuHash,
        name: &str,
        at: Loc,
        recent: &Recent,
        there: Option<[ReturnedAt; 2]>,
    ) -> Balances {
        // What came later of the same return line, latest first.
        let mut later: Vec<(TimeUs, Physical)> = Vec::new();
        if let Physical::Returned(line, _) | Physical::Inspected(line, ..) = recent.physical {
            let (_, last) = self.books.cell(sku, name, at);
            let chain = self.recent.chain(sku, at, last);
            later.extend(chain.filter_map(|known| match known.physical {
                Physical::Returned(of, _) | Physical::Inspected(of, ..) if of == line => {
                    Some((known.fact.occurred_us, known.physical))
                }
                _ => None,
            }));
        }
        let cell = self.counted.get_mut(sku, at).expect("it was looked up");
        let before: Units = std::array::from_fn(|condition| cell.shift(condition));
        for (condition, as_of_us, plain) in cell.plains() {
            if recent.fact.occurred_us > as_of_us {
                continue;
            }
            let account = Account::PHYSICAL[condition];
            *plain += match there {
                None => recent.physical.by()[account],
                Some(there) => {
                    let mut returns = Returns::default();
                    let later = later.iter().filter(|(us, _)| *us > as_of_us);
                    later.for_each(|(_, physical)| {
                        returns.take(at, physical);
                    });
                    let then = there.map(|there| match returns.0.first() {
                        Some((_, later)) => less(there, later).balances()[account],
                        None => there.balances()[account],
                    });
                    then[1] - then[0]
                }
            };
        }
        let mut shift = Balances::ZERO;
        for (condition, account) in Account::PHYSICAL.into_iter().enumerate() {
            shift[account] = cell.shift(condition) - before[condition];
        }
        shift
    }

    /// Takes what a comparison found: a variance is open as long as the books of that moment say
    /// something else than the snapshot does. The latest snapshot counts.
    pub fn state(
        &mut self,
        statement: &Statement,
        sku: SkuHash,
        at: Loc,
        names: &impl LocationNames,
    ) {
        let condition = statement.condition as usize;
        if condition >= CONDITIONS || statement.as_of_us < self.kept_since_us() {
            return;
        }
        let (balances, last) = self.books.cell(sku, &statement.sku, at);
        let after = self.after(sku, at, last, statement.as_of_us);
        let cell = self.counted.of(sku, &statement.sku, at);
        let order = |us: TimeUs, snapshot: &str| (us, snapshot.to_owned());
        let new = order(statement.as_of_us, &statement.snapshot);
        let known = cell.stated[condition].as_ref();
        if known.is_some_and(|known| order(known.as_of_us, &known.snapshot) > new) {
            return;
        }
        let now = balances[statement.condition] - cell.shift(condition);
        let stated = Stated {
            as_of_us: statement.as_of_us,
            snapshot: statement.snapshot.clone(),
            units: statement.stated,
            plain: now - after[condition],
            open: 0,
        };
        let mut stated = cell.stated[condition].replace(stated);
        if let Some(known) = &mut stated {
            let about = variance(&statement.sku, names.name(at), condition, &known.snapshot);
            self.found(StateKind::Variance, known.open, 0, about);
        }
        self.review_stated(sku, at, &statement.sku, names);
    }

    /// Looks at what snapshots say of a cell that has changed.
    pub(super) fn review_stated(
        &mut self,
        sku: SkuHash,
        at: Loc,
        name: &str,
        names: &impl LocationNames,
    ) {
        let Some(cell) = self.counted.get_mut(sku, at) else {
            return;
        };
        let mut found: SmallVec<[Reviewed; 1]> = SmallVec::new();
        for condition in 0..CONDITIONS {
            let Some(stated) = &cell.stated[condition] else {
                continue;
            };
            let shift = cell.in_force(condition, stated.as_of_us);
            let book = stated.plain + shift.map_or(0, Count::shift);
            let stated = cell.stated[condition].as_mut().expect("it is there");
            let (was, is) = (stated.open, stated.units - book);
            if was != is {
                stated.open = is;
                found.push((condition, stated.snapshot.clone(), was, is));
            }
        }
        for (condition, snapshot, was, is) in found {
            let about = variance(name, names.name(at), condition, &snapshot);
            self.found(StateKind::Variance, was, is, about);
        }
    }

    /// Compares what a snapshot states of a cell with what the books held at its time, which is not
    /// before [`Ledger::kept_since_us`]. `None` as the place: no movement ever named it.
    pub fn compare(
        &self,
        sku: SkuHash,
        name: &str,
        at: Option<Loc>,
        stated: &StatedUnits,
        as_of: &AsOf,
    ) -> Compared {
        let book = at.map_or(Units::default(), |at| self.book(sku, name, at, as_of.us));
        let cell = at.and_then(|at| self.counted.get(sku, at));
        let open = std::array::from_fn(|condition| {
            cell.is_some_and(|cell| {
                let stated = cell.stated[condition].as_ref();
                stated.is_some_and(|stated| stated.open != 0)
            })
        });
        let variances: [Option<i64>; CONDITIONS] =
            std::array::from_fn(|condition| stated[condition].map(|units| units - book[condition]));
        let verdicts = if variances.iter().flatten().all(|variance| *variance == 0) {
            variances.map(|variance| variance.map(|_| Verdict::Matched))
        } else {
            let unsure = match at {
                Some(at) if as_of.tolerance_us > 0 => self.unsure(sku, name, at, as_of),
                _ => Vec::new(),
            };
            explain(&variances, &unsure)
        };
        Compared {
            book,
            verdicts,
            open,
        }
    }

    /// Movements that may be in the snapshot or not: for each, or for each return line that has
    /// some, by how much the book could be other than it is.
    fn unsure(&self, sku: SkuHash, name: &str, at: Loc, as_of: &AsOf) -> Vec<Vec<Units>> {
        let (_, last) = self.books.cell(sku, name, at);
        let from_us = as_of.us.saturating_sub(as_of.tolerance_us);
        let to_us = as_of.us.saturating_add(as_of.tolerance_us);
        let cell = self.counted.get(sku, at);
        // What is in a count already is in it for sure.
        let counted = |condition: usize, us: TimeUs| {
            let in_force = cell.and_then(|cell| cell.in_force(condition, as_of.us));
            in_force.is_some_and(|count| us <= count.as_of_us)
        };
        let mut unsure = Vec::new();
        let mut lines: Vec<(LineKey, Vec<Recent>)> = Vec::new();
        for recent in self.recent.chain(sku, at, last) {
            let us = recent.fact.occurred_us;
            if us < from_us || us > to_us || as_of.exact_source == Some(recent.fact.source) {
                continue;
            }
            if let Physical::Returned(line, _) | Physical::Inspected(line, ..) = recent.physical {
                match lines.iter_mut().find(|(known, _)| *known == line) {
                    Some((_, of)) => of.push(recent),
                    None => lines.push((line, vec![recent])),
                }
                continue;
            }
            let sign = if us <= as_of.us { -1 } else { 1 };
            let mut by = Units::default();
            add(&mut by, &recent.physical.by(), sign);
            for (condition, units) in by.iter_mut().enumerate() {
                if counted(condition, us) {
                    *units = 0;
                }
            }
            unsure.push(vec![by]);
        }
        for (line, mut of) in lines {
            // With so many, all that could be is too much to look at: the last to arrive.
            of.truncate(8);
            let mut after = Returns::default();
            for recent in self.recent.chain(sku, at, last) {
                if recent.fact.occurred_us > as_of.us {
                    after.take(at, &recent.physical);
                }
            }
            let now = self.returned(line, at);
            let later = after.0.iter().find(|(known, _)| *known == line);
            let then = later.map_or(now, |(_, later)| less(now, later));
            let mut alternatives = Vec::new();
            for subset in 1..1u32 << of.len() {
                let mut other = then;
                let chosen = of.iter().enumerate();
                for (_, recent) in chosen.filter(|(n, _)| subset & 1 << n != 0) {
                    let sign = if recent.fact.occurred_us <= as_of.us {
                        -1
                    } else {
                        1
                    };
                    change(&mut other, &recent.physical, sign);
                }
                let mut by = Units::default();
                add(&mut by, &other.balances(), 1);
                add(&mut by, &then.balances(), -1);
                for (condition, units) in by.iter_mut().enumerate() {
                    if of
                        .iter()
                        .all(|recent| counted(condition, recent.fact.occurred_us))
                    {
                        *units = 0;
                    }
                }
                alternatives.push(by);
            }
            unsure.push(alternatives);
        }
        unsure
    }

    /// Digest of what was counted and stated.
    pub fn counted_digest(&self, names: &impl LocationNames) -> Digest {
        let mut digester = Digester::default();
        let mut digest = Digest::default();
        for (at, cell) in self.counted.iter() {
            digest += cell.digest(at, names, &mut digester);
        }
        digest
    }
}

/// What several movements did to return lines at one place, in totals.
#[derive(Default)]
struct Returns(SmallVec<[(LineKey, ReturnedAt); 1]>);

impl Returns {
    /// Takes a movement; false if it is not about a return line.
    fn take(&mut self, at: Loc, physical: &Physical) -> bool {
        let (Physical::Returned(line, _) | Physical::Inspected(line, ..)) = *physical else {
            return false;
        };
        let known = self.0.iter().position(|(known, _)| *known == line);
        let known = known.unwrap_or_else(|| {
            self.0.push((line, ReturnedAt::nothing(at)));
            self.0.len() - 1
        });
        change(&mut self.0[known].1, physical, 1);
        true
    }
}

/// Adds a movement of a return line to its totals, or takes it away.
fn change(totals: &mut ReturnedAt, physical: &Physical, sign: i64) {
    match *physical {
        Physical::Returned(_, units) => totals.received += sign * i64::from(units),
        Physical::Inspected(_, disposition, units) => {
            let place = DISPOSITIONS.iter().position(|known| *known == disposition);
            let place = place.expect("all dispositions are listed");
            totals.inspected[place] += sign * i64::from(units);
        }
        Physical::By(..) | Physical::Within(..) => {}
    }
}

/// Totals without those of what came later.
fn less(mut totals: ReturnedAt, later: &ReturnedAt) -> ReturnedAt {
    // Below 0 only if the line was forgotten in between, which ended with all settled.
    totals.received = (totals.received - later.received).max(0);
    for (units, later) in totals.inspected.iter_mut().zip(later.inspected) {
        *units = (*units - later).max(0);
    }
    totals
}

fn add(sum: &mut Units, by: &Balances, sign: i64) {
    for (units, account) in sum.iter_mut().zip(Account::PHYSICAL) {
        *units += sign * by[account];
    }
}

fn variance<'a>(sku: &'a str, location: &'a str, condition: usize, snapshot: &'a str) -> About<'a> {
    About {
        sku,
        location,
        document: snapshot,
        line: Account::PHYSICAL[condition].name(),
        ..About::default()
    }
}
