//! The program against the real server, each as a process of its own.
#![allow(missing_docs)]

mod support;

use std::path::Path;

use serde_json::Value;
use support::{DAY, kind, loadtest, outcome_of, server};

/// Runs a scenario against a server of its own, with its report.
fn run(scenario: &str, more: &[&str]) -> (Value, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let report = dir.path().join("report.html");
    let page = report.to_str().expect("text");
    let outcome = outcome_of(scenario, &[&["--report", page], more].concat());
    let page = std::fs::read_to_string(report).expect("a report");
    (outcome, page)
}

#[test]
fn a_day_is_found_right_and_reported() {
    let (outcome, page) = run(DAY, &[]);
    assert_eq!(outcome["verdict"], "held");
    assert_eq!(kind(&outcome, "query")["answered"], 250);
    assert_eq!(kind(&outcome, "reserve")["answered"], 200);
    for name in [
        "confirm",
        "release",
        "ship",
        "return",
        "movements",
        "freshness",
        "pushed",
    ] {
        assert_ne!(kind(&outcome, name)["answered"], 0, "{name}");
    }
    let carts = &outcome["carts"];
    assert!(carts["granted"].as_u64() > Some(0), "{carts}");
    for check in outcome["checks"].as_array().expect("checks") {
        assert_eq!(check["wrong"], 0, "{check}");
        assert_ne!(check["checked"], 0, "{check}");
    }
    assert!(page.contains("class=\"verdict held\"") && page.contains("</html>"));

    // The same seed plans the same, on another server and under another name, and on streams.
    let (again, _) = run(DAY, &["--prefix", "other", "--reserve-via", "stream"]);
    assert_eq!(again["verdict"], "held");
    assert_eq!(again["scenario"]["shopping"]["reserve_via"], "stream");
    assert_eq!(kind(&again, "reserve")["answered"], 200);
    assert_eq!(outcome["plan_digest"], again["plan_digest"]);
    assert_ne!(outcome["setup"]["prefix"], again["setup"]["prefix"]);
}

#[test]
fn a_recording_is_replayed_and_every_balance_compared() {
    let scenario = include_str!("../scenarios/replay.toml")
        .replace("file = \"replay.ndjson\"", "file = \"\"")
        // How fast it is, is no matter of tests.
        .replace("query_p99_ms = 10", "")
        .replace("freshness_p99_ms = 50", "")
        .replace("speed = 60", "speed = 600")
        .replace("seconds = 20", "seconds = 3")
        .replace("skus = 1000", "skus = 50");
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/replay.ndjson");
    let (outcome, _) = run(&scenario, &["--replay", recording.to_str().expect("text")]);
    assert_eq!(outcome["verdict"], "held");
    let checks = outcome["checks"].as_array().expect("checks");
    let known = checks.iter().find(|check| {
        let what = check["what"].as_str();
        what.is_some_and(|what| what.contains("sent again, they are known"))
    });
    let lines = include_str!("../scenarios/replay.ndjson").lines().count();
    assert_eq!(known.expect("checked")["checked"], lines);
}

#[test]
fn an_objective_that_cannot_be_reached_is_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("day.toml");
    let scenario = DAY.replace(
        "[[phase]]\nname = \"warm\"",
        "[objective]\nquery_p99_ms = 0.001\n\n[[phase]]\nname = \"warm\"",
    );
    std::fs::write(&file, scenario).expect("a file");
    let (file, binary) = (
        file.to_str().expect("text"),
        server().to_str().expect("text"),
    );
    let ended = loadtest(&["run", file, "--server-binary", binary]);
    let said = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(5), "{said}");
    assert!(said.contains("MISSED: "), "{said}");
    assert!(said.contains("the objective is 0.001 ms"), "{said}");
}

#[test]
fn a_search_ends_with_a_rate_and_a_table() {
    let dir = tempfile::tempdir().expect("a directory");
    let report = dir.path().join("capacity.html");
    let (page, binary) = (
        report.to_str().expect("text"),
        server().to_str().expect("text"),
    );
    // An objective that holds, and a highest rate that is soon reached: speed does not matter.
    let ended = loadtest(&[
        "capacity",
        "--json",
        "--report",
        page,
        "--server-binary",
        binary,
        "--rate-first=50",
        "--rate-max=100",
        "--warm-up=1",
        "--measure=2",
        "--skus=100",
        "--query-p99-ms=60000",
        "--freshness-p99-ms=60000",
    ]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let capacity: Value = serde_json::from_slice(&ended.stdout).expect(&said);
    assert_eq!(ended.status.code(), Some(0), "{capacity}");
    let found = &capacity["found"][0];
    assert_eq!(found["sustainable"], 100.0, "{found}");
    assert_eq!(found["plan_for"], 60.0);
    assert_eq!(found["not_found"], true);
    assert_eq!(found["wrong"].as_array().map(Vec::len), Some(0));
    let page = std::fs::read_to_string(report).expect("a report");
    assert!(page.contains("The search") && page.contains("</html>"));
}

#[test]
fn bad_usage_says_what_to_do_next() {
    for (arguments, code, says) in [
        (&["run", "blck_friday"][..], 2, "one of steady_day"),
        (
            &["run", "steady_day", "--server", "10.0.0.1:7420"],
            2,
            "--allow-remote",
        ),
        (
            &["run", "steady_day", "--server", "127.0.0.1:1"],
            4,
            "no server answers",
        ),
        (
            &["run", "steady_day", "--replay", "x"],
            2,
            "has no [replay]",
        ),
        (&["scenarios", "nothing"], 2, "one of steady_day"),
        (
            &["run", "steady_day", "--server-binary", "/nowhere"],
            2,
            "--server-binary",
        ),
        (
            &["run", "steady_day", "--report", "/nowhere/a.html"],
            2,
            "--report",
        ),
    ] {
        let ended = loadtest(arguments);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains(says), "{arguments:?}: {said}");
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
    }
}

#[test]
fn scenarios_are_listed_and_printed() {
    let listed = loadtest(&["scenarios"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.lines().count(), 6, "{listed}");
    let printed = loadtest(&["scenarios", "flash_sale"]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert_eq!(printed, include_str!("../scenarios/flash_sale.toml"));
}
