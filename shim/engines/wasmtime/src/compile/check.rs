//! Loads a fresh artifact and checks that the runner has everything it imports.

use std::fs::File;
use std::os::fd::AsRawFd;

use hyper::{Request, Response};
use wasmlet_compiler_core::CompileError;
use wasmlet_protocol::GuestKind;
use wasmlet_wasi_nn::components::{self, View};
use wasmlet_wasi_nn::modules;
use wasmtime::component::{Component, Linker as ComponentLinker, ResourceTable};
use wasmtime::{Engine, Linker, Module};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::{does_not_start, text};
use crate::settings::Profile;

pub(super) fn load(
    engine: &Engine,
    kind: GuestKind,
    profile: Profile,
    file: File,
) -> Result<(), CompileError> {
    match kind {
        GuestKind::Module => module(engine, profile, file),
        GuestKind::Component => component(engine, profile, &file),
    }
}

/// Refuses a guest that wants wasi-nn where its profile has none.
fn check_nn(wants_nn: bool, profile: Profile) -> Result<(), CompileError> {
    match profile.no_nn() {
        Some(why) if wants_nn => Err(CompileError::Unsupported(why.to_owned())),
        _ => Ok(()),
    }
}

fn module(engine: &Engine, profile: Profile, file: File) -> Result<(), CompileError> {
    // SAFETY: this process has just written the file, and holds the only descriptor to write to it
    // that is in use.
    let module = unsafe { Module::deserialize_open_file(engine, file) }
        .map_err(|e| CompileError::Load(text(&e)))?;
    let mut linker: Linker<WasiP1Ctx> = Linker::new(engine);
    // The runner puts functions of its own in front of some of these, with the same types.
    check_nn(modules::wanted_by(&module), profile)?;
    p1::add_to_linker_async(&mut linker, |ctx| ctx)
        .and_then(|()| modules::add_to_linker(&mut linker, |_| None))
        .map_err(|e| does_not_start(&e))?;
    linker.instantiate_pre(&module).map_err(|error| {
        CompileError::Imports(format!(
            "{}; this engine offers modules WASI preview 1 (wasi_snapshot_preview1) and wasi-nn \
             (wasi_ephemeral_nn), and no more",
            text(&error)
        ))
    })?;
    Ok(())
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    hooks: NoCalls,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// Nothing runs here.
struct NoCalls;

type Sent = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for NoCalls {
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}

fn component(engine: &Engine, profile: Profile, file: &File) -> Result<(), CompileError> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: as for modules.
    let component = unsafe { Component::deserialize_file(engine, path) }
        .map_err(|e| CompileError::Load(text(&e)))?;
    check_nn(components::wanted_by(engine, &component), profile)?;
    let mut linker: ComponentLinker<State> = ComponentLinker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)
        .and_then(|()| wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker))
        .and_then(|()| components::add_to_linker(&mut linker, |_| View::new(None)))
        .map_err(|e| does_not_start(&e))?;
    let imports = |error: &wasmtime::Error| {
        CompileError::Imports(format!(
            "{}; this engine offers components WASI 0.2 with wasi:http, and wasi:nn {}, and no more",
            text(error),
            components::VERSION
        ))
    };
    let instance = linker
        .instantiate_pre(&component)
        .map_err(|e| imports(&e))?;
    let ty = component.component_type();
    if ty
        .exports(engine)
        .any(|(name, _)| name.starts_with("wasi:http/incoming-handler@0.2"))
    {
        ProxyPre::new(instance).map_err(|error| {
            CompileError::Invalid(format!(
                "its wasi:http/incoming-handler cannot be called: {}",
                text(&error)
            ))
        })?;
    }
    Ok(())
}
