//! Faults of compiled code.
//!
//! Compiled code checks no bounds: an access outside of a linear memory is a fault, which the library
//! turns into a trap. A stack that is used up is a fault, too, on a stack on which no handler can run.
//! So the library's handler runs on a stack of its own, behind one of ours that notes which fault it was.

use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use wasmlet_runner_core::GuestExit;

use super::{guest, memory};

/// Room for a signal's frame with every register there is, and for the library's walk up the stack.
const HANDLER_STACK_BYTES: usize = 64 * 1024;

/// The library's handler; 0 while it has none.
static LIBRARY: AtomicUsize = AtomicUsize::new(0);

/// Addresses whose use is a stack overflow.
static GUARD: OnceLock<Range<usize>> = OnceLock::new();

static LAST: AtomicU8 = AtomicU8::new(Fault::Linear as u8);

/// Where a fault was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    /// In a linear memory, or no fault was seen.
    Linear = 0,
    /// Below the guest's stack.
    Stack = 1,
    /// Anywhere else: not the guest's doing.
    Elsewhere = 2,
}

/// What the last fault was.
pub(super) fn last() -> Fault {
    match LAST.load(Ordering::SeqCst) {
        1 => Fault::Stack,
        2 => Fault::Elsewhere,
        _ => Fault::Linear,
    }
}

/// Gives this thread a stack for handlers, and says where its own ends.
///
/// # Errors
/// When there is no memory.
pub(super) fn prepare(guard: Range<usize>) -> io::Result<()> {
    // Once a process.
    let _ = GUARD.set(guard);
    // SAFETY: fresh memory, which stays mapped until the process ends.
    let stack = unsafe {
        libc::mmap(
            ptr::null_mut(),
            HANDLER_STACK_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if stack == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let stack = libc::stack_t {
        ss_sp: stack,
        ss_flags: 0,
        ss_size: HANDLER_STACK_BYTES,
    };
    // SAFETY: the stack is this thread's alone.
    if unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ends the guest with a word where the library would abort: memory that it cannot have for a table or
/// an object of its own is an exception that it lets nobody catch.
pub(super) fn catch_exceptions() {
    type SetTerminate = unsafe extern "C" fn(extern "C" fn()) -> Option<extern "C" fn()>;
    // `std::set_terminate`, by the name it has for linkers.
    // SAFETY: the name is a string; what it stands for has had this type since there is that library.
    unsafe {
        let set = libc::dlsym(libc::RTLD_DEFAULT, c"_ZSt13set_terminatePFvvE".as_ptr());
        if !set.is_null() {
            std::mem::transmute::<*mut c_void, SetTerminate>(set)(on_exception);
        }
    }
}

extern "C" fn on_exception() {
    guest::end_here(GuestExit::Trapped(
        "the engine got no memory for what the guest asked for (a table that grew?)".to_owned(),
    ));
}

/// Whether a signal is one of compiled code's.
pub(super) fn is_fault(signal: c_int) -> bool {
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE].contains(&signal)
}

/// The action that takes the place of the library's, and goes on to it.
pub(super) fn in_front_of(library: &libc::sigaction) -> libc::sigaction {
    if library.sa_flags & libc::SA_SIGINFO == 0 {
        // Back to the default, or ignored.
        return *library;
    }
    LIBRARY.store(library.sa_sigaction, Ordering::SeqCst);
    libc::sigaction {
        sa_sigaction: on_fault as *const () as usize,
        sa_flags: library.sa_flags | libc::SA_ONSTACK,
        ..*library
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    if signal != libc::SIGFPE {
        // SAFETY: the kernel passes what belongs to the signal.
        let address = unsafe { (*info).si_addr() } as usize;
        let fault = if GUARD.get().is_some_and(|guard| guard.contains(&address)) {
            Fault::Stack
        } else if memory::is_linear(address) {
            Fault::Linear
        } else {
            Fault::Elsewhere
        };
        LAST.store(fault as u8, Ordering::SeqCst);
    }
    let library = LIBRARY.load(Ordering::SeqCst);
    // SAFETY: the address was stored from the library's own action for this signal, with SA_SIGINFO.
    // This handler is only installed together with it.
    let handler = unsafe { std::mem::transmute::<usize, Handler>(library) };
    // Does not return: the library jumps back to where it called the guest.
    handler(signal, info, context);
}
