//! Runs a guest in a thread of its own.
//!
//! ```text
//! main thread   ── makes stack and thread ──▶ waits for an end; signals of the container are its own
//! guest thread  ── WASI ─▶ memories, start function ─▶ entry point ──▶ an end, and never returns
//! ```

use std::ffi::c_void;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;
use std::sync::{Condvar, Mutex, PoisonError};

use wasmlet_runner_core::{End, GuestExit, Program, Surroundings};

use crate::ffi::{self, code};
use crate::library::{self, LibraryError};
use crate::settings::DEFAULT_STACK;

use super::fault::{self, Fault};
use super::stack::Stack;
use super::{INITIALIZE, Loaded, interpose, memory, wasi};

/// How the guest ended, once it has.
static ENDED: Mutex<Option<End>> = Mutex::new(None);
static HAS_ENDED: Condvar = Condvar::new();

/// Everything that the guest's thread needs.
struct Job {
    loaded: Loaded,
    program: Program,
    surroundings: Surroundings,
    stack: Stack,
}

pub(super) fn run(loaded: Loaded, program: &Program, surroundings: Surroundings) -> End {
    let stack = match Stack::map(stack_bytes(program)) {
        Ok(stack) => stack,
        Err(error) => {
            return failed(format!(
                "no stack of {} bytes: {error}",
                stack_bytes(program)
            ));
        }
    };
    let job = Job {
        loaded,
        program: program.clone(),
        surroundings,
        stack,
    };
    if let Err(error) = start(job) {
        return failed(format!("no thread: {error}"));
    }
    let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(end) = ended.take() {
            return end;
        }
        ended = HAS_ENDED
            .wait(ended)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

fn stack_bytes(program: &Program) -> u64 {
    program.max_stack.unwrap_or(DEFAULT_STACK)
}

fn failed(reason: String) -> End {
    GuestExit::StartFailed(reason).into()
}

/// Ends the guest from wherever its thread is.
pub(super) fn end_here(exit: GuestExit) -> ! {
    tell(exit.into())
}

/// Leaves the end for the main thread, which ends the process.
fn tell(end: End) -> ! {
    {
        let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert(end);
    }
    HAS_ENDED.notify_one();
    loop {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
    }
}

/// Starts the guest's thread. Only faults are delivered to it: what stops the container is for the main
/// thread, whose stack is not the guest's to use up.
fn start(job: Job) -> io::Result<()> {
    let check = |result: i32| match result {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    };
    let (bottom, length) = (job.stack.usable.start, job.stack.usable.len());
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut masked = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    let job = Box::into_raw(Box::new(job)).cast::<c_void>();
    // SAFETY: attributes and sets are written before they are read; the stack is mapped, and nobody else's.
    unsafe {
        check(libc::pthread_attr_init(attributes.as_mut_ptr()))?;
        check(libc::pthread_attr_setstack(
            attributes.as_mut_ptr(),
            bottom as *mut c_void,
            length,
        ))?;
        libc::sigfillset(masked.as_mut_ptr());
        for fault in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGABRT,
            libc::SIGSYS,
        ] {
            libc::sigdelset(masked.as_mut_ptr(), fault);
        }
        check(libc::pthread_sigmask(
            libc::SIG_BLOCK,
            masked.as_ptr(),
            before.as_mut_ptr(),
        ))?;
        let created =
            libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), guest_main, job);
        check(libc::pthread_sigmask(
            libc::SIG_SETMASK,
            before.as_ptr(),
            ptr::null_mut(),
        ))?;
        check(created)
    }
}

extern "C" fn guest_main(job: *mut c_void) -> *mut c_void {
    // SAFETY: `start` gave the job to this thread and forgot it.
    let job = unsafe { Box::from_raw(job.cast::<Job>()) };
    let end = run_here(*job).unwrap_or_else(|exit| exit.into());
    tell(end)
}

fn run_here(job: Job) -> Result<End, GuestExit> {
    let Job {
        loaded,
        program,
        surroundings,
        stack,
    } = job;
    let start_failed = GuestExit::StartFailed;
    // Nothing of the library's is taken apart: the process leaves as it is.
    let loaded = ManuallyDrop::new(loaded);
    fault::prepare(stack.guard)
        .map_err(|error| start_failed(format!("no stack for signals: {error}")))?;
    interpose::enter_guest();
    fault::catch_exceptions();
    let wasi = ManuallyDrop::new(wasi::prepare(&program, surroundings).map_err(start_failed)?);

    // SAFETY: no preconditions but the settings, which live. None of the objects is ever deleted: this
    // thread never returns.
    let (statistics, executor, store) = unsafe {
        let statistics = ffi::WasmEdge_StatisticsCreate();
        let executor = ffi::WasmEdge_ExecutorCreate(loaded.configure.as_ptr(), statistics);
        (statistics, executor, ffi::WasmEdge_StoreCreate())
    };
    if statistics.is_null() || executor.is_null() || store.is_null() {
        return Err(start_failed("no memory for the engine".to_owned()));
    }
    if let Some(fuel) = program.fuel {
        // Only now: making the executor sets the limit to none.
        // SAFETY: the object lives.
        unsafe { ffi::WasmEdge_StatisticsSetCostLimit(statistics, fuel) };
    }
    // SAFETY: all three live.
    let registered =
        unsafe { ffi::WasmEdge_ExecutorRegisterImport(executor, store, wasi.as_ptr()) };
    library::check(registered).map_err(|error| start_failed(error.text))?;

    let end = |exit| End {
        exit,
        // SAFETY: the object lives.
        fuel_used: program
            .fuel
            .map(|_| unsafe { ffi::WasmEdge_StatisticsGetTotalCost(statistics) }),
    };
    let finished = |code| {
        (code == code::TERMINATED).then(|| {
            // SAFETY: the instance lives.
            GuestExit::Code(unsafe { ffi::WasmEdge_ModuleInstanceWASIGetExitCode(wasi.as_ptr()) })
        })
    };
    memory::count(&program.memory);
    let mut instance = ptr::null_mut();
    // SAFETY: all objects live, and there is room for the instance.
    let instantiated = unsafe {
        ffi::WasmEdge_ExecutorInstantiate(
            executor,
            &raw mut instance,
            store,
            loaded.module.as_ptr(),
        )
    };
    memory::started();
    match library::check(instantiated) {
        Ok(code) => {
            if let Some(exit) = finished(code) {
                return Ok(end(exit));
            }
        }
        Err(error) => return Ok(end(of_start(&error, &program))),
    }
    let entries = [
        loaded.initializes.then_some(INITIALIZE),
        Some(loaded.entry.as_str()),
    ];
    for name in entries.into_iter().flatten() {
        // SAFETY: the instance lives; the name is read during the call.
        let function =
            unsafe { ffi::WasmEdge_ModuleInstanceFindFunction(instance, library::name(name)) };
        if function.is_null() {
            return Ok(end(start_failed(format!("the export {name} is gone"))));
        }
        // What a function returns has no meaning to a container.
        // SAFETY: executor and function live; it takes no parameters, and no room is given for results.
        let result = unsafe {
            ffi::WasmEdge_ExecutorInvoke(executor, function, ptr::null(), 0, ptr::null_mut(), 0)
        };
        match library::check(result) {
            Ok(code) => {
                if let Some(exit) = finished(code) {
                    return Ok(end(exit));
                }
            }
            Err(error) => return Ok(end(of_run(&error, &program))),
        }
    }
    Ok(end(GuestExit::Code(0)))
}

/// How a guest ended that could not even be instantiated.
fn of_start(error: &LibraryError, program: &Program) -> GuestExit {
    // Numbers of the load, validation and instantiation phases.
    const PHASES: std::ops::Range<u32> = 0x100..0x400;
    if PHASES.contains(&error.code) {
        return GuestExit::StartFailed(error.text.clone());
    }
    // A start function ran.
    of_run(error, program)
}

/// How a guest ended that was running.
fn of_run(error: &LibraryError, program: &Program) -> GuestExit {
    if error.code == code::COST_LIMIT_EXCEEDED
        && let Some(limit) = program.fuel
    {
        return GuestExit::OutOfFuel { limit };
    }
    let mut reason = error.text.clone();
    if error.code == code::MEMORY_OUT_OF_BOUNDS {
        match fault::last() {
            Fault::Stack => {
                return GuestExit::StackOverflow {
                    limit: stack_bytes(program),
                };
            }
            Fault::Elsewhere => {
                reason =
                    "memory fault outside of linear memory and stack, which is a bug of the engine"
                        .to_owned();
            }
            Fault::Linear => {}
        }
    }
    // A guest that cannot get memory usually says so itself and then traps.
    if let Some(hint) = program.memory.hint() {
        reason.push_str(&hint);
    }
    GuestExit::Trapped(reason)
}
