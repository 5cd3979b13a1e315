//! The slow, obvious model: recomputes everything from the set of facts, by the text of the
//! domain's rules and not by its code. No order, no increments, no internal numbers.

pub(crate) mod bare;
pub(crate) mod cases;
pub(crate) mod channel;
pub(crate) mod decide;
pub(crate) mod fact;
pub(crate) mod generate;
pub(crate) mod lifecycle;
pub(crate) mod logs;

use std::collections::{BTreeMap, BTreeSet};

use sellable::domain::{
    balances::{Account, Balances},
    digest::{Digest, Digester},
    exceptions::{Open, StateKind, Subject},
    keys::{Keyer, LineKey, LineKind},
    movement::TimeUs,
    posting::{NEVER_US, UNSTATED_US},
    reconcile::Statement,
};

pub(crate) use channel::{Channel, Rules};
pub(crate) use fact::{Fact, Line, OCCURRED_US, What};
use lifecycle::{Totals, sum};

/// Which line: its kind, document and number, and the SKU.
pub(crate) type LineId = (LineKind, Line, String);

/// How a line stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// Opened, withdrawn and fulfilled in all.
    pub(crate) totals: [i64; 3],
    /// What it claims, by location name; no zeros.
    pub(crate) claims: BTreeMap<String, i64>,
    /// The latest time stated, as the books write it.
    pub(crate) until_us: TimeUs,
    /// Return lines: refunded in all.
    pub(crate) refunded: i64,
    /// Order lines: units that return lines name as theirs.
    pub(crate) returned: i64,
}

/// An exception: kind, what it is about, and units.
pub(crate) type Exceptions = BTreeMap<(StateKind, Subject), i64>;

/// As the model lists them.
pub(crate) fn listed<'o>(open: impl IntoIterator<Item = &'o Open>) -> Exceptions {
    let entry = |open: &Open| ((open.kind, open.subject.clone()), open.units);
    open.into_iter().map(entry).collect()
}

/// What a set of facts gives at a time.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// By SKU and location name; no cells with nothing in them.
    pub(crate) cells: BTreeMap<(String, String), Balances>,
    /// Every SKU that any fact names.
    pub(crate) skus: BTreeSet<String>,
    /// Units in from outside less units out, by SKU.
    pub(crate) net_in: BTreeMap<String, i64>,
    /// All lines that any fact is about, or names as returned.
    pub(crate) lines: BTreeMap<LineId, Standing>,
    /// The open exceptions.
    pub(crate) exceptions: Exceptions,
    misreading: Misreading,
}

/// Bugs put in on purpose, to show that the histories are hard enough to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Misreading {
    #[default]
    None,
    /// Returned units are given to restock before scrap.
    RestockFirst,
    /// An inspection takes effect before the units are received.
    InspectedBeforeReceipt,
    /// What was reserved until a time stays reserved.
    NoExpiry,
    /// The first time stated counts, and not the latest.
    FirstTimeCounts,
    /// What was withdrawn without naming a location is taken in the other order of names.
    LastNameFirst,
    /// A return adds to each order line that any fact names.
    AllOrdersReturned,
    /// Each line of a reservation is decided as if it were the only one.
    EachLineAlone,
    /// What expired of a line comes back when a command reserves for the same line.
    ExpiredComesBack,
    /// A count fixes the balance now, and not as of its time.
    CountedNow,
    /// The first count stays in force.
    FirstCountCounts,
}

impl Model {
    /// Of a set of facts, each of them once, when the log's time is `now_us`.
    pub(crate) fn of<'f>(facts: impl IntoIterator<Item = &'f Fact>, now_us: TimeUs) -> Self {
        Self::misread(Misreading::None, facts, now_us)
    }

    /// The same, by a text that was misread.
    pub(crate) fn misread<'f>(
        misreading: Misreading,
        facts: impl IntoIterator<Item = &'f Fact>,
        now_us: TimeUs,
    ) -> Self {
        let mut model = Self {
            misreading,
            ..Self::default()
        };
        let mut lines: BTreeMap<LineId, Totals> = BTreeMap::new();
        let facts: Vec<&Fact> = facts.into_iter().collect();
        for fact in &facts {
            model.skus.insert(fact.sku.clone());
            model.on_the_shelf(fact);
            if let Some((kind, line)) = fact.what.line() {
                let id = (kind, line.clone(), fact.sku.clone());
                lines.entry(id).or_default().take(fact);
            }
        }
        for (id, totals) in &lines {
            model.line(id, totals, now_us);
        }
        model.returned(&lines);
        model.count(&facts, now_us);
        model.wrong_cells();
        model.cells.retain(|_, balances| !balances.is_zero());
        model
    }

    /// "The balance now is the latest count (by `as_of`, ties by id) plus what occurred after it; a
    /// movement that occurred before the count and arrives late is already in it." What the books
    /// held differently comes from outside, or goes there.
    fn count(&mut self, facts: &[&Fact], now_us: TimeUs) {
        let counts = facts.iter().filter(|fact| fact.what.is_count());
        let mut latest: BTreeMap<(&str, &str, usize), (&Fact, i64)> = BTreeMap::new();
        for fact in counts {
            let What::Counted(at, _, units) = &fact.what else {
                continue;
            };
            for (condition, units) in units.iter().enumerate() {
                let Some(units) = units else { continue };
                let known = latest.entry((&fact.sku, at, condition));
                let known = known.or_insert((fact, *units));
                let order = |fact: &Fact| (fact.as_of_us(), fact.id.clone());
                let later = order(fact) > order(known.0);
                if later != (self.misreading == Misreading::FirstCountCounts) {
                    *known = (fact, *units);
                }
            }
        }
        let mut shifts = Vec::new();
        for ((sku, at, condition), (count, units)) in latest {
            let account = Account::PHYSICAL[condition];
            let now = self.misreading == Misreading::CountedNow;
            let movements = facts.iter().filter(|fact| !fact.what.is_count());
            let up_to = movements.filter(|fact| now || fact.occurred_us <= count.as_of_us());
            let then = Self::of(up_to.copied(), now_us).cell(sku, at)[account];
            shifts.push((sku, at, account, units - then));
        }
        for (sku, at, account, shift) in shifts {
            self.add(sku, at, account, shift);
            self.outside(sku, shift);
        }
    }

    /// What snapshots say otherwise than the books of their time; of several about one condition of
    /// a cell the latest counts.
    pub(crate) fn state(&mut self, facts: &[Fact], stated: &[(usize, Statement)]) {
        let mut latest: BTreeMap<(&str, &str, Account), &Statement> = BTreeMap::new();
        for (_, new) in stated {
            let of = (&*new.sku, &*new.location, new.condition);
            let known = latest.entry(of).or_insert(new);
            if (new.as_of_us, &new.snapshot) >= (known.as_of_us, &known.snapshot) {
                *known = new;
            }
        }
        for ((sku, at, condition), latest) in latest {
            let book = Self::book(facts, sku, at, latest.as_of_us)[condition as usize];
            let subject = Subject {
                sku: sku.into(),
                location: at.into(),
                document: latest.snapshot.clone(),
                line: condition.name().into(),
                supply: None,
            };
            if latest.stated != book {
                let variance = latest.stated - book;
                self.exceptions
                    .insert((StateKind::Variance, subject), variance);
            }
        }
    }

    /// `book(T)`: "the balances that the facts which occurred up to T, alone, give". A count tells
    /// of its own moment.
    pub(crate) fn book(facts: &[Fact], sku: &str, at: &str, us: TimeUs) -> [i64; 4] {
        let up_to = facts.iter().filter(|fact| fact.as_of_us() <= us);
        let balances = Self::of(up_to, us).cell(sku, at);
        Account::PHYSICAL.map(|account| balances[account])
    }

    /// What a fact does to what lies there, whatever else is known.
    fn on_the_shelf(&mut self, fact: &Fact) {
        let (q, sku) = (fact.quantity, &fact.sku);
        match &fact.what {
            What::Received(at, to)
            | What::Adjusted(at, to)
            | What::ReceivedOf(_, at, to)
            | What::Arrived(_, at, to) => {
                self.add(sku, at, (*to).into(), q);
                self.outside(sku, q);
            }
            What::Issued(at, from) => {
                self.add(sku, at, (*from).into(), -q);
                self.outside(sku, -q);
            }
            What::Reclassified(at, from, to) => {
                self.add(sku, at, (*from).into(), -q);
                self.add(sku, at, (*to).into(), q);
            }
            What::Shipped(_, from) | What::Dispatched(_, from, ..) => {
                self.add(sku, from, Account::Good, -q);
                self.outside(sku, -q);
            }
            _ => {}
        }
    }

    /// What a line puts on the cells, and what does not fit about it.
    fn line(&mut self, id: &LineId, totals: &Totals, now_us: TimeUs) {
        let (kind, line, sku) = id;
        let claims = totals.claims(*kind, now_us, self.misreading);
        for (at, units) in &claims {
            let account = match kind {
                LineKind::Order => Account::Reserved,
                LineKind::Inbound | LineKind::Transfer => Account::InTransit,
                LineKind::Return => Account::ReturnExpected,
            };
            self.add(sku, at, account, *units);
        }
        for (at, received) in &totals.received {
            let (there, scrapped) = totals.disposed(at, self.misreading);
            for (account, units) in there {
                self.add(sku, at, account, units);
            }
            self.outside(sku, received - scrapped);
        }

        let [opened, withdrawn, fulfilled] = totals.all();
        let subject = |location: &str| Subject {
            sku: sku.as_str().into(),
            location: location.into(),
            document: line.0.as_str().into(),
            line: line.1.as_str().into(),
            supply: None,
        };
        let beyond = match kind {
            LineKind::Order => StateKind::ShippedBeyondReserved,
            LineKind::Inbound => StateKind::ReceivedBeyondExpected,
            LineKind::Transfer => StateKind::TransferReceivedBeyondShipped,
            LineKind::Return => StateKind::ReturnReceivedBeyondAuthorized,
        };
        let units = (fulfilled + withdrawn - opened).clamp(0, fulfilled);
        self.wrong(beyond, subject(""), units);
        if matches!(kind, LineKind::Inbound | LineKind::Transfer)
            && totals
                .stated_us
                .iter()
                .flatten()
                .max()
                .is_some_and(|eta| now_us > *eta)
        {
            let open = (opened - withdrawn - fulfilled).max(0);
            let subject = Subject {
                supply: Some(*kind),
                ..subject("")
            };
            self.wrong(StateKind::OverdueSupply, subject, open);
        }
        for at in totals
            .inspected
            .keys()
            .map(|(at, _)| at)
            .collect::<BTreeSet<_>>()
        {
            let units = totals.inspected_at(at) - totals.received.get(at).unwrap_or(&0);
            self.wrong(StateKind::InspectedBeyondReceived, subject(at), units);
        }
        let units = totals.refunded - sum(&totals.received);
        self.wrong(StateKind::RefundedBeyondReceived, subject(""), units);

        let standing = Standing {
            totals: [opened, withdrawn, fulfilled],
            claims,
            until_us: totals.until_us(*kind),
            refunded: totals.refunded,
            returned: 0,
        };
        self.lines.insert(id.clone(), standing);
    }

    /// Units that returns name as those of an order line, against what that line shipped.
    fn returned(&mut self, lines: &BTreeMap<LineId, Totals>) {
        for ((_, _, sku), totals) in lines
            .iter()
            .filter(|((kind, ..), _)| *kind == LineKind::Return)
        {
            let key = |order: &&Line| -> LineKey {
                Keyer::new().line(LineKind::Order, &order.0, &order.1, sku)
            };
            let greatest = totals.orders.iter().max_by_key(key);
            let [authorized, cancelled, received] = totals.all();
            let units = (authorized - cancelled).max(received).max(0);
            let all = self.misreading == Misreading::AllOrdersReturned;
            for order in totals
                .orders
                .iter()
                .filter(|order| all || Some(*order) == greatest)
            {
                let id = (LineKind::Order, order.clone(), sku.clone());
                let standing = self.lines.entry(id).or_insert_with(|| Standing {
                    until_us: UNSTATED_US,
                    ..Standing::default()
                });
                standing.returned += units;
            }
        }
        let mut found = Vec::new();
        self.lines.retain(|id, standing| {
            let own = lines.contains_key(id);
            if own && standing.returned > 0 {
                found.push((id.clone(), standing.returned - standing.totals[2]));
            }
            own || standing.returned > 0
        });
        for ((_, (document, line), sku), units) in found {
            let subject = Subject {
                sku: sku.into(),
                document: document.into(),
                line: line.into(),
                ..Subject::default()
            };
            self.wrong(StateKind::ReturnedBeyondShipped, subject, units);
        }
    }

    fn wrong_cells(&mut self) {
        let mut wrong = Vec::new();
        for ((sku, at), balances) in &self.cells {
            let subject = |condition: &str| Subject {
                sku: sku.as_str().into(),
                location: at.as_str().into(),
                document: condition.into(),
                ..Subject::default()
            };
            let oversold = balances[Account::Reserved] - balances[Account::Good];
            wrong.push((StateKind::Oversold, subject(""), oversold));
            for account in Account::PHYSICAL {
                let missing = -balances[account];
                wrong.push((StateKind::NegativeBalance, subject(account.name()), missing));
            }
        }
        for (kind, subject, units) in wrong {
            self.wrong(kind, subject, units);
        }
    }

    fn wrong(&mut self, kind: StateKind, subject: Subject, units: i64) {
        if units > 0 {
            self.exceptions.insert((kind, subject), units);
        }
    }

    fn add(&mut self, sku: &str, at: &str, account: Account, units: i64) {
        let cell = self.cells.entry((sku.to_owned(), at.to_owned()));
        cell.or_default()[account] += units;
    }

    fn outside(&mut self, sku: &str, units: i64) {
        *self.net_in.entry(sku.to_owned()).or_default() += units;
    }

    /// The balances of a cell; 0 if there is none.
    pub(crate) fn cell(&self, sku: &str, at: &str) -> Balances {
        let cell = self.cells.get(&(sku.to_owned(), at.to_owned()));
        cell.copied().unwrap_or_default()
    }

    /// What an order line claims.
    pub(crate) fn claims_of(&self, order: &str, line: &str, sku: &str) -> BTreeMap<String, i64> {
        let line = (order.to_owned(), line.to_owned());
        let standing = self.lines.get(&(LineKind::Order, line, sku.to_owned()));
        standing.map(|line| line.claims.clone()).unwrap_or_default()
    }

    /// Units physically there.
    pub(crate) fn units(&self) -> i64 {
        self.cells.values().map(Balances::on_hand).sum()
    }

    /// Digest of all cells.
    pub(crate) fn digest(&self) -> Digest {
        let mut digester = Digester::default();
        let mut digest = Digest::default();
        for ((sku, at), balances) in &self.cells {
            digest += digester.cell(sku, at, balances);
        }
        digest
    }

    /// Units in less units out are the sum of the physical balances, for every SKU.
    pub(crate) fn conserves(&self) -> bool {
        let mut physical: BTreeMap<&str, i64> = BTreeMap::new();
        for ((sku, _), balances) in &self.cells {
            *physical.entry(sku).or_default() += balances.on_hand();
        }
        self.skus.iter().all(|sku| {
            let net_in = self.net_in.get(sku).copied().unwrap_or(0);
            physical.get(sku.as_str()).copied().unwrap_or(0) == net_in
        })
    }
}

impl Totals {
    /// As the books write the latest time stated.
    fn until_us(&self, kind: LineKind) -> TimeUs {
        let stated = self.stated_us.iter().map(|us| match (us, kind) {
            (Some(us), _) => *us,
            (None, LineKind::Order) => NEVER_US,
            (None, _) => UNSTATED_US,
        });
        stated.max().unwrap_or(UNSTATED_US)
    }
}
