//! What a guest finds around it: arguments, environment, folders, standard streams, clocks.

use std::time::Instant;

use wasmlet_runner_core::{Access, End, GuestExit, Program, Surroundings};
use wasmtime::Store;
use wasmtime_wasi::{FsPerms, HostMonotonicClock, WasiCtxBuilder};

use super::stdio::Output;
use super::{deterministic, end};
use crate::settings::Profile;

/// A WASI context for the one guest of a container, with everything that modules and components have in
/// common.
pub(super) fn wasi(program: &Program, surroundings: &Surroundings) -> WasiCtxBuilder {
    let mut wasi = guest(program);
    wasi.inherit_stdin()
        // There is one guest and one thread; another one would cost memory and gain nothing.
        .allow_blocking_current_thread(true);
    folders(&mut wasi, surroundings);
    wasi
}

/// What every guest gets, one of many in a container, too: its stdin is at its end.
pub(super) fn guest(program: &Program) -> WasiCtxBuilder {
    let mut wasi = WasiCtxBuilder::new();
    wasi.stdout(Output::Stdout)
        .stderr(Output::Stderr)
        .args(&program.args)
        .envs(&program.env);
    if is_deterministic(program) {
        deterministic::set(&mut wasi);
    }
    wasi
}

/// Opens the folders that a guest may reach.
///
/// One that the container's user cannot open is left out, as a Linux process could not open it either.
pub(super) fn folders(wasi: &mut WasiCtxBuilder, surroundings: &Surroundings) {
    for preopen in &surroundings.preopens {
        let perms = match preopen.access {
            Access::ReadOnly => FsPerms::ReadOnly,
            Access::ReadWrite => FsPerms::ReadWrite,
        };
        let _ = wasi.preopened_dir(&preopen.host, &preopen.guest, perms);
    }
}

/// What a component gets beside: the network of its pod, which is what keeps it in, and the folder that
/// it is in.
pub(super) fn component(wasi: &mut WasiCtxBuilder, cwd: Option<&str>) {
    wasi.inherit_network()
        .allow_tcp(true)
        .allow_udp(true)
        .allow_ip_name_lookup(true);
    if let Some(cwd) = cwd {
        wasi.initial_cwd(cwd);
    }
}

/// The folder that this process is in, where it has a name.
pub(super) fn cwd() -> Option<String> {
    let cwd = std::env::current_dir().ok()?;
    Some(cwd.to_string_lossy().into_owned())
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
    block_on_with(
        tokio::runtime::Builder::new_current_thread(),
        drivers,
        future,
    )
}

/// Runs a future, and what it spawns on as many threads as the builder says.
pub(super) fn block_on_with(
    mut builder: tokio::runtime::Builder,
    drivers: Drivers,
    future: impl Future<Output = End>,
) -> End {
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
