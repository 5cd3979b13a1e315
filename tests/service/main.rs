//! The service as those meet it who use it and run it: reservations, exceptions, feeds, and what
//! operators rely on.

#[path = "../support/bad.rs"]
mod bad;
#[path = "../support/facts.rs"]
mod facts;
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/openmetrics.rs"]
mod openmetrics;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/python.rs"]
mod python;
#[path = "../support/receiver.rs"]
mod receiver;
#[path = "../support/server.rs"]
mod server;

mod exceptions;
mod exceptions_in_time;
mod exceptions_nats;
mod feed_nats;
mod foreign_client;
mod operability;
mod reservations;
mod reserve_stream;
mod watch;
mod webhooks;
