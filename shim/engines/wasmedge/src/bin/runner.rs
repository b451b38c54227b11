//! `wasmlet-wasmedge-runner`: becomes the init of a container whose guest WasmEdge runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmlet_runner_core::main(wasmlet_wasmedge::run::WasmEdge::default())
}
