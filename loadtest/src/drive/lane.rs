//! Requests of many callers on one stream, answered in their order: `Movements.PostStream` and
//! `Reservations.ReserveStream`.

use std::{collections::VecDeque, future::Future};

use tokio::sync::{
    mpsc::{self, Receiver, Sender},
    oneshot,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming, transport::Channel};

use crate::proto::{
    PostRequest, PostResponse, ReserveRequest, ReserveResponse, ReserveStreamResponse,
    movements_client::MovementsClient, reservations_client::ReservationsClient,
    reserve_stream_response::Answer,
};

/// Most requests of a stream that await their answer; beyond it, callers wait.
const WAITING_MAX: usize = 256;

/// A client that has a method which answers a stream, one answer for each request.
pub trait Client: Send + 'static {
    /// What is asked.
    type Request: Send + 'static;
    /// What a caller gets.
    type Answer: Send + 'static;
    /// What the stream has.
    type Message: Send;
    /// For messages.
    const NAME: &'static str;

    /// Opens the stream.
    fn open(
        &mut self,
        requests: ReceiverStream<Self::Request>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Message>>, Status>> + Send;

    /// What a message says to its caller.
    ///
    /// # Errors
    /// If it is that the request failed.
    fn answer(message: Self::Message) -> Result<Self::Answer, Status>;
}

impl Client for MovementsClient<Channel> {
    type Request = PostRequest;
    type Answer = PostResponse;
    type Message = PostResponse;
    const NAME: &'static str = "movements";

    async fn open(
        &mut self,
        requests: ReceiverStream<PostRequest>,
    ) -> Result<Response<Streaming<PostResponse>>, Status> {
        self.post_stream(requests).await
    }

    fn answer(message: PostResponse) -> Result<PostResponse, Status> {
        Ok(message)
    }
}

impl Client for ReservationsClient<Channel> {
    type Request = ReserveRequest;
    type Answer = ReserveResponse;
    type Message = ReserveStreamResponse;
    const NAME: &'static str = "reservations";

    async fn open(
        &mut self,
        requests: ReceiverStream<ReserveRequest>,
    ) -> Result<Response<Streaming<ReserveStreamResponse>>, Status> {
        self.reserve_stream(requests).await
    }

    fn answer(message: ReserveStreamResponse) -> Result<ReserveResponse, Status> {
        match message.answer {
            Some(Answer::Response(response)) => Ok(response),
            Some(Answer::Failure(failure)) => {
                Err(Status::new(Code::from_i32(failure.code), failure.message))
            }
            None => Err(Status::internal("an answer that says nothing")),
        }
    }
}

type Job<C> = (<C as Client>::Request, Caller<C>);
type Caller<C> = oneshot::Sender<Result<<C as Client>::Answer, Status>>;

/// Takes requests for one stream, which is opened with the first, and again after an error.
#[derive(Debug)]
pub struct Lane<C: Client>(Sender<Job<C>>);

impl<C: Client> Clone for Lane<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Client> Lane<C> {
    /// Over this client.
    pub fn open(client: C) -> Self {
        let (jobs, taken) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(client, taken));
        Self(jobs)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Of the request; or if the stream ends before its answer: then it is unknown whether it was
    /// stored.
    pub async fn ask(&self, request: C::Request) -> Result<C::Answer, Status> {
        let (caller, answered) = oneshot::channel();
        let sent = self.0.send((request, caller)).await;
        sent.map_err(|_| ended::<C>())?;
        answered.await.map_err(|_| ended::<C>())?
    }
}

fn ended<C: Client>() -> Status {
    Status::unavailable(format!("the stream of {} has ended", C::NAME))
}

async fn run<C: Client>(mut client: C, mut jobs: Receiver<Job<C>>) {
    while let Some(first) = jobs.recv().await {
        let mut waiting = VecDeque::new();
        let Err(status) = stream(&mut client, first, &mut jobs, &mut waiting).await else {
            return;
        };
        for answer in waiting {
            // Who has given up need not be told.
            let _ = answer.send(Err(status.clone()));
        }
    }
}

/// One stream, until no more is asked, or with an error that is for all who wait.
async fn stream<C: Client>(
    client: &mut C,
    first: Job<C>,
    jobs: &mut Receiver<Job<C>>,
    waiting: &mut VecDeque<Caller<C>>,
) -> Result<(), Status> {
    // As many as may wait, so that there is always room.
    let (requests, stream) = mpsc::channel(WAITING_MAX);
    let full = |_| ended::<C>();
    waiting.push_back(first.1);
    requests.try_send(first.0).map_err(full)?;
    let answers = client.open(ReceiverStream::new(stream)).await?;
    let mut answers = answers.into_inner();
    loop {
        tokio::select! {
            job = jobs.recv(), if waiting.len() < WAITING_MAX => {
                let Some((request, caller)) = job else { return Ok(()) };
                waiting.push_back(caller);
                requests.try_send(request).map_err(full)?;
            }
            message = answers.message() => {
                let message = message?.ok_or_else(ended::<C>)?;
                if let Some(caller) = waiting.pop_front() {
                    // Who has given up need not be told.
                    let _ = caller.send(C::answer(message));
                }
            }
            // Answers come in order: while this one is owed, so are all behind it.
            () = given_up::<C>(waiting.front_mut()) => return Err(Status::deadline_exceeded(format!(
                "the stream of {} hangs, and is opened again", C::NAME
            ))),
        }
    }
}

/// Resolves when a caller waits no more.
async fn given_up<C: Client>(caller: Option<&mut Caller<C>>) {
    match caller {
        Some(caller) => caller.closed().await,
        None => std::future::pending().await,
    }
}
