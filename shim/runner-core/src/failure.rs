//! Every reason for which a verb fails, and what it means to the shim.

use std::io;
use std::path::PathBuf;

use wasmlet_protocol::{Failure, FailureReason};

use crate::spec::SpecError;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read the request from descriptor {fd}: {source}")]
    ReadRequest { fd: i32, source: io::Error },
    #[error("the request is not valid: {0}")]
    ParseRequest(#[source] serde_json::Error),
    #[error("the shim speaks protocol {theirs}, this runner {ours}; install both from one release")]
    Protocol { theirs: u32, ours: u32 },
    #[error("the container id {id:?} is not usable as a folder name")]
    Id { id: String },
    #[error("a container {id} exists already in {}", state_root.display())]
    Exists { id: String, state_root: PathBuf },
    #[error("there is no container {id} in {}", state_root.display())]
    NotFound { id: String, state_root: PathBuf },
    #[error("descriptor {fd} is not the compiled artifact: {detail}")]
    Artifact { fd: i32, detail: String },
    #[error("cannot read {}: {source}", path.display())]
    ReadSpec { path: PathBuf, source: io::Error },
    #[error("{} is not a valid OCI configuration: {source}", path.display())]
    ParseSpec {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{}: {source}", path.display())]
    Spec { path: PathBuf, source: SpecError },
    #[error("the root file system {}: {source}", path.display())]
    Rootfs {
        path: PathBuf,
        source: crate::rootfs::RootfsError,
    },
    #[error(
        "a user namespace (hostUsers: false) needs the systemd cgroup driver here: the runtime library \
         asks systemd for every container with one"
    )]
    UserNamespace,
    #[error("{}: {source}", path.display())]
    Apparmor {
        path: PathBuf,
        source: crate::init::apparmor::ProfileError,
    },
    #[error("cannot write {}: {source}", path.display())]
    WriteState { path: PathBuf, source: io::Error },
    #[error("cannot remove {}: {source}", path.display())]
    RemoveState { path: PathBuf, source: io::Error },
    #[error("cannot fix the name service to what glibc has built in (database {database})")]
    NameService { database: &'static str },
    #[error("cannot prepare the runner: {step}: {source}")]
    Prepare {
        step: &'static str,
        source: io::Error,
    },
    #[error(
        "the working folder {} cannot be entered: {detail}; create it in the image or set another one",
        path.display()
    )]
    WorkingFolder { path: PathBuf, detail: String },
    #[error("cannot set up the container: {detail}")]
    Setup { detail: String },
    #[error("cannot {verb} the container: {detail}")]
    Control { verb: &'static str, detail: String },
    #[error("the cgroup of the container still has processes: {pids:?}")]
    StillRunning { pids: Vec<i32> },
    #[error("the container is {status}")]
    Status { status: String },
    #[error("{}", .0.message)]
    Engine(Failure),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use FailureReason::{Internal, InvalidArgument, NotFound, Unsupported};
        let reason = match &error {
            Error::Engine(failure) => return failure.clone(),
            Error::ParseRequest(_)
            | Error::Id { .. }
            | Error::Exists { .. }
            | Error::ReadSpec { .. }
            | Error::ParseSpec { .. }
            | Error::Spec { .. }
            | Error::Apparmor { .. }
            | Error::WorkingFolder { .. }
            | Error::Status { .. } => InvalidArgument,
            Error::Rootfs { source, .. } => source.reason(),
            Error::NotFound { .. } => NotFound,
            Error::UserNamespace => Unsupported,
            Error::ReadRequest { .. }
            | Error::Protocol { .. }
            | Error::Artifact { .. }
            | Error::WriteState { .. }
            | Error::RemoveState { .. }
            | Error::NameService { .. }
            | Error::Prepare { .. }
            | Error::Setup { .. }
            | Error::Control { .. }
            | Error::StillRunning { .. } => Internal,
        };
        Failure {
            reason,
            message: error.to_string(),
        }
    }
}

/// One line from an error and what caused it.
///
/// Layers that only repeat the text of the layer below are left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    one_line(&text)
}

/// Text without line breaks and other control characters.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}
