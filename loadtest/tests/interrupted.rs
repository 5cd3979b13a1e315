//! Ctrl-C, as a terminal sends it: to the program's whole process group.
#![allow(missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "other processes are asked until they answer"
)]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sellable_loadtest::{proto::StatusRequest, server::Address};
use serde_json::Value;
use support::{DAY, server};
use tempfile::TempDir;

/// Longest wait for something to happen. It ends a test that hangs, and says nothing about speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program under way, with a server that it started.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    dir: TempDir,
}

struct Ended {
    code: Option<i32>,
    stdout: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // The server, which says which process it is and where it answers.
        let binary = dir.path().join("server");
        let script = format!(
            "#!/bin/sh\necho $$ \"$@\" > '{}'\nexec '{}' \"$@\"\n",
            Self::started(dir.path()).display(),
            server().display()
        );
        fs::write(&binary, script).expect("a script");
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&binary, mode).expect("it can be run");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sellable-loadtest"))
            .args(arguments)
            .arg("--json")
            .args(["--server-binary", binary.to_str().expect("text")])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let stderr = child.stderr.take().expect("piped");
        Self {
            child,
            stderr: BufReader::new(stderr),
            dir,
        }
    }

    fn started(dir: &Path) -> PathBuf {
        dir.join("started")
    }

    /// Process id and address of the server.
    fn server(&self) -> (String, String) {
        let said = fs::read_to_string(Self::started(self.dir.path())).expect("it was started");
        let mut words = said.split_whitespace();
        let pid = words.next().expect("its process id").to_owned();
        let address = words.skip_while(|word| *word != "--listen").nth(1);
        (pid, address.expect("an address").to_owned())
    }

    /// Waits until it says this on stderr.
    fn until_it_says(&mut self, part: &str) {
        let mut said = String::new();
        while !said.lines().last().is_some_and(|line| line.contains(part)) {
            let read = self.stderr.read_line(&mut said).expect("text");
            assert_ne!(read, 0, "{part:?} is not in: {said}");
        }
    }

    /// Waits until the log of the server has so many more records.
    fn until_so_many_more(&self, records: u64) {
        let (_, address) = self.server();
        let address = Address::parse(&address).expect("an address");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let channel = address.connect(1).await.expect("it answers").remove(0);
            let timeout = Duration::from_secs(60);
            let link = sellable_loadtest::drive::Link::new(channel, timeout);
            let position = async || {
                let status = link.operations().status(StatusRequest {}).await;
                status.expect("an answer").into_inner().applied_position
            };
            let (first, since) = (position().await, Instant::now());
            while position().await < first + records {
                assert!(since.elapsed() < PATIENCE, "nothing is written");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    fn interrupt(&self) {
        let group = format!("-{}", self.child.id());
        let told = Command::new("kill").args(["-INT", "--", &group]).status();
        assert!(told.expect("kill can be run").success());
    }

    /// Waits for the end of the program, and then of the server.
    fn end(mut self) -> Ended {
        let (server, _) = self.server();
        let mut stdout = String::new();
        let mut pipe = self.child.stdout.take().expect("piped");
        pipe.read_to_string(&mut stdout).expect("text");
        let status = self.child.wait().expect("it ends");
        let since = Instant::now();
        while is_alive(&server) {
            assert!(since.elapsed() < PATIENCE, "the server was left behind");
            thread::sleep(Duration::from_millis(10));
        }
        Ended {
            code: status.code(),
            stdout,
        }
    }
}

/// False for a process that has ended, even if nobody has asked how.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| !state.starts_with('Z'))
}

/// A scenario that takes an hour.
fn hour(dir: &TempDir) -> String {
    let scenario = DAY.replace("seconds = 2\n", "seconds = 3600\n");
    let file = dir.path().join("hour.toml");
    fs::write(&file, scenario).expect("a file");
    file.to_str().expect("text").to_owned()
}

#[test]
fn a_run_that_is_interrupted_is_checked_and_reported() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut running = Running::start(&["run", &hour(&dir)]);
    running.until_it_says("running day");
    running.until_so_many_more(100);
    running.interrupt();
    let ended = running.end();
    assert_eq!(ended.code, Some(1));
    let outcome: Value = serde_json::from_str(&ended.stdout).expect("a report");
    assert_eq!(outcome["verdict"], "failed");
    assert!(outcome["interrupted_after_seconds"].as_f64() > Some(0.0));
    let reasons = outcome["reasons"].as_array().expect("reasons");
    assert!(reasons[0].as_str().expect("text").contains("interrupted"));
    let checks = outcome["checks"].as_array().expect("checks");
    assert!(!checks.is_empty());
    for check in checks {
        assert_eq!(check["wrong"], 0, "{check}");
    }
}

#[test]
fn a_search_that_is_interrupted_tells_what_it_knows() {
    let mut running = Running::start(&[
        "capacity",
        "--rate-first=50",
        "--warm-up=1",
        "--measure=2",
        "--skus=100",
        "--query-p99-ms=60000",
        "--freshness-p99-ms=60000",
        "--sizes=skus=200",
    ]);
    running.until_it_says("50 queries/s: held");
    running.until_so_many_more(10);
    running.interrupt();
    let ended = running.end();
    assert_eq!(ended.code, Some(1));
    let capacity: Value = serde_json::from_str(&ended.stdout).expect("a report");
    let found = capacity["found"].as_array().expect("sizes");
    assert_eq!(found.len(), 1, "the second size was not begun");
    assert_eq!(found[0]["interrupted"], true);
    assert!(found[0]["sustainable"].as_f64() >= Some(50.0));
    assert_ne!(found[0]["checked"], 0);
    assert_eq!(found[0]["wrong"].as_array().map(Vec::len), Some(0));
}

#[test]
fn nothing_is_left_behind_by_an_interrupted_setup() {
    // So much stock that posting it takes a while.
    let mut running = Running::start(&["capacity", "--skus=1000000", "--locations=10"]);
    running.until_it_says("opening stock");
    running.interrupt();
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
}

#[test]
fn a_second_interrupt_ends_it_at_once_and_leaves_no_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("left.toml");
    // Every cart is left alone for an hour, which the checks would wait for.
    let scenario = DAY.replace("seconds = 2\n", "seconds = 3600\n").replace(
        "abandon_seconds = 1",
        "abandon_seconds = 3600\nconfirm_percent = 0\nrelease_percent = 0",
    );
    fs::write(&file, scenario).expect("a file");
    let mut running = Running::start(&["run", file.to_str().expect("text")]);
    running.until_it_says("running day");
    running.until_so_many_more(100);
    running.interrupt();
    running.until_it_says("checking every number");
    running.interrupt();
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""));
}
