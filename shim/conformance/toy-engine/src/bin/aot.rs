//! `wasmlet-aot-toy`: checks modules for `wasmlet-run-toy`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmlet_compiler_core::main(wasmlet_toy_engine::compile::Checker)
}
