//! Compiles what is spoken of the public contract in `../proto` with protox, so that neither a
//! system `protoc` nor the `sellable` crate is needed.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

const SPOKEN: [&str; 6] = [
    "sellable/v1/availability.proto",
    "sellable/v1/feeds.proto",
    "sellable/v1/movements.proto",
    "sellable/v1/operations.proto",
    "sellable/v1/reservations.proto",
    "sellable/v1/rules.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let descriptors = protox::compile(SPOKEN, ["../proto"])?;
    // A recording is read by the contract's own description.
    let to = Path::new(&env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(to, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Only tests answer calls themselves.
        .server_mod_attribute(".", "#[cfg(test)]")
        .compile_fds(descriptors)?;
    Ok(())
}
