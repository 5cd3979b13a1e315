//! The handler that reservations are measured against: it takes the same request, decoded, and gives
//! an answer of the same size, without deciding anything.

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use sellable::proto::v1::{
    self as pb, reservations_server::Reservations, reserve_stream_response::Answer,
};
use tonic::{Request, Response, Status, Streaming};

use crate::support;

/// Grants everything and keeps nothing.
pub(crate) struct Empty;

#[tonic::async_trait]
impl Reservations for Empty {
    async fn reserve(
        &self,
        request: Request<pb::ReserveRequest>,
    ) -> Result<Response<pb::ReserveResponse>, Status> {
        Ok(Response::new(granted(request.into_inner())))
    }

    type ReserveStreamStream = BoxStream<'static, Result<pb::ReserveStreamResponse, Status>>;

    async fn reserve_stream(
        &self,
        requests: Request<Streaming<pb::ReserveRequest>>,
    ) -> Result<Response<Self::ReserveStreamStream>, Status> {
        let answers = requests.into_inner().map_ok(|request| {
            let response = Answer::Response(granted(request));
            pb::ReserveStreamResponse {
                answer: Some(response),
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn confirm(
        &self,
        _: Request<pb::ConfirmRequest>,
    ) -> Result<Response<pb::ConfirmResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn release(
        &self,
        _: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn extend(
        &self,
        _: Request<pb::ExtendRequest>,
    ) -> Result<Response<pb::ExtendResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn get(
        &self,
        _: Request<pb::GetReservationRequest>,
    ) -> Result<Response<pb::Reservation>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

fn granted(request: pb::ReserveRequest) -> pb::ReserveResponse {
    let allocation = |(at, line): (usize, pb::ReserveLine)| pb::Allocation {
        line: (at + 1).to_string(),
        sku: line.sku,
        location: match line.location.is_empty() {
            true => "DC-0001".into(),
            false => line.location,
        },
        quantity: line.quantity,
    };
    let lines = request.lines.into_iter().enumerate();
    pb::ReserveResponse {
        granted: true,
        allocations: lines.map(allocation).collect(),
        position: 1_000_000,
        log_time: Some(prost_types::Timestamp {
            seconds: support::NOW_US / 1_000_000,
            nanos: 123_456_000,
        }),
        ..pb::ReserveResponse::default()
    }
}
