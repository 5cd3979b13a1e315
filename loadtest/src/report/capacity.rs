//! The page of a capacity search.

use super::{
    axis::Axis,
    chart::{Chart, Line, Stroke},
    html::{self, Tile, escape},
    run::milliseconds_axis,
    setup_facts,
};
use crate::{
    capacity::{COLUMNS, Capacity, Dimension, Found, Step, row},
    words::number,
};

/// The page of a capacity search.
pub fn of_capacity(capacity: &Capacity) -> String {
    let question = &capacity.question;
    let any = |is: fn(&Found) -> bool| capacity.found.iter().any(is);
    let (class, verdict) = if any(|found| !found.wrong.is_empty()) {
        ("wrong", "wrong")
    } else if any(|found| found.interrupted) {
        ("failed", "interrupted")
    } else {
        ("held", "measured")
    };
    let mut body = format!(
        "<header><p class=\"kicker\">Load test of Sellable · {}</p><h1>Capacity</h1>\
         <span class=\"verdict {class}\">{verdict}</span>\
         <p class=\"headline\">The highest rate at which this holds: {}.</p>\
         <p class=\"quiet\">{}</p></header>",
        escape(&capacity.setup.started_at),
        escape(&question.what_holds()),
        escape(&question.load())
    );
    if let Some(base) = capacity.found.first() {
        body.push_str(&html::tiles(&tiles(capacity, base)));
        body.push_str(&search(capacity, base));
    }
    body.push_str(&sizes(capacity));
    for dimension in [
        Dimension::Skus,
        Dimension::Locations,
        Dimension::Channels,
        Dimension::Shards,
        Dimension::Processors,
    ] {
        body.push_str(&growth(capacity, dimension));
    }
    body.push_str(&format!(
        "<section class=\"card\"><h3>Configuration</h3>{}</section>",
        html::facts(&setup_facts(&capacity.setup))
    ));
    html::page("Capacity", &body)
}

fn tiles(capacity: &Capacity, base: &Found) -> Vec<Tile> {
    let question = &capacity.question;
    let tile = |name: &str, rate: f64, note: String| Tile {
        name: name.to_owned(),
        value: number(rate.round() as u64),
        unit: "/s".to_owned(),
        note,
    };
    let rate = base.sustainable;
    vec![
        tile("Queries", rate, base.size.to_string()),
        tile(
            "Movements",
            rate * question.movements_per_query,
            "at the same time".to_owned(),
        ),
        tile(
            "Carts",
            rate * question.reserves_per_query,
            "at the same time".to_owned(),
        ),
        tile(
            "Plan for",
            base.plan_for,
            format!("queries, {} % free", question.headroom_percent),
        ),
    ]
}

/// Every step of the search: rate and what it took.
fn search(capacity: &Capacity, base: &Found) -> String {
    let mut steps = base.steps.clone();
    // A rate that was tried twice is drawn as its second try, which counts.
    steps.reverse();
    steps.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    steps.dedup_by(|one, other| one.rate == other.rate);
    let line = |name: &str, colour, of: fn(&Step) -> Option<f64>| Line {
        name: name.to_owned(),
        colour,
        stroke: Stroke::Solid,
        points: steps.iter().map(|step| (step.rate, of(step))).collect(),
    };
    let lines = vec![
        line("query p99", 0, |step| step.query_p99_ms),
        line("reserve p99", 1, |step| step.reserve_p99_ms),
        line("freshness p99", 7, |step| step.freshness_p99_ms),
    ];
    let limit = capacity.question.objective.query_p99_ms;
    let rates = || steps.iter().map(|step| step.rate);
    Chart {
        title: "The search".to_owned(),
        note: format!(
            "Each step at its rate, for {}. Where a line rises steeply, it queues.",
            base.size
        ),
        x: Axis::log(
            "queries/s",
            rates().fold(f64::MAX, f64::min),
            rates().fold(0.0, f64::max),
        ),
        y: milliseconds_axis(&lines, limit),
        lines,
        bands: Vec::new(),
        limit: limit.map(|limit| (limit, format!("query objective {limit} ms"))),
    }
    .to_html()
}

fn sizes(capacity: &Capacity) -> String {
    let rows: Vec<Vec<String>> = capacity
        .found
        .iter()
        .map(|found| row(&capacity.question, found).into())
        .collect();
    let header = COLUMNS.map(str::to_lowercase);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut out = format!(
        "<section class=\"card\"><h3>Sizes</h3><p>Rates that held, and what they took: 99th \
         percentiles, and the server's busy cores, on the mean. <em>Plan for</em> leaves {} % \
         free.</p>{}",
        capacity.question.headroom_percent,
        html::table("", &header, &rows)
    );
    for found in &capacity.found {
        let said = match found.wrong.is_empty() {
            false => format!("wrong: {}", found.wrong.join("; ")),
            true => found.beyond(),
        };
        out.push_str(&format!(
            "<p class=\"quiet\">{}: {}</p>",
            escape(&found.size.to_string()),
            escape(&said)
        ));
    }
    out.push_str("</section>");
    out
}

/// How the rate grows with one number of the size.
fn growth(capacity: &Capacity, dimension: Dimension) -> String {
    let of = |found: &Found| f64::from(found.size.get(dimension));
    let mut points: Vec<(f64, f64)> = capacity
        .found
        .iter()
        .filter(|found| found.varied.is_none_or(|varied| varied == dimension))
        // What the server chose by itself is no point of this axis.
        .filter(|found| of(found) > 0.0)
        .map(|found| (of(found), found.sustainable))
        .collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points.dedup_by_key(|(value, _)| *value);
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    if points.len() < 2 {
        return String::new();
    }
    let most = points.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let name = dimension.name();
    Chart {
        title: format!("How it grows with {name}"),
        note: "Everything else as in the first row.".to_owned(),
        x: Axis::log(name, first.0, last.0),
        y: Axis::linear("queries/s", most),
        lines: vec![Line {
            name: "sustainable".to_owned(),
            colour: 0,
            stroke: Stroke::Area,
            points: points.iter().map(|(at, rate)| (*at, Some(*rate))).collect(),
        }],
        bands: Vec::new(),
        limit: None,
    }
    .to_html()
}
