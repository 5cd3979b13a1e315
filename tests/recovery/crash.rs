//! Processes that are killed (SIGKILL) at random moments while movements are posted: what was
//! acknowledged is there afterwards, and posting the same file again brings the books to where an
//! undisturbed run brings them.
//!
//! `SELLABLE_TEST_SEED=…` plays one run again, as far as chance in the operating system lets it.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use sellable::{
    proto::v1::{self as pb, movement::Kind},
    wire::text::to_json_line,
};
use serde_json::Value;

use crate::{
    nats::NatsServer,
    server::{PATIENCE, Server, Setup, movement, received},
};

/// Movements of the file: enough that a kill comes in between.
const MOVEMENTS: u64 = 60_000;
/// Kills of each test.
const KILLS: usize = 5;
/// Exit code of the program if the server cannot be reached.
const UNAVAILABLE: i32 = 4;

/// Random numbers, and the seed on the test's output.
fn random() -> StdRng {
    let seed = match std::env::var("SELLABLE_TEST_SEED") {
        Ok(text) => text.parse().expect("SELLABLE_TEST_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("SELLABLE_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A file of movements that touch the same cells and order lines again and again.
struct Movements {
    dir: tempfile::TempDir,
}

impl Movements {
    fn new(random: &mut StdRng) -> Self {
        let movements = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        let mut output = BufWriter::new(File::create(movements.file()).expect("a file"));
        for number in 0..MOVEMENTS {
            let line = to_json_line(&any_movement(number, random)).expect("has a form");
            writeln!(output, "{line}").expect("written");
        }
        output.flush().expect("written");
        movements
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("movements.ndjson")
    }

    /// A file of its first lines.
    fn first(&self, count: u64) -> PathBuf {
        let path = self.dir.path().join("first.ndjson");
        let mut output = BufWriter::new(File::create(&path).expect("a file"));
        let lines = BufReader::new(File::open(self.file()).expect("the file")).lines();
        for line in lines.take(count as usize) {
            writeln!(output, "{}", line.expect("a line")).expect("written");
        }
        output.flush().expect("written");
        path
    }
}

fn any_movement(number: u64, random: &mut StdRng) -> pb::Movement {
    let id = format!("m-{number}");
    let sku = format!("sku-{}", random.random_range(0..300));
    let location = format!("store-{}", random.random_range(0..5));
    let quantity = random.random_range(1..100);
    let order = format!("order-{}", random.random_range(0..2_000));
    let line = "1".to_owned();
    match random.random_range(0..6) {
        0 | 1 => received(&id, &sku, quantity, &location),
        2 => {
            let adjusted = Kind::Adjusted(pb::Adjusted {
                location,
                condition: pb::Condition::Damaged.into(),
                reason: "found".into(),
            });
            movement(&id, &sku, -quantity, adjusted)
        }
        3 => {
            let reserved = Kind::Reserved(pb::Reserved {
                order,
                line,
                location,
                channel: "web".into(),
                expires_at: None,
            });
            movement(&id, &sku, quantity, reserved)
        }
        4 => {
            let released = Kind::Released(pb::Released {
                order,
                line,
                location: String::new(),
            });
            movement(&id, &sku, quantity, released)
        }
        _ => {
            let shipped = Kind::Shipped(pb::Shipped {
                order,
                line,
                location,
            });
            movement(&id, &sku, quantity, shipped)
        }
    }
}

/// A `sellable post` under way. Dropping it kills it.
struct Posting(Option<Child>);

impl Posting {
    fn start(server: &Server, file: &Path, patience: u64) -> Self {
        let file = file.to_str().expect("a path in UTF-8");
        let patience = patience.to_string();
        let mut command = server.command(&["post", file, "--quiet", "--json"]);
        let child = command
            .args(["--patience", &patience])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be run");
        Self(Some(child))
    }

    /// Whether it has ended by itself.
    fn has_ended(&mut self) -> bool {
        let child = self.0.as_mut().expect("it was started");
        child.try_wait().expect("a child has a state").is_some()
    }

    /// Waits for its end: its exit code, and what it reports.
    fn end(mut self) -> (i32, Value) {
        let output = self.0.take().expect("it was started").wait_with_output();
        let output = output.expect("a child can be waited for");
        let code = output.status.code().expect("it was not killed");
        let report = serde_json::from_slice(&output.stdout);
        (code, report.expect("it reports in JSON"))
    }
}

impl Drop for Posting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child can be waited for");
        }
    }
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().expect("a number")
}

/// Movements that the server has seen: new ones and repeats.
async fn seen(server: &Server) -> u64 {
    let status = server.connect().await.status().await;
    status.movements_applied + status.movements_duplicate
}

/// Posts the whole file to a server of its own that nobody disturbs.
async fn undisturbed(movements: &Movements) -> String {
    let mut server = Setup::new().start();
    let (code, report) = Posting::start(&server, &movements.file(), 60).end();
    assert_eq!((code, number(&report, "applied")), (0, MOVEMENTS));
    let digest = server.connect().await.digest(0).await.digest;
    server.stop();
    digest
}

/// Lets the posting go on until it has posted `count` movements, or has ended.
async fn go_on_a_while(server: &Server, posting: &mut Posting, count: u64, random: &mut StdRng) {
    let client = server.connect().await;
    let enough = seen(server).await + count;
    let started = std::time::Instant::now();
    loop {
        let status = client.status().await;
        if status.movements_applied + status.movements_duplicate >= enough || posting.has_ended() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "posting does not go on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Now and then in the middle of a write, or between it and the answer.
    tokio::time::sleep(Duration::from_micros(random.random_range(0..3_000))).await;
}

/// Kills the server at random moments; each time the posting gives up, and says how much it had
/// been told was stored. All of that must be there, and in the end everything.
async fn killed_while_posting(setup: Setup) {
    let mut random = random();
    let movements = Movements::new(&mut random);
    let wanted = undisturbed(&movements).await;
    let mut server = setup.start();
    let mut interrupted = 0;
    let mut acknowledged_max = 0;
    for kill in 1..=KILLS as u64 {
        let mut posting = Posting::start(&server, &movements.file(), 0);
        // Each time further into the file, so that new movements are always under way.
        let part = MOVEMENTS / KILLS as u64;
        let count = random.random_range(part * (kill - 1)..part * kill * 9 / 10);
        go_on_a_while(&server, &mut posting, count, &mut random).await;
        server.kill();
        let (code, report) = posting.end();
        assert!([0, UNAVAILABLE].contains(&code), "{code}: {report}");
        interrupted += usize::from(code == UNAVAILABLE);
        let acknowledged = number(&report, "total");
        acknowledged_max = acknowledged_max.max(acknowledged);
        println!("kill {kill}: {acknowledged} of {MOVEMENTS} acknowledged: {report}");
        server.restart();
        assert!(server.connect().await.status().await.movements_applied >= acknowledged_max);
        // They are acknowledged in order, so these and no others are known to be stored.
        let (code, report) = Posting::start(&server, &movements.first(acknowledged), 60).end();
        assert_eq!(code, 0, "{report}");
        assert_eq!(number(&report, "duplicate"), acknowledged, "{report}");
    }
    assert!(interrupted > 0, "no kill came while movements were posted");
    let (code, report) = Posting::start(&server, &movements.file(), 60).end();
    println!("in the end: {report}");
    assert_eq!((code, number(&report, "total")), (0, MOVEMENTS));
    assert!(number(&report, "duplicate") >= acknowledged_max);
    let client = server.connect().await;
    assert_eq!(client.digest(0).await.digest, wanted);
    assert_eq!(client.status().await.movements_applied, MOVEMENTS);
    server.stop();
}

/// A posting with patience lives through all of it: it needs nobody to start it again.
async fn killed_and_waited_for(setup: Setup, mut nats: Option<&mut NatsServer>) {
    let mut random = random();
    let movements = Movements::new(&mut random);
    let wanted = undisturbed(&movements).await;
    let mut server = setup.start();
    let mut posting = Posting::start(&server, &movements.file(), PATIENCE.as_secs());
    let mut interrupted = 0;
    for _ in 0..KILLS {
        // A few at a time: all the kills have to fit into one posting.
        let enough = seen(&server).await + random.random_range(1..MOVEMENTS / 10);
        while seen(&server).await < enough && !posting.has_ended() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        interrupted += usize::from(!posting.has_ended());
        match &mut nats {
            Some(nats) if random.random() => nats.restart(),
            _ => {
                server.kill();
                server.restart();
            }
        }
    }
    let (code, report) = posting.end();
    println!("{interrupted} kills while posting: {report}");
    assert_eq!((code, number(&report, "total")), (0, MOVEMENTS));
    assert!(interrupted > 0, "no kill came while movements were posted");
    let client = server.connect().await;
    assert_eq!(client.digest(0).await.digest, wanted);
    assert_eq!(client.status().await.movements_applied, MOVEMENTS);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_has_all_that_it_acknowledged() {
    killed_while_posting(Setup::new().shards(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_on_jetstream_has_all_that_it_acknowledged() {
    let nats = NatsServer::start();
    killed_while_posting(Setup::new().shards(2).nats(&nats.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_posting_waits_for_a_killed_server() {
    killed_and_waited_for(Setup::new(), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_posting_waits_for_killed_servers_of_nats_and_ours() {
    let mut nats = NatsServer::start();
    let setup = Setup::new().nats(&nats.url());
    killed_and_waited_for(setup, Some(&mut nats)).await;
}
