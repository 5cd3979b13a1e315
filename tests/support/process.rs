//! The program run to its end, with what it printed.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::disallowed_methods,
    reason = "another process is asked until it answers"
)]

use std::{
    io::Read,
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for a process. It ends a test that hangs, and says nothing about speed.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a process left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts the exit code, and that stderr says all of this.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            let found = self.stderr.contains(part);
            assert!(found, "{part:?} is missing in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self
    }
}

/// The program, without the settings of whoever runs the tests.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sellable"));
    without_settings(&mut command);
    command
}

/// Takes the settings of whoever runs the tests away.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SELLABLE_") {
            command.env_remove(name);
        }
    }
}

/// Runs a command to its end; kills it, and fails, if it has none.
pub(crate) fn run(mut command: Command) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program can be run");
    end_of(child)
}

/// The same, with its standard input.
pub(crate) fn run_with_input(mut command: Command, input: &[u8]) -> Ended {
    use std::io::Write;
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A program that refuses need not read it.
    thread::spawn(move || drop(stdin.write_all(&input)));
    end_of(child)
}

/// Waits for the end of a child whose output is piped.
pub(crate) fn end_of(mut child: Child) -> Ended {
    let stdout = child.stdout.take().map(reader);
    let stderr = child.stderr.take().map(reader);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child has a state") {
            break Some(status);
        }
        if started.elapsed() > PATIENCE {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child can be waited for");
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.map_or_else(String::new, |reader| reader.join().expect("it reads"))
    };
    let ended = Ended {
        code: status.and_then(|status| status.code()),
        stdout: text(stdout),
        stderr: text(stderr),
    };
    assert!(status.is_some(), "it does not end: {ended:?}");
    ended
}

fn reader(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Of a killed process, what came counts.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
    probe.local_addr().expect("an address").port()
}
