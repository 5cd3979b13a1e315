//! The highest rate at which an objective still holds.
//!
//! By doubling until it breaks, then by halving what is between. Each step is a run of its own with
//! a warm-up, over one catalogue; at the end every number is checked as after any run, since a rate
//! at which wrong answers come is none.

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
    scenario::{Catalogue, Objective, Phase, Rate, Scenario, Shopping, Span, Watchers},
    session::{Access, Session},
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

/// Searches on one server. `tell` is told before each step, and of the setup.
///
/// # Errors
/// If a step could not be carried out.
pub async fn search(
    question: &Question,
    (size, varied): (&Size, Option<Dimension>),
    access: Access,
    (prefix, seed): (&str, u64),
    tell: &dyn Fn(String),
    stop: Stop,
) -> Result<Found, Failure> {
    let least = question.scenario(size, question.rate_first);
    least.check("capacity")?;
    tell(format!("{size}: opening stock"));
    let mut session = Session::open(access, &least, prefix, seed).await?;
    let began = std::time::Instant::now();
    session.set_up(&least, &Progress::default()).await?;
    let posted = session.opening_movements() as f64 / began.elapsed().as_secs_f64();
    let mut search = Search {
        question,
        size,
        session: &session,
        stop,
        steps: Vec::new(),
        last: None,
    };
    let (sustainable, breaks) = search.find(tell).await?;
    let (checked, wrong) = search.check(tell).await;
    Ok(Found {
        size: Size {
            shards: session.status.shards,
            ..*size
        },
        varied,
        sustainable,
        plan_for: sustainable * f64::from(100 - question.headroom_percent) / 100.0,
        not_found: breaks.is_empty(),
        breaks,
        steps: search.steps,
        setup_movements_per_second: posted,
        checked,
        wrong,
        server_version: session.status.version.clone(),
        log_engine: session.status.log_engine.clone(),
    })
}

/// A rate that does not hold, and why.
type Broken = (f64, String);

struct Search<'a> {
    question: &'a Question,
    size: &'a Size,
    session: &'a Session,
    stop: Stop,
    steps: Vec<Step>,
    last: Option<(Scenario, crate::session::Ran)>,
}

impl Search<'_> {
    /// The highest rate that held, and what broke beyond it.
    async fn find(&mut self, tell: &dyn Fn(String)) -> Result<(f64, String), Failure> {
        let question = self.question;
        let first = question.rate_first;
        let (mut holds, broken) = match self.step(first, tell).await? {
            None => self.double(first, tell).await?,
            Some(why) => self.halve((first, why), tell).await?,
        };
        let Some((mut breaks_at, mut breaks)) = broken else {
            return Ok((holds, String::new()));
        };
        let near = f64::from(question.within_percent) / 100.0;
        // If nothing holds, there is nothing between.
        while holds > 0.0 && (breaks_at - holds) / holds > near {
            let between = ((breaks_at + holds) / 2.0).round();
            match self.step(between, tell).await? {
                None => holds = between,
                Some(why) => (breaks_at, breaks) = (between, why),
            }
        }
        Ok((holds, breaks))
    }

    /// From a rate that holds up to one that does not, if there is one.
    async fn double(
        &mut self,
        mut holds: f64,
        tell: &dyn Fn(String),
    ) -> Result<(f64, Option<Broken>), Failure> {
        while holds < self.question.rate_max {
            let next = (holds * 2.0).min(self.question.rate_max);
            if let Some(why) = self.step(next, tell).await? {
                return Ok((holds, Some((next, why))));
            }
            holds = next;
        }
        Ok((holds, None))
    }

    /// From a rate that does not hold down to one that does; 0 if there is none.
    async fn halve(
        &mut self,
        mut broken: Broken,
        tell: &dyn Fn(String),
    ) -> Result<(f64, Option<Broken>), Failure> {
        while broken.0 >= 2.0 * RATE_LEAST {
            let next = (broken.0 / 2.0).round();
            match self.step(next, tell).await? {
                None => return Ok((next, Some(broken))),
                Some(why) => broken = (next, why),
            }
        }
        Ok((0.0, Some(broken)))
    }

    /// Why a rate does not hold. Asked twice before it is believed: on a machine that others use as
    /// well, one stall of theirs would halve the answer.
    async fn step(&mut self, rate: f64, tell: &dyn Fn(String)) -> Result<Option<String>, Failure> {
        let mut why = None;
        for attempt in 0..2 {
            let again = if attempt > 0 { ", again" } else { "" };
            tell(format!("{}: {rate:.0} queries/s{again}", self.size));
            let step = self.run(rate).await?;
            let (held, reasons) = (step.held, step.reasons.join("; "));
            self.steps.push(step);
            if self.stop.borrow().is_some() {
                return Err(Failure::failed("interrupted before the search was over"));
            }
            if held {
                return Ok(None);
            }
            why = Some(reasons);
        }
        Ok(why)
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
            reasons: outcome.judgement.reasons,
        })
    }

    /// Checks the books over all steps.
    async fn check(&self, tell: &dyn Fn(String)) -> (u64, Vec<String>) {
        let Some((scenario, ran)) = &self.last else {
            return (0, Vec::new());
        };
        tell(format!("{}: checking every number", self.size));
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
