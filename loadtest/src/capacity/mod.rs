//! The highest rate at which an objective still holds.
//!
//! By doubling until it breaks, then by halving what is between. Each step is a run of its own with
//! a warm-up, over one catalogue; at the end every number is checked as after any run, since a rate
//! at which wrong answers come is none. A search that is stopped tells what it knows so far.

mod size;
mod text;

use std::sync::Arc;

use serde::Serialize;

use crate::{
    Failure,
    drive::{World, setup::Progress},
    measure::Kind,
    outcome::{Outcome, Setup, Verdict},
    pacer::Stop,
    processors::Busy,
    scenario::{Catalogue, Objective, Phase, Rate, Scenario, Shopping, Span, Watchers},
    session::{Access, Session},
    words::number,
};
pub use size::{Dimension, Size, Variation};
pub(crate) use text::{COLUMNS, row};

/// Queries per second below which nothing is searched.
const RATE_LEAST: f64 = 20.0;

/// What is asked: which load, for how long, and what has to hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Question {
    /// What has to hold.
    pub objective: Objective,
    /// Queries per second of the first step.
    pub rate_first: f64,
    /// Queries per second beyond which is not searched.
    pub rate_max: f64,
    /// Movements for each query.
    pub movements_per_query: f64,
    /// Carts for each query.
    pub reserves_per_query: f64,
    /// SKUs of one query.
    pub skus_per_query: u32,
    /// Freshness probes per second.
    pub probes: f64,
    /// Seconds of a step that are not measured.
    pub warm_up_seconds: u32,
    /// Seconds of a step that are.
    pub measure_seconds: u32,
    /// It is searched until the rate that holds and the one that does not are so near, in percent.
    pub within_percent: u32,
    /// Part of the rate that is to stay free, in percent.
    pub headroom_percent: u32,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Queries per second that were due.
    pub rate: f64,
    /// Queries per second that were answered.
    pub rate_reached: f64,
    /// True if the objective held.
    pub held: bool,
    /// Why it did not.
    pub reasons: Vec<String>,
    /// 99th percentile of queries, in milliseconds.
    pub query_p99_ms: Option<f64>,
    /// The same of freshness.
    pub freshness_p99_ms: Option<f64>,
    /// The same of reservations.
    pub reserve_p99_ms: Option<f64>,
    /// Processors that were busy.
    pub busy: Busy,
}

/// What was found for one size.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The size.
    pub size: Size,
    /// What was varied to get it; none: the base.
    pub varied: Option<Dimension>,
    /// Highest rate that held, in queries per second; 0: not even the first.
    pub sustainable: f64,
    /// What to plan with: the same less the headroom.
    pub plan_for: f64,
    /// True if it held at the highest rate that was to be tried.
    pub not_found: bool,
    /// True if the search was stopped before it was over.
    pub interrupted: bool,
    /// What broke first beyond it.
    pub breaks: String,
    /// All steps, in order.
    pub steps: Vec<Step>,
    /// Opening stock posted, in movements per second.
    pub setup_movements_per_second: f64,
    /// Checks at the end, over all steps.
    pub checked: u64,
    /// Of these, wrong.
    pub wrong: Vec<String>,
    /// Version of the server.
    pub server_version: String,
    /// Its log: `embedded` or `jetstream`.
    pub log_engine: String,
}

/// What was asked, and what was found.
#[derive(Debug, Clone, Serialize)]
pub struct Capacity {
    /// Where and with what.
    pub setup: Setup,
    /// What was asked.
    pub question: Question,
    /// What was found, by size.
    pub found: Vec<Found>,
}

/// What a search tells meanwhile.
#[derive(Debug, Clone)]
pub enum Told {
    /// What it is about to do.
    Begins(String),
    /// What came of a step.
    Ended(String),
}

impl Question {
    /// The scenario of one step.
    pub fn scenario(&self, size: &Size, rate: f64) -> Scenario {
        let phase = |name: &str, seconds, warm_up| Phase {
            name: name.to_owned(),
            seconds,
            warm_up,
            queries: Rate::constant(rate),
            reserves: Rate::constant(rate * self.reserves_per_query),
            movements: Rate::constant(rate * self.movements_per_query),
            returns: Rate::default(),
            probes: Rate::constant(self.probes),
        };
        let centres = size.locations.min(2);
        Scenario {
            name: "capacity".to_owned(),
            summary: "One step of a search".to_owned(),
            catalogue: Catalogue {
                skus: size.skus,
                centres,
                stores: size.locations - centres,
                stores_per_sku: size.locations - centres,
                // So much that nothing sells out: what is refused is less work, and each step plans
                // with the opening stock of stores anew, although those before have sold of it.
                centre_units: 1_000_000,
                store_units: 1_000_000,
                channels: (1..=size.channels)
                    .map(|n| format!("channel-{n:02}"))
                    .collect(),
            },
            shopping: Shopping {
                skus_per_query: Span::new(1, self.skus_per_query.min(size.skus)),
                cart_lines: Span::new(1, 4.min(size.skus)),
                // Nothing is left to expire, so that the next step can follow at once.
                confirm_percent: 80,
                release_percent: 20,
                think_ms: Span::new(50, 300),
                pack_ms: Span::new(50, 300),
                ..Shopping::default()
            },
            movements: crate::scenario::Movements {
                batch: 10,
                ..crate::scenario::Movements::default()
            },
            watchers: Watchers::default(),
            replay: None,
            objective: self.objective.clone(),
            phases: vec![
                phase("warm-up", self.warm_up_seconds, true),
                phase("measured", self.measure_seconds, false),
            ],
        }
    }
}

/// Searches on one server. `tell` is told what it does and what comes of it. None if it was stopped
/// before the first step.
///
/// # Errors
/// If a step could not be carried out.
pub async fn search(
    question: &Question,
    (size, varied): (&Size, Option<Dimension>),
    access: Access,
    (prefix, seed): (&str, u64),
    tell: &dyn Fn(Told),
    stop: Stop,
) -> Result<Option<Found>, Failure> {
    let least = question.scenario(size, question.rate_first);
    tell(Told::Begins(format!("{size}: opening stock")));
    let mut session = Session::open(access, &least, prefix, seed).await?;
    let began = std::time::Instant::now();
    let (mut stopped, progress) = (stop.clone(), Progress::default());
    tokio::select! {
        ready = session.set_up(&least, &progress) => ready?,
        _ = stopped.wait_for(Option::is_some) => return Ok(None),
    }
    let posted = session.opening_movements() as f64 / began.elapsed().as_secs_f64();
    let mut search = Search {
        question,
        size,
        session: &session,
        stop,
        tell,
        known: Known::default(),
        steps: Vec::new(),
        last: None,
    };
    let interrupted = !search.find().await?;
    let (checked, wrong) = search.check().await;
    let Known { holds, broken } = search.known;
    Ok(Some(Found {
        size: Size {
            shards: session.status.shards,
            ..*size
        },
        varied,
        sustainable: holds,
        plan_for: holds * f64::from(100 - question.headroom_percent) / 100.0,
        not_found: broken.is_none() && !interrupted,
        interrupted,
        breaks: broken.map_or_else(String::new, |(_, why)| why),
        steps: search.steps,
        setup_movements_per_second: posted,
        checked,
        wrong,
        server_version: session.status.version.clone(),
        log_engine: session.status.log_engine.clone(),
    }))
}

/// What is known so far.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    /// Highest rate that held; 0: none did.
    holds: f64,
    /// Lowest rate that did not, and why.
    broken: Option<(f64, String)>,
}

impl Known {
    /// The rate to try next; none if what was asked is known.
    fn next(&self, question: &Question) -> Option<f64> {
        let holds = self.holds;
        let Some((breaks, _)) = self.broken else {
            let next = (holds * 2.0).clamp(question.rate_first, question.rate_max);
            return (holds < question.rate_max).then_some(next);
        };
        let is_known = match holds > 0.0 {
            true => (breaks - holds) / holds <= f64::from(question.within_percent) / 100.0,
            false => breaks < 2.0 * RATE_LEAST,
        };
        (!is_known).then_some(((breaks + holds) / 2.0).round())
    }
}

struct Search<'a> {
    question: &'a Question,
    size: &'a Size,
    session: &'a Session,
    stop: Stop,
    tell: &'a dyn Fn(Told),
    known: Known,
    steps: Vec<Step>,
    last: Option<(Scenario, crate::session::Ran)>,
}

impl Search<'_> {
    /// False if it was stopped.
    async fn find(&mut self) -> Result<bool, Failure> {
        while let Some(rate) = self.known.next(self.question) {
            let mut step = self.step(rate, "").await?;
            // Asked once more before it is believed: on a machine that others use as well, one
            // stall of theirs would halve the answer.
            if step.as_ref().is_some_and(|step| !step.held) {
                step = self.step(rate, ", again").await?;
            }
            match step {
                None => return Ok(false),
                Some(step) if step.held => self.known.holds = rate,
                Some(step) => self.known.broken = Some((rate, step.why())),
            }
        }
        Ok(true)
    }

    /// One step; none if it was stopped, and so says nothing.
    async fn step(&mut self, rate: f64, again: &str) -> Result<Option<Step>, Failure> {
        let what = format!("{}: {} queries/s{again}", self.size, number(rate as u64));
        (self.tell)(Told::Begins(what.clone()));
        let step = self.run(rate).await?;
        if self.stop.borrow().is_some() {
            return Ok(None);
        }
        (self.tell)(Told::Ended(format!("{what}: {}", step.in_short())));
        self.steps.push(step.clone());
        Ok(Some(step))
    }

    async fn run(&mut self, rate: f64) -> Result<Step, Failure> {
        let scenario = self.question.scenario(self.size, rate);
        scenario.check("capacity")?;
        let part = format!("s{}-", self.steps.len() + 1);
        let watch = |_: &Arc<World>| {};
        let stop = self.stop.clone();
        let ran = self
            .session
            .run(&scenario, &part, None, watch, stop)
            .await?;
        let outcome = Outcome::new(Setup::default(), &scenario, &ran);
        self.last = Some((scenario, ran));
        let p99_ms = |kind| {
            let p99 = outcome.kind(kind)?.latency_ns.p99?;
            Some(p99 as f64 / 1e6)
        };
        Ok(Step {
            rate,
            rate_reached: outcome
                .kind(Kind::Query)
                .map_or(0.0, |kind| kind.rate_reached),
            held: outcome.judgement.verdict == Verdict::Held,
            query_p99_ms: p99_ms(Kind::Query),
            freshness_p99_ms: p99_ms(Kind::Freshness),
            reserve_p99_ms: p99_ms(Kind::Reserve),
            busy: outcome.busy,
            reasons: outcome.judgement.reasons,
        })
    }

    /// Checks the books over all steps.
    async fn check(&self) -> (u64, Vec<String>) {
        let Some((scenario, ran)) = &self.last else {
            return (0, Vec::new());
        };
        (self.tell)(Told::Begins(format!(
            "{}: checking every number",
            self.size
        )));
        self.session.verify(scenario, ran).await;
        let findings = ran.world.findings.all();
        let wrong = findings.iter().filter(|finding| finding.wrong > 0);
        let wrong = wrong.map(|finding| {
            let example = finding.examples.first().cloned().unwrap_or_default();
            format!(
                "{}: {} wrong, first: {example}",
                finding.what, finding.wrong
            )
        });
        let wrong = wrong.collect();
        (findings.iter().map(|finding| finding.checked).sum(), wrong)
    }
}

#[cfg(test)]
mod tests;
