//! Snapshots that an ERP puts into an object store bucket: with a real NATS server and two
//! instances.

use std::collections::HashMap;

use async_nats::jetstream::{
    self,
    consumer::PullConsumer,
    object_store::{ObjectMetadata, ObjectStore},
};
use parquet::file::properties::WriterProperties;
use sellable::proto::v1 as pb;

use crate::{
    nats::NatsServer,
    parquet_file::{self, Cells},
    server::{Client, PATIENCE, Server, Setup, received},
    snapshots::variances,
};

const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";
const AS_OF: &str = "2023-11-14T22:13:20Z";

struct Erp {
    bucket: ObjectStore,
    context: jetstream::Context,
}

impl Erp {
    /// Waits until the instances have made the bucket.
    async fn of(nats: &NatsServer) -> Self {
        let client = async_nats::connect(nats.url()).await.expect("connects");
        let context = jetstream::new(client);
        let find = async {
            loop {
                match context.get_object_store("SELLABLE-snapshots").await {
                    Ok(bucket) => break bucket,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                }
            }
        };
        let bucket = tokio::time::timeout(PATIENCE, find)
            .await
            .expect("a bucket");
        Self { bucket, context }
    }

    async fn put(&self, name: &str, metadata: &[(&str, &str)], content: impl AsRef<[u8]>) {
        let metadata: HashMap<String, String> = metadata
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let about = ObjectMetadata {
            name: name.into(),
            metadata,
            ..ObjectMetadata::default()
        };
        let put = self.bucket.put(about, &mut content.as_ref()).await;
        put.expect("put");
    }

    /// What the durable consumer has given to instances, and what is not acknowledged yet.
    async fn deliveries(&self) -> (u64, usize, u64) {
        let consumer: PullConsumer = self
            .context
            .get_consumer_from_stream("sellable", "OBJ_SELLABLE-snapshots")
            .await
            .expect("the consumer");
        let info = consumer.cached_info();
        (
            info.delivered.consumer_sequence,
            info.num_ack_pending,
            info.num_pending,
        )
    }
}

async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = found().await {
                break found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("in vain: {what}"))
}

async fn report(client: &Client, snapshot: &str) -> pb::Report {
    until(snapshot, async || {
        let request = pb::ListReportsRequest {
            snapshot: snapshot.into(),
            ..pb::ListReportsRequest::default()
        };
        let list = client.reconciliation().list_reports(request).await;
        list.expect("a list").into_inner().reports.pop()
    })
    .await
}

fn taken(server: &Server) -> usize {
    server.log().matches("a snapshot was compared").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_two_instances_takes_each_snapshot() {
    let nats = NatsServer::start();
    let setup = || {
        Setup::new()
            .rules(RULES)
            .nats(&nats.url())
            .set("reconciliation.enabled", true)
            .set("reconciliation.policy", "correct")
            .set("reconciliation.up_to_units", 2)
    };
    let (one, mut other) = (setup().start(), setup().shards(2).start());
    let (a, b) = (one.connect().await, other.connect().await);
    let erp = Erp::of(&nats).await;
    let skus: Vec<String> = (0..20).map(|n| format!("S{n}")).collect();
    let stock = skus
        .iter()
        .map(|sku| received(sku, sku, 10, "dc"))
        .collect();
    let posted = a.post(stock).await;
    b.digest(posted.position).await;

    // Each of ten snapshots finds another SKU to be two units fewer, and one that is far off.
    for n in 0..10 {
        let rows = format!("sku,location,good\nS{n},dc,8\nS{},dc,{}\n", n + 10, 100 + n);
        erp.put(&format!("day-{n}.csv"), &[("as_of", AS_OF)], rows)
            .await;
    }
    for n in 0..10 {
        for client in [&a, &b] {
            let found = report(client, &format!("day-{n}.csv")).await;
            let summary = found.summary.expect("a summary");
            assert_eq!((summary.corrected, summary.held), (1, 1), "day {n}");
            assert_eq!((found.source.as_str(), found.up_to_units), ("erp", Some(2)));
        }
    }
    assert_eq!(variances(&a).await, variances(&b).await);
    assert_eq!(variances(&a).await.len(), 10);
    assert_eq!(a.status().await.movements_applied, 30);
    until("all are acknowledged", async || {
        (erp.deliveries().await == (10, 0, 0)).then_some(())
    })
    .await;
    assert_eq!(taken(&one) + taken(&other), 10);

    // JSON, a watermark, a scope, and less than the settings allow.
    let more = [
        ("Watermark", "S19"),
        ("source", "test"),
        ("snapshot", "night"),
        ("scope", "dc"),
        ("policy", "report"),
    ];
    let line = "{\"sku\":\"S0\",\"location\":\"dc\",\"good\":9}\n";
    erp.put("night.ndjson", &more, line).await;
    let night = report(&b, "night").await;
    let summary = night.summary.expect("a summary");
    assert_eq!((night.watermark.as_str(), summary.corrected), ("S19", 0));
    assert_eq!((summary.missing_in_snapshot, summary.reported), (19, 20));

    // Parquet says the same.
    let columns = [
        Cells::texts(["S0"]),
        Cells::texts(["dc"]),
        Cells::I32(vec![Some(9)]),
    ];
    let fields = "required binary sku; required binary location; required int32 good;";
    let line = parquet_file::file(fields, &columns, 1, WriterProperties::default());
    let mut again = more;
    again[2].1 = "again";
    erp.put("night.parquet", &again, &line).await;
    let summary = report(&b, "again").await.summary.expect("a summary");
    assert_eq!((summary.missing_in_snapshot, summary.reported), (19, 20));
    let cut = &line[..line.len() - 1];
    erp.put("cut.parquet", &[("as_of", AS_OF)], cut).await;

    // What cannot be compared is refused once, says why, and is in nobody's way.
    erp.put("undated.csv", &[], "sku,location,good\nS0,dc,8\n")
        .await;
    erp.put(
        "bad.csv",
        &[("as_of", AS_OF)],
        "sku,location,good\nS0,dc,many\n",
    )
    .await;
    erp.bucket.delete("day-1.csv").await.expect("deleted");
    for (name, reason) in [
        ("cut.parquet", "cut off"),
        ("undated.csv", "neither `as_of`"),
        ("bad.csv", "line 2: good"),
    ] {
        until(name, async || {
            let logs = one.log() + &other.log();
            (logs.contains(name) && logs.contains(reason)).then_some(())
        })
        .await;
    }

    // Without the one, the other takes all.
    other.kill();
    let before = taken(&one);
    for n in 0..3 {
        let name = format!("late-{n}.csv");
        erp.put(&name, &[("as_of", AS_OF)], "sku,location,good\nS0,dc,8\n")
            .await;
        report(&a, &name).await;
    }
    assert_eq!(taken(&one), before + 3);
    // Its reports are the same once it is back.
    other.restart();
    let b = other.connect().await;
    assert_eq!(
        report(&a, "late-2.csv").await,
        report(&b, "late-2.csv").await
    );
}

#[test]
fn without_nats_there_is_no_bucket() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sellable"))
        .args([
            "serve",
            "--set",
            "reconciliation.enabled=true",
            "--data-dir",
        ])
        .arg(dir.path())
        .output()
        .expect("the program can be run");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("`reconciliation.enabled`"), "{told}");
}
