//! `wasmlet-aot-wasmedge`: starts the WasmEdge compile helper with the libraries beside it.

#[path = "../launcher.rs"]
mod launcher;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The real libLLVM is found before the one in which everything traps.
    launcher::start("wasmlet-wasmedge-compiler", &["llvm", "."])
}
