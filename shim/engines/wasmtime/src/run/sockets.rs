//! The listening socket of a module, in front of Wasmtime's preview 1, which knows no sockets at all.

use wasmlet_runner_core::preview1::{
    self, Close, FDSTAT_SIZE, Memory, Renumber, Sockets, Transfer, number, poll,
};
use wasmtime::{AsContextMut, Caller, Extern, Linker, Module};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1 as wasi};
use wiggle::GuestMemory;

use super::module::State;

const PREVIEW1: &str = preview1::MODULE;

/// The number of no error.
const SUCCESS: i32 = 0;

/// Whether a module serves: only then the functions below are put in front of Wasmtime's.
pub(super) fn wanted_by(module: &Module) -> bool {
    module
        .imports()
        .any(|import| preview1::serves(import.module(), import.name()))
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
            let transfer = transfer(vectors, count, size);
            Box::new(sock_recv(caller, fd, transfer, flags, out_flags))
        },
    )?;
    linker.func_wrap_async(
        PREVIEW1,
        "sock_send",
        |caller, (fd, vectors, count, _flags, size): (i32, i32, i32, i32, i32)| {
            Box::new(sock_send(caller, fd, transfer(vectors, count, size)))
        },
    )?;
    linker.func_wrap_async(PREVIEW1, "sock_shutdown", |caller, (fd, how)| {
        Box::new(sock_shutdown(caller, fd, how))
    })?;
    linker.func_wrap(PREVIEW1, "fd_fdstat_set_flags", fd_fdstat_set_flags)?;
    linker.func_wrap_async(PREVIEW1, "fd_read", |caller, (fd, vectors, count, size)| {
        Box::new(fd_read(caller, fd, transfer(vectors, count, size)))
    })?;
    linker.func_wrap_async(
        PREVIEW1,
        "fd_write",
        |caller, (fd, vectors, count, size)| {
            Box::new(fd_write(caller, fd, transfer(vectors, count, size)))
        },
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

fn transfer(vectors: i32, count: i32, size: i32) -> Transfer {
    Transfer {
        vectors,
        count,
        size,
    }
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

/// Whether Wasmtime has this descriptor open.
async fn is_open(wasi: &mut WasiP1Ctx, fd: i32) -> wasmtime::Result<bool> {
    // Room for the answer, beside the guest's memory.
    let mut fdstat = [0; FDSTAT_SIZE];
    let memory = &mut GuestMemory::Unshared(&mut fdstat);
    Ok(wasi::fd_fdstat_get(wasi, memory, fd, 0).await? == SUCCESS)
}

/// What a call for sockets answers to a descriptor that is none.
async fn no_socket(wasi: &mut WasiP1Ctx, fd: i32) -> wasmtime::Result<i32> {
    Ok(Sockets::no_socket(is_open(wasi, fd).await?))
}

async fn sock_accept(
    mut caller: Caller<'_, State>,
    fd: i32,
    flags: i32,
    out: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    match state.sockets.accept(&mut Memory(memory), fd, flags, out) {
        None => no_socket(&mut state.wasi, fd).await,
        Some(answer) => Ok(number(answer)),
    }
}

async fn sock_recv(
    mut caller: Caller<'_, State>,
    fd: i32,
    transfer: Transfer,
    flags: i32,
    out_flags: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    let memory = &mut Memory(memory);
    match state.sockets.recv(memory, fd, transfer, flags, out_flags) {
        None => no_socket(&mut state.wasi, fd).await,
        Some(answer) => Ok(number(answer)),
    }
}

async fn sock_send(
    mut caller: Caller<'_, State>,
    fd: i32,
    transfer: Transfer,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    match state.sockets.write(&mut Memory(memory), fd, transfer) {
        None => no_socket(&mut state.wasi, fd).await,
        Some(answer) => Ok(number(answer)),
    }
}

async fn sock_shutdown(mut caller: Caller<'_, State>, fd: i32, how: i32) -> wasmtime::Result<i32> {
    let state = caller.data_mut();
    match state.sockets.shutdown(fd, how) {
        None => no_socket(&mut state.wasi, fd).await,
        Some(answer) => Ok(number(answer)),
    }
}

fn fd_fdstat_set_flags(
    mut caller: Caller<'_, State>,
    fd: i32,
    flags: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if let Some(answer) = state.sockets.set_flags(fd, flags) {
        return Ok(number(answer));
    }
    let memory = &mut GuestMemory::Unshared(memory);
    wasi::fd_fdstat_set_flags(&mut state.wasi, memory, fd, flags)
}

async fn fd_read(
    mut caller: Caller<'_, State>,
    fd: i32,
    transfer: Transfer,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if let Some(answer) = state.sockets.read(&mut Memory(memory), fd, transfer) {
        return Ok(number(answer));
    }
    let memory = &mut GuestMemory::Unshared(memory);
    let Transfer {
        vectors,
        count,
        size,
    } = transfer;
    wasi::fd_read(&mut state.wasi, memory, fd, vectors, count, size).await
}

async fn fd_write(
    mut caller: Caller<'_, State>,
    fd: i32,
    transfer: Transfer,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if let Some(answer) = state.sockets.write(&mut Memory(memory), fd, transfer) {
        return Ok(number(answer));
    }
    let memory = &mut GuestMemory::Unshared(memory);
    let Transfer {
        vectors,
        count,
        size,
    } = transfer;
    wasi::fd_write(&mut state.wasi, memory, fd, vectors, count, size).await
}

async fn fd_close(mut caller: Caller<'_, State>, fd: i32) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    match state.sockets.close(fd) {
        Close::Done => Ok(SUCCESS),
        Close::Pass => {
            wasi::fd_close(&mut state.wasi, &mut GuestMemory::Unshared(memory), fd).await
        }
    }
}

async fn fd_renumber(mut caller: Caller<'_, State>, from: i32, to: i32) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    let memory = &mut GuestMemory::Unshared(memory);
    let open = match state.sockets.renumber_asks(from, to) {
        None => true,
        Some(fd) => is_open(&mut state.wasi, fd).await?,
    };
    match state.sockets.renumber(from, to, open) {
        Renumber::Answer(answer) => Ok(number(answer)),
        Renumber::Pass => wasi::fd_renumber(&mut state.wasi, memory, from, to).await,
        Renumber::PassAndForget => {
            let result = wasi::fd_renumber(&mut state.wasi, memory, from, to).await?;
            if result == SUCCESS {
                state.sockets.forget(to);
            }
            Ok(result)
        }
        Renumber::CloseOld => wasi::fd_close(&mut state.wasi, memory, from).await,
    }
}

async fn fd_fdstat_get(mut caller: Caller<'_, State>, fd: i32, out: i32) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if let Some(answer) = state.sockets.fdstat(&mut Memory(memory), fd, out) {
        return Ok(number(answer));
    }
    wasi::fd_fdstat_get(&mut state.wasi, &mut GuestMemory::Unshared(memory), fd, out).await
}

async fn fd_filestat_get(
    mut caller: Caller<'_, State>,
    fd: i32,
    out: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    if let Some(answer) = state.sockets.filestat(&mut Memory(memory), fd, out) {
        return Ok(number(answer));
    }
    wasi::fd_filestat_get(&mut state.wasi, &mut GuestMemory::Unshared(memory), fd, out).await
}

async fn poll_oneoff(
    mut caller: Caller<'_, State>,
    list: i32,
    events: i32,
    count: i32,
    size: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = split(&mut caller)?;
    let Some(subscriptions) = state.sockets.subscriptions(&Memory(memory), list, count) else {
        let memory = &mut GuestMemory::Unshared(memory);
        return wasi::poll_oneoff(&mut state.wasi, memory, list, events, count, size).await;
    };
    let mut known = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions {
        let target = match (state.sockets.target(&subscription), subscription.fd()) {
            (Some(target), _) => target,
            (None, Some(fd)) if is_open(&mut state.wasi, fd).await? => poll::Target::File,
            (None, _) => poll::Target::Closed,
        };
        known.push((subscription, target));
    }
    let memory = &mut Memory(memory);
    Ok(number(state.sockets.poll(memory, &known, events, size)))
}
