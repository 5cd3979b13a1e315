//! Movements on one stream: `Movements.PostStream`, answered in the order of the requests.

use std::collections::VecDeque;

use tokio::sync::{
    mpsc::{self, Receiver, Sender},
    oneshot,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use crate::proto::{Movement, PostRequest, PostResponse, movements_client::MovementsClient};

/// Most batches of a stream that await their answer; beyond it, callers wait.
const WAITING_MAX: usize = 256;

type Answer = oneshot::Sender<Result<PostResponse, Status>>;
type Job = (PostRequest, Answer);

/// Takes batches for one stream, which is opened with the first, and again after an error.
#[derive(Debug, Clone)]
pub struct Lane {
    jobs: Sender<Job>,
}

impl Lane {
    /// Over this client.
    pub fn open(client: MovementsClient<Channel>) -> Self {
        let (jobs, taken) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(client, taken));
        Self { jobs }
    }

    /// Posts a batch.
    ///
    /// # Errors
    /// If the stream ends before its answer: then it is unknown whether it was stored.
    pub async fn post(&self, movements: Vec<Movement>) -> Result<PostResponse, Status> {
        let (answer, answered) = oneshot::channel();
        let ended = |_| Status::unavailable("the stream of movements has ended");
        self.jobs
            .send((PostRequest { movements }, answer))
            .await
            .map_err(|_| Status::unavailable("the stream of movements has ended"))?;
        answered.await.map_err(ended)?
    }
}

async fn run(mut client: MovementsClient<Channel>, mut jobs: Receiver<Job>) {
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

/// One stream, until no more is to be posted, or with an error that is for all who wait.
async fn stream(
    client: &mut MovementsClient<Channel>,
    first: Job,
    jobs: &mut Receiver<Job>,
    waiting: &mut VecDeque<Answer>,
) -> Result<(), Status> {
    // As many as may wait, so that there is always room.
    let (requests, stream) = mpsc::channel(WAITING_MAX);
    let full = |_| Status::unavailable("the stream of movements has ended");
    waiting.push_back(first.1);
    requests.try_send(first.0).map_err(full)?;
    let answers = client.post_stream(ReceiverStream::new(stream)).await?;
    let mut answers = answers.into_inner();
    loop {
        tokio::select! {
            job = jobs.recv(), if waiting.len() < WAITING_MAX => {
                let Some((request, answer)) = job else { return Ok(()) };
                waiting.push_back(answer);
                requests.try_send(request).map_err(full)?;
            }
            answer = answers.message() => {
                let answer = answer?.ok_or_else(|| Status::unavailable("the server ended the stream"))?;
                if let Some(waits) = waiting.pop_front() {
                    let _ = waits.send(Ok(answer));
                }
            }
        }
    }
}
