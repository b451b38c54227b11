//! From Wasmtime's errors to how a guest ended.

use wasmlet_runner_core::{End, GuestExit, Program, one_line};
use wasmtime::{AsContext, Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::settings::Profile;

/// `proc_exit` of a module: an error like every other to Wasmtime.
///
/// Its own would trap on codes from 126 up.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcExit(pub(super) u32);

impl std::fmt::Display for ProcExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit with code {}", self.0)
    }
}

impl std::error::Error for ProcExit {}

/// Fuel of a guest at its start; metered code needs some where the pod sets no limit, too.
pub(super) fn fuel(program: &Program) -> u64 {
    program.fuel.unwrap_or(u64::MAX)
}

/// Bytes of stack of a guest.
pub(super) fn stack(program: &Program) -> u64 {
    let profile = Profile::from_name(&program.profile).unwrap_or(Profile::Default);
    program.max_stack.unwrap_or(profile.stack())
}

/// Adds what the guest used of its fuel.
pub(super) fn with_fuel(exit: GuestExit, store: impl AsContext, program: &Program) -> End {
    let left = store.as_context().get_fuel().ok();
    End {
        exit,
        fuel_used: left.map(|left| fuel(program).saturating_sub(left)),
    }
}

/// How a guest ended that was running.
///
/// `refused` is what the guest's last refused growth would have made of its memory, if there was one.
pub(super) fn of_run(error: &Error, program: &Program, refused: Option<u64>) -> GuestExit {
    if let Some(ProcExit(code)) = error.downcast_ref() {
        return GuestExit::Code(*code);
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return GuestExit::Code(code.cast_unsigned());
    }
    let mut reason = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            return GuestExit::OutOfFuel {
                limit: fuel(program),
            };
        }
        Some(Trap::StackOverflow) => {
            return GuestExit::StackOverflow {
                limit: stack(program),
            };
        }
        Some(trap) => trap.to_string(),
        None => text(error),
    };
    if let Some(function) = innermost_function(error) {
        reason.push_str(&format!(" in {function}"));
    }
    if let Some(hint) = refused.and_then(|wanted| program.memory.hint_for(wanted)) {
        reason.push_str(&hint);
    }
    GuestExit::Trapped(reason)
}

/// How a guest ended that could not even be instantiated.
pub(super) fn of_instantiation(
    error: &Error,
    program: &Program,
    refused: Option<u64>,
) -> GuestExit {
    if error.downcast_ref::<ProcExit>().is_some()
        || error.downcast_ref::<I32Exit>().is_some()
        || error.downcast_ref::<Trap>().is_some()
    {
        // A start function ran.
        return of_run(error, program, refused);
    }
    if let (Some(needed), Some(limit)) = (refused, program.memory.limit()) {
        return GuestExit::MemoryLimit { needed, limit };
    }
    GuestExit::StartFailed(text(error))
}

/// Name of the function in which it happened, where the module has names.
fn innermost_function(error: &Error) -> Option<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>()?;
    let frame = backtrace.frames().first()?;
    frame
        .func_name()
        .map(|name| format!("function {}", one_line(name)))
}

/// An error and its causes on one line, without the backtrace.
pub(crate) fn text(error: &Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let part = one_line(&cause.to_string());
        if part.starts_with("error while executing at wasm backtrace") {
            continue;
        }
        if !parts.last().is_some_and(|last| last.contains(&part)) {
            parts.push(part);
        }
    }
    parts.join(": ")
}
