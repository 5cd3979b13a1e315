//! Compiles the public contract in `proto/` with protox, so that no system `protoc` is needed,
//! and keeps its file descriptor set for the gRPC reflection service.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

const FILES: [&str; 9] = [
    "proto/sellable/v1/movement.proto",
    "proto/sellable/v1/movements.proto",
    "proto/sellable/v1/availability.proto",
    "proto/sellable/v1/reservations.proto",
    "proto/sellable/v1/rules.proto",
    "proto/sellable/v1/reconciliation.proto",
    "proto/sellable/v1/feeds.proto",
    "proto/sellable/v1/operations.proto",
    "proto/sellable/v1/record.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("sellable_descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors.clone())?;

    // The server of `Movements` once more, with a request that keeps its movements encoded: they
    // go into the log as they came, so decoding them into owned messages would be for nothing. That
    // of `Feeds`, whose updates are encoded once for all who watch a channel. And those of
    // `Availability` and of `Reservations`, whose requests and answers are read and written without
    // a string for each SKU.
    let raw = out.join("raw");
    fs::create_dir_all(&raw)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".sellable.v1.PostRequest", "crate::api::RawPostRequest")
        .extern_path(".sellable.v1.AvailabilityUpdate", "crate::wire::Encoded")
        .extern_path(".sellable.v1.GetRequest", "crate::wire::Encoded")
        .extern_path(".sellable.v1.GetResponse", "crate::wire::Encoded")
        .extern_path(".sellable.v1.ReserveRequest", "crate::wire::Encoded")
        .extern_path(".sellable.v1.ReserveResponse", "crate::wire::Encoded")
        .extern_path(".sellable.v1.ReserveStreamResponse", "crate::wire::Encoded")
        .extern_path(".sellable.v1", "crate::proto::v1")
        .out_dir(raw)
        .compile_fds(only_raw(descriptors))?;
    Ok(())
}

/// The descriptors with no other services than those four.
fn only_raw(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut descriptors.file {
        file.service.retain(|service| {
            matches!(
                service.name(),
                "Movements" | "Feeds" | "Availability" | "Reservations"
            )
        });
    }
    descriptors
}
