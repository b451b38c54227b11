//! Signals of the init.
//!
//! As process 1 of its pid namespace it never gets a signal that it has no handler for, so without
//! these a container could only be killed.
//!
//! | the guest | first signal | second signal |
//! |---|---|---|
//! | has no connection open | ends the process | |
//! | has one open | ends it at the next accept, after 4 s at the latest | ends it |
//! | is served by its engine ([`hand_over`]) | tells the engine; ends it after 8 s at the latest | ends it |

use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

use crate::failure::one_line;

/// How long an answer that is under way may take once the container is to stop, in seconds. Well below
/// the 10 s that `docker stop` waits before it kills, and the 30 s of Kubernetes.
const GRACE_SECONDS: u32 = 4;

/// The same for requests that an engine answers, in seconds: they may be many, and each has a guest of
/// its own. Still below what `docker stop` waits.
pub(crate) const SERVER_GRACE_SECONDS: u32 = 8;

/// Connections that a guest has open, plus one while an accept is under way.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Signal that asked a busy guest to stop; 0 when there is none.
static STOPPING: AtomicI32 = AtomicI32::new(0);

/// Where an engine that serves is told of a stop; -1 when none does.
static SERVER: AtomicI32 = AtomicI32::new(-1);

/// What is said when its time runs out; made beforehand, as a handler may not allocate.
static OVERDUE: OnceLock<String> = OnceLock::new();

/// Lets an engine do what a stop wants. From here on the first signal makes the descriptor readable, and
/// the engine has [`SERVER_GRACE_SECONDS`] to end the guest.
///
/// # Errors
/// When there is no descriptor to be had.
pub(crate) fn hand_over(name: &str) -> io::Result<&'static EventFd> {
    // Never closed: a signal would be written into whatever got its number.
    static TOLD: OnceLock<EventFd> = OnceLock::new();
    let told = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let told = TOLD.get_or_init(|| told);
    OVERDUE.get_or_init(|| {
        format!(
            "wasmlet: {}: stopped with requests unanswered after {SERVER_GRACE_SECONDS} s\n",
            one_line(name)
        )
    });
    SERVER.store(told.as_raw_fd(), Ordering::SeqCst);
    Ok(told)
}

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
    let server = SERVER.load(Ordering::SeqCst);
    if server >= 0 && STOPPING.swap(signal, Ordering::SeqCst) == 0 {
        let one = 1_u64;
        // SAFETY: write and alarm are async-signal-safe; the pointer is to eight live bytes, what an
        // eventfd takes. A counter of 0 has room for them, so errno stays as it is.
        unsafe {
            libc::write(server, (&raw const one).cast(), size_of::<u64>());
            libc::alarm(SERVER_GRACE_SECONDS);
        }
        return;
    }
    if BUSY.load(Ordering::SeqCst) == 0 || STOPPING.swap(signal, Ordering::SeqCst) != 0 {
        // Idle, or asked a second time.
        // SAFETY: _exit is async-signal-safe and does not return.
        unsafe { libc::_exit(128 + signal) };
    }
    // SAFETY: alarm is async-signal-safe.
    unsafe { libc::alarm(GRACE_SECONDS) };
}

extern "C" fn on_alarm(_: libc::c_int) {
    if SERVER.load(Ordering::SeqCst) >= 0 {
        let line = OVERDUE.get().map_or("", String::as_str);
        // SAFETY: write is async-signal-safe, and the line is valid for its length. Nobody is left to
        // tell when it fails.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    }
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
