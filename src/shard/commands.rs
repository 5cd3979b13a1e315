//! Commands, decided by the shards in log order.
//!
//! A command may have lines in several shards. Each of them plans its lines when it reaches the
//! command's position, votes, and waits for the others' votes; all then do the same. All shards
//! go through the same commands in the same order, so nothing can wait in a circle, and nothing
//! is ever held in part.

mod saving;

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use smallvec::SmallVec;

use super::books::ShardBooks;
use crate::{
    domain::{
        balances::{Loc, LocationNames},
        keys::{Keyer, LineKey, LineKind, SkuHash},
        ledger::{Ledger, Names},
        lifecycle::Claims,
        movement::TimeUs,
        posting::{Effect, Fact, Milestone, Posting},
        reserve::{Allocations, Offers, Short, ShortReason, Wanted},
        rules::ChannelIx,
    },
    limits::{
        CHANNEL_BYTES_MAX, ID_BYTES_MAX, LINE_BYTES_MAX, LOCATION_BYTES_MAX, QUANTITY_MAX,
        SKU_BYTES_MAX,
    },
    log::Position,
};

/// What the shards are to do about one command.
#[derive(Debug)]
pub(crate) enum Command {
    /// Reserve all its lines, or none.
    Reserve(Arc<Reservation>),
    /// Give the lines of a reservation more time, if it was granted.
    Prolong(Arc<Reservation>, TimeUs),
    /// Give back lines of a reservation, or parts of them; all that is asked, or nothing.
    Release(Arc<Release>),
}

/// One line of a reservation. Its names are among those of the reservation.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) key: LineKey,
    pub(crate) hash: SkuHash,
    /// Only from here.
    pub(crate) only: Option<Loc>,
    pub(crate) shard: u32,
    units: u32,
    names_at: u32,
    /// Of its number, its SKU, and the only location, which is empty if there is none.
    name_bytes: [u8; 3],
    plan: OnceLock<Plan>,
}

/// Where the units of a line were found, or why they were not; small, since millions are remembered.
#[derive(Debug)]
enum Plan {
    /// All of them here.
    Whole(Loc),
    Parts(Box<[(Loc, i64)]>),
    Short(Box<Short>),
}

/// A command to reserve, and what became of it.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// One behind the other: its id, its channel, and the names of each line.
    names: Box<str>,
    id_bytes: u8,
    channel_bytes: u8,
    pub(crate) split: bool,
    pub(crate) channel: ChannelIx,
    pub(crate) lines: Box<[Line]>,
    /// [`crate::domain::posting::NEVER_US`] if there is no limit.
    pub(crate) expires_us: TimeUs,
    pub(crate) position: Position,
    pub(crate) time_us: TimeUs,
    ballot: Ballot,
}

const _: () = assert!(ID_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(CHANNEL_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LINE_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(SKU_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LOCATION_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(QUANTITY_MAX <= u32::MAX as i64);

/// A reservation whose lines are being put in. Everything in it is within its limit.
#[derive(Debug)]
pub(crate) struct Draft {
    names: String,
    id_bytes: u8,
    channel_bytes: u8,
    lines: Vec<Line>,
}

/// What the names of a line are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineNames<'n> {
    pub(crate) number: &'n str,
    pub(crate) sku: &'n str,
    /// Of the only location; empty if there is none.
    pub(crate) only: &'n str,
}

/// A command to release, and what became of it.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) reservation: Arc<Reservation>,
    /// By place in the reservation, and units; 0: all that is left.
    pub(crate) lines: Box<[(u32, i64)]>,
    ballot: Ballot,
    /// By place in `lines`: what the line claims by location, in order of name, and what of it is
    /// given back; `None` if it has fewer units than that, and then how many.
    planned: Box<[OnceLock<Result<Claims, i64>>]>,
}

/// Votes of the shards that have a part in a command.
#[derive(Debug)]
struct Ballot {
    votes: Mutex<Votes>,
    decided: Condvar,
    carried: AtomicBool,
}

#[derive(Debug)]
struct Votes {
    missing: u32,
    against: bool,
    is_awaited: bool,
}

impl Ballot {
    fn new(voters: u32) -> Self {
        Self {
            votes: Mutex::new(Votes {
                missing: voters,
                against: false,
                is_awaited: false,
            }),
            decided: Condvar::new(),
            carried: AtomicBool::new(false),
        }
    }

    /// Votes, waits for the others, and tells what was decided.
    fn vote(&self, yes: bool) -> bool {
        let mut votes = self.lock();
        votes.missing -= 1;
        votes.against |= !yes;
        if votes.missing == 0 {
            self.carried.store(!votes.against, Relaxed);
            // A system call, also if nobody waits: most commands have one voter.
            if votes.is_awaited {
                self.decided.notify_all();
            }
            return !votes.against;
        }
        votes.is_awaited = true;
        let votes = self
            .decided
            .wait_while(votes, |votes| votes.missing > 0)
            .unwrap_or_else(PoisonError::into_inner);
        !votes.against
    }

    fn lock(&self) -> MutexGuard<'_, Votes> {
        self.votes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn voters(shards: impl Iterator<Item = u32>) -> u32 {
    let mut shards: Vec<u32> = shards.collect();
    shards.sort_unstable();
    shards.dedup();
    shards.len() as u32
}

impl Draft {
    /// One of so many lines, whose names have so many bytes in all.
    pub(crate) fn new(id: &str, channel_name: &str, lines: usize, name_bytes: usize) -> Self {
        let mut names = String::with_capacity(id.len() + channel_name.len() + name_bytes);
        names.push_str(id);
        names.push_str(channel_name);
        Self {
            names,
            id_bytes: id.len() as u8,
            channel_bytes: channel_name.len() as u8,
            lines: Vec::with_capacity(lines),
        }
    }

    /// Puts in the next line.
    pub(crate) fn line(
        &mut self,
        line: LineNames<'_>,
        units: i64,
        only: Option<Loc>,
        keyer: &mut Keyer,
        shards: usize,
    ) {
        let id = &self.names[..usize::from(self.id_bytes)];
        let hash = SkuHash::of(line.sku);
        let key = keyer.line(LineKind::Order, id, line.number, line.sku);
        let names = [line.number, line.sku, line.only];
        self.lines.push(Line {
            key,
            hash,
            only,
            shard: hash.shard(shards) as u32,
            units: units as u32,
            names_at: self.names.len() as u32,
            name_bytes: names.map(|name| name.len() as u8),
            plan: OnceLock::new(),
        });
        names.iter().for_each(|name| self.names.push_str(name));
    }

    /// The line that was put in last is planned already.
    fn plan(&mut self, plan: Result<Allocations, Short>) {
        let line = self.lines.last().expect("a line was put in");
        line.set_plan(plan);
    }

    /// The reservation, at its place in the log, which is not decided yet.
    pub(crate) fn reservation(
        self,
        channel: ChannelIx,
        split: bool,
        expires_us: TimeUs,
        position: Position,
        time_us: TimeUs,
    ) -> Reservation {
        Reservation {
            ballot: Ballot::new(voters(self.lines.iter().map(|line| line.shard))),
            names: self.names.into(),
            id_bytes: self.id_bytes,
            channel_bytes: self.channel_bytes,
            split,
            channel,
            lines: self.lines.into(),
            expires_us,
            position,
            time_us,
        }
    }
}

impl Line {
    /// Units asked for.
    pub(crate) fn units(&self) -> i64 {
        i64::from(self.units)
    }

    fn set_plan(&self, plan: Result<Allocations, Short>) {
        let plan = match plan {
            Ok(found) => match found[..] {
                [(at, units)] if units == self.units() => Plan::Whole(at),
                _ => Plan::Parts(found.as_slice().into()),
            },
            Err(short) => Plan::Short(short.into()),
        };
        self.plan.set(plan).expect("each line is planned once");
    }

    /// Only once it is decided.
    fn planned(&self) -> Result<Allocations, Short> {
        let plan = self.plan.get();
        match plan.expect("every shard plans its lines before it votes") {
            Plan::Whole(at) => Ok(Allocations::from_iter([(*at, self.units())])),
            Plan::Parts(parts) => Ok(Allocations::from_slice(parts)),
            Plan::Short(short) => Err(**short),
        }
    }
}

impl Reservation {
    pub(crate) fn id(&self) -> &str {
        &self.names[..usize::from(self.id_bytes)]
    }

    pub(crate) fn channel_name(&self) -> &str {
        let begin = usize::from(self.id_bytes);
        &self.names[begin..begin + usize::from(self.channel_bytes)]
    }

    /// The names of a line of it.
    pub(crate) fn names(&self, line: &Line) -> LineNames<'_> {
        let [number, sku, only] = line.name_bytes.map(usize::from);
        let names = &self.names[line.names_at as usize..];
        LineNames {
            number: &names[..number],
            sku: &names[number..number + sku],
            only: &names[number + sku..number + sku + only],
        }
    }

    /// Whether it was granted. Only once it is decided.
    pub(crate) fn granted(&self) -> bool {
        self.ballot.carried.load(Relaxed)
    }

    /// What was found for each line. Only once it is decided.
    pub(crate) fn planned(&self) -> impl Iterator<Item = (&Line, Result<Allocations, Short>)> {
        self.lines.iter().map(|line| (line, line.planned()))
    }
}

impl Release {
    pub(crate) fn new(reservation: Arc<Reservation>, lines: Vec<(u32, i64)>) -> Self {
        let shard_of = |(line, _): &(u32, i64)| reservation.lines[*line as usize].shard;
        Self {
            ballot: Ballot::new(voters(lines.iter().map(shard_of))),
            planned: lines.iter().map(|_| OnceLock::new()).collect(),
            lines: lines.into(),
            reservation,
        }
    }

    /// Whether it was carried out. Only once it is decided.
    pub(crate) fn carried_out(&self) -> bool {
        self.lines.is_empty() || self.ballot.carried.load(Relaxed)
    }

    /// What was found for each line: what is given back, or how many units are left.
    pub(crate) fn planned(&self) -> impl Iterator<Item = (&Line, i64, &Result<Claims, i64>)> {
        let planned = self.planned.iter().map(|planned| {
            planned
                .get()
                .expect("every shard plans its lines before it votes")
        });
        self.lines
            .iter()
            .zip(planned)
            .map(|((line, units), planned)| {
                (&self.reservation.lines[*line as usize], *units, planned)
            })
    }
}

/// Brings into the cache what one shard's part of these commands will touch, so that their cache
/// misses overlap.
pub(super) fn prefetch(ledger: &Ledger<ShardBooks>, commands: &[Command], shard: u32) {
    let lines = || {
        let lines = commands.iter().flat_map(|command| match command {
            Command::Reserve(reservation) | Command::Prolong(reservation, _) => &reservation.lines,
            Command::Release(release) => &release.reservation.lines,
        });
        lines.filter(|line| line.shard == shard)
    };
    ledger.prefetch_skus(lines().map(|line| line.hash));
    ledger.prefetch_cells(lines().map(|line| (line.hash, line.only)));
    for line in lines() {
        ledger.lines().touch(line.key);
    }
}

/// Does one shard's part of a command.
pub(super) fn carry_out(
    ledger: &mut Ledger<ShardBooks>,
    command: &Command,
    shard: u32,
    names: &impl LocationNames,
) {
    match command {
        Command::Reserve(reservation) => reserve(ledger, reservation, shard, names),
        Command::Prolong(reservation, until_us) => {
            if !reservation.granted() {
                return;
            }
            for line in reservation.lines.iter().filter(|line| line.shard == shard) {
                let about = about(reservation, line);
                ledger.prolong(line.hash, line.key, *until_us, about, names);
            }
        }
        Command::Release(release) => give_back(ledger, release, shard, names),
    }
}

fn about<'r>(reservation: &'r Reservation, line: &'r Line) -> Names<'r> {
    let names = reservation.names(line);
    Names {
        sku: names.sku,
        document: (reservation.id(), names.number),
        order: None,
    }
}

fn reserve(
    ledger: &mut Ledger<ShardBooks>,
    reservation: &Reservation,
    shard: u32,
    names: &impl LocationNames,
) {
    let (mut mine, mut yes) = (false, true);
    let mut cart = Cart::default();
    for line in reservation.lines.iter().filter(|line| line.shard == shard) {
        mine = true;
        let planned = plan(ledger, reservation, line, &mut cart, names);
        yes &= planned.is_ok();
        line.set_plan(planned);
    }
    if !mine || !reservation.ballot.vote(yes) {
        return;
    }
    for (place, first) in reservation.lines.iter().enumerate() {
        let (before, rest) = reservation.lines.split_at(place);
        let sku = reservation.names(first).sku;
        let is_same = |line: &&Line| line.hash == first.hash && reservation.names(line).sku == sku;
        if first.shard != shard || before.iter().any(|line| is_same(&line)) {
            continue;
        }
        let reserved = rest.iter().filter(is_same).map(|line| {
            let planned = line.planned().unwrap_or_default();
            (line.key, planned, about(reservation, line))
        });
        ledger.reserve(first.hash, sku, reservation.expires_us, reserved, names);
    }
}

/// What the lines of a cart have taken so far, by SKU.
type Cart<'r> = SmallVec<[Taken<'r>; 4]>;

/// What lines of one SKU have taken so far.
struct Taken<'r> {
    hash: SkuHash,
    sku: &'r str,
    /// Units by location.
    units: Allocations,
    /// What is offered beside that, from the second line on: those after it look at no location
    /// again but where the one before took units.
    offers: Option<Box<Offers>>,
}

/// Finds the units of one line, beside what lines before it have taken of the SKU.
fn plan<'r>(
    ledger: &mut Ledger<ShardBooks>,
    reservation: &'r Reservation,
    line: &'r Line,
    cart: &mut Cart<'r>,
    names: &impl LocationNames,
) -> Result<Allocations, Short> {
    let of_line = reservation.names(line);
    let (channel, sku) = (reservation.channel, of_line.sku);
    let before = cart.iter_mut();
    let mut before = before.filter(|taken| taken.hash == line.hash && taken.sku == sku);
    let mut before = before.next();
    let once;
    let offers = match &mut before {
        None => {
            once = ledger
                .books_mut()
                .offers(line.hash, sku, channel, line.only, &[]);
            once.as_ref()
        }
        Some(Taken { units, offers, .. }) => {
            if offers.is_none() {
                let all = ledger
                    .books_mut()
                    .offers(line.hash, sku, channel, None, units);
                *offers = all.map(|mut all| {
                    all.put_in_order(names);
                    Box::new(all)
                });
            }
            offers.as_deref()
        }
    };
    let offers = offers.ok_or(Short {
        available: 0,
        reason: ShortReason::UnknownSku,
    })?;
    let wanted = Wanted {
        units: line.units(),
        only: line.only,
        split: reservation.split,
    };
    let found = offers
        .cover(wanted, names)
        .map_err(|short| match short.reason {
            // Where nothing of it ever was is as where nothing is left: whether there is a cell says
            // nothing about the channel.
            ShortReason::NotSoldFromLocation
                if ledger.books().sells(channel, sku, of_line.only) =>
            {
                Short {
                    reason: ShortReason::Insufficient,
                    ..short
                }
            }
            _ => short,
        })?;
    match before {
        Some(taken) => taken.take(&found, ledger, channel),
        None if reservation.lines.len() > 1 => cart.push(Taken {
            hash: line.hash,
            sku,
            units: found.clone(),
            offers: None,
        }),
        None => {}
    }
    Ok(found)
}

impl Taken<'_> {
    /// One more line has taken these.
    fn take(&mut self, found: &[(Loc, i64)], ledger: &mut Ledger<ShardBooks>, channel: ChannelIx) {
        for (at, units) in found {
            match self.units.iter_mut().find(|(loc, _)| loc == at) {
                Some((_, sum)) => *sum += units,
                None => self.units.push((*at, *units)),
            }
        }
        let Some(known) = &mut self.offers else {
            return;
        };
        for (at, _) in found {
            let now =
                ledger
                    .books_mut()
                    .offers(self.hash, self.sku, channel, Some(*at), &self.units);
            let now = now.expect("it was just offered");
            known.ats = now.ats;
            let mut offers = known.by_location.iter_mut();
            let offer = offers.find(|offer| offer.at == *at);
            *offer.expect("it was just offered") = now.by_location[0];
        }
    }
}

fn give_back(
    ledger: &mut Ledger<ShardBooks>,
    release: &Release,
    shard: u32,
    names: &impl LocationNames,
) {
    let reservation = &release.reservation;
    let (mut mine, mut yes) = (false, reservation.granted());
    for (place, (line, units)) in release.lines.iter().enumerate() {
        let line = &reservation.lines[*line as usize];
        if line.shard != shard {
            continue;
        }
        mine = true;
        let mut claims = ledger.lines().claims(line.key, ledger.now_us(), names);
        claims.sort_unstable_by(|a, b| names.name(a.0).cmp(names.name(b.0)));
        let all = claims.iter().map(|(_, units)| units).sum();
        let planned = if *units > all {
            Err(all)
        } else {
            let mut left = if *units == 0 { all } else { *units };
            for (_, claim) in &mut claims {
                *claim = left.min(*claim);
                left -= *claim;
            }
            claims.retain(|(_, units)| *units > 0);
            Ok(claims)
        };
        yes &= planned.is_ok();
        release.planned[place]
            .set(planned)
            .expect("each line is planned once");
    }
    if !mine || !release.ballot.vote(yes) {
        return;
    }
    for (line, _, planned) in release.planned().filter(|(line, ..)| line.shard == shard) {
        for (at, units) in planned.iter().flatten() {
            let milestone = Milestone::Released(Some(*at));
            let about = about(reservation, line);
            ledger.apply(&posting(line, milestone, *units), about, names);
        }
    }
}

fn posting(line: &Line, milestone: Milestone, units: i64) -> Posting {
    Posting {
        sku: line.hash,
        quantity: i32::try_from(units).expect("no more than the line's quantity"),
        effect: Effect::Line {
            line: line.key,
            milestone,
        },
        fact: Fact::default(),
    }
}
