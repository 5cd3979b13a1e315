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
        keys::{LineKey, SkuHash},
        ledger::{Ledger, Names},
        lifecycle::Claims,
        movement::TimeUs,
        posting::{Effect, Fact, Milestone, Posting},
        reserve::{Allocations, Short, ShortReason, Wanted},
        rules::ChannelIx,
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

/// One line of a reservation.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) key: LineKey,
    pub(crate) hash: SkuHash,
    pub(crate) shard: u32,
    pub(crate) quantity: i64,
    /// Only from here.
    pub(crate) only: Option<Loc>,
    /// The name of that; empty if there is none.
    pub(crate) only_name: Box<str>,
    pub(crate) sku: Box<str>,
    /// Its number.
    pub(crate) line: Box<str>,
}

/// A command to reserve, and what became of it.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) id: Box<str>,
    pub(crate) channel_name: Box<str>,
    pub(crate) channel: ChannelIx,
    pub(crate) lines: Box<[Line]>,
    pub(crate) split: bool,
    /// [`crate::domain::posting::NEVER_US`] if there is no limit.
    pub(crate) expires_us: TimeUs,
    pub(crate) position: Position,
    pub(crate) time_us: TimeUs,
    ballot: Ballot,
    /// By line: where its units were found, or why they were not.
    planned: Box<[OnceLock<Result<Allocations, Short>>]>,
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

impl Reservation {
    #[allow(clippy::too_many_arguments, reason = "all of them are what it is")]
    pub(crate) fn new(
        id: &str,
        channel_name: &str,
        channel: ChannelIx,
        lines: Vec<Line>,
        split: bool,
        expires_us: TimeUs,
        position: Position,
        time_us: TimeUs,
    ) -> Self {
        Self {
            id: id.into(),
            channel_name: channel_name.into(),
            channel,
            ballot: Ballot::new(voters(lines.iter().map(|line| line.shard))),
            planned: lines.iter().map(|_| OnceLock::new()).collect(),
            lines: lines.into(),
            split,
            expires_us,
            position,
            time_us,
        }
    }

    /// Whether it was granted. Only once it is decided.
    pub(crate) fn granted(&self) -> bool {
        self.ballot.carried.load(Relaxed)
    }

    /// What was found for each line. Only once it is decided.
    pub(crate) fn planned(&self) -> impl Iterator<Item = (&Line, &Result<Allocations, Short>)> {
        let planned = self.planned.iter().map(|planned| {
            planned
                .get()
                .expect("every shard plans its lines before it votes")
        });
        self.lines.iter().zip(planned)
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
    Names {
        sku: &line.sku,
        document: (&reservation.id, &line.line),
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
    let mut taken = Taken::default();
    for (line, place) in reservation.lines.iter().zip(&reservation.planned) {
        if line.shard == shard {
            mine = true;
            let before = taken.of(line);
            let planned = plan(ledger, reservation, line, before, names);
            match &planned {
                Ok(allocations) if reservation.lines.len() > 1 => taken.add(line, allocations),
                Ok(_) => {}
                Err(_) => yes = false,
            }
            place.set(planned).expect("each line is planned once");
        }
    }
    if !mine || !reservation.ballot.vote(yes) {
        return;
    }
    for (line, planned) in reservation
        .planned()
        .filter(|(line, _)| line.shard == shard)
    {
        let about = about(reservation, line);
        ledger.release_expired(line.hash, line.key, about, names);
        for (at, units) in planned.iter().flatten() {
            let milestone = Milestone::Reserved {
                at: *at,
                expires_us: reservation.expires_us,
            };
            ledger.apply(&posting(line, milestone, *units), about, names);
        }
    }
}

/// What the lines of a cart have taken so far: for each SKU, units by location. So a cart of many
/// lines of one SKU costs no more for each of them than one of many SKUs.
#[derive(Default)]
struct Taken<'r>(SmallVec<[(&'r Line, Allocations); 4]>);

impl<'r> Taken<'r> {
    fn place_of(&self, line: &Line) -> Option<usize> {
        let is_same = |(first, _): &(&Line, _)| first.hash == line.hash && first.sku == line.sku;
        self.0.iter().position(is_same)
    }

    fn of(&self, line: &Line) -> &[(Loc, i64)] {
        self.place_of(line).map_or(&[], |place| &self.0[place].1)
    }

    fn add(&mut self, line: &'r Line, allocations: &Allocations) {
        let Some(place) = self.place_of(line) else {
            self.0.push((line, allocations.clone()));
            return;
        };
        let before = &mut self.0[place].1;
        for (at, units) in allocations {
            match before.iter_mut().find(|(loc, _)| loc == at) {
                Some((_, sum)) => *sum += units,
                None => before.push((*at, *units)),
            }
        }
    }
}

/// Finds the units of one line, beside what lines before it have taken of the SKU.
fn plan(
    ledger: &mut Ledger<ShardBooks>,
    reservation: &Reservation,
    line: &Line,
    taken: &[(Loc, i64)],
    names: &impl LocationNames,
) -> Result<Allocations, Short> {
    let channel = reservation.channel;
    let offers = ledger
        .books_mut()
        .offers(line.hash, &line.sku, channel, line.only, taken);
    let offers = offers.ok_or(Short {
        available: 0,
        reason: ShortReason::UnknownSku,
    })?;
    let wanted = Wanted {
        units: line.quantity,
        only: line.only,
        split: reservation.split,
    };
    offers
        .cover(wanted, names)
        .map_err(|short| match short.reason {
            // Where nothing of it ever was is as where nothing is left: whether there is a cell says
            // nothing about the channel.
            ShortReason::NotSoldFromLocation
                if ledger.books().sells(channel, &line.sku, &line.only_name) =>
            {
                Short {
                    reason: ShortReason::Insufficient,
                    ..short
                }
            }
            _ => short,
        })
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
