//! The listening socket of a module, in front of WASIX's preview 1, which has no inherited sockets.

use wasmer::{
    Function, FunctionEnv, FunctionEnvMut, Imports, Memory as GuestMemory, RuntimeError, Store,
    TypedFunction,
};
use wasmlet_runner_core::preview1::{
    Close, FILESTAT_SIZE, MODULE, Memory, Renumber, Sockets, Transfer, number, poll,
};

type Answer = Result<i32, RuntimeError>;

/// The number of no error.
const SUCCESS: i32 = 0;

/// What the functions work on: the sockets, and WASIX's own functions behind them.
pub(super) struct State {
    sockets: Sockets,
    memory: Option<GuestMemory>,
    own: Own,
}

/// WASIX's functions, to which is passed on what does not concern a socket.
#[derive(Clone)]
struct Own {
    fd_read: TypedFunction<(i32, i32, i32, i32), i32>,
    fd_write: TypedFunction<(i32, i32, i32, i32), i32>,
    fd_close: TypedFunction<i32, i32>,
    fd_renumber: TypedFunction<(i32, i32), i32>,
    fd_fdstat_get: TypedFunction<(i32, i32), i32>,
    fd_fdstat_set_flags: TypedFunction<(i32, i32), i32>,
    fd_filestat_get: TypedFunction<(i32, i32), i32>,
    poll_oneoff: TypedFunction<(i32, i32, i32, i32), i32>,
}

/// The sockets of an instance.
pub(super) struct Added(FunctionEnv<State>);

impl Added {
    /// Tells where the guest's memory is, once there is one.
    pub(super) fn set_memory(&self, store: &mut Store, memory: GuestMemory) {
        self.0.as_mut(store).memory = Some(memory);
    }
}

/// Puts the functions in front of those that are among the imports.
pub(super) fn add(
    store: &mut Store,
    imports: &mut Imports,
    sockets: Sockets,
) -> Result<Added, RuntimeError> {
    let own = Own {
        fd_read: own(store, imports, "fd_read")?,
        fd_write: own(store, imports, "fd_write")?,
        fd_close: own(store, imports, "fd_close")?,
        fd_renumber: own(store, imports, "fd_renumber")?,
        fd_fdstat_get: own(store, imports, "fd_fdstat_get")?,
        fd_fdstat_set_flags: own(store, imports, "fd_fdstat_set_flags")?,
        fd_filestat_get: own(store, imports, "fd_filestat_get")?,
        poll_oneoff: own(store, imports, "poll_oneoff")?,
    };
    let state = State {
        sockets,
        memory: None,
        own,
    };
    let env = FunctionEnv::new(store, state);
    macro_rules! put {
        ($($name:ident),*) => {
            $(
                let function = Function::new_typed_with_env(store, &env, $name);
                imports.define(MODULE, stringify!($name), function);
            )*
        };
    }
    put!(
        sock_accept,
        sock_recv,
        sock_send,
        sock_shutdown,
        fd_read,
        fd_write,
        fd_close,
        fd_renumber,
        fd_fdstat_get,
        fd_fdstat_set_flags,
        fd_filestat_get,
        poll_oneoff
    );
    Ok(Added(env))
}

/// A function of WASIX's.
fn own<Args: wasmer::WasmTypeList, Results: wasmer::WasmTypeList>(
    store: &Store,
    imports: &Imports,
    name: &str,
) -> Result<TypedFunction<Args, Results>, RuntimeError> {
    match imports.get_export(MODULE, name) {
        Some(wasmer::Extern::Function(function)) => function.typed(store),
        _ => Err(RuntimeError::new(format!("WASIX has no {name}"))),
    }
}

/// Calls with the guest's memory and the sockets, both at once.
fn with<T>(
    ctx: &mut FunctionEnvMut<'_, State>,
    call: impl FnOnce(&mut Memory<'_>, &mut Sockets) -> T,
) -> Result<T, RuntimeError> {
    let (state, store) = ctx.data_and_store_mut();
    let Some(memory) = &state.memory else {
        return Err(RuntimeError::new("the module has no memory yet"));
    };
    let view = memory.view(&store);
    // SAFETY: the guest waits for this call, and has no other thread: these functions are not put in front
    // of a module that shares its memory. Nothing in here grows the memory.
    let bytes = unsafe { view.data_unchecked_mut() };
    Ok(call(&mut Memory(bytes), &mut state.sockets))
}

/// Whether WASIX has this descriptor open.
fn is_open(ctx: &mut FunctionEnvMut<'_, State>, fd: i32) -> Result<bool, RuntimeError> {
    // There is no way to ask but one that writes into the guest's memory, so what is there is put back.
    // One that is too small for the answer is told so only when the descriptor is open. `fd_fdstat_get` would
    // be smaller, and answers for a closed stdin as for an open one.
    const ANSWER: i32 = 0;
    const BADF: i32 = 8;
    let before = with(ctx, |memory, _| memory.read::<FILESTAT_SIZE>(ANSWER).ok())?;
    let ask = ctx.data().own.fd_filestat_get.clone();
    let answer = ask.call(ctx, fd, ANSWER)?;
    if let Some(before) = before {
        // It was inside a moment ago.
        let _ = with(ctx, |memory, _| memory.write(ANSWER, &before))?;
    }
    Ok(answer != BADF)
}

/// What a call for sockets answers to a descriptor that is none.
fn no_socket(ctx: &mut FunctionEnvMut<'_, State>, fd: i32) -> Answer {
    Ok(Sockets::no_socket(is_open(ctx, fd)?))
}

fn sock_accept(mut ctx: FunctionEnvMut<'_, State>, fd: i32, flags: i32, out: i32) -> Answer {
    match with(&mut ctx, |memory, sockets| {
        sockets.accept(memory, fd, flags, out)
    })? {
        None => no_socket(&mut ctx, fd),
        Some(answer) => Ok(number(answer)),
    }
}

fn sock_recv(
    mut ctx: FunctionEnvMut<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    flags: i32,
    size: i32,
    out_flags: i32,
) -> Answer {
    let transfer = Transfer {
        vectors,
        count,
        size,
    };
    let answer = with(&mut ctx, |memory, sockets| {
        sockets.recv(memory, fd, transfer, flags, out_flags)
    })?;
    match answer {
        None => no_socket(&mut ctx, fd),
        Some(answer) => Ok(number(answer)),
    }
}

fn sock_send(
    mut ctx: FunctionEnvMut<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    _flags: i32,
    size: i32,
) -> Answer {
    let transfer = Transfer {
        vectors,
        count,
        size,
    };
    match with(&mut ctx, |memory, sockets| {
        sockets.write(memory, fd, transfer)
    })? {
        None => no_socket(&mut ctx, fd),
        Some(answer) => Ok(number(answer)),
    }
}

fn sock_shutdown(mut ctx: FunctionEnvMut<'_, State>, fd: i32, how: i32) -> Answer {
    match ctx.data_mut().sockets.shutdown(fd, how) {
        None => no_socket(&mut ctx, fd),
        Some(answer) => Ok(number(answer)),
    }
}

fn fd_read(
    mut ctx: FunctionEnvMut<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    size: i32,
) -> Answer {
    let transfer = Transfer {
        vectors,
        count,
        size,
    };
    match with(&mut ctx, |memory, sockets| {
        sockets.read(memory, fd, transfer)
    })? {
        None => {
            let own = ctx.data().own.fd_read.clone();
            own.call(&mut ctx, fd, vectors, count, size)
        }
        Some(answer) => Ok(number(answer)),
    }
}

fn fd_write(
    mut ctx: FunctionEnvMut<'_, State>,
    fd: i32,
    vectors: i32,
    count: i32,
    size: i32,
) -> Answer {
    let transfer = Transfer {
        vectors,
        count,
        size,
    };
    match with(&mut ctx, |memory, sockets| {
        sockets.write(memory, fd, transfer)
    })? {
        None => {
            let own = ctx.data().own.fd_write.clone();
            own.call(&mut ctx, fd, vectors, count, size)
        }
        Some(answer) => Ok(number(answer)),
    }
}

fn fd_close(mut ctx: FunctionEnvMut<'_, State>, fd: i32) -> Answer {
    match ctx.data_mut().sockets.close(fd) {
        Close::Done => Ok(SUCCESS),
        Close::Pass => {
            let own = ctx.data().own.fd_close.clone();
            own.call(&mut ctx, fd)
        }
    }
}

fn fd_renumber(mut ctx: FunctionEnvMut<'_, State>, from: i32, to: i32) -> Answer {
    let open = match ctx.data().sockets.renumber_asks(from, to) {
        None => true,
        Some(fd) => is_open(&mut ctx, fd)?,
    };
    let own = ctx.data().own.clone();
    match ctx.data_mut().sockets.renumber(from, to, open) {
        Renumber::Answer(answer) => Ok(number(answer)),
        Renumber::Pass => own.fd_renumber.call(&mut ctx, from, to),
        Renumber::PassAndForget => {
            let result = own.fd_renumber.call(&mut ctx, from, to)?;
            if result == SUCCESS {
                ctx.data_mut().sockets.forget(to);
            }
            Ok(result)
        }
        Renumber::CloseOld => own.fd_close.call(&mut ctx, from),
    }
}

fn fd_fdstat_get(mut ctx: FunctionEnvMut<'_, State>, fd: i32, out: i32) -> Answer {
    match with(&mut ctx, |memory, sockets| sockets.fdstat(memory, fd, out))? {
        None => {
            let own = ctx.data().own.fd_fdstat_get.clone();
            own.call(&mut ctx, fd, out)
        }
        Some(answer) => Ok(number(answer)),
    }
}

fn fd_fdstat_set_flags(mut ctx: FunctionEnvMut<'_, State>, fd: i32, flags: i32) -> Answer {
    match ctx.data_mut().sockets.set_flags(fd, flags) {
        None => {
            let own = ctx.data().own.fd_fdstat_set_flags.clone();
            own.call(&mut ctx, fd, flags)
        }
        Some(answer) => Ok(number(answer)),
    }
}

fn fd_filestat_get(mut ctx: FunctionEnvMut<'_, State>, fd: i32, out: i32) -> Answer {
    match with(&mut ctx, |memory, sockets| {
        sockets.filestat(memory, fd, out)
    })? {
        None => {
            let own = ctx.data().own.fd_filestat_get.clone();
            own.call(&mut ctx, fd, out)
        }
        Some(answer) => Ok(number(answer)),
    }
}

fn poll_oneoff(
    mut ctx: FunctionEnvMut<'_, State>,
    list: i32,
    events: i32,
    count: i32,
    size: i32,
) -> Answer {
    let subscriptions = with(&mut ctx, |memory, sockets| {
        sockets.subscriptions(memory, list, count)
    })?;
    let Some(subscriptions) = subscriptions else {
        let own = ctx.data().own.poll_oneoff.clone();
        return own.call(&mut ctx, list, events, count, size);
    };
    let mut known = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions {
        let target = match (ctx.data().sockets.target(&subscription), subscription.fd()) {
            (Some(target), _) => target,
            (None, Some(fd)) if is_open(&mut ctx, fd)? => poll::Target::File,
            (None, _) => poll::Target::Closed,
        };
        known.push((subscription, target));
    }
    let answer = with(&mut ctx, |memory, sockets| {
        sockets.poll(memory, &known, events, size)
    })?;
    Ok(number(answer))
}
