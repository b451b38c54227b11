//! Modules with WASI preview 1 and WASIX.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime as EventLoop};
use virtual_fs::FileSystem;
use virtual_net::host::LocalNetworking;
use virtual_net::{DynVirtualNetworking, UnsupportedVirtualNetworking};
use wasmer::sys::{BaseTunables, EngineBuilder, NativeEngineExt};
use wasmer::{
    Engine, Extern, ExternType, Imports, Instance, Memory, MemoryType, Module, Store, Value,
};
use wasmer_wasix::capabilities::Capabilities;
use wasmer_wasix::{WasiEnv, WasiModuleInstanceHandles, WasiModuleTreeHandles};
use wasmlet_protocol::{Failure, FailureReason};
use wasmlet_runner_core::preview1::{self, Sockets};
use wasmlet_runner_core::{End, GuestExit, MemoryCap, Preopen, Program, Surroundings, one_line};

use super::deterministic::{self, Clock, Ticks};
use super::folders::Folders;
use super::front::Front;
use super::memory::Capped;
use super::stdio::Stream;
use super::{CODE_IN_RESERVE, end, sockets};
use crate::artifact;
use crate::host::{self, Host};
use crate::settings::{Profile, START_FUNCTION};

/// Where a command module starts.
const START: &str = "_start";

/// What a reactor module wants to be called first.
const INITIALIZE: &str = "_initialize";

/// The memory of a guest, by its usual name.
const MEMORY: &str = "memory";

/// Most threads of a guest at a time: each has a stack and an instance outside of the cap on linear memory.
/// Where the container may have fewer (`pids.max`), that is the limit.
const MAX_THREADS: usize = 128;

/// A loaded module.
pub(super) struct LoadedModule {
    engine: Engine,
    module: Module,
    entry: String,
    /// Stays open, as for every engine; the module's description is mapped from it.
    _artifact: File,
}

impl std::fmt::Debug for LoadedModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModule")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

pub(super) fn load(file: File, program: &Program) -> Result<LoadedModule, Failure> {
    let mut engine: Engine = EngineBuilder::headless().engine().into();
    let stack = usize::try_from(end::stack(program)).unwrap_or(usize::MAX);
    let base = BaseTunables::for_target(engine.target());
    engine.set_tunables(Capped::new(base, program.memory.clone(), stack));
    // SAFETY: the file was written by our compile helper and verified by the shim, which handed over the
    // very inode it verified; nobody but root of this node can write to it.
    let module = unsafe { artifact::load(&engine, &file) }.map_err(|error| Failure {
        reason: FailureReason::Internal,
        message: format!(
            "the compiled module does not load: {}",
            one_line(&error.to_string())
        ),
    })?;
    let entry = entry_point(&module, program)?;
    count_code(code_bytes(&module), &program.memory)?;
    Ok(LoadedModule {
        engine,
        module,
        entry,
        _artifact: file,
    })
}

/// Bytes of the copy of the code.
fn code_bytes(module: &Module) -> u64 {
    let functions = module
        .sys_artifact()
        .and_then(|artifact| artifact.finished_function_extents())
        .unwrap_or_default();
    functions
        .iter()
        .map(|(_, extent)| extent.length as u64)
        .sum()
}

/// Takes code that the reserve has no room for from what the guest's memory may be.
fn count_code(bytes: u64, memory: &MemoryCap) -> Result<(), Failure> {
    if memory.grow(bytes.saturating_sub(CODE_IN_RESERVE)) {
        return Ok(());
    }
    Err(Failure {
        reason: FailureReason::ResourceExhausted,
        message: format!(
            "the compiled code takes {bytes} bytes, which leaves no memory for the guest: raise the \
             container's memory limit or wasmlet.dev/memory"
        ),
    })
}

fn entry_point(module: &Module, program: &Program) -> Result<String, Failure> {
    let invalid = |message| Failure {
        reason: FailureReason::InvalidArgument,
        message,
    };
    let name = program.invoke.as_deref().unwrap_or(START);
    let found = module.exports().find(|export| export.name() == name);
    match found.as_ref().map(|export| export.ty()) {
        Some(ExternType::Function(function)) => {
            if !function.params().is_empty() {
                return Err(invalid(format!(
                    "the function {name} takes {} parameters; only functions without any can be called",
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
    let names: Vec<String> = module
        .exports()
        .functions()
        .map(|export| export.name().to_owned())
        .filter(|name| name != START_FUNCTION)
        .take(20)
        .collect();
    if names.is_empty() {
        "no function at all".to_owned()
    } else {
        names.join(", ")
    }
}

impl LoadedModule {
    pub(super) fn run(self, program: &Program, surroundings: Surroundings) -> End {
        let wants_network = self
            .module
            .imports()
            .any(|import| import.module().starts_with("wasix_"));
        let event_loop = match event_loop(wants_network) {
            Ok(event_loop) => event_loop,
            Err(error) => return GuestExit::StartFailed(format!("no event loop: {error}")).into(),
        };
        let entered = event_loop.enter();
        let end = self.run_in(&event_loop, wants_network, program, surroundings);
        drop(entered);
        // Dropping it would wait for threads that block in a name lookup or in a read of stdin, and the
        // process ends at once anyway.
        std::mem::forget(event_loop);
        end
    }

    fn run_in(
        self,
        event_loop: &EventLoop,
        wants_network: bool,
        program: &Program,
        surroundings: Surroundings,
    ) -> End {
        let networking: DynVirtualNetworking = if wants_network {
            Arc::new(LocalNetworking::new())
        } else {
            Arc::new(UnsupportedVirtualNetworking::default())
        };
        let host = Host::new(self.engine.clone(), event_loop.handle().clone(), networking);
        let mut store = Store::new(self.engine.clone());
        let started = self.start(&mut store, host, program, surroundings);
        match started {
            Ok(guest) => guest.run(&mut store, program),
            Err(exit) => exit.into(),
        }
    }

    /// Everything up to the first instruction of the guest.
    fn start(
        &self,
        store: &mut Store,
        host: Host,
        program: &Program,
        mut surroundings: Surroundings,
    ) -> Result<Started, GuestExit> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            GuestExit::StartFailed(format!("{what}: {}", one_line(&error.to_string())))
        };
        let mut env = environment(program, &surroundings.preopens)
            .and_then(|env| {
                env.runtime(Arc::new(host))
                    .finalize(store)
                    .map_err(Box::new)
            })
            .map_err(|e| failed("WASI", &e))?;
        let mut imports =
            host::imports(&env, store, &self.module).map_err(|e| failed("WASI", &e))?;
        let imported = self.imported_memory(store, &mut imports, program)?;
        let front = Front::add(store, &mut imports).map_err(|e| failed("WASI", &e.message()))?;
        let (clock, fixed) = if program.profile == Profile::Deterministic.name() {
            let ticks = Ticks::default();
            let fixed = deterministic::add(store, &mut imports, &ticks);
            (Clock::Ticks(ticks), Some(fixed))
        } else {
            (Clock::System, None)
        };
        let serves = self
            .module
            .imports()
            .any(|import| preview1::serves(import.module(), import.name()));
        let is_shared = self.memory_type().is_some_and(|memory| memory.shared);
        if serves && is_shared && surroundings.listener.is_some() {
            return Err(GuestExit::StartFailed(
                "a module that shares its memory between threads cannot be given a listening socket; set \
                 wasmlet.dev/listen to none"
                    .to_owned(),
            ));
        }
        let listener = surroundings.listener.take();
        let sockets = if serves && !is_shared {
            let sockets = Sockets::new(listener, clock.monotonic());
            let added = sockets::add(store, &mut imports, sockets);
            Some(added.map_err(|e| failed("sockets", &e.message()))?)
        } else {
            None
        };
        let instance = Instance::new(store, &self.module, &imports)
            .map_err(|e| end::of_instantiation(&e, program))?;
        let memory = imported
            .or_else(|| exported_memory(&instance))
            // A guest without one can call functions that need none; to all others every address is out
            // of its bounds.
            .map_or_else(
                || Memory::new(store, MemoryType::new(0, Some(0), false)),
                Ok,
            )
            .map_err(|e| failed("memory", &e))?;
        front.set_memory(store, memory.clone());
        if let Some(sockets) = &sockets {
            sockets.set_memory(store, memory.clone());
        }
        if let Some(fixed) = &fixed {
            fixed.set_memory(store, memory.clone());
        }
        let handles = WasiModuleTreeHandles::Static(WasiModuleInstanceHandles::new(
            memory,
            store,
            instance.clone(),
            None,
        ));
        env.initialize_handles_and_layout(store, instance.clone(), handles, None, true)
            .map_err(|e| failed("WASI", &e))?;
        Ok(Started {
            instance,
            entry: self.entry.clone(),
        })
    }

    fn memory_type(&self) -> Option<MemoryType> {
        let imported = self.module.imports().find_map(|import| match import.ty() {
            ExternType::Memory(ty) => Some(*ty),
            _ => None,
        });
        imported.or_else(|| {
            self.module.exports().find_map(|export| match export.ty() {
                ExternType::Memory(ty) => Some(*ty),
                _ => None,
            })
        })
    }

    /// Makes the memory that a module wants to be given: those with threads do.
    fn imported_memory(
        &self,
        store: &mut Store,
        imports: &mut Imports,
        program: &Program,
    ) -> Result<Option<Memory>, GuestExit> {
        let mut first = None;
        for import in self.module.imports() {
            if let ExternType::Memory(ty) = import.ty() {
                let memory = Memory::new(store, *ty).map_err(|e| end::of_memory(&e, program))?;
                imports.define(import.module(), import.name(), memory.clone());
                first.get_or_insert(memory);
            }
        }
        Ok(first)
    }
}

fn exported_memory(instance: &Instance) -> Option<Memory> {
    let exports = &instance.exports;
    exports.get_memory(MEMORY).ok().cloned().or_else(|| {
        exports.iter().find_map(|(_, export)| match export {
            Extern::Memory(memory) => Some(memory.clone()),
            _ => None,
        })
    })
}

/// One worker: it only wakes what waits.
fn event_loop(wants_network: bool) -> std::io::Result<EventLoop> {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(1)
        .thread_name("wasi")
        .thread_stack_size(256 * 1024)
        .enable_time();
    if wants_network {
        builder.enable_io();
    }
    builder.build()
}

/// Arguments, environment, folders and streams.
fn environment(
    program: &Program,
    preopens: &[Preopen],
) -> Result<wasmer_wasix::WasiEnvBuilder, Box<wasmer_wasix::WasiRuntimeError>> {
    let mut args = program.args.iter();
    let mut env = WasiEnv::builder(args.next().map_or("", String::as_str))
        .args(args)
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .stdin(Box::new(Stream::stdin()))
        .stdout(Box::new(Stream::stdout()))
        .stderr(Box::new(Stream::stderr()));
    let folders = Folders::open(preopens);
    let error = |error| Box::new(wasmer_wasix::WasiRuntimeError::Init(error));
    // Programs of WASIX use paths from the root, which is looked for by this name. Before all others: of
    // two folders that fit a relative path equally well, the guest's library takes the last, which then is
    // the working folder.
    env.add_preopen_dir("/").map_err(error)?;
    for preopen in preopens {
        let (path, alias) = if preopen.guest == "." {
            (preopen.host.as_path(), Some("."))
        } else {
            (Path::new(&preopen.guest), None)
        };
        // One that could not be opened is not there.
        if folders.metadata(path).is_err() {
            continue;
        }
        // WASIX looks into it, and gives up where the user may not.
        if alias.is_some() && folders.read_dir(path).is_ok() {
            env.set_current_dir(path);
        }
        // All rights for every folder: with less, WASIX opens a file for less than was asked, and says
        // nothing. What may not be written is refused by `Folders`.
        env.add_preopen_build(|folder| {
            folder.directory(path).read(true).write(true).create(true);
            match alias {
                Some(alias) => folder.alias(alias),
                None => folder,
            }
        })
        .map_err(error)?;
    }
    env.set_fs(Arc::new(folders) as Arc<dyn FileSystem + Send + Sync>);
    let mut capabilities = Capabilities::new();
    capabilities.threading.max_threads = Some(MAX_THREADS);
    env.set_capabilities(capabilities);
    // Programs that WASIX brings along are for a shell that is not there.
    Ok(env.disable_default_builtins(true))
}

/// An instance whose turn it is.
struct Started {
    instance: Instance,
    entry: String,
}

impl Started {
    fn run(self, store: &mut Store, program: &Program) -> End {
        let fuel = end::Fuel::of(&self.instance, store, program);
        let exit = self.call(store, program);
        end::with_fuel(exit, fuel.as_ref(), store)
    }

    fn call(&self, store: &mut Store, program: &Program) -> GuestExit {
        let exports = &self.instance.exports;
        let first = [
            Some(START_FUNCTION),
            program.invoke.is_some().then_some(INITIALIZE),
        ];
        for name in first.into_iter().flatten() {
            if let Ok(function) = exports.get_function(name)
                && function.ty(store).params().is_empty()
                && let Err(error) = function.call(store, &[])
            {
                return end::of_run(&error, program);
            }
        }
        let Ok(entry) = exports.get_function(&self.entry) else {
            return GuestExit::StartFailed(format!("the export {} is gone", self.entry));
        };
        let arguments: [Value; 0] = [];
        match entry.call(store, &arguments) {
            // What a function returns has no meaning to a container.
            Ok(_) => GuestExit::Code(0),
            Err(error) => end::of_run(&error, program),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_code_leaves_less_memory() {
        const MIB: u64 = 1 << 20;
        let memory = MemoryCap::fixed(Some(10 * MIB));
        count_code(CODE_IN_RESERVE, &memory).expect("the reserve has room for it");
        assert!(memory.grow(10 * MIB));
        let memory = MemoryCap::fixed(Some(10 * MIB));
        count_code(CODE_IN_RESERVE + 4 * MIB, &memory).expect("the memory has");
        assert!(memory.grow(6 * MIB) && !memory.grow(1));
        let failure = count_code(CODE_IN_RESERVE + MIB, &memory).expect_err("nothing has");
        assert!(failure.message.contains("wasmlet.dev/memory"));
    }
}
