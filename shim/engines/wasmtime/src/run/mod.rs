//! The runner: maps artifacts and runs them.

mod component;
mod deterministic;
mod end;
mod host;
mod http;
mod memory;
mod module;
mod nn;
mod sockets;
mod stdio;

use std::fs::File;

use wasmlet_protocol::{
    CreateRequest, Description, Failure, FailureReason, GuestKind, GuestOption, PROTOCOL,
    ProfileKey, interface,
};
use wasmlet_runner_core::{End, Engine, Guest, Program, Surroundings};

use wasmtime::Config;

use crate::settings::{BUILD_ID, Code, Profile, VERSION};

/// Memory of a container beside the guest's linear memory, in bytes, whatever the size of that.
///
/// Measured with the release build on cgroup v1, kernel memory included: a guest that fills its linear
/// memory to the last page costs 0.46 MiB on top at 64 MiB. The rest is for what depends on the guest:
/// open files, socket buffers, a thread that reads stdin.
const MEMORY_RESERVE: u64 = 4 << 20;

/// What is needed for each GiB of linear memory on top, in bytes.
///
/// Page tables: 8 bytes for each page of 4 KiB are 2 MiB. Measured: 0.9 MiB on top at 256 MiB, 2.7 MiB
/// at 1 GiB. The third is for what the kernel counts in batches of its own.
const MEMORY_RESERVE_PER_GIB: u64 = 3 << 20;

/// Smallest stack with which a guest can do anything, in bytes.
const MIN_STACK: u64 = 32 << 10;

/// Largest stack, in bytes: all of it may become the container's memory.
const MAX_STACK: u64 = 256 << 20;

/// Room for host functions on the guest's stack, in bytes: as much as Wasmtime leaves by default.
const HOST_STACK: u64 = 1536 << 10;

/// Wasmtime.
#[derive(Debug, Clone, Copy)]
pub struct Wasmtime;

/// A loaded artifact.
#[derive(Debug)]
pub struct Loaded(Kind);

#[derive(Debug)]
enum Kind {
    Module(module::LoadedModule),
    Component(component::LoadedComponent),
}

impl Engine for Wasmtime {
    type Guest = Loaded;

    fn describe(&self) -> Result<Description, Failure> {
        Ok(Description {
            protocol: PROTOCOL,
            engine: "wasmtime".to_owned(),
            version: VERSION.to_owned(),
            build_id: BUILD_ID.to_owned(),
            runs: vec![GuestKind::Module, GuestKind::Component],
            interfaces: [
                interface::WASI_PREVIEW1,
                interface::LISTEN,
                interface::WASI_02,
                interface::WASI_HTTP,
                interface::WASI_NN,
            ]
            .map(str::to_owned)
            .to_vec(),
            options: vec![
                GuestOption::Fuel,
                GuestOption::Listen,
                GuestOption::MaxStack,
                GuestOption::Memory,
                GuestOption::NnModels,
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
        if Profile::from_name(&request.profile).is_none() {
            let known: Vec<&str> = Profile::ALL.into_iter().map(Profile::name).collect();
            return Err(Failure {
                reason: FailureReason::InvalidArgument,
                message: format!(
                    "wasmtime has no profile {:?}; it has {}",
                    request.profile,
                    known.join(", ")
                ),
            });
        }
        if let Some(bytes) = request.max_stack
            && !(MIN_STACK..=MAX_STACK).contains(&bytes)
        {
            return Err(Failure {
                reason: FailureReason::InvalidArgument,
                message: format!(
                    "wasmlet.dev/max-stack: {bytes} bytes are not possible; use {} KiB to {} MiB",
                    MIN_STACK >> 10,
                    MAX_STACK >> 20
                ),
            });
        }
        if let (GuestKind::Component, Some(_), Some(function)) =
            (request.kind, request.listen, &request.invoke)
        {
            return Err(Failure {
                reason: FailureReason::InvalidArgument,
                message: format!(
                    "a component either serves wasi:http or has its function {function} called; set \
                     wasmlet.dev/listen to none, or leave #{function} away"
                ),
            });
        }
        Ok(())
    }

    fn load(&self, artifact: File, program: &Program) -> Result<Loaded, Failure> {
        let profile = Profile::from_name(&program.profile).ok_or_else(|| Failure {
            reason: FailureReason::Internal,
            message: format!("profile {:?} was checked and is gone", program.profile),
        })?;
        let code = Code::new(
            profile,
            program.kind,
            program.fuel.is_some(),
            program.timeout.is_some(),
        );
        let mut config = code.config();
        set_stack(&mut config, program);
        // Without a compiler in the program there is nothing to switch off.
        #[cfg(feature = "compiler")]
        config.enable_compiler(false);
        let kind = match program.kind {
            GuestKind::Module => Kind::Module(module::load(&config, artifact, program)?),
            GuestKind::Component => {
                Kind::Component(component::load(&mut config, code, artifact, program)?)
            }
        };
        Ok(Loaded(kind))
    }
}

impl Guest for Loaded {
    fn run(self, program: &Program, surroundings: Surroundings) -> End {
        match self.0 {
            Kind::Module(module) => module.run(program, surroundings),
            Kind::Component(component) => component.run(program, surroundings),
        }
    }
}

/// The guest's stack, and room for host functions behind it.
fn set_stack(config: &mut Config, program: &Program) {
    let guest = end::stack(program);
    // `check` has bounded it, so it fits.
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    config
        .max_wasm_stack(bytes(guest))
        .async_stack_size(bytes(guest.saturating_add(HOST_STACK)));
}

/// A failure to load that is the node's: the artifact was made for this runner.
fn unloadable(what: &str, error: &wasmtime::Error) -> Failure {
    Failure {
        reason: FailureReason::Internal,
        message: format!("{what}: {}", end::text(error)),
    }
}
