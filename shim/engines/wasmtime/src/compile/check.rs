//! Loads a fresh artifact and checks that the runner has everything it imports.

use std::fs::File;
use std::os::fd::AsRawFd;

use wasmlet_protocol::{FailureReason, GuestKind};
use wasmtime::component::{Component, Linker as ComponentLinker, ResourceTable};
use wasmtime::{Engine, ExternType, Linker, Module};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{CompileError, text};

/// Most names that a report lists.
const MAX_EXPORTS: usize = 256;

/// What a guest asks for that the runner does not have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("{0}; this engine offers modules WASI preview 1 (wasi_snapshot_preview1) and no more")]
    Module(String),
    #[error("{0}; this engine offers components WASI 0.2 without wasi:http")]
    Component(String),
    #[error("{0}; this engine does not serve wasi:http yet")]
    Http(String),
}

impl ImportError {
    pub(super) fn reason(&self) -> FailureReason {
        match self {
            Self::Module(_) | Self::Component(_) => FailureReason::InvalidArgument,
            Self::Http(_) => FailureReason::Unsupported,
        }
    }
}

/// What the report says about a guest.
pub(super) struct Facts {
    pub(super) exports: Vec<String>,
    pub(super) wants_listener: bool,
}

pub(super) fn load(engine: &Engine, kind: GuestKind, file: File) -> Result<Facts, CompileError> {
    match kind {
        GuestKind::Module => module(engine, file),
        GuestKind::Component => component(engine, &file),
    }
}

fn module(engine: &Engine, file: File) -> Result<Facts, CompileError> {
    // SAFETY: this process has just written the file, and holds the only descriptor to write to it
    // that is in use.
    let module = unsafe { Module::deserialize_open_file(engine, file) }
        .map_err(|e| CompileError::Load(text(&e)))?;
    let mut linker: Linker<WasiP1Ctx> = Linker::new(engine);
    // The runner puts functions of its own in front of some of these, with the same types.
    p1::add_to_linker_async(&mut linker, |ctx| ctx).map_err(|e| CompileError::Engine(text(&e)))?;
    linker
        .instantiate_pre(&module)
        .map_err(|e| ImportError::Module(text(&e)))?;
    let exports = module
        .exports()
        .filter(|export| matches!(export.ty(), ExternType::Func(_)))
        .map(|export| export.name().to_owned())
        .take(MAX_EXPORTS)
        .collect();
    let wants_listener = module.imports().any(|import| {
        import.module() == "wasi_snapshot_preview1" && import.name() == "sock_accept"
    });
    Ok(Facts {
        exports,
        wants_listener,
    })
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

fn component(engine: &Engine, file: &File) -> Result<Facts, CompileError> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: as for modules.
    let component = unsafe { Component::deserialize_file(engine, path) }
        .map_err(|e| CompileError::Load(text(&e)))?;
    let mut linker: ComponentLinker<State> = ComponentLinker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)
        .map_err(|e| CompileError::Engine(text(&e)))?;
    linker.instantiate_pre(&component).map_err(|error| {
        let text = text(&error);
        if text.contains("wasi:http") {
            ImportError::Http(text)
        } else {
            ImportError::Component(text)
        }
    })?;
    let exports = component
        .component_type()
        .exports(engine)
        .map(|(name, _)| name.to_owned())
        .take(MAX_EXPORTS)
        .collect();
    Ok(Facts {
        exports,
        wants_listener: false,
    })
}
