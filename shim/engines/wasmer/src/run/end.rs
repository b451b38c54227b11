//! From Wasmer's errors to how a guest ended.

use wasmer::sys::vm::TrapCode;
use wasmer::{
    Global, Instance, InstantiationError, LinkError, MemoryError, RuntimeError, Store, Value,
};
use wasmer_wasix::WasiError;
use wasmlet_runner_core::{End, GuestExit, Program, one_line};

use crate::settings::Profile;

/// What the metering of the compile helper exports: the fuel that is left, and whether some was missing.
const FUEL_LEFT: &str = "wasmer_metering_remaining_points";
const FUEL_MISSING: &str = "wasmer_metering_points_exhausted";

/// `proc_exit` of a module: an error like every other to Wasmer.
///
/// WASIX keeps the lowest eight bits of the code, and a failure would look like a success.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcExit(pub(super) u32);

impl std::fmt::Display for ProcExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit with code {}", self.0)
    }
}

impl std::error::Error for ProcExit {}

/// Bytes of stack of a guest.
pub(super) fn stack(program: &Program) -> u64 {
    let profile = Profile::from_name(&program.profile).unwrap_or(Profile::Default);
    program.max_stack.unwrap_or(profile.stack())
}

/// The fuel of a guest whose code counts it.
pub(super) struct Fuel {
    left: Global,
    missing: Global,
    given: u64,
}

impl Fuel {
    /// Hands out the fuel. A module that exports such names by itself is not metered for that.
    pub(super) fn of(instance: &Instance, store: &mut Store, program: &Program) -> Option<Self> {
        let profile = Profile::from_name(&program.profile)?;
        if !profile.metered(program.fuel.is_some()) {
            return None;
        }
        let fuel = Self {
            left: instance.exports.get_global(FUEL_LEFT).ok()?.clone(),
            missing: instance.exports.get_global(FUEL_MISSING).ok()?.clone(),
            given: program.fuel.unwrap_or(u64::MAX),
        };
        fuel.left
            .set(store, Value::I64(fuel.given.cast_signed()))
            .ok()?;
        Some(fuel)
    }

    fn is_used_up(&self, store: &mut Store) -> bool {
        matches!(self.missing.get(store), Value::I32(missing) if missing != 0)
    }

    fn used(&self, store: &mut Store) -> u64 {
        match self.left.get(store) {
            Value::I64(left) => self.given.saturating_sub(left.cast_unsigned()),
            _ => 0,
        }
    }
}

/// Adds what the guest used of its fuel.
///
/// Fuel is taken for a whole stretch of code before it runs. The last stretch did not, so of a guest that ran
/// out of it a little may be left.
pub(super) fn with_fuel(exit: GuestExit, fuel: Option<&Fuel>, store: &mut Store) -> End {
    let Some(fuel) = fuel else {
        return exit.into();
    };
    let fuel_used = Some(fuel.used(store));
    let exit = match exit {
        GuestExit::Trapped(_) if fuel.is_used_up(store) => {
            GuestExit::OutOfFuel { limit: fuel.given }
        }
        exit => exit,
    };
    End { exit, fuel_used }
}

/// How a guest ended that was running.
pub(super) fn of_run(error: &RuntimeError, program: &Program) -> GuestExit {
    if let Some(ProcExit(code)) = error.downcast_ref() {
        return GuestExit::Code(*code);
    }
    if let Some(error) = error.downcast_ref::<WasiError>() {
        return match error {
            WasiError::Exit(code) => GuestExit::Code(code.raw().cast_unsigned()),
            // The main thread ended, and that is the end.
            WasiError::ThreadExit => GuestExit::Code(0),
            error => trapped(one_line(&error.to_string()), program),
        };
    }
    let mut reason = match error.clone().to_trap() {
        Some(TrapCode::StackOverflow) => {
            return GuestExit::StackOverflow {
                limit: stack(program),
            };
        }
        Some(trap) => trap.message().to_owned(),
        None => one_line(&error.message()),
    };
    let function = error
        .trace()
        .first()
        .and_then(|frame| frame.function_name());
    if let Some(name) = function {
        reason.push_str(&format!(" in function {}", one_line(name)));
    }
    trapped(reason, program)
}

fn trapped(mut reason: String, program: &Program) -> GuestExit {
    if let Some(hint) = program.memory.hint() {
        reason.push_str(&hint);
    }
    GuestExit::Trapped(reason)
}

/// How a guest ended that could not even be instantiated.
pub(super) fn of_instantiation(error: &InstantiationError, program: &Program) -> GuestExit {
    match error {
        // Data or elements that lie outside, or the start function of a module with threads.
        InstantiationError::Start(error) | InstantiationError::Link(LinkError::Trap(error)) => {
            of_run(error, program)
        }
        error => no_memory(program)
            .unwrap_or_else(|| GuestExit::StartFailed(one_line(&error.to_string()))),
    }
}

/// How a guest ended whose memory could not be made.
pub(super) fn of_memory(error: &MemoryError, program: &Program) -> GuestExit {
    no_memory(program).unwrap_or_else(|| GuestExit::StartFailed(one_line(&error.to_string())))
}

fn no_memory(program: &Program) -> Option<GuestExit> {
    Some(GuestExit::MemoryLimit {
        needed: program.memory.refused()?,
        limit: program.memory.limit()?,
    })
}
