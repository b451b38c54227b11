//! `wasmlet-aot-wasmer`: compiles modules for `wasmlet-run-wasmer`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmlet_compiler_core::main(wasmlet_wasmer::compile::Cranelift)
}
