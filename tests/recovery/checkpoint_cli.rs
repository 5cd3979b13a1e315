//! Checkpoints as those see them who run the service: taken by a command, told by the status and the
//! metrics, used by the next start, verified without a server.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::server::{RULES, Setup, received};

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {errors}"))
}

fn verify(data_dir: &Path) -> Output {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_sellable")));
    command
        .args(["verify", "--json", "--data-dir"])
        .arg(data_dir);
    command
        .current_dir(data_dir)
        .output()
        .expect("it can be run")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_is_taken_told_used_and_verified() {
    let mut server = Setup::new()
        .rules(RULES)
        .set("checkpoint.every_seconds", 0)
        .set("checkpoint.every_records", 0)
        .start();
    let client = server.connect().await;
    for n in 0..20 {
        let id = n.to_string();
        client.post(vec![received(&id, "MUG", 10, "dc")]).await;
    }
    let before = json(&server.run(&["status", "--json"]));
    assert_eq!(before["checkpoints"]["position"], 0);

    let taken = server.run(&["checkpoint", "--json"]);
    assert!(taken.status.success(), "{taken:?}");
    let taken = json(&taken);
    let digest = client.digest(0).await;
    assert_eq!(taken["digest"], digest.digest);
    assert_eq!(taken["position"], digest.position);
    let file = Path::new(taken["file"].as_str().expect("a file")).to_owned();
    assert_eq!(fs::metadata(&file).expect("a file").len(), taken["bytes"]);

    let last = client
        .post(vec![received("last", "MUG", 3, "dc")])
        .await
        .position;
    let status = json(&server.run(&["status", "--json"]));
    let own = &status["checkpoints"];
    assert_eq!(own["position"], taken["position"]);
    assert_eq!(own["replay_records"], last - digest.position);
    assert_eq!((&own["taken"], &own["failed"]), (&1.into(), &0.into()));
    let told = server.run(&["status"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("a restart reads 1 records"), "{told}");
    let (_, metrics) = server.get("/metrics").expect("metrics");
    for line in [
        format!("sellable_checkpoint_position {}", taken["position"]),
        "sellable_checkpoint_replay_records 1".to_owned(),
        format!("sellable_checkpoint_size_bytes {}", taken["bytes"]),
        "sellable_checkpoints_total{outcome=\"taken\"} 1".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let end = client.digest(last).await;

    // The directory is in use.
    let data_dir = server.journal_dir();
    assert_eq!(verify(&data_dir).status.code(), Some(2));
    server.kill();
    server.restart();
    assert!(server.log().contains("started from the checkpoint"));
    let client = server.connect().await;
    assert_eq!(client.digest(last).await.digest, end.digest);
    let own = client.status().await.checkpoints.expect("it keeps some");
    assert_eq!(own.started_from, digest.position);
    server.stop();

    let output = verify(&data_dir);
    assert!(output.status.success(), "{output:?}");
    let found = json(&output);
    assert_eq!(found["digest"], end.digest);
    assert_eq!(found["checkpoints"][0]["verdict"], "same");
    assert_eq!(found["conservation_violations"], 0);

    // One bit of it.
    let mut bytes = fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("written");
    let output = verify(&data_dir);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = json(&output);
    assert_eq!(found["checkpoints"][0]["verdict"], "wrong");
    assert_eq!(found["digest"], end.digest);

    let empty = tempfile::tempdir().expect("a directory");
    assert_eq!(verify(empty.path()).status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_another_log_is_told_from_its_own() {
    let mut one = Setup::new().start();
    let client = one.connect().await;
    client.post(vec![received("1", "MUG", 10, "dc")]).await;
    let taken = json(&one.run(&["checkpoint", "--json"]));
    one.stop();

    // To begin with it, its log has to be the same one.
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_sellable")));
    command
        .current_dir(dir.path())
        .args(["serve", "--listen", "127.0.0.1:0"]);
    command.args([
        "--http-listen",
        "127.0.0.1:0",
        "--data-dir",
        "data",
        "--bootstrap",
    ]);
    let file = taken["file"].as_str().expect("a file");
    let output = command.arg(file).output().expect("it can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("of another log"), "{errors}");
}
