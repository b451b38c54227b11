//! Shim ↔ runner.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::GuestKind;

/// Where a container is, for every verb a runner knows.
///
/// `wasmlet-run-<engine> create` gets it inside [`CreateRequest`]; `delete`, `pause`, `resume` and
/// `update` get it as JSON in their only argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRef {
    /// Container id.
    pub id: String,
    /// Folder of the runners' states, one folder per container id in it. The socket that starts the
    /// container is `<state_root>/<id>/notify.sock`.
    pub state_root: PathBuf,
}

/// Everything a runner needs to become a container's init.
///
/// The runner reads the rest (env, working folder, mounts, namespaces, limits) from the bundle's
/// `config.json`. File descriptors: [`crate::fd`]; 0, 1 and 2 are the container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateRequest {
    /// [`crate::PROTOCOL`] of the shim.
    pub protocol: u32,
    /// Which container.
    pub container: ContainerRef,
    /// OCI bundle: the folder with `config.json`.
    pub bundle: PathBuf,
    /// The container's root file system, mounted.
    pub rootfs: PathBuf,
    /// The systemd cgroup driver manages the container's cgroup.
    pub systemd_cgroup: bool,
    /// Socket that takes the pty's master, when `process.terminal` is set.
    pub console_socket: Option<PathBuf>,
    /// Name of the module for messages.
    pub name: String,
    /// Kind of guest in the artifact.
    pub kind: GuestKind,
    /// Function to call instead of `_start` or `wasi:cli/run`.
    pub invoke: Option<String>,
    /// The guest's arguments, its own name first.
    pub args: Vec<String>,
    /// Profile the artifact was compiled with.
    pub profile: String,
    /// Cap on the guest's linear memory in bytes, all memories together.
    pub max_memory: Option<u64>,
    /// Fuel the guest may use, in the engine's own units (about one an instruction). The artifact was
    /// compiled with metering then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Wall-clock limit of a run, or of one request to a component that serves, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_millis: Option<u64>,
    /// Size of the guest's stack in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_stack: Option<u64>,
    /// Address to bind in the pod's network namespace before the guest starts.
    pub listen: Option<SocketAddr>,
    /// Models for wasi-nn that the guest may load by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nn_models: Vec<NnModel>,
}

/// A model for wasi-nn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NnModel {
    /// What the guest calls it.
    pub name: String,
    /// Its file, as the container sees it.
    pub path: PathBuf,
}

/// A runner's answer to [`CreateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum CreateReply {
    /// The init waits on its notify socket.
    Created {
        /// Process id of the init in the shim's pid namespace.
        pid: i32,
        /// What the container has to do without on this node (a refused `oom_score_adj`, a kernel
        /// without Landlock, a mount that a wasm container never gets), one sentence each, for the
        /// shim's log. Stderr is no place for it: that is the container's.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// Nothing is left of the container.
    Failed(Failure),
}

/// Limits of a running guest that can be moved: JSON in the last argument of `update`.
///
/// Missing where only the cgroup's limits change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// The new cap on linear memory in bytes; none lifts it.
    pub max_memory: Option<u64>,
}

/// A runner's answer to `delete`, `pause`, `resume` and `update`: one JSON document on stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum ControlReply {
    /// Done.
    Done {
        /// What went wrong and stopped nothing (a poststop hook), one sentence each, for the shim's
        /// log.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// Not done.
    Failed(Failure),
}

/// Why something could not be done, in a form that a shim can map to a status code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Closed set: decides the status code.
    pub reason: FailureReason,
    /// One sentence for the person who reads `kubectl describe`.
    pub message: String,
}

/// Whose turn it is after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureReason {
    /// The module, the image or the pod's settings are wrong.
    InvalidArgument,
    /// What was asked for is known and not supported by this engine.
    Unsupported,
    /// A bound (memory, time, size) was hit.
    ResourceExhausted,
    /// The file system that was written to is full.
    DiskFull,
    /// The container or a state it must have is missing.
    NotFound,
    /// Anything of the node: a system call, a cgroup, a mount.
    Internal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_without_warnings_is_what_it_always_was() {
        let done = ControlReply::Done {
            warnings: Vec::new(),
        };
        let json = serde_json::to_string(&done).expect("JSON");
        assert_eq!(json, r#"{"result":"done"}"#);
        let read: ControlReply = serde_json::from_str(&json).expect("a reply");
        assert_eq!(read, done);
        let told: ControlReply =
            serde_json::from_str(r#"{"result":"done","warnings":["w"]}"#).expect("a reply");
        assert_eq!(
            told,
            ControlReply::Done {
                warnings: vec!["w".to_owned()]
            }
        );
    }
}
