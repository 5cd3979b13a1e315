//! Random histories and logs, against the slow, obvious model that is written from the text of the
//! rules. A failure prints what failed, shrunk, and the command that runs it again.

#[path = "../support/model/mod.rs"]
mod model;

mod checkpoint;
mod ledger;
mod reserve;
