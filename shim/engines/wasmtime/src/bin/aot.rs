//! `wasmlet-aot-wasmtime`: compiles modules and components for `wasmlet-run-wasmtime`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmlet_compiler_core::main(wasmlet_wasmtime::compile::Cranelift)
}
