//! Callers that share one stream of reservations, as those of a Redis connection share it.

use sellable::limits::STREAM_RESERVATIONS_MAX;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Request, client::Grpc, codec::Codec, codegen::http::uri::PathAndQuery, transport::Channel,
};

/// Takes requests of many callers; clones share the stream.
pub(crate) struct Lane<Q, A>(mpsc::Sender<(Q, oneshot::Sender<A>)>);

impl<Q, A> Clone for Lane<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q: Send + Sync + 'static, A: Send + Sync + 'static> Lane<Q, A> {
    /// Opens the stream.
    pub(crate) async fn open<C>(channel: Channel, codec: C) -> Self
    where
        C: Codec<Encode = Q, Decode = A> + Send + 'static,
    {
        let (jobs, taken) = mpsc::channel(STREAM_RESERVATIONS_MAX);
        let (waits, mut waiting) = mpsc::unbounded_channel();
        // Answers come in the order of requests.
        let requests = ReceiverStream::new(taken).map(move |(request, answer)| {
            let _ = waits.send(answer);
            request
        });
        let mut client = Grpc::new(channel);
        client.ready().await.expect("connected");
        let path = PathAndQuery::from_static("/sellable.v1.Reservations/ReserveStream");
        let answers = client.streaming(Request::new(requests), path, codec).await;
        let mut answers = answers.expect("a stream").into_inner();
        tokio::spawn(async move {
            let end = loop {
                let answer = match answers.message().await {
                    Ok(Some(answer)) => answer,
                    end => break end,
                };
                let caller: oneshot::Sender<A> = waiting.try_recv().expect("who asked");
                let _ = caller.send(answer);
            };
            // A server that stops ends streams that nobody waits on.
            let owes = waiting.try_recv().is_ok();
            assert!(!owes, "answers are owed at the end: {:?}", end.err());
        });
        Self(jobs)
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call(&self, request: Q) -> A {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.send((request, answer)).await;
        sent.expect("the stream is open");
        answered.await.expect("an answer")
    }
}
