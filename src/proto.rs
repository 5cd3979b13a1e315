//! The public contract, generated from `proto/sellable/v1`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

/// Package `sellable.v1`.
pub mod v1 {
    tonic::include_proto!("sellable.v1");
}

/// File descriptors of the contract, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/sellable_descriptors.bin"));
