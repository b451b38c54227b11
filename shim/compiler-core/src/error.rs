//! Why there is no artifact.

use std::io;
use std::path::PathBuf;

use wasmlet_inspect::{InvalidModule, SourceError};
use wasmlet_protocol::{FailureReason, PROTOCOL};

use crate::MODULE_LIMIT_BYTES;

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The shim is of another version.
    #[error("the shim speaks protocol {0}, this helper {PROTOCOL}; install both from one release")]
    Protocol(u32),
    /// The engine has no such profile.
    #[error("{engine} has no profile {profile:?}")]
    Profile {
        /// The engine.
        engine: &'static str,
        /// What was asked for.
        profile: String,
    },
    /// The shim's life cannot be followed.
    #[error("cannot follow process {parent}, the shim that asked for this: {source}")]
    Parent {
        /// The shim.
        parent: u32,
        /// The system's word.
        source: io::Error,
    },
    /// Nobody waits for the artifact.
    #[error("process {parent}, the shim that asked for this, is gone")]
    Orphan {
        /// The shim.
        parent: u32,
    },
    /// A bound cannot be set.
    #[error("cannot limit the {what} of the compile helper: {source}")]
    Limit {
        /// What of it.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// The node's compile cgroup cannot be joined.
    #[error("cannot join {}: {source}", path.display())]
    Cgroup {
        /// The file that was written to.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The module's bytes cannot be had.
    #[error("the module cannot be read: {0}")]
    Read(#[source] io::Error),
    /// More bytes than any module that compiles within the bounds of a node.
    #[error("the module is larger than {} MiB", MODULE_LIMIT_BYTES >> 20)]
    TooLarge,
    /// It is no WebAssembly.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The engine took what is not valid to the parser that looks for what it needs.
    #[error(transparent)]
    Facts(#[from] InvalidModule),
    /// The compiler cannot be had.
    #[error("{engine} does not start: {reason}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// Its word.
        reason: String,
    },
    /// What the engine says of a guest that it does not take.
    #[error("{0}")]
    Invalid(String),
    /// The guest imports what no runner of this engine gives.
    #[error("{0}")]
    Imports(String),
    /// The engine knows what the guest is, and does not do that.
    #[error("{0}")]
    Unsupported(String),
    /// The artifact cannot be written.
    #[error("the artifact cannot be written: {0}")]
    Write(#[source] io::Error),
    /// What was written does not load.
    #[error("the artifact does not load: {0}")]
    Load(String),
}

impl CompileError {
    /// Whose turn it is.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Profile { .. }
            | Self::Source(_)
            | Self::Facts(_)
            | Self::Invalid(_)
            | Self::Imports(_) => FailureReason::InvalidArgument,
            Self::Unsupported(_) => FailureReason::Unsupported,
            Self::TooLarge => FailureReason::ResourceExhausted,
            Self::Write(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                FailureReason::ResourceExhausted
            }
            Self::Write(error) if is_full(error) => FailureReason::DiskFull,
            Self::Protocol(_)
            | Self::Parent { .. }
            | Self::Orphan { .. }
            | Self::Limit { .. }
            | Self::Cgroup { .. }
            | Self::Read(_)
            | Self::Engine { .. }
            | Self::Write(_)
            | Self::Load(_) => FailureReason::Internal,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
