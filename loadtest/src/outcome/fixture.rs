//! An outcome for tests.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{latency::Latencies, scenario::builtin};

/// A run of two seconds with a query each.
pub(crate) fn outcome() -> Outcome {
    let mut latency = Latencies::default();
    for ms in 1..=500 {
        latency.record(Duration::from_millis(ms));
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
            advice: vec!["ask less of it".to_owned()],
        },
        setup: Setup::default(),
        scenario: builtin::load("flash_sale").expect("built in"),
        sent: 500,
        held_back: 0,
        interrupted_after_seconds: None,
        busy: Busy::default(),
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
