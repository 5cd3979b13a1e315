//! Processors: which of them a process may use, and how many it keeps busy. Linux says so in
//! `/proc`; elsewhere nothing is told.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::Serialize;

/// Ticks of processor time in a second, as `/proc` counts them on every architecture.
const TICKS_PER_SECOND: u64 = 100;
/// Busier than this part of all processors, next to none is left to take more.
const FULL: f64 = 0.85;
/// If others take more than this part of all processors, latencies are theirs as well.
const SPOILT: f64 = 0.15;

/// How many processors were busy, on the mean of some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Busy {
    /// Processors that the generator may use.
    pub there_are: usize,
    /// With the generator.
    pub generator: Option<f64>,
    /// With the server, if the generator started it.
    pub server: Option<f64>,
    /// With everything else on this machine, and with other machines of the same host.
    pub others: Option<f64>,
}

impl Busy {
    /// True if next to nothing of the machine is left.
    pub fn all_are(&self) -> bool {
        let sides = [self.generator, self.server, self.others];
        let all: f64 = sides.into_iter().flatten().sum();
        self.there_are > 0 && all > FULL * self.there_are as f64
    }

    /// Processors that programs take which are no part of the run, if they are enough to spoil it.
    pub fn spoilt_by(&self) -> Option<f64> {
        // Of a server that was not started for the run it is not known which it is.
        let others = self.server.and(self.others)?;
        (others > SPOILT * self.there_are as f64).then_some(others)
    }

    /// In a few words: `generator 0.9, server 1.1 of 2 processors`. Empty if nothing is known.
    pub fn to_text(&self) -> String {
        let others = match self.server {
            Some(_) => "others",
            None => "everything else",
        };
        let sides = [
            ("generator", self.generator),
            ("server", self.server),
            (others, self.others),
        ];
        let known: Vec<String> = sides
            .into_iter()
            .filter_map(|(name, busy)| Some(format!("{name} {:.1}", busy?)))
            .collect();
        match known.is_empty() {
            true => String::new(),
            false => format!("{} of {} processors", known.join(", "), self.there_are),
        }
    }
}

/// Measures from now on.
#[derive(Debug)]
pub struct Meter {
    since: Instant,
    server: Option<u32>,
    before: [Option<Duration>; 3],
}

impl Meter {
    /// Of this process, and of a server on this machine.
    pub fn start(server: Option<u32>) -> Self {
        Self {
            since: Instant::now(),
            server,
            before: times(server),
        }
    }

    /// Until now.
    pub fn read(&self) -> Busy {
        let seconds = self.since.elapsed().as_secs_f64();
        let after = times(self.server);
        let [generator, server, machine] = [0, 1, 2].map(|at| {
            let taken = after[at]?.saturating_sub(self.before[at]?);
            Some(taken.as_secs_f64() / seconds)
        });
        let own = generator.unwrap_or(0.0) + server.unwrap_or(0.0);
        Busy {
            there_are: std::thread::available_parallelism().map_or(1, usize::from),
            generator,
            server,
            others: machine.map(|machine| (machine - own).max(0.0)),
        }
    }
}

/// Processor time so far: of this program, of a server, and of the whole machine.
fn times(server: Option<u32>) -> [Option<Duration>; 3] {
    [
        time_of("self"),
        server.and_then(|pid| time_of(&pid.to_string())),
        time_of_machine(),
    ]
}

/// Numbers of the processors that a process may use: `self`, or its id. Empty if not told.
pub fn allowed(process: &str) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.map_or_else(Vec::new, |list| numbers(list.trim()))
}

/// Reads `0-2,5`.
fn numbers(list: &str) -> Vec<u32> {
    let spans = list.split(',').filter_map(|span| {
        let (from, to) = span.split_once('-').unwrap_or((span, span));
        Some(from.parse::<u32>().ok()?..=to.parse().ok()?)
    });
    spans.flatten().collect()
}

/// Processor time that a process has taken, in the kernel and outside of it.
fn time_of(process: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name, which may hold anything; these are the 14th and the
    // 15th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(of_ticks(ticks()? + ticks()?))
}

/// Processor time that was not idle since the machine started.
fn time_of_machine() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let all = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = all
        .split_whitespace()
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    // In this order; what guests take is part of `user`.
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    Some(of_ticks(user + nice + system + irq + softirq + steal))
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_spans_and_single_numbers() {
        assert_eq!(numbers("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(numbers("7"), [7]);
        assert!(numbers("").is_empty());
    }

    #[test]
    fn busy_processors_are_told_as_far_as_they_are_known() {
        let mut busy = Busy {
            there_are: 2,
            generator: Some(0.5),
            server: None,
            others: Some(0.84),
        };
        assert_eq!(
            busy.to_text(),
            "generator 0.5, everything else 0.8 of 2 processors"
        );
        assert_eq!((busy.spoilt_by(), busy.all_are()), (None, false));
        busy.server = Some(0.5);
        assert_eq!(
            busy.to_text(),
            "generator 0.5, server 0.5, others 0.8 of 2 processors"
        );
        assert_eq!((busy.spoilt_by(), busy.all_are()), (Some(0.84), true));
        assert_eq!(Busy::default().to_text(), "");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_may_use_what_it_is_told_it_may() {
        let there_are = std::thread::available_parallelism().expect("known");
        assert!(allowed("self").len() >= usize::from(there_are));
        assert!(time_of("self").is_some() && time_of_machine() > time_of("self"));
    }
}
