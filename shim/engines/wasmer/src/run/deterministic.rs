//! Clocks and random numbers of the profile `deterministic`, the same as under Wasmtime.
//!
//! All clocks start at a fixed time and are a microsecond later at every look, so that a guest that waits for
//! time to pass gets ahead, and sees the same times in every run. A wait for a time from now still takes its
//! time; one for a moment of the clock is over at once, as WASIX looks at the system's clock for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use wasmer::{
    Function, FunctionEnv, FunctionEnvMut, Imports, Memory as GuestMemory, RuntimeError, Store,
};
use wasmlet_runner_core::preview1::{self, Errno, Memory};

/// The wall clock's first answer: 2000-01-01 00:00:00 UTC, in nanoseconds since 1970.
const EPOCH_NANOS: u64 = 946_684_800_000_000_000;

/// Time between two looks, in nanoseconds.
const STEP_NANOS: u64 = 1_000;

/// What the random numbers are made from.
const SEED: &[u8] = b"wasmlet deterministic 1";

/// Bytes after which they repeat.
const RANDOM_BYTES: usize = 64 * 1024;

/// The modules that have these functions, with the same types and meanings.
const MODULES: [&str; 3] = [preview1::MODULE, "wasi_unstable", "wasix_32v1"];

/// `clockid`: realtime is the only one that does not start at zero.
const REALTIME: i32 = 0;
const LAST_CLOCK: i32 = 3;

type Answer = Result<i32, RuntimeError>;

/// One count of looks for all clocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Ticks(Arc<AtomicU64>);

impl Ticks {
    fn next(&self) -> u64 {
        self.0.fetch_add(STEP_NANOS, Ordering::Relaxed)
    }
}

/// The clocks of a guest.
#[derive(Debug, Clone)]
pub(super) enum Clock {
    /// Those of the system.
    System,
    /// Ours.
    Ticks(Ticks),
}

impl Clock {
    /// The guest's monotonic clock.
    pub(super) fn monotonic(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let clock = self.clone();
        move || match &clock {
            Self::System => system_monotonic(),
            Self::Ticks(ticks) => ticks.next(),
        }
    }
}

/// As WASIX has it, which gives the guest the system's.
fn system_monotonic() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is that of a live value; with this clock the call does not fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    super::folders::nanoseconds(time.tv_sec, time.tv_nsec)
}

/// What the functions work on.
pub(super) struct State {
    ticks: Ticks,
    memory: Option<GuestMemory>,
    bytes: Vec<u8>,
    next_byte: usize,
}

/// The functions of an instance.
pub(super) struct Added(FunctionEnv<State>);

impl Added {
    /// Tells where the guest's memory is, once there is one.
    pub(super) fn set_memory(&self, store: &mut Store, memory: GuestMemory) {
        self.0.as_mut(store).memory = Some(memory);
    }
}

/// Puts the functions in front of those that are among the imports.
pub(super) fn add(store: &mut Store, imports: &mut Imports, ticks: &Ticks) -> Added {
    let state = State {
        ticks: ticks.clone(),
        memory: None,
        bytes: random_bytes(),
        next_byte: 0,
    };
    let env = FunctionEnv::new(store, state);
    for module in MODULES {
        if imports.contains_namespace(module) {
            let time = Function::new_typed_with_env(store, &env, clock_time_get);
            let resolution = Function::new_typed_with_env(store, &env, clock_res_get);
            let random = Function::new_typed_with_env(store, &env, random_get);
            imports.define(module, "clock_time_get", time);
            imports.define(module, "clock_res_get", resolution);
            imports.define(module, "random_get", random);
        }
    }
    Added(env)
}

fn with(
    ctx: &mut FunctionEnvMut<'_, State>,
    call: impl FnOnce(&mut Memory<'_>, &mut State) -> Result<(), Errno>,
) -> Answer {
    let (state, store) = ctx.data_and_store_mut();
    let Some(memory) = state.memory.clone() else {
        return Err(RuntimeError::new("the module has no memory yet"));
    };
    let view = memory.view(&store);
    // SAFETY: the guest waits for this call and has no other thread, as the profile has none. Nothing in here
    // grows the memory.
    let bytes = unsafe { view.data_unchecked_mut() };
    Ok(preview1::number(call(&mut Memory(bytes), state)))
}

fn clock_time_get(mut ctx: FunctionEnvMut<'_, State>, clock: i32, _: i64, out: i32) -> Answer {
    with(&mut ctx, |memory, state| {
        let start = match clock {
            REALTIME => EPOCH_NANOS,
            1..=LAST_CLOCK => 0,
            _ => return Err(Errno::Inval),
        };
        memory.write(out, &(start + state.ticks.next()).to_le_bytes())
    })
}

fn clock_res_get(mut ctx: FunctionEnvMut<'_, State>, clock: i32, out: i32) -> Answer {
    with(&mut ctx, |memory, _| {
        if !(REALTIME..=LAST_CLOCK).contains(&clock) {
            return Err(Errno::Inval);
        }
        memory.write(out, &STEP_NANOS.to_le_bytes())
    })
}

fn random_get(mut ctx: FunctionEnvMut<'_, State>, at: i32, length: i32) -> Answer {
    with(&mut ctx, |memory, state| {
        let room = memory.slice(at, length.cast_unsigned() as usize)?;
        for byte in room {
            *byte = state.bytes[state.next_byte];
            state.next_byte = (state.next_byte + 1) % state.bytes.len();
        }
        Ok(())
    })
}

/// SHA-256 of the seed and a counter, one after the other.
fn random_bytes() -> Vec<u8> {
    (0_u64..)
        .flat_map(|counter| {
            let mut hash = Sha256::new();
            hash.update(SEED);
            hash.update(counter.to_le_bytes());
            hash.finalize()
        })
        .take(RANDOM_BYTES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_at_the_same_moment_and_goes_on() {
        for _ in 0..2 {
            let clock = Clock::Ticks(Ticks::default());
            let now = clock.monotonic();
            assert_eq!((now(), now()), (0, STEP_NANOS));
        }
    }

    #[test]
    fn the_systems_clock_goes_on() {
        let now = Clock::System.monotonic();
        let before = now();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(now() - before >= 5_000_000);
    }

    #[test]
    fn random_bytes_are_those_of_the_other_engines() {
        let bytes = random_bytes();
        assert_eq!(bytes.len(), RANDOM_BYTES);
        // As wasmtime's runner has them.
        assert_eq!(bytes[..4], [36, 231, 40, 177]);
    }
}
