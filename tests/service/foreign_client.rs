//! The service as other people's tools meet it: a Python client that has no `.proto` of ours and
//! finds out by reflection, see `foreign_client.py`.

use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::{python, server::Setup};

/// What the client is run with. Pinned, so that it finds the same tomorrow.
const PACKAGES: [&str; 4] = [
    "grpcio==1.85.1",
    "grpcio-reflection==1.85.1",
    "protobuf==7.36.2",
    "prometheus-client==0.26.0",
];

#[test]
fn a_client_that_knows_no_proto_posts_and_queries() {
    let python = python::interpreter("foreign-client-venv", &PACKAGES);
    let mut server = Setup::new().start();
    let output = Command::new(python)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/service/foreign_client.py"
        ))
        .arg(server.url().trim_start_matches("http://"))
        .arg(server.http_url())
        .stdin(Stdio::null())
        .output()
        .expect("python can be run");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{printed}");
    assert!(output.status.success(), "{printed}{complaint}");
    let mut told = Map::new();
    for line in printed.lines() {
        let line: Map<String, Value> = serde_json::from_str(line).expect("an object a line");
        told.extend(line);
    }

    for service in [
        "grpc.health.v1.Health",
        "sellable.v1.Availability",
        "sellable.v1.Feeds",
        "sellable.v1.Movements",
        "sellable.v1.Operations",
        "sellable.v1.Reconciliation",
        "sellable.v1.Reservations",
        "sellable.v1.Rules",
    ] {
        let services = told["services"].as_array().expect("a list");
        assert!(services.contains(&service.into()), "{services:?}");
    }
    assert_eq!(told["health"], "SERVING");
    assert_eq!(told["rules"], true);
    let (applied, invalid) = ("OUTCOME_APPLIED", "OUTCOME_INVALID");
    assert_eq!(
        told["outcomes"],
        json!([applied, applied, applied, applied, invalid])
    );
    assert_eq!(told["refused"], "received.location");
    assert_eq!(told["streamed"], 100);
    assert_eq!(told["duplicates"], json!([true, true, true, true]));
    // MUG: dc-north has 38, of which 3 are still promised; 2 are withheld at each location, and
    // the channel gets half of 33 + 5. SKU-3: half of 30 - 2.
    assert_eq!(
        told["ats"],
        json!({"MUG": [19, true], "SKU-3": [14, true], "NONE": [0, false]})
    );
    assert_eq!(told["explained"], 19);
    assert_eq!(told["recomputed"], 19);
    assert!(!told["steps"].as_array().expect("a list").is_empty());
    // What is shown is granted, and no more: 19, of which none but dc-north has as many.
    assert_eq!(told["too_many"], json!([false, "MUG", 19]));
    assert_eq!(told["granted"], json!([true, "dc-north", 19]));
    assert_eq!(told["again"], json!([true, true]));
    assert_eq!(told["left"], 9);
    assert_eq!(told["reservation"], "RESERVATION_STATE_CONFIRMED");
    assert_eq!(told["released"], 19);
    assert_eq!(told["unknown_channel"][0], "NOT_FOUND");
    let why = told["unknown_channel"][1].as_str().expect("a text");
    assert!(why.contains("market"), "{why}");
    assert_eq!(told["conservation_violations"], 0);
    assert_eq!(told["applied"], json!([104]));
    let metrics = told["metrics"].as_array().expect("a list");
    for name in ["sellable_movements", "sellable_build", "sellable_ready"] {
        assert!(metrics.contains(&name.into()), "{metrics:?}");
    }
    server.stop();
}
