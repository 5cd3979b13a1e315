//! The `Movements` service.

use std::{collections::VecDeque, pin::Pin};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{RawPostRequest, Service, log_time, now_us, raw::movements_server::Movements, status};
use crate::{
    domain::exceptions::{Outcome, ParkedKind},
    intake::MOVEMENT_BYTES_MAX,
    limits::{BATCH_MOVEMENTS_MAX, STREAM_BATCHES_MAX},
    proto::v1 as pb,
    wire::borrowed::read_movement,
};

#[tonic::async_trait]
impl Movements for Service {
    async fn post(
        &self,
        request: Request<RawPostRequest>,
    ) -> Result<Response<pb::PostResponse>, Status> {
        self.post_batch(request.into_inner().movements)
            .await
            .map(Response::new)
    }

    type PostStreamStream =
        Pin<Box<dyn Stream<Item = Result<pb::PostResponse, Status>> + Send + 'static>>;

    async fn post_stream(
        &self,
        request: Request<Streaming<RawPostRequest>>,
    ) -> Result<Response<Self::PostStreamStream>, Status> {
        let service = self.clone();
        let answers = request
            .into_inner()
            .map(move |batch| {
                let service = service.clone();
                async move { service.post_batch(batch?.movements).await }
            })
            // Several batches under way, answers in order; a caller that does not read its
            // answers is not read from.
            .buffered(STREAM_BATCHES_MAX);
        Ok(Response::new(Box::pin(until_error(answers))))
    }
}

/// Ends a stream after its first error.
fn until_error<T>(
    answers: impl Stream<Item = Result<T, Status>>,
) -> impl Stream<Item = Result<T, Status>> {
    let mut failed = false;
    answers.take_while(move |answer| {
        let go_on = !failed;
        failed |= answer.is_err();
        std::future::ready(go_on)
    })
}

impl Service {
    async fn post_batch(&self, movements: Vec<Bytes>) -> Result<pb::PostResponse, Status> {
        let count = movements.len();
        if count == 0 || count > BATCH_MOVEMENTS_MAX {
            let reason = format!("has {count} movements; 1 to {BATCH_MOVEMENTS_MAX} in one batch");
            return Err(status::bad_field("movements", reason));
        }
        let now_us = now_us().max(self.instance.view().progress().time_us());
        let mut refused = VecDeque::new();
        let mut valid = Vec::with_capacity(count);
        for (index, movement) in movements.into_iter().enumerate() {
            match check(index, &movement, now_us) {
                Ok(()) => valid.push(movement),
                Err(outcome) => refused.push_back((index, outcome)),
            }
        }
        if valid.is_empty() {
            return Ok(pb::PostResponse {
                outcomes: refused.into_iter().map(|(_, outcome)| outcome).collect(),
                ..pb::PostResponse::default()
            });
        }
        let posted = self.instance.post(valid).await;
        let receipt = posted.map_err(|error| status::not_posted(&error))?;
        let mut taken = receipt.outcomes.into_iter();
        let outcomes = (0..count)
            .map(|index| match refused.front() {
                Some((place, _)) if *place == index => {
                    refused.pop_front().expect("it was just looked at").1
                }
                _ => outcome(taken.next().expect("one outcome for each movement taken")),
            })
            .collect();
        Ok(pb::PostResponse {
            outcomes,
            position: receipt.position,
            log_time: log_time(receipt.time_us),
        })
    }
}

fn check(index: usize, movement: &[u8], now_us: i64) -> Result<(), pb::MovementOutcome> {
    let invalid = |field: String, reason: String| pb::MovementOutcome {
        outcome: pb::Outcome::Invalid.into(),
        field,
        reason,
        ..pb::MovementOutcome::default()
    };
    if movement.len() > MOVEMENT_BYTES_MAX {
        let reason = format!(
            "has {} bytes; at most {MOVEMENT_BYTES_MAX} (unknown fields count too)",
            movement.len()
        );
        return Err(invalid(String::new(), reason));
    }
    let found = read_movement(index, movement).map_err(|malformed| {
        let reason = format!("{malformed}; it has to be an encoded sellable.v1.Movement");
        invalid(String::new(), reason)
    })?;
    found
        .movement
        .and_then(|movement| movement.check(now_us))
        .map_err(|error| invalid(error.field, error.reason))
}

fn outcome((outcome, duplicate): (Outcome, bool)) -> pb::MovementOutcome {
    let (outcome, parked_as, reason) = match outcome {
        Outcome::Applied => (pb::Outcome::Applied, pb::ExceptionKind::Unspecified, ""),
        Outcome::Parked(kind) => (pb::Outcome::Parked, kind_to_proto(kind), kind.advice()),
    };
    pb::MovementOutcome {
        outcome: outcome.into(),
        duplicate,
        parked_as: parked_as.into(),
        field: String::new(),
        reason: reason.to_owned(),
    }
}

pub(super) fn kind_to_proto(kind: ParkedKind) -> pb::ExceptionKind {
    match kind {
        ParkedKind::Malformed => pb::ExceptionKind::Malformed,
        ParkedKind::ConflictingDuplicate => pb::ExceptionKind::ConflictingDuplicate,
        ParkedKind::Stale => pb::ExceptionKind::Stale,
        ParkedKind::UnauthorizedSource => pb::ExceptionKind::UnauthorizedSource,
        ParkedKind::UnknownDisposition => pb::ExceptionKind::UnknownDisposition,
    }
}
