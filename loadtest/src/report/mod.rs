//! The report: one web page that needs nothing else, to be shown and kept.

pub mod axis;
mod capacity;
pub mod chart;
pub mod html;
mod run;

use std::path::Path;

use crate::{Failure, latency::Percentiles, outcome::Setup, words::milliseconds};
pub use capacity::of_capacity;
pub use run::of_run;

/// Finds out before a run whether its report can be written after it.
///
/// # Errors
/// If it cannot.
pub fn can_be_written(file: &Path) -> Result<(), Failure> {
    let open = std::fs::File::options()
        .append(true)
        .create(true)
        .open(file);
    open.map(|_| ()).map_err(|error| {
        Failure::usage(format!(
            "--report: cannot write {}: {error}",
            file.display()
        ))
    })
}

/// Writes a page.
///
/// # Errors
/// If it cannot be written.
pub fn write(file: &Path, page: &str) -> Result<(), Failure> {
    std::fs::write(file, page)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))
}

fn ms(ns: Option<u64>) -> String {
    ns.map_or_else(|| "–".to_owned(), milliseconds)
}

fn percentiles(latency: &Percentiles) -> Vec<String> {
    [
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p99_9,
        latency.p99_99,
        latency.max,
    ]
    .map(ms)
    .into()
}

/// Where and with what it was run.
fn setup_facts(setup: &Setup) -> Vec<(&'static str, String)> {
    vec![
        ("Started", setup.started_at.clone()),
        ("Generator", format!("sellable-loadtest {}", setup.version)),
        (
            "Server",
            format!(
                "sellable {}, {} log, shards {}",
                setup.server_version, setup.log_engine, setup.shards
            ),
        ),
        ("Address", setup.server.clone()),
        ("Machine", setup.host.clone()),
        ("Seed", setup.seed.to_string()),
        ("Prefix", setup.prefix.clone()),
        ("Connections", setup.connections.to_string()),
        ("In flight", format!("at most {}", setup.in_flight_max)),
        ("Timeout", format!("{} s", setup.timeout_seconds)),
    ]
}

#[cfg(test)]
mod tests;
