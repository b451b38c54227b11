//! `wasmlet-componentize MODULE COMPONENT`: makes a component of a WASI preview 1 module, for examples.
//!
//! What rustc does for its target `wasm32-wasip2`, with a compiler that has only `wasm32-wasip1`: the
//! interfaces of the component are in the module, put there by its bindings, and what the module imports
//! of preview 1 is translated to WASI 0.2 by Wasmtime's adapter.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use wasi_preview1_component_adapter_provider as adapter;
use wit_component::ComponentEncoder;

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("usage: wasmlet-componentize MODULE COMPONENT")]
    Usage,
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    Module { path: PathBuf, reason: String },
}

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1).map(PathBuf::from).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wasmlet-componentize: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(paths: Vec<PathBuf>) -> Result<(), Error> {
    let [from, to] = <[PathBuf; 2]>::try_from(paths).map_err(|_| Error::Usage)?;
    let module = fs::read(&from).map_err(|source| Error::File {
        path: from.clone(),
        source,
    })?;
    let component = componentize(&module).map_err(|reason| Error::Module { path: from, reason })?;
    fs::write(&to, component).map_err(|source| Error::File { path: to, source })
}

/// A module with `_start` becomes a command, another one a component that is called.
fn componentize(module: &[u8]) -> Result<Vec<u8>, String> {
    let is_command = module.windows(START.len()).any(|bytes| bytes == START);
    let adapter = if is_command {
        adapter::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
    } else {
        adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
    };
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.adapter(adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| format!("{error:#}"))
}

/// The export of a function named `_start`: length of the name, name, kind.
const START: &[u8] = b"\x06_start\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_becomes_a_component() {
        let module = wat::parse_str(
            r#"(module
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1)
                (func (export "_start") (call $exit (i32.const 0))))"#,
        );
        let component = componentize(&module.expect("valid text")).expect("a component");
        assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0");
        let exports = |name: &[u8]| component.windows(name.len()).any(|bytes| bytes == name);
        assert!(exports(b"wasi:cli/run@0.2"));
    }

    #[test]
    fn what_is_no_module_is_refused() {
        componentize(b"\0asm").expect_err("cut off");
        let unknown = wat::parse_str(r#"(module (import "env" "f" (func)))"#);
        let reason = componentize(&unknown.expect("valid text")).expect_err("nobody has it");
        assert!(reason.contains("env"), "{reason}");
    }
}
