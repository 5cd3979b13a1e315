//! Capacity on a terminal.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment};

use super::{Capacity, Found, Question, Step};
use crate::{outcome::new_table, report::axis::short, words::number};

/// Names of the columns of [`row`].
pub(crate) const COLUMNS: [&str; 13] = [
    "SKUS",
    "LOCATIONS",
    "CELLS",
    "CHANNELS",
    "SHARDS",
    "CORES",
    "QUERIES/S",
    "MOVEMENTS/S",
    "CARTS/S",
    "QUERY P99",
    "FRESHNESS P99",
    "CORES BUSY",
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
    let shown = |value: Option<f64>, as_text: fn(f64) -> String| {
        value.map_or_else(|| "–".to_owned(), as_text)
    };
    let ms = |of: fn(&Step) -> Option<f64>| {
        shown(at.and_then(of), |ms| format!("{} ms", short(rounded(ms))))
    };
    let busy = at.and_then(|step| step.busy.server);
    let whole = |value: f64| number(value.round() as u64);
    let more = if found.is_least() { "≥ " } else { "" };
    [
        number(u64::from(size.skus)),
        size.locations.to_string(),
        number(size.cells()),
        size.channels.to_string(),
        size.shards.to_string(),
        match size.processors {
            0 => "–".to_owned(),
            processors => processors.to_string(),
        },
        format!("{more}{}", whole(rate)),
        whole(rate * question.movements_per_query),
        whole(rate * question.reserves_per_query),
        ms(|step| step.query_p99_ms),
        ms(|step| step.freshness_p99_ms),
        shown(busy, |busy| format!("{busy:.1}")),
        whole(found.plan_for),
    ]
}

/// To as many digits as mean something.
fn rounded(ms: f64) -> f64 {
    match ms {
        _ if ms >= 10.0 => ms.round(),
        _ => (ms * 100.0).round() / 100.0,
    }
}

impl Step {
    /// What came of it, in a line.
    pub(super) fn in_short(&self) -> String {
        let others = self.busy.spoilt_by().map_or_else(String::new, |others| {
            format!("; others took {others:.1} processors")
        });
        if !self.held {
            return format!("{}{others}", self.why());
        }
        let p99 = [
            ("query", self.query_p99_ms),
            ("reserve", self.reserve_p99_ms),
            ("freshness", self.freshness_p99_ms),
        ];
        let p99: Vec<String> = p99
            .into_iter()
            .filter_map(|(name, ms)| Some(format!("{name} p99 {} ms", short(rounded(ms?)))))
            .collect();
        format!("held, {}{others}", p99.join(", "))
    }

    /// Why it did not hold, in short: when exactly is of no interest in so few seconds.
    pub(super) fn why(&self) -> String {
        let short = |reason: &String| reason.split(';').next().unwrap_or_default().to_owned();
        let reasons: Vec<String> = self.reasons.iter().map(short).collect();
        reasons.join("; ")
    }
}

impl Found {
    /// True if more may hold: the search did not get to where it breaks.
    pub(crate) fn is_least(&self) -> bool {
        self.not_found || self.interrupted
    }

    /// Most processors that other programs took in a step, if that is enough to spoil it.
    pub(crate) fn spoilt_by(&self) -> Option<f64> {
        let spoilt = self.steps.iter().filter_map(|step| step.busy.spoilt_by());
        spoilt.max_by(f64::total_cmp)
    }

    /// What is beyond the rate that held, in a line.
    pub(crate) fn beyond(&self) -> String {
        let others = self.spoilt_by().map_or_else(String::new, |others| {
            format!(
                "; other programs took up to {others:.1} processors meanwhile, so it may hold more"
            )
        });
        let beyond = match (self.interrupted, self.breaks.is_empty()) {
            (true, _) if self.steps.is_empty() => "interrupted in its first step".to_owned(),
            (true, true) => "interrupted; nothing broke so far".to_owned(),
            (true, false) => format!("interrupted; so far, beyond it: {}", self.breaks),
            (false, true) => "held at the highest rate tried (--rate-max)".to_owned(),
            (false, false) => format!("beyond it: {}", self.breaks),
        };
        beyond + &others
    }
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
            "CORES are the server's, CORES BUSY the mean of what it took of them; PLAN FOR leaves {} % \
             free.\nA step that broke was run once more before it was believed.\n",
            question.headroom_percent,
        );
        for found in &self.found {
            let said = match found.wrong.is_empty() {
                false => format!("WRONG: {}", found.wrong.join("; ")),
                true => found.beyond(),
            };
            let _ = writeln!(out, "- {}: {said}", found.size);
        }
        let checked: u64 = self.found.iter().map(|found| found.checked).sum();
        let _ = writeln!(out, "{} numbers checked at the end.", number(checked));
        out
    }
}
