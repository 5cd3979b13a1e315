//! Compiles the public contract in `proto/` with protox, so that no system `protoc` is needed,
//! and keeps its file descriptor set for the gRPC reflection service.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 6] = [
    "proto/sellable/v1/movement.proto",
    "proto/sellable/v1/movements.proto",
    "proto/sellable/v1/availability.proto",
    "proto/sellable/v1/rules.proto",
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
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
