//! The listening socket of a container, and the promise that a stop does not cut off an answer.
//!
//! ```text
//!                accept ──▶ busy ── SIGTERM ──▶ stopping ── next accept, or 4 s ───▶ exit 143
//! idle ──────────▲           │ all connections closed
//!   ▲ └─ SIGTERM ──▶ exit 143│
//!   └────────────────────────┘
//! ```
//!
//! An engine that answers requests itself takes the socket with [`Listener::serve`], and a stop is its
//! own affair then, for 8 s.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use crate::engine::Program;
use crate::init::signals;

/// How long a client may be silent before a read gives up: a guest that serves one connection at a
/// time must not be held for ever by one that says nothing.
pub const IDLE_CLIENT: Duration = Duration::from_secs(30);

/// Ends the process when it was asked to stop and every connection is closed. For a guest that is about
/// to wait without an accept, which would do the same.
pub fn leave_if_idle() {
    signals::leave_if_stopping_and_idle();
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

/// Whether to wait for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until one comes.
    Forever,
    /// `WouldBlock` when there is none.
    No,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        // A client may be gone between poll and accept; waiting is done by poll alone.
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Takes the next connection.
    ///
    /// Ends the process instead when it was asked to stop while it was busy.
    ///
    /// # Errors
    /// What accept(2) reports; `WouldBlock` only with [`Wait::No`].
    pub fn accept(&self, wait: Wait) -> io::Result<Connection> {
        loop {
            signals::leave_if_stopping();
            if wait == Wait::Forever {
                let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) => {}
                    Err(Errno::EINTR) => continue,
                    Err(errno) => return Err(errno.into()),
                }
            }
            // Busy first: a signal between accept and this would drop a client that was accepted.
            let busy = signals::Busy::new();
            match self.socket.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(IDLE_CLIENT))?;
                    stream.set_write_timeout(Some(IDLE_CLIENT))?;
                    stream.set_nodelay(true)?;
                    return Ok(Connection {
                        stream,
                        _busy: busy,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(busy);
                    if wait == Wait::No {
                        signals::leave_if_stopping();
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands the socket over to an engine that serves many clients at a time. It does not block.
    ///
    /// A signal that asks the container to stop is told through [`Stop`] from here on. The engine then
    /// has 8 s to answer what has come and to end the guest, with [`GuestExit::Code`] 0; after that, or
    /// at a second signal, the process ends as one that was killed by the signal.
    ///
    /// [`GuestExit::Code`]: crate::GuestExit::Code
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub fn serve(self, program: &Program) -> io::Result<(TcpListener, Stop)> {
        let told = signals::hand_over(&program.name)?;
        Ok((self.socket, Stop(told)))
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// What getsockname(2) reports.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Becomes readable when the container is to stop, and stays so.
#[derive(Debug, Clone, Copy)]
pub struct Stop(&'static EventFd);

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Stop {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// An accepted connection. As long as one lives, the process is busy.
#[derive(Debug)]
pub struct Connection {
    /// The connection; reads and writes give up after [`IDLE_CLIENT`].
    pub stream: TcpStream,
    _busy: signals::Busy,
}
