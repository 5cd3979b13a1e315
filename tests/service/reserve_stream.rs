//! Reservations on one stream, against the real program: decided as those of calls of their own are,
//! answered in their order, failures included, and none lost.

use std::time::Duration;

use prost::Message;
use sellable::{
    proto::v1::{self as pb, reserve_stream_response::Answer},
    wire::Encoded,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{
    bad::violations,
    server::{Client, Server, Setup, patiently, received},
};

const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";
/// More than may be under way on one stream.
const MANY: usize = 5_000;

fn reserve(id: impl ToString, sku: &str, quantity: i64) -> pb::ReserveRequest {
    pb::ReserveRequest {
        id: id.to_string(),
        channel: "web".into(),
        lines: vec![pb::ReserveLine {
            sku: sku.into(),
            quantity,
            ..pb::ReserveLine::default()
        }],
        ..pb::ReserveRequest::default()
    }
}

fn encoded(request: &pb::ReserveRequest) -> Encoded {
    Encoded(request.encode_to_vec().into())
}

/// A stream that is open.
struct Open {
    requests: mpsc::Sender<Encoded>,
    answers: Streaming<pb::ReserveStreamResponse>,
}

impl Open {
    async fn on(channel: &Channel) -> Self {
        let (requests, queue) = mpsc::channel(1);
        let mut client = Grpc::new(channel.clone());
        client.ready().await.expect("connected");
        let answers = client
            .streaming(
                Request::new(ReceiverStream::new(queue)),
                PathAndQuery::from_static("/sellable.v1.Reservations/ReserveStream"),
                ProstCodec::<Encoded, pb::ReserveStreamResponse>::default(),
            )
            .await;
        Self {
            requests,
            answers: answers.expect("a stream").into_inner(),
        }
    }

    async fn send(&self, request: &pb::ReserveRequest) {
        self.send_bytes(request.encode_to_vec()).await;
    }

    async fn send_bytes(&self, bytes: Vec<u8>) {
        let sent = patiently(self.requests.send(Encoded(bytes.into()))).await;
        sent.expect("the stream is open");
    }

    /// Sends reservations of one unit of A, with ids from 0 on, until there are so many, or the
    /// stream has ended; resolves to how many were sent.
    fn send_up_to(&self, count: usize) -> JoinHandle<usize> {
        let requests = self.requests.clone();
        tokio::spawn(async move {
            for id in 0..count {
                if requests.send(encoded(&reserve(id, "A", 1))).await.is_err() {
                    return id;
                }
            }
            count
        })
    }

    async fn next(&mut self) -> Result<pb::ReserveResponse, Status> {
        let answer = patiently(self.answers.message()).await;
        let answer = answer.expect("the stream goes on").expect("an answer");
        result(answer)
    }
}

/// As a call of its own would have been answered.
fn result(answer: pb::ReserveStreamResponse) -> Result<pb::ReserveResponse, Status> {
    match answer.answer.expect("one of the two") {
        Answer::Response(response) => Ok(response),
        Answer::Failure(failure) => Err(Status::with_details(
            Code::from_i32(failure.code),
            failure.message.clone(),
            failure.encode_to_vec().into(),
        )),
    }
}

/// A caller for whom few answers wait unread, so that a server that is quicker is not far ahead.
async fn connect(server: &Server) -> Client {
    let endpoint = Endpoint::from_shared(server.url()).expect("an address");
    let channel = endpoint.initial_stream_window_size(65_535).connect().await;
    Client {
        channel: channel.expect("it listens"),
    }
}

async fn sold_out_after(client: &Client, units: i64) {
    client
        .post(vec![
            received("a", "A", units, "dc"),
            received("b", "B", 1, "dc"),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_answered_in_its_turn_also_if_it_failed() {
    let server = Setup::new().rules(RULES).shards(2).start();
    let client = server.connect().await;
    sold_out_after(&client, 3).await;
    let mut stream = Open::on(&client.channel).await;
    let nowhere = pb::ReserveRequest {
        channel: "nowhere".into(),
        ..reserve("r5", "A", 1)
    };
    let twice = {
        // The id once more: not plain, and the last one counts.
        let mut bytes = reserve("other", "B", 1).encode_to_vec();
        bytes.extend([0x0a, 2, b'r', b'7']);
        bytes
    };
    stream.send(&reserve("r1", "A", 2)).await;
    stream.send(&reserve("r2", "A", 0)).await;
    stream.send(&reserve("r3", "A", 2)).await;
    stream.send(&reserve("r1", "A", 2)).await;
    stream.send(&nowhere).await;
    stream.send_bytes(vec![0x0a, 0xff, 0x01]).await;
    stream.send_bytes(twice).await;
    stream.send(&reserve("r1", "A", 1)).await;
    stream.send(&reserve("r9", "A", 1)).await;

    let first = stream.next().await.expect("granted");
    assert!(first.granted && !first.duplicate, "{first:?}");
    assert_eq!(first.allocations[0].quantity, 2);
    let bad = stream.next().await.expect_err("no units");
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert_eq!(violations(&bad)[0].0, "lines[0].quantity");
    let short = stream.next().await.expect("an answer");
    assert!(!short.granted, "{short:?}");
    assert_eq!(short.short_lines[0].available, 1);
    let again = stream.next().await.expect("an answer");
    let duplicate = pb::ReserveResponse {
        duplicate: true,
        ..first.clone()
    };
    assert_eq!(again, duplicate);
    let unknown = stream.next().await.expect_err("no such channel");
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    assert!(
        unknown.message().contains("the rules have web"),
        "{unknown}"
    );
    let malformed = stream.next().await.expect_err("no message");
    assert_eq!(malformed.code(), Code::Internal, "{malformed}");
    let odd = stream.next().await.expect("granted");
    assert!(odd.granted && odd.allocations[0].sku == "B", "{odd:?}");
    let taken = stream.next().await.expect_err("another content");
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    assert!(stream.next().await.expect("granted").granted);

    // A call knows what the stream was told, and the stream what calls were.
    let answer = client.reservations().reserve(reserve("r1", "A", 2)).await;
    assert_eq!(answer.expect("known").into_inner(), duplicate);
    let answer = client.reservations().reserve(reserve("r10", "A", 1)).await;
    let answer = answer.expect("an answer").into_inner();
    stream.send(&reserve("r10", "A", 1)).await;
    let known = stream.next().await.expect("known");
    assert!(known.duplicate && known.short_lines == answer.short_lines);

    drop(stream.requests);
    let end = patiently(stream.answers.message()).await;
    assert_eq!(end.expect("no error"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_answers_is_not_read_from() {
    let server = Setup::new().rules(RULES).start();
    let client = connect(&server).await;
    sold_out_after(&client, 100).await;
    let mut stream = Open::on(&client.channel).await;
    let most = 400 * MANY;
    let mut sent = 0;
    while sent < most {
        let more = stream.requests.send(encoded(&reserve(sent, "A", 1)));
        // A slow machine makes this end early, and nothing else.
        match tokio::time::timeout(Duration::from_secs(2), more).await {
            Ok(taken) => taken.expect("the stream is open"),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!(sent < most, "all {most} were taken, and no answer was read");
    drop(stream.requests);
    for at in 0..sent {
        let answer = patiently(stream.answers.message()).await;
        let answer = answer.expect("the stream goes on").expect("an answer");
        assert_eq!(result(answer).expect("decided").granted, at < 100, "{at}");
    }
    let end = patiently(stream.answers.message()).await;
    assert_eq!(end.expect("no error"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_intake_is_full_the_rest_waits() {
    let setup = Setup::new().rules(RULES);
    let server = setup.set("intake.queue_commands_max", 100).start();
    let client = server.connect().await;
    sold_out_after(&client, MANY as i64).await;
    let mut stream = Open::on(&client.channel).await;
    let sending = stream.send_up_to(MANY);
    for id in 0..MANY {
        let answer = stream.next().await;
        assert!(answer.expect("not refused").granted, "{id}");
    }
    let sent = patiently(sending).await.expect("no panic");
    assert_eq!(sent, MANY, "the stream is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_when_the_server_stops_after_what_it_took_is_answered() {
    let setup = Setup::new().rules(RULES).set("drain.grace_ms", 600_000);
    let mut server = setup.start();
    let client = server.connect().await;
    sold_out_after(&client, MANY as i64).await;
    let mut stream = Open::on(&client.channel).await;
    let sending = stream.send_up_to(usize::MAX);
    let mut answered = 0;
    let end = loop {
        match patiently(stream.answers.message()).await {
            Ok(Some(answer)) => {
                let answer = result(answer).expect("decided");
                assert_eq!(answer.granted, answered < MANY, "{answered}");
                answered += 1;
                if answered == 100 {
                    server.signal("TERM");
                }
            }
            Ok(None) => panic!("it ended as if all were answered"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(end.message().contains("stopping"), "{end}");
    drop((stream, client));
    assert!(patiently(sending).await.expect("no panic") >= answered);
    // Without the grace that a call may take.
    assert!(server.wait().success());
    assert!(!server.log().contains("cut off"), "it was waited for");

    server.restart();
    let client = server.connect().await;
    for id in [0, answered - 1] {
        let answer = client.reservations().reserve(reserve(id, "A", 1)).await;
        assert!(answer.expect("an answer").into_inner().duplicate, "{id}");
    }
    // What was begun was answered.
    let next = reserve(answered, "A", 1);
    let answer = client.reservations().reserve(next).await;
    assert!(!answer.expect("an answer").into_inner().duplicate);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_known_after_a_kill_and_the_rest_is_sent_again() {
    let mut server = Setup::new().rules(RULES).shards(2).start();
    let client = connect(&server).await;
    // Fewer than are asked for.
    let units = MANY * 9 / 10;
    sold_out_after(&client, units as i64).await;
    let mut stream = Open::on(&client.channel).await;
    stream.send_up_to(MANY);
    let mut answers = Vec::new();
    while let Ok(Some(answer)) = patiently(stream.answers.message()).await {
        answers.push(result(answer).expect("decided"));
        if answers.len() == MANY / 4 {
            server.kill();
        }
    }
    let answered = answers.len();
    assert!((MANY / 4..MANY).contains(&answered), "{answered}");
    drop((stream, client));
    server.restart();

    let client = server.connect().await;
    let mut stream = Open::on(&client.channel).await;
    let sending = stream.send_up_to(MANY);
    let mut granted = 0;
    for id in 0..MANY {
        let answer = stream.next().await.expect("decided");
        granted += usize::from(answer.granted);
        if let Some(before) = answers.get(id) {
            let known = pb::ReserveResponse {
                duplicate: true,
                ..before.clone()
            };
            assert_eq!(answer, known, "{id}");
        }
    }
    let sent = patiently(sending).await.expect("no panic");
    assert_eq!(sent, MANY, "the stream is open");
    assert_eq!(granted, units);
    let answer = client.ats("A", 0).await.expect("an answer");
    assert_eq!(answer.items[0].ats, 0);
    server.stop();
}
