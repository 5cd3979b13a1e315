//! `reserve`, and `reservation get`, `confirm`, `extend` and `release`.

use std::{hash::BuildHasher, str::FromStr};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Context,
    client::{Client, Server},
    exit::{Exit, Failure},
    output::{self, json_moment, moment, number},
};
use crate::proto::v1 as pb;

/// Examples for `sellable reserve --help`.
pub const RESERVE_EXAMPLES: &str = "\
Examples:
  sellable reserve --channel web 2731415926538=2
  sellable reserve --channel web A=1 B=3@store-7 --ttl 15m --id cart-4711
  sellable reserve --channel web A=30 --split";

/// Examples for `sellable reservation --help`.
pub const RESERVATION_EXAMPLES: &str = "\
Examples:
  sellable reservation get cart-4711
  sellable reservation confirm cart-4711
  sellable reservation extend cart-4711 --ttl 10m
  sellable reservation release cart-4711             all that is left
  sellable reservation release cart-4711 1=2 3       two units of line 1, all of line 3";

/// Arguments of `sellable reserve`.
#[derive(Debug, Args)]
pub struct ReserveArgs {
    /// The channel that sells
    #[arg(long)]
    channel: String,
    /// What: SKU=UNITS, or SKU=UNITS@LOCATION
    #[arg(required = true, value_name = "SKU=UNITS[@LOCATION]")]
    lines: Vec<WantedLine>,
    /// Identity, and the order's number; a random one if not given
    #[arg(long)]
    id: Option<String>,
    /// How long it holds if it is not confirmed, e.g. 15m; not given: until it is released
    #[arg(long, value_name = "TIME")]
    ttl: Option<TimeToLive>,
    /// A line may be taken from several locations
    #[arg(long)]
    split: bool,
    #[command(flatten)]
    server: Server,
}

/// Arguments of `sellable reservation`.
#[derive(Debug, Args)]
pub struct ReservationArgs {
    #[command(subcommand)]
    command: ReservationCommand,
}

#[derive(Debug, Subcommand)]
enum ReservationCommand {
    /// How it stands
    Get {
        /// The reservation
        reservation: String,
        #[command(flatten)]
        server: Server,
    },
    /// The order is placed: it no longer expires
    Confirm(CommandArgs),
    /// Give it more time
    Extend {
        /// From now on, e.g. 15m
        #[arg(long, value_name = "TIME")]
        ttl: TimeToLive,
        #[command(flatten)]
        command: CommandArgs,
    },
    /// Give back what is left, or some lines of it, or parts of them
    Release {
        #[command(flatten)]
        command: CommandArgs,
        /// Which lines: LINE, or LINE=UNITS; none: all
        #[arg(value_name = "LINE[=UNITS]")]
        lines: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct CommandArgs {
    /// The reservation
    reservation: String,
    /// Identity of this command: the same again does nothing twice; a random one if not given
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone)]
struct WantedLine {
    sku: String,
    units: i64,
    location: String,
}

impl FromStr for WantedLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A SKU may have any of these characters, so the last ones count.
        let (sku, wanted) = text
            .rsplit_once('=')
            .ok_or("is not SKU=UNITS or SKU=UNITS@LOCATION")?;
        let (units, location) = wanted.split_once('@').unwrap_or((wanted, ""));
        let units = units
            .parse()
            .map_err(|_| format!("{units:?} is no number of units"))?;
        Ok(Self {
            sku: sku.to_owned(),
            units,
            location: location.to_owned(),
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct TimeToLive(prost_types::Duration);

impl FromStr for TimeToLive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time: jiff::SignedDuration = text
            .parse()
            .map_err(|_| "is no time; write 90s, 15m or 2h".to_owned())?;
        Ok(Self(prost_types::Duration {
            seconds: time.as_secs(),
            nanos: time.subsec_nanos(),
        }))
    }
}

/// Runs `sellable reserve`.
///
/// # Errors
/// If the server cannot answer, or the request is wrong. A refusal is no error; its exit code says
/// so.
pub async fn reserve(args: ReserveArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let line = |line: WantedLine| pb::ReserveLine {
        line: String::new(),
        sku: line.sku,
        quantity: line.units,
        location: line.location,
    };
    let id = args.id.unwrap_or_else(random_id);
    let request = client.request(pb::ReserveRequest {
        id: id.clone(),
        channel: args.channel,
        lines: args.lines.into_iter().map(line).collect(),
        time_to_live: args.ttl.map(|ttl| ttl.0),
        allow_split: args.split,
        actor: String::new(),
    });
    let answer = client.reservations().reserve(request).await?.into_inner();
    if context.json {
        output::print_json(&reserve_json(&id, &answer))?;
    } else {
        output::print(&reserve_text(&id, &answer))?;
    }
    Ok(if answer.granted {
        Exit::Done
    } else {
        Exit::Refused
    })
}

/// Runs `sellable reservation`.
///
/// # Errors
/// If the server cannot answer, or the command is refused.
pub async fn reservation(args: ReservationArgs, context: &Context) -> Result<Exit, Failure> {
    match args.command {
        ReservationCommand::Get {
            reservation,
            server,
        } => {
            let client = server.connect().await?;
            let found = get(&client, reservation).await?;
            show(&found, context)
        }
        ReservationCommand::Confirm(command) => {
            let client = command.server.connect().await?;
            let request = pb::ConfirmRequest {
                id: command.id.unwrap_or_else(random_id),
                reservation: command.reservation.clone(),
            };
            let request = client.request(request);
            client.reservations().confirm(request).await?;
            show(&get(&client, command.reservation).await?, context)
        }
        ReservationCommand::Extend { ttl, command } => {
            let client = command.server.connect().await?;
            let request = pb::ExtendRequest {
                id: command.id.unwrap_or_else(random_id),
                reservation: command.reservation.clone(),
                time_to_live: Some(ttl.0),
            };
            let request = client.request(request);
            client.reservations().extend(request).await?;
            show(&get(&client, command.reservation).await?, context)
        }
        ReservationCommand::Release { command, lines } => {
            let lines = lines.iter().map(|line| release_line(line));
            let lines = lines.collect::<Result<_, _>>()?;
            let client = command.server.connect().await?;
            let request = pb::ReleaseRequest {
                id: command.id.unwrap_or_else(random_id),
                reservation: command.reservation.clone(),
                lines,
            };
            let request = client.request(request);
            client.reservations().release(request).await?;
            show(&get(&client, command.reservation).await?, context)
        }
    }
}

fn release_line(text: &str) -> Result<pb::ReleaseLine, Failure> {
    let (line, quantity) = match text.rsplit_once('=') {
        None => (text, 0),
        Some((line, units)) => {
            let units = units.parse().ok().filter(|units: &i64| *units > 0);
            let wrong = || Failure::usage(format!("{text:?} is not LINE or LINE=UNITS"));
            (line, units.ok_or_else(wrong)?)
        }
    };
    Ok(pb::ReleaseLine {
        line: line.to_owned(),
        quantity,
    })
}

async fn get(client: &Client, id: String) -> Result<pb::Reservation, Failure> {
    let request = client.request(pb::GetReservationRequest {
        id,
        min_position: 0,
    });
    Ok(client.reservations().get(request).await?.into_inner())
}

/// An identity that no other command has.
fn random_id() -> String {
    let random = || std::hash::RandomState::new().hash_one(std::process::id());
    format!("cli-{:016x}{:016x}", random(), random())
}

fn reserve_text(id: &str, answer: &pb::ReserveResponse) -> String {
    let mut text = if answer.granted {
        let rows = answer.allocations.iter().map(|allocation| {
            [
                allocation.line.clone(),
                allocation.sku.clone(),
                allocation.location.clone(),
                number(allocation.quantity),
            ]
        });
        output::table(["line", "SKU", "location", ">units"], rows.collect())
    } else {
        let rows = answer.short_lines.iter().map(|short| {
            [
                short.line.clone(),
                short.sku.clone(),
                number(short.requested),
                number(short.available),
                reason_name(short.reason()),
            ]
        });
        let headings = ["line", "SKU", ">asked", ">available", "reason"];
        output::table(headings, rows.collect())
    };
    text.push_str(&match (answer.granted, &answer.expires_at) {
        (false, _) => format!("\nRefused: nothing is reserved ({id}).\n"),
        (true, None) => format!("\nReserved as {id}.\n"),
        (true, Some(at)) => format!("\nReserved as {id} until {}.\n", moment(Some(at))),
    });
    text
}

fn reason_name(reason: pb::ShortReason) -> String {
    let name = reason.as_str_name().trim_start_matches("SHORT_REASON_");
    name.to_ascii_lowercase()
}

fn allocation_json(allocation: &pb::Allocation) -> serde_json::Value {
    json!({
        "line": allocation.line,
        "sku": allocation.sku,
        "location": allocation.location,
        "quantity": allocation.quantity,
    })
}

fn short_json(short: &pb::ShortLine) -> serde_json::Value {
    json!({
        "line": short.line,
        "sku": short.sku,
        "requested": short.requested,
        "available": short.available,
        "reason": reason_name(short.reason()),
    })
}

fn reserve_json(id: &str, answer: &pb::ReserveResponse) -> serde_json::Value {
    json!({
        "id": id,
        "granted": answer.granted,
        "allocations": answer.allocations.iter().map(allocation_json).collect::<Vec<_>>(),
        "short_lines": answer.short_lines.iter().map(short_json).collect::<Vec<_>>(),
        "expires_at": json_moment(answer.expires_at.as_ref()),
        "position": answer.position,
        "duplicate": answer.duplicate,
    })
}

fn show(reservation: &pb::Reservation, context: &Context) -> Result<Exit, Failure> {
    if context.json {
        output::print_json(&reservation_json(reservation))?;
    } else {
        output::print(&reservation_text(reservation))?;
    }
    Ok(Exit::Done)
}

fn state_name(reservation: &pb::Reservation) -> String {
    let name = reservation.state().as_str_name();
    name.trim_start_matches("RESERVATION_STATE_")
        .to_ascii_lowercase()
}

fn reservation_text(reservation: &pb::Reservation) -> String {
    let rows = reservation.lines.iter().map(|line| {
        let claims = line.claims.iter();
        let claims =
            claims.map(|claim| format!("{} at {}", number(claim.quantity), claim.location));
        [
            line.line.clone(),
            line.sku.clone(),
            number(line.reserved),
            number(line.released),
            number(line.shipped),
            claims.collect::<Vec<_>>().join(", "),
        ]
    });
    let headings = [
        "line",
        "SKU",
        ">reserved",
        ">released",
        ">shipped",
        "held now",
    ];
    let mut text = output::table(headings, rows.collect());
    let until = match &reservation.expires_at {
        None => String::new(),
        Some(at) => format!(", until {}", moment(Some(at))),
    };
    let pb::Reservation { id, channel, .. } = reservation;
    let state = state_name(reservation);
    text.push_str(&format!("\n{id}, channel {channel}: {state}{until}.\n"));
    text
}

fn reservation_json(reservation: &pb::Reservation) -> serde_json::Value {
    let line = |line: &pb::ReservationLine| {
        json!({
            "line": line.line,
            "sku": line.sku,
            "reserved": line.reserved,
            "released": line.released,
            "shipped": line.shipped,
            "claims": line.claims.iter().map(allocation_json).collect::<Vec<_>>(),
        })
    };
    json!({
        "id": reservation.id,
        "channel": reservation.channel,
        "state": state_name(reservation),
        "lines": reservation.lines.iter().map(line).collect::<Vec<_>>(),
        "expires_at": json_moment(reservation.expires_at.as_ref()),
        "decided_at": json_moment(reservation.decided_at.as_ref()),
        "decided_position": reservation.decided_position,
        "short_lines": reservation.short_lines.iter().map(short_json).collect::<Vec<_>>(),
        "position": reservation.position,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_from_their_end() {
        let line = |text: &str| {
            let line: WantedLine = text.parse().expect("a line");
            (line.sku, line.units, line.location)
        };
        assert_eq!(line("A=3"), ("A".into(), 3, String::new()));
        assert_eq!(line("a=b=3@dc"), ("a=b".into(), 3, "dc".into()));
        for bad in ["A", "A=", "A=x", "A=@dc"] {
            assert!(bad.parse::<WantedLine>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read() {
        let seconds = |text: &str| text.parse::<TimeToLive>().map(|ttl| ttl.0.seconds);
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        assert!(seconds("soon").is_err());
    }
}
