//! Everything that can go wrong with a request, one variant per cause.

use std::io;
use std::path::PathBuf;

use wasmlet_protocol::Failure;

use crate::annotations::AnnotationError;
use crate::backend::runc::RuncError;
use crate::cgroup::CgroupError;
use crate::engine::EngineError;
use crate::options::OptionsError;
use crate::paths::PathError;
use crate::pod::queue::Denied;
use crate::record::RecordError;
use crate::rootfs::RootfsError;
use crate::spec::SpecError;
use crate::stdio::StdioError;

/// Why a request was not done. [`crate::reply`] gives each its status code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such container in this pod.
    #[error("container {0:?} not found")]
    UnknownContainer(String),
    /// No such process in the container.
    #[error("process {exec:?} of container {id:?} not found")]
    UnknownExec {
        /// Container.
        id: String,
        /// Process.
        exec: String,
    },
    /// The id is taken.
    #[error("container {0:?} exists already")]
    ContainerExists(String),
    /// The id is taken.
    #[error("process {exec:?} of container {id:?} exists already")]
    ExecExists {
        /// Container.
        id: String,
        /// Process.
        exec: String,
    },
    /// Not in this state.
    #[error("container {id:?}: {denied}")]
    Denied {
        /// Container.
        id: String,
        /// The verb and the state.
        denied: Denied,
    },
    /// A size for something that has no terminal.
    #[error("container {id:?}: the process has no terminal")]
    NoTerminal {
        /// Container.
        id: String,
    },
    /// A WebAssembly container has no such thing.
    #[error("container {id:?} runs WebAssembly: {what}")]
    NotForWasm {
        /// Container.
        id: String,
        /// What it has not, as a sentence.
        what: &'static str,
    },
    /// Restoring is not there yet.
    #[error(
        "creating a container from a checkpoint is not supported yet: create it from its image"
    )]
    RestoreUnsupported,
    /// The request itself is wrong.
    #[error("bad request: {what}")]
    BadRequest {
        /// What is wrong with it.
        what: String,
    },
    /// The container's memory limit leaves a guest nothing.
    #[error(
        "a memory limit of {limit} bytes leaves the guest none: engine {engine} itself takes {reserve}; raise the \
         container's memory limit"
    )]
    LimitTooSmall {
        /// The limit.
        limit: u64,
        /// Engine.
        engine: String,
        /// What it needs for itself.
        reserve: u64,
    },
    /// Runtime options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Annotations.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// config.json.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// config.json lacks something.
    #[error("config.json has no {field}, which a container needs")]
    SpecIncomplete {
        /// The field.
        field: &'static str,
    },
    /// The entrypoint inside the image.
    #[error("the image's entrypoint cannot be run")]
    Entrypoint(#[from] wasmlet_image::rootfs::ResolveError),
    /// The image as an artifact.
    #[error("the image cannot be used: {0}")]
    Image(String),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Standard streams.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// A runner or helper of ours says no.
    #[error("{program}: {}", failure.message)]
    Failure {
        /// Its name.
        program: String,
        /// Why.
        failure: Failure,
    },
    /// A bound on compilation was hit.
    #[error("compiling {module} {bound}; the node's administrator can raise {key}")]
    CompileBound {
        /// The module.
        module: String,
        /// Which bound, as the rest of a sentence.
        bound: String,
        /// The runtime option that sets it.
        key: &'static str,
    },
    /// A compiler ended by a fault of its own.
    #[error(
        "compiling {module}: {} crashed with signal {signal} ({line}); another engine may be able to, set \
         wasmlet.dev/engine", program.display()
    )]
    CompilerCrashed {
        /// The module.
        module: String,
        /// The compile helper.
        program: PathBuf,
        /// Number of the signal.
        signal: u32,
        /// The last that it said.
        line: String,
    },
    /// runc.
    #[error(transparent)]
    Runc(#[from] RuncError),
    /// A program of ours cannot be started or does not speak our protocol.
    #[error("{}: {what}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What happened.
        what: String,
    },
    /// The cache.
    #[error("the cache of compiled modules cannot be used")]
    Cache(#[source] Box<wasmlet_cache::Error>),
    /// The root file system.
    #[error(transparent)]
    Rootfs(Box<RootfsError>),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Folders.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A system call.
    #[error("cannot {what}")]
    System {
        /// What was tried, as the rest of a sentence.
        what: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The container went away while the request waited.
    #[error("container {0:?} is gone")]
    Gone(String),
}

impl From<wasmlet_cache::Error> for Error {
    fn from(error: wasmlet_cache::Error) -> Self {
        Self::Cache(Box::new(error))
    }
}

impl From<RootfsError> for Error {
    fn from(error: RootfsError) -> Self {
        Self::Rootfs(Box::new(error))
    }
}

impl Error {
    /// For `map_err` on a system call.
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;
