//! Movements that travel over NATS: the program, the server and nats-server, each as a process.
#![allow(missing_docs)]

#[path = "../../tests/support/nats.rs"]
mod nats;
mod support;

use nats::NatsServer;
use support::{DAY, kind, loadtest, outcome_of, server};

#[test]
fn movements_over_nats_are_all_in_and_every_balance_is_right() {
    let nats = NatsServer::start();
    let url = nats.url();
    let outcome = outcome_of(DAY, &["--via", "nats", "--nats", &url]);
    assert_eq!(outcome["verdict"], "held");
    assert_eq!(outcome["setup"]["log_engine"], "jetstream");
    assert_eq!(outcome["scenario"]["movements"]["via"], "nats");
    // Two seconds of 200 movements, 5 in a message.
    assert_eq!(kind(&outcome, "movements")["answered"], 80);
    for name in ["reserve", "ship", "return", "freshness", "pushed"] {
        assert_ne!(kind(&outcome, name)["answered"], 0, "{name}");
    }
    for check in outcome["checks"].as_array().expect("checks") {
        assert_eq!(check["wrong"], 0, "{check}");
        assert_ne!(check["checked"], 0, "{check}");
    }
}

#[test]
fn without_a_nats_server_it_says_how_to_name_one() {
    let binary = server().to_str().expect("text");
    let ended = loadtest(&[
        "run",
        "steady_day",
        "--via",
        "nats",
        "--server-binary",
        binary,
    ]);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("--nats nats://127.0.0.1:4222"), "{said}");
}
