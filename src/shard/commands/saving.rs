//! Decided commands into the bytes of a checkpoint, and back.

use std::sync::{Arc, OnceLock, atomic::Ordering::Relaxed};

use super::{Ballot, Draft, LineNames, Release, Reservation};
use crate::{
    domain::{
        balances::Loc,
        keys::Keyer,
        lifecycle::Claims,
        reserve::{Allocations, Short, ShortReason},
        rules::ChannelIx,
        saved::{Broken, Input, Output},
    },
    limits::{
        CHANNEL_BYTES_MAX, COMMAND_LINES_MAX, ID_BYTES_MAX, LINE_BYTES_MAX, LOCATION_BYTES_MAX,
        QUANTITY_MAX, SKU_BYTES_MAX,
    },
};

const REASONS: [ShortReason; 4] = [
    ShortReason::Insufficient,
    ShortReason::UnknownSku,
    ShortReason::NotSoldFromLocation,
    ShortReason::OnlySplit,
];

impl Ballot {
    /// One that is over.
    fn decided(carried: bool) -> Self {
        let ballot = Self::new(0);
        ballot.carried.store(carried, Relaxed);
        ballot
    }
}

impl Reservation {
    /// Into bytes. Only once it is decided.
    pub(crate) fn save(&self, output: &mut Output) {
        let mut own = Output::new();
        own.text(self.id());
        own.text(self.channel_name());
        own.u16(self.channel.0);
        own.flag(self.split);
        own.i64(self.expires_us);
        own.u64(self.position);
        own.i64(self.time_us);
        own.flag(self.granted());
        own.count(self.lines.len());
        for (line, planned) in self.planned() {
            let names = self.names(line);
            own.text(names.number);
            own.text(names.sku);
            own.i64(line.units());
            own.option(line.only, |own, at| own.u32(at.0));
            own.text(names.only);
            match planned {
                Ok(allocations) => {
                    own.u8(0);
                    put_units(&mut own, &allocations);
                }
                Err(short) => {
                    let reason = REASONS.iter().position(|reason| *reason == short.reason);
                    own.u8(1 + reason.expect("all reasons are listed") as u8);
                    own.i64(short.available);
                }
            }
        }
        output.bytes(&own.into_bytes());
    }

    /// Gets behind one in bytes; gives its id.
    pub(crate) fn skip<'a>(input: &mut Input<'a>) -> Result<&'a str, Broken> {
        Input::new(input.bytes()?).text()
    }

    /// From bytes, for so many shards.
    pub(crate) fn load(
        input: &mut Input<'_>,
        keyer: &mut Keyer,
        shards: usize,
    ) -> Result<Self, Broken> {
        let mut own = Input::new(input.bytes()?);
        let input = &mut own;
        let (id, channel_name) = (input.text()?, input.text()?);
        let channel = ChannelIx(input.u16()?);
        let split = input.flag()?;
        let (expires_us, position, time_us) = (input.i64()?, input.u64()?, input.i64()?);
        let granted = input.flag()?;
        let within = |fits: bool| {
            fits.then_some(())
                .ok_or(Broken("it has a reservation that breaks a limit"))
        };
        within(id.len() <= ID_BYTES_MAX && channel_name.len() <= CHANNEL_BYTES_MAX)?;
        let lines = input.count()?;
        let mut draft = Draft::new(id, channel_name, lines.min(COMMAND_LINES_MAX), 0);
        for _ in 0..lines {
            let (number, sku) = (input.text()?, input.text()?);
            let units = input.i64()?;
            let at = input.option(Input::u32)?.map(Loc);
            let only = input.text()?;
            within(number.len() <= LINE_BYTES_MAX && sku.len() <= SKU_BYTES_MAX)?;
            within(only.len() <= LOCATION_BYTES_MAX && (0..=QUANTITY_MAX).contains(&units))?;
            let names = LineNames { number, sku, only };
            draft.line(names, units, at, keyer, shards);
            draft.plan(match input.u8()? {
                0 => Ok(Allocations::from_iter(take_units(input)?)),
                reason => {
                    let reason = REASONS.get(usize::from(reason) - 1).copied();
                    Err(Short {
                        reason: reason.ok_or(Broken("it has an unknown reason"))?,
                        available: input.i64()?,
                    })
                }
            });
        }
        let mut whole = draft.reservation(channel, split, expires_us, position, time_us);
        whole.ballot = Ballot::decided(granted);
        Ok(whole)
    }
}

impl Release {
    /// Into bytes, without its reservation. Only once it is decided.
    pub(crate) fn save(&self, output: &mut Output) {
        output.flag(self.ballot.carried.load(Relaxed));
        output.count(self.lines.len());
        for ((place, units), (.., planned)) in self.lines.iter().zip(self.planned()) {
            output.u32(*place);
            output.i64(*units);
            match planned {
                Ok(claims) => {
                    output.flag(true);
                    put_units(output, claims);
                }
                Err(left) => {
                    output.flag(false);
                    output.i64(*left);
                }
            }
        }
    }

    /// From bytes.
    pub(crate) fn load(
        input: &mut Input<'_>,
        reservation: Arc<Reservation>,
    ) -> Result<Self, Broken> {
        let carried = input.flag()?;
        let (mut lines, mut planned) = (Vec::new(), Vec::new());
        for _ in 0..input.count()? {
            let place = input.u32()?;
            if place as usize >= reservation.lines.len() {
                return Err(Broken("it has a release of a line that is not there"));
            }
            lines.push((place, input.i64()?));
            planned.push(OnceLock::from(if input.flag()? {
                Ok(Claims::from_iter(take_units(input)?))
            } else {
                Err(input.i64()?)
            }));
        }
        Ok(Self {
            reservation,
            lines: lines.into(),
            ballot: Ballot::decided(carried),
            planned: planned.into(),
        })
    }
}

fn put_units(output: &mut Output, units: &[(Loc, i64)]) {
    output.count(units.len());
    for (at, units) in units {
        output.u32(at.0);
        output.i64(*units);
    }
}

fn take_units(input: &mut Input<'_>) -> Result<Vec<(Loc, i64)>, Broken> {
    let count = input.count()?;
    (0..count)
        .map(|_| Ok((Loc(input.u32()?), input.i64()?)))
        .collect()
}
