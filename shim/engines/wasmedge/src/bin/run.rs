//! `wasmlet-run-wasmedge`: starts the WasmEdge runner with the libraries beside it.

#[path = "../launcher.rs"]
mod launcher;

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::start("wasmlet-wasmedge-runner", &["."])
}
