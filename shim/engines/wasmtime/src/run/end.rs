//! From Wasmtime's errors to how a guest ended.

use wasmlet_runner_core::{GuestExit, one_line};
use wasmtime::{Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::memory::MemoryCap;

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

/// How a guest ended that was running.
pub(super) fn of_run(error: &Error, memory: &MemoryCap) -> GuestExit {
    if let Some(ProcExit(code)) = error.downcast_ref() {
        return GuestExit::Code(*code);
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return GuestExit::Code(code.cast_unsigned());
    }
    let mut reason = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return GuestExit::OutOfFuel,
        Some(Trap::Interrupt) => return GuestExit::Deadline,
        Some(trap) => trap.to_string(),
        None => text(error),
    };
    if let Some(function) = innermost_function(error) {
        reason.push_str(&format!(" in {function}"));
    }
    // A guest that cannot get memory usually says so itself and then traps.
    if let (Some(wanted), Some(limit)) = (memory.refused, memory.limit()) {
        reason.push_str(&format!(
            "; before, it was refused {wanted} bytes of linear memory and tables (limit {limit}): \
             raise the container's memory limit or wasmlet.dev/memory"
        ));
    }
    GuestExit::Trapped(reason)
}

/// How a guest ended that could not even be instantiated.
pub(super) fn of_instantiation(error: &Error, memory: &MemoryCap) -> GuestExit {
    if error.downcast_ref::<ProcExit>().is_some()
        || error.downcast_ref::<I32Exit>().is_some()
        || error.downcast_ref::<Trap>().is_some()
    {
        // A start function ran.
        return of_run(error, memory);
    }
    if let (Some(needed), Some(limit)) = (memory.refused, memory.limit()) {
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
