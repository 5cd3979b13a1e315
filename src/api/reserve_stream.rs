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
use tonic::{Code, Status, Streaming};

use super::{Service, status};
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
    /// Was read when intake was full; taken up again once something is decided.
    held_back: Option<Encoded>,
    end: Option<End>,
}

enum UnderWay {
    Deciding(Deciding),
    /// With its answer.
    Failed(Encoded),
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
            held_back: None,
            end: None,
        }
    }

    fn read(&mut self, context: &mut Context<'_>) {
        if self.end.is_none() && self.draining.poll_unpin(context).is_ready() {
            self.end = Some(End::Failed(status::stopping()));
        }
        while self.end.is_none() && self.under_way.len() < STREAM_RESERVATIONS_MAX {
            let request = match self.held_back.take() {
                Some(request) => request,
                None => match self.requests.poll_next_unpin(context) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(request))) => request,
                    Poll::Ready(Some(Err(status))) => {
                        self.end = Some(End::Failed(status));
                        return;
                    }
                    Poll::Ready(None) => {
                        self.end = Some(End::OfRequests);
                        return;
                    }
                },
            };
            if !self.begin(request) {
                return;
            }
        }
    }

    /// False if it has to wait for what is under way: intake is full.
    fn begin(&mut self, request: Encoded) -> bool {
        let is_deciding = |under_way: &UnderWay| matches!(under_way, UnderWay::Deciding(_));
        match self.service.begin_to_reserve(&request.0) {
            Err(status)
                if status.code() == Code::ResourceExhausted
                    && self.under_way.iter().any(is_deciding) =>
            {
                self.held_back = Some(request);
                return false;
            }
            Err(status) => self.under_way.push_back(UnderWay::Failed(failed(&status))),
            Ok(deciding) => self.under_way.push_back(UnderWay::Deciding(deciding)),
        }
        true
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
                match this.service.reserved(told) {
                    Ok(response) => Encoded(answer_of(&response.0).into()),
                    Err(status) => failed(&status),
                }
            }
            Some(UnderWay::Failed(answer)) => std::mem::take(answer),
        };
        this.under_way.pop_front();
        Poll::Ready(Some(Ok(answer)))
    }
}

/// The encoded `ReserveStreamResponse` of a request that failed.
fn failed(status: &Status) -> Encoded {
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
    Encoded(answer.encode_to_vec().into())
}
