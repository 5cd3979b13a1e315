//! The real program as a process of its own, on loopback, for tests.
//!
//! What a test knows of it is what an operator knows: its ports, its signals, its exit code and
//! what it prints.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::disallowed_methods,
    reason = "another process is asked until it answers"
)]

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use sellable::proto::v1::{
    self as pb, availability_client::AvailabilityClient, feeds_client::FeedsClient,
    movements_client::MovementsClient, operations_client::OperationsClient,
    reconciliation_client::ReconciliationClient, reservations_client::ReservationsClient,
    rules_client::RulesClient,
};
use tonic::transport::{Channel, Endpoint};

/// Longest wait for anything. It ends a test that hangs, and says nothing about speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(10);
/// Largest answer that a client of these tests takes: 1,000 SKUs by location.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The channel of [`RULES`].
pub(crate) const CHANNEL: &str = "web";

/// Rules in which every term counts, so that a wrong one shows.
pub(crate) const RULES: &str = "\
[channel.web]
sources = [\"*\"]
buffer = 3
share_percent = 90
";

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    settings: Vec<(String, String)>,
    environment: Vec<(String, OsString)>,
    rules: Option<String>,
}

impl Setup {
    /// One shard, the embedded log, no rules.
    pub(crate) fn new() -> Self {
        Self::default().set("shards", "1")
    }

    /// With one more setting, by the name of its key.
    pub(crate) fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((key.into(), value.to_string()));
        self
    }

    /// With a variable in its environment.
    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With so many shards.
    pub(crate) fn shards(self, shards: usize) -> Self {
        self.set("shards", shards)
    }

    /// With its log on this NATS server.
    pub(crate) fn nats(self, url: &str) -> Self {
        self.set("nats.url", url)
    }

    /// With rules in a file, which [`Server::rules_file`] names.
    pub(crate) fn rules(mut self, toml: &str) -> Self {
        self.rules = Some(toml.into());
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Server {
        let mut server = self.start_unready();
        server.wait_until_ready();
        server
    }

    /// Starts it; it answers its probes, but need not be ready.
    pub(crate) fn start_unready(self) -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        self.start_in(dir)
    }

    /// The same over a directory in which a log may lie already, see [`data_dir`].
    pub(crate) fn start_in(self, dir: tempfile::TempDir) -> Server {
        if let Some(toml) = &self.rules {
            fs::write(dir.path().join(RULES_FILE), toml).expect("a rules file");
        }
        let mut server = Server {
            setup: self,
            child: None,
            grpc_port: 0,
            http_port: 0,
            dir,
        };
        // A port is free until someone else takes it in between; then others are tried.
        for _ in 0..10 {
            (server.grpc_port, server.http_port) = free_ports();
            match server.try_spawn() {
                Started::Answers => return server,
                Started::PortTaken => {}
            }
        }
        panic!("no free ports are found");
    }
}

const RULES_FILE: &str = "rules.toml";

/// Where a server that is started in a directory keeps its log.
pub(crate) fn data_dir(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("data")
}

enum Started {
    Answers,
    PortTaken,
}

/// A running server, or one that was stopped and may be started again on the same data. Dropping
/// it kills it; what it printed is shown if the test fails.
pub(crate) struct Server {
    setup: Setup,
    child: Option<Child>,
    grpc_port: u16,
    http_port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    /// Where it answers gRPC.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc_port)
    }

    /// Where it answers HTTP.
    pub(crate) fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Its rules file.
    pub(crate) fn rules_file(&self) -> PathBuf {
        self.dir.path().join(RULES_FILE)
    }

    /// Where its log lies, if that is embedded.
    pub(crate) fn journal_dir(&self) -> PathBuf {
        data_dir(&self.dir)
    }

    /// What it has printed so far, over all its starts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }

    fn try_spawn(&mut self) -> Started {
        let printed_before = self.log().len();
        let stderr = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("a log file");
        let mut command = program();
        command.arg("serve");
        command.args(["--listen", &format!("127.0.0.1:{}", self.grpc_port)]);
        command.args(["--http-listen", &format!("127.0.0.1:{}", self.http_port)]);
        command.arg("--data-dir").arg(data_dir(&self.dir));
        if self.setup.rules.is_some() {
            command.arg("--rules").arg(self.rules_file());
        }
        for (key, value) in &self.setup.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.envs(self.setup.environment.iter().cloned());
        // A settings file that happens to lie in the working directory is not for tests.
        command.current_dir(self.dir.path());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the program can be run");
        self.child = Some(child);
        let started = Instant::now();
        while self.get("/livez").is_none() {
            let child = self.child.as_mut().expect("just started");
            if let Some(status) = child.try_wait().expect("a child has a state") {
                self.child = None;
                let printed = self.log().split_off(printed_before);
                assert!(
                    printed.contains("another process listens there"),
                    "the server ended at its start with {status}: {printed}"
                );
                return Started::PortTaken;
            }
            assert!(started.elapsed() < PATIENCE, "it does not answer /livez");
            thread::sleep(POLL);
        }
        Started::Answers
    }

    /// Waits until `/readyz` says yes.
    pub(crate) fn wait_until_ready(&mut self) {
        let started = Instant::now();
        while self.get("/readyz").is_none_or(|(status, _)| status != 200) {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("a child has a state") {
                panic!("the server ended with {status} before it was ready");
            }
            assert!(started.elapsed() < PATIENCE, "it does not get ready");
            thread::sleep(POLL);
        }
    }

    /// Status and body of a page; `None` if nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        self.fetch(path).map(|(status, _, body)| (status, body))
    }

    /// Status, head and body of a page; `None` if nobody answers.
    pub(crate) fn fetch(&self, path: &str) -> Option<(u16, String, String)> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.http_port));
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = ask().ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, head.into(), body.into()))
    }

    /// Sends a signal to this one process, by name as in `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        // It has not been waited for, so that its number cannot have gone to another process.
        let pid = self.child.as_ref().expect("it runs").id();
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -s {name} {pid}"))
            .status()
            .expect("sh can be run");
        assert!(sent.success(), "no signal could be sent");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        let child = self.child.as_mut().expect("it runs");
        loop {
            if let Some(status) = child.try_wait().expect("a child has a state") {
                self.child = None;
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end");
            thread::sleep(POLL);
        }
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let pid = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<usize>().ok())
            .expect("a number of KiB")
            * 1_024
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("a child has a state")
    }

    /// Stops it as an operator does, and makes sure that it ends well.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "it ended with {status} after SIGTERM");
        assert!(
            self.log().contains("stopped"),
            "it did not say that it stopped"
        );
    }

    /// Kills it as a crash does (SIGKILL); its data stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child can be waited for");
        }
    }

    /// Starts it again, on the same ports and data, and waits until it is ready.
    pub(crate) fn restart(&mut self) {
        self.restart_unready();
        self.wait_until_ready();
    }

    /// Starts it again, on the same ports and data.
    pub(crate) fn restart_unready(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        let started = Instant::now();
        // Another process may hold a port for a moment, since they are from the range of those
        // that the system gives to connections.
        while let Started::PortTaken = self.try_spawn() {
            assert!(started.elapsed() < PATIENCE, "its port stays taken");
            thread::sleep(POLL);
        }
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> Client {
        let channel = Endpoint::from_shared(self.url())
            .expect("an address")
            .connect()
            .await
            .expect("the server takes connections");
        Client { channel }
    }

    /// The program as a client of this server: `arguments`, then which server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).args(["--server", &self.url()]);
        command.current_dir(self.dir.path());
        command
    }

    /// Runs the program as a client of this server.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the program can be run")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- the server printed:\n{}---", self.log());
        }
    }
}

/// A connection to a server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) fn availability(&self) -> AvailabilityClient<Channel> {
        AvailabilityClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn feeds(&self) -> FeedsClient<Channel> {
        FeedsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn movements(&self) -> MovementsClient<Channel> {
        MovementsClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    pub(crate) fn reconciliation(&self) -> ReconciliationClient<Channel> {
        ReconciliationClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn reservations(&self) -> ReservationsClient<Channel> {
        ReservationsClient::new(self.channel.clone())
    }

    pub(crate) fn rules(&self) -> RulesClient<Channel> {
        RulesClient::new(self.channel.clone())
    }

    /// Posts one batch, and gives the answer if every movement of it was applied.
    pub(crate) async fn post(&self, movements: Vec<pb::Movement>) -> pb::PostResponse {
        let answer = self.movements().post(pb::PostRequest { movements }).await;
        let answer = answer.expect("posted").into_inner();
        for outcome in &answer.outcomes {
            assert_eq!(outcome.outcome(), pb::Outcome::Applied, "{outcome:?}");
        }
        answer
    }

    /// Answer of [`CHANNEL`] for one SKU.
    pub(crate) async fn ats(
        &self,
        sku: &str,
        min_position: u64,
    ) -> Result<pb::GetResponse, tonic::Status> {
        let request = pb::GetRequest {
            channel: CHANNEL.into(),
            skus: vec![sku.into()],
            include_locations: false,
            min_position,
        };
        let answer = self.availability().get(request).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Digest at this position or later; makes sure that no unit was made or lost.
    pub(crate) async fn digest(&self, min_position: u64) -> pb::DigestResponse {
        let digest = patiently(async {
            loop {
                match self
                    .operations()
                    .digest(pb::DigestRequest { min_position })
                    .await
                {
                    Ok(digest) => break digest.into_inner(),
                    // Its own patience is shorter than that of a test on a busy machine.
                    Err(status) if status.code() == tonic::Code::DeadlineExceeded => {}
                    Err(status) => panic!("no digest: {status}"),
                }
            }
        })
        .await;
        assert_eq!(digest.conservation_violations, 0, "{digest:?}");
        digest
    }

    pub(crate) async fn status(&self) -> pb::StatusResponse {
        let status = self.operations().status(pb::StatusRequest {}).await;
        status.expect("a status").into_inner()
    }
}

/// Waits, but not for ever.
pub(crate) async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it hangs")
}

/// Two ports that nobody listens on. Both are held until both are known, so that they differ.
fn free_ports() -> (u16, u16) {
    let probe = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (one, other) = (probe(), probe());
    let port = |probe: &TcpListener| probe.local_addr().expect("an address").port();
    (port(&one), port(&other))
}

/// The program, without the settings of whoever runs the tests.
fn program() -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_sellable")));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SELLABLE_") {
            command.env_remove(name);
        }
    }
    command
}

/// A movement that puts units on a shelf.
pub(crate) fn received(id: &str, sku: &str, quantity: i64, location: &str) -> pb::Movement {
    movement(
        id,
        sku,
        quantity,
        pb::movement::Kind::Received(pb::Received {
            location: location.into(),
            condition: pb::Condition::Unspecified.into(),
            ..pb::Received::default()
        }),
    )
}

/// A movement of source `test`, some time ago.
pub(crate) fn movement(
    id: &str,
    sku: &str,
    quantity: i64,
    kind: pb::movement::Kind,
) -> pb::Movement {
    pb::Movement {
        id: id.into(),
        source: "test".into(),
        occurred_at: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        sku: sku.into(),
        quantity,
        kind: Some(kind),
        ..pb::Movement::default()
    }
}
