//! Commands: their limits, and what they are by default.

use std::{borrow::Cow, collections::HashSet};

use super::reserve::{Reserve, ReserveLine};
use crate::{
    domain::movement::{Invalid, text},
    limits::{
        ACTOR_BYTES_MAX, CHANNEL_BYTES_MAX, COMMAND_LINES_MAX, ID_BYTES_MAX, LINE_BYTES_MAX,
        LOCATION_BYTES_MAX, QUANTITY_MAX, SKU_BYTES_MAX, TIME_TO_LIVE_US_MAX, TIME_TO_LIVE_US_MIN,
    },
    proto::v1::{self as pb, command::Command},
};

/// Checks every documented limit.
///
/// # Errors
/// The first field that breaks its limit.
pub fn check(command: &pb::Command) -> Result<(), Invalid> {
    match &command.command {
        None => Err(Invalid::new("command", "is missing; it is required")),
        Some(Command::Reserve(reserve)) => check_reserve(&Reserve::from(reserve)),
        Some(Command::Confirm(confirm)) => check_ids(&confirm.id, &confirm.reservation),
        Some(Command::Extend(extend)) => {
            check_ids(&extend.id, &extend.reservation)?;
            match &extend.time_to_live {
                Some(time) => time_to_live_us(time).map(drop),
                None => Err(Invalid::new("time_to_live", "is missing; it is required")),
            }
        }
        Some(Command::Release(release)) => check_release(release),
    }
}

fn check_ids(id: &str, reservation: &str) -> Result<(), Invalid> {
    text("id", id, ID_BYTES_MAX)?;
    text("reservation", reservation, ID_BYTES_MAX)
}

/// The same for a command to reserve.
///
/// # Errors
/// As [`check`].
pub fn check_reserve(reserve: &Reserve<'_>) -> Result<(), Invalid> {
    text("id", reserve.id, ID_BYTES_MAX)?;
    text("channel", reserve.channel, CHANNEL_BYTES_MAX)?;
    check_count(reserve.lines.len(), 1)?;
    if !reserve.actor.is_empty() {
        text("actor", reserve.actor, ACTOR_BYTES_MAX)?;
    }
    if let Some(time) = &reserve.time_to_live {
        time_to_live_us(time)?;
    }
    for (place, line) in reserve.lines.iter().enumerate() {
        check_line(line).map_err(|invalid| of_line(place, invalid))?;
    }
    // Those that are called by their place are different.
    if reserve.lines.iter().all(|line| line.line.is_empty()) {
        return Ok(());
    }
    let names = (0..).zip(&reserve.lines);
    check_unique(names.map(|(place, line)| line_name(place, line)))
}

fn check_line(line: &ReserveLine<'_>) -> Result<(), Invalid> {
    if !line.line.is_empty() {
        text("line", line.line, LINE_BYTES_MAX)?;
    }
    text("sku", line.sku, SKU_BYTES_MAX)?;
    if !line.location.is_empty() {
        text("location", line.location, LOCATION_BYTES_MAX)?;
    }
    check_quantity(line.quantity, 1)
}

fn check_release(release: &pb::ReleaseRequest) -> Result<(), Invalid> {
    check_ids(&release.id, &release.reservation)?;
    check_count(release.lines.len(), 0)?;
    for (place, line) in release.lines.iter().enumerate() {
        text("line", &line.line, LINE_BYTES_MAX)
            .and_then(|()| check_quantity(line.quantity, 0))
            .map_err(|invalid| of_line(place, invalid))?;
    }
    check_unique(release.lines.iter().map(|line| line.line.as_str().into()))
}

fn check_count(count: usize, min: usize) -> Result<(), Invalid> {
    if (min..=COMMAND_LINES_MAX).contains(&count) {
        return Ok(());
    }
    Err(Invalid::new(
        "lines",
        format!("has {count} lines; {min} to {COMMAND_LINES_MAX}"),
    ))
}

fn check_quantity(quantity: i64, min: i64) -> Result<(), Invalid> {
    if (min..=QUANTITY_MAX).contains(&quantity) {
        return Ok(());
    }
    Err(Invalid::new(
        "quantity",
        format!("is {quantity}; {min} to {QUANTITY_MAX} units"),
    ))
}

fn check_unique<'l>(lines: impl Iterator<Item = Cow<'l, str>>) -> Result<(), Invalid> {
    let mut known = HashSet::with_capacity(lines.size_hint().0);
    for (place, line) in lines.enumerate() {
        if known.contains(&line) {
            let reason = format!("is {line:?} like an earlier one; a line is named once");
            return Err(of_line(place, Invalid::new("line", reason)));
        }
        known.insert(line);
    }
    Ok(())
}

fn of_line(place: usize, invalid: Invalid) -> Invalid {
    Invalid {
        field: format!("lines[{place}].{}", invalid.field),
        ..invalid
    }
}

/// The number of a line: what it is called, or its place, from 1.
pub fn line_name<'a>(place: usize, line: &ReserveLine<'a>) -> Cow<'a, str> {
    if line.line.is_empty() {
        Cow::Owned((place + 1).to_string())
    } else {
        Cow::Borrowed(line.line)
    }
}

/// A time to live, in microseconds.
///
/// # Errors
/// If it is out of range.
pub fn time_to_live_us(time: &prost_types::Duration) -> Result<i64, Invalid> {
    let us = time
        .seconds
        .checked_mul(1_000_000)
        .and_then(|us| us.checked_add(i64::from(time.nanos) / 1_000));
    us.filter(|us| (TIME_TO_LIVE_US_MIN..=TIME_TO_LIVE_US_MAX).contains(us))
        .ok_or_else(|| {
            Invalid::new(
                "time_to_live",
                format!(
                    "is {} s; {} to {} s",
                    time.seconds,
                    TIME_TO_LIVE_US_MIN / 1_000_000,
                    TIME_TO_LIVE_US_MAX / 1_000_000
                ),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve(change: impl FnOnce(&mut pb::ReserveRequest)) -> pb::Command {
        let line = |sku: &str| pb::ReserveLine {
            sku: sku.into(),
            quantity: 1,
            ..pb::ReserveLine::default()
        };
        let mut reserve = pb::ReserveRequest {
            id: "cart-1".into(),
            channel: "web".into(),
            lines: vec![line("a"), line("b")],
            ..pb::ReserveRequest::default()
        };
        change(&mut reserve);
        pb::Command {
            command: Some(Command::Reserve(reserve)),
        }
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn what_breaks_a_limit_is_named() {
        let table: [(pb::Command, Option<&str>); 12] = [
            (reserve(|_| {}), None),
            (reserve(|r| r.time_to_live = seconds(900)), None),
            (reserve(|r| r.id.clear()), Some("id")),
            (reserve(|r| r.channel = "x".repeat(65)), Some("channel")),
            (reserve(|r| r.lines.clear()), Some("lines")),
            (
                reserve(|r| r.lines = vec![r.lines[0].clone(); 101]),
                Some("lines"),
            ),
            (reserve(|r| r.lines[1].sku.clear()), Some("lines[1].sku")),
            (
                reserve(|r| r.lines[0].quantity = 0),
                Some("lines[0].quantity"),
            ),
            (
                reserve(|r| r.lines[0].location = " dc".into()),
                Some("lines[0].location"),
            ),
            // The second line is called 2 by its place.
            (
                reserve(|r| r.lines[0].line = "2".into()),
                Some("lines[1].line"),
            ),
            (
                reserve(|r| r.time_to_live = seconds(0)),
                Some("time_to_live"),
            ),
            (
                reserve(|r| r.time_to_live = seconds(i64::MAX)),
                Some("time_to_live"),
            ),
        ];
        for (command, field) in table {
            let found = check(&command).err().map(|invalid| invalid.field);
            assert_eq!(found.as_deref(), field, "{command:?}");
        }
        assert_eq!(check(&pb::Command::default()).unwrap_err().field, "command");
    }

    #[test]
    fn a_release_names_a_line_once() {
        let line = |line: &str, quantity| pb::ReleaseLine {
            line: line.into(),
            quantity,
        };
        let release = |lines| pb::Command {
            command: Some(Command::Release(pb::ReleaseRequest {
                id: "r-1".into(),
                reservation: "cart-1".into(),
                lines,
            })),
        };
        let field = |lines| check(&release(lines)).err().map(|invalid| invalid.field);
        assert_eq!(field(vec![]), None);
        assert_eq!(field(vec![line("1", 0), line("2", 3)]), None);
        let twice = field(vec![line("1", 0), line("1", 3)]);
        assert_eq!(twice.as_deref(), Some("lines[1].line"));
        let negative = field(vec![line("1", -1)]);
        assert_eq!(negative.as_deref(), Some("lines[0].quantity"));
    }
}
