//! `wasmlet-wasmedge-compiler`: compiles modules for `wasmlet-wasmedge-runner`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmlet_compiler_core::main(wasmlet_wasmedge::compile::WasmEdge)
}
