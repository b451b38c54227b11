//! Checks that the runner has everything that a module imports.

use wasmlet_compiler_core::CompileError;

use crate::library::{Import, Module, Offer, Wasi, WasiSettings};

/// What there is, for messages.
const OFFERED: &str = "this engine offers modules WASI preview 1 with WasmEdge's socket functions \
                       (wasi_snapshot_preview1) and no more";

/// # Errors
/// The first import that cannot be had.
pub(super) fn imports(module: &Module) -> Result<(), CompileError> {
    let wasi = Wasi::new(&WasiSettings::default()).ok_or_else(|| CompileError::Engine {
        engine: super::ENGINE,
        reason: "no WASI".to_owned(),
    })?;
    for Import {
        module,
        name,
        offer,
    } in module.imports(&wasi)
    {
        let what = match offer {
            Offer::Given => continue,
            Offer::OtherType => {
                format!(
                    "import {module}.{name}: the runner's function takes or returns other types"
                )
            }
            Offer::Missing if module == "wasi_ephemeral_nn" => format!(
                "import {module}.{name}: the runner has no plugin for wasi-nn; choose wasmtime with \
                 wasmlet.dev/engine"
            ),
            Offer::Missing => format!("import {module}.{name}: unknown"),
        };
        return Err(CompileError::Imports(format!("{what}; {OFFERED}")));
    }
    Ok(())
}
