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

/// How many processors were busy, on the mean of some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Busy {
    /// Processors that the generator may use.
    pub there_are: usize,
    /// With the generator.
    pub generator: Option<f64>,
    /// With the server, if the generator started it.
    pub server: Option<f64>,
}

impl Busy {
    /// True if generator and server together leave next to nothing.
    pub fn all_are(&self) -> bool {
        let both = self.generator.unwrap_or(0.0) + self.server.unwrap_or(0.0);
        self.there_are > 0 && both > FULL * self.there_are as f64
    }

    /// In a few words: `generator 0.9, server 1.1 of 2 processors`. Empty if nothing is known.
    pub fn to_text(&self) -> String {
        let sides = [("generator", self.generator), ("server", self.server)];
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
    generator: Option<Duration>,
    server: Option<(u32, Duration)>,
}

impl Meter {
    /// Of this process, and of a server on this machine.
    pub fn start(server: Option<u32>) -> Self {
        Self {
            since: Instant::now(),
            generator: time_of("self"),
            server: server.and_then(|pid| Some((pid, time_of(&pid.to_string())?))),
        }
    }

    /// Until now.
    pub fn read(&self) -> Busy {
        let seconds = self.since.elapsed().as_secs_f64();
        let busy = |process: &str, before: Duration| {
            let taken = time_of(process)?.saturating_sub(before);
            Some(taken.as_secs_f64() / seconds)
        };
        Busy {
            there_are: std::thread::available_parallelism().map_or(1, usize::from),
            generator: self.generator.and_then(|before| busy("self", before)),
            server: self
                .server
                .and_then(|(pid, before)| busy(&pid.to_string(), before)),
        }
    }
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
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
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
            generator: Some(0.94),
            server: None,
        };
        assert_eq!(busy.to_text(), "generator 0.9 of 2 processors");
        busy.server = Some(1.1);
        assert_eq!(busy.to_text(), "generator 0.9, server 1.1 of 2 processors");
        assert!(busy.all_are());
        busy.generator = Some(0.2);
        assert!(!busy.all_are());
        assert_eq!(Busy::default().to_text(), "");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_may_use_what_it_is_told_it_may() {
        let there_are = std::thread::available_parallelism().expect("known");
        assert!(allowed("self").len() >= usize::from(there_are));
        assert!(time_of("self").is_some());
    }
}
