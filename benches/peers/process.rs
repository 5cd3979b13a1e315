//! Servers as processes of their own, on loopback. None of them outlives the benchmark.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// Longest wait for a server to answer. It ends a benchmark that hangs, and says nothing about
/// speed.
const READY_MAX: Duration = Duration::from_secs(60);
/// The user that Debian's package of PostgreSQL makes: the server refuses to be run by root.
pub(crate) const POSTGRES_USER: &str = "postgres";

/// A running server. Dropping it ends it.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    stop: Signal,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it says goes to a file below `dir`.
    ///
    /// # Panics
    /// If it cannot be run.
    pub(crate) fn start(
        name: &'static str,
        dir: &Path,
        stop: Signal,
        mut command: Command,
    ) -> Self {
        let path = dir.join(format!("{}.log", name.replace([' ', ','], "-")));
        let log = File::create(&path).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be run: {error}"));
        Self {
            name,
            child,
            stop,
            log: path,
        }
    }

    /// What `ask` is answered, once it is.
    ///
    /// # Panics
    /// If the server ends or does not answer in a minute; with what it said.
    pub(crate) async fn answer<T, E: std::fmt::Display>(
        &mut self,
        ask: impl AsyncFn() -> Result<T, E>,
    ) -> T {
        let started = Instant::now();
        loop {
            let error = match ask().await {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            let ended = self.child.try_wait().expect("a child has a state");
            if ended.is_some() || started.elapsed() > READY_MAX {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                panic!("{} does not answer: {error}\n{said}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has not been waited for, so that its number cannot have gone to another process.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, self.stop);
        }
        let _ = self.child.wait();
    }
}

/// A command that gets the signal `stop` when the benchmark ends, however it does.
pub(crate) fn tied(program: &Path, stop: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", stop, "--"]).arg(program);
    command
}

/// The same as a user that PostgreSQL accepts. It may pass directories that are root's alone, as
/// root's home is.
pub(crate) fn tied_unprivileged(program: &Path, stop: &str) -> Command {
    if !geteuid().is_root() {
        return tied(program, stop);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", stop, "--clear-groups"])
        .arg(format!("--reuid={POSTGRES_USER}"))
        .arg(format!("--regid={POSTGRES_USER}"))
        .args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"])
        .arg("--")
        .arg(program);
    command
}

/// Whether root runs this.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A program on the `PATH`, or in one of `dirs`.
pub(crate) fn find(program: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = dirs.iter().cloned().chain(std::env::split_paths(&path));
    let files = places.map(|dir| dir.join(program));
    files.into_iter().find(|file| file.is_file())
}
