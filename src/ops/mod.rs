//! For those who run it: metrics and probes over HTTP.

mod http;
mod metrics;

pub use http::{Probe, router};
