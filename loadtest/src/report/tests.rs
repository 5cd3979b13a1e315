use std::collections::BTreeMap;

use super::*;
use crate::{
    findings::Finding,
    latency::Latencies,
    measure::Kind,
    outcome::{
        Carts, Judgement, KindOutcome, Outcome, OverTime, PhaseSpan, Point, Series, Verdict,
    },
    scenario::builtin,
};

/// A run of two seconds with a query each.
fn outcome() -> Outcome {
    let mut latency = Latencies::default();
    for ms in 1..=500 {
        latency.record(std::time::Duration::from_millis(ms));
    }
    let point = |second| Point {
        second,
        due_per_second: 250.0,
        answered_per_second: 240.0,
        failed: 10 * second,
        p50_ms: Some(250.0),
        p99_ms: Some(495.0),
    };
    Outcome {
        judgement: Judgement {
            verdict: Verdict::Failed,
            headline: "It did <not> hold".to_owned(),
            reasons: vec!["query: 10 × UNAVAILABLE".to_owned()],
        },
        setup: Setup::default(),
        scenario: builtin::load("flash_sale").expect("built in"),
        sent: 500,
        held_back: 0,
        interrupted_after_seconds: None,
        plan_digest: "0123456789abcdef".to_owned(),
        carts: Carts::default(),
        kinds: vec![KindOutcome {
            kind: Kind::Query,
            due: 500,
            answered: 490,
            failed: 10,
            dropped: 0,
            passed_over: 0,
            rate_due: 250.0,
            rate_reached: 245.0,
            errors: BTreeMap::new(),
            latency_ns: latency.percentiles(),
            send_delay_ns: latency.percentiles(),
            curve: latency.curve(),
        }],
        over_time: OverTime {
            stretch_seconds: 1,
            phases: vec![PhaseSpan {
                name: "only".to_owned(),
                from_seconds: 0,
                to_seconds: 2,
                warm_up: false,
            }],
            kinds: vec![Series {
                kind: Kind::Query,
                points: vec![point(0), point(1)],
            }],
        },
        checks: vec![Finding {
            what: "no balance is below zero".to_owned(),
            checked: 7,
            wrong: 1,
            examples: vec!["SKU-1 at <dc>".to_owned()],
            note: String::new(),
        }],
    }
}

#[test]
fn a_page_needs_nothing_else_and_says_it_all() {
    let page = of_run(&outcome());
    for part in [
        "It did &lt;not&gt; hold",
        "class=\"verdict failed\"",
        "Latency by percentile",
        "Latency over time",
        "Throughput over time",
        "Errors over time",
        "SKU-1 at &lt;dc&gt;",
        "0123456789abcdef",
        "prefers-color-scheme: dark",
        "abandon_seconds = 2",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    for outside in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(
            !page.contains(outside),
            "{outside} refers to something else"
        );
    }
}

#[test]
fn every_element_is_closed() {
    let page = of_run(&outcome());
    for element in [
        "svg", "figure", "section", "table", "dl", "ul", "main", "text", "details",
    ] {
        let opened = page.matches(&format!("<{element}")).count();
        let closed = page.matches(&format!("</{element}>")).count();
        // `<text` is also the beginning of nothing else, `<table` of nothing else.
        assert_eq!(opened, closed, "{element}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_the_run() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(can_be_written(&dir.path().join("report.html")).is_ok());
    let failure = can_be_written(&dir.path().join("nowhere/report.html")).expect_err("no folder");
    assert_eq!(failure.exit, crate::cli::EXIT_USAGE);
    assert!(failure.message.contains("--report"), "{failure}");
}
