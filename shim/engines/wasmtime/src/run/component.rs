//! Components with WASI preview 2.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use wasmlet_protocol::{Failure, FailureReason};
use wasmlet_runner_core::{End, GuestExit, Program, Surroundings, note};
use wasmlet_wasi_nn::components::{self, View};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentExportIndex, InstancePre, Linker, ResourceTable, Val,
};
use wasmtime::{Config, CustomCodeMemory, Engine, InstanceAllocationStrategy, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::host::{self, Drivers};
use super::http::{self, Http, Server};
use super::memory::Limiter;
use super::nn::{self, Nn};
use super::{end, unloadable};
use crate::settings::Code;

/// What the host functions of a component work on.
pub(super) struct State {
    pub(super) wasi: WasiCtx,
    pub(super) table: ResourceTable,
    pub(super) http: Http,
    pub(super) memory: Limiter,
    pub(super) nn: Nn<components::State>,
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.http.hooks,
            table: &mut self.table,
            ctx: &mut self.http.ctx,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// A mapped component with its imports resolved.
pub(super) struct LoadedComponent {
    engine: Engine,
    entry: Entry,
}

enum Entry {
    Command(CommandPre<State>),
    Function(InstancePre<State>, ComponentExportIndex),
    Server(Box<Server>),
}

/// What a component exports that is called over HTTP.
const HANDLER: &str = "wasi:http/incoming-handler@0.2";

/// What it imports that needs `wasi:http`.
const HTTP: &str = "wasi:http/";

impl std::fmt::Debug for LoadedComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedComponent").finish_non_exhaustive()
    }
}

pub(super) fn load(
    config: &mut Config,
    code: Code,
    artifact: File,
    program: &Program,
) -> Result<LoadedComponent, Failure> {
    config.with_custom_code_memory(Some(Arc::new(MappedCode)));
    let memory = map(&artifact).map_err(|error| Failure {
        reason: FailureReason::Internal,
        message: format!("the compiled component cannot be mapped: {error}"),
    })?;
    let (mut engine, mut component) = open(config, memory)?;
    let has = |component: &Component, engine: &Engine, name: &str| {
        let ty = component.component_type();
        ty.exports(engine)
            .any(|(export, _)| export.starts_with(name))
    };
    let serves = has(&component, &engine, HANDLER);
    if program.listen.is_none() {
        return command(engine, &component, program, serves);
    }
    if !serves {
        return Err(invalid(
            "the component does not export wasi:http/incoming-handler, so there is nothing to listen \
             for; set wasmlet.dev/listen to none"
                .to_owned(),
        ));
    }
    if let Some(required) = component.resources_required() {
        config.allocation_strategy(http::strategy(&required));
        // Only now is it known how large a pool has to be.
        drop((engine, component));
        (engine, component) = match open(config, memory) {
            Ok(both) => both,
            Err(failure) => {
                note(
                    program,
                    &format!(
                        "no pool for the instances ({}); each request has its own made, which is slower",
                        failure.message
                    ),
                );
                config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
                open(config, memory)?
            }
        };
    }
    let instance = link(&engine, &component, program)?;
    let server = Server::new(engine.clone(), instance, code.interruptible)?;
    Ok(LoadedComponent {
        engine,
        entry: Entry::Server(Box::new(server)),
    })
}

fn invalid(message: String) -> Failure {
    Failure {
        reason: FailureReason::InvalidArgument,
        message,
    }
}

/// Makes an engine, and of the mapped artifact a component.
fn open(config: &Config, memory: NonNull<[u8]>) -> Result<(Engine, Component), Failure> {
    let engine = Engine::new(config).map_err(|e| unloadable("wasmtime does not start", &e))?;
    // SAFETY: as for modules, the bytes are those that the shim verified. The mapping is never
    // taken away, and private: nobody can write to it. A component that was made of it before is gone.
    let component = unsafe { Component::deserialize_raw(&engine, memory) }
        .map_err(|e| unloadable("the compiled component does not load", &e))?;
    Ok((engine, component))
}

/// Resolves the imports. Those of `wasi:http` and `wasi:nn` cost memory, so only who wants them gets
/// them.
fn link(
    engine: &Engine,
    component: &Component,
    program: &Program,
) -> Result<InstancePre<State>, Failure> {
    let mut linker: Linker<State> = Linker::new(engine);
    let ty = component.component_type();
    let wants_http = ty.imports(engine).any(|(name, _)| name.starts_with(HTTP));
    let wants_nn = components::wanted_by(engine, component);
    if wants_nn {
        nn::prepare(program)?;
    }
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)
        .and_then(|()| match wants_http {
            true => wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker),
            false => Ok(()),
        })
        .and_then(|()| match wants_nn {
            true => components::add_to_linker(&mut linker, |state: &mut State| {
                View::new(state.nn.get(components::State::new))
            }),
            false => Ok(()),
        })
        .and_then(|()| linker.instantiate_pre(component))
        .map_err(|error| invalid(end::text(&error)))
}

/// A component that is run once.
fn command(
    engine: Engine,
    component: &Component,
    program: &Program,
    serves: bool,
) -> Result<LoadedComponent, Failure> {
    let instance = link(&engine, component, program)?;
    let entry = match &program.invoke {
        Some(name) => Entry::Function(instance, find_function(&engine, component, name)?),
        None => Entry::Command(CommandPre::new(instance).map_err(|error| {
            invalid(if serves {
                "the component serves wasi:http/incoming-handler and is no command, so without a socket \
                 there is nothing to run; set wasmlet.dev/listen to an address, or leave it away"
                    .to_owned()
            } else {
                format!(
                    "the component is not a command, as it does not export wasi:cli/run ({}); name one \
                     of its functions as PATH#FUNCTION",
                    end::text(&error)
                )
            })
        })?),
    };
    Ok(LoadedComponent { engine, entry })
}

/// Finds `function`, or `function` of an exported interface written as `interface#function`.
fn find_function(
    engine: &Engine,
    component: &Component,
    name: &str,
) -> Result<ComponentExportIndex, Failure> {
    let found = match name.rsplit_once('#') {
        None => component.get_export(None, name),
        Some((interface, function)) => component
            .get_export_index(None, interface)
            .and_then(|interface| component.get_export(Some(&interface), function)),
    };
    match found {
        Some((ComponentItem::ComponentFunc(function), index)) => {
            let count = function.params().len();
            if count != 0 {
                return Err(invalid(format!(
                    "the function {name} takes {count} parameters; only functions without any can \
                     be called"
                )));
            }
            Ok(index)
        }
        Some(_) => Err(invalid(format!("the export {name} is not a function"))),
        None => {
            let exports: Vec<String> = component
                .component_type()
                .exports(engine)
                .map(|(name, _)| name.to_owned())
                .take(20)
                .collect();
            Err(invalid(format!(
                "the component exports no function {name}; it exports {}",
                exports.join(", ")
            )))
        }
    }
}

impl LoadedComponent {
    pub(super) fn run(self, program: &Program, surroundings: Surroundings) -> End {
        if let Entry::Server(server) = self.entry {
            return server.run(program, surroundings);
        }
        let mut wasi = host::wasi(program, &surroundings);
        host::component(&mut wasi, host::cwd().as_deref());
        let state = State {
            wasi: wasi.build(),
            table: ResourceTable::new(),
            http: Http::new(),
            memory: Limiter::new(&program.memory),
            nn: Nn::new(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        host::limit(&mut store, program);
        host::block_on(Drivers::TimeAndSockets, async move {
            let exit = match self.entry {
                Entry::Command(command) => run_command(&command, &mut store, program).await,
                Entry::Function(instance, index) => {
                    call_function(&instance, index, &mut store, program).await
                }
                Entry::Server(_) => {
                    GuestExit::StartFailed("a server was run as a command".to_owned())
                }
            };
            end::with_fuel(exit, &store, program)
        })
    }
}

async fn run_command(
    command: &CommandPre<State>,
    store: &mut Store<State>,
    program: &Program,
) -> GuestExit {
    let command = match command.instantiate_async(&mut *store).await {
        Ok(command) => command,
        Err(error) => {
            return end::of_instantiation(&error, program, store.data().memory.refused());
        }
    };
    match command.wasi_cli_run().call_run(&mut *store).await {
        Ok(Ok(())) => GuestExit::Code(0),
        Ok(Err(())) => GuestExit::Code(1),
        Err(error) => end::of_run(&error, program, store.data().memory.refused()),
    }
}

async fn call_function(
    instance: &InstancePre<State>,
    index: ComponentExportIndex,
    store: &mut Store<State>,
    program: &Program,
) -> GuestExit {
    let instance = match instance.instantiate_async(&mut *store).await {
        Ok(instance) => instance,
        Err(error) => {
            return end::of_instantiation(&error, program, store.data().memory.refused());
        }
    };
    let Some(function) = instance.get_func(&mut *store, index) else {
        return GuestExit::StartFailed("the function is gone".to_owned());
    };
    let count = function.ty(&*store).results().len();
    let mut results = vec![Val::Bool(false); count];
    match function.call_async(&mut *store, &[], &mut results).await {
        // What a function returns has no meaning to a container, but that it reports an error.
        Ok(()) if matches!(results.first(), Some(Val::Result(Err(_)))) => GuestExit::Code(1),
        Ok(()) => GuestExit::Code(0),
        Err(error) => end::of_run(&error, program, store.data().memory.refused()),
    }
}

/// Maps a whole file, readable and private.
fn map(file: &File) -> io::Result<NonNull<[u8]>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    // SAFETY: a new mapping at an address of the kernel's choice; the length is checked by it.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(ptr::slice_from_raw_parts_mut(address.cast::<u8>(), length))
        .ok_or_else(|| io::Error::other("mapped at address 0"))
}

/// Makes the code of a mapped artifact executable.
///
/// Wasmtime does that by itself for modules, which it can load from an open file. For components it
/// can only take a path, of which there is none after `pivot_root`, or memory that belongs to
/// others, which it leaves to them.
struct MappedCode;

impl CustomCodeMemory for MappedCode {
    fn required_alignment(&self) -> usize {
        // SAFETY: sysconf has no preconditions.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).unwrap_or(4096)
    }

    fn publish_executable(&self, address: *const u8, length: usize) -> wasmtime::Result<()> {
        protect(address, length, libc::PROT_READ | libc::PROT_EXEC)
    }

    fn unpublish_executable(&self, address: *const u8, length: usize) -> wasmtime::Result<()> {
        protect(address, length, libc::PROT_READ)
    }
}

fn protect(address: *const u8, length: usize, protection: i32) -> wasmtime::Result<()> {
    // SAFETY: Wasmtime passes the text section of the mapping made by `map`, page-aligned as
    // required above; it is never made writable.
    let result = unsafe { libc::mprotect(address.cast_mut().cast(), length, protection) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error().into())
    }
}
