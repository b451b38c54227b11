//! Core modules with WASI preview 1.

use std::fs::File;

use wasmlet_protocol::{Failure, FailureReason};
use wasmlet_runner_core::preview1::Sockets;
use wasmlet_runner_core::{End, GuestExit, Program, Surroundings};
use wasmlet_wasi_nn::modules;
use wasmtime::{Config, Engine, ExternType, InstancePre, Linker, Module, Store, Val};
use wasmtime_wasi::HostMonotonicClock;
use wasmtime_wasi::p1::{self, WasiP1Ctx};

use super::end::{self, ProcExit};
use super::host::{self, Clock, Drivers};
use super::memory::Limiter;
use super::nn::{self, Nn};
use super::sockets;
use super::unloadable;

/// What the host functions of a module work on.
pub(super) struct State {
    pub(super) wasi: WasiP1Ctx,
    pub(super) sockets: Sockets,
    memory: Limiter,
    nn: Nn<modules::State>,
}

/// A mapped module with its imports resolved.
pub(super) struct LoadedModule {
    instance: InstancePre<State>,
    entry: String,
}

impl std::fmt::Debug for LoadedModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModule")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

/// Where a command module starts.
const START: &str = "_start";

/// What a reactor module wants to be called first.
const INITIALIZE: &str = "_initialize";

pub(super) fn load(
    config: &Config,
    artifact: File,
    program: &Program,
) -> Result<LoadedModule, Failure> {
    let engine = Engine::new(config).map_err(|e| unloadable("wasmtime does not start", &e))?;
    // SAFETY: the file was written by our compile helper and verified by the shim, which handed
    // over the very inode it verified; nobody but root of this node can write to it.
    let module = unsafe { Module::deserialize_open_file(&engine, artifact) }
        .map_err(|e| unloadable("the compiled module does not load", &e))?;
    let entry = entry_point(&module, program)?;
    let wants_nn = modules::wanted_by(&module);
    if wants_nn {
        nn::prepare(program)?;
    }

    let mut linker: Linker<State> = Linker::new(&engine);
    let linked = p1::add_to_linker_async(&mut linker, |state| &mut state.wasi).and_then(|()| {
        linker.allow_shadowing(true);
        linker.func_wrap(
            "wasi_snapshot_preview1",
            "proc_exit",
            |code: i32| -> wasmtime::Result<()> { Err(ProcExit(code.cast_unsigned()).into()) },
        )?;
        if sockets::wanted_by(&module) {
            sockets::add_to_linker(&mut linker)?;
        }
        if wants_nn {
            modules::add_to_linker(&mut linker, |state| state.nn.get(modules::State::new))?;
        }
        linker.instantiate_pre(&module)
    });
    let instance = linked.map_err(|error| Failure {
        reason: FailureReason::InvalidArgument,
        message: end::text(&error),
    })?;
    Ok(LoadedModule { instance, entry })
}

fn entry_point(module: &Module, program: &Program) -> Result<String, Failure> {
    let invalid = |message| Failure {
        reason: FailureReason::InvalidArgument,
        message,
    };
    let name = program.invoke.as_deref().unwrap_or(START);
    match module.get_export(name) {
        Some(ExternType::Func(function)) => {
            if function.params().len() != 0 {
                return Err(invalid(format!(
                    "the function {name} takes {} parameters; only functions without any can be \
                     called",
                    function.params().len()
                )));
            }
            Ok(name.to_owned())
        }
        Some(_) => Err(invalid(format!("the export {name} is not a function"))),
        None if program.invoke.is_some() => Err(invalid(format!(
            "the module exports no function {name}; it exports {}",
            exported_functions(module)
        ))),
        None => Err(invalid(format!(
            "the module exports no {START}, so it is not a command; name one of its functions as \
             PATH#FUNCTION: {}",
            exported_functions(module)
        ))),
    }
}

fn exported_functions(module: &Module) -> String {
    let names: Vec<&str> = module
        .exports()
        .filter(|export| matches!(export.ty(), ExternType::Func(_)))
        .map(|export| export.name())
        .take(20)
        .collect();
    if names.is_empty() {
        "no function at all".to_owned()
    } else {
        names.join(", ")
    }
}

impl LoadedModule {
    pub(super) fn run(self, program: &Program, mut surroundings: Surroundings) -> End {
        let clock = Clock::start();
        let mut wasi = host::wasi(program, &surroundings);
        if !host::is_deterministic(program) {
            wasi.monotonic_clock(clock);
        }
        let state = State {
            wasi: wasi.build_p1(),
            sockets: Sockets::new(surroundings.listener.take(), move || clock.now()),
            memory: Limiter::new(&program.memory),
            nn: Nn::new(),
        };
        let mut store = Store::new(self.instance.module().engine(), state);
        store.limiter(|state| &mut state.memory);
        host::limit(&mut store, program);
        host::block_on(Drivers::Time, async move {
            let exit = self.call(&mut store, program).await;
            end::with_fuel(exit, &store, program)
        })
    }

    async fn call(&self, store: &mut Store<State>, program: &Program) -> GuestExit {
        let instance = match self.instance.instantiate_async(&mut *store).await {
            Ok(instance) => instance,
            Err(error) => {
                return end::of_instantiation(&error, program, store.data().memory.refused());
            }
        };
        if program.invoke.is_some()
            && let Some(initialize) = instance.get_func(&mut *store, INITIALIZE)
            && let Err(error) = initialize.call_async(&mut *store, &[], &mut []).await
        {
            return end::of_run(&error, program, store.data().memory.refused());
        }
        let Some(entry) = instance.get_func(&mut *store, &self.entry) else {
            return GuestExit::StartFailed(format!("the export {} is gone", self.entry));
        };
        let count = entry.ty(&*store).results().len();
        let mut results = vec![Val::I32(0); count];
        match entry.call_async(&mut *store, &[], &mut results).await {
            // What a function returns has no meaning to a container.
            Ok(()) => GuestExit::Code(0),
            Err(error) => end::of_run(&error, program, store.data().memory.refused()),
        }
    }
}
