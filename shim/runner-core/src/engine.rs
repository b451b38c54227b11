//! What a WebAssembly engine has to offer to become a runner.
//!
//! The order of calls, all in the container's init and all by the same thread:
//!
//! ```text
//! create ── cgroup joined, root file system entered ── Engine::load ── "created"
//! start  ── fds closed, capabilities, Landlock, seccomp ── Guest::run ── exit
//! ```

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use wasmlet_protocol::{CreateRequest, Description, Failure, GuestKind, NnModel};

use crate::listen::Listener;
use crate::memory_cap::MemoryCap;

/// A WebAssembly engine without its compiler.
pub trait Engine: 'static {
    /// A loaded artifact.
    type Guest: Guest;

    /// What the runner answers to `--describe`.
    ///
    /// # Errors
    /// When the engine refuses to start on this machine.
    fn describe(&self) -> Result<Description, Failure>;

    /// Checks what can be checked without touching the engine: it runs before the container's
    /// cgroup is joined, so memory used here is not the container's.
    ///
    /// # Errors
    /// When the request asks for something that this engine cannot do.
    fn check(&self, request: &CreateRequest) -> Result<(), Failure>;

    /// Maps the artifact. This is the last moment at which executable memory can be had.
    ///
    /// The file must not be read into memory, and stays open until the process ends: engines map
    /// pages of it lazily.
    ///
    /// # Errors
    /// When the artifact does not fit this engine; the container then is not created.
    fn load(&self, artifact: File, program: &Program) -> Result<Self::Guest, Failure>;
}

/// A loaded artifact, ready to run once.
pub trait Guest {
    /// Runs the guest to its end.
    ///
    /// The process is locked in by now: no executable memory, no `execve`, and of the file system
    /// only what [`Surroundings::preopens`] names.
    fn run(self, program: &Program, surroundings: Surroundings) -> End;
}

/// How a run ended, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub exit: GuestExit,
    /// Fuel that the guest used, where the artifact counts it.
    pub fuel_used: Option<u64>,
}

impl From<GuestExit> for End {
    fn from(exit: GuestExit) -> Self {
        Self {
            exit,
            fuel_used: None,
        }
    }
}

/// What shall run, as known at create time.
#[derive(Debug, Clone)]
pub struct Program {
    /// Name for messages.
    pub name: String,
    /// Kind of guest in the artifact.
    pub kind: GuestKind,
    /// Function to call instead of the usual entry point.
    pub invoke: Option<String>,
    /// Arguments, the guest's own name first.
    pub args: Vec<String>,
    /// Environment, in the order of the spec, one entry per name.
    pub env: Vec<(String, String)>,
    /// Profile the artifact was compiled with.
    pub profile: String,
    /// Cap on linear memory and tables. It can move while the guest runs, so an engine asks it at every
    /// growth.
    pub memory: MemoryCap,
    /// Fuel that the guest may use; the artifact counts it then.
    pub fuel: Option<u64>,
    /// Wall-clock limit of one request to a guest that serves. That of a whole run is kept by this crate
    /// (`deadline`), in host functions too.
    pub timeout: Option<Duration>,
    /// Size of the guest's stack in bytes; the engine's own where there is none.
    pub max_stack: Option<u64>,
    /// Processors that the container may keep busy, where its CPU limit says so: 0.5 is half of one.
    pub processors: Option<f64>,
    /// Where the container listens; the socket itself comes with [`Surroundings`].
    pub listen: Option<SocketAddr>,
    /// Models for wasi-nn that the guest may load by name, as the pod names them: their files are looked at
    /// by the engine.
    pub nn_models: Vec<NnModel>,
}

/// What the guest may reach, as known when it starts.
#[derive(Debug)]
pub struct Surroundings {
    /// Folders, in the order in which the guest shall see them.
    pub preopens: Vec<Preopen>,
    /// Listening socket that takes the place of the guest's stdin.
    pub listener: Option<Listener>,
}

/// One folder that the guest may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preopen {
    /// Where it is, as seen by the init after it has entered the root file system.
    pub host: PathBuf,
    /// What the guest calls it.
    pub guest: String,
    /// What the guest may do in it.
    pub access: Access,
}

/// What a guest may do in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look and read.
    ReadOnly,
    /// Everything that the file permissions allow.
    ReadWrite,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestExit {
    /// It returned or called exit. Codes above 255 do not fit a process and become 255, so that a
    /// failure never looks like a success.
    Code(u32),
    /// It trapped; the reason is one line.
    Trapped(String),
    /// It used up its fuel.
    OutOfFuel {
        /// What it had.
        limit: u64,
    },
    /// It needs more stack than it may have.
    StackOverflow {
        /// Bytes it may have.
        limit: u64,
    },
    /// It needs more linear memory at its start than it may have.
    MemoryLimit {
        /// Bytes it needs.
        needed: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// It ran into its time limit.
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// It could not be started; the reason is one line.
    StartFailed(String),
}
