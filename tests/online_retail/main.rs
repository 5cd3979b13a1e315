//! A real retailer's year (Online Retail, UCI 352), as it arrives and as it is reconciled.
//!
//! Both keep the processors busy for as long as they run. They are not with those of the service,
//! some of which give a peer less than a second to answer.

#[allow(dead_code, reason = "the example uses the rest")]
#[path = "../../examples/online_retail/mapping.rs"]
mod mapping;
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/snapshots.rs"]
mod snapshots;

mod arrivals;
mod reconciliation;
