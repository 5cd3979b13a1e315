//! The ledger: applies postings to the books, follows the lines of documents, and finds out what
//! does not fit.

use std::collections::BTreeMap;

use super::{
    balances::{Account, Balances, Loc, LocationNames},
    digest::{Digest, Digester},
    exceptions::{About, Finding, Open, StateKind, Subject},
    keys::{Keyer, LineKey, LineKind, SkuHash},
    lifecycle::{Claims, Line, Misfits, ReturnedAt, ReturnedLine, has_expired},
    lines::{Change, Lines, PARTS, minute_of},
    movement::TimeUs,
    posting::{Effect, Milestone, NEVER_US, Posting, UNSTATED_US},
    recent::{Physical, Recent, RecentMovements, RecentView, Trail},
    saved::Output,
    sweep::Sweep,
};

mod as_of;
mod counted;
mod plain;

pub use counted::{CountedCell, CountedCells, each_counted};
pub use plain::PlainBooks;

/// A change of one cell, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellChange {
    /// Where.
    pub at: Loc,
    /// By how much, in each account.
    pub by: Balances,
}

/// Where balances are kept. The ledger decides what changes; the books add it up.
///
/// Two stand behind this interface: [`PlainBooks`], the obvious one, and that of
/// `crate::shard`, which is compact and can be read while it is written.
pub trait Books {
    /// Adds `changes` to the cells of a SKU, all at once for any reader, and `net_in` to what
    /// came in from outside less what went out. Cells and SKUs that are not there begin at 0.
    ///
    /// With `last`, which names one of the cells that change, that cell's last recent movement is
    /// there from now on.
    fn post(
        &mut self,
        sku: SkuHash,
        name: &str,
        changes: &[CellChange],
        net_in: i64,
        last: Option<(Loc, Trail)>,
    ) -> Posted;

    /// The balances of a cell, and where its last recent movement is; nothing if there is none.
    fn cell(&self, sku: SkuHash, name: &str, at: Loc) -> (Balances, Trail);

    /// The last recent movement of a cell is there, which was taken back from a checkpoint; gives
    /// where it was. `None` if there is no such cell.
    fn swap_trail(&mut self, sku: SkuHash, at: Loc, last: Trail) -> Option<Trail>;

    /// Brings the place of a SKU in the index into the cache.
    fn prefetch_index(&self, _sku: SkuHash) {}

    /// Brings the SKU itself into the cache; its place in the index should be there already.
    fn prefetch_sku(&self, _sku: SkuHash) {}

    /// Brings a cell of the SKU into the cache; the SKU itself should be there already.
    fn prefetch_cell(&self, _sku: SkuHash, _at: Loc) {}
}

/// What [`Books::post`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Posted {
    /// Any of these cells is, or was before, one that [`Balances::is_wrong`].
    pub wrong: bool,
    /// Where the last recent movement of the cell was, if that was to be changed.
    pub before: Trail,
}

/// What a posting is about, by name: keys are enough to apply it, but a person who has to look at
/// an exception needs names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names<'a> {
    /// The SKU.
    pub sku: &'a str,
    /// Document and line that it is a milestone of; empty if it is of none.
    pub document: (&'a str, &'a str),
    /// The order and its line that an authorized return is for.
    pub order: Option<(&'a str, &'a str)>,
}

impl<'a> Names<'a> {
    /// Of a posting that is no milestone.
    pub const fn sku(sku: &'a str) -> Self {
        Self {
            sku,
            document: ("", ""),
            order: None,
        }
    }
}

/// What is to happen when the log's time comes: an order line expires, or supply is overdue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Timer {
    sku: Box<str>,
    /// Only of supply, for the exception.
    document: Box<str>,
    line: Box<str>,
}

/// A ledger: books and lifecycles, at a time of the log.
#[derive(Debug)]
pub struct Ledger<B> {
    books: B,
    lines: Lines,
    recent: RecentMovements,
    /// Cells that were counted, or of which a snapshot says something else than the books.
    counted: CountedCells,
    /// Movements that arrived before this may have been forgotten.
    forgotten_before_us: Option<TimeUs>,
    /// By time, of all lines that have one to come and claim something.
    timers: BTreeMap<(TimeUs, LineKey), Timer>,
    now_us: TimeUs,
    retain_minutes: u32,
    findings: Vec<Finding>,
    keyer: Keyer,
    saving: Saving,
}

/// What of it is being saved for a checkpoint, beside the lines; see `saving`.
#[derive(Debug, Default)]
struct Saving {
    timers: Sweep<(TimeUs, LineKey)>,
    saved_timers: Output,
    recent: RecentView,
    saved_recent: Output,
}

/// How long settled lines are kept, unless it is said: as long as ids.
const RETAIN_US: i64 = super::admission::Horizon::DEFAULT.us;

impl<B: Books> Ledger<B> {
    /// A ledger with these books, which must be empty.
    pub fn new(books: B) -> Self {
        Self {
            books,
            lines: Lines::default(),
            recent: RecentMovements::default(),
            counted: CountedCells::default(),
            forgotten_before_us: None,
            timers: BTreeMap::new(),
            now_us: 0,
            retain_minutes: minute_of(RETAIN_US),
            findings: Vec::new(),
            keyer: Keyer::new(),
            saving: Saving::default(),
        }
    }

    /// Keeps settled lines for `us` microseconds after their last change, a minute at least.
    #[must_use]
    pub fn retaining(mut self, us: i64) -> Self {
        self.retain_minutes = minute_of(us).max(1);
        self
    }

    /// The log's time.
    pub fn now_us(&self) -> TimeUs {
        self.now_us
    }

    /// The next time at which something happens by itself.
    pub fn next_timer_us(&self) -> Option<TimeUs> {
        self.timers.first_key_value().map(|((us, _), _)| *us)
    }

    /// What was found out since this was last asked.
    pub fn take_findings(&mut self) -> std::vec::Drain<'_, Finding> {
        self.findings.drain(..)
    }

    /// Whether anything was found out since.
    pub fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    /// The log's time moves on: lines expire, supply is overdue, settled lines are retired. To be
    /// called before what has that time is applied. Time never steps back.
    #[inline]
    pub fn advance(&mut self, now_us: TimeUs, names: &impl LocationNames) {
        if now_us > self.now_us {
            self.advance_to(now_us, names);
        }
    }

    fn advance_to(&mut self, now_us: TimeUs, names: &impl LocationNames) {
        let before_us = self.now_us;
        while let Some(((at_us, key), _)) = self.timers.first_key_value()
            && *at_us <= now_us
        {
            let place = (*at_us, *key);
            self.save_timer(place);
            let timer = self.timers.remove(&place).expect("it is the first");
            self.fire(place.1, &timer, place.0, names);
        }
        self.now_us = now_us;
        self.retire(minute_of(before_us), minute_of(now_us));
    }

    fn fire(&mut self, key: LineKey, timer: &Timer, at_us: TimeUs, names: &impl LocationNames) {
        // At the time before, it was not over yet.
        let claims = self.lines.claims(key, self.now_us, names);
        let sku = SkuHash::of(&timer.sku);
        if key.kind() == LineKind::Order {
            let mut changes = Changes::default();
            changes.claims(LineKind::Order, &claims, -1);
            self.post(sku, &timer.sku, &changes.0, 0, names);
        } else {
            let units = claims.iter().map(|(_, units)| units).sum();
            let subject = Subject {
                sku: timer.sku.clone(),
                document: timer.document.clone(),
                line: timer.line.clone(),
                supply: Some(key.kind()),
                ..Subject::default()
            };
            self.findings.push(Finding::Open(Open {
                kind: StateKind::OverdueSupply,
                subject,
                units,
                // When it was due, not when that was noticed: how far the time went on at once is
                // no matter of the log.
                first_seen_us: at_us,
                acknowledged: None,
            }));
        }
    }

    /// One part of the lines each minute, so that which lines are there at a position of the log
    /// depends on nothing but the log.
    fn retire(&mut self, before: u32, now: u32) {
        let parts = PARTS as u32;
        for minute in (before + 1).max((now + 1).saturating_sub(parts))..=now {
            let part = (minute % parts) as usize;
            self.lines.retire(part, minute, self.retain_minutes);
        }
    }

    /// Applies one posting. A fact is never refused: the goods moved.
    pub fn apply(&mut self, posting: &Posting, about: Names<'_>, names: &impl LocationNames) {
        match posting.effect {
            Effect::In { .. } | Effect::Out { .. } | Effect::Within { .. } => {
                self.enter(posting, Changes::default(), None, about, names);
            }
            Effect::Count {
                at,
                as_of_us,
                units,
            } => self.count(posting.sku, at, as_of_us, units, about, names),
            Effect::Line { line, milestone } if line.kind() == LineKind::Return => {
                self.return_line(posting, line, milestone, about, names);
            }
            Effect::Line { line, milestone } => {
                self.line(posting, line, milestone, about, names);
            }
            Effect::None => {
                self.enter(posting, Changes::default(), None, about, names);
            }
        }
    }

    fn line(
        &mut self,
        posting: &Posting,
        key: LineKey,
        milestone: Milestone,
        about: Names<'_>,
        names: &impl LocationNames,
    ) {
        let mut changes = Changes::default();
        let units = posting.quantity.into();
        self.milestone(key, milestone, units, about, &mut changes, names);
        self.enter(posting, changes, None, about, names);
    }

    /// Adds a milestone of a line, and to `changes` what it claims otherwise.
    #[inline]
    fn milestone(
        &mut self,
        key: LineKey,
        milestone: Milestone,
        units: i64,
        about: Names<'_>,
        changes: &mut Changes,
        names: &impl LocationNames,
    ) {
        let change = self.lines.record(key, milestone, units, self.now_us, names);
        changes.line(key.kind(), &change);
        self.settle(key, &change, about);
    }

    /// Enters a posting in the books: what a line claims otherwise, as `changes` have it, and its
    /// physical effect. What lies of a return line at the place is told as it was and as it is.
    #[inline]
    fn enter(
        &mut self,
        posting: &Posting,
        mut changes: Changes,
        there: Option<[ReturnedAt; 2]>,
        about: Names<'_>,
        names: &impl LocationNames,
    ) {
        let Some((at, physical)) = Physical::of(posting) else {
            // Also if nothing changes: whether a SKU is known must not depend on the order of facts.
            return self.post(posting.sku, about.sku, changes.non_zero(), 0, names);
        };
        let by = match (physical, there) {
            (_, Some([before, after])) => {
                let (mut by, before) = (after.balances(), before.balances());
                for account in Account::PHYSICAL {
                    by[account] -= before[account];
                }
                by
            }
            _ => physical.by(),
        };
        let mut net_in = by.on_hand();
        changes.physical(at, &by);
        let recent = Recent {
            fact: posting.fact,
            physical,
        };
        let counted = self.counted.contains(posting.sku, at);
        if counted {
            let shift = self.recount(posting.sku, about.sku, at, &recent, there);
            net_in += shift.on_hand();
            changes.physical(at, &shift);
        }
        let last = self.recent.next(&physical);
        let changes = changes.non_zero_but(at);
        let posted = self
            .books
            .post(posting.sku, about.sku, changes, net_in, Some((at, last)));
        self.recent
            .push(posting.sku, at, &recent, posted.before, self.now_us);
        if posted.wrong {
            self.review(posting.sku, about.sku, changes, names);
        }
        if counted {
            self.review_stated(posting.sku, at, about.sku, names);
        }
    }

    /// Enters what lines of orders reserve of one SKU: as [`Ledger::apply`] for each of their
    /// milestones, but the balances, which they have in common, are changed once. So a dead band is
    /// held against what all of them take.
    pub fn reserve<'a>(
        &mut self,
        sku: SkuHash,
        name: &str,
        expires_us: TimeUs,
        reserved: impl Iterator<Item = (LineKey, Claims, Names<'a>)>,
        names: &impl LocationNames,
    ) {
        let mut changes = Changes::default();
        for (key, claims, about) in reserved {
            self.release_expired(key, about, &mut changes, names);
            for (at, units) in claims {
                let milestone = Milestone::Reserved { at, expires_us };
                self.milestone(key, milestone, units, about, &mut changes, names);
            }
        }
        self.post(sku, name, changes.non_zero(), 0, names);
    }

    /// What expired of an order line is released for good: a command that reserves for the same
    /// line must not bring back what others may have had since.
    fn release_expired(
        &mut self,
        key: LineKey,
        about: Names<'_>,
        changes: &mut Changes,
        names: &impl LocationNames,
    ) {
        let until_us = self.lines.until_us(key);
        if !until_us.is_some_and(|until_us| has_expired(key.kind(), until_us, self.now_us)) {
            return;
        }
        let line = self.lines.get(key);
        for (at, units) in line.iter().flat_map(|line| line.claims(names)) {
            let milestone = Milestone::Released(Some(at));
            self.milestone(key, milestone, units, about, changes, names);
        }
    }

    /// Gives an order line more time, if that is later than what was stated before.
    pub fn prolong(
        &mut self,
        sku: SkuHash,
        key: LineKey,
        until_us: TimeUs,
        about: Names<'_>,
        names: &impl LocationNames,
    ) {
        let change = self.lines.change_full(key, self.now_us, names, |line| {
            line.until_us = line.until_us.max(until_us);
        });
        // What it claims otherwise than before; nothing moved.
        let mut changes = Changes::default();
        changes.line(key.kind(), &change);
        self.settle(key, &change, about);
        self.post(sku, about.sku, changes.non_zero(), 0, names);
    }

    fn return_line(
        &mut self,
        posting: &Posting,
        key: LineKey,
        milestone: Milestone,
        about: Names<'_>,
        names: &impl LocationNames,
    ) {
        let units = i64::from(posting.quantity);
        let at = match milestone {
            Milestone::Returned(at) | Milestone::Inspected { at, .. } => Some(at),
            _ => None,
        };
        let order = about.order.map(|(order, line)| ReturnedLine {
            key: self.keyer.line(LineKind::Order, order, line, about.sku),
            order: order.into(),
            line: line.into(),
        });
        let mut link = [None, None];
        let mut there = None;
        let change = if at.is_none() && order.is_none() && milestone != Milestone::Refunded {
            // Of the core alone: it may stay compact. One that is in full form may be linked.
            let before = self.linked(key);
            let change = self.lines.record(key, milestone, units, self.now_us, names);
            link = [before, self.linked(key)];
            change
        } else {
            self.lines.change_full(key, self.now_us, names, |line| {
                link[0] = link_of(line);
                let before = at.map(|at| line.at(at));
                line.record(milestone, units);
                if let Some(order) = order {
                    let known = &mut line.returns.get_or_insert_default().order;
                    if known.as_ref().is_none_or(|known| known.key < order.key) {
                        *known = Some(order);
                    }
                }
                link[1] = link_of(line);
                there = before.zip(at.map(|at| line.at(at)));
            })
        };
        let mut changes = Changes::default();
        changes.line(LineKind::Return, &change);
        let there = there.map(|(before, after)| [before, after]);
        if let Some([before, after]) = there {
            let [was, is] = [before, after].map(|there| there.inspected_beyond());
            let there = About {
                location: names.name(after.at),
                ..line(about)
            };
            self.found(StateKind::InspectedBeyondReceived, was, is, there);
        }
        self.settle(key, &change, about);
        self.enter(posting, changes, there, about, names);
        self.relink(about.sku, link, names);
    }

    fn linked(&self, key: LineKey) -> Option<(ReturnedLine, i64)> {
        self.lines.get(key).as_ref().and_then(link_of)
    }

    /// An order line knows how many units return lines name as theirs.
    fn relink(
        &mut self,
        sku: &str,
        [before, after]: [Option<(ReturnedLine, i64)>; 2],
        names: &impl LocationNames,
    ) {
        if before == after {
            return;
        }
        for (linked, sign) in [(before, -1), (after, 1)] {
            let Some((order, units)) = linked else {
                continue;
            };
            let change = self
                .lines
                .change_full(order.key, self.now_us, names, |line| {
                    line.returned += sign * units;
                });
            let about = Names {
                sku,
                document: (&order.order, &order.line),
                order: None,
            };
            self.misfits(LineKind::Order, &change, about);
        }
    }

    /// Keeps timers and exceptions as a changed line has them.
    #[inline]
    fn settle(&mut self, key: LineKey, change: &Change, about: Names<'_>) {
        let (before, after) = (&change.before, &change.after);
        if before.until_us != UNSTATED_US || after.until_us != UNSTATED_US {
            self.keep_timer(key, change, about);
        }
        if before.misfits != Misfits::default() || after.misfits != Misfits::default() {
            self.misfits(key.kind(), change, about);
        }
    }

    fn keep_timer(&mut self, key: LineKey, change: &Change, about: Names<'_>) {
        let is_order = key.kind() == LineKind::Order;
        // What is due by a time is overdue just after it.
        let due = |until_us: TimeUs| {
            let stated = until_us != UNSTATED_US && until_us != NEVER_US;
            let at_us = if is_order {
                until_us
            } else {
                until_us.saturating_add(1)
            };
            (stated && at_us > self.now_us).then_some(at_us)
        };
        let open = |claims: &Claims| !claims.is_empty();
        let before = due(change.before.until_us).filter(|_| open(&change.before.claims));
        let after = due(change.after.until_us).filter(|_| open(&change.after.claims));
        if before == after {
            return;
        }
        if let Some(us) = before {
            self.save_timer((us, key));
            self.timers.remove(&(us, key));
        }
        if let Some(us) = after {
            self.save_timer((us, key));
            let (document, line) = if is_order { ("", "") } else { about.document };
            let timer = Timer {
                sku: about.sku.into(),
                document: document.into(),
                line: line.into(),
            };
            self.timers.insert((us, key), timer);
        }
    }

    #[cold]
    fn misfits(&mut self, kind: LineKind, change: &Change, about: Names<'_>) {
        let (before, after) = (change.before.misfits, change.after.misfits);
        let beyond = match kind {
            LineKind::Order => StateKind::ShippedBeyondReserved,
            LineKind::Inbound => StateKind::ReceivedBeyondExpected,
            LineKind::Transfer => StateKind::TransferReceivedBeyondShipped,
            LineKind::Return => StateKind::ReturnReceivedBeyondAuthorized,
        };
        for (kind, was, is) in [
            (beyond, before.beyond, after.beyond),
            (
                StateKind::ReturnedBeyondShipped,
                before.returned,
                after.returned,
            ),
            (
                StateKind::RefundedBeyondReceived,
                before.refunded,
                after.refunded,
            ),
        ] {
            self.found(kind, was, is, line(about));
        }
        let (was, is) = (before.overdue, after.overdue);
        let supply = About {
            supply: Some(kind),
            ..line(about)
        };
        self.found(StateKind::OverdueSupply, was, is, supply);
    }

    fn found(&mut self, kind: StateKind, was: i64, is: i64, about: About<'_>) {
        let finding = match (was, is) {
            _ if was == is => return,
            (_, 0) => Finding::Closed(about.id(kind)),
            (0, _) => Finding::Open(Open {
                kind,
                subject: about.to_subject(),
                units: is,
                first_seen_us: self.now_us,
                acknowledged: None,
            }),
            (_, _) => Finding::Changed(about.id(kind), is),
        };
        self.findings.push(finding);
    }

    #[inline]
    fn post(
        &mut self,
        sku: SkuHash,
        name: &str,
        changes: &[CellChange],
        net_in: i64,
        names: &impl LocationNames,
    ) {
        if self.books.post(sku, name, changes, net_in, None).wrong {
            self.review(sku, name, changes, names);
        }
    }

    /// Looks at cells that are wrong, or were.
    #[cold]
    fn review(
        &mut self,
        sku: SkuHash,
        name: &str,
        changes: &[CellChange],
        names: &impl LocationNames,
    ) {
        for change in changes {
            let (after, _) = self.books.cell(sku, name, change.at);
            let mut before = after;
            for (units, by) in before.0.iter_mut().zip(change.by.0) {
                *units -= by;
            }
            let cell = About {
                sku: name,
                location: names.name(change.at),
                ..About::default()
            };
            let [was, is] = [before, after].map(|balances| (-balances.free()).max(0));
            self.found(StateKind::Oversold, was, is, cell);
            for account in Account::PHYSICAL {
                let [was, is] = [before, after].map(|balances| (-balances[account]).max(0));
                let about = About {
                    document: account.name(),
                    ..cell
                };
                self.found(StateKind::NegativeBalance, was, is, about);
            }
        }
    }

    /// Brings SKUs into the cache, whose places in the index should be there already; first step
    /// of [`Ledger::prefetch_cells`].
    pub fn prefetch_skus(&self, skus: impl Iterator<Item = SkuHash>) {
        for sku in skus {
            self.books.prefetch_index(sku);
        }
    }

    /// Brings cells into the cache that will be compared.
    pub fn prefetch_cells(&self, cells: impl Iterator<Item = (SkuHash, Option<Loc>)> + Clone) {
        for (sku, _) in cells.clone() {
            self.books.prefetch_sku(sku);
        }
        for (sku, at) in cells {
            if let Some(at) = at {
                self.books.prefetch_cell(sku, at);
            }
        }
    }

    /// Brings into the cache what [`Ledger::prefetch`] begins with.
    pub fn prefetch_index<'p>(&self, postings: impl Iterator<Item = &'p Posting>) {
        for posting in postings {
            self.books.prefetch_index(posting.sku);
        }
    }

    /// Brings into the cache what a group of postings will touch, in waves, so that their cache
    /// misses overlap; each wave follows what the one before brought. [`Ledger::prefetch_index`]
    /// should have been called a while ago.
    pub fn prefetch<'p>(&self, postings: impl Iterator<Item = &'p Posting> + Clone) {
        for posting in postings.clone() {
            self.books.prefetch_sku(posting.sku);
        }
        for posting in postings.clone() {
            if let Effect::Line { line, .. } = posting.effect {
                self.lines.touch(line);
            }
        }
        for posting in postings {
            if let Some(at) = posting.effect.location() {
                self.books.prefetch_cell(posting.sku, at);
            }
        }
    }

    /// The books.
    pub fn books(&self) -> &B {
        &self.books
    }

    /// The books, to set them up or maintain them.
    pub fn books_mut(&mut self) -> &mut B {
        &mut self.books
    }

    /// The recent movements.
    pub fn recent(&self) -> &RecentMovements {
        &self.recent
    }

    /// The followed lines.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Digest of the followed lines.
    pub fn lines_digest(&self, names: &impl LocationNames) -> Digest {
        let mut digester = Digester::default();
        let mut digest = Digest::default();
        self.lines
            .for_each(|key, line| digest += digester.line(key, line, names));
        digest
    }
}

mod saving;

pub use saving::SavedPart;

fn line(names: Names<'_>) -> About<'_> {
    About {
        sku: names.sku,
        document: names.document.0,
        line: names.document.1,
        ..About::default()
    }
}

fn link_of(line: &Line) -> Option<(ReturnedLine, i64)> {
    let order = line.returns.as_deref()?.order.clone()?;
    Some((order, line.claimed_back()))
}

/// Changes of a few cells, one entry for each.
#[derive(Default)]
struct Changes(smallvec::SmallVec<[CellChange; 2]>);

impl Changes {
    /// Adds what a line claims now, and no longer claims.
    #[inline]
    fn line(&mut self, kind: LineKind, change: &Change) {
        self.claims(kind, &change.before.claims, -1);
        self.claims(kind, &change.after.claims, 1);
    }

    #[inline]
    fn claims(&mut self, kind: LineKind, claims: &Claims, sign: i64) {
        for (at, units) in claims {
            self.add(*at, kind.account(), sign * units);
        }
    }

    /// Adds a change of a cell; the cell is among those that change from then on, even by nothing.
    #[inline]
    fn physical(&mut self, at: Loc, by: &Balances) {
        match self.0.iter_mut().find(|change| change.at == at) {
            Some(change) => change.by += *by,
            None => self.0.push(CellChange { at, by: *by }),
        }
    }

    fn non_zero(&mut self) -> &[CellChange] {
        self.0.retain(|change| !change.by.is_zero());
        &self.0
    }

    /// Those that change anything, and that at `at`.
    #[inline]
    fn non_zero_but(&mut self, at: Loc) -> &[CellChange] {
        if self.0.len() > 1 {
            self.0
                .retain(|change| change.at == at || !change.by.is_zero());
        }
        &self.0
    }

    #[inline]
    fn add(&mut self, at: Loc, account: Account, units: i64) {
        match self.0.iter_mut().find(|change| change.at == at) {
            Some(change) => change.by[account] += units,
            None => self.0.push(CellChange {
                at,
                by: Balances::of(account, units),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
