//! Requests of many callers on one stream, answered in their order: `Movements.PostStream` and
//! `Reservations.ReserveStream`.

use std::{collections::VecDeque, future::Future, time::Duration};

use tokio::{
    sync::{
        mpsc::{self, Receiver, Sender},
        oneshot,
    },
    time::Instant,
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

/// Takes requests for one stream, which is opened with the first, and again after an error, or when
/// it hangs: its oldest caller has given up, and for as long as callers wait nothing was answered.
#[derive(Debug)]
pub struct Lane<C: Client>(Sender<Job<C>>);

impl<C: Client> Clone for Lane<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Client> Lane<C> {
    /// Over this client, for callers who wait so long.
    pub fn open(client: C, timeout: Duration) -> Self {
        let (jobs, taken) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(client, taken, timeout));
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

async fn run<C: Client>(mut client: C, mut jobs: Receiver<Job<C>>, timeout: Duration) {
    while let Some(first) = jobs.recv().await {
        if first.1.is_closed() {
            continue;
        }
        let mut waiting = VecDeque::new();
        let Err(status) = stream(&mut client, first, &mut jobs, &mut waiting, timeout).await else {
            return;
        };
        for caller in waiting {
            // Who has given up need not be told.
            let _ = caller.send(Err(status.clone()));
        }
    }
}

/// One stream, until no more is asked, or with an error that is for all who wait.
async fn stream<C: Client>(
    client: &mut C,
    first: Job<C>,
    jobs: &mut Receiver<Job<C>>,
    waiting: &mut VecDeque<Caller<C>>,
    timeout: Duration,
) -> Result<(), Status> {
    let hangs = || {
        let what = format!("the stream of {} hangs, and is opened again", C::NAME);
        Status::deadline_exceeded(what)
    };
    // As many as may wait, so that there is always room.
    let (requests, stream) = mpsc::channel(WAITING_MAX);
    waiting.push_back(first.1);
    let mut is_open = requests.try_send(first.0).is_ok();
    let opening = client.open(ReceiverStream::new(stream));
    let answers = tokio::time::timeout(timeout, opening).await;
    let mut answers = answers.map_err(|_| hangs())??.into_inner();
    let mut answered_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            message = answers.message() => {
                let message = message?.ok_or_else(ended::<C>)?;
                answered_at = Instant::now();
                if let Some(caller) = waiting.pop_front() {
                    // Who has given up need not be told.
                    let _ = caller.send(C::answer(message));
                }
            }
            () = silent::<C>(waiting.front_mut(), answered_at + timeout) => return Err(hangs()),
            job = jobs.recv(), if is_open && waiting.len() < WAITING_MAX => {
                let Some((request, caller)) = job else { return Ok(()) };
                if !caller.is_closed() {
                    waiting.push_back(caller);
                    // A server that ends the stream answers what it has taken first.
                    is_open = requests.try_send(request).is_ok();
                }
            }
        }
    }
}

/// Resolves when a caller waits no more, and then not before this time.
async fn silent<C: Client>(caller: Option<&mut Caller<C>>, until: Instant) {
    match caller {
        Some(caller) => caller.closed().await,
        None => std::future::pending().await,
    }
    tokio::time::sleep_until(until).await;
}
