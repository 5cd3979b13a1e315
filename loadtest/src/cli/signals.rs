//! Signals that ask the program to end: Ctrl-C, SIGTERM, and the end of its terminal.

use std::{fs, io, time::Instant};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// From now on they no longer end the process by themselves.
    pub(super) fn listen() -> io::Result<Self> {
        let hangup = match hangup_is_ignored() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// Says so to `stop` at the first, and ends with the second.
    pub(super) async fn twice(mut self, stop: watch::Sender<Option<Instant>>) {
        self.next().await;
        stop.send_replace(Some(Instant::now()));
        eprintln!("stopping: what was run is checked and reported; Ctrl-C again ends at once");
        self.next().await;
    }

    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// As `nohup` asks for, whose programs outlive their terminal.
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is signal 1, the hangup.
    ignored.is_some_and(|mask| mask & 1 == 1)
}
