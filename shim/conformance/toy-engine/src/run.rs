//! The runner: translates modules and interprets them.

use std::fs::File;
use std::io::{self, Read};

use wasmi::errors::{MemoryError, TableError};
use wasmi::{
    Engine, Error, ExternType, Instance, Linker, Module, ResourceLimiter, Store, TrapCode, Val,
};
use wasmi_core::LimiterError;
use wasmlet_protocol::{
    CreateRequest, Description, Failure, FailureReason, GuestKind, GuestOption, PROTOCOL, interface,
};
use wasmlet_runner_core::{
    End, Guest, GuestExit, MemoryCap, Program, Surroundings, TABLE_ELEMENT_BYTES, one_line,
};

use crate::ENGINE;
use crate::preview1::{self, State};
use crate::settings::{BUILD_ID, MODULE_LIMIT_BYTES, PROFILE, VERSION, config, profile};

/// Memory of a container beside the guest's linear memory, in bytes.
///
/// Measured with the debug build: 9.3 MiB for the program, and 17 MiB for what Wasmi makes of the worst
/// module of [`MODULE_LIMIT_BYTES`], which is nothing but empty functions.
const MEMORY_RESERVE: u64 = 32 << 20;

/// Page tables for each GiB of linear memory, in bytes: 8 for each page of 4 KiB, and half as much again.
const MEMORY_RESERVE_PER_GIB: u64 = 3 << 20;

/// Where a command starts.
const START: &str = "_start";

/// What a library wants to be called first.
const INITIALIZE: &str = "_initialize";

/// The engine.
#[derive(Debug, Clone, Copy)]
pub struct Toy;

/// A translated module.
#[derive(Debug)]
pub struct Loaded {
    engine: Engine,
    module: Module,
    linker: Linker<State>,
    entry: String,
}

impl wasmlet_runner_core::Engine for Toy {
    type Guest = Loaded;

    fn describe(&self) -> Result<Description, Failure> {
        Ok(Description {
            protocol: PROTOCOL,
            engine: ENGINE.to_owned(),
            version: VERSION.to_owned(),
            build_id: BUILD_ID.to_owned(),
            runs: vec![GuestKind::Module],
            interfaces: vec![interface::WASI_PREVIEW1.to_owned()],
            // Not listed is refused by the shim.
            options: vec![GuestOption::Fuel, GuestOption::Memory],
            profiles: vec![profile()],
            memory_reserve: MEMORY_RESERVE,
            memory_reserve_per_gib: MEMORY_RESERVE_PER_GIB,
        })
    }

    /// A shim that has read the description asks for none of this.
    fn check(&self, request: &CreateRequest) -> Result<(), Failure> {
        let refused = [
            (request.kind == GuestKind::Component, "components"),
            (request.profile != PROFILE, "that profile"),
            (request.timeout_millis.is_some(), "wasmlet.dev/timeout"),
            (request.max_stack.is_some(), "wasmlet.dev/max-stack"),
            (request.listen.is_some(), "wasmlet.dev/listen"),
        ];
        match refused.into_iter().find(|(is_asked, _)| *is_asked) {
            None => Ok(()),
            Some((_, what)) => Err(Failure {
                reason: FailureReason::Unsupported,
                message: format!("the engine {ENGINE} does not do {what}; choose another engine"),
            }),
        }
    }

    fn load(&self, artifact: File, program: &Program) -> Result<Loaded, Failure> {
        let wasm = read(artifact).map_err(|error| Failure {
            reason: FailureReason::Internal,
            message: format!("the artifact cannot be read: {error}"),
        })?;
        let engine = Engine::new(&config(program.fuel.is_some()));
        let module = Module::new(&engine, &wasm).map_err(|e| unloadable(&e))?;
        let entry = entry_point(&module, program)?;
        let mut linker = Linker::new(&engine);
        preview1::add_to_linker(&mut linker).map_err(|e| unloadable(&e))?;
        Ok(Loaded {
            engine,
            module,
            linker,
            entry,
        })
    }
}

/// An interpreter has to have it in memory, where a compiler's runner maps it.
fn read(artifact: File) -> io::Result<Vec<u8>> {
    let mut wasm = Vec::new();
    artifact.take(MODULE_LIMIT_BYTES).read_to_end(&mut wasm)?;
    Ok(wasm)
}

/// A failure that is the node's: the helper has checked the module with these very settings.
fn unloadable(error: &Error) -> Failure {
    Failure {
        reason: FailureReason::Internal,
        message: format!("the checked module does not load: {}", text(error)),
    }
}

fn text(error: &Error) -> String {
    one_line(&error.to_string())
}

fn entry_point(module: &Module, program: &Program) -> Result<String, Failure> {
    let name = program.invoke.as_deref().unwrap_or(START);
    let message = match module.get_export(name) {
        Some(ExternType::Func(ty)) if ty.params().is_empty() => return Ok(name.to_owned()),
        Some(ExternType::Func(_)) => {
            format!(
                "the function {name} takes parameters; only functions without any can be called"
            )
        }
        Some(_) => format!("the export {name} is not a function"),
        None => {
            format!("the module exports no function {name}; name one of its own as PATH#FUNCTION")
        }
    };
    Err(Failure {
        reason: FailureReason::InvalidArgument,
        message,
    })
}

impl Guest for Loaded {
    fn run(self, program: &Program, _: Surroundings) -> End {
        let terminated = |text: String| {
            let mut bytes = text.into_bytes();
            bytes.push(0);
            bytes
        };
        let env = program.env.iter();
        let state = State {
            args: program.args.iter().cloned().map(terminated).collect(),
            env: env
                .map(|(name, value)| terminated(format!("{name}={value}")))
                .collect(),
            open: [true; 3],
            limiter: Limiter::new(&program.memory),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limiter);
        if let Some(fuel) = program.fuel
            && let Err(error) = store.set_fuel(fuel)
        {
            return GuestExit::StartFailed(text(&error)).into();
        }
        let exit = match self.linker.instantiate_and_start(&mut store, &self.module) {
            Ok(instance) => self.call(&mut store, instance, program),
            Err(error) => of_instantiation(&error, program),
        };
        End {
            exit,
            fuel_used: program
                .fuel
                .and_then(|fuel| Some(fuel.saturating_sub(store.get_fuel().ok()?))),
        }
    }
}

impl Loaded {
    fn call(&self, store: &mut Store<State>, instance: Instance, program: &Program) -> GuestExit {
        if program.invoke.is_some()
            && let Some(initialize) = instance.get_func(&*store, INITIALIZE)
            && let Err(error) = initialize.call(&mut *store, &[], &mut [])
        {
            return of_run(&error, program);
        }
        let Some(entry) = instance.get_func(&*store, &self.entry) else {
            return GuestExit::StartFailed(format!("the export {} is gone", self.entry));
        };
        // What a function returns has no meaning to a container.
        let mut results = vec![Val::I32(0); entry.ty(&*store).results().len()];
        match entry.call(&mut *store, &[], &mut results) {
            Ok(()) => GuestExit::Code(0),
            Err(error) => of_run(&error, program),
        }
    }
}

/// How a guest ended that was running.
fn of_run(error: &Error, program: &Program) -> GuestExit {
    if let Some(code) = error.i32_exit_status() {
        return GuestExit::Code(code.cast_unsigned());
    }
    if let (Some(TrapCode::OutOfFuel), Some(limit)) = (error.as_trap_code(), program.fuel) {
        return GuestExit::OutOfFuel { limit };
    }
    let hint = program.memory.hint().unwrap_or_default();
    GuestExit::Trapped(text(error) + &hint)
}

/// How a guest ended that could not even be instantiated.
fn of_instantiation(error: &Error, program: &Program) -> GuestExit {
    if error.i32_exit_status().is_some() || error.as_trap_code().is_some() {
        // A start function ran.
        return of_run(error, program);
    }
    match (program.memory.refused(), program.memory.limit()) {
        (Some(needed), Some(limit)) => GuestExit::MemoryLimit { needed, limit },
        _ => GuestExit::StartFailed(text(error)),
    }
}

/// The cap on linear memory and tables, as Wasmi asks for it.
#[derive(Debug)]
pub struct Limiter {
    cap: MemoryCap,
    /// What the last growth asked for, until it is known whether the system gives it.
    last: u64,
}

impl Limiter {
    /// A limiter that asks this cap.
    pub fn new(cap: &MemoryCap) -> Self {
        Self {
            cap: cap.clone(),
            last: 0,
        }
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let is_granted = self.cap.grow(bytes);
        self.last = if is_granted { bytes } else { 0 };
        is_granted
    }

    fn take_back(&mut self) {
        self.cap.shrink(std::mem::take(&mut self.last));
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> Result<bool, LimiterError> {
        Ok(self.grow((desired as u64).saturating_sub(current as u64)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let elements = (desired as u64).saturating_sub(current as u64);
        Ok(self.grow(elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn memory_grow_failed(&mut self, _: &MemoryError) -> Result<(), LimiterError> {
        self.take_back();
        Ok(())
    }

    fn table_grow_failed(&mut self, _: &TableError) -> Result<(), LimiterError> {
        self.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}
