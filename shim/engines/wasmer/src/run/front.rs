//! Functions put in front of WASIX's where its own would mislead a guest or us.
//!
//! - `proc_exit`: WASIX keeps the lowest eight bits of the code, and a failure would look like a success. Its
//!   own remains to modules of WASIX, where it may be a forked process that ends.
//! - `fd_fdstat_get`: WASIX says of the standard streams that they are terminals, and guests colour their logs.

use std::io::IsTerminal;

use wasmer::{
    Extern, Function, FunctionEnv, FunctionEnvMut, Imports, Memory, RuntimeError, Store,
    TypedFunction,
};
use wasmlet_runner_core::preview1;

use super::end::ProcExit;

/// The modules that have these functions, with the same types and meanings.
const MODULES: [&str; 3] = [preview1::MODULE, "wasi_unstable", "wasix_32v1"];

/// The number of no error.
const SUCCESS: i32 = 0;

/// `filetype` of what is nothing that WASI knows.
const UNKNOWN: u8 = 0;

/// What the functions work on.
struct State {
    memory: Option<Memory>,
    fdstat: TypedFunction<(i32, i32), i32>,
}

/// The functions of an instance.
pub(super) struct Front(Vec<FunctionEnv<State>>);

impl Front {
    /// Puts the functions in front of those that are among the imports.
    pub(super) fn add(store: &mut Store, imports: &mut Imports) -> Result<Self, RuntimeError> {
        let mut added = Vec::new();
        for module in MODULES {
            if let Some(Extern::Function(fdstat)) = imports.get_export(module, "fd_fdstat_get") {
                let state = State {
                    memory: None,
                    fdstat: fdstat.typed(store)?,
                };
                let env = FunctionEnv::new(store, state);
                let function = Function::new_typed_with_env(store, &env, fd_fdstat_get);
                imports.define(module, "fd_fdstat_get", function);
                added.push(env);
            }
            if module != "wasix_32v1" && imports.exists(module, "proc_exit") {
                let exit = Function::new_typed(store, |code: i32| -> Result<(), RuntimeError> {
                    Err(RuntimeError::user(Box::new(ProcExit(code.cast_unsigned()))))
                });
                imports.define(module, "proc_exit", exit);
            }
        }
        Ok(Self(added))
    }

    /// Tells where the guest's memory is, once there is one.
    pub(super) fn set_memory(&self, store: &mut Store, memory: Memory) {
        for env in &self.0 {
            env.as_mut(store).memory = Some(memory.clone());
        }
    }
}

fn fd_fdstat_get(
    mut ctx: FunctionEnvMut<'_, State>,
    fd: i32,
    out: i32,
) -> Result<i32, RuntimeError> {
    let own = ctx.data().fdstat.clone();
    let answer = own.call(&mut ctx, fd, out)?;
    let is_terminal = match fd {
        0 => std::io::stdin().is_terminal(),
        1 => std::io::stdout().is_terminal(),
        2 => std::io::stderr().is_terminal(),
        _ => true,
    };
    if answer == SUCCESS && !is_terminal {
        let (state, store) = ctx.data_and_store_mut();
        if let Some(memory) = &state.memory {
            // `fdstat` begins with the type; WASIX has just written there.
            let _ = memory
                .view(&store)
                .write_u8(u64::from(out.cast_unsigned()), UNKNOWN);
        }
    }
    Ok(answer)
}
