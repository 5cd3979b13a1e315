//! Commands, decided by the text of the contract from the set of facts so far.

use std::collections::BTreeMap;

use sellable::{
    domain::{
        movement::{Invalid, TimeUs},
        reserve::ShortReason,
    },
    intake::{Allocation, CommandOutcome, CommandReceipt, Refusal, ShortLine},
    limits::{TIME_TO_LIVE_US_MAX, TIME_TO_LIVE_US_MIN},
    proto::v1::{self as pb, command::Command},
};

use super::{
    Misreading, Model, Rules,
    channel::Offer,
    fact::{Fact, What},
};

/// A granted or refused reservation.
#[derive(Debug, Clone)]
pub(crate) struct Reservation {
    pub(crate) granted: bool,
    /// Number, SKU, and units asked for.
    pub(crate) lines: Vec<(String, String, i64)>,
    /// `None`: never.
    pub(crate) until_us: Option<TimeUs>,
}

/// What is known at a position of the log.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// Each of them once; what was granted, prolonged and released among them.
    pub(crate) facts: Vec<Fact>,
    pub(crate) reservations: BTreeMap<String, Reservation>,
    pub(crate) misreading: Misreading,
    known: BTreeMap<String, (pb::Command, CommandReceipt)>,
}

/// Where a command is decided.
pub(crate) struct At<'r> {
    pub(crate) position: u64,
    pub(crate) now_us: TimeUs,
    pub(crate) rules: Option<&'r Rules>,
}

impl Desk {
    /// What is known from the facts so far.
    pub(crate) fn model(&self, now_us: TimeUs) -> Model {
        Model::misread(self.misreading, &self.facts, now_us)
    }

    /// Decides about a command.
    pub(crate) fn decide(&mut self, command: &pb::Command, at: &At<'_>) -> CommandReceipt {
        let receipt = |outcome| CommandReceipt {
            position: at.position,
            time_us: at.now_us,
            duplicate: false,
            outcome,
        };
        if is_invalid(command) {
            let invalid = Invalid::new("", "");
            return receipt(CommandOutcome::Refused(Refusal::Invalid(invalid)));
        }
        let id = id_of(command).to_owned();
        if let Some((known, first)) = self.known.get(&id) {
            if known != command {
                return receipt(CommandOutcome::Refused(Refusal::IdTaken(id)));
            }
            return CommandReceipt {
                duplicate: true,
                ..first.clone()
            };
        }
        let outcome = match command.command.as_ref().expect("it is valid") {
            Command::Reserve(reserve) => self.reserve(reserve, at),
            Command::Confirm(confirm) => self.confirm(&confirm.reservation, at),
            Command::Extend(extend) => self.extend(extend, at),
            Command::Release(release) => self.release(release, at),
        };
        let receipt = receipt(outcome.unwrap_or_else(CommandOutcome::Refused));
        self.known.insert(id, (command.clone(), receipt.clone()));
        receipt
    }

    /// "It is accepted whole or refused whole, naming the lines that fell short and what was free."
    fn reserve(
        &mut self,
        reserve: &pb::ReserveRequest,
        at: &At<'_>,
    ) -> Result<CommandOutcome, Refusal> {
        let rules = at
            .rules
            .filter(|rules| rules.channel(&reserve.channel).is_some());
        let unknown = || Refusal::UnknownChannel(reserve.channel.clone());
        let rules = rules.ok_or_else(unknown)?;
        let model = self.model(at.now_us);
        let ttl = reserve.time_to_live.as_ref();
        let until_us = ttl.map(|ttl| at.now_us + us_of(ttl));
        let mut taken: BTreeMap<&str, Vec<(String, i64)>> = BTreeMap::new();
        let (mut found, mut short, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for (place, line) in reserve.lines.iter().enumerate() {
            let name = line_name(place, line);
            lines.push((name.clone(), line.sku.clone(), line.quantity));
            // "Earlier lines of the same reservation with the same SKU count as taken."
            let taken = taken.entry(&line.sku).or_default();
            let before = match self.misreading {
                Misreading::EachLineAlone => &[],
                _ => &taken[..],
            };
            match cover(&model, rules, reserve, line, before) {
                Ok(parts) => {
                    taken.extend(parts.iter().cloned());
                    let part = |(location, quantity)| Allocation {
                        line: name.clone(),
                        sku: line.sku.clone(),
                        location,
                        quantity,
                    };
                    found.extend(parts.into_iter().map(part));
                }
                Err((available, reason)) => short.push(ShortLine {
                    line: name,
                    sku: line.sku.clone(),
                    requested: line.quantity,
                    available,
                    reason,
                }),
            }
        }
        let reservation = Reservation {
            granted: short.is_empty(),
            lines,
            until_us,
        };
        self.reservations.insert(reserve.id.clone(), reservation);
        if !short.is_empty() {
            return Ok(CommandOutcome::Short(short));
        }
        if self.misreading != Misreading::ExpiredComesBack {
            self.release_expired(reserve, &model, at);
        }
        for part in &found {
            let line = (reserve.id.clone(), part.line.clone());
            let what = What::Reserved(line, part.location.clone(), until_us);
            self.outcome(&part.sku, part.quantity, what);
        }
        Ok(CommandOutcome::Reserved {
            allocations: found,
            expires_us: until_us,
        })
    }

    /// "Expired: what is still claimed is released." So a command does not bring it back; a fact
    /// that states a later time does.
    fn release_expired(&mut self, reserve: &pb::ReserveRequest, model: &Model, at: &At<'_>) {
        let unexpired = Model::misread(Misreading::NoExpiry, &self.facts, at.now_us);
        for (place, line) in reserve.lines.iter().enumerate() {
            let name = line_name(place, line);
            let claims = |model: &Model| model.claims_of(&reserve.id, &name, &line.sku);
            if !claims(model).is_empty() {
                continue;
            }
            for (location, units) in claims(&unexpired) {
                let line_id = (reserve.id.clone(), name.clone());
                let what = What::Released(line_id, Some(location));
                self.outcome(&line.sku, units, what);
            }
        }
    }

    /// "Once decided, their outcome is a fact like any other."
    fn outcome(&mut self, sku: &str, quantity: i64, what: What) {
        self.facts.push(Fact {
            id: format!("outcome-{}", self.facts.len()),
            sku: sku.to_owned(),
            quantity,
            occurred_us: super::OCCURRED_US,
            what,
        });
    }

    fn granted(&self, id: &str) -> Result<Reservation, Refusal> {
        let known = self.reservations.get(id);
        let known = known.ok_or_else(|| Refusal::UnknownReservation(id.to_owned()))?;
        if !known.granted {
            return Err(Refusal::NotGranted(id.to_owned()));
        }
        Ok(known.clone())
    }

    fn in_time(&self, id: &str, at: &At<'_>) -> Result<Reservation, Refusal> {
        let known = self.granted(id)?;
        if known.until_us.is_some_and(|us| us <= at.now_us) {
            return Err(Refusal::Expired(id.to_owned()));
        }
        Ok(known)
    }

    fn prolong(&mut self, id: &str, mut known: Reservation, until_us: Option<TimeUs>) {
        for (line, sku, _) in &known.lines {
            let line = (id.to_owned(), line.clone());
            self.outcome(sku, 0, What::Prolonged(line, until_us));
        }
        known.until_us = until_us;
        self.reservations.insert(id.to_owned(), known);
    }

    fn confirm(&mut self, id: &str, at: &At<'_>) -> Result<CommandOutcome, Refusal> {
        let known = self.in_time(id, at)?;
        self.prolong(id, known, None);
        Ok(CommandOutcome::Confirmed)
    }

    /// "Gives it more time. Never shortens it."
    fn extend(
        &mut self,
        extend: &pb::ExtendRequest,
        at: &At<'_>,
    ) -> Result<CommandOutcome, Refusal> {
        let id = &extend.reservation;
        let known = self.in_time(id, at)?;
        let before_us = known
            .until_us
            .ok_or_else(|| Refusal::NoTimeLimit(id.clone()))?;
        let ttl = extend.time_to_live.as_ref().expect("it is valid");
        let until_us = before_us.max(at.now_us + us_of(ttl));
        self.prolong(id, known, Some(until_us));
        Ok(CommandOutcome::Extended(until_us))
    }

    /// "Gives back all that is still reserved, or some lines, or parts of lines; all of what is
    /// asked, or nothing."
    fn release(
        &mut self,
        release: &pb::ReleaseRequest,
        at: &At<'_>,
    ) -> Result<CommandOutcome, Refusal> {
        let id = &release.reservation;
        if let Some(known) = self.reservations.get(id) {
            for asked in &release.lines {
                if !known.lines.iter().any(|(line, ..)| *line == asked.line) {
                    return Err(Refusal::UnknownLine {
                        reservation: id.clone(),
                        line: asked.line.clone(),
                    });
                }
            }
        }
        let known = self.granted(id)?;
        let mut asked: Vec<(String, i64)> = release
            .lines
            .iter()
            .map(|line| (line.line.clone(), line.quantity))
            .collect();
        if asked.is_empty() {
            asked = known
                .lines
                .iter()
                .map(|(line, ..)| (line.clone(), 0))
                .collect();
        }
        let model = self.model(at.now_us);
        let mut released = Vec::new();
        for (line, units) in asked {
            let (_, sku, _) = known
                .lines
                .iter()
                .find(|(name, ..)| *name == line)
                .expect("known");
            let claims = model.claims_of(id, &line, sku);
            let left: i64 = claims.values().sum();
            if units > left {
                return Err(Refusal::TooFewLeft {
                    line,
                    left,
                    asked: units,
                });
            }
            let mut to_take = if units == 0 { left } else { units };
            for (location, claim) in claims {
                let quantity = to_take.min(claim);
                to_take -= quantity;
                if quantity > 0 {
                    released.push(Allocation {
                        line: line.clone(),
                        sku: sku.clone(),
                        location,
                        quantity,
                    });
                }
            }
        }
        for part in &released {
            let line = (id.clone(), part.line.clone());
            let what = What::Released(line, Some(part.location.clone()));
            self.outcome(&part.sku, part.quantity, what);
        }
        Ok(CommandOutcome::Released(released))
    }
}

/// "A line is covered if `q ≤ ats` and the location named has `cell(channel, location) ≥ q`.
/// Without a location, the first of the channel's locations, in its order of priority, that covers
/// the line takes it; with `allow_split`, several may."
fn cover(
    model: &Model,
    rules: &Rules,
    reserve: &pb::ReserveRequest,
    line: &pb::ReserveLine,
    taken: &[(String, i64)],
) -> Result<Vec<(String, i64)>, (i64, ShortReason)> {
    let channel = rules.channel(&reserve.channel).expect("it was looked up");
    let (q, at) = (line.quantity, &line.location);
    let Some(Offer { ats, by_location }) = rules.offer(model, channel, &line.sku, taken) else {
        return Err((0, ShortReason::UnknownSku));
    };
    if !at.is_empty() {
        if rules.priority(channel, at).is_none() {
            return Err((0, ShortReason::NotSoldFromLocation));
        }
        let there = by_location.iter().find(|(place, _)| place == at);
        let units = there.map_or(0, |(_, units)| *units).min(ats);
        return if q <= units {
            Ok(vec![(at.clone(), q)])
        } else {
            Err((units, ShortReason::Insufficient))
        };
    }
    let most = by_location
        .iter()
        .map(|(_, units)| *units)
        .max()
        .unwrap_or(0);
    let all: i64 = by_location.iter().map(|(_, units)| *units).sum();
    if q > ats {
        let available = if reserve.allow_split { all } else { most };
        return Err((available.min(ats), ShortReason::Insufficient));
    }
    if let Some((place, _)) = by_location.iter().find(|(_, units)| *units >= q) {
        return Ok(vec![(place.clone(), q)]);
    }
    if !reserve.allow_split {
        return Err((most.min(ats), ShortReason::OnlySplit));
    }
    let (mut left, mut parts) = (q, Vec::new());
    for (place, units) in by_location {
        let part = units.min(left);
        left -= part;
        if part > 0 {
            parts.push((place, part));
        }
    }
    Ok(parts)
}

/// "Number of the line. Empty: its place, from 1."
fn line_name(place: usize, line: &pb::ReserveLine) -> String {
    match line.line.as_str() {
        "" => (place + 1).to_string(),
        name => name.to_owned(),
    }
}

fn us_of(time: &prost_types::Duration) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

/// Of the limits, those that the histories break.
fn is_invalid(command: &pb::Command) -> bool {
    let wrong = |time: &prost_types::Duration| {
        !(TIME_TO_LIVE_US_MIN..=TIME_TO_LIVE_US_MAX).contains(&us_of(time))
    };
    let twice = |mut names: Vec<String>| {
        let count = names.len();
        names.sort();
        names.dedup();
        names.len() < count
    };
    match &command.command {
        Some(Command::Reserve(reserve)) => {
            let names = reserve.lines.iter().enumerate();
            reserve.lines.is_empty()
                || reserve.time_to_live.as_ref().is_some_and(wrong)
                || reserve.lines.iter().any(|line| line.quantity < 1)
                || twice(names.map(|(place, line)| line_name(place, line)).collect())
        }
        Some(Command::Extend(extend)) => extend.time_to_live.as_ref().is_none_or(wrong),
        Some(Command::Release(release)) => {
            twice(release.lines.iter().map(|line| line.line.clone()).collect())
                || release.lines.iter().any(|line| line.quantity < 0)
        }
        Some(Command::Confirm(_)) => false,
        None => true,
    }
}

/// Identity of a command.
pub(crate) fn id_of(command: &pb::Command) -> &str {
    match &command.command {
        Some(Command::Reserve(reserve)) => &reserve.id,
        Some(Command::Confirm(confirm)) => &confirm.id,
        Some(Command::Release(release)) => &release.id,
        Some(Command::Extend(extend)) => &extend.id,
        None => "",
    }
}

/// The same answer, whatever field an invalid command is refused for.
pub(crate) fn comparable(mut receipt: CommandReceipt) -> CommandReceipt {
    if let CommandOutcome::Refused(Refusal::Invalid(invalid)) = &mut receipt.outcome {
        *invalid = Invalid::new("", "");
    }
    receipt
}
