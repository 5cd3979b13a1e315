//! Checkpoints of instances on one JetStream stream: a new one begins with what another left, and a
//! stream that was made anew halts.

use std::{path::Path, sync::Arc, time::Duration};

use async_nats::jetstream;
use bytes::Bytes;
use prost::Message;
use sellable::{
    domain::movement::{Condition, Kind, Movement},
    instance::{CheckpointOptions, Instance, Options, StartError},
    log::{
        Log, LogError,
        conformance::patiently,
        jetstream::{JetStreamLog, Options as LogOptions},
    },
    wire::movement::to_proto,
};

use crate::nats::NatsServer;

fn received(n: usize) -> Bytes {
    let movement = Movement {
        id: &n.to_string(),
        source: "wms",
        occurred_us: 1_700_000_000_000_000,
        sku: &format!("sku-{}", n % 9),
        quantity: 3,
        correlation_id: "",
        reference: "",
        actor: "",
        kind: Kind::Received {
            location: "dc",
            condition: Condition::Good,
            inbound: None,
        },
    };
    to_proto(&movement).encode_to_vec().into()
}

fn options(dir: &Path, publish: bool) -> Options {
    Options {
        checkpoints: Some(CheckpointOptions {
            publish,
            ..CheckpointOptions::on_demand(dir)
        }),
        ..Options::default()
    }
}

async fn log(server: &NatsServer) -> Arc<dyn Log> {
    let opened = JetStreamLog::open(LogOptions::new(server.url())).await;
    Arc::new(opened.expect("it opens"))
}

async fn start(server: &NatsServer, options: &Options) -> Result<Arc<Instance>, StartError> {
    let instance = Instance::start(log(server).await, options).await?;
    tokio::time::timeout(Duration::from_secs(60), instance.caught_up())
        .await
        .expect("it catches up");
    Ok(instance)
}

fn started_from(instance: &Instance) -> Option<u64> {
    instance.checkpoints().expect("it keeps some").started_from
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_instance_begins_with_what_another_left() {
    let server = NatsServer::start();
    let dirs = tempfile::tempdir().expect("a directory");
    let dir = |name: &str| dirs.path().join(name);
    let one = start(&server, &options(&dir("one"), true))
        .await
        .expect("it starts");
    for n in 0..40 {
        one.post(vec![received(n)]).await.expect("posted");
    }
    one.checkpoint().await.expect("taken");
    for n in 40..50 {
        one.post(vec![received(n)]).await.expect("posted");
    }
    // The newest is what counts.
    let taken = one.checkpoint().await.expect("taken");
    let last = one.post(vec![received(50)]).await.expect("posted").position;
    let (expected, _) = one.audit().await.expect("it runs");

    // Nearby, nothing is fetched.
    let two = start(&server, &options(&dir("two"), false))
        .await
        .expect("it starts");
    assert_eq!(started_from(&two), None);
    two.stop().await;

    patiently(log(&server).await.trim(taken.position))
        .await
        .expect("trimmed");
    let three = start(&server, &options(&dir("three"), false))
        .await
        .expect("it starts");
    assert_eq!(started_from(&three), Some(taken.position));
    three.view().progress().wait_for(last).await;
    assert_eq!(three.audit().await.expect("it runs").0, expected);
    three.stop().await;

    // What was left is damaged: there is no way to begin.
    let client = async_nats::connect(server.url()).await.expect("connects");
    let bucket = jetstream::new(client)
        .get_object_store("SELLABLE_CHECKPOINTS")
        .await;
    let bucket = bucket.expect("a bucket");
    let torn = std::fs::read(&taken.path).expect("a file");
    let mut half = &torn[..torn.len() / 2];
    let object = jetstream::object_store::ObjectMetadata {
        name: "newest".into(),
        metadata: [("position".to_owned(), taken.position.to_string())].into(),
        ..Default::default()
    };
    bucket.put(object, &mut half).await.expect("put");
    match start(&server, &options(&dir("four"), false)).await {
        Err(StartError::Log(LogError::Setup(text))) => assert!(text.contains("torn"), "{text}"),
        outcome => panic!("{:?}", outcome.map(|_| ())),
    }
    // A file that is copied by hand will do.
    let mut by_hand = options(&dir("five"), false);
    by_hand.checkpoints.as_mut().expect("kept").bootstrap = Some(taken.path.clone());
    let five = start(&server, &by_hand).await.expect("it starts");
    assert_eq!(started_from(&five), Some(taken.position));
    five.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_made_anew_halts() {
    let server = NatsServer::start();
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path(), false);
    let one = start(&server, &options).await.expect("it starts");
    for n in 0..10 {
        one.post(vec![received(n)]).await.expect("posted");
    }
    one.checkpoint().await.expect("taken");
    one.stop().await;
    drop(one);
    let client = async_nats::connect(server.url()).await.expect("connects");
    let context = jetstream::new(client);
    context.delete_stream("SELLABLE").await.expect("deleted");
    let told = match start(&server, &options).await {
        Err(StartError::Log(LogError::Diverged(text))) => text,
        outcome => panic!("{:?}", outcome.map(|_| ())),
    };
    assert!(told.contains("of another log"), "{told}");
}
