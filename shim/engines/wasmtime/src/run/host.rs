//! What a guest finds around it: arguments, environment, folders, standard streams, clocks.

use std::time::Instant;

use wasmlet_runner_core::{Access, End, GuestExit, Program, Surroundings};
use wasmtime::Store;
use wasmtime_wasi::{FsPerms, HostMonotonicClock, WasiCtxBuilder};

use super::stdio::Output;
use super::{deterministic, end};
use crate::settings::Profile;

/// A WASI context with everything that modules and components have in common.
///
/// A folder that the container's user cannot open is left out, as a Linux process could not open
/// it either.
pub(super) fn wasi(program: &Program, surroundings: &Surroundings) -> WasiCtxBuilder {
    let mut wasi = WasiCtxBuilder::new();
    wasi.inherit_stdin()
        .stdout(Output::Stdout)
        .stderr(Output::Stderr)
        .args(&program.args)
        .envs(&program.env)
        // There is one guest and one thread; another one would cost memory and gain nothing.
        .allow_blocking_current_thread(true);
    for preopen in &surroundings.preopens {
        let perms = match preopen.access {
            Access::ReadOnly => FsPerms::ReadOnly,
            Access::ReadWrite => FsPerms::ReadWrite,
        };
        let _ = wasi.preopened_dir(&preopen.host, &preopen.guest, perms);
    }
    if is_deterministic(program) {
        deterministic::set(&mut wasi);
    }
    wasi
}

/// Whether every run shall be like the one before.
pub(super) fn is_deterministic(program: &Program) -> bool {
    program.profile == Profile::Deterministic.name()
}

/// Hands out what code with checks in it needs: fuel, and an epoch that never comes by itself.
pub(super) fn limit<T>(store: &mut Store<T>, program: &Program) {
    // An error says that the code does not count fuel, and then there is nothing to set.
    let _ = store.set_fuel(end::fuel(program));
    store.set_epoch_deadline(NEVER);
}

/// Beyond every epoch: Wasmtime adds the current one.
const NEVER: u64 = u64::MAX / 2;

/// The guest's monotonic clock, with an origin that our own functions know, too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts at 0 now.
    pub(super) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        // In 584 years.
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Which drivers of tokio a guest needs: each costs descriptors and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drivers {
    /// Timers.
    Time,
    /// Timers and sockets.
    TimeAndSockets,
}

/// Runs a future on this thread.
pub(super) fn block_on(drivers: Drivers, future: impl Future<Output = End>) -> End {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time();
    if drivers == Drivers::TimeAndSockets {
        builder.enable_io();
    }
    match builder.build() {
        Ok(runtime) => {
            let exit = runtime.block_on(future);
            // Dropping it would wait for the threads that block in a name lookup or in a read of
            // stdin, and the process ends at once anyway.
            std::mem::forget(runtime);
            exit
        }
        Err(error) => GuestExit::StartFailed(format!("no event loop: {error}")).into(),
    }
}
