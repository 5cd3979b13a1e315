//! What was measured, as Markdown and as JSON.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use crate::{
    host::Host,
    load::Measured,
    support::{Goal, Rounds, figure},
};

/// Everything.
pub(crate) struct Report {
    pub(crate) host: Host,
    /// How it was run.
    pub(crate) how: String,
    pub(crate) sections: Vec<Section>,
    pub(crate) memory: Vec<Memory>,
    /// A table of another benchmark, and the version of NATS that it ran with.
    pub(crate) intake: Option<(String, String)>,
}

/// One workload.
pub(crate) struct Section {
    title: String,
    unit: &'static str,
    sides: Vec<Measured>,
    comparisons: Vec<Comparison>,
}

struct Comparison {
    ours: &'static str,
    against: &'static str,
    rounds: Rounds,
    goal: Goal,
}

/// Bytes for one of something.
pub(crate) struct Memory {
    pub(crate) what: &'static str,
    /// Quoted from `benches/memory.rs`.
    pub(crate) ours: f64,
    pub(crate) peer: &'static str,
    pub(crate) theirs: f64,
    /// For ours, in bytes.
    pub(crate) goal: f64,
}

impl Section {
    pub(crate) fn new(title: String, unit: &'static str, sides: Vec<Measured>) -> Self {
        Self {
            title,
            unit,
            sides,
            comparisons: Vec::new(),
        }
    }

    /// One side against another, round by round.
    ///
    /// # Panics
    /// If a side was not measured.
    pub(crate) fn compare(mut self, ours: &'static str, against: &'static str, goal: Goal) -> Self {
        let rates = |name| {
            let side = self.sides.iter().find(|side| side.name == name);
            &side.expect("it was measured").rates
        };
        let mut rounds = Rounds::default();
        for (ours, theirs) in rates(ours).iter().zip(rates(against)) {
            rounds.push(*ours, *theirs);
        }
        self.comparisons.push(Comparison {
            ours,
            against,
            rounds,
            goal,
        });
        self
    }

    fn json(&self) -> Value {
        let sides = self.sides.iter().map(|side| {
            let at = |quantile| side.latencies_us.value_at_quantile(quantile);
            json!({
                "side": side.name, "median": side.rate(), "rounds": side.rates,
                "p50_us": at(0.5), "p99_us": at(0.99), "p99_9_us": at(0.999),
                "calls": side.latencies_us.len(),
            })
        });
        let comparisons = self.comparisons.iter().map(|comparison| {
            let (low, middle, high) = comparison.rounds.ratio();
            json!({
                "side": comparison.ours, "against": comparison.against,
                "ratio": middle, "min": low, "max": high,
                "goal": comparison.goal.to_string(), "verdict": comparison.goal.verdict(middle),
            })
        });
        json!({
            "workload": self.title, "unit": self.unit,
            "sides": sides.collect::<Vec<_>>(), "comparisons": comparisons.collect::<Vec<_>>(),
        })
    }
}

impl Report {
    /// The whole as JSON.
    pub(crate) fn json(&self) -> Value {
        let facts = self.host.facts.iter();
        let facts = facts.map(|(name, value)| ((*name).to_owned(), json!(value)));
        let memory = self.memory.iter().map(|memory| {
            json!({
                "what": memory.what, "ours_bytes_quoted": memory.ours, "peer": memory.peer,
                "peer_bytes": memory.theirs, "goal_bytes": memory.goal,
            })
        });
        json!({
            "host": facts.collect::<serde_json::Map<_, _>>(),
            "how": self.how,
            "workloads": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
            "memory": memory.collect::<Vec<_>>(),
        })
    }

    /// What is slower than its peer, and what is short of its goal.
    fn losses(&self) -> impl Iterator<Item = (&Section, &Comparison)> {
        let all = self.sections.iter();
        let all = all.flat_map(|section| {
            let comparisons = section.comparisons.iter();
            comparisons.map(move |comparison| (section, comparison))
        });
        all.filter(|(_, comparison)| {
            let middle = comparison.rounds.ratio().1;
            middle < 1.0 || comparison.goal.verdict(middle) == "short"
        })
    }
}

impl Display for Section {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let unit = self.unit;
        writeln!(f, "### {}\n", self.title)?;
        writeln!(
            f,
            "| | {unit} | min to max | p50 ms | p99 ms | p99.9 ms | calls |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|")?;
        for side in &self.sides {
            let at = |quantile| side.latencies_us.value_at_quantile(quantile) as f64 / 1e3;
            let low = side.rates.iter().copied().fold(f64::INFINITY, f64::min);
            let high = side.rates.iter().copied().fold(0.0, f64::max);
            writeln!(
                f,
                "| {} | {} | {} to {} | {:.2} | {:.2} | {:.2} | {} |",
                side.name,
                figure(side.rate()),
                figure(low),
                figure(high),
                at(0.5),
                at(0.99),
                at(0.999),
                figure(side.latencies_us.len() as f64),
            )?;
        }
        writeln!(f, "\n| | against | ratio | min to max | goal | |")?;
        writeln!(f, "|---|---|---:|---:|---:|---|")?;
        for comparison in &self.comparisons {
            let (low, middle, high) = comparison.rounds.ratio();
            writeln!(
                f,
                "| {} | {} | **{middle:.2}** | {low:.2} to {high:.2} | {} | {} |",
                comparison.ours,
                comparison.against,
                comparison.goal,
                comparison.goal.verdict(middle)
            )?;
        }
        Ok(())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(include_str!("before.md"))?;
        for (name, value) in &self.host.facts {
            writeln!(f, "| {name} | {value} |")?;
        }
        if let Some((_, nats)) = &self.intake {
            writeln!(f, "| nats-server | {nats} |")?;
        }
        writeln!(f, "| run | {} |", self.how)?;
        writeln!(f, "\n## What was measured\n")?;
        for section in &self.sections {
            writeln!(f, "{section}")?;
        }
        if !self.memory.is_empty() {
            writeln!(f, "### Memory\n")?;
            writeln!(f, "| bytes for | ours (quoted) | peer | | ratio | goal | |")?;
            writeln!(f, "|---|---:|---|---:|---:|---:|---|")?;
        }
        for memory in &self.memory {
            writeln!(
                f,
                "| {} | {} | {} | {} | **{:.2}** | <= {:.0} B | {} |",
                memory.what,
                figure(memory.ours),
                memory.peer,
                figure(memory.theirs),
                memory.ours / memory.theirs,
                memory.goal,
                Goal::AtMost(memory.goal).verdict(memory.ours)
            )?;
        }
        if !self.memory.is_empty() {
            writeln!(f, "\n{}", include_str!("memory.md"))?;
        }
        if let Some((table, _)) = &self.intake {
            writeln!(f, "### JetStream\n")?;
            writeln!(f, "{table}\n\n{}", include_str!("intake.md"))?;
        }
        writeln!(f, "## Where we lose\n")?;
        writeln!(
            f,
            "Every ratio above that is below 1, or short of its goal:\n"
        )?;
        writeln!(f, "| workload | | against | ratio | min to max | goal |")?;
        writeln!(f, "|---|---|---|---:|---:|---:|")?;
        for (section, comparison) in self.losses() {
            let (low, middle, high) = comparison.rounds.ratio();
            writeln!(
                f,
                "| {} | {} | {} | **{middle:.2}** | {low:.2} to {high:.2} | {} |",
                section.title, comparison.ours, comparison.against, comparison.goal
            )?;
        }
        write!(f, "\n{}", include_str!("after.md"))
    }
}
