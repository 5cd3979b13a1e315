//! The slow, obvious model: recomputes everything from the set of facts, by the text of the
//! domain's rules and not by its code. No order, no increments, no internal numbers.

use std::collections::{BTreeMap, BTreeSet};

use sellable::{
    domain::{
        balances::{Account, Balances},
        digest::{Digest, Digester},
        movement::{Condition, IssueReason, Kind, Movement, TimeUs},
    },
    proto::v1 as pb,
    wire::movement::to_proto,
};

/// When all facts of these histories occurred, and the log's time: inside one horizon.
pub(crate) const OCCURRED_US: TimeUs = 1_700_000_000_000_000;

/// A fact, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) id: String,
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Received(String, Condition),
    Issued(String, Condition),
    Reclassified(String, Condition, Condition),
    Adjusted(String, Condition),
    Reserved(Line, String),
    Released(Line, Option<String>),
    Reassigned(Line, String, String),
    Picked(Line, String),
    Packed(Line, String),
    Shipped(Line, String),
}

/// Order and line number.
pub(crate) type Line = (String, String);

impl Fact {
    /// The movement that reports it.
    pub(crate) fn movement(&self) -> Movement<'_> {
        let kind = match &self.what {
            What::Received(location, condition) => Kind::Received {
                location,
                condition: *condition,
            },
            What::Issued(location, condition) => Kind::Issued {
                location,
                condition: *condition,
                reason: IssueReason::Sale,
            },
            What::Reclassified(location, from, to) => Kind::Reclassified {
                location,
                from: *from,
                to: *to,
            },
            What::Adjusted(location, condition) => Kind::Adjusted {
                location,
                condition: *condition,
                reason: "count",
            },
            What::Reserved((order, line), location) => Kind::Reserved {
                order,
                line,
                location,
                channel: "web",
            },
            What::Released((order, line), location) => Kind::Released {
                order,
                line,
                location: location.as_deref(),
            },
            What::Reassigned((order, line), from, to) => Kind::Reassigned {
                order,
                line,
                from,
                to,
            },
            What::Picked((order, line), location) => Kind::Picked {
                order,
                line,
                location,
            },
            What::Packed((order, line), location) => Kind::Packed {
                order,
                line,
                location,
            },
            What::Shipped((order, line), location) => Kind::Shipped {
                order,
                line,
                location,
            },
        };
        Movement {
            id: &self.id,
            source: "wms",
            occurred_us: OCCURRED_US,
            sku: &self.sku,
            quantity: self.quantity,
            correlation_id: "",
            reference: "",
            actor: "",
            kind,
        }
    }

    /// The same, for the wire.
    pub(crate) fn proto(&self) -> pb::Movement {
        to_proto(&self.movement())
    }
}

/// Totals of one order line: units by milestone, and by location where there is one.
#[derive(Debug, Default)]
struct Totals {
    reserved: BTreeMap<String, i64>,
    released: BTreeMap<String, i64>,
    released_anywhere: i64,
    moved_in: BTreeMap<String, i64>,
    moved_out: BTreeMap<String, i64>,
    shipped: BTreeMap<String, i64>,
}

impl Totals {
    fn locations(&self) -> BTreeSet<&String> {
        [
            &self.reserved,
            &self.released,
            &self.moved_in,
            &self.moved_out,
            &self.shipped,
        ]
        .into_iter()
        .flat_map(BTreeMap::keys)
        .collect()
    }

    /// "Its claim is max(0, reserved - released - shipped) in total. By location: what was
    /// reserved there, plus reassigned in, minus reassigned out, minus shipped from there, not
    /// below 0; shipments from elsewhere and releases that name no location are taken from the
    /// remaining claims in order of location name." A release that names a location is taken
    /// from there.
    fn claims(&self) -> BTreeMap<&String, i64> {
        let of = |totals: &BTreeMap<String, i64>, at: &String| totals.get(at).copied().unwrap_or(0);
        let all = |totals: &BTreeMap<String, i64>| totals.values().sum::<i64>();
        let released = all(&self.released) + self.released_anywhere;
        let claim = (all(&self.reserved) - released - all(&self.shipped)).max(0);
        let mut claims: BTreeMap<&String, i64> = self
            .locations()
            .into_iter()
            .map(|at| {
                let there = of(&self.reserved, at) + of(&self.moved_in, at)
                    - of(&self.moved_out, at)
                    - of(&self.released, at)
                    - of(&self.shipped, at);
                (at, there.max(0))
            })
            .collect();
        let mut surplus = claims.values().sum::<i64>() - claim;
        for there in claims.values_mut() {
            let taken = surplus.min(*there);
            *there -= taken;
            surplus -= taken;
        }
        claims
    }
}

/// The terms of a channel, as they are written into the rules.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    pub(crate) name: &'static str,
    /// Locations it sells from; `None`: all.
    pub(crate) sources: Option<&'static [&'static str]>,
    pub(crate) buffer: i64,
    pub(crate) buffer_percent: i64,
    pub(crate) share_percent: i64,
    pub(crate) minimum: i64,
    pub(crate) maximum: Option<i64>,
    /// A SKU of which it sells nothing.
    pub(crate) paused_sku: Option<&'static str>,
}

impl Channel {
    /// Its table in a rules document.
    pub(crate) fn toml(&self) -> String {
        let sources = self.sources.unwrap_or(&["*"]);
        let mut text = format!("[channel.{}]\nsources = {sources:?}\n", self.name);
        for (key, value) in [
            ("buffer", self.buffer),
            ("buffer_percent", self.buffer_percent),
            ("share_percent", self.share_percent),
            ("minimum", self.minimum),
        ] {
            text += &format!("{key} = {value}\n");
        }
        if let Some(maximum) = self.maximum {
            text += &format!("maximum = {maximum}\n");
        }
        if let Some(sku) = self.paused_sku {
            text += &format!(
                "[channel.{}.override.\"{sku}\"]\npaused = true\n",
                self.name
            );
        }
        text
    }
}

/// What a set of facts gives.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// By SKU and location name; no cells with nothing in them.
    pub(crate) cells: BTreeMap<(String, String), Balances>,
    /// Every SKU that any fact names.
    pub(crate) skus: BTreeSet<String>,
    /// Units in from outside less units out, by SKU.
    pub(crate) net_in: BTreeMap<String, i64>,
    /// By order, line and SKU: reserved, released, shipped, claimed.
    pub(crate) lines: BTreeMap<(Line, String), [i64; 4]>,
}

impl Model {
    /// Of a set of facts, each of them once.
    pub(crate) fn of(facts: &[Fact]) -> Self {
        let mut model = Self::default();
        let mut lines: BTreeMap<(Line, String), Totals> = BTreeMap::new();
        for fact in facts {
            model.skus.insert(fact.sku.clone());
            let (q, sku) = (fact.quantity, &fact.sku);
            let line = |line: &Line| (line.clone(), sku.clone());
            match &fact.what {
                What::Received(at, to) | What::Adjusted(at, to) => {
                    model.add(sku, at, (*to).into(), q);
                    model.outside(sku, q);
                }
                What::Issued(at, from) => {
                    model.add(sku, at, (*from).into(), -q);
                    model.outside(sku, -q);
                }
                What::Reclassified(at, from, to) => {
                    model.add(sku, at, (*from).into(), -q);
                    model.add(sku, at, (*to).into(), q);
                }
                What::Reserved(l, at) => {
                    let totals = lines.entry(line(l)).or_default();
                    *totals.reserved.entry(at.clone()).or_default() += q;
                }
                What::Released(l, at) => {
                    let totals = lines.entry(line(l)).or_default();
                    match at {
                        Some(at) => *totals.released.entry(at.clone()).or_default() += q,
                        None => totals.released_anywhere += q,
                    }
                }
                What::Reassigned(l, from, to) => {
                    let totals = lines.entry(line(l)).or_default();
                    *totals.moved_out.entry(from.clone()).or_default() += q;
                    *totals.moved_in.entry(to.clone()).or_default() += q;
                }
                What::Shipped(l, at) => {
                    model.add(sku, at, Account::Good, -q);
                    model.outside(sku, -q);
                    let totals = lines.entry(line(l)).or_default();
                    *totals.shipped.entry(at.clone()).or_default() += q;
                }
                What::Picked(..) | What::Packed(..) => {}
            }
        }
        for ((line, sku), totals) in lines {
            let claims = totals.claims();
            let all = |totals: &BTreeMap<String, i64>| totals.values().sum::<i64>();
            let summary = [
                all(&totals.reserved),
                all(&totals.released) + totals.released_anywhere,
                all(&totals.shipped),
                claims.values().sum(),
            ];
            for (at, units) in claims {
                model.add(&sku, at, Account::Reserved, units);
            }
            model.lines.insert((line, sku), summary);
        }
        model.cells.retain(|_, balances| !balances.is_zero());
        model
    }

    fn add(&mut self, sku: &str, at: &str, account: Account, units: i64) {
        let cell = self.cells.entry((sku.to_owned(), at.to_owned()));
        cell.or_default()[account] += units;
    }

    fn outside(&mut self, sku: &str, units: i64) {
        *self.net_in.entry(sku.to_owned()).or_default() += units;
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

    /// What a channel may sell of a SKU; `None` if no fact names it.
    pub(crate) fn ats(&self, channel: &Channel, sku: &str) -> Option<i64> {
        if !self.skus.contains(sku) {
            return None;
        }
        let mut sum = 0i128;
        for ((_, at), balances) in self.cells.iter().filter(|((of, _), _)| of == sku) {
            if channel
                .sources
                .is_none_or(|places| places.contains(&at.as_str()))
            {
                let good = i128::from(balances[Account::Good]);
                let free = good - i128::from(balances[Account::Reserved]);
                let percent = i128::from(channel.buffer_percent);
                let by_percent = (good.max(0) * percent + 99) / 100;
                sum += (free - by_percent.max(channel.buffer.into())).max(0);
            }
        }
        let ats = sum * i128::from(channel.share_percent) / 100;
        if channel.paused_sku == Some(sku) || ats < channel.minimum.into() {
            return Some(0);
        }
        Some(ats.min(channel.maximum.unwrap_or(i64::MAX).into()) as i64)
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
