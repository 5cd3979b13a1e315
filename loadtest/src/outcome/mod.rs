//! What came of a run: one document for the terminal, for scripts and for the report.

#[cfg(test)]
pub(crate) mod fixture;
mod judge;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    findings::Finding, latency::Percentiles, measure::Kind, processors::Busy,
    queries::report::Errors, scenario::Scenario, session::Ran,
};
pub use judge::{Judgement, Verdict};
pub(crate) use text::new_table;

/// What was run, with all that it takes to run it again, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// In a word, in a line, and why.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// What was run.
    pub setup: Setup,
    /// The scenario, with every key.
    pub scenario: Scenario,
    /// Calls that were sent, followed up ones included.
    pub sent: u64,
    /// Calls that had to wait for the limit of calls in flight.
    pub held_back: u64,
    /// When the run was stopped, in seconds from its start; null if it was not.
    pub interrupted_after_seconds: Option<f64>,
    /// Processors that were busy during the run.
    pub busy: Busy,
    /// Digest of all that was planned: equal seeds and scenarios have equal ones.
    pub plan_digest: String,
    /// What became of carts.
    pub carts: Carts,
    /// Counts and latencies over the phases that are measured.
    pub kinds: Vec<KindOutcome>,
    /// The same over time, the warm-up included.
    pub over_time: OverTime,
    /// What was checked, and what was wrong.
    pub checks: Vec<Finding>,
}

/// Where and with what a scenario was run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Setup {
    /// Address of the server.
    pub server: String,
    /// Version of the server.
    pub server_version: String,
    /// Its log: `embedded` or `jetstream`.
    pub log_engine: String,
    /// Its shards.
    pub shards: u32,
    /// Version of this program.
    pub version: String,
    /// Begins every name of the run.
    pub prefix: String,
    /// The seed.
    pub seed: u64,
    /// Connections.
    pub connections: usize,
    /// Most calls in flight.
    pub in_flight_max: usize,
    /// How long a call may take, in seconds.
    pub timeout_seconds: u64,
    /// When it started, UTC.
    pub started_at: String,
    /// Where the generator ran: operating system, architecture, processors.
    pub host: String,
}

/// What became of carts.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Carts {
    /// Carts that were decided.
    pub decided: u64,
    /// Of these, granted.
    pub granted: u64,
    /// Units granted.
    pub units_granted: u64,
    /// Of these, released or expired, and free for others again.
    pub units_given_back: u64,
    /// Opening stock of the centres, from which carts are served, in units.
    pub units_at_start: u64,
}

/// Counts and latencies of one kind of call.
#[derive(Debug, Clone, Serialize)]
pub struct KindOutcome {
    /// The kind.
    pub kind: Kind,
    /// Calls that were due: `answered` + `failed` + `dropped`.
    pub due: u64,
    /// Calls answered at the first try.
    pub answered: u64,
    /// Calls whose first try failed.
    pub failed: u64,
    /// Calls that were never sent.
    pub dropped: u64,
    /// Calls that had nothing to be about.
    pub passed_over: u64,
    /// Calls due per second of the phases that are measured.
    pub rate_due: f64,
    /// Calls answered per second of these.
    pub rate_reached: f64,
    /// Failed calls by code.
    pub errors: BTreeMap<String, Errors>,
    /// From when a call was due to its answer, of the answered calls.
    pub latency_ns: Percentiles,
    /// Part of it that passed before the call was handed to its connection, of all calls sent.
    pub send_delay_ns: Percentiles,
    /// The whole distribution: quantile (0 to 1) and latency in milliseconds.
    pub curve: Vec<(f64, f64)>,
}

/// What happened when.
#[derive(Debug, Clone, Serialize)]
pub struct OverTime {
    /// Length of a stretch of time, in seconds.
    pub stretch_seconds: u64,
    /// The phases.
    pub phases: Vec<PhaseSpan>,
    /// Each kind of call.
    pub kinds: Vec<Series>,
}

/// When a phase was.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseSpan {
    /// Its name.
    pub name: String,
    /// Its beginning, in seconds from the start.
    pub from_seconds: u64,
    /// Its end.
    pub to_seconds: u64,
    /// True if it is not measured.
    pub warm_up: bool,
}

/// One kind of call over time.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// The kind.
    pub kind: Kind,
    /// By stretch of time.
    pub points: Vec<Point>,
}

/// One stretch of time.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Its beginning, in seconds from the start.
    pub second: u64,
    /// Calls that were due in it, per second.
    pub due_per_second: f64,
    /// Calls that were answered in it, per second.
    pub answered_per_second: f64,
    /// Calls that were due in it and failed or were dropped.
    pub failed: u64,
    /// Half of the calls that were due in it took at most this, in milliseconds.
    pub p50_ms: Option<f64>,
    /// All but one in 100; in a stretch with fewer calls, the greatest.
    pub p99_ms: Option<f64>,
}

impl Outcome {
    /// Puts together what was sent and what came back.
    pub fn new(setup: Setup, scenario: &Scenario, ran: &Ran) -> Self {
        let kinds = kinds(scenario, ran);
        let checks = ran.world.findings.all();
        let (decided, granted) = ran.carts();
        let catalogue = &scenario.catalogue;
        let mut outcome = Self {
            judgement: Judgement::default(),
            setup,
            scenario: scenario.clone(),
            sent: ran.sent.sent,
            held_back: ran.sent.held_back,
            interrupted_after_seconds: ran.sent.interrupted.map(|at| at.as_secs_f64()),
            busy: ran.busy,
            plan_digest: ran.digest.clone(),
            carts: Carts {
                decided,
                granted,
                units_granted: ran.granted_units(),
                units_given_back: ran.returned_units(),
                units_at_start: u64::from(catalogue.skus)
                    * u64::from(catalogue.centres)
                    * catalogue.centre_units.unsigned_abs(),
            },
            kinds,
            over_time: over_time(scenario, ran),
            checks,
        };
        outcome.judgement = judge::judge(&outcome);
        outcome
    }

    /// One kind of call, if there were any.
    pub fn kind(&self, kind: Kind) -> Option<&KindOutcome> {
        self.kinds.iter().find(|found| found.kind == kind)
    }
}

fn kinds(scenario: &Scenario, ran: &Ran) -> Vec<KindOutcome> {
    // What follows a cart comes a little after the phases; the time of that belongs to none.
    let seconds = (scenario.seconds() - scenario.warm_up_seconds()) as f64;
    let seconds = match ran.sent.interrupted {
        Some(at) => (at.as_secs_f64() - scenario.warm_up_seconds() as f64).clamp(0.001, seconds),
        None => seconds.max(0.001),
    };
    let tallies = Kind::ALL.map(|kind| (kind, ran.world.recorder.tally(kind)));
    let used = tallies
        .iter()
        .filter(|(_, tally)| tally.planned + tally.passed_over > 0);
    used.map(|(kind, tally)| KindOutcome {
        kind: *kind,
        due: tally.planned,
        answered: tally.answered,
        failed: tally.failed,
        dropped: tally.dropped,
        passed_over: tally.passed_over,
        rate_due: tally.planned as f64 / seconds,
        rate_reached: tally.answered as f64 / seconds,
        errors: tally
            .errors
            .iter()
            .map(|(code, (count, first))| {
                let errors = Errors {
                    count: *count,
                    first: first.clone(),
                };
                (code.clone(), errors)
            })
            .collect(),
        latency_ns: tally.latency.percentiles(),
        send_delay_ns: tally.delay.percentiles(),
        curve: tally.latency.curve(),
    })
    .collect()
}

fn over_time(scenario: &Scenario, ran: &Ran) -> OverTime {
    let recorder = &ran.world.recorder;
    let each = recorder.stretch().as_secs();
    let mut from = 0;
    let phases = scenario.phases.iter().map(|phase| {
        let begin = from;
        from += u64::from(phase.seconds);
        PhaseSpan {
            name: phase.name.clone(),
            from_seconds: begin,
            to_seconds: from,
            warm_up: phase.warm_up,
        }
    });
    let phases = phases.collect();
    let kinds = Kind::ALL.iter().filter_map(|kind| {
        let tally = recorder.tally(*kind);
        if tally.stretches.is_empty() {
            return None;
        }
        // The last stretch is for all that came later.
        let whole = tally.stretches.len() - 1;
        let points = tally.stretches[..whole].iter().enumerate();
        let points = points.map(|(n, stretch)| Point {
            second: n as u64 * each,
            due_per_second: stretch.planned as f64 / each as f64,
            answered_per_second: stretch.answered as f64 / each as f64,
            failed: stretch.failed,
            p50_ms: stretch.percentile_ms(0.5),
            p99_ms: stretch.percentile_ms(0.99),
        });
        Some(Series {
            kind: *kind,
            points: points.collect(),
        })
    });
    OverTime {
        stretch_seconds: each,
        kinds: kinds.collect(),
        phases,
    }
}
