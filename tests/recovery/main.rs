//! Processes that are killed, and disks that fail under them: what was acknowledged is there
//! afterwards.

#[path = "../support/evidence.rs"]
mod evidence;
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/stock.rs"]
mod stock;
#[path = "../support/storm.rs"]
mod storm;

mod checkpoint_cli;
mod crash;
mod crash_phases;
mod faulty_disk;
mod torture;
