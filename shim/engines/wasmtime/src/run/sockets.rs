//! The listening socket of a module.
//!
//! Preview 1 has `sock_accept` but no way to make a socket, and Wasmtime's implementation knows no
//! sockets at all. So the listening socket takes the place of the guest's stdin (descriptor 0), and
//! the functions a server needs are put in front of Wasmtime's: what concerns a socket is answered
//! here, everything else is passed on.
//!
//! Connections get numbers that Wasmtime never gives. A socket with another number (the listener, or
//! after `fd_renumber`) hides a descriptor of Wasmtime's that is open; both are closed together, so
//! that the number is free afterwards as everywhere.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};

use wasmlet_runner_core::{Connection, Listener, Wait};
use wasmtime::{AsContextMut, Caller, Extern, Linker, Module};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1 as wasi};
use wiggle::GuestMemory;

use super::host::Clock;
use super::module::State;

mod abi;
mod poll;

use abi::{Errno, FdFlags, FileType, Memory};

const PREVIEW1: &str = "wasi_snapshot_preview1";

/// Descriptor of the listening socket in the guest.
const LISTENER: i32 = 0;

/// First descriptor of an accepted connection: out of the way of Wasmtime's, which count from 3.
const FIRST_CONNECTION: i32 = 1 << 20;

/// Connections that a guest may have open at a time.
const MAX_CONNECTIONS: usize = 1024;

/// Largest single read or write: what the guest passes is its own memory, so this only bounds how
/// long one call takes.
const MAX_TRANSFER: usize = 1 << 20;

/// The sockets of a guest. Without a listener there are none, and every call is passed on.
pub(super) struct Sockets {
    open: BTreeMap<i32, Socket>,
    clock: Clock,
}

enum Socket {
    Listener { listener: Listener, wait: Wait },
    Connection(Open),
}

struct Open {
    connection: Connection,
    nonblocking: bool,
}

impl Sockets {
    pub(super) fn new(listener: Option<Listener>, clock: Clock) -> Self {
        let listener = listener.map(|listener| Socket::Listener {
            listener,
            wait: Wait::Forever,
        });
        Self {
            open: listener
                .map(|socket| (LISTENER, socket))
                .into_iter()
                .collect(),
            clock,
        }
    }

    fn owns(&self, fd: i32) -> bool {
        self.open.contains_key(&fd)
    }

    /// A connection; `None` when the descriptor is no socket.
    fn connection(&mut self, fd: i32) -> Option<Result<&mut Open, Errno>> {
        Some(match self.open.get_mut(&fd)? {
            Socket::Listener { .. } => Err(Errno::NotConn),
            Socket::Connection(open) => Ok(open),
        })
    }

    /// Accepts; `None` when the descriptor is no socket.
    fn accept(&mut self, fd: i32, flags: FdFlags) -> Option<Result<i32, Errno>> {
        let count = self.open.len();
        Some(match self.open.get(&fd)? {
            Socket::Connection(_) => Err(Errno::Inval),
            Socket::Listener { .. } if count > MAX_CONNECTIONS => Err(Errno::NFile),
            Socket::Listener { listener, wait } => accept(listener, *wait, flags)
                .map_err(|e| Errno::from(&e))
                .map(|open| self.insert(open)),
        })
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

    fn status(&self, fd: i32) -> (FileType, FdFlags) {
        let nonblocking = match self.open.get(&fd) {
            Some(Socket::Connection(open)) => open.nonblocking,
            Some(Socket::Listener { wait, .. }) => *wait == Wait::No,
            None => false,
        };
        (
            FileType::SocketStream,
            FdFlags::from_nonblocking(nonblocking),
        )
    }

    fn set_flags(&mut self, fd: i32, flags: FdFlags) -> Result<(), Errno> {
        match self.open.get_mut(&fd) {
            None => Err(Errno::BadF),
            Some(Socket::Listener { wait, .. }) => {
                *wait = if flags.nonblocking() {
                    Wait::No
                } else {
                    Wait::Forever
                };
                Ok(())
            }
            Some(Socket::Connection(open)) => {
                open.connection
                    .stream
                    .set_nonblocking(flags.nonblocking())
                    .map_err(|e| Errno::from(&e))?;
                open.nonblocking = flags.nonblocking();
                Ok(())
            }
        }
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

/// Whether a socket of that number has a descriptor of Wasmtime's behind it.
fn hides(fd: i32) -> bool {
    fd < FIRST_CONNECTION
}

/// Whether a module serves: only then the functions below are put in front of Wasmtime's.
pub(super) fn wanted_by(module: &Module) -> bool {
    module
        .imports()
        .any(|import| import.module() == PREVIEW1 && import.name().starts_with("sock_"))
}

/// Puts the functions in front of those that are in the linker. Shadowing must be allowed.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap_async(PREVIEW1, "sock_accept", |caller, (fd, flags, out)| {
        Box::new(sock_accept(caller, fd, flags, out))
    })?;
    linker.func_wrap_async(
        PREVIEW1,
        "sock_recv",
        |caller, (fd, vectors, count, flags, size, out_flags)| {
            Box::new(sock_recv(
                caller, fd, vectors, count, flags, size, out_flags,
            ))
        },
    )?;
    linker.func_wrap_async(
        PREVIEW1,
        "sock_send",
        |caller, (fd, vectors, count, _flags, size): (i32, i32, i32, i32, i32)| {
            Box::new(sock_send(caller, fd, vectors, count, size))
        },
    )?;
    linker.func_wrap_async(PREVIEW1, "sock_shutdown", |caller, (fd, how)| {
        Box::new(sock_shutdown(caller, fd, how))
    })?;
    linker.func_wrap(PREVIEW1, "fd_fdstat_set_flags", fd_fdstat_set_flags)?;
    linker.func_wrap_async(PREVIEW1, "fd_read", |caller, (fd, vectors, count, size)| {
        Box::new(fd_read(caller, fd, vectors, count, size))
    })?;
    linker.func_wrap_async(
        PREVIEW1,
        "fd_write",
        |caller, (fd, vectors, count, size)| Box::new(fd_write(caller, fd, vectors, count, size)),
    )?;
    linker.func_wrap_async(PREVIEW1, "fd_close", |caller, (fd,)| {
        Box::new(fd_close(caller, fd))
    })?;
    linker.func_wrap_async(PREVIEW1, "fd_renumber", |caller, (from, to)| {
        Box::new(fd_renumber(caller, from, to))
    })?;
    linker.func_wrap_async(PREVIEW1, "fd_fdstat_get", |caller, (fd, out)| {
        Box::new(fd_fdstat_get(caller, fd, out))
    })?;
    linker.func_wrap_async(PREVIEW1, "fd_filestat_get", |caller, (fd, out)| {
        Box::new(fd_filestat_get(caller, fd, out))
    })?;
    linker.func_wrap_async(
        PREVIEW1,
        "poll_oneoff",
        |caller, (subs, events, count, size)| {
            Box::new(poll_oneoff(caller, subs, events, count, size))
        },
    )?;
    Ok(())
}

/// The guest's memory and the state, both at once, ready for calls of WASI.
fn split<'a>(caller: &'a mut Caller<'_, State>) -> wasmtime::Result<(&'a mut [u8], &'a mut State)> {
    // What one call may have Wasmtime allocate; its own linker hands this out anew for each call, too.
    let fuel = caller.as_context_mut().hostcall_fuel();
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => {
            let (memory, state) = memory.data_and_store_mut(caller);
            state.wasi.set_hostcall_fuel(fuel);
            Ok((memory, state))
        }
        _ => Err(wasmtime::Error::msg(
            "the module exports no memory, which WASI needs",
        )),
    }
}

fn answer(result: Result<(), Errno>) -> wasmtime::Result<i32> {
    Ok(match result {
        Ok(()) => Errno::SUCCESS,
        Err(errno) => errno.number(),
    })
}

/// Whether Wasmtime has this descriptor open.
async fn is_open(wasi: &mut WasiP1Ctx, fd: i32) -> wasmtime::Result<bool> {
    // Room for the answer, beside the guest's memory.
    let mut fdstat = [0; abi::FDSTAT_SIZE];
    let memory = &mut GuestMemory::Unshared(&mut fdstat);
    Ok(wasi::fd_fdstat_get(wasi, memory, fd, 0).await? == Errno::SUCCESS)
}

/// What a call for sockets answers to a descriptor that is none.
async fn no_socket(wasi: &mut WasiP1Ctx, fd: i32) -> wasmtime::Result<i32> {
    let errno = if is_open(wasi, fd).await? {
        Errno::NotSock
    } else {
        Errno::BadF
    };
    answer(Err(errno))
}

async fn sock_accept(
    mut caller: Caller<'_, State>,
    fd: i32,
    flags: i32,
    out: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    let mut memory = Memory(memory);
    if let Err(errno) = memory.check(out, 4) {
        return answer(Err(errno));
    }
    match state.sockets.accept(fd, FdFlags::from_guest(flags)) {
        None => no_socket(&mut state.wasi, fd).await,
        Some(accepted) => {
            answer(accepted.and_then(|number| memory.write_u32(out, number.cast_unsigned())))
        }
    }
}

async fn sock_recv(
    mut caller: Caller<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    flags: i32,
    size: i32,
    out_flags: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    let mut memory = Memory(memory);
    let Some(open) = state.sockets.connection(fd) else {
        return no_socket(&mut state.wasi, fd).await;
    };
    answer((|| {
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

async fn sock_send(
    mut caller: Caller<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    size: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    match state.sockets.connection(fd) {
        None => no_socket(&mut state.wasi, fd).await,
        Some(open) => answer(send(&mut Memory(memory), open, vectors, count, size)),
    }
}

fn send(
    memory: &mut Memory<'_>,
    open: Result<&mut Open, Errno>,
    vectors: i32,
    count: i32,
    size: i32,
) -> Result<(), Errno> {
    let stream = &mut open?.connection.stream;
    let written = memory.write_from(vectors, count, MAX_TRANSFER, |buffer| stream.write(buffer))?;
    memory.write_u32(size, written)
}

async fn sock_shutdown(mut caller: Caller<'_, State>, fd: i32, how: i32) -> wasmtime::Result<i32> {
    let state = caller.data_mut();
    let Some(open) = state.sockets.connection(fd) else {
        return no_socket(&mut state.wasi, fd).await;
    };
    answer((|| {
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

fn fd_fdstat_set_flags(
    mut caller: Caller<'_, State>,
    fd: i32,
    flags: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if state.sockets.owns(fd) {
        return answer(state.sockets.set_flags(fd, FdFlags::from_guest(flags)));
    }
    wasi::fd_fdstat_set_flags(
        &mut state.wasi,
        &mut GuestMemory::Unshared(memory),
        fd,
        flags,
    )
}

async fn fd_read(
    mut caller: Caller<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    size: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if let Some(open) = state.sockets.connection(fd) {
        let mut memory = Memory(memory);
        return answer((|| {
            let stream = &mut open?.connection.stream;
            let read =
                memory.read_into(vectors, count, MAX_TRANSFER, |buffer| stream.read(buffer))?;
            memory.write_u32(size, read)
        })());
    }
    let memory = &mut GuestMemory::Unshared(memory);
    wasi::fd_read(&mut state.wasi, memory, fd, vectors, count, size).await
}

async fn fd_write(
    mut caller: Caller<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    size: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if let Some(open) = state.sockets.connection(fd) {
        return answer(send(&mut Memory(memory), open, vectors, count, size));
    }
    let memory = &mut GuestMemory::Unshared(memory);
    wasi::fd_write(&mut state.wasi, memory, fd, vectors, count, size).await
}

async fn fd_close(mut caller: Caller<'_, State>, fd: i32) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if state.sockets.open.remove(&fd).is_some() && !hides(fd) {
        return answer(Ok(()));
    }
    wasi::fd_close(&mut state.wasi, &mut GuestMemory::Unshared(memory), fd).await
}

async fn fd_renumber(mut caller: Caller<'_, State>, from: i32, to: i32) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    let memory = &mut GuestMemory::Unshared(memory);
    let (socket, target) = (state.sockets.owns(from), state.sockets.owns(to));
    match (socket, target) {
        (false, false) => {}
        // What would be given up has a number that Wasmtime cannot give to anything.
        (false, true) if !hides(to) => {
            return if is_open(&mut state.wasi, from).await? {
                answer(Err(Errno::NotSup))
            } else {
                answer(Err(Errno::BadF))
            };
        }
        // Wasmtime closes what is hidden; a refusal leaves everything as it was.
        (false, true) => {
            let result = wasi::fd_renumber(&mut state.wasi, memory, from, to).await?;
            if result == Errno::SUCCESS {
                state.sockets.open.remove(&to);
            }
            return Ok(result);
        }
        (true, _) if from == to => return answer(Ok(())),
        (true, false) if !is_open(&mut state.wasi, to).await? => return answer(Err(Errno::BadF)),
        (true, _) => {
            if let Some(moved) = state.sockets.open.remove(&from) {
                // What had the number is closed, or hidden if it is Wasmtime's.
                state.sockets.open.insert(to, moved);
            }
            if hides(from) {
                return wasi::fd_close(&mut state.wasi, memory, from).await;
            }
            return answer(Ok(()));
        }
    }
    wasi::fd_renumber(&mut state.wasi, memory, from, to).await
}

async fn fd_fdstat_get(mut caller: Caller<'_, State>, fd: i32, out: i32) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if state.sockets.owns(fd) {
        let (kind, flags) = state.sockets.status(fd);
        return answer(Memory(memory).write_fdstat(out, kind, flags));
    }
    wasi::fd_fdstat_get(&mut state.wasi, &mut GuestMemory::Unshared(memory), fd, out).await
}

async fn fd_filestat_get(
    mut caller: Caller<'_, State>,
    fd: i32,
    out: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if state.sockets.owns(fd) {
        return answer(Memory(memory).write_filestat(out, FileType::SocketStream));
    }
    wasi::fd_filestat_get(&mut state.wasi, &mut GuestMemory::Unshared(memory), fd, out).await
}

async fn poll_oneoff(
    mut caller: Caller<'_, State>,
    subscriptions: i32,
    events: i32,
    count: i32,
    size: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    // Once the guest waits with no answer under way, nothing is left to be done for a stop.
    wasmlet_runner_core::leave_if_idle();
    let list = match poll::subscriptions(&Memory(memory), subscriptions, count) {
        Ok(list)
            if list
                .iter()
                .any(|s| s.fd().is_some_and(|fd| state.sockets.owns(fd))) =>
        {
            list
        }
        // What is wrong with a list that has no socket in it is for Wasmtime to say.
        Ok(_) | Err(_) => {
            let memory = &mut GuestMemory::Unshared(memory);
            return wasi::poll_oneoff(&mut state.wasi, memory, subscriptions, events, count, size)
                .await;
        }
    };
    let mut known = Vec::with_capacity(list.len());
    for subscription in list {
        let target = match subscription.fd() {
            None => poll::Target::Clock,
            Some(fd) => match state.sockets.native(fd) {
                Some(native) => poll::Target::Socket(native),
                None if is_open(&mut state.wasi, fd).await? => poll::Target::File,
                None => poll::Target::Closed,
            },
        };
        known.push((subscription, target));
    }
    answer(poll::wait(
        &mut Memory(memory),
        state.sockets.clock,
        &known,
        events,
        size,
    ))
}
