//! Callers of which each has one call under way, all sides in turn, and what they come to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use crate::support::{self, median};

/// One of those who call.
pub(crate) trait Caller: Send + 'static {
    /// One call, and its answer. Lines that it reserved, or carts that it looked at.
    fn call(&mut self) -> impl Future<Output = u64> + Send;
}

/// How it is measured.
pub(crate) struct Load<'r> {
    pub(crate) runtime: &'r Runtime,
    pub(crate) rounds: usize,
    /// Of one measurement.
    pub(crate) time: Duration,
    /// Callers that were made, in groups.
    pub(crate) runs: &'r AtomicUsize,
}

/// One of those that are compared.
pub(crate) struct Side<'r> {
    name: &'static str,
    measure: Box<dyn FnMut(Duration) -> Done + 'r>,
    counter: Option<Counter<'r>>,
}

/// Tells how much is reserved in all on the server of this name.
struct Counter<'r> {
    server: &'static str,
    count: Box<dyn FnMut() -> i64 + 'r>,
}

/// What one measurement came to.
struct Done {
    work: u64,
    elapsed: Duration,
    latencies_us: Histogram<u64>,
}

/// What one side came to in all rounds.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    /// Lines or carts a second, by round.
    pub(crate) rates: Vec<f64>,
    pub(crate) latencies_us: Histogram<u64>,
}

impl Measured {
    /// The median of the rounds.
    pub(crate) fn rate(&self) -> f64 {
        median(&self.rates)
    }
}

impl<'r> Load<'r> {
    /// A number for the ids of a group of callers, so that no two groups have the same.
    pub(crate) fn next_run(&self) -> usize {
        self.runs.fetch_add(1, Relaxed)
    }

    /// A side with its callers.
    pub(crate) fn side<C: Caller>(&self, name: &'static str, mut callers: Vec<C>) -> Side<'r> {
        let runtime = self.runtime;
        Side {
            name,
            measure: Box::new(move |time| runtime.block_on(measure(&mut callers, time))),
            counter: None,
        }
    }

    /// Measures all sides, each round in another order. Each of them is synced to the disk before,
    /// so that nobody pays for what another one left to be written.
    ///
    /// # Panics
    /// If a server counts more or less than its callers were granted.
    pub(crate) fn alternate(&self, what: &str, mut sides: Vec<Side<'_>>) -> Vec<Measured> {
        let mut all: Vec<Measured> = sides
            .iter()
            .map(|side| Measured {
                name: side.name,
                rates: Vec::new(),
                latencies_us: histogram(),
            })
            .collect();
        let mut work = vec![0; sides.len()];
        let before: Vec<i64> = sides.iter_mut().map(Side::count).collect();
        // The first round only warms up.
        for round in 0..=self.rounds {
            for turn in 0..sides.len() {
                let at = (round + turn) % sides.len();
                let side = &mut sides[at];
                rustix::fs::sync();
                let time = if round == 0 { self.time / 2 } else { self.time };
                let done = (side.measure)(time);
                work[at] += done.work;
                let rate = done.work as f64 / done.elapsed.as_secs_f64();
                if round > 0 {
                    all[at].rates.push(rate);
                    let known = &mut all[at].latencies_us;
                    known.add(&done.latencies_us).expect("the same range");
                }
                eprintln!(
                    "{what}: round {round} of {}: {:>9} /s  {}",
                    self.rounds,
                    support::figure(rate),
                    side.name
                );
            }
        }
        for at in 0..sides.len() {
            let Some(server) = sides[at].server() else {
                continue;
            };
            let granted: u64 = (0..sides.len())
                .filter(|side| sides[*side].server() == Some(server))
                .map(|side| work[side])
                .sum();
            let counted = sides[at].count() - before[at];
            assert_eq!(counted, granted as i64, "{server}: units reserved");
        }
        all
    }
}

impl<'r> Side<'r> {
    /// With a question for what is reserved in all on its server, to compare with what callers were
    /// granted.
    pub(crate) fn counted_by(
        mut self,
        server: &'static str,
        count: impl FnMut() -> i64 + 'r,
    ) -> Self {
        let count = Box::new(count);
        self.counter = Some(Counter { server, count });
        self
    }

    fn server(&self) -> Option<&'static str> {
        self.counter.as_ref().map(|counter| counter.server)
    }

    fn count(&mut self) -> i64 {
        let counter = self.counter.as_mut();
        counter.map_or(0, |counter| (counter.count)())
    }
}

async fn measure<C: Caller>(callers: &mut Vec<C>, time: Duration) -> Done {
    let ends = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let mut tasks = Vec::new();
    for mut caller in callers.drain(..) {
        let ends = Arc::clone(&ends);
        tasks.push(tokio::spawn(async move {
            let (mut work, mut latencies_us) = (0, histogram());
            while !ends.load(Relaxed) {
                let sent = Instant::now();
                work += caller.call().await;
                let us = sent.elapsed().as_micros() as u64;
                latencies_us.saturating_record(us.max(1));
            }
            (caller, work, latencies_us)
        }));
    }
    tokio::time::sleep(time).await;
    ends.store(true, Relaxed);
    let mut done = Done {
        work: 0,
        elapsed: Duration::ZERO,
        latencies_us: histogram(),
    };
    for task in tasks {
        let (caller, work, latencies_us) = task.await.expect("callers do not panic");
        callers.push(caller);
        done.work += work;
        done.latencies_us.add(latencies_us).expect("the same range");
    }
    done.elapsed = started.elapsed();
    done
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds")
}
