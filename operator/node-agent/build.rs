//! Compiles the probe's module from its text.

use std::path::PathBuf;

/// `wasmlet_api::names::PROBE_LINE`; a test compares them.
const LINE: &str = "wasmlet probe: ok";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=probe/probe.wat");
    println!("cargo::rerun-if-changed=build.rs");
    let text = std::fs::read_to_string("probe/probe.wat")?
        .replace("@LINE@", LINE)
        // With the line's end; less than 256, so one byte.
        .replace("@LENGTH@", &format!("\\{:02x}", LINE.len() + 1));
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("probe.wasm");
    std::fs::write(out, wat::parse_str(text)?)?;
    Ok(())
}
