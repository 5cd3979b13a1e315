//! The page of one run.

use std::fmt::Write;

use super::{
    axis::Axis,
    chart::{Band, Chart, Line, Stroke},
    html::{self, Tile, escape},
    percentiles, setup_facts,
};
use crate::{
    measure::Kind,
    outcome::{KindOutcome, Outcome, Point, Verdict},
    words::{milliseconds, number},
};

/// Kinds whose latency is drawn over time; the others are in the table and the distribution.
const OVER_TIME: [Kind; 3] = [Kind::Query, Kind::Reserve, Kind::Movements];

/// Rates that are farther apart are drawn by their order of magnitude.
const SPREAD_MAX: f64 = 20.0;

/// The page of a run.
pub fn of_run(outcome: &Outcome) -> String {
    let mut body = header(outcome);
    body.push_str(&html::tiles(&tiles(outcome)));
    for chart in [
        distribution(outcome),
        latency_over_time(outcome),
        throughput(outcome),
        freshness(outcome),
        errors(outcome),
    ] {
        body.push_str(&chart);
    }
    body.push_str(&calls(outcome));
    body.push_str(&checks(outcome));
    body.push_str(&configuration(outcome));
    body.push_str(FOOTER);
    html::page(
        &format!("{} – {}", outcome.scenario.name, outcome.judgement.verdict),
        &body,
    )
}

const FOOTER: &str = "<footer>Open loop: every call is due at a time fixed before the run, and its \
latency counts from that time, whether or not earlier calls have been answered. Generator and \
server on one machine share its processors; compare only runs of the same machine.</footer>";

fn header(outcome: &Outcome) -> String {
    let verdict = outcome.judgement.verdict;
    let mut out = format!(
        "<header><p class=\"kicker\">Load test of Sellable · {} · {}</p><h1>{}</h1>\
         <span class=\"verdict {verdict}\">{verdict}</span><p class=\"headline\">{}</p>",
        escape(&outcome.setup.started_at),
        escape(&outcome.scenario.summary),
        escape(&outcome.scenario.name.replace('_', " ")),
        escape(&outcome.judgement.headline)
    );
    if verdict != Verdict::Held {
        out.push_str("<ul class=\"reasons\">");
        for reason in &outcome.judgement.reasons {
            // `write!` into a string cannot fail.
            let _ = write!(out, "<li>{}</li>", escape(reason));
        }
        out.push_str("</ul>");
    }
    out.push_str("</header>");
    let advice = &outcome.judgement.advice;
    if !advice.is_empty() {
        out.push_str(
            "<section class=\"card\"><h3>What was in the way, and what to do</h3><ul class=\"reasons\">",
        );
        for line in advice {
            let _ = write!(out, "<li>{}</li>", escape(line));
        }
        out.push_str("</ul></section>");
    }
    out
}

fn tiles(outcome: &Outcome) -> Vec<Tile> {
    let due: u64 = outcome.kinds.iter().map(|kind| kind.due).sum();
    let unanswered: u64 = outcome
        .kinds
        .iter()
        .map(|kind| kind.failed + kind.dropped)
        .sum();
    let objective = &outcome.scenario.objective;
    let mut tiles = vec![Tile {
        name: "Calls".to_owned(),
        value: number(due),
        unit: String::new(),
        note: match unanswered {
            0 => "all answered".to_owned(),
            count => format!("{} not answered", number(count)),
        },
    }];
    for (kind, name, limit) in [
        (Kind::Query, "Query, p99", objective.query_p99_ms),
        (Kind::Reserve, "Reserve, p99", objective.reserve_p99_ms),
        (
            Kind::Freshness,
            "Freshness, p99",
            objective.freshness_p99_ms,
        ),
    ] {
        if let Some(p99) = outcome.kind(kind).and_then(|kind| kind.latency_ns.p99) {
            tiles.push(Tile {
                name: name.to_owned(),
                value: milliseconds(p99),
                unit: "ms".to_owned(),
                note: limit.map_or_else(String::new, |limit| format!("objective {limit} ms")),
            });
        }
    }
    let carts = &outcome.carts;
    if carts.decided > 0 {
        tiles.push(Tile {
            name: "Carts granted".to_owned(),
            value: number(carts.granted),
            unit: String::new(),
            note: format!("of {} that were asked for", number(carts.decided)),
        });
    }
    let wrong: u64 = outcome.checks.iter().map(|check| check.wrong).sum();
    let checked: u64 = outcome.checks.iter().map(|check| check.checked).sum();
    tiles.push(Tile {
        name: "Wrong results".to_owned(),
        value: number(wrong),
        unit: String::new(),
        note: format!("of {} checked", number(checked)),
    });
    tiles
}

fn distribution(outcome: &Outcome) -> String {
    let lines: Vec<Line> = outcome
        .kinds
        .iter()
        .filter(|kind| kind.curve.len() > 1)
        .map(|kind| Line {
            name: kind.kind.name().to_owned(),
            colour: kind.kind as usize,
            stroke: Stroke::Solid,
            points: kind.curve.iter().map(|(at, ms)| (*at, Some(*ms))).collect(),
        })
        .collect();
    let furthest = greatest(
        lines
            .iter()
            .flat_map(|line| line.points.iter().map(|(at, _)| *at)),
    );
    let chart = Chart {
        title: "Latency by percentile".to_owned(),
        note: "How many calls took at most how long. Each nine takes the same room.".to_owned(),
        x: Axis::nines("of the calls that were answered", furthest),
        y: milliseconds_axis(&lines, None),
        lines,
        bands: Vec::new(),
        limit: None,
    };
    drawn(chart, "No call was answered.")
}

fn latency_over_time(outcome: &Outcome) -> String {
    let lines = OVER_TIME
        .iter()
        .flat_map(|kind| p50_and_p99(outcome, *kind));
    let chart = Chart {
        title: "Latency over time".to_owned(),
        note: format!(
            "Of the calls that were due in each {}: half took at most the dashed line, 99 of 100 at most the solid one.",
            stretch(outcome)
        ),
        ..over_time(
            outcome,
            lines.collect(),
            outcome.scenario.objective.query_p99_ms,
            "query objective",
        )
    };
    drawn(chart, "No call was answered.")
}

fn freshness(outcome: &Outcome) -> String {
    let mut lines = p50_and_p99(outcome, Kind::Freshness);
    lines.extend(p50_and_p99(outcome, Kind::Pushed));
    let chart = Chart {
        title: "Freshness over time".to_owned(),
        note: "From the planned send of a movement until a query shows it, and until a watcher has been told.".to_owned(),
        ..over_time(outcome, lines, outcome.scenario.objective.freshness_p99_ms, "objective")
    };
    drawn(chart, "The scenario has no probes.")
}

fn throughput(outcome: &Outcome) -> String {
    let mut lines = Vec::new();
    for series in &outcome.over_time.kinds {
        if matches!(series.kind, Kind::Freshness | Kind::Pushed) {
            continue;
        }
        let named = |what: &str, stroke, of: fn(&Point) -> f64| Line {
            name: format!("{}, {what}", series.kind.name()),
            colour: series.kind as usize,
            stroke,
            points: series
                .points
                .iter()
                .map(|at| (middle(outcome, at), Some(of(at))))
                .collect(),
        };
        if OVER_TIME.contains(&series.kind) {
            lines.push(named("planned", Stroke::Dashed, |at| at.due_per_second));
        }
        lines.push(named("answered", Stroke::Solid, |at| {
            at.answered_per_second
        }));
    }
    let peaks: Vec<f64> = lines
        .iter()
        .map(|line| greatest(values(std::slice::from_ref(line))))
        .collect();
    let most = peaks.iter().copied().fold(0.0, f64::max);
    let fewest = peaks.iter().copied().fold(f64::MAX, f64::min);
    // Few carts among many queries would all lie on the base line.
    let y = match most > fewest * SPREAD_MAX {
        true => {
            // Nothing has no place on such an axis.
            for (_, rate) in lines.iter_mut().flat_map(|line| &mut line.points) {
                *rate = rate.filter(|rate| *rate > 0.0);
            }
            Axis::log("calls/s", 1.0, most)
        }
        false => Axis::linear("calls/s", most),
    };
    let chart = Chart {
        title: "Throughput over time".to_owned(),
        note: "Calls that were due, and calls that were answered. Where the lines part, it queues."
            .to_owned(),
        y,
        ..over_time(outcome, lines, None, "")
    };
    drawn(chart, "Nothing was sent.")
}

fn errors(outcome: &Outcome) -> String {
    let series = outcome.over_time.kinds.iter();
    let lines: Vec<Line> = series
        .filter(|series| series.points.iter().any(|at| at.failed > 0))
        .map(|series| Line {
            name: series.kind.name().to_owned(),
            colour: series.kind as usize,
            stroke: Stroke::Area,
            points: series
                .points
                .iter()
                .map(|at| (middle(outcome, at), Some(at.failed as f64)))
                .collect(),
        })
        .collect();
    if lines.is_empty() {
        return "<section class=\"card\"><h3>Errors over time</h3>\
                <p>No call failed, and none was left unsent.</p></section>"
            .to_owned();
    }
    let most = greatest(values(&lines));
    let chart = Chart {
        title: "Errors over time".to_owned(),
        note: format!(
            "Calls that were due in each {} and failed, or were never sent.",
            stretch(outcome)
        ),
        y: Axis::linear("calls", most),
        ..over_time(outcome, lines, None, "")
    };
    drawn(chart, "")
}

/// A chart over the time of the run, in milliseconds.
fn over_time(outcome: &Outcome, lines: Vec<Line>, limit: Option<f64>, named: &str) -> Chart {
    let phases = outcome.over_time.phases.iter();
    Chart {
        title: String::new(),
        note: String::new(),
        x: Axis::time(outcome.scenario.seconds() as f64),
        y: milliseconds_axis(&lines, limit),
        lines,
        bands: phases
            .map(|phase| Band {
                name: phase.name.clone(),
                from: phase.from_seconds as f64,
                to: phase.to_seconds as f64,
                muted: phase.warm_up,
            })
            .collect(),
        limit: limit.map(|limit| (limit, format!("{named} {limit} ms"))),
    }
}

fn p50_and_p99(outcome: &Outcome, kind: Kind) -> Vec<Line> {
    let series = outcome
        .over_time
        .kinds
        .iter()
        .find(|series| series.kind == kind);
    let Some(series) = series else {
        return Vec::new();
    };
    let line = |what: &str, stroke, of: fn(&Point) -> Option<f64>| Line {
        name: format!("{} {what}", kind.name()),
        colour: kind as usize,
        stroke,
        points: series
            .points
            .iter()
            .map(|at| (middle(outcome, at), of(at)))
            .collect(),
    };
    vec![
        line("p50", Stroke::Dashed, |at| at.p50_ms),
        line("p99", Stroke::Solid, |at| at.p99_ms),
    ]
}

fn drawn(chart: Chart, otherwise: &str) -> String {
    if chart.lines.is_empty() {
        return format!(
            "<section class=\"card\"><h3>{}</h3><p>{}</p></section>",
            escape(&chart.title),
            escape(otherwise)
        );
    }
    chart.to_html()
}

/// What happened in a stretch of time is drawn in its middle.
fn middle(outcome: &Outcome, at: &Point) -> f64 {
    at.second as f64 + outcome.over_time.stretch_seconds as f64 / 2.0
}

fn stretch(outcome: &Outcome) -> String {
    match outcome.over_time.stretch_seconds {
        1 => "second".to_owned(),
        seconds => format!("{seconds} seconds"),
    }
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> + '_ {
    let points = lines.iter().flat_map(|line| &line.points);
    points.filter_map(|(_, value)| *value)
}

fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

/// With room for the limit, too: how far it is away is worth seeing.
pub(super) fn milliseconds_axis(lines: &[Line], limit: Option<f64>) -> Axis {
    let least = values(lines)
        .filter(|ms| *ms > 0.0)
        .fold(f64::MAX, f64::min);
    let least = if least < f64::MAX { least } else { 0.1 };
    let most = greatest(values(lines).chain(limit));
    Axis::log("ms", least.min(most), most)
}

fn calls(outcome: &Outcome) -> String {
    let header = [
        "Call",
        "due",
        "answered/s",
        "failed",
        "not sent",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
    ];
    let row = |kind: &KindOutcome| {
        let mut row = vec![
            kind.kind.name().to_owned(),
            number(kind.due),
            number(kind.rate_reached.round() as u64),
            number(kind.failed),
            number(kind.dropped),
        ];
        row.extend(percentiles(&kind.latency_ns));
        row
    };
    let rows: Vec<_> = outcome.kinds.iter().map(row).collect();
    format!(
        "<section class=\"card\"><h3>Calls</h3><p>Latencies in milliseconds, from when each call \
         was due to its answer; without the warm-up.</p>{}</section>",
        html::table("", &header, &rows)
    )
}

fn checks(outcome: &Outcome) -> String {
    let mut out = String::from(
        "<section class=\"card\"><h3>Correctness</h3><p>The generator keeps books of its own, and \
         compares the server with them through the public interface.</p><div class=\"scroll\">\
         <table><thead><tr><th>Checked</th><th>times</th><th>wrong</th></tr></thead><tbody>",
    );
    for check in &outcome.checks {
        let class = if check.wrong == 0 { "good" } else { "ill" };
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{}</td></tr>",
            escape(&check.what),
            number(check.checked),
            number(check.wrong)
        );
    }
    out.push_str("</tbody></table></div>");
    for check in &outcome.checks {
        for said in check
            .examples
            .iter()
            .chain(Some(&check.note).filter(|note| !note.is_empty()))
        {
            let _ = write!(out, "<p class=\"quiet\">{}</p>", escape(said));
        }
    }
    out.push_str("</section>");
    out
}

fn configuration(outcome: &Outcome) -> String {
    let mut facts = setup_facts(&outcome.setup);
    facts.push((
        "Plan",
        format!(
            "{} calls, digest {}",
            number(outcome.sent),
            outcome.plan_digest
        ),
    ));
    facts.push(("Busy", outcome.busy.to_text()));
    let toml = toml::to_string(&outcome.scenario).unwrap_or_default();
    format!(
        "<section class=\"card\"><h3>Configuration</h3>{}<details><summary>The scenario, with \
         every key</summary><pre>{}</pre></details></section>",
        html::facts(&facts),
        escape(&toml)
    )
}
