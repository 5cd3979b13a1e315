//! The real program on a disk that takes long to sync, and on one that fails to.
//!
//! A small library of our own, `support/faulty_disk.c`, stands before `fsync` and `fdatasync` of
//! that one process; the rest of the system is as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sellable::proto::v1 as pb;
use tonic::Code;

use crate::server::{Client, Server, Setup, patiently, received};

/// The faults of one process.
struct Faults {
    dir: tempfile::TempDir,
}

impl Faults {
    /// None so far.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/faulty_disk.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(dir.path().join("faulty_disk.so"))
            .arg(source)
            .arg("-ldl")
            .output()
            .expect("there is a C compiler: Rust links with it");
        let told = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{told}");
        Self { dir }
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("faulty_disk.so")
    }

    fn setup(&self, setup: Setup) -> Setup {
        setup
            .environment("LD_PRELOAD", self.library())
            .environment("DISK_FAULTS", self.dir.path())
    }

    fn begin(&self, fault: &str) {
        fs::write(self.dir.path().join(fault), "").expect("written");
    }

    fn end(&self, fault: &str) {
        fs::remove_file(self.dir.path().join(fault)).expect("it was there");
    }
}

async fn post(client: &Client, number: u64) -> Result<pb::PostResponse, tonic::Status> {
    let request = pb::PostRequest {
        movements: vec![received(&format!("m-{number}"), "mug", 1, "dc")],
    };
    let answer = patiently(client.movements().post(request)).await;
    answer.map(tonic::Response::into_inner)
}

/// Reserves one unit.
async fn reserve(client: &Client, id: &str) -> Result<pb::ReserveResponse, tonic::Status> {
    let request = pb::ReserveRequest {
        id: id.into(),
        channel: "web".into(),
        lines: vec![pb::ReserveLine {
            sku: "mug".into(),
            quantity: 1,
            ..pb::ReserveLine::default()
        }],
        ..pb::ReserveRequest::default()
    };
    let answer = client.reservations().reserve(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Units that the channel may sell.
async fn shown(client: &Client) -> i64 {
    client.ats("mug", 0).await.expect("an answer").items[0].ats
}

fn synced() -> Setup {
    Setup::new()
        .set("journal.sync", "always")
        .rules("[channel.web]\nsources = [\"*\"]\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_stops_writes_until_a_restart() {
    let faults = Faults::new();
    let mut server = faults.setup(synced()).start();
    let client = server.connect().await;
    for number in 0..20 {
        post(&client, number).await.expect("acknowledged");
    }
    faults.begin("fail");
    let status = post(&client, 20).await.expect_err("its disk is broken");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(
        status.message().contains("Input/output error"),
        "it says why: {status}"
    );
    // The disk is well again; but what the kernel has dropped, nobody knows.
    faults.end("fail");
    let status = post(&client, 21).await.expect_err("the log is poisoned");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_ne!(client.status().await.not_writable_because, "");
    // What was acknowledged is shown, and nothing of what was not.
    assert_eq!(shown(&client).await, 20);

    server.kill();
    server.restart();
    let client = server.connect().await;
    for number in 0..20 {
        let answer = post(&client, number).await.expect("acknowledged");
        assert!(answer.outcomes[0].duplicate, "m-{number} is lost");
    }
    for number in 20..22 {
        post(&client, number).await.expect("it takes writes again");
    }
    assert_eq!(shown(&client).await, 22);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_whose_sync_fails_is_told_why() {
    let faults = Faults::new();
    let mut server = faults.setup(synced()).start();
    let client = server.connect().await;
    post(&client, 0).await.expect("acknowledged");
    faults.begin("fail");
    for id in ["while it fails", "after it failed"] {
        let status = patiently(reserve(&client, id))
            .await
            .expect_err("its disk is broken");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(
            status.message().contains("Input/output error"),
            "it says why: {status}"
        );
    }
    assert_eq!(shown(&client).await, 1);
    faults.end("fail");
    server.kill();
    server.restart();
    let client = server.connect().await;
    let mut reservations = client.reservations();
    let request = pb::GetReservationRequest {
        id: "after it failed".into(),
        ..Default::default()
    };
    let status = patiently(reservations.get(request)).await;
    let status = status.expect_err("it was never in the log");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_is_waited_for_and_queries_are_not() {
    let faults = Faults::new();
    let setup = synced().set("intake.queue_commands_max", 100);
    let mut server = faults.setup(setup).start();
    let client = server.connect().await;
    for number in 0..10 {
        post(&client, number).await.expect("acknowledged");
    }
    faults.begin("hold");
    let waiting: Vec<_> = (10..20)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { post(&client, number).await })
        })
        .collect();
    // Nothing is shown before it is safe, and who asks is answered meanwhile.
    for _ in 0..50 {
        assert_eq!(shown(&client).await, 10);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!waiting.iter().any(tokio::task::JoinHandle::is_finished));
    faults.end("hold");
    for answer in waiting {
        let answer = answer.await.expect("no panic");
        answer.expect("acknowledged in the end");
    }
    // Reservations do not pile up behind it: what there is no room for is refused at once.
    faults.begin("hold");
    let carts: Vec<_> = (0..400)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { reserve(&client, &format!("r-{number}")).await })
        })
        .collect();
    // The first refusals come while the disk still holds.
    patiently(async {
        while !carts.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    faults.end("hold");
    let (mut granted, mut refused) = (0, 0);
    for cart in carts {
        match patiently(cart).await.expect("no panic") {
            Ok(answer) => granted += i64::from(answer.granted),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                refused += 1;
            }
        }
    }
    println!("{granted} granted, {refused} refused for lack of room");
    assert!(granted > 0 && refused > 0);
    assert_eq!(shown(&client).await, 20 - granted);
    server.stop();
}

/// A checkpoint that cannot be written is no reason to stop: the log has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_cannot_be_synced_is_told_and_nothing_else_stops() {
    let faults = Faults::new();
    // The journal does not sync here, so that the fault meets the checkpoint alone.
    let setup = Setup::new()
        .set("journal.sync", "os")
        .rules("[channel.web]\nsources = [\"*\"]\n");
    let mut server = faults.setup(setup).start();
    let client = server.connect().await;
    for number in 0..10 {
        post(&client, number).await.expect("acknowledged");
    }
    let take = async || {
        let request = pb::CheckpointRequest::default();
        patiently(client.operations().checkpoint(request)).await
    };
    let taken = take().await.expect("taken").into_inner();
    faults.begin("fail");
    post(&client, 10).await.expect("acknowledged");
    let status = take().await.expect_err("its disk is broken");
    assert!(status.message().contains("Input/output error"), "{status}");
    post(&client, 11).await.expect("it goes on");
    assert_eq!(shown(&client).await, 12);
    faults.end("fail");
    let again = take().await.expect("taken once more").into_inner();
    assert!(again.position > taken.position);
    restarted(&mut server, 12).await;
}

async fn restarted(server: &mut Server, units: i64) {
    server.kill();
    server.restart();
    let client = server.connect().await;
    let status = client.status().await;
    assert_eq!(shown(&client).await, units);
    assert!(status.checkpoints.expect("it has one").started_from > 0);
    server.stop();
}
