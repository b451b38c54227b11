//! The listening socket of a module.
//!
//! Preview 1 has `sock_accept` but no way to make a socket, and Wasmtime's implementation knows no
//! sockets at all. So the listening socket takes the place of the guest's stdin (descriptor 0), and
//! the functions a server needs are put in front of Wasmtime's: what concerns descriptor 0 or an
//! accepted connection is answered here, everything else is passed on.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use wasmlet_runner_core::{Connection, Listener, Wait};
use wasmtime::{Caller, Extern, Linker, Module};
use wasmtime_wasi::p1::wasi_snapshot_preview1 as wasi;
use wiggle::GuestMemory;

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
    listener: Option<Listener>,
    listener_wait: Wait,
    connections: BTreeMap<i32, Open>,
}

struct Open {
    connection: Connection,
    nonblocking: bool,
}

impl Sockets {
    pub(super) fn new(listener: Option<Listener>) -> Self {
        Self {
            listener,
            listener_wait: Wait::Forever,
            connections: BTreeMap::new(),
        }
    }

    fn is_listener(&self, fd: i32) -> bool {
        fd == LISTENER && self.listener.is_some()
    }

    fn owns(&self, fd: i32) -> bool {
        self.is_listener(fd) || self.connections.contains_key(&fd)
    }

    fn connection(&mut self, fd: i32) -> Result<&mut Open, Errno> {
        if self.is_listener(fd) {
            return Err(Errno::NotConn);
        }
        self.connections.get_mut(&fd).ok_or(Errno::NotSock)
    }

    fn accept(&mut self, fd: i32, flags: FdFlags) -> Result<i32, Errno> {
        if !self.is_listener(fd) {
            return Err(if self.connections.contains_key(&fd) {
                Errno::Inval
            } else {
                Errno::NotSock
            });
        }
        let listener = self.listener.as_ref().ok_or(Errno::NotSock)?;
        if self.connections.len() >= MAX_CONNECTIONS {
            return Err(Errno::NFile);
        }
        let connection = listener
            .accept(self.listener_wait)
            .map_err(|e| Errno::from(&e))?;
        let nonblocking = flags.nonblocking();
        connection
            .stream
            .set_nonblocking(nonblocking)
            .map_err(|e| Errno::from(&e))?;
        let number = (FIRST_CONNECTION..)
            .find(|number| !self.connections.contains_key(number))
            .ok_or(Errno::NFile)?;
        self.connections.insert(
            number,
            Open {
                connection,
                nonblocking,
            },
        );
        Ok(number)
    }

    fn close(&mut self, fd: i32) {
        if self.is_listener(fd) {
            self.listener = None;
        } else {
            self.connections.remove(&fd);
        }
    }

    fn status(&self, fd: i32) -> (FileType, FdFlags) {
        let nonblocking = match self.connections.get(&fd) {
            Some(open) => open.nonblocking,
            None => self.listener_wait == Wait::No,
        };
        (
            FileType::SocketStream,
            FdFlags::from_nonblocking(nonblocking),
        )
    }

    fn set_flags(&mut self, fd: i32, flags: FdFlags) -> Result<(), Errno> {
        if self.is_listener(fd) {
            self.listener_wait = if flags.nonblocking() {
                Wait::No
            } else {
                Wait::Forever
            };
            return Ok(());
        }
        let open = self.connection(fd)?;
        open.connection
            .stream
            .set_nonblocking(flags.nonblocking())
            .map_err(|e| Errno::from(&e))?;
        open.nonblocking = flags.nonblocking();
        Ok(())
    }

    fn shutdown(&mut self, fd: i32, how: i32) -> Result<(), Errno> {
        // sdflags: bit 0 receive, bit 1 send
        let how = match how {
            1 => Shutdown::Read,
            2 => Shutdown::Write,
            3 => Shutdown::Both,
            _ => return Err(Errno::Inval),
        };
        self.connection(fd)?
            .connection
            .stream
            .shutdown(how)
            .map_err(|e| Errno::from(&e))
    }
}

/// Whether a module serves: only then the functions below are put in front of Wasmtime's.
pub(super) fn wanted_by(module: &Module) -> bool {
    module
        .imports()
        .any(|import| import.module() == PREVIEW1 && import.name().starts_with("sock_"))
}

/// Puts the functions in front of those that are in the linker. Shadowing must be allowed.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(PREVIEW1, "sock_accept", sock_accept)?;
    linker.func_wrap(PREVIEW1, "sock_recv", sock_recv)?;
    linker.func_wrap(PREVIEW1, "sock_send", sock_send)?;
    linker.func_wrap(PREVIEW1, "sock_shutdown", sock_shutdown)?;
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
    linker.func_wrap_async(PREVIEW1, "fd_fdstat_get", |caller, (fd, out)| {
        Box::new(fd_fdstat_get(caller, fd, out))
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

/// The guest's memory and the state, both at once.
fn split<'a>(caller: &'a mut Caller<'_, State>) -> wasmtime::Result<(&'a mut [u8], &'a mut State)> {
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory.data_and_store_mut(caller)),
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

fn sock_accept(
    mut caller: Caller<'_, State>,
    fd: i32,
    flags: i32,
    out: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    let mut memory = Memory(memory);
    answer((|| {
        memory.check(out, 4)?;
        let number = state.sockets.accept(fd, FdFlags::from_guest(flags))?;
        memory.write_u32(out, number.cast_unsigned())
    })())
}

fn sock_recv(
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
    answer((|| {
        let open = state.sockets.connection(fd)?;
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

fn sock_send(
    mut caller: Caller<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    _flags: i32,
    size: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    answer(send(
        &mut Memory(memory),
        &mut state.sockets,
        fd,
        vectors,
        count,
        size,
    ))
}

fn send(
    memory: &mut Memory<'_>,
    sockets: &mut Sockets,
    fd: i32,
    vectors: i32,
    count: i32,
    size: i32,
) -> Result<(), Errno> {
    let stream = &mut sockets.connection(fd)?.connection.stream;
    let written = memory.write_from(vectors, count, MAX_TRANSFER, |buffer| stream.write(buffer))?;
    memory.write_u32(size, written)
}

fn sock_shutdown(mut caller: Caller<'_, State>, fd: i32, how: i32) -> wasmtime::Result<i32> {
    answer(caller.data_mut().sockets.shutdown(fd, how))
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
    if state.sockets.owns(fd) {
        let mut memory = Memory(memory);
        return answer((|| {
            let stream = &mut state.sockets.connection(fd)?.connection.stream;
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
    if state.sockets.owns(fd) {
        return answer(send(
            &mut Memory(memory),
            &mut state.sockets,
            fd,
            vectors,
            count,
            size,
        ));
    }
    let memory = &mut GuestMemory::Unshared(memory);
    wasi::fd_write(&mut state.wasi, memory, fd, vectors, count, size).await
}

async fn fd_close(mut caller: Caller<'_, State>, fd: i32) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if state.sockets.owns(fd) {
        state.sockets.close(fd);
        return answer(Ok(()));
    }
    wasi::fd_close(&mut state.wasi, &mut GuestMemory::Unshared(memory), fd).await
}

async fn fd_fdstat_get(mut caller: Caller<'_, State>, fd: i32, out: i32) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if state.sockets.owns(fd) {
        let (kind, flags) = state.sockets.status(fd);
        return answer(Memory(memory).write_fdstat(out, kind, flags));
    }
    wasi::fd_fdstat_get(&mut state.wasi, &mut GuestMemory::Unshared(memory), fd, out).await
}

async fn poll_oneoff(
    mut caller: Caller<'_, State>,
    subscriptions: i32,
    events: i32,
    count: i32,
    size: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    match poll::subscriptions(&Memory(memory), subscriptions, count) {
        Err(errno) => answer(Err(errno)),
        Ok(list)
            if list
                .iter()
                .any(|sub| sub.fd().is_some_and(|fd| state.sockets.owns(fd))) =>
        {
            answer(poll::wait(
                &mut Memory(memory),
                &state.sockets,
                &list,
                events,
                size,
            ))
        }
        Ok(_) => {
            let memory = &mut GuestMemory::Unshared(memory);
            wasi::poll_oneoff(&mut state.wasi, memory, subscriptions, events, count, size).await
        }
    }
}
