//! A Sellable server that is started for a run, on loopback, and ends with it.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{Failure, processors, server::Address};

const START_MAX: Duration = Duration::from_secs(30);
const START_POLL: Duration = Duration::from_millis(50);
/// A port is free until someone else takes it in between; then others are tried.
const STARTS_MAX: usize = 5;

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The program.
    pub binary: PathBuf,
    /// Its shards; none: as it likes.
    pub shards: Option<u32>,
    /// How many of this program's processors it may use; none: all.
    pub processors: Option<u32>,
    /// NATS server whose stream is its log; none: a log of its own.
    pub nats: Option<String>,
    /// Further settings, `key=value`.
    pub settings: Vec<String>,
}

/// A running server with a data directory of its own. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Process {
    child: Child,
    dir: TempDir,
    /// Where it answers.
    pub address: Address,
}

impl Launch {
    /// Starts a server, with an empty log unless that is on NATS.
    ///
    /// # Errors
    /// If it cannot be run, or does not come up.
    pub async fn start(&self) -> Result<Process, Failure> {
        let mut last = None;
        for _ in 0..STARTS_MAX {
            match self.try_start().await {
                Ok(process) => return Ok(process),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.unwrap_or_else(|| Failure::failed("no server was started")))
    }

    async fn try_start(&self) -> Result<Process, Failure> {
        let failed = |error| Failure::failed(format!("cannot prepare a server: {error}"));
        let dir = tempfile::tempdir().map_err(failed)?;
        let (grpc, http) = free_ports().map_err(failed)?;
        let stderr = std::fs::File::create(log_of(&dir)).map_err(failed)?;
        let mut command = self.command()?;
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{grpc}")])
            .args(["--http-listen", &format!("127.0.0.1:{http}")])
            .arg("--data-dir")
            .arg(dir.path().join("data"));
        if let Some(shards) = self.shards {
            command.args(["--shards", &shards.to_string()]);
        }
        if let Some(nats) = &self.nats {
            command.args(["--nats", nats]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let child = command
            // Ctrl-C goes to the whole group of a terminal, and is not for the server: it has to
            // answer for what was run.
            .process_group(0)
            // A settings file that happens to lie in the working directory is not for it.
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.cannot_run(&error))?;
        let mut process = Process {
            child,
            dir,
            address: Address::parse(&format!("127.0.0.1:{grpc}"))?,
        };
        process.wait_until_it_answers().await?;
        Ok(process)
    }

    fn command(&self) -> Result<Command, Failure> {
        let mut command = match self.processors {
            None => Command::new(&self.binary),
            Some(count) => {
                let mut command = Command::new("taskset");
                command
                    .args(["-c", &first_processors(count)?])
                    .arg(&self.binary);
                command
            }
        };
        // Whoever starts a load test does not want its own server's settings for this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SELLABLE_") {
                command.env_remove(name);
            }
        }
        Ok(command)
    }

    fn cannot_run(&self, error: &std::io::Error) -> Failure {
        match self.processors {
            None => Failure::usage(format!("cannot run {}: {error}", self.binary.display()))
                .hint("name the program `sellable` with --server-binary"),
            Some(_) => Failure::usage(format!("cannot run taskset: {error}"))
                .hint("processors are varied with it; it is part of util-linux"),
        }
    }
}

/// The first of the processors that this program may use, as `taskset` takes them: `0,1`.
fn first_processors(count: u32) -> Result<String, Failure> {
    let allowed = processors::allowed("self");
    let first: Vec<String> = allowed
        .iter()
        .take(count as usize)
        .map(u32::to_string)
        .collect();
    if first.len() < count as usize {
        return Err(Failure::usage(format!(
            "a server on {count} processors: this program may use {}",
            allowed.len()
        ))
        .hint("ask for fewer, or run it on a larger machine"));
    }
    Ok(first.join(","))
}

impl Process {
    /// Its process id; none once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How many processors it may use, as the system says; none if that is not told.
    pub fn processors(&self) -> Option<u32> {
        let allowed = processors::allowed(&self.id()?.to_string());
        u32::try_from(allowed.len()).ok().filter(|count| *count > 0)
    }

    /// Ends it in order. What does not end in time is ended by dropping it.
    pub async fn stop(mut self) {
        // It was not waited for so far, so that its number is still its own.
        let Some(pid) = self.child.id() else { return };
        let told = Command::new("kill").arg(pid.to_string()).status().await;
        if told.is_ok_and(|status| status.success()) {
            let _ = tokio::time::timeout(START_MAX, self.child.wait()).await;
        }
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let ended = self.child.try_wait();
            let ended = ended.map_err(|error| Failure::failed(error.to_string()))?;
            if let Some(status) = ended {
                return Err(Failure::failed(format!(
                    "the server ended at its start with {status}: {}",
                    self.said()
                )));
            }
            if self.address.connect(1).await.is_ok() {
                return Ok(());
            }
            if started.elapsed() > START_MAX {
                let said = self.said();
                return Err(Failure::unavailable(format!(
                    "the server does not answer: {said}"
                )));
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    fn said(&self) -> String {
        let text = std::fs::read_to_string(log_of(&self.dir)).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

fn log_of(dir: &TempDir) -> PathBuf {
    Path::new(dir.path()).join("stderr.log")
}

/// Two different ones.
fn free_ports() -> std::io::Result<(u16, u16)> {
    let (one, other) = (
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    );
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}
