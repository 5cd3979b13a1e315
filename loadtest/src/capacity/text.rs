//! Capacity on a terminal.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment};

use super::{Capacity, Found, Question};
use crate::{outcome::new_table, report::axis::short, words::number};

/// Names of the columns of [`row`].
pub(crate) const COLUMNS: [&str; 11] = [
    "SKUS",
    "LOCATIONS",
    "CELLS",
    "CHANNELS",
    "SHARDS",
    "CORES",
    "QUERIES/S",
    "MOVEMENTS/S",
    "CARTS/S",
    "P99 MS, FRESHNESS",
    "PLAN FOR",
];

/// One size: how large it is, what it takes, and what to plan with.
pub(crate) fn row(question: &Question, found: &Found) -> [String; COLUMNS.len()] {
    let rate = found.sustainable;
    let size = &found.size;
    let at = found
        .steps
        .iter()
        .rfind(|step| step.held && step.rate == rate);
    let ms = |ms: Option<f64>| ms.map_or_else(|| "–".to_owned(), short);
    let p99 = at.map_or_else(
        || "–".to_owned(),
        |step| format!("{}, {}", ms(step.query_p99_ms), ms(step.freshness_p99_ms)),
    );
    let whole = |value: f64| number(value.round() as u64);
    let more = if found.not_found { "≥ " } else { "" };
    [
        number(u64::from(size.skus)),
        size.locations.to_string(),
        number(size.cells()),
        size.channels.to_string(),
        size.shards.to_string(),
        match size.processors {
            0 => "all".to_owned(),
            processors => processors.to_string(),
        },
        format!("{more}{}", whole(rate)),
        whole(rate * question.movements_per_query),
        whole(rate * question.reserves_per_query),
        p99,
        whole(found.plan_for),
    ]
}

impl Question {
    /// What has to hold, in a line.
    pub fn what_holds(&self) -> String {
        let objective = &self.objective;
        let limits = [
            ("query", objective.query_p99_ms),
            ("freshness", objective.freshness_p99_ms),
            ("reserve", objective.reserve_p99_ms),
        ];
        let limits: Vec<String> = limits
            .into_iter()
            .filter_map(|(name, limit)| Some(format!("{name} p99 ≤ {} ms", limit?)))
            .collect();
        format!("{}, no errors", limits.join(", "))
    }

    /// The load of one query and what comes with it, in a line.
    pub fn load(&self) -> String {
        format!(
            "1 to {} SKUs a query, {} movements and {} carts for each query, all of them followed up",
            self.skus_per_query, self.movements_per_query, self.reserves_per_query
        )
    }
}

impl Capacity {
    /// For people.
    pub fn to_text(&self) -> String {
        let (setup, question) = (&self.setup, &self.question);
        let mut out = String::new();
        // `write!` into a string cannot fail.
        let _ = writeln!(
            out,
            "Capacity: the highest rate at which the objective holds\n"
        );
        let _ = writeln!(out, "objective  {}", question.what_holds());
        let _ = writeln!(out, "load       {}", question.load());
        let _ = writeln!(
            out,
            "server     version {}, {} log",
            setup.server_version, setup.log_engine
        );
        let _ = writeln!(
            out,
            "from       {}, {}, seed {}\n",
            setup.host, setup.started_at, setup.seed
        );
        let mut table = new_table(&COLUMNS);
        for found in &self.found {
            let cells = row(question, found).map(Cell::new).into_iter().enumerate();
            table.add_row(cells.map(|(n, cell)| match n {
                0 => cell,
                _ => cell.set_alignment(CellAlignment::Right),
            }));
        }
        let _ = writeln!(out, "{table}\n");
        let _ = writeln!(
            out,
            "PLAN FOR leaves {} % free. Each size took {} steps at most.",
            question.headroom_percent,
            self.found
                .iter()
                .map(|found| found.steps.len())
                .max()
                .unwrap_or(0)
        );
        for found in &self.found {
            let said = match (found.wrong.is_empty(), found.not_found) {
                (false, _) => format!("WRONG: {}", found.wrong.join("; ")),
                (true, true) => "it held at the highest rate tried".to_owned(),
                (true, false) => format!("beyond it: {}", found.breaks),
            };
            let _ = writeln!(out, "- {}: {said}", found.size);
        }
        let checked: u64 = self.found.iter().map(|found| found.checked).sum();
        let _ = writeln!(out, "{} numbers checked at the end.", number(checked));
        out
    }
}
