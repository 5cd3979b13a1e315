//! Compiles what is spoken of the public contract in `../proto` with protox, so that neither a
//! system `protoc` nor the `sellable` crate is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let descriptors = protox::compile(["sellable/v1/availability.proto"], ["../proto"])?;
    tonic_prost_build::configure()
        // Only tests answer queries themselves.
        .server_mod_attribute(".", "#[cfg(test)]")
        .compile_fds(descriptors)?;
    Ok(())
}
