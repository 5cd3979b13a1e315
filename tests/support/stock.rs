//! What stock has to be: the written rules of reservations as a plain program that does one thing
//! after another. It shares no code with the real one but the messages.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost::Message;
use sellable::proto::v1::{
    self as pb, command::Command as Asked, movement::Kind, record::Body as Recorded,
};

/// SKUs that are sold: few, so that all want the same units.
pub(crate) const SKUS: [&str; 4] = ["kettle", "lamp", "mug", "rug"];
/// Where they lie.
pub(crate) const LOCATIONS: [&str; 3] = ["dc", "store-1", "store-2"];

/// One channel's rules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) name: &'static str,
    /// Its sources as they stand in the document.
    sources: &'static str,
    /// The same, as the locations that they mean, in order of priority.
    sells: &'static [&'static str],
    buffer: i64,
    buffer_percent: i64,
    share_percent: i64,
    minimum: i64,
    maximum: i64,
}

const OPEN: Channel = Channel {
    name: "web",
    sources: "\"dc\", \"store-*\"",
    sells: &["dc", "store-1", "store-2"],
    buffer: 0,
    buffer_percent: 0,
    share_percent: 100,
    minimum: 0,
    maximum: 1_000_000,
};

/// Two documents of rules that take turns. In each there is a channel for which ATS is what is
/// free, and others that may sell less.
pub(crate) const RULES: [[Channel; 3]; 2] = [
    [
        OPEN,
        Channel {
            name: "market",
            sources: "\"store-1\", \"dc\"",
            sells: &["store-1", "dc"],
            buffer: 1,
            share_percent: 70,
            ..OPEN
        },
        Channel {
            name: "shop",
            sources: "\"store-2\", \"dc\"",
            sells: &["store-2", "dc"],
            buffer_percent: 20,
            minimum: 2,
            maximum: 6,
            ..OPEN
        },
    ],
    [
        Channel {
            name: "web",
            sources: "\"store-*\", \"dc\"",
            sells: &["store-1", "store-2", "dc"],
            ..OPEN
        },
        Channel {
            name: "market",
            share_percent: 90,
            ..OPEN
        },
        Channel {
            name: "shop",
            sources: "\"dc\"",
            sells: &["dc"],
            buffer: 1,
            ..OPEN
        },
    ],
];

/// Rules as the document that is put in force.
pub(crate) fn document(rules: &[Channel]) -> String {
    let mut text = String::new();
    for channel in rules {
        let Channel {
            name,
            sources,
            sells: _,
            buffer,
            buffer_percent,
            share_percent,
            minimum,
            maximum,
        } = channel;
        text += &format!(
            "[channel.{name}]\nsources = [{sources}]\nbuffer = {buffer}\nbuffer_percent = \
             {buffer_percent}\nshare_percent = {share_percent}\nminimum = {minimum}\nmaximum = \
             {maximum}\n\n"
        );
    }
    text
}

impl Channel {
    fn offers(&self, cell: Cell) -> i64 {
        let by_percent = (cell.good.max(0) * self.buffer_percent + 99) / 100;
        (cell.free() - self.buffer.max(by_percent)).max(0)
    }

    fn sum(&self, cells: &Cells, sku: &str) -> i64 {
        let offer = |at: &&str| {
            let cell = cells.get(&(sku.to_owned(), (*at).to_owned()));
            cell.map_or(0, |cell| self.offers(*cell))
        };
        self.sells.iter().map(offer).sum()
    }

    fn ats(&self, sum: i64) -> i64 {
        let shared = sum * self.share_percent / 100;
        if shared < self.minimum {
            return 0;
        }
        shared.min(self.maximum)
    }
}

/// One SKU at one location.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) good: i64,
    pub(crate) reserved: i64,
}

impl Cell {
    pub(crate) fn free(self) -> i64 {
        self.good - self.reserved
    }
}

/// By SKU and location.
pub(crate) type Cells = BTreeMap<(String, String), Cell>;

/// Units promised beyond those on the shelf.
pub(crate) fn oversold(cells: &Cells) -> i64 {
    cells.values().map(|cell| (-cell.free()).max(0)).sum()
}

/// What was decided about a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Granted {
        allocations: Vec<pb::Allocation>,
        expires_us: Option<i64>,
    },
    Short(Vec<pb::ShortLine>),
    Confirmed,
    Extended(i64),
    Released(Vec<pb::Allocation>),
    /// Code, and what the details of the status say: their kind and subject.
    Refused(String),
}

/// A first decision.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) command: pb::Command,
    pub(crate) position: u64,
    pub(crate) time_us: i64,
    pub(crate) outcome: Outcome,
}

/// Without a limit of time.
const NEVER: i64 = i64::MAX;

#[derive(Debug)]
struct Held {
    channel: String,
    decided: (u64, i64),
    short: Vec<pb::ShortLine>,
    until_us: i64,
    confirmed: bool,
    lines: Vec<HeldLine>,
}

#[derive(Debug)]
struct HeldLine {
    line: String,
    sku: String,
    reserved: i64,
    released: i64,
    shipped: i64,
    /// By location, no zeros.
    claims: BTreeMap<String, i64>,
}

impl HeldLine {
    fn open(&self) -> i64 {
        self.reserved - self.released - self.shipped
    }
}

/// Stock after the log up to a position.
#[derive(Debug)]
pub(crate) struct Stock {
    pub(crate) position: u64,
    pub(crate) now_us: i64,
    pub(crate) cells: Cells,
    /// First decisions, by the command's id.
    pub(crate) decided: HashMap<String, Decision>,
    /// Position of each movement's first arrival.
    pub(crate) moved: HashMap<String, u64>,
    /// Units that were given back by expiry.
    pub(crate) expired_units: i64,
    held: HashMap<String, Held>,
    timers: BTreeSet<(i64, String)>,
    rules: &'static [Channel],
    rules_version: u64,
}

impl Stock {
    pub(crate) fn new() -> Self {
        Self {
            position: 0,
            now_us: 0,
            cells: Cells::new(),
            decided: HashMap::new(),
            moved: HashMap::new(),
            expired_units: 0,
            held: HashMap::new(),
            timers: BTreeSet::new(),
            rules: &[],
            rules_version: 0,
        }
    }

    /// Goes on by one record. What it says that these tests do not write is told.
    pub(crate) fn go_on(&mut self, entry: &Recording, findings: &mut Vec<String>) {
        let Recording {
            position,
            time_us,
            record,
        } = entry;
        self.position = *position;
        self.now_us = self.now_us.max(*time_us);
        self.expire();
        match &record.body {
            Some(Recorded::Tick(_)) => {}
            Some(Recorded::Rules(put)) => self.put_rules(put, findings),
            Some(Recorded::Movements(batch)) => {
                for movement in &batch.movements {
                    self.post(movement, findings);
                }
            }
            Some(Recorded::Commands(batch)) => {
                for command in &batch.commands {
                    self.decide(command);
                }
            }
            other => findings.push(format!("a record that nobody wrote: {other:?}")),
        }
    }

    fn put_rules(&mut self, put: &pb::RulesPut, findings: &mut Vec<String>) {
        if put
            .expected_version
            .is_some_and(|version| version != self.rules_version)
        {
            return;
        }
        match RULES.iter().find(|rules| document(*rules) == put.toml) {
            Some(rules) => self.rules = rules,
            None => findings.push(format!("rules that nobody put: {}", put.toml)),
        }
        self.rules_version = self.position;
    }

    fn expire(&mut self) {
        while let Some((until_us, id)) = self.timers.first().cloned()
            && until_us <= self.now_us
        {
            self.timers.pop_first();
            let held = self.held.get_mut(&id).expect("it was granted");
            if held.until_us > self.now_us {
                continue;
            }
            for line in &mut held.lines {
                for (location, units) in std::mem::take(&mut line.claims) {
                    take(&mut self.cells, &line.sku, &location, units);
                    self.expired_units += units;
                }
            }
        }
    }

    fn post(&mut self, movement: &pb::Movement, findings: &mut Vec<String>) {
        if self.moved.contains_key(&movement.id) {
            return;
        }
        self.moved.insert(movement.id.clone(), self.position);
        let units = movement.quantity;
        let (order, line, at) = match movement.kind.as_ref().expect("it has a kind") {
            Kind::Received(received) => {
                let cell = (movement.sku.clone(), received.location.clone());
                self.cells.entry(cell).or_default().good += units;
                return;
            }
            Kind::Shipped(shipped) => {
                let cell = (movement.sku.clone(), shipped.location.clone());
                self.cells.entry(cell).or_default().good -= units;
                (&shipped.order, &shipped.line, &shipped.location)
            }
            Kind::Released(released) => (&released.order, &released.line, &released.location),
            other => {
                findings.push(format!("a movement that nobody posted: {other:?}"));
                return;
            }
        };
        let held = self.held.get_mut(order);
        let lines = held.map_or(&mut [][..], |held| &mut held.lines);
        let Some(line) = lines.iter_mut().find(|held| held.line == *line) else {
            findings.push(format!("{movement:?} is about nothing that was reserved"));
            return;
        };
        let from = match at.as_str() {
            "" => line.claims.keys().next().cloned().unwrap_or_default(),
            at => at.to_owned(),
        };
        let claim = line.claims.entry(from.clone()).or_default();
        // It would be the warehouse that oversells, and not a command.
        if *claim < units {
            findings.push(format!("{movement:?} takes more than the claim of {claim}"));
        }
        *claim -= units;
        line.claims.retain(|_, claim| *claim > 0);
        match movement.kind {
            Some(Kind::Shipped(_)) => line.shipped += units,
            _ => line.released += units,
        }
        take(&mut self.cells, &movement.sku, &from, units);
    }

    fn decide(&mut self, command: &pb::Command) {
        let id = id_of(command);
        if self.decided.contains_key(id) {
            return;
        }
        let outcome = match command.command.as_ref().expect("it asks for something") {
            Asked::Reserve(reserve) => self.reserve(reserve),
            Asked::Confirm(confirm) => self.prolong(&confirm.reservation, None),
            Asked::Extend(extend) => {
                let time = extend.time_to_live.as_ref();
                let until_us = self.now_us + duration_us(time.expect("it has a time"));
                self.prolong(&extend.reservation, Some(until_us))
            }
            Asked::Release(release) => self.release(release),
        };
        let decision = Decision {
            command: command.clone(),
            position: self.position,
            time_us: self.now_us,
            outcome,
        };
        self.decided.insert(id.to_owned(), decision);
    }

    fn reserve(&mut self, asked: &pb::ReserveRequest) -> Outcome {
        let channel = self.rules.iter().find(|known| known.name == asked.channel);
        let Some(channel) = channel else {
            return refused("NotFound sellable.v1.channel", &asked.channel);
        };
        let mut cells = self.cells.clone();
        let (mut lines, mut allocations, mut short) = (Vec::new(), Vec::new(), Vec::new());
        for (place, line) in asked.lines.iter().enumerate() {
            let name = match line.line.as_str() {
                "" => (place + 1).to_string(),
                name => name.to_owned(),
            };
            let mut held = HeldLine {
                line: name.clone(),
                sku: line.sku.clone(),
                reserved: 0,
                released: 0,
                shipped: 0,
                claims: BTreeMap::new(),
            };
            // What is shown holds for all lines of a cart together.
            let taken: i64 = allocations
                .iter()
                .filter(|taken: &&pb::Allocation| taken.sku == line.sku)
                .map(|taken| taken.quantity)
                .sum();
            let left = channel.ats(channel.sum(&self.cells, &line.sku)) - taken;
            match cover(channel, &cells, left.max(0), line, asked.allow_split) {
                Ok(parts) => {
                    for (location, quantity) in parts {
                        let cell = (line.sku.clone(), location.clone());
                        cells.entry(cell).or_default().reserved += quantity;
                        held.reserved += quantity;
                        held.claims.insert(location.clone(), quantity);
                        allocations.push(pb::Allocation {
                            line: name.clone(),
                            sku: line.sku.clone(),
                            location,
                            quantity,
                        });
                    }
                }
                Err((available, reason)) => short.push(pb::ShortLine {
                    line: name,
                    sku: line.sku.clone(),
                    requested: line.quantity,
                    available,
                    reason: reason.into(),
                }),
            }
            lines.push(held);
        }
        let expires_us = asked
            .time_to_live
            .as_ref()
            .map(|time| self.now_us + duration_us(time));
        let outcome = if short.is_empty() {
            self.cells = cells;
            if let Some(until_us) = expires_us {
                self.timers.insert((until_us, asked.id.clone()));
            }
            Outcome::Granted {
                allocations,
                expires_us,
            }
        } else {
            for line in &mut lines {
                line.reserved = 0;
                line.claims.clear();
            }
            Outcome::Short(short.clone())
        };
        let held = Held {
            channel: asked.channel.clone(),
            decided: (self.position, self.now_us),
            short,
            until_us: expires_us.unwrap_or(NEVER),
            confirmed: false,
            lines,
        };
        self.held.insert(asked.id.clone(), held);
        outcome
    }

    /// Without a time: confirms.
    fn prolong(&mut self, id: &str, until_us: Option<i64>) -> Outcome {
        let Some(held) = self.held.get_mut(id) else {
            return refused("NotFound sellable.v1.reservation", id);
        };
        if !held.short.is_empty() {
            return refused("FailedPrecondition NOT_GRANTED", id);
        }
        if held.until_us <= self.now_us {
            return refused("FailedPrecondition EXPIRED", id);
        }
        let Some(until_us) = until_us else {
            held.until_us = NEVER;
            held.confirmed = true;
            return Outcome::Confirmed;
        };
        if held.until_us == NEVER {
            return refused("FailedPrecondition NO_TIME_LIMIT", id);
        }
        held.until_us = held.until_us.max(until_us);
        self.timers.insert((held.until_us, id.to_owned()));
        Outcome::Extended(held.until_us)
    }

    fn release(&mut self, asked: &pb::ReleaseRequest) -> Outcome {
        let id = asked.reservation.as_str();
        let Some(held) = self.held.get_mut(id) else {
            return refused("NotFound sellable.v1.reservation", id);
        };
        let mut wanted: Vec<(usize, i64)> = Vec::new();
        for line in &asked.lines {
            match held.lines.iter().position(|held| held.line == line.line) {
                Some(place) => wanted.push((place, line.quantity)),
                None => return refused("NotFound sellable.v1.reservation", &line.line),
            }
        }
        if asked.lines.is_empty() {
            wanted = (0..held.lines.len()).map(|place| (place, 0)).collect();
        }
        if !held.short.is_empty() {
            return refused("FailedPrecondition NOT_GRANTED", id);
        }
        for (place, units) in &wanted {
            let line = &held.lines[*place];
            if *units > line.claims.values().sum() {
                return refused("FailedPrecondition TOO_FEW_LEFT", &line.line);
            }
        }
        let mut given_back = Vec::new();
        for (place, units) in wanted {
            let line = &mut held.lines[place];
            let mut left = match units {
                0 => line.claims.values().sum(),
                units => units,
            };
            for (location, claim) in &mut line.claims {
                let quantity = left.min(*claim);
                if quantity == 0 {
                    continue;
                }
                left -= quantity;
                *claim -= quantity;
                line.released += quantity;
                take(&mut self.cells, &line.sku, location, quantity);
                given_back.push(pb::Allocation {
                    line: line.line.clone(),
                    sku: line.sku.clone(),
                    location: location.clone(),
                    quantity,
                });
            }
            line.claims.retain(|_, claim| *claim > 0);
        }
        Outcome::Released(given_back)
    }

    /// A reservation as `Get` has to tell it at this position.
    pub(crate) fn reservation(&self, id: &str) -> Option<pb::Reservation> {
        let held = self.held.get(id)?;
        let state = if !held.short.is_empty() {
            pb::ReservationState::Refused
        } else if held.lines.iter().all(|line| line.open() == 0) {
            pb::ReservationState::Closed
        } else if held.until_us <= self.now_us {
            pb::ReservationState::Expired
        } else if held.confirmed {
            pb::ReservationState::Confirmed
        } else {
            pb::ReservationState::Active
        };
        let line = |line: &HeldLine| {
            let claim = |(location, quantity): (&String, &i64)| pb::Allocation {
                line: line.line.clone(),
                sku: line.sku.clone(),
                location: location.clone(),
                quantity: *quantity,
            };
            pb::ReservationLine {
                line: line.line.clone(),
                sku: line.sku.clone(),
                reserved: line.reserved,
                released: line.released,
                shipped: line.shipped,
                claims: line.claims.iter().map(claim).collect(),
            }
        };
        // What was refused has no end worth a word.
        let ends = held.short.is_empty() && held.until_us != NEVER;
        Some(pb::Reservation {
            id: id.to_owned(),
            channel: held.channel.clone(),
            state: state.into(),
            lines: held.lines.iter().map(line).collect(),
            expires_at: ends.then(|| timestamp(held.until_us)),
            decided_at: Some(timestamp(held.decided.1)),
            decided_position: held.decided.0,
            short_lines: held.short.clone(),
            position: self.position,
        })
    }
}

/// Where the units of a line are taken; or how many could have been had, and why not more.
fn cover(
    channel: &Channel,
    cells: &Cells,
    ats: i64,
    line: &pb::ReserveLine,
    split: bool,
) -> Result<Vec<(String, i64)>, (i64, pb::ShortReason)> {
    if !cells.keys().any(|(sku, _)| *sku == line.sku) {
        return Err((0, pb::ShortReason::UnknownSku));
    }
    let offer = |at: &&str| {
        let cell = cells.get(&(line.sku.clone(), (*at).to_owned()))?;
        Some(((*at).to_owned(), channel.offers(*cell)))
    };
    let offers: Vec<(String, i64)> = channel.sells.iter().filter_map(offer).collect();
    let sum: i64 = offers.iter().map(|(_, units)| units).sum();
    let named = !line.location.is_empty();
    let enough = line.quantity <= ats;
    let mut here = offers
        .iter()
        .filter(|(at, _)| !named || *at == line.location);
    let most = here.clone().map(|(_, units)| *units).max();
    if enough {
        if let Some((at, _)) = here.find(|(_, units)| *units >= line.quantity) {
            return Ok(vec![(at.clone(), line.quantity)]);
        }
        if split && !named {
            let mut left = line.quantity;
            let part = |(at, units): &(String, i64)| {
                let part = left.min(*units);
                left -= part;
                (part > 0).then(|| (at.clone(), part))
            };
            return Ok(offers.iter().filter_map(part).collect());
        }
    }
    let reason = match (named, most) {
        (true, None) => pb::ShortReason::NotSoldFromLocation,
        (false, _) if enough => pb::ShortReason::OnlySplit,
        _ => pb::ShortReason::Insufficient,
    };
    let most = if split && !named {
        sum
    } else {
        most.unwrap_or(0)
    };
    Err((most.min(ats), reason))
}

fn take(cells: &mut Cells, sku: &str, location: &str, units: i64) {
    let cell = (sku.to_owned(), location.to_owned());
    cells.entry(cell).or_default().reserved -= units;
}

pub(crate) fn refused(why: &str, subject: &str) -> Outcome {
    Outcome::Refused(format!("{why} {subject}"))
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) position: u64,
    pub(crate) time_us: i64,
    pub(crate) record: pb::Record,
}

impl Recording {
    pub(crate) fn read(entry: &sellable::log::Entry) -> Self {
        Self {
            position: entry.position,
            time_us: entry.time_us,
            record: pb::Record::decode(entry.payload.clone()).expect("a record"),
        }
    }
}

pub(crate) fn id_of(command: &pb::Command) -> &str {
    match command.command.as_ref().expect("it asks for something") {
        Asked::Reserve(reserve) => &reserve.id,
        Asked::Confirm(confirm) => &confirm.id,
        Asked::Release(release) => &release.id,
        Asked::Extend(extend) => &extend.id,
    }
}

fn duration_us(time: &prost_types::Duration) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

pub(crate) fn timestamp(us: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: us.div_euclid(1_000_000),
        nanos: (us.rem_euclid(1_000_000) * 1_000) as i32,
    }
}

pub(crate) fn micros(time: &prost_types::Timestamp) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}
