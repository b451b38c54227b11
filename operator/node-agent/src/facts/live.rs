//! What the file system of a node does not tell.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A unit of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// For example `containerd.service`.
    pub name: String,
    /// Whether it runs.
    pub active: Active,
    /// The main process' command line, from `ExecStart`: the program's path first. Empty if there is none.
    #[serde(default)]
    pub command: Vec<String>,
}

/// Whether a unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Active {
    /// `active`, `reloading` or `activating`: what was loaded runs.
    Running,
    /// It is there and does not run.
    Stopped,
    /// It is there and ended with an error.
    Failed,
}

/// The answer of `containerd --config FILE config dump`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// What it wrote to standard output.
    pub text: String,
}

/// Asks the node. All of it only reads.
pub trait Live {
    /// The units of these names that systemd knows; those it does not know are left out.
    fn units(&self, names: &[&str]) -> impl Future<Output = Result<Vec<Unit>, LiveError>> + Send;

    /// `RuntimeVersion` of CRI's Version, and `info` of its Status with `verbose`, of the containerd at this socket.
    fn cri(&self, socket: &Path) -> impl Future<Output = Result<CriAnswer, LiveError>> + Send;

    /// `PROGRAM --version`, on the host: for a containerd that does not answer.
    fn version(&self, program: &Path) -> impl Future<Output = Result<String, LiveError>> + Send;

    /// `PROGRAM --config FILE config dump`, on the host.
    fn dump(
        &self,
        program: &Path,
        config: &Path,
    ) -> impl Future<Output = Result<Dump, LiveError>> + Send;

    /// `uname -m`.
    fn machine(&self) -> impl Future<Output = Result<String, LiveError>> + Send;
}

/// What containerd's CRI says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CriAnswer {
    /// `RuntimeVersion`, for example `v2.1.9`.
    pub version: String,
    /// `info` of Status: JSON texts by name, of which `config` is the loaded configuration.
    pub info: BTreeMap<String, String>,
}

/// Why the node did not answer.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum LiveError {
    /// There is no systemd to ask.
    #[error("systemd does not answer: {0}")]
    NoSystemd(String),
    /// containerd's CRI did not answer.
    #[error("containerd does not answer at {socket}: {cause}")]
    NoCri {
        /// The socket.
        socket: String,
        /// What happened.
        cause: String,
    },
    /// A program on the host could not be run, or failed.
    #[error("{command} failed on the host: {cause}")]
    Command {
        /// The command line.
        command: String,
        /// What happened, with the last lines of its output.
        cause: String,
    },
    /// A recorded node has no answer to this.
    #[error("the recorded node has no answer to {0}")]
    NotRecorded(String),
}
