//! `containerd-shim-wasm-v1`: the shim that containerd starts for runtime `io.containerd.wasm.v1`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match containerd_shim_wasm::cli::run(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "containerd-shim-wasm-v1: {}",
                containerd_shim_wasm::chain(&error)
            );
            ExitCode::FAILURE
        }
    }
}
