//! The `Reservations` service.

use prost::Message;
use tonic::{Request, Response, Status};

use super::{Service, log_time, status};
use crate::{
    domain::{posting::NEVER_US, reserve::ShortReason},
    intake::{
        self, Allocation, CommandOutcome, CommandReceipt, Refusal, ReservationView, ShortLine,
    },
    proto::v1::{self as pb, command::Command, reservations_server::Reservations},
    shard::Locations,
    wire::command::check,
};

#[tonic::async_trait]
impl Reservations for Service {
    async fn reserve(
        &self,
        request: Request<pb::ReserveRequest>,
    ) -> Result<Response<pb::ReserveResponse>, Status> {
        let receipt = self.command(Command::Reserve(request.into_inner())).await?;
        let mut response = pb::ReserveResponse {
            position: receipt.position,
            log_time: log_time(receipt.time_us),
            duplicate: receipt.duplicate,
            ..pb::ReserveResponse::default()
        };
        match receipt.outcome {
            CommandOutcome::Reserved {
                allocations,
                expires_us,
            } => {
                response.granted = true;
                response.allocations = allocations.into_iter().map(allocation).collect();
                response.expires_at = expires_us.and_then(log_time);
            }
            CommandOutcome::Short(lines) => {
                response.short_lines = lines.into_iter().map(short_line).collect();
            }
            other => return Err(unexpected(&other)),
        }
        Ok(Response::new(response))
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
    async fn command(&self, command: Command) -> Result<CommandReceipt, Status> {
        let command = pb::Command {
            command: Some(command),
        };
        check(&command).map_err(|invalid| status::bad_field(invalid.field, invalid.reason))?;
        // Decided by what is in the log: who does not know all of it yet would make callers wait.
        if !self.instance.ready() {
            return Err(status::not_ready(&self.instance));
        }
        if let Some(Command::Reserve(reserve)) = &command.command {
            let rules = &self.instance.view().rulebook().in_force().rules;
            if rules.channel(&reserve.channel).is_none() {
                let known = rules.channels().map(|(_, name)| name);
                return Err(status::unknown_channel(&reserve.channel, known));
            }
        }
        let lines = match &command.command {
            Some(Command::Reserve(reserve)) => reserve.lines.len(),
            Some(Command::Release(release)) => release.lines.len().max(1),
            _ => 1,
        };
        let encoded = command.encode_to_vec().into();
        let receipt = self.instance.command(encoded, lines).await;
        let receipt = receipt.map_err(|error| status::not_posted(&error))?;
        match &receipt.outcome {
            CommandOutcome::Refused(refusal) => Err(status::refused(refusal)),
            _ => Ok(receipt),
        }
    }
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
        let claims = claims.iter();
        let claims = claims.map(|(at, units)| intake::allocation(line, *at, *units, locations));
        pb::ReservationLine {
            line: line.line.to_string(),
            sku: line.sku.to_string(),
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
        id: reservation.id.to_string(),
        channel: reservation.channel_name.to_string(),
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
