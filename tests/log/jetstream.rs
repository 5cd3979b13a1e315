//! The log on JetStream against what really happens to servers and streams.

use std::{sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        stream::{Config, StorageType, Stream},
    },
};
use bytes::Bytes;
use sellable::log::{
    AppendError, Entry, Lane, Log, LogError, MediaType, Position, Reader,
    conformance::{patiently, read_to, record},
    jetstream::{JetStreamLog, Options, SUBJECTS},
};

use crate::nats::NatsServer;

/// Patience short enough for a test to see its end.
fn options(server: &NatsServer) -> Options {
    let mut options = Options::new(server.url());
    options.ack_timeout = Duration::from_secs(2);
    options.silence_max = Duration::from_secs(2);
    options
}

async fn open(server: &NatsServer) -> Arc<dyn Log> {
    Arc::new(JetStreamLog::open(options(server)).await.expect("opens"))
}

async fn append(log: &Arc<dyn Log>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        patiently(log.append(record(number))).await.expect("stored");
    }
}

async fn context(server: &NatsServer) -> jetstream::Context {
    let client = async_nats::connect(server.url()).await.expect("connects");
    jetstream::new(client)
}

async fn stream(server: &NatsServer) -> Stream {
    let context = context(server).await;
    context.get_stream("SELLABLE").await.expect("a stream")
}

/// A stream as an operator might have made it, which lets single messages be deleted.
fn config() -> Config {
    Config {
        name: "SELLABLE".into(),
        subjects: SUBJECTS.map(Into::into).into(),
        storage: StorageType::File,
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    }
}

async fn error_of(reader: &mut dyn Reader) -> LogError {
    loop {
        if let Err(error) = patiently(reader.next(1_000)).await {
            return error;
        }
    }
}

fn diverged(error: LogError) -> String {
    match error {
        LogError::Diverged(text) => text,
        error => panic!("not diverged: {error:?}"),
    }
}

fn setup<T>(outcome: Result<T, LogError>) -> String {
    match outcome {
        Err(LogError::Setup(text)) => text,
        Err(error) => panic!("not a Setup error: {error:?}"),
        Ok(_) => panic!("it opened"),
    }
}

#[tokio::test]
async fn producers_share_the_stream_and_keep_their_names_and_types() {
    let server = NatsServer::start();
    let log = open(&server).await;
    let context = context(&server).await;
    let cases = [
        (
            "movements.pos",
            Some("application/protobuf"),
            MediaType::Protobuf,
        ),
        (
            "movements.wms",
            Some("application/cloudevents+json"),
            MediaType::Json,
        ),
        ("movements.wms", None, MediaType::Unstated),
        (
            "movements.a.b",
            Some("text/csv"),
            MediaType::Other("text/csv".into()),
        ),
    ];
    for (subject, content_type, _) in &cases {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert("Content-Type", *content_type);
        }
        let ack = context.publish_with_headers(*subject, headers, "x".into());
        ack.await.expect("sent").await.expect("stored");
    }
    append(&log, 0..1).await;
    let mut reader = log.reader(1).await.expect("a reader");
    let entries = read_to(&mut *reader, 1, 5).await;
    for (entry, (subject, _, media_type)) in entries.iter().zip(&cases) {
        let lane = Lane::Producer {
            source: subject.trim_start_matches("movements.").into(),
            media_type: media_type.clone(),
        };
        assert_eq!((&entry.lane, &entry.payload[..]), (&lane, &b"x"[..]));
    }
    assert_eq!(entries[4].lane, Lane::Record);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    let mut server = NatsServer::start();
    let log = open(&server).await;
    let mut reader = log.reader(1).await.expect("a reader");
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut stored: Vec<(Position, u64)> = Vec::new();
                for number in (writer..2_000).step_by(8) {
                    // What stays unconfirmed is for the caller to send again.
                    loop {
                        match log.append(record(number)).await {
                            Ok(position) => break stored.push((position, number)),
                            Err(AppendError::Unconfirmed(_)) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
                stored
            })
        })
        .collect();
    let mut read = read_to(&mut *reader, 1, 300).await;
    for _ in 0..2 {
        server.restart();
        let next = read.len() as Position + 1;
        read.extend(read_to(&mut *reader, next, next + 300).await);
    }
    let mut stored = Vec::new();
    for writer in writers {
        stored.extend(patiently(writer).await.expect("no panic"));
    }
    let last = log.bounds().await.expect("bounds").last;
    let next = read.len() as Position + 1;
    read.extend(read_to(&mut *reader, next, last).await);
    assert_eq!(stored.len(), 2_000);
    for (position, number) in stored {
        assert_eq!(read[position as usize - 1].payload, record(number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_waited_for() {
    let mut server = NatsServer::start();
    let log = open(&server).await;
    append(&log, 0..5).await;
    let mut reader = log.reader(1).await.expect("a reader");
    read_to(&mut *reader, 1, 5).await;
    server.kill();
    while log.not_writable().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let outcome = patiently(log.append(record(5))).await;
    assert!(
        matches!(outcome, Err(AppendError::Unconfirmed(_))),
        "{outcome:?}"
    );
    let waiting = tokio::spawn(async move { reader.next(10).await });
    server.restart();
    patiently(async { while log.append(record(6)).await.is_err() {} }).await;
    let entries = patiently(waiting).await.expect("no panic").expect("read");
    assert_eq!(entries[0].position, 6);
    assert_eq!(log.not_writable(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_deleted_behind_our_back_is_made_anew() {
    let server = NatsServer::start();
    let log = open(&server).await;
    append(&log, 0..5).await;
    let mut reader = log.reader(1).await.expect("a reader");
    read_to(&mut *reader, 1, 5).await;
    let stream = stream(&server).await;
    for round in 0..3_u64 {
        let waiting = tokio::spawn(async move {
            let entries = reader.next(10).await;
            (reader, entries)
        });
        tokio::task::yield_now().await;
        let names: Vec<_> = futures::StreamExt::collect(stream.consumer_names()).await;
        for name in names {
            let name: String = name.expect("a name");
            stream.delete_consumer(&name).await.expect("deleted");
        }
        append(&log, 5 + round..6 + round).await;
        let (back, entries) = patiently(waiting).await.expect("no panic");
        reader = back;
        let entries = entries.expect("read");
        assert_eq!(entries[0].position, 6 + round);
        assert_eq!(entries[0].payload, record(5 + round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_deleted_and_made_anew_is_another_log() {
    let server = NatsServer::start();
    let log = open(&server).await;
    append(&log, 0..5).await;
    let anchor = read_to(&mut *log.reader(1).await.expect("a reader"), 1, 5).await[4].anchor();
    let mut reader = log.reader(1).await.expect("a reader");
    read_to(&mut *reader, 1, 5).await;
    let context = context(&server).await;
    context.delete_stream("SELLABLE").await.expect("deleted");
    let other = open(&server).await;
    append(&other, 10..20).await;
    let text = diverged(error_of(&mut *reader).await);
    assert!(text.contains("deleted"), "{text}");
    assert!(matches!(log.bounds().await, Err(LogError::Diverged(_))));
    assert!(!other.identity().is_same(&log.identity()));
    assert!(matches!(
        other.check(anchor).await,
        Err(LogError::Diverged(_))
    ));
}

/// Loses the last entries, as a server restored from an older backup does: its store is copied
/// while it is down, and put back later.
async fn restore_from_backup(server: &mut NatsServer, log: &Arc<dyn Log>, number: u64) {
    server.kill();
    let backup = tempfile::tempdir().expect("a directory");
    copy_all(&server.store(), backup.path());
    server.restart();
    patiently(async { while log.append(record(number)).await.is_err() {} }).await;
    append(log, number + 1..number + 5).await;
    // The reader has to have seen them before they are lost.
    let last = log.bounds().await.expect("bounds").last;
    let mut reader = log.reader(last).await.expect("a reader");
    read_to(&mut *reader, last, last).await;
    server.kill();
    std::fs::remove_dir_all(server.store()).expect("removed");
    copy_all(backup.path(), &server.store());
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_noticed() {
    let mut server = NatsServer::start();
    let log = open(&server).await;
    append(&log, 0..5).await;
    let mut reader = log.reader(1).await.expect("a reader");
    read_to(&mut *reader, 1, 5).await;
    let reading = tokio::spawn(async move {
        // Up to the last that is lost later; more may be there if an append was repeated.
        while let Ok(entries) = reader.next(1_000).await {
            if entries.last().is_some_and(|last| last.payload == record(9)) {
                break;
            }
        }
        reader
    });
    restore_from_backup(&mut server, &log, 5).await;
    let mut reader = patiently(reading).await.expect("no panic");
    server.restart();
    let text = diverged(error_of(&mut *reader).await);
    assert!(text.contains("its tail was lost"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_was_lost_and_grew_anew_is_noticed() {
    let mut server = NatsServer::start();
    let log = open(&server).await;
    append(&log, 0..5).await;
    let mut reader = log.reader(1).await.expect("a reader");
    read_to(&mut *reader, 1, 5).await;
    let (seen_sender, seen) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(async move {
        let mut last: Option<Entry> = None;
        while last.as_ref().is_none_or(|last| last.payload != record(9)) {
            let entries = reader.next(1_000).await.expect("read");
            last = entries.into_iter().next_back();
        }
        let _ = seen_sender.send(last.expect("an entry").anchor());
        reader
    });
    restore_from_backup(&mut server, &log, 5).await;
    let mut reader = patiently(reading).await.expect("no panic");
    let anchor = seen.await.expect("an anchor");
    // Others write while nobody reads, until all that was read has been replaced. The reader's
    // connection may come back at any time in between, but it looks only when it is asked.
    server.restart();
    let other = open(&server).await;
    append(&other, 100..130).await;
    let error = error_of(&mut *reader).await;
    let text = diverged(error);
    assert!(text.contains("no longer the message"), "{text}");
    assert!(matches!(
        other.check(anchor).await,
        Err(LogError::Diverged(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_purged_before_they_were_read_are_reported_as_trimmed() {
    let server = NatsServer::start();
    let log = open(&server).await;
    append(&log, 0..20).await;
    let mut reader = log.reader(1).await.expect("a reader");
    log.trim(11).await.expect("trimmed");
    let expected = LogError::Trimmed {
        wanted: 1,
        first: 11,
    };
    assert_eq!(error_of(&mut *reader).await, expected);
    // A stream that is emptied to the point that was read is no harm.
    let mut reader = log.reader(11).await.expect("a reader");
    read_to(&mut *reader, 11, 20).await;
    stream(&server).await.purge().await.expect("purged");
    append(&log, 20..22).await;
    let entries = read_to(&mut *reader, 21, 22).await;
    assert_eq!(entries[1].payload, record(21));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_the_middle_ends_the_reader_and_names_it() {
    let server = NatsServer::start();
    let context = context(&server).await;
    let stream = context.create_stream(config()).await.expect("created");
    let log = open(&server).await;
    append(&log, 0..10).await;
    for position in [4, 5] {
        stream.delete_message(position).await.expect("deleted");
    }
    let mut reader = log.reader(1).await.expect("a reader");
    assert_eq!(read_to(&mut *reader, 1, 3).await.len(), 3);
    let text = diverged(error_of(&mut *reader).await);
    assert!(text.contains("positions 4 to 5"), "{text}");
}

#[tokio::test]
async fn our_own_stream_does_not_let_single_messages_be_deleted() {
    let server = NatsServer::start();
    let log = open(&server).await;
    append(&log, 0..3).await;
    assert!(stream(&server).await.delete_message(2).await.is_err());
}

#[tokio::test]
async fn a_full_stream_refuses_and_goes_on_after_a_trim() {
    let server = NatsServer::start();
    let mut options = options(&server);
    options.bytes_max = 100_000;
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::open(options).await.expect("opens"));
    let mut stored = 0;
    let refused = loop {
        match patiently(log.append(Bytes::from(vec![1; 9_000]))).await {
            Ok(position) => stored = position,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Refused(_)), "{refused:?}");
    assert_eq!(log.bounds().await.expect("bounds").last, stored);
    log.trim(stored).await.expect("trimmed");
    append(&log, 0..1).await;
}

#[tokio::test]
async fn a_wrong_address_is_a_clear_error() {
    let mut server = NatsServer::start();
    let url = server.url();
    server.kill();
    let outcome = patiently(JetStreamLog::open(Options::new(url.clone()))).await;
    match outcome {
        Err(LogError::Unavailable(text)) => assert!(text.contains(&url), "{text}"),
        outcome => panic!("{outcome:?}"),
    }
    let text = setup(patiently(JetStreamLog::open(Options::new("nats://[not an address"))).await);
    assert!(text.contains("nats://host:4222"), "{text}");
    let mut options = Options::new(url);
    options.credentials = Some("/nowhere/to/be/found.creds".into());
    let text = setup(patiently(JetStreamLog::open(options)).await);
    assert!(text.contains("found.creds"), "{text}");
}

#[tokio::test]
async fn a_server_that_does_not_fit_is_refused_with_the_correction() {
    let server = NatsServer::start_with("max_payload: 100000");
    let text = setup(JetStreamLog::open(options(&server)).await);
    assert!(text.contains("max_payload"), "{text}");
    let server = NatsServer::start_with("authorization { user: a, password: b }");
    let text = setup(JetStreamLog::open(options(&server)).await);
    assert!(text.contains("credentials"), "{text}");
}

/// Makes a stream. A server that is still clearing away another one may refuse at first.
async fn created(context: &jetstream::Context, config: Config) {
    let mut last = None;
    for _ in 0..100 {
        match context.create_stream(config.clone()).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the stream is not made: {last:?}");
}

#[tokio::test]
async fn a_stream_that_does_not_fit_is_refused_with_the_correction() {
    type Change = fn(&mut Config);
    let cases: [(Change, &str); 6] = [
        (
            |config| config.subjects = vec!["movements.>".into()],
            "nats stream edit",
        ),
        (
            |config| config.storage = StorageType::Memory,
            "file storage",
        ),
        (
            |config| config.max_messages_per_subject = 1,
            "limit per subject",
        ),
        (|config| config.max_message_size = 1_000, "max_msg_size"),
        (
            |config| config.duplicate_window = Duration::from_secs(1),
            "duplicate window",
        ),
        (|config| config.name = "OTHER".into(), "another stream"),
    ];
    let server = NatsServer::start();
    let context = context(&server).await;
    for (index, (change, correction)) in cases.into_iter().enumerate() {
        // A name of its own: the server clears away a deleted stream in its own time.
        let mut options = options(&server);
        options.stream = format!("CASE{index}");
        let mut config = config();
        config.name = options.stream.clone();
        change(&mut config);
        let name = config.name.clone();
        created(&context, config).await;
        let text = setup(JetStreamLog::open(options).await);
        assert!(text.contains(correction), "{text}");
        context.delete_stream(&name).await.expect("deleted");
    }
    let mut options = options(&server);
    options.duplicate_window = Duration::from_secs(5);
    let text = setup(JetStreamLog::open(options).await);
    assert!(text.contains("duplicate_window"), "{text}");
}
