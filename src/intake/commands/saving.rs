//! Remembered commands into the bytes of a checkpoint, and back.

use std::{collections::HashMap, sync::Arc};

use super::{Commands, Decided, Decision, Known, KnownCommands, Refusal, key_of};
use crate::{
    domain::{
        admission::Horizon,
        keys::Keyer,
        movement::Invalid,
        saved::{Broken, Input, Output},
    },
    shard::commands::{Release, Reservation},
};

/// Commands that were saved, not yet in bytes: what became of them may still be decided.
#[derive(Debug)]
pub(crate) struct SavedCommands(Vec<(u128, Known)>);

/// As many are put into bytes at once.
const SAVED_TOGETHER: usize = 1_000;

/// The numbers by which decisions are told apart.
mod tag {
    pub(super) const RESERVE: u8 = 0;
    pub(super) const CONFIRM: u8 = 1;
    pub(super) const EXTEND: u8 = 2;
    pub(super) const EXPIRED: u8 = 3;
    pub(super) const NO_TIME_LIMIT: u8 = 4;
    pub(super) const RELEASE: u8 = 5;
    pub(super) const REFUSED: u8 = 6;
}

impl Commands {
    /// All of them, as they are now, are to be saved.
    pub(crate) fn begin_saving(&mut self) {
        self.known.begin_saving();
    }

    /// Saves some more. True if there are more.
    pub(crate) fn save_slice(&mut self) -> bool {
        self.known.save_slice()
    }

    /// What was saved and not yet taken, if it is enough, or the last of it.
    pub(crate) fn take_saved(&mut self, last: bool) -> Option<SavedCommands> {
        let enough = if last { 1 } else { SAVED_TOGETHER };
        (self.known.saved_len() >= enough).then(|| SavedCommands(self.known.take_saved()))
    }

    /// Takes back what was saved, for so many shards.
    pub(crate) fn load(
        horizon: Horizon,
        sections: &[Vec<u8>],
        shards: usize,
    ) -> Result<Self, Broken> {
        let mut keyer = Keyer::new();
        let mut reservations = HashMap::new();
        // Reservations first: the others are about them.
        for bytes in sections {
            each(bytes, |input| {
                if input.u8()? == tag::RESERVE {
                    let reservation = Arc::new(Reservation::load(input, &mut keyer, shards)?);
                    reservations.insert(key_of(reservation.id()), reservation);
                }
                Ok(())
            })?;
        }
        let mut all = Vec::new();
        for bytes in sections {
            each(bytes, |input| {
                let decision = load(input, &reservations)?;
                let key = input.u128()?;
                let content = input.u64()?;
                let epoch = input.u64()?;
                let decided = Decided {
                    decision,
                    position: input.u64()?,
                    time_us: input.i64()?,
                };
                let mut known = Known::new(content, decided, input.i64()?);
                known.epoch = epoch;
                known.confirmed = input.flag()?;
                all.push((key, known));
                Ok(())
            })?;
        }
        let mut known = KnownCommands::new(horizon);
        known.take_back(all);
        Ok(Self {
            known,
            keyer: Keyer::new(),
            scratch: Vec::new(),
        })
    }
}

impl SavedCommands {
    /// Into bytes. Only once the shards have decided about them.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut output = Output::new();
        for (key, known) in &self.0 {
            let mut one = Output::new();
            save(&mut one, &known.decided.decision);
            one.u128(*key);
            one.u64(known.content);
            one.u64(known.epoch);
            one.u64(known.decided.position);
            one.i64(known.decided.time_us);
            one.i64(known.until_us);
            one.flag(known.confirmed);
            output.bytes(&one.into_bytes());
        }
        output.into_bytes()
    }
}

/// Visits commands in bytes one by one. Not all of one has to be taken.
fn each(
    bytes: &[u8],
    mut visit: impl FnMut(&mut Input<'_>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        visit(&mut Input::new(input.bytes()?))?;
    }
    Ok(())
}

fn save(output: &mut Output, decision: &Decision) {
    let mut about = |tag: u8, reservation: &Reservation| {
        output.u8(tag);
        output.u128(key_of(reservation.id()));
    };
    match decision {
        Decision::Reserve(reservation) => {
            output.u8(tag::RESERVE);
            reservation.save(output);
        }
        Decision::Confirm(reservation) => about(tag::CONFIRM, reservation),
        Decision::Extend(reservation, until_us) => {
            about(tag::EXTEND, reservation);
            output.i64(*until_us);
        }
        Decision::Expired(reservation) => about(tag::EXPIRED, reservation),
        Decision::NoTimeLimit(reservation) => about(tag::NO_TIME_LIMIT, reservation),
        Decision::Release(release) => {
            about(tag::RELEASE, &release.reservation);
            release.save(output);
        }
        Decision::Refused(refusal) => {
            output.u8(tag::REFUSED);
            save_refusal(output, refusal);
        }
    }
}

fn load(
    input: &mut Input<'_>,
    reservations: &HashMap<u128, Arc<Reservation>>,
) -> Result<Decision, Broken> {
    let missing = Broken("it has a command about a reservation that it does not have");
    let about = |input: &mut Input<'_>| {
        let reservation = reservations.get(&input.u128()?);
        reservation.cloned().ok_or(missing.clone())
    };
    Ok(match input.u8()? {
        tag::RESERVE => {
            // Read once more to get behind it; its own is the one that the others have, too.
            let id = Reservation::skip(input)?;
            let reservation = reservations.get(&key_of(id));
            Decision::Reserve(reservation.cloned().ok_or(missing)?)
        }
        tag::CONFIRM => Decision::Confirm(about(input)?),
        tag::EXTEND => {
            let reservation = about(input)?;
            Decision::Extend(reservation, input.i64()?)
        }
        tag::EXPIRED => Decision::Expired(about(input)?),
        tag::NO_TIME_LIMIT => Decision::NoTimeLimit(about(input)?),
        tag::RELEASE => {
            let reservation = about(input)?;
            Decision::Release(Arc::new(Release::load(input, reservation)?))
        }
        tag::REFUSED => Decision::refused(load_refusal(input)?),
        _ => return Err(Broken("it has an unknown kind of decision")),
    })
}

fn save_refusal(output: &mut Output, refusal: &Refusal) {
    let mut texts = |tag: u8, texts: &[&str]| {
        output.u8(tag);
        texts.iter().for_each(|text| output.text(text));
    };
    match refusal {
        Refusal::Invalid(Invalid { field, reason }) => texts(0, &[field, reason]),
        Refusal::IdTaken(id) => texts(1, &[id]),
        Refusal::UnknownChannel(channel) => texts(2, &[channel]),
        Refusal::UnknownReservation(id) => texts(3, &[id]),
        Refusal::UnknownLine { reservation, line } => texts(4, &[reservation, line]),
        Refusal::NotGranted(id) => texts(5, &[id]),
        Refusal::Expired(id) => texts(6, &[id]),
        Refusal::NoTimeLimit(id) => texts(7, &[id]),
        Refusal::TooFewLeft { line, left, asked } => {
            texts(8, &[line]);
            output.i64(*left);
            output.i64(*asked);
        }
        Refusal::TooMany => texts(9, &[]),
    }
}

fn load_refusal(input: &mut Input<'_>) -> Result<Refusal, Broken> {
    let tag = input.u8()?;
    let mut text = || input.text().map(str::to_owned);
    Ok(match tag {
        0 => Refusal::Invalid(Invalid {
            field: text()?,
            reason: text()?,
        }),
        1 => Refusal::IdTaken(text()?),
        2 => Refusal::UnknownChannel(text()?),
        3 => Refusal::UnknownReservation(text()?),
        4 => Refusal::UnknownLine {
            reservation: text()?,
            line: text()?,
        },
        5 => Refusal::NotGranted(text()?),
        6 => Refusal::Expired(text()?),
        7 => Refusal::NoTimeLimit(text()?),
        8 => Refusal::TooFewLeft {
            line: text()?,
            left: input.i64()?,
            asked: input.i64()?,
        },
        9 => Refusal::TooMany,
        _ => return Err(Broken("it has an unknown kind of refusal")),
    })
}
