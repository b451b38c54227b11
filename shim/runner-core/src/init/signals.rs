//! Signals of the init.
//!
//! As process 1 of its pid namespace it never gets a signal that it has no handler for, so without
//! these a container could only be killed.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

/// How long an answer that is under way may take once the container is to stop, in seconds. Well below
/// the 10 s that `docker stop` waits before it kills, and the 30 s of Kubernetes.
const GRACE_SECONDS: u32 = 4;

/// Connections that a guest has open, plus one while an accept is under way.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Signal that asked a busy guest to stop; 0 when there is none.
static STOPPING: AtomicI32 = AtomicI32::new(0);

/// Makes the signals that stop a container do so.
///
/// # Errors
/// When a handler cannot be set.
pub(crate) fn install() -> io::Result<()> {
    let stop = SigAction::new(
        SigHandler::Handler(on_stop),
        SaFlags::empty(),
        SigSet::all(),
    );
    let alarm = SigAction::new(
        SigHandler::Handler(on_alarm),
        SaFlags::empty(),
        SigSet::all(),
    );
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
    ] {
        // SAFETY: the handler calls only async-signal-safe functions (alarm, _exit) and touches
        // only lock-free atomics.
        unsafe { sigaction(signal, &stop) }?;
    }
    // SAFETY: as above.
    unsafe { sigaction(Signal::SIGALRM, &alarm) }?;
    // The shim may have started us with some blocked.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

extern "C" fn on_stop(signal: libc::c_int) {
    if BUSY.load(Ordering::SeqCst) == 0 || STOPPING.swap(signal, Ordering::SeqCst) != 0 {
        // Idle, or asked a second time.
        // SAFETY: _exit is async-signal-safe and does not return.
        unsafe { libc::_exit(128 + signal) };
    }
    // SAFETY: alarm is async-signal-safe.
    unsafe { libc::alarm(GRACE_SECONDS) };
}

extern "C" fn on_alarm(_: libc::c_int) {
    let code = match STOPPING.load(Ordering::SeqCst) {
        // Somebody else's alarm.
        0 => 128 + libc::SIGALRM,
        signal => 128 + signal,
    };
    // SAFETY: _exit is async-signal-safe and does not return.
    unsafe { libc::_exit(code) };
}

/// Ends the process when it was asked to stop while it was busy.
pub(crate) fn leave_if_stopping() {
    let signal = STOPPING.load(Ordering::SeqCst);
    if signal != 0 {
        super::end(128 + signal);
    }
}

/// Ends the process when it was asked to stop while it was busy, and is not any more.
pub(crate) fn leave_if_stopping_and_idle() {
    if BUSY.load(Ordering::SeqCst) == 0 {
        leave_if_stopping();
    }
}

/// As long as one lives, a stop waits.
#[derive(Debug)]
pub(crate) struct Busy(());

impl Busy {
    pub(crate) fn new() -> Self {
        BUSY.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::SeqCst);
    }
}
