//! The listening socket of a module: WASI preview 1, whatever the engine.
//!
//! Preview 1 has `sock_accept` but no way to make a socket, and engines give the inherited one away in
//! their own ways or not at all. So the listening socket takes the place of the guest's stdin (descriptor
//! 0), and an engine puts functions of its own in front of those that a server needs: what concerns a
//! socket is answered here, everything else is passed on.
//!
//! Connections get numbers that no engine gives. A socket with another number (the listener, or after
//! `fd_renumber`) hides a descriptor of the engine's that is open; both are closed together, so that the
//! number is free afterwards as everywhere.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};

use crate::listen::{Connection, Listener, Wait};

mod abi;
pub mod poll;

pub use abi::{Errno, FDSTAT_SIZE, FILESTAT_SIZE, FdFlags, FileType, Memory};

/// The module that a guest imports the functions from.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// The functions that an engine has to put its own in front of.
pub const FUNCTIONS: [&str; 12] = [
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
    "fd_read",
    "fd_write",
    "fd_close",
    "fd_renumber",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_filestat_get",
    "poll_oneoff",
];

/// Descriptor of the listening socket in the guest.
const LISTENER: i32 = 0;

/// First descriptor of an accepted connection: out of the way of an engine's, which count from 3.
const FIRST_CONNECTION: i32 = 1 << 20;

/// Connections that a guest may have open at a time.
const MAX_CONNECTIONS: usize = 1024;

/// Largest single read or write: what the guest passes is its own memory, so this only bounds how
/// long one call takes.
const MAX_TRANSFER: usize = 1 << 20;

/// What a call comes to: success has no value but what it wrote to the guest's memory.
pub type Answer = Result<(), Errno>;

/// What the guest sees of an answer.
pub fn number(answer: Answer) -> i32 {
    match answer {
        Ok(()) => Errno::SUCCESS,
        Err(errno) => errno.number(),
    }
}

/// Whether an import makes a module one that serves: only then the functions are put in front of the
/// engine's.
pub fn serves(module: &str, name: &str) -> bool {
    module == MODULE && FUNCTIONS.contains(&name) && name.starts_with("sock_")
}

/// The sockets of a guest. Without a listener there are none, and every call is passed on.
pub struct Sockets {
    open: BTreeMap<i32, Socket>,
    now: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sockets")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Socket {
    Listener { listener: Listener, wait: Wait },
    Connection(Open),
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    nonblocking: bool,
}

/// Arguments of a call that moves bytes.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Where the list of buffers is.
    pub vectors: i32,
    /// Entries in it.
    pub count: i32,
    /// Where the number of bytes goes.
    pub size: i32,
}

/// What an engine does about `fd_close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Nothing more: it was a connection.
    Done,
    /// Close its own descriptor of that number.
    Pass,
}

/// What an engine does about `fd_renumber`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renumber {
    /// This is the answer.
    Answer(Answer),
    /// It is the engine's own matter.
    Pass,
    /// The engine's own matter; where it succeeds, [`Sockets::forget`] what had the number.
    PassAndForget,
    /// Close the engine's own descriptor that had the old number.
    CloseOld,
}

impl Sockets {
    /// `now` is the guest's monotonic clock in nanoseconds.
    pub fn new(listener: Option<Listener>, now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let listener = listener.map(|listener| Socket::Listener {
            listener,
            wait: Wait::Forever,
        });
        Self {
            open: listener
                .map(|socket| (LISTENER, socket))
                .into_iter()
                .collect(),
            now: Box::new(now),
        }
    }

    /// Whether a descriptor is a socket.
    pub fn owns(&self, fd: i32) -> bool {
        self.open.contains_key(&fd)
    }

    /// What a call for sockets answers to a descriptor that is none.
    pub fn no_socket(is_open: bool) -> i32 {
        number(Err(if is_open { Errno::NotSock } else { Errno::BadF }))
    }

    /// A connection; `None` when the descriptor is no socket.
    fn connection(&mut self, fd: i32) -> Option<Result<&mut Open, Errno>> {
        Some(match self.open.get_mut(&fd)? {
            Socket::Listener { .. } => Err(Errno::NotConn),
            Socket::Connection(open) => Ok(open),
        })
    }

    /// `sock_accept`; `None` when the descriptor is no socket.
    pub fn accept(
        &mut self,
        memory: &mut Memory<'_>,
        fd: i32,
        flags: i32,
        out: i32,
    ) -> Option<Answer> {
        if let Err(errno) = memory.check(out, 4) {
            return Some(Err(errno));
        }
        let count = self.open.len();
        let accepted = match self.open.get(&fd)? {
            Socket::Connection(_) => Err(Errno::Inval),
            Socket::Listener { .. } if count > MAX_CONNECTIONS => Err(Errno::NFile),
            Socket::Listener { listener, wait } => {
                accept(listener, *wait, FdFlags::from_guest(flags))
                    .map_err(|e| Errno::from(&e))
                    .map(|open| self.insert(open))
            }
        };
        Some(accepted.and_then(|number| memory.write_u32(out, number.cast_unsigned())))
    }

    fn insert(&mut self, open: Open) -> i32 {
        let mut number = FIRST_CONNECTION;
        // At most `MAX_CONNECTIONS` are taken.
        while self.open.contains_key(&number) {
            number += 1;
        }
        self.open.insert(number, Socket::Connection(open));
        number
    }

    /// `sock_recv`; `None` when the descriptor is no socket.
    pub fn recv(
        &mut self,
        memory: &mut Memory<'_>,
        fd: i32,
        transfer: Transfer,
        flags: i32,
        out_flags: i32,
    ) -> Option<Answer> {
        let open = self.connection(fd)?;
        Some((|| {
            let open = open?;
            // riflags: bit 0 peek, bit 1 wait for all
            let mut native = 0;
            if flags & 1 != 0 {
                native |= libc::MSG_PEEK;
            }
            if flags & 2 != 0 {
                native |= libc::MSG_WAITALL;
            }
            let socket = open.connection.stream.as_raw_fd();
            let Transfer {
                vectors,
                count,
                size,
            } = transfer;
            let read = memory.read_into(vectors, count, MAX_TRANSFER, |buffer| {
                // SAFETY: the buffer is valid for its length; the descriptor is that of a live stream.
                let read =
                    unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), native) };
                usize::try_from(read).map_err(|_| io::Error::last_os_error())
            })?;
            memory.write_u32(size, read)?;
            memory.write_u16(out_flags, 0)
        })())
    }

    /// `fd_read`; `None` when the descriptor is no socket.
    pub fn read(&mut self, memory: &mut Memory<'_>, fd: i32, transfer: Transfer) -> Option<Answer> {
        let open = self.connection(fd)?;
        Some(open.and_then(|open| {
            let stream = &mut open.connection.stream;
            let Transfer {
                vectors,
                count,
                size,
            } = transfer;
            let read =
                memory.read_into(vectors, count, MAX_TRANSFER, |buffer| stream.read(buffer))?;
            memory.write_u32(size, read)
        }))
    }

    /// `sock_send` and `fd_write`; `None` when the descriptor is no socket.
    pub fn write(
        &mut self,
        memory: &mut Memory<'_>,
        fd: i32,
        transfer: Transfer,
    ) -> Option<Answer> {
        let open = self.connection(fd)?;
        Some(open.and_then(|open| {
            let stream = &mut open.connection.stream;
            let Transfer {
                vectors,
                count,
                size,
            } = transfer;
            let written =
                memory.write_from(vectors, count, MAX_TRANSFER, |buffer| stream.write(buffer))?;
            memory.write_u32(size, written)
        }))
    }

    /// `sock_shutdown`; `None` when the descriptor is no socket.
    pub fn shutdown(&mut self, fd: i32, how: i32) -> Option<Answer> {
        let open = self.connection(fd)?;
        Some((|| {
            // sdflags: bit 0 receive, bit 1 send
            let how = match how {
                1 => Shutdown::Read,
                2 => Shutdown::Write,
                3 => Shutdown::Both,
                _ => return Err(Errno::Inval),
            };
            open?
                .connection
                .stream
                .shutdown(how)
                .map_err(|e| Errno::from(&e))
        })())
    }

    /// `fd_fdstat_set_flags`; `None` when the descriptor is no socket.
    pub fn set_flags(&mut self, fd: i32, flags: i32) -> Option<Answer> {
        let flags = FdFlags::from_guest(flags);
        Some(match self.open.get_mut(&fd)? {
            Socket::Listener { wait, .. } => {
                *wait = if flags.nonblocking() {
                    Wait::No
                } else {
                    Wait::Forever
                };
                Ok(())
            }
            Socket::Connection(open) => open
                .connection
                .stream
                .set_nonblocking(flags.nonblocking())
                .map(|()| open.nonblocking = flags.nonblocking())
                .map_err(|e| Errno::from(&e)),
        })
    }

    /// `fd_fdstat_get`; `None` when the descriptor is no socket.
    pub fn fdstat(&self, memory: &mut Memory<'_>, fd: i32, out: i32) -> Option<Answer> {
        let nonblocking = match self.open.get(&fd)? {
            Socket::Connection(open) => open.nonblocking,
            Socket::Listener { wait, .. } => *wait == Wait::No,
        };
        let flags = FdFlags::from_nonblocking(nonblocking);
        Some(memory.write_fdstat(out, FileType::SocketStream, flags))
    }

    /// `fd_filestat_get`; `None` when the descriptor is no socket.
    pub fn filestat(&self, memory: &mut Memory<'_>, fd: i32, out: i32) -> Option<Answer> {
        self.owns(fd)
            .then(|| memory.write_filestat(out, FileType::SocketStream))
    }

    /// `fd_close`.
    pub fn close(&mut self, fd: i32) -> Close {
        if self.open.remove(&fd).is_some() && !hides(fd) {
            Close::Done
        } else {
            Close::Pass
        }
    }

    /// The descriptor on which it depends what [`Sockets::renumber`] says, if it depends on one: whether
    /// the engine has it open.
    pub fn renumber_asks(&self, from: i32, to: i32) -> Option<i32> {
        match (self.owns(from), self.owns(to)) {
            (false, true) if !hides(to) => Some(from),
            (true, false) => Some(to),
            _ => None,
        }
    }

    /// `fd_renumber`; `open` is the answer to [`Sockets::renumber_asks`].
    pub fn renumber(&mut self, from: i32, to: i32, open: bool) -> Renumber {
        match (self.owns(from), self.owns(to)) {
            (false, false) => Renumber::Pass,
            // What would be given up has a number that an engine cannot give to anything.
            (false, true) if !hides(to) => {
                Renumber::Answer(Err(if open { Errno::NotSup } else { Errno::BadF }))
            }
            // The engine closes what is hidden; a refusal leaves everything as it was.
            (false, true) => Renumber::PassAndForget,
            (true, _) if from == to => Renumber::Answer(Ok(())),
            (true, false) if !open => Renumber::Answer(Err(Errno::BadF)),
            (true, _) => {
                if let Some(moved) = self.open.remove(&from) {
                    // What had the number is closed, or hidden if it is the engine's.
                    self.open.insert(to, moved);
                }
                if hides(from) {
                    Renumber::CloseOld
                } else {
                    Renumber::Answer(Ok(()))
                }
            }
        }
    }

    /// Closes a socket whose number the engine gave to something else.
    pub fn forget(&mut self, fd: i32) {
        self.open.remove(&fd);
    }

    /// What `poll_oneoff` is about to wait for when there is a socket among it; `None` when the call is
    /// the engine's own matter. What is wrong with a list that has no socket in it is for the engine to say.
    ///
    /// Ends the process instead when it was asked to stop and every connection is closed.
    pub fn subscriptions(
        &self,
        memory: &Memory<'_>,
        list: i32,
        count: i32,
    ) -> Option<Vec<poll::Subscription>> {
        // Once the guest waits with no answer under way, nothing is left to be done for a stop.
        crate::listen::leave_if_idle();
        let list = poll::subscriptions(memory, list, count).ok()?;
        list.iter()
            .any(|s| s.fd().is_some_and(|fd| self.owns(fd)))
            .then_some(list)
    }

    /// What a subscription is about; `None` for a descriptor of which only the engine knows whether it is
    /// open.
    pub fn target(&self, subscription: &poll::Subscription) -> Option<poll::Target> {
        match subscription.fd() {
            None => Some(poll::Target::Clock),
            Some(fd) => self.native(fd).map(poll::Target::Socket),
        }
    }

    /// `poll_oneoff`, once every target is known.
    ///
    /// # Errors
    /// Those of [`poll::wait`].
    pub fn poll(
        &self,
        memory: &mut Memory<'_>,
        list: &[(poll::Subscription, poll::Target)],
        events: i32,
        size: i32,
    ) -> Answer {
        poll::wait(memory, &*self.now, list, events, size)
    }

    /// The descriptor for poll(2).
    fn native(&self, fd: i32) -> Option<RawFd> {
        Some(match self.open.get(&fd)? {
            Socket::Listener { listener, .. } => listener.as_raw_fd(),
            Socket::Connection(open) => open.connection.stream.as_raw_fd(),
        })
    }
}

fn accept(listener: &Listener, wait: Wait, flags: FdFlags) -> io::Result<Open> {
    let connection = listener.accept(wait)?;
    let nonblocking = flags.nonblocking();
    connection.stream.set_nonblocking(nonblocking)?;
    Ok(Open {
        connection,
        nonblocking,
    })
}

/// Whether a socket of that number has a descriptor of the engine's behind it.
fn hides(fd: i32) -> bool {
    fd < FIRST_CONNECTION
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> Sockets {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        Sockets::new(Some(listener), || 0)
    }

    fn connected(sockets: &mut Sockets) -> (std::net::TcpStream, i32) {
        let Some(Socket::Listener { listener, .. }) = sockets.open.get(&LISTENER) else {
            panic!("the listener is descriptor 0");
        };
        let client = std::net::TcpStream::connect(listener.local_addr().expect("bound"))
            .expect("somebody listens");
        let mut memory = [0; 8];
        let accepted = sockets.accept(&mut Memory(&mut memory), LISTENER, 0, 4);
        assert_eq!(accepted, Some(Ok(())));
        let fd = i32::from_le_bytes([memory[4], memory[5], memory[6], memory[7]]);
        assert!(fd >= FIRST_CONNECTION && sockets.owns(fd));
        (client, fd)
    }

    #[test]
    fn a_connection_carries_bytes_both_ways() {
        let mut sockets = sockets();
        let (mut client, fd) = connected(&mut sockets);
        client.write_all(b"ask").expect("open");
        // One buffer of 8 bytes at 16; the size goes to 8.
        let mut memory = [0; 32];
        memory[..8].copy_from_slice(&[16, 0, 0, 0, 8, 0, 0, 0]);
        let transfer = Transfer {
            vectors: 0,
            count: 1,
            size: 8,
        };
        let read = sockets.read(&mut Memory(&mut memory), fd, transfer);
        assert_eq!(read, Some(Ok(())));
        assert_eq!((memory[8], &memory[16..19]), (3, &b"ask"[..]));
        memory[4] = 3;
        let written = sockets.write(&mut Memory(&mut memory), fd, transfer);
        assert_eq!(written, Some(Ok(())));
        assert_eq!(sockets.shutdown(fd, 2), Some(Ok(())));
        assert_eq!(sockets.shutdown(fd, 7), Some(Err(Errno::Inval)));
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("text");
        assert_eq!(answer, "ask");
        assert_eq!(
            sockets.read(&mut Memory(&mut memory), LISTENER, transfer),
            Some(Err(Errno::NotConn))
        );
        assert_eq!(
            sockets.read(&mut Memory(&mut memory), 5, transfer),
            None,
            "the engine's"
        );
    }

    #[test]
    fn closing_closes_what_is_hidden_too() {
        let mut sockets = sockets();
        let (_client, fd) = connected(&mut sockets);
        assert_eq!(sockets.close(fd), Close::Done);
        assert_eq!(sockets.close(fd), Close::Pass, "none of ours any more");
        assert_eq!(sockets.close(LISTENER), Close::Pass, "stdin is behind it");
        assert!(!sockets.owns(LISTENER));
    }

    #[test]
    fn numbers_change_as_everywhere() {
        let mut sockets = sockets();
        let (_client, fd) = connected(&mut sockets);
        assert_eq!(sockets.renumber_asks(7, 8), None);
        assert_eq!(sockets.renumber(7, 8, true), Renumber::Pass);
        assert_eq!(sockets.renumber_asks(fd, 3), Some(3));
        let refused = Renumber::Answer(Err(Errno::BadF));
        assert_eq!(sockets.renumber(fd, 3, false), refused);
        assert_eq!(
            sockets.renumber(fd, fd, true),
            Renumber::Answer(Ok(())),
            "to itself"
        );
        assert_eq!(sockets.renumber(fd, 3, true), Renumber::Answer(Ok(())));
        assert!(sockets.owns(3) && !sockets.owns(fd));
        assert_eq!(sockets.renumber(3, 4, true), Renumber::CloseOld);
        assert_eq!(sockets.renumber(9, 4, true), Renumber::PassAndForget);
        sockets.forget(4);
        assert!(!sockets.owns(4));
        let (_client, fd) = connected(&mut sockets);
        assert_eq!(sockets.renumber_asks(9, fd), Some(9));
        assert_eq!(
            sockets.renumber(9, fd, true),
            Renumber::Answer(Err(Errno::NotSup))
        );
        assert_eq!(sockets.renumber(9, fd, false), refused);
    }

    #[test]
    fn only_a_list_with_a_socket_in_it_is_ours() {
        let sockets = sockets();
        let mut memory = [0; 96];
        memory[8] = 1;
        memory[16] = 5;
        let list = |memory: &mut [u8]| sockets.subscriptions(&Memory(memory), 0, 1);
        assert_eq!(list(&mut memory), None, "descriptor 5");
        memory[16] = 0;
        let found = list(&mut memory).expect("the listener");
        assert!(matches!(
            sockets.target(&found[0]),
            Some(poll::Target::Socket(_))
        ));
        assert_eq!(sockets.subscriptions(&Memory(&mut memory), 0, 0), None);
    }
}
