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

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex},
    };

    use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
    use tonic::{Code, Request, Response, Status, Streaming, transport::server};

    use super::*;
    use crate::{
        cli::post::{input::Item, report::Counts},
        proto::v1::movements_server::{Movements, MovementsServer},
    };

    /// Remembers ids, and lets every stream break off after some answers.
    #[derive(Clone)]
    struct Unsteady {
        seen: Arc<Mutex<HashMap<String, usize>>>,
        answers_max: usize,
        code: Code,
    }

    #[tonic::async_trait]
    impl Movements for Unsteady {
        type PostStreamStream = ReceiverStream<Result<pb::PostResponse, Status>>;

        async fn post(
            &self,
            _: Request<pb::PostRequest>,
        ) -> Result<Response<pb::PostResponse>, Status> {
            Err(Status::unimplemented("not used here"))
        }

        async fn post_stream(
            &self,
            request: Request<Streaming<pb::PostRequest>>,
        ) -> Result<Response<Self::PostStreamStream>, Status> {
            let server = self.clone();
            let mut requests = request.into_inner();
            let (answers, stream) = mpsc::channel(1);
            tokio::spawn(async move {
                let mut answered = 0;
                while let Some(Ok(request)) = requests.next().await {
                    // Stored, and then the answer is lost: the worst case.
                    let answer = server.store(&request);
                    if answered == server.answers_max {
                        let _ = answers
                            .send(Err(Status::new(server.code, "going away")))
                            .await;
                        return;
                    }
                    answered += 1;
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Response::new(ReceiverStream::new(stream)))
        }
    }

    impl Unsteady {
        fn store(&self, request: &pb::PostRequest) -> pb::PostResponse {
            let mut seen = self.seen.lock().expect("not poisoned");
            let outcomes = request.movements.iter().map(|movement| {
                let times = seen.entry(movement.id.clone()).or_default();
                *times += 1;
                pb::MovementOutcome {
                    outcome: pb::Outcome::Applied.into(),
                    duplicate: *times > 1,
                    ..pb::MovementOutcome::default()
                }
            });
            pb::PostResponse {
                outcomes: outcomes.collect(),
                position: 1,
                ..pb::PostResponse::default()
            }
        }
    }

    async fn post(code: Code, patience: Duration) -> (Result<(), Failure>, Counts, usize) {
        let unsteady = Unsteady {
            seen: Arc::default(),
            answers_max: 7,
            code,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = MovementsServer::new(unsteady.clone());
        let serving = tokio::spawn(
            server::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            for n in 0..40_u64 {
                let item = |m: u64| Item {
                    line: n * 10 + m,
                    raw: Vec::new(),
                    movement: pb::Movement {
                        id: format!("{n}-{m}"),
                        ..pb::Movement::default()
                    },
                };
                // One in ten has nothing to post.
                let items = if n % 10 == 3 { 0 } else { 10 };
                let batch = Batch {
                    items: (0..items).map(item).collect(),
                    ..Batch::default()
                };
                if sender.send(Ok(batch)).await.is_err() {
                    return;
                }
            }
        });
        let server = Server {
            server: format!("http://{address}"),
            timeout: 5,
        };
        let mut report = Report::new(None, true);
        let sent = send(&server, receiver, &mut report, patience).await;
        serving.abort();
        let stored = unsteady.seen.lock().expect("not poisoned").len();
        (sent, report.counts(), stored)
    }

    #[tokio::test]
    async fn lost_connections_lose_nothing() {
        let (sent, counts, stored) = post(Code::Unavailable, Duration::from_secs(30)).await;
        sent.expect("arrives in the end");
        assert_eq!(stored, 360);
        // Each is reported once, as new or, where an answer was lost, as known.
        assert_eq!(counts.total(), 360);
        assert_eq!(counts.applied + counts.duplicate, 360);
        assert!(counts.duplicate > 0);
    }

    #[tokio::test]
    async fn a_refusal_is_not_repeated() {
        let (sent, counts, _) = post(Code::InvalidArgument, Duration::from_secs(30)).await;
        assert_eq!(sent.expect_err("refused").exit, Exit::Usage);
        assert_eq!(counts.total(), 70);
    }

    async fn post_one(address: std::net::SocketAddr, patience: Duration) -> Failure {
        let (sender, receiver) = mpsc::channel(1);
        let batch = Batch {
            items: vec![Item {
                line: 1,
                raw: Vec::new(),
                movement: pb::Movement::default(),
            }],
            ..Batch::default()
        };
        sender.send(Ok(batch)).await.expect("there is room");
        let server = Server {
            server: address.to_string(),
            timeout: 5,
        };
        let mut report = Report::new(None, true);
        let sent = send(&server, receiver, &mut report, patience).await;
        sent.expect_err("nobody answers")
    }

    #[tokio::test]
    async fn patience_ends() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let failure = post_one(address, Duration::from_millis(1)).await;
        assert_eq!(failure.exit, Exit::Unavailable);
        let start = "no server answers at http://127.0.0.1:";
        assert!(failure.message.starts_with(start), "{failure:?}");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_tried_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(Mutex::new(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                *count.lock().expect("not poisoned") += 1;
                drop(connection);
            }
        });
        let failure = post_one(address, Duration::from_millis(250)).await;
        assert_eq!(failure.exit, Exit::Unavailable, "{failure:?}");
        assert!(*accepted.lock().expect("not poisoned") > 1);
    }
}
