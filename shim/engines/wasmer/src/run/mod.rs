//! The runner: loads artifacts and runs them.

mod deterministic;
mod end;
mod file;
mod folders;
mod front;
mod memory;
mod module;
mod sockets;
mod stdio;

use std::fs::File;

use wasmlet_protocol::{
    CreateRequest, Description, Failure, FailureReason, GuestKind, GuestOption, PROTOCOL,
    ProfileKey, interface,
};
use wasmlet_runner_core::{End, Engine, Guest, Program, Surroundings};

use crate::settings::{BUILD_ID, Profile, VERSION};

/// Memory of a container beside the guest's linear memory, in bytes, whatever the size of that.
///
/// Measured with the release build on cgroup v1, kernel memory included: a guest that fills its linear
/// memory to the last page costs 1.2 MiB on top at 64 MiB. Then the guest's code, of which Wasmer makes a
/// copy, up to [`CODE_IN_RESERVE`]. The rest is for what depends on the guest: open files, socket buffers,
/// threads.
const MEMORY_RESERVE: u64 = 6 << 20;

/// What is needed for each GiB of linear memory on top, in bytes: page tables, as under every engine.
/// Measured: 1.2 MiB on top at 256 MiB, 2.7 MiB at 1 GiB.
const MEMORY_RESERVE_PER_GIB: u64 = 3 << 20;

/// Bytes of compiled code that the reserve has room for. What a guest has more is counted to its linear
/// memory, so that both together fit into the container.
const CODE_IN_RESERVE: u64 = 3 << 20;

/// Smallest stack with which a guest can do anything, in bytes.
const MIN_STACK: u64 = 32 << 10;

/// Largest stack, in bytes: all of it may become the container's memory.
const MAX_STACK: u64 = 256 << 20;

/// Wasmer.
#[derive(Debug, Clone, Copy)]
pub struct Wasmer;

/// A loaded artifact.
#[derive(Debug)]
pub struct Loaded(module::LoadedModule);

impl Engine for Wasmer {
    type Guest = Loaded;

    fn describe(&self) -> Result<Description, Failure> {
        Ok(Description {
            protocol: PROTOCOL,
            engine: "wasmer".to_owned(),
            version: VERSION.to_owned(),
            build_id: BUILD_ID.to_owned(),
            runs: vec![GuestKind::Module],
            interfaces: [
                interface::WASI_PREVIEW1,
                interface::WASI_UNSTABLE,
                interface::LISTEN,
                interface::WASIX,
            ]
            .map(str::to_owned)
            .to_vec(),
            options: vec![
                GuestOption::Fuel,
                GuestOption::Listen,
                GuestOption::MaxStack,
                GuestOption::Memory,
                GuestOption::Timeout,
            ],
            profiles: Profile::ALL
                .into_iter()
                .map(|profile| ProfileKey {
                    name: profile.name().to_owned(),
                    compatibility: profile.compatibility(),
                    proposals: profile.proposals(),
                })
                .collect(),
            memory_reserve: MEMORY_RESERVE,
            memory_reserve_per_gib: MEMORY_RESERVE_PER_GIB,
        })
    }

    fn check(&self, request: &CreateRequest) -> Result<(), Failure> {
        let refused = |reason, message| Err(Failure { reason, message });
        if Profile::from_name(&request.profile).is_none() {
            let known: Vec<&str> = Profile::ALL.into_iter().map(Profile::name).collect();
            return refused(
                FailureReason::InvalidArgument,
                format!(
                    "wasmer has no profile {:?}; it has {}",
                    request.profile,
                    known.join(", ")
                ),
            );
        }
        if request.kind == GuestKind::Component {
            return refused(
                FailureReason::Unsupported,
                "wasmer runs modules, and this is a component; set wasmlet.dev/engine to wasmtime"
                    .to_owned(),
            );
        }
        if let Some(bytes) = request.max_stack
            && !(MIN_STACK..=MAX_STACK).contains(&bytes)
        {
            return refused(
                FailureReason::InvalidArgument,
                format!(
                    "wasmlet.dev/max-stack: {bytes} bytes are not possible; use {} KiB to {} MiB",
                    MIN_STACK >> 10,
                    MAX_STACK >> 20
                ),
            );
        }
        Ok(())
    }

    fn load(&self, artifact: File, program: &Program) -> Result<Loaded, Failure> {
        module::load(artifact, program).map(Loaded)
    }
}

impl Guest for Loaded {
    fn run(self, program: &Program, surroundings: Surroundings) -> End {
        self.0.run(program, surroundings)
    }
}
