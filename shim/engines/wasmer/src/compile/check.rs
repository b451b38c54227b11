//! Loads a fresh artifact and checks that the runner has everything it imports.

use std::fs::File;
use std::sync::Arc;

use virtual_net::UnsupportedVirtualNetworking;
use wasmer::sys::EngineBuilder;
use wasmer::{Engine, Extern, ExternType, FunctionType, ImportType, Imports, Module, Store, Type};
use wasmer_wasix::WasiEnv;
use wasmlet_compiler_core::{CompileError, one_line};

use super::ENGINE;
use crate::artifact;
use crate::host::{self, Host};

/// Most imports that a message names.
const MAX_NAMED: usize = 5;

/// What this engine has, for messages.
const OFFERED: &str = "this engine offers modules WASI preview 1 (wasi_snapshot_preview1, wasi_unstable) and \
                       WASIX (wasix_32v1)";

pub(super) fn load(output: &File) -> Result<(), CompileError> {
    let engine: Engine = EngineBuilder::headless().engine().into();
    // SAFETY: this process has just written the file, and nobody else has it.
    let module = unsafe { artifact::load(&engine, output) }
        .map_err(|e| CompileError::Load(one_line(&e.to_string())))?;
    let mut store = Store::new(engine.clone());
    let offered = offered(&engine, &mut store, &module)?;
    let missing: Vec<String> = module
        .imports()
        .filter_map(|import| complaint(&import, &offered, &store))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let more = missing.len().saturating_sub(MAX_NAMED);
    let mut text = missing[..missing.len().min(MAX_NAMED)].join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    Err(CompileError::Imports(format!("{text}; {OFFERED}")))
}

/// The functions that the runner gives to this module.
fn offered(engine: &Engine, store: &mut Store, module: &Module) -> Result<Imports, CompileError> {
    let does_not_start = |reason: String| CompileError::Engine {
        engine: ENGINE,
        reason: one_line(&reason),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| does_not_start(e.to_string()))?;
    let _entered = runtime.enter();
    let host = Host::new(
        engine.clone(),
        runtime.handle().clone(),
        Arc::new(UnsupportedVirtualNetworking::default()),
    );
    let env = WasiEnv::builder("check")
        .runtime(Arc::new(host))
        .finalize(store)
        .map_err(|e| does_not_start(e.to_string()))?;
    host::imports(&env, store, module).map_err(|e| does_not_start(e.to_string()))
}

/// What is wrong with an import, if anything is.
fn complaint(import: &ImportType, offered: &Imports, store: &Store) -> Option<String> {
    let (module, name) = (import.module(), import.name());
    let shown = format!("{module}.{name}");
    match import.ty() {
        // Whatever it is called, it is the guest's own, and the runner makes it.
        ExternType::Memory(_) => None,
        ExternType::Function(wanted) => match offered.get_export(module, name) {
            Some(Extern::Function(function)) => {
                let ty = function.ty(store);
                (ty != *wanted).then(|| {
                    format!(
                        "the import {shown} is a function {} and wanted as {}",
                        signature(&ty),
                        signature(wanted)
                    )
                })
            }
            _ => Some(format!(
                "there is no function {shown}{}",
                whose(module, name)
            )),
        },
        other => Some(format!(
            "the import {shown} is a {}, and only functions and a memory can be imported",
            kind(other)
        )),
    }
}

fn kind(ty: &ExternType) -> &'static str {
    match ty {
        ExternType::Global(_) => "global",
        ExternType::Table(_) => "table",
        ExternType::Tag(_) => "tag",
        ExternType::Function(_) => "function",
        ExternType::Memory(_) => "memory",
    }
}

/// Where a function comes from that other engines have.
fn whose(module: &str, name: &str) -> &'static str {
    match module {
        "wasi_ephemeral_nn" => " (wasi-nn)",
        "wasi_snapshot_preview1" if name.starts_with("sock_") => {
            " (a socket function of WasmEdge's)"
        }
        "wasix_64v1" => " (WASIX for 64-bit memories)",
        _ => "",
    }
}

/// A function's type as in WebAssembly text, for messages.
fn signature(ty: &FunctionType) -> String {
    let list = |types: &[Type]| {
        types
            .iter()
            .map(|ty| ty.to_string().to_lowercase())
            .collect::<Vec<_>>()
            .join(" ")
    };
    format!("({}) -> ({})", list(ty.params()), list(ty.results()))
}
