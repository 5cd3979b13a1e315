//! For those who run it: metrics and probes over HTTP.

mod calls;
mod feeds;
mod http;
mod metrics;

pub use calls::Calls;
pub use http::{Probe, router};
