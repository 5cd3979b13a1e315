//! The sequencer's side of commands: which are new, which reservation they mean, and how much time
//! it has left. What depends on stock is left to the shards.

mod known;
mod saving;

use std::sync::Arc;

use known::{Known, KnownCommands};
use prost::Message;
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::decode::Asked;
use crate::{
    domain::{
        admission::Horizon,
        balances::{Loc, LocationNames},
        keys::Keyer,
        lifecycle,
        movement::{Invalid, TimeUs},
        posting::NEVER_US,
        reserve::{Short, ShortReason},
        rules::Rules,
    },
    limits::COMMANDS_REMEMBERED_MAX,
    log::Position,
    proto::v1::{self as pb, command::Command as Pb},
    shard::{
        Locations,
        commands::{Command, Draft, Line, LineNames, Release, Reservation},
    },
    wire::{
        command::{check, check_reserve, line_name, time_to_live_us},
        reserve::Reserve,
    },
};

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandReceipt {
    /// Position of the decision.
    pub position: Position,
    /// The log's time there.
    pub time_us: TimeUs,
    /// The same was asked before; this is what was decided then.
    pub duplicate: bool,
    /// What was decided.
    pub outcome: CommandOutcome,
}

/// What was decided about a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutcome {
    /// All lines are reserved.
    Reserved {
        /// Where each unit lies, in the order of the lines.
        allocations: Vec<Allocation>,
        /// When that ends; `None`: it does not.
        expires_us: Option<TimeUs>,
    },
    /// No line is reserved, since these fell short.
    Short(Vec<ShortLine>),
    /// The reservation no longer expires.
    Confirmed,
    /// The reservation expires then.
    Extended(TimeUs),
    /// This was given back.
    Released(Vec<Allocation>),
    /// Nothing was done.
    Refused(Refusal),
}

/// What was decided about a command, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CommandVerdict {
    /// All lines are reserved.
    Granted,
    /// No line is reserved, since some fell short.
    Short,
    /// A reservation was confirmed.
    Confirmed,
    /// A reservation was extended.
    Extended,
    /// All that was asked was released.
    Released,
    /// Nothing was done, for another reason than stock.
    Refused,
    /// It was decided before.
    Duplicate,
}

impl CommandVerdict {
    /// All verdicts.
    pub const ALL: [CommandVerdict; 7] = [
        CommandVerdict::Granted,
        CommandVerdict::Short,
        CommandVerdict::Confirmed,
        CommandVerdict::Extended,
        CommandVerdict::Released,
        CommandVerdict::Refused,
        CommandVerdict::Duplicate,
    ];

    /// The name of the verdict.
    pub const fn name(self) -> &'static str {
        match self {
            CommandVerdict::Granted => "granted",
            CommandVerdict::Short => "short",
            CommandVerdict::Confirmed => "confirmed",
            CommandVerdict::Extended => "extended",
            CommandVerdict::Released => "released",
            CommandVerdict::Refused => "refused",
            CommandVerdict::Duplicate => "duplicate",
        }
    }
}

/// Units of a line at a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The line's number.
    pub line: String,
    /// Its SKU.
    pub sku: String,
    /// Where.
    pub location: String,
    /// Units.
    pub quantity: i64,
}

/// A line that fell short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortLine {
    /// The line's number.
    pub line: String,
    /// Its SKU.
    pub sku: String,
    /// Units asked for.
    pub requested: i64,
    /// Units that could have been had.
    pub available: i64,
    /// Why.
    pub reason: ShortReason,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A record of ours that breaks a limit of this version.
    #[error("{0}")]
    Invalid(Invalid),
    /// The id is known with other content.
    #[error("the id {0:?} was used before, with other content; each command has an id of its own")]
    IdTaken(String),
    /// The rules have no such channel.
    #[error("there is no channel {0:?} in the rules")]
    UnknownChannel(String),
    /// No such reservation is known.
    #[error(
        "no reservation {0:?} is known; one is forgotten when ids are (7 days by default) after \
         the last command about it"
    )]
    UnknownReservation(String),
    /// The reservation has no such line.
    #[error("the reservation {reservation:?} has no line {line:?}")]
    UnknownLine {
        /// The reservation.
        reservation: String,
        /// The line.
        line: String,
    },
    /// The reservation was refused.
    #[error("the reservation {0:?} was refused: nothing of it is reserved")]
    NotGranted(String),
    /// The reservation has expired.
    #[error("the reservation {0:?} has expired; reserve anew, under another id")]
    Expired(String),
    /// The reservation does not expire.
    #[error("the reservation {0:?} is confirmed or has no time limit: there is nothing to extend")]
    NoTimeLimit(String),
    /// A line has fewer units left than are to be released.
    #[error("line {line:?} has {left} units left, and {asked} are to be released; nothing was")]
    TooFewLeft {
        /// The line.
        line: String,
        /// Units that are still reserved.
        left: i64,
        /// Units asked for.
        asked: i64,
    },
    /// Too many commands are remembered.
    #[error(
        "{COMMANDS_REMEMBERED_MAX} commands are remembered already; more are taken as those are \
         forgotten"
    )]
    TooMany,
}

/// How a reservation stands at a position.
#[derive(Debug)]
pub struct ReservationView {
    pub(crate) reservation: Arc<Reservation>,
    /// Confirmed: it does not expire any more.
    pub confirmed: bool,
    /// When it expires or expired; [`NEVER_US`]: it does not.
    pub until_us: TimeUs,
    /// By line: its totals and what it claims now.
    pub lines: Vec<(lifecycle::Line, lifecycle::Claims)>,
    /// The position, and the log's time there.
    pub position: Position,
    /// The log's time there.
    pub time_us: TimeUs,
}

/// A decision, as far as the sequencer can make it; the rest is told once the shards are done.
#[derive(Debug, Clone)]
enum Decision {
    Reserve(Arc<Reservation>),
    Confirm(Arc<Reservation>),
    Extend(Arc<Reservation>, TimeUs),
    Expired(Arc<Reservation>),
    NoTimeLimit(Arc<Reservation>),
    Release(Arc<Release>),
    /// Few are, and a table of millions of decisions is small without them.
    Refused(Box<Refusal>),
}

impl Decision {
    fn refused(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// A decision, and when it was made.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    decision: Decision,
    pub(crate) position: Position,
    pub(crate) time_us: TimeUs,
}

/// What there is to tell about a command.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) decided: Decided,
    /// It was decided before.
    pub(crate) is_duplicate: bool,
}

/// Where a command is decided.
pub(crate) struct Place<'p> {
    pub(crate) position: Position,
    pub(crate) time_us: TimeUs,
    pub(crate) rules: &'p Rules,
    pub(crate) locations: &'p Locations,
    pub(crate) shards: usize,
}

/// Commands of the horizon, by id.
#[derive(Debug)]
pub(crate) struct Commands {
    known: KnownCommands,
    keyer: Keyer,
    /// Where a command is encoded to hash it.
    scratch: Vec<u8>,
}

impl Commands {
    pub(crate) fn new(horizon: Horizon) -> Self {
        Self {
            known: KnownCommands::new(horizon),
            keyer: Keyer::new(),
            scratch: Vec::new(),
        }
    }

    /// Decides about a command, as far as no shard has to be asked. Gives what there is to tell
    /// once the shards are done, and what they have to do.
    pub(crate) fn decide(&mut self, asked: &Asked, place: &Place<'_>) -> (Told, Option<Command>) {
        let command = match asked {
            Asked::Reserve { request, .. } => {
                let reserve = Reserve::read_plain(request).expect("it was read before");
                return self.decide_reserve(&reserve, place);
            }
            Asked::Other(command) => command,
        };
        if let Some(Pb::Reserve(reserve)) = &command.command {
            return self.decide_reserve(&Reserve::from(reserve), place);
        }
        let put = |to: &mut Vec<u8>| command.encode(to).expect("a vector has room");
        self.once(
            check(command),
            id_of(command),
            put,
            place,
            |commands| match &command.command {
                Some(Pb::Confirm(confirm)) => commands.confirm(&confirm.reservation, place),
                Some(Pb::Extend(extend)) => commands.extend(extend, place),
                Some(Pb::Release(release)) => commands.release(release, place),
                Some(Pb::Reserve(_)) | None => unreachable!("one is elsewhere, none is invalid"),
            },
        )
    }

    fn decide_reserve(
        &mut self,
        reserve: &Reserve<'_>,
        place: &Place<'_>,
    ) -> (Told, Option<Command>) {
        let checked = check_reserve(reserve);
        let put = |to: &mut Vec<u8>| reserve.put_command(to);
        self.once(checked, reserve.id, put, place, |commands| {
            commands.reserve(reserve, place)
        })
    }

    /// Decides about a command, unless it is invalid or was decided before. Its content is what it
    /// puts.
    fn once(
        &mut self,
        checked: Result<(), Invalid>,
        id: &str,
        put: impl FnOnce(&mut Vec<u8>),
        place: &Place<'_>,
        decide: impl FnOnce(&mut Self) -> (Decision, Option<Command>),
    ) -> (Told, Option<Command>) {
        let told = |decision, is_duplicate| Told {
            decided: Decided {
                decision,
                position: place.position,
                time_us: place.time_us,
            },
            is_duplicate,
        };
        let refused = |refusal| (told(Decision::refused(refusal), false), None);
        if let Err(invalid) = checked {
            return refused(Refusal::Invalid(invalid));
        }
        self.scratch.clear();
        put(&mut self.scratch);
        let (key, content) = (key_of(id), xxh3_64(&self.scratch));
        if let Some(known) = self.known.get(key) {
            if known.content != content {
                return refused(Refusal::IdTaken(id.to_owned()));
            }
            let told = Told {
                decided: known.decided.clone(),
                is_duplicate: true,
            };
            return (told, None);
        }
        self.known.forget(place.time_us);
        if self.known.len() >= COMMANDS_REMEMBERED_MAX {
            return refused(Refusal::TooMany);
        }
        let (decision, todo) = decide(self);
        let until_us = match &decision {
            Decision::Reserve(reservation) => reservation.expires_us,
            _ => NEVER_US,
        };
        let told = told(decision, false);
        let known = Known::new(content, told.decided.clone(), until_us);
        self.known.insert(key, known, place.time_us);
        (told, todo)
    }

    /// The reservation of an id, whether it is confirmed, and when it ends.
    pub(crate) fn reservation(&self, id: &str) -> Option<(Arc<Reservation>, bool, TimeUs)> {
        let known = self.known.get(key_of(id))?;
        match &known.decided.decision {
            Decision::Reserve(reservation) => {
                Some((Arc::clone(reservation), known.confirmed, known.until_us))
            }
            _ => None,
        }
    }

    fn reserve(&mut self, reserve: &Reserve<'_>, place: &Place<'_>) -> (Decision, Option<Command>) {
        let Some(channel) = place.rules.channel(reserve.channel) else {
            let refusal = Refusal::UnknownChannel(reserve.channel.to_owned());
            return (Decision::refused(refusal), None);
        };
        let numbers = (0..).zip(&reserve.lines);
        let numbers = numbers.map(|(place, line)| line_name(place, line));
        let numbers: SmallVec<[_; 1]> = numbers.collect();
        let lines = || numbers.iter().zip(&reserve.lines);
        let name_bytes =
            lines().map(|(number, line)| number.len() + line.sku.len() + line.location.len());
        let mut draft = Draft::new(reserve.id, reserve.channel, numbers.len(), name_bytes.sum());
        for (number, line) in lines() {
            let names = LineNames {
                number,
                sku: line.sku,
                only: line.location,
            };
            // A location that no movement has named yet has nothing; no number means none.
            let only = (!line.location.is_empty())
                .then(|| place.locations.get(line.location).unwrap_or(NO_LOCATION));
            draft.line(names, line.quantity, only, &mut self.keyer, place.shards);
        }
        let expires_us = match &reserve.time_to_live {
            Some(time) => place.time_us + time_to_live_us(time).expect("it was checked"),
            None => NEVER_US,
        };
        let reservation = Arc::new(draft.reservation(
            channel,
            reserve.allow_split,
            expires_us,
            place.position,
            place.time_us,
        ));
        let todo = Command::Reserve(Arc::clone(&reservation));
        (Decision::Reserve(reservation), Some(todo))
    }

    fn confirm(&mut self, id: &str, place: &Place<'_>) -> (Decision, Option<Command>) {
        self.with_time(id, place, |known, reservation| {
            known.confirmed = true;
            known.until_us = NEVER_US;
            let todo = Command::Prolong(Arc::clone(&reservation), NEVER_US);
            (Decision::Confirm(reservation), Some(todo))
        })
    }

    fn extend(
        &mut self,
        extend: &pb::ExtendRequest,
        place: &Place<'_>,
    ) -> (Decision, Option<Command>) {
        let time = extend.time_to_live.as_ref();
        let us = time.and_then(|time| time_to_live_us(time).ok());
        let until_us = place.time_us + us.expect("it was checked");
        self.with_time(&extend.reservation, place, |known, reservation| {
            if known.until_us == NEVER_US {
                return (Decision::NoTimeLimit(reservation), None);
            }
            known.until_us = known.until_us.max(until_us);
            let todo = Command::Prolong(Arc::clone(&reservation), known.until_us);
            (Decision::Extend(reservation, known.until_us), Some(todo))
        })
    }

    /// Decides about the time of a reservation that has not expired.
    fn with_time(
        &mut self,
        id: &str,
        place: &Place<'_>,
        decide: impl FnOnce(&mut Known, Arc<Reservation>) -> (Decision, Option<Command>),
    ) -> (Decision, Option<Command>) {
        let key = key_of(id);
        let Some((reservation, _, until_us)) = self.reservation(id) else {
            let refusal = Refusal::UnknownReservation(id.to_owned());
            return (Decision::refused(refusal), None);
        };
        self.known.remember(key, place.time_us);
        if until_us <= place.time_us {
            return (Decision::Expired(reservation), None);
        }
        let known = self.known.change(key).expect("it was just found");
        decide(known, reservation)
    }

    fn release(
        &mut self,
        release: &pb::ReleaseRequest,
        place: &Place<'_>,
    ) -> (Decision, Option<Command>) {
        let id = &release.reservation;
        let Some((reservation, ..)) = self.reservation(id) else {
            let refusal = Refusal::UnknownReservation(id.clone());
            return (Decision::refused(refusal), None);
        };
        self.known.remember(key_of(id), place.time_us);
        let mut lines = Vec::with_capacity(release.lines.len());
        for wanted in &release.lines {
            let mut named = (0..).zip(&reservation.lines);
            let is_wanted = |line| reservation.names(line).number == wanted.line;
            let Some((number, _)) = named.find(|(_, line)| is_wanted(line)) else {
                let refusal = Refusal::UnknownLine {
                    reservation: id.clone(),
                    line: wanted.line.clone(),
                };
                return (Decision::refused(refusal), None);
            };
            lines.push((number, wanted.quantity));
        }
        if lines.is_empty() {
            lines = (0..reservation.lines.len() as u32)
                .map(|n| (n, 0))
                .collect();
        }
        let release = Arc::new(Release::new(reservation, lines));
        let todo = Command::Release(Arc::clone(&release));
        (Decision::Release(release), Some(todo))
    }
}

/// A number that no location has.
const NO_LOCATION: Loc = Loc(u32::MAX);

fn key_of(id: &str) -> u128 {
    xxh3_128(id.as_bytes())
}

fn id_of(command: &pb::Command) -> &str {
    match &command.command {
        Some(Pb::Reserve(reserve)) => &reserve.id,
        Some(Pb::Confirm(confirm)) => &confirm.id,
        Some(Pb::Release(release)) => &release.id,
        Some(Pb::Extend(extend)) => &extend.id,
        None => "",
    }
}

impl Told {
    /// What there is to tell. Only once the shards are done.
    pub(crate) fn receipt(&self, locations: &Locations) -> CommandReceipt {
        CommandReceipt {
            position: self.decided.position,
            time_us: self.decided.time_us,
            duplicate: self.is_duplicate,
            outcome: self.decided.decision.outcome(locations),
        }
    }

    /// The reservation that was granted, if that is what there is to tell. Only once the shards are
    /// done.
    pub(crate) fn granted(&self) -> Option<&Reservation> {
        match &self.decided.decision {
            Decision::Reserve(reservation) if reservation.granted() => Some(reservation),
            _ => None,
        }
    }

    /// The same in a word, without what it takes to tell it whole. Only once the shards are done.
    pub(crate) fn verdict(&self) -> CommandVerdict {
        match &self.decided.decision {
            _ if self.is_duplicate => CommandVerdict::Duplicate,
            Decision::Reserve(reservation) if reservation.granted() => CommandVerdict::Granted,
            Decision::Reserve(_) => CommandVerdict::Short,
            Decision::Confirm(reservation) if reservation.granted() => CommandVerdict::Confirmed,
            Decision::Extend(reservation, _) if reservation.granted() => CommandVerdict::Extended,
            Decision::Release(release)
                if release.reservation.granted() && release.carried_out() =>
            {
                CommandVerdict::Released
            }
            _ => CommandVerdict::Refused,
        }
    }
}

impl Decision {
    fn outcome(&self, locations: &Locations) -> CommandOutcome {
        use CommandOutcome as Outcome;
        let id = |reservation: &Reservation| reservation.id().to_owned();
        match self {
            Decision::Refused(refusal) => Outcome::Refused(Refusal::clone(refusal)),
            Decision::Reserve(reservation) if reservation.granted() => Outcome::Reserved {
                allocations: allocations(reservation, locations),
                expires_us: Some(reservation.expires_us).filter(|us| *us != NEVER_US),
            },
            Decision::Reserve(reservation) => Outcome::Short(short_lines(reservation)),
            Decision::Confirm(reservation)
            | Decision::Extend(reservation, _)
            | Decision::Expired(reservation)
            | Decision::NoTimeLimit(reservation)
                if !reservation.granted() =>
            {
                Outcome::Refused(Refusal::NotGranted(id(reservation)))
            }
            Decision::Confirm(_) => Outcome::Confirmed,
            Decision::Extend(_, until_us) => Outcome::Extended(*until_us),
            Decision::Expired(reservation) => Outcome::Refused(Refusal::Expired(id(reservation))),
            Decision::NoTimeLimit(reservation) => {
                Outcome::Refused(Refusal::NoTimeLimit(id(reservation)))
            }
            Decision::Release(release) => released(release, locations),
        }
    }
}

fn allocations(reservation: &Reservation, locations: &Locations) -> Vec<Allocation> {
    let mut allocations = Vec::with_capacity(reservation.lines.len());
    for (line, planned) in reservation.planned() {
        for (at, units) in planned.into_iter().flatten() {
            allocations.push(allocation(reservation, line, at, units, locations));
        }
    }
    allocations
}

/// The lines of a refused reservation that fell short.
pub(crate) fn short_lines(reservation: &Reservation) -> Vec<ShortLine> {
    let short = |(line, planned): (&Line, Result<_, Short>)| {
        let short = planned.err()?;
        let names = reservation.names(line);
        Some(ShortLine {
            line: names.number.to_owned(),
            sku: names.sku.to_owned(),
            requested: line.units(),
            available: short.available,
            reason: short.reason,
        })
    };
    reservation.planned().filter_map(short).collect()
}

fn released(release: &Release, locations: &Locations) -> CommandOutcome {
    let reservation = &release.reservation;
    if !reservation.granted() {
        return CommandOutcome::Refused(Refusal::NotGranted(reservation.id().to_owned()));
    }
    let mut given_back = Vec::new();
    for (line, asked, planned) in release.planned() {
        match planned {
            Ok(claims) if release.carried_out() => {
                let back = claims.iter();
                let back =
                    back.map(|(at, units)| allocation(reservation, line, *at, *units, locations));
                given_back.extend(back);
            }
            Ok(_) => {}
            Err(left) => {
                return CommandOutcome::Refused(Refusal::TooFewLeft {
                    line: reservation.names(line).number.to_owned(),
                    left: *left,
                    asked,
                });
            }
        }
    }
    CommandOutcome::Released(given_back)
}

pub(crate) fn allocation(
    reservation: &Reservation,
    line: &Line,
    at: Loc,
    units: i64,
    locations: &Locations,
) -> Allocation {
    let names = reservation.names(line);
    Allocation {
        line: names.number.to_owned(),
        sku: names.sku.to_owned(),
        location: locations.name(at).to_owned(),
        quantity: units,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TIME_TO_LIVE_US_MIN;

    const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";
    const HOUR_US: i64 = 3_600 * 1_000_000;

    struct Desk {
        commands: Commands,
        rules: Rules,
        locations: Locations,
    }

    impl Desk {
        fn new() -> Self {
            Self {
                commands: Commands::new(Horizon {
                    us: 64 * HOUR_US,
                    ids_max: 1_000,
                }),
                rules: Rules::parse(RULES).expect("rules").0,
                locations: Locations::default(),
            }
        }

        fn decide(&mut self, command: Pb, time_us: TimeUs) -> (Told, Option<Command>) {
            let place = Place {
                position: 1,
                time_us,
                rules: &self.rules,
                locations: &self.locations,
                shards: 1,
            };
            let command = pb::Command {
                command: Some(command),
            };
            self.commands.decide(&Asked::Other(command), &place)
        }

        fn refusal(&mut self, command: Pb, time_us: TimeUs) -> Option<Refusal> {
            match self.decide(command, time_us).0.decided.decision {
                Decision::Refused(refusal) => Some(*refusal),
                _ => None,
            }
        }
    }

    fn reserve(id: &str, ttl_us: Option<i64>) -> Pb {
        Pb::Reserve(pb::ReserveRequest {
            id: id.into(),
            channel: "web".into(),
            lines: vec![pb::ReserveLine {
                sku: "A".into(),
                quantity: 1,
                ..pb::ReserveLine::default()
            }],
            time_to_live: ttl_us.map(|us| prost_types::Duration {
                seconds: us / 1_000_000,
                nanos: 0,
            }),
            ..pb::ReserveRequest::default()
        })
    }

    fn confirm(id: &str, reservation: &str) -> Pb {
        Pb::Confirm(pb::ConfirmRequest {
            id: id.into(),
            reservation: reservation.into(),
        })
    }

    #[test]
    fn the_same_again_is_not_decided_again() {
        let mut desk = Desk::new();
        assert!(!desk.decide(reserve("r", None), 0).0.is_duplicate);
        let (told, todo) = desk.decide(reserve("r", None), HOUR_US);
        assert!(told.is_duplicate && todo.is_none());
        let other = reserve("r", Some(TIME_TO_LIVE_US_MIN));
        assert_eq!(desk.refusal(other, 0), Some(Refusal::IdTaken("r".into())));
        let taken = desk.refusal(confirm("r", "r"), 0);
        assert_eq!(taken, Some(Refusal::IdTaken("r".into())));
    }

    #[test]
    fn a_reservation_is_known_for_the_horizon_after_the_last_command_about_it() {
        let mut desk = Desk::new();
        let unknown = |id: &str| Some(Refusal::UnknownReservation(id.into()));
        desk.decide(reserve("a", None), 0);
        desk.decide(reserve("b", None), 0);
        assert_eq!(desk.refusal(confirm("c1", "a"), 40 * HOUR_US), None);
        assert_eq!(desk.refusal(confirm("c2", "b"), 66 * HOUR_US), unknown("b"));
        assert_eq!(desk.refusal(confirm("c3", "a"), 66 * HOUR_US), None);
        assert_eq!(
            desk.refusal(confirm("c4", "a"), 140 * HOUR_US),
            unknown("a")
        );
        // Only the last one, which was refused, is left.
        assert_eq!(desk.commands.known.len(), 1);
    }

    #[test]
    fn what_is_over_is_over_at_its_very_time() {
        let mut desk = Desk::new();
        desk.decide(reserve("r", Some(HOUR_US)), 0);
        let expired = |desk: &mut Desk, id: &str, time_us| {
            let told = desk.decide(confirm(id, "r"), time_us).0;
            matches!(told.decided.decision, Decision::Expired(_))
        };
        assert!(expired(&mut desk, "c1", HOUR_US));
        assert!(expired(&mut desk, "c2", 2 * HOUR_US));
        desk.decide(reserve("s", Some(HOUR_US)), 0);
        let extend = Pb::Extend(pb::ExtendRequest {
            id: "e".into(),
            reservation: "s".into(),
            time_to_live: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
        });
        // Never shorter than it was.
        let told = desk.decide(extend, 60 * 1_000_000).0;
        assert!(matches!(
            told.decided.decision,
            Decision::Extend(_, HOUR_US)
        ));
        assert_eq!(desk.refusal(confirm("c3", "s"), HOUR_US - 1), None);
    }
}
