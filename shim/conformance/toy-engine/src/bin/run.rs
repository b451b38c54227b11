//! `wasmlet-run-toy`: becomes the init of a container whose guest Wasmi interprets.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmlet_runner_core::main(wasmlet_toy_engine::run::Toy)
}
