//! Bad input of every kind, and places where the program cannot start: what is refused is told, and
//! what is good beside it is taken.

#[path = "../support/bad.rs"]
mod bad;
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/server.rs"]
mod server;

mod disk;
mod files;
mod grpc;
mod grpc_calls;
mod nats_messages;
mod source_authority;
mod start;
