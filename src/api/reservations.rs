//! The `Reservations` service.

use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Service, log_time, raw::reservations_server::Reservations, reserve_stream::Answers, status,
};
use crate::{
    domain::{balances::LocationNames, posting::NEVER_US, reserve::ShortReason},
    intake::{
        self, Allocation, CommandOutcome, CommandReceipt, Deciding, PostError, Refusal,
        ReservationView, ShortLine, Told,
    },
    proto::v1::{self as pb, command::Command},
    shard::{Locations, commands::Reservation},
    wire::{
        Encoded,
        command::{check, check_reserve},
        reserve::{Reserve, command_of, put_allocation},
    },
};

#[tonic::async_trait]
impl Reservations for Service {
    async fn reserve(&self, request: Request<Encoded>) -> Result<Response<Encoded>, Status> {
        let deciding = self.begin_to_reserve(&request.into_inner().0)?;
        self.reserved(deciding.await).map(Response::new)
    }

    type ReserveStreamStream = Answers;

    async fn reserve_stream(
        &self,
        request: Request<Streaming<Encoded>>,
    ) -> Result<Response<Answers>, Status> {
        let answers = Answers::new(self.clone(), request.into_inner());
        Ok(Response::new(answers))
    }

    async fn confirm(
        &self,
        request: Request<pb::ConfirmRequest>,
    ) -> Result<Response<pb::ConfirmResponse>, Status> {
        let receipt = self.command(Command::Confirm(request.into_inner())).await?;
        match receipt.outcome {
            CommandOutcome::Confirmed => Ok(Response::new(pb::ConfirmResponse {
                position: receipt.position,
                log_time: log_time(receipt.time_us),
                duplicate: receipt.duplicate,
            })),
            other => Err(unexpected(&other)),
        }
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseResponse>, Status> {
        let receipt = self.command(Command::Release(request.into_inner())).await?;
        match receipt.outcome {
            CommandOutcome::Released(released) => Ok(Response::new(pb::ReleaseResponse {
                released: released.into_iter().map(allocation).collect(),
                position: receipt.position,
                log_time: log_time(receipt.time_us),
                duplicate: receipt.duplicate,
            })),
            other => Err(unexpected(&other)),
        }
    }

    async fn extend(
        &self,
        request: Request<pb::ExtendRequest>,
    ) -> Result<Response<pb::ExtendResponse>, Status> {
        let receipt = self.command(Command::Extend(request.into_inner())).await?;
        match receipt.outcome {
            CommandOutcome::Extended(until_us) => Ok(Response::new(pb::ExtendResponse {
                expires_at: log_time(until_us),
                position: receipt.position,
                log_time: log_time(receipt.time_us),
                duplicate: receipt.duplicate,
            })),
            other => Err(unexpected(&other)),
        }
    }

    async fn get(
        &self,
        request: Request<pb::GetReservationRequest>,
    ) -> Result<Response<pb::Reservation>, Status> {
        let pb::GetReservationRequest { id, min_position } = request.into_inner();
        self.wait_for(min_position).await?;
        let view = self.instance.reservation(&id).await;
        let view = view.map_err(|error| status::not_posted(&error))?;
        let view = view.ok_or_else(|| status::refused(&Refusal::UnknownReservation(id)))?;
        Ok(Response::new(reservation(&view, self.instance.locations())))
    }
}

impl Service {
    /// Checks an encoded request to reserve, and has it decided.
    pub(super) fn begin_to_reserve(&self, request: &[u8]) -> Result<Deciding, Status> {
        let (command, lines) = match Reserve::read_plain(request) {
            Some(reserve) => {
                let lines = self.check_reserve(&reserve)?;
                (command_of(request), lines)
            }
            None => {
                let read = pb::ReserveRequest::decode(request);
                let read = read.map_err(|error| status::malformed(&error))?;
                let lines = self.check_reserve(&Reserve::from(&read))?;
                (command_of(&read.encode_to_vec()), lines)
            }
        };
        let deciding = self.instance.decide(command.into(), lines);
        deciding.map_err(|error| status::not_posted(&error))
    }

    /// The encoded `ReserveResponse` of what was decided.
    pub(super) fn reserved(&self, told: Result<Told, PostError>) -> Result<Encoded, Status> {
        let told = told.map_err(|error| status::not_posted(&error))?;
        let locations = self.instance.locations();
        if let Some(reservation) = told.granted() {
            return Ok(granted(&told, reservation, locations));
        }
        let receipt = in_words(&told, locations)?;
        let CommandOutcome::Short(lines) = receipt.outcome else {
            return Err(unexpected(&receipt.outcome));
        };
        let response = pb::ReserveResponse {
            short_lines: lines.into_iter().map(short_line).collect(),
            position: receipt.position,
            log_time: log_time(receipt.time_us),
            duplicate: receipt.duplicate,
            ..pb::ReserveResponse::default()
        };
        Ok(Encoded(response.encode_to_vec().into()))
    }

    /// Checks a command to reserve, and tells how many lines it has.
    fn check_reserve(&self, reserve: &Reserve<'_>) -> Result<usize, Status> {
        let checked = check_reserve(reserve);
        checked.map_err(|invalid| status::bad_field(invalid.field, invalid.reason))?;
        self.check_ready()?;
        let rules = &self.instance.view().rulebook().in_force().rules;
        if rules.channel(reserve.channel).is_none() {
            let known = rules.channels().map(|(_, name)| name);
            return Err(status::unknown_channel(reserve.channel, known));
        }
        Ok(reserve.lines.len())
    }

    /// Commands are decided by what is in the log: who does not know all of it yet would make
    /// callers wait.
    fn check_ready(&self) -> Result<(), Status> {
        if self.instance.ready() {
            return Ok(());
        }
        Err(status::not_ready(&self.instance))
    }

    async fn command(&self, command: Command) -> Result<CommandReceipt, Status> {
        let command = pb::Command {
            command: Some(command),
        };
        check(&command).map_err(|invalid| status::bad_field(invalid.field, invalid.reason))?;
        self.check_ready()?;
        let lines = match &command.command {
            Some(Command::Release(release)) => release.lines.len().max(1),
            _ => 1,
        };
        let deciding = self.instance.decide(command.encode_to_vec().into(), lines);
        let not_posted = |error: PostError| status::not_posted(&error);
        let told = deciding.map_err(not_posted)?.await.map_err(not_posted)?;
        in_words(&told, self.instance.locations())
    }
}

/// What was decided, unless that is that nothing was done.
fn in_words(told: &Told, locations: &Locations) -> Result<CommandReceipt, Status> {
    let receipt = told.receipt(locations);
    match &receipt.outcome {
        CommandOutcome::Refused(refusal) => Err(status::refused(refusal)),
        _ => Ok(receipt),
    }
}

/// The encoded `ReserveResponse` of a reservation that was granted.
fn granted(told: &Told, reservation: &Reservation, locations: &Locations) -> Encoded {
    const ALLOCATIONS: u32 = 2;
    let mut rest = pb::ReserveResponse {
        granted: true,
        position: told.decided.position,
        log_time: log_time(told.decided.time_us),
        duplicate: told.is_duplicate,
        ..pb::ReserveResponse::default()
    };
    if reservation.expires_us != NEVER_US {
        rest.expires_at = log_time(reservation.expires_us);
    }
    let mut response = Vec::with_capacity(64 * (1 + reservation.lines.len()));
    for (line, planned) in reservation.planned() {
        let names = reservation.names(line);
        for (at, units) in planned.into_iter().flatten() {
            let texts = [names.number, names.sku, locations.name(at)];
            put_allocation(ALLOCATIONS, texts, units, &mut response);
        }
    }
    // Encoded messages one after the other are one message, merged.
    rest.encode(&mut response).expect("a vector has room");
    Encoded(response.into())
}

/// A decision of another kind than the command's.
fn unexpected(outcome: &CommandOutcome) -> Status {
    Status::internal(format!("this is a bug: {outcome:?}"))
}

fn allocation(allocation: Allocation) -> pb::Allocation {
    pb::Allocation {
        line: allocation.line,
        sku: allocation.sku,
        location: allocation.location,
        quantity: allocation.quantity,
    }
}

fn short_line(short: ShortLine) -> pb::ShortLine {
    let reason = match short.reason {
        ShortReason::Insufficient => pb::ShortReason::Insufficient,
        ShortReason::UnknownSku => pb::ShortReason::UnknownSku,
        ShortReason::NotSoldFromLocation => pb::ShortReason::NotSoldFromLocation,
        ShortReason::OnlySplit => pb::ShortReason::OnlySplit,
    };
    pb::ShortLine {
        line: short.line,
        sku: short.sku,
        requested: short.requested,
        available: short.available,
        reason: reason.into(),
    }
}

fn reservation(view: &ReservationView, locations: &Locations) -> pb::Reservation {
    let reservation = &view.reservation;
    let lines = reservation.lines.iter().zip(&view.lines);
    let lines = lines.map(|(line, (totals, claims))| {
        let names = reservation.names(line);
        let claims = claims.iter();
        let claims =
            claims.map(|(at, units)| intake::allocation(reservation, line, *at, *units, locations));
        pb::ReservationLine {
            line: names.number.to_owned(),
            sku: names.sku.to_owned(),
            reserved: totals.opened,
            released: totals.withdrawn,
            shipped: totals.fulfilled,
            claims: claims.map(allocation).collect(),
        }
    });
    let short_lines = if reservation.granted() {
        Vec::new()
    } else {
        intake::short_lines(reservation)
    };
    pb::Reservation {
        id: reservation.id().to_owned(),
        channel: reservation.channel_name().to_owned(),
        state: state(view).into(),
        lines: lines.collect(),
        expires_at: log_time(view.until_us).filter(|_| view.until_us != NEVER_US),
        decided_at: log_time(reservation.time_us),
        decided_position: reservation.position,
        short_lines: short_lines.into_iter().map(short_line).collect(),
        position: view.position,
    }
}

fn state(view: &ReservationView) -> pb::ReservationState {
    let is_open = view.lines.iter().any(|(totals, _)| totals.open() > 0);
    if !view.reservation.granted() {
        pb::ReservationState::Refused
    } else if !is_open {
        pb::ReservationState::Closed
    } else if view.until_us <= view.time_us {
        pb::ReservationState::Expired
    } else if view.confirmed {
        pb::ReservationState::Confirmed
    } else {
        pb::ReservationState::Active
    }
}
