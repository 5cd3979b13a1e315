//! Posts batches on one stream, with some of them in flight, over lost connections.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{input::Batch, report::Report};
use crate::{
    cli::{
        client::{Client, Server},
        exit::{Exit, Failure},
    },
    proto::v1 as pb,
};

/// Most batches that are sent and not answered: enough to hide the way there and back, few enough
/// to keep the server's intake free for others.
const IN_FLIGHT_MAX: usize = 16;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Posts all batches. What the server may not have stored is posted again after a lost
/// connection, which is safe: a movement's id makes it count once.
///
/// # Errors
/// If the input fails, the server refuses, or nothing has been answered for `patience`.
pub async fn send(
    server: &Server,
    batches: mpsc::Receiver<Result<Batch, Failure>>,
    report: &mut Report,
    patience: Duration,
) -> Result<(), Failure> {
    let mut transfer = Transfer {
        batches,
        open: true,
        unanswered: VecDeque::new(),
        report,
    };
    let mut last_answer = Instant::now();
    let mut backoff = BACKOFF_FIRST;
    loop {
        let answered_before = transfer.report.answers();
        let result = match server.connect().await {
            Ok(client) => transfer.stream(&client).await,
            Err(failure) => Err(failure),
        };
        let Err(failure) = result else {
            return Ok(());
        };
        if transfer.report.answers() > answered_before {
            last_answer = Instant::now();
            backoff = BACKOFF_FIRST;
        }
        if failure.exit != Exit::Unavailable || last_answer.elapsed() >= patience {
            return Err(failure);
        }
        transfer.report.waiting(&failure, backoff);
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

struct Transfer<'a> {
    batches: mpsc::Receiver<Result<Batch, Failure>>,
    /// More may come.
    open: bool,
    /// Sent and not answered, in order.
    unanswered: VecDeque<Batch>,
    report: &'a mut Report,
}

impl Transfer<'_> {
    /// The next batch that has something to post.
    async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        while self.open {
            match self.batches.recv().await {
                None => self.open = false,
                Some(batch) => {
                    let mut batch = batch?;
                    self.report.rejected(std::mem::take(&mut batch.rejects))?;
                    if !batch.items.is_empty() {
                        return Ok(Some(batch));
                    }
                    self.report.advance(batch.progress);
                }
            }
        }
        Ok(None)
    }

    async fn stream(&mut self, client: &Client) -> Result<(), Failure> {
        // A first batch before the call, since a server may answer with nothing before it has one.
        if self.unanswered.is_empty() {
            match self.next().await? {
                None => return Ok(()),
                Some(batch) => self.unanswered.push_back(batch),
            }
        }
        let (requests, queue) = mpsc::channel(IN_FLIGHT_MAX);
        for batch in &self.unanswered {
            // It has room for all that may be unanswered.
            let _ = requests.try_send(request(batch));
        }
        let mut requests = Some(requests);
        let mut answers = client
            .movements()
            .post_stream(ReceiverStream::new(queue))
            .await?
            .into_inner();
        loop {
            if !self.open {
                requests = None;
                if self.unanswered.is_empty() {
                    return Ok(());
                }
            }
            let room = self.unanswered.len() < IN_FLIGHT_MAX;
            tokio::select! {
                answer = answers.message() => match answer? {
                    Some(answer) => self.answered(answer)?,
                    None => return Err(Failure::new(
                        Exit::Unavailable,
                        "the server ended the stream before it had answered everything",
                    )),
                },
                batch = self.batches.recv(), if self.open && room => match batch {
                    None => self.open = false,
                    Some(batch) => {
                        let mut batch = batch?;
                        self.report.rejected(std::mem::take(&mut batch.rejects))?;
                        if batch.items.is_empty() {
                            self.report.advance(batch.progress);
                            continue;
                        }
                        if let Some(requests) = &requests {
                            // If the call has ended, its answers say why.
                            let _ = requests.try_send(request(&batch));
                        }
                        self.unanswered.push_back(batch);
                    }
                },
            }
        }
    }

    fn answered(&mut self, answer: pb::PostResponse) -> Result<(), Failure> {
        match self.unanswered.pop_front() {
            Some(batch) if batch.items.len() == answer.outcomes.len() => {
                self.report.answered(batch, &answer)
            }
            _ => Err(Failure::new(
                Exit::Failed,
                "the server answered other movements than were posted: this is a bug",
            )),
        }
    }
}

fn request(batch: &Batch) -> pb::PostRequest {
    pb::PostRequest {
        movements: batch
            .items
            .iter()
            .map(|item| item.movement.clone())
            .collect(),
    }
}
