//! `wasmlet-run-wasmtime`: becomes the init of a container whose guest Wasmtime runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmlet_runner_core::main(wasmlet_wasmtime::run::Wasmtime)
}
