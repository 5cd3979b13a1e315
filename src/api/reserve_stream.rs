//! `Reservations.ReserveStream`: many reservations under way on one stream, answered in its order.
//!
//! Without a call for each there are no headers to read and write, and no tasks to make; what comes
//! in with one read goes into one record, and its answers leave together.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use prost::Message;
use tonic::{Status, Streaming};

use super::Service;
use crate::{
    intake::Deciding, limits::STREAM_RESERVATIONS_MAX, proto::v1 as pb, wire::Encoded,
    wire::reserve::answer_of,
};

/// Answers to the requests of one stream. It reads them only when the caller's connection takes
/// answers, and not beyond [`STREAM_RESERVATIONS_MAX`] that are under way.
pub(super) struct Answers {
    service: Service,
    requests: Streaming<Encoded>,
    draining: BoxFuture<'static, ()>,
    /// In the order of the requests. All that is decided before the first is told with it, so only
    /// that one is waited for.
    under_way: VecDeque<UnderWay>,
    end: Option<End>,
}

enum UnderWay {
    Deciding(Deciding),
    Failed(Status),
}

/// Why nothing more is read.
enum End {
    /// The caller has no more.
    OfRequests,
    /// Nothing could be read, or the instance drains.
    Failed(Status),
    /// It was told.
    Told,
}

impl Answers {
    pub(super) fn new(service: Service, requests: Streaming<Encoded>) -> Self {
        let draining = service.instance.draining().boxed();
        Self {
            service,
            requests,
            draining,
            under_way: VecDeque::new(),
            end: None,
        }
    }

    fn read(&mut self, context: &mut Context<'_>) {
        while self.end.is_none() && self.under_way.len() < STREAM_RESERVATIONS_MAX {
            if self.draining.poll_unpin(context).is_ready() {
                self.end = Some(End::Failed(super::status::stopping()));
                return;
            }
            match self.requests.poll_next_unpin(context) {
                Poll::Pending => return,
                Poll::Ready(None) => self.end = Some(End::OfRequests),
                Poll::Ready(Some(Err(status))) => self.end = Some(End::Failed(status)),
                Poll::Ready(Some(Ok(request))) => {
                    let begun = self.service.begin_to_reserve(request);
                    let under_way = begun.map_or_else(UnderWay::Failed, UnderWay::Deciding);
                    self.under_way.push_back(under_way);
                }
            }
        }
    }

    fn end(&mut self) -> Poll<Option<Status>> {
        match self.end.as_mut() {
            None => Poll::Pending,
            Some(end) => match std::mem::replace(end, End::Told) {
                End::Failed(status) => Poll::Ready(Some(status)),
                End::OfRequests | End::Told => Poll::Ready(None),
            },
        }
    }
}

impl Stream for Answers {
    type Item = Result<Encoded, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.read(context);
        let answer = match this.under_way.front_mut() {
            None => return this.end().map(|end| end.map(Err)),
            Some(UnderWay::Deciding(deciding)) => {
                let told = ready!(deciding.poll_unpin(context));
                this.service.reserved(told)
            }
            Some(UnderWay::Failed(status)) => Err(status.clone()),
        };
        this.under_way.pop_front();
        let answer = match answer {
            Ok(response) => answer_of(&response.0),
            Err(status) => failed(&status),
        };
        Poll::Ready(Some(Ok(Encoded(answer.into()))))
    }
}

/// The encoded `ReserveStreamResponse` of a request that failed.
fn failed(status: &Status) -> Vec<u8> {
    // Where there are details, they are the bytes of a whole `google.rpc.Status`.
    let failure = pb::Failure::decode(status.details()).unwrap_or_default();
    let failure = pb::Failure {
        code: status.code() as i32,
        message: status.message().to_owned(),
        ..failure
    };
    let answer = pb::ReserveStreamResponse {
        answer: Some(pb::reserve_stream_response::Answer::Failure(failure)),
    };
    answer.encode_to_vec()
}
