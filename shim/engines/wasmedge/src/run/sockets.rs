//! The listening socket as the guest's descriptor 0.
//!
//! The library accepts on whatever descriptor 0 is. What it would do with the C library's accept(2) is
//! done by `runner-core`'s listener, which keeps a stop from cutting off an answer and a silent client
//! from holding the guest for ever. A connection counts as open until the library closes it.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use wasmlet_runner_core::{Connection, Listener, Wait};

static LISTENER: OnceLock<Listener> = OnceLock::new();

static CONNECTIONS: Mutex<Vec<Connection>> = Mutex::new(Vec::new());

/// Hands the socket to the guest; gives its descriptor.
///
/// # Errors
/// When the socket cannot be made to wait for a client, as the guest expects of it.
pub(super) fn give(listener: Listener) -> io::Result<c_int> {
    let fd = listener.as_raw_fd();
    set_blocking(fd)?;
    // Once a process.
    let _ = LISTENER.set(listener);
    Ok(fd)
}

fn set_blocking(fd: c_int) -> io::Result<()> {
    // SAFETY: fcntl with these commands takes and gives flags.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub(super) fn is_listener(fd: c_int) -> bool {
    LISTENER
        .get()
        .is_some_and(|listener| listener.as_raw_fd() == fd)
}

/// accept(2) on the listening socket.
pub(super) fn accept() -> c_int {
    let Some(listener) = LISTENER.get() else {
        return fail(libc::EBADF);
    };
    // What the guest has set, by fd_fdstat_set_flags.
    // SAFETY: fcntl with this command gives flags.
    let flags = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFL) };
    let wait = if flags & libc::O_NONBLOCK == 0 {
        Wait::Forever
    } else {
        Wait::No
    };
    match listener.accept(wait) {
        Ok(connection) => {
            let fd = connection.stream.as_raw_fd();
            connections().push(connection);
            fd
        }
        Err(error) => fail(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// close(2) of a connection; false when it is none.
pub(super) fn close(fd: c_int) -> bool {
    let mut open = connections();
    let Some(index) = open
        .iter()
        .position(|connection| connection.stream.as_raw_fd() == fd)
    else {
        return false;
    };
    let connection = open.swap_remove(index);
    // Closing comes back here, and has to find the list free and the connection gone.
    drop(open);
    drop(connection);
    true
}

/// A guest that waits for several things at a time does so without an accept, which would end one that was
/// told to stop and has answered.
pub(super) fn before_waiting() {
    if LISTENER.get().is_some() {
        wasmlet_runner_core::leave_if_idle();
    }
}

fn connections() -> std::sync::MutexGuard<'static, Vec<Connection>> {
    CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: the C library's errno of this thread.
    unsafe { *libc::__errno_location() = errno };
    -1
}
