//! The runner: maps artifacts and runs them.
//!
//! ```text
//! check   as the runner: the artifact's code is mapped (artifact)
//! load    in the init: the library parses what is mapped (artifact, interpose)
//! run     locked in: a thread with a stack of its own (guest, stack), whose faults are told apart (fault),
//!         whose memory is counted (memory), with what the guest finds around it (wasi, sockets)
//! ```

mod artifact;
mod fault;
mod guest;
mod interpose;
mod memory;
mod sockets;
mod stack;
mod wasi;

use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::AsRawFd;

use wasmlet_protocol::{
    CreateRequest, Description, Failure, FailureReason, GuestKind, GuestOption, PROTOCOL,
    ProfileKey, fd, interface,
};
use wasmlet_runner_core::{End, Engine, Guest, Program, Surroundings};

use crate::library::{self, Configure, Export, Module, Use};
use crate::settings::{BUILD_ID, Profile, VERSION};
use artifact::Code;

/// Memory of a container beside the guest's linear memory, in bytes, whatever the size of that.
///
/// Measured on cgroup v1, kernel memory included: a guest that fills its linear memory to the last page
/// costs 1.3 MiB on top at 64 KiB and 1.1 MiB at 64 MiB, nearly all of it pages of the libraries that are
/// written to. On top of that come the guest's stack (1 MiB where the pod does not say otherwise), the copies
/// that the library makes of a module's data, open files and socket buffers.
const MEMORY_RESERVE: u64 = 6 << 20;

/// What is needed for each GiB of linear memory on top, in bytes.
///
/// Page tables: 8 bytes for each page of 4 KiB are 2 MiB. Measured: 0.5 MiB more at 256 MiB than at none, 2.2
/// MiB more at 1 GiB. The third is for what the kernel counts in batches of its own.
const MEMORY_RESERVE_PER_GIB: u64 = 3 << 20;

/// Where a command module starts.
const START: &str = "_start";

/// What a reactor module wants to be called first.
const INITIALIZE: &str = "_initialize";

/// WasmEdge.
#[derive(Debug, Default)]
pub struct WasmEdge {
    /// The artifact's code, mapped while there was a `/proc` to name it by.
    code: OnceCell<Code>,
}

/// A loaded artifact.
#[derive(Debug)]
pub struct Loaded {
    configure: Configure,
    module: Module,
    entry: String,
    initializes: bool,
}

impl Engine for WasmEdge {
    type Guest = Loaded;

    fn describe(&self) -> Result<Description, Failure> {
        library::start().map_err(internal)?;
        interpose::check().map_err(internal)?;
        Ok(Description {
            protocol: PROTOCOL,
            engine: "wasmedge".to_owned(),
            version: VERSION.to_owned(),
            build_id: BUILD_ID.to_owned(),
            runs: vec![GuestKind::Module],
            interfaces: [
                interface::WASI_PREVIEW1,
                interface::LISTEN,
                interface::WASMEDGE_SOCKETS,
            ]
            .map(str::to_owned)
            .to_vec(),
            options: vec![
                GuestOption::Fuel,
                GuestOption::Timeout,
                GuestOption::MaxStack,
                GuestOption::Memory,
                GuestOption::Listen,
            ],
            profiles: Profile::ALL
                .into_iter()
                .map(|profile| ProfileKey {
                    name: profile.name().to_owned(),
                    compatibility: profile.compatibility(),
                    proposals: profile
                        .proposals()
                        .iter()
                        .map(|name| (*name).to_owned())
                        .collect(),
                })
                .collect(),
            memory_reserve: MEMORY_RESERVE,
            memory_reserve_per_gib: MEMORY_RESERVE_PER_GIB,
        })
    }

    fn check(&self, request: &CreateRequest) -> Result<(), Failure> {
        if Profile::from_name(&request.profile).is_none() {
            let known: Vec<&str> = Profile::ALL.into_iter().map(Profile::name).collect();
            return Err(invalid(format!(
                "wasmedge has no profile {:?}; it has {}",
                request.profile,
                known.join(", ")
            )));
        }
        if request.kind == GuestKind::Component {
            return Err(unsupported(
                "wasmedge runs modules, and this is a component: choose wasmtime with \
                 wasmlet.dev/engine",
            ));
        }
        if request.timeout_millis.is_some() && request.listen.is_some() {
            return Err(unsupported(
                "a guest that serves has a time limit for each request, and a module's requests are \
                 its own affair: remove wasmlet.dev/timeout, or set wasmlet.dev/listen to none",
            ));
        }
        if let Some(bytes) = request.max_stack {
            stack::check(bytes).map_err(invalid)?;
        }
        library::start().map_err(internal)?;
        interpose::check().map_err(internal)?;
        // Mapping takes no memory but page tables: the pages are the file's. Only here is there a name
        // for the file, and the right to open it again.
        let code = Code::map(fd::ARTIFACT).map_err(unloadable)?;
        // One request a process.
        let _ = self.code.set(code);
        Ok(())
    }

    fn load(&self, artifact: File, program: &Program) -> Result<Loaded, Failure> {
        let profile = Profile::from_name(&program.profile).ok_or_else(|| {
            internal(format!(
                "profile {:?} was checked and is gone",
                program.profile
            ))
        })?;
        let code = self
            .code
            .get()
            .ok_or_else(|| internal("the compiled module was not mapped".to_owned()))?;
        let metered = profile.is_metered(program.fuel.is_some());
        let configure = Configure::new(profile, metered, Use::Artifact);
        let module = code
            .load(artifact.as_raw_fd(), &configure)
            .map_err(|error| unloadable(error.to_string()))?;
        // Stays open until the process ends, as `Engine::load` promises.
        std::mem::forget(artifact);
        let exports = module.exports();
        let entry = entry_point(&exports, program)?;
        let initializes = program.invoke.is_some()
            && exports
                .iter()
                .any(|export| export.name == INITIALIZE && export.parameters == Some(0));
        Ok(Loaded {
            configure,
            module,
            entry,
            initializes,
        })
    }
}

impl Guest for Loaded {
    fn run(self, program: &Program, surroundings: Surroundings) -> End {
        guest::run(self, program, surroundings)
    }
}

fn entry_point(exports: &[Export], program: &Program) -> Result<String, Failure> {
    let name = program.invoke.as_deref().unwrap_or(START);
    match exports.iter().find(|export| export.name == name) {
        Some(Export {
            parameters: Some(0),
            ..
        }) => Ok(name.to_owned()),
        Some(Export {
            parameters: Some(count),
            ..
        }) => Err(invalid(format!(
            "the function {name} takes {count} parameters; only functions without any can be called"
        ))),
        Some(_) => Err(invalid(format!("the export {name} is not a function"))),
        None if program.invoke.is_some() => Err(invalid(format!(
            "the module exports no function {name}; it exports {}",
            functions(exports)
        ))),
        None => Err(invalid(format!(
            "the module exports no {START}, so it is not a command; name one of its functions as \
             PATH#FUNCTION: {}",
            functions(exports)
        ))),
    }
}

fn functions(exports: &[Export]) -> String {
    let names: Vec<&str> = exports
        .iter()
        .filter(|export| export.parameters.is_some())
        .map(|export| export.name.as_str())
        .take(20)
        .collect();
    if names.is_empty() {
        "no function at all".to_owned()
    } else {
        names.join(", ")
    }
}

fn invalid(message: String) -> Failure {
    Failure {
        reason: FailureReason::InvalidArgument,
        message,
    }
}

fn unsupported(message: &str) -> Failure {
    Failure {
        reason: FailureReason::Unsupported,
        message: message.to_owned(),
    }
}

fn internal(message: String) -> Failure {
    Failure {
        reason: FailureReason::Internal,
        message,
    }
}

/// A failure to load that is the node's: the artifact was made for this runner.
fn unloadable(why: String) -> Failure {
    internal(format!("the compiled module does not load: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(name: &str, parameters: Option<u32>) -> Export {
        Export {
            name: name.to_owned(),
            parameters,
        }
    }

    fn program(invoke: Option<&str>) -> Program {
        Program {
            name: "m".to_owned(),
            kind: GuestKind::Module,
            invoke: invoke.map(str::to_owned),
            args: Vec::new(),
            env: Vec::new(),
            profile: "default".to_owned(),
            memory: wasmlet_runner_core::MemoryCap::fixed(None),
            fuel: None,
            timeout: None,
            max_stack: None,
            processors: None,
            listen: None,
            nn_models: Vec::new(),
        }
    }

    #[test]
    fn the_entry_point_is_a_function_without_parameters() {
        let exports = [
            export("_start", Some(0)),
            export("add", Some(2)),
            export("memory", None),
        ];
        let of = |invoke| entry_point(&exports, &program(invoke)).map_err(|f| f.message);
        assert_eq!(of(None).as_deref(), Ok("_start"));
        for (invoke, said) in [
            ("add", "the function add takes 2 parameters"),
            ("memory", "the export memory is not a function"),
            ("missing", "no function missing; it exports _start, add"),
        ] {
            let error = of(Some(invoke)).expect_err("cannot be called");
            assert!(error.contains(said), "{error}");
        }
        let error = entry_point(&[], &program(None))
            .expect_err("no command")
            .message;
        assert!(error.contains("exports no _start") && error.contains("no function at all"));
    }
}
