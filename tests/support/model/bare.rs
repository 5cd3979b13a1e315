//! The bare ledger, driven as the sequencer and one shard drive it; rightly, and wrongly on purpose.

use std::{collections::BTreeMap, fmt::Debug};

use rand::{Rng, rngs::StdRng};
use sellable::domain::{
    admission::{Admission, Horizon, Verdict},
    balances::{Account, Balances, Loc, LocationNames},
    exceptions::{Finding, OpenExceptions, ParkedKind},
    keys::{Keyer, SkuHash},
    ledger::{Books, CellChange, Ledger, Names, PlainBooks, Posted},
    movement::TimeUs,
    posting::{Fact as Kept, Posting},
    recent::Trail,
    reconcile::Statement,
};

use super::{
    Model, Standing,
    fact::{Fact, OCCURRED_US, What},
    generate::{SKUS, STEPS_MAX, at_step},
    listed,
};

/// The log's time, on its way to the end of a history.
pub(crate) struct Clock {
    step: i64,
    end_us: TimeUs,
}

impl Clock {
    pub(crate) fn new(end_us: TimeUs) -> Self {
        Self { step: 0, end_us }
    }

    /// The time of what is written next: mostly as before, sometimes later, and sometimes a clock
    /// that was set back, which the log's time does not follow.
    pub(crate) fn next(&mut self, random: &mut StdRng) -> TimeUs {
        match random.random_range(0..12) {
            0..3 => self.step += random.random_range(1..=3),
            3 => self.step += STEPS_MAX,
            4 => return at_step(self.step - 2).min(self.end_us),
            _ => {}
        }
        at_step(self.step).min(self.end_us)
    }
}

/// Numbers in order of arrival.
#[derive(Default)]
pub(crate) struct Arrived(pub(crate) Vec<String>);

impl Arrived {
    pub(crate) fn number(&mut self, name: &str) -> Loc {
        let found = self.0.iter().position(|known| known == name);
        Loc(found.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        }) as u32)
    }
}

impl LocationNames for Arrived {
    fn name(&self, loc: Loc) -> &str {
        &self.0[loc.0 as usize]
    }
}

/// A bug, put in on purpose: locations in order of arrival instead of by name.
pub(crate) struct ByNumber(pub(crate) Vec<String>);

impl LocationNames for ByNumber {
    fn name(&self, loc: Loc) -> &str {
        &self.0[loc.0 as usize]
    }
}

/// A bug, put in on purpose: claims are never given back.
#[derive(Default)]
pub(crate) struct BooksThatKeepClaims(pub(crate) PlainBooks);

impl Books for BooksThatKeepClaims {
    fn post(
        &mut self,
        sku: SkuHash,
        name: &str,
        changes: &[CellChange],
        net_in: i64,
        last: Option<(Loc, Trail)>,
    ) -> Posted {
        let mut changes = changes.to_vec();
        for change in &mut changes {
            change.by[Account::Reserved] = change.by[Account::Reserved].max(0);
        }
        self.0.post(sku, name, &changes, net_in, last)
    }

    fn cell(&self, sku: SkuHash, name: &str, at: Loc) -> (Balances, Trail) {
        self.0.cell(sku, name, at)
    }

    fn swap_trail(&mut self, sku: SkuHash, at: Loc, last: Trail) -> Option<Trail> {
        self.0.swap_trail(sku, at, last)
    }
}

/// A bug, put in on purpose: what went wrong with a cell is told, and not that it is right again.
#[derive(Default)]
pub(crate) struct BooksThatStayWrong(pub(crate) PlainBooks);

impl Books for BooksThatStayWrong {
    fn post(
        &mut self,
        sku: SkuHash,
        name: &str,
        changes: &[CellChange],
        net_in: i64,
        last: Option<(Loc, Trail)>,
    ) -> Posted {
        let posted = self.0.post(sku, name, changes, net_in, last);
        let mut after = changes
            .iter()
            .map(|change| self.0.cell(sku, name, change.at).0);
        Posted {
            wrong: after.any(|balances| balances.is_wrong()),
            ..posted
        }
    }

    fn cell(&self, sku: SkuHash, name: &str, at: Loc) -> (Balances, Trail) {
        self.0.cell(sku, name, at)
    }

    fn swap_trail(&mut self, sku: SkuHash, at: Loc, last: Trail) -> Option<Trail> {
        self.0.swap_trail(sku, at, last)
    }
}

/// What the bare ledger comes to.
pub(crate) struct Bare<B> {
    pub(crate) ledger: Ledger<B>,
    pub(crate) names: Arrived,
    pub(crate) open: OpenExceptions,
}

/// How the bare ledger is driven: rightly, or not.
pub(crate) struct Driver {
    /// Names for the ledger, instead of the right ones.
    pub(crate) names: fn(&Arrived) -> Option<ByNumber>,
    /// The log's time goes on.
    pub(crate) time: bool,
    /// Exceptions close.
    pub(crate) closing: bool,
}

pub(crate) const RIGHTLY: Driver = Driver {
    names: |_| None,
    time: true,
    closing: true,
};

/// Applies arrivals as the sequencer and one shard do.
pub(crate) fn apply<B: Books>(
    arrivals: &[Fact],
    end_us: TimeUs,
    random: &mut StdRng,
    books: B,
    driver: &Driver,
) -> Bare<B> {
    apply_stated(arrivals, &[], end_us, random, books, driver)
}

/// The same, with what comparisons found, each before one of the arrivals.
pub(crate) fn apply_stated<B: Books>(
    arrivals: &[Fact],
    stated: &[(usize, Statement)],
    end_us: TimeUs,
    random: &mut StdRng,
    books: B,
    driver: &Driver,
) -> Bare<B> {
    let mut bare = Bare {
        ledger: Ledger::new(books),
        names: Arrived::default(),
        open: OpenExceptions::default(),
    };
    let (mut admission, mut keyer) = (Admission::new(Horizon::DEFAULT), Keyer::new());
    admission.advance(OCCURRED_US);
    let mut clock = Clock::new(end_us);
    for (place, fact) in arrivals.iter().enumerate() {
        bare.state(stated, place);
        let now_us = clock.next(random);
        if driver.time {
            bare.ledger.advance(now_us, &bare.names);
        }
        let movement = fact.movement();
        movement
            .check(OCCURRED_US)
            .expect("the generator keeps the limits");
        let kept = Kept::of(&movement, keyer.movement("wms", &fact.id), 0);
        let posting = Posting::of(&movement, &mut keyer, kept, |name| bare.names.number(name));
        if fact.what.is_undecided() {
            continue;
        }
        let (key, content) = (keyer.movement("wms", &fact.id), keyer.content(&movement));
        match admission.admit(key, content, movement.occurred_us) {
            Verdict::Apply => {}
            Verdict::Repeat(_) | Verdict::Park(ParkedKind::ConflictingDuplicate) => continue,
            Verdict::Park(kind) => panic!("{kind:?}: {fact:?}"),
        }
        let about = Names {
            sku: &fact.sku,
            document: match &fact.what {
                What::Counted(..) => (&fact.id, "wms"),
                _ => movement.kind.document().unwrap_or_default(),
            },
            order: match &fact.what {
                What::Authorized(_, _, order) => order.as_ref().map(|(o, l)| (&**o, &**l)),
                _ => None,
            },
        };
        match (driver.names)(&bare.names) {
            None => bare.ledger.apply(&posting, about, &bare.names),
            Some(others) => bare.ledger.apply(&posting, about, &others),
        }
    }
    bare.state(stated, arrivals.len());
    if driver.time {
        bare.ledger.advance(end_us, &bare.names);
    }
    let findings: Vec<_> = bare.ledger.take_findings().collect();
    for finding in findings {
        if driver.closing || !matches!(finding, Finding::Closed(_)) {
            bare.open.take(finding);
        }
    }
    bare
}

pub(crate) fn equal<T: PartialEq + Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}"))
}

impl<B: Books> Bare<B> {
    fn state(&mut self, stated: &[(usize, Statement)], place: usize) {
        for (_, statement) in stated.iter().filter(|(before, _)| *before == place) {
            let at = self.names.number(&statement.location);
            let sku = SkuHash::of(&statement.sku);
            self.ledger.state(statement, sku, at, &self.names);
        }
    }

    /// Compares the books of some moments with the model.
    pub(crate) fn compare_books(&self, facts: &[Fact], random: &mut StdRng) -> Result<(), String> {
        for _ in 0..2 {
            let us = OCCURRED_US - random.random_range(-1..12) * 500_000;
            for sku in SKUS {
                for (number, at) in self.names.0.iter().enumerate() {
                    let hash = SkuHash::of(sku);
                    let found = self.ledger.book(hash, sku, Loc(number as u32), us);
                    let expected = Model::book(facts, sku, at, us);
                    let what = format!("the book of {sku} at {at} as of {us}");
                    equal(&what, &found, &expected)?;
                }
            }
        }
        Ok(())
    }

    /// Compares with the model.
    pub(crate) fn compare(
        &self,
        model: &Model,
        books: &PlainBooks,
        end_us: TimeUs,
    ) -> Result<(), String> {
        let Self {
            ledger,
            names,
            open,
        } = self;
        let cells: BTreeMap<(String, String), Balances> = books
            .cells
            .iter()
            .filter(|(_, balances)| !balances.is_zero())
            .map(|((sku, at), balances)| ((sku.clone(), names.name(*at).to_owned()), *balances))
            .collect();
        equal("cells", &cells, &model.cells)?;
        equal("digest of cells", &books.digest(names), &model.digest())?;
        let skus: Vec<&String> = books.net_in.keys().collect();
        equal("SKUs", &skus, &model.skus.iter().collect())?;
        for (sku, net_in) in &books.net_in {
            let expected = model.net_in.get(sku).copied().unwrap_or(0);
            equal("units in less units out", net_in, &expected)?;
        }
        equal("number of lines", &ledger.lines().len(), &model.lines.len())?;
        for (id, expected) in &model.lines {
            let (kind, (document, line), sku) = id;
            let key = Keyer::new().line(*kind, document, line, sku);
            let found = ledger.lines().get(key).ok_or("a line is missing")?;
            let returns = found.returns.as_deref();
            let claims = ledger.lines().claims(key, end_us, names);
            let standing = Standing {
                totals: [found.opened, found.withdrawn, found.fulfilled],
                claims: claims
                    .iter()
                    .map(|(at, units)| (names.name(*at).to_owned(), *units))
                    .collect(),
                until_us: found.until_us,
                refunded: returns.map_or(0, |returns| returns.refunded),
                returned: found.returned,
            };
            equal(&format!("{id:?}"), &standing, expected)?;
        }
        let open = listed(open.after(None).map(|(_, open)| open));
        equal("exceptions", &open, &model.exceptions)
    }
}
