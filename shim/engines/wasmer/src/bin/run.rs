//! `wasmlet-run-wasmer`: becomes the init of a container whose guest Wasmer runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmlet_runner_core::main(wasmlet_wasmer::run::Wasmer)
}
