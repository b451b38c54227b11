//! The wall-clock limit of a run.
//!
//! A timer of the kernel ends the process, whatever it does at that moment: a loop of the guest, a host
//! function that blocks, a start function. It costs the guest's code nothing, and is the same for every
//! engine.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use wasmlet_protocol::ExitCode;

use crate::engine::GuestExit;
use crate::report;

/// What the handler writes; made beforehand, as a handler may not allocate.
static LINE: OnceLock<String> = OnceLock::new();

/// Not one of the signals that stop a container, and not the alarm of a stop that is under way.
const SIGNAL: Signal = Signal::SIGVTALRM;

/// Ends this process after that time, with the line and the exit code of a deadline.
///
/// # Errors
/// When the kernel refuses a timer.
pub(crate) fn set(name: &str, limit: Duration) -> io::Result<()> {
    LINE.get_or_init(|| report::line(name, &GuestExit::Deadline { limit }).unwrap_or_default());
    let action = SigAction::new(
        SigHandler::Handler(on_deadline),
        SaFlags::SA_ONSTACK,
        SigSet::all(),
    );
    // SAFETY: the handler calls only write and _exit, which are async-signal-safe, and reads a value that
    // was set before the handler was.
    unsafe { sigaction(SIGNAL, &action) }?;

    // SAFETY: a sigevent is plain data, for which zeros are valid.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = SIGNAL as libc::c_int;
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: both pointers are to live values of the right types.
    check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) })?;
    let limit = libc::itimerspec {
        it_interval: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: libc::timespec {
            tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(limit.subsec_nanos()),
        },
    };
    // SAFETY: the timer was made above, and the value is live.
    check(unsafe { libc::timer_settime(timer, 0, &raw const limit, ptr::null_mut()) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_deadline(_: libc::c_int) {
    let line = LINE.get().map_or("", String::as_str);
    // SAFETY: write and _exit are async-signal-safe; the line is valid for its length. Nobody is left to
    // tell when the write fails.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        libc::_exit(ExitCode::Deadline.code());
    }
}
