//! Shim ↔ compile helper (`wasmlet-aot-<engine> compile`).

use serde::{Deserialize, Serialize};

use crate::Failure;

/// What the helper shall do: JSON in its only argument after `compile`.
///
/// The module is on fd 0, the report goes to fd 1, the artifact to [`crate::fd::COMPILE_OUTPUT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileRequest {
    /// [`crate::PROTOCOL`] of the shim.
    pub protocol: u32,
    /// Name of the module for messages: the path inside the image or the layer's digest.
    pub name: String,
    /// Profile to compile for.
    pub profile: String,
    /// The pod limits the guest's fuel, so the code has to count it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metered: bool,
    /// The pod limits the time of a request, so the code of a server has to be one that can be
    /// interrupted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interruptible: bool,
    /// The compiler crashed on this module as it is: leave out what makes the code fast, if that is another
    /// way through the compiler. An engine that has none ignores it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unoptimised: bool,
    /// `cgroup.procs` files that the helper writes itself into before it reads a byte of the
    /// module, so that the compile is charged to the node's compile cgroup.
    pub cgroup_procs: Vec<std::path::PathBuf>,
    /// Process id of the shim that asks. The helper ends when that process does, and does not start
    /// when it is gone already. Nobody is watched where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// Time the shim gives the helper, in seconds. The helper bounds its processor time by it, so
    /// that it ends by itself when nobody is left to end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_seconds: Option<u64>,
}

/// What kind of WebAssembly a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestKind {
    /// A core module (WASI preview 1).
    Module,
    /// A component (WASI preview 2).
    Component,
}

/// What came of it: one JSON document on fd 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum CompileReport {
    /// The artifact is complete on [`crate::fd::COMPILE_OUTPUT`].
    Compiled(Compiled),
    /// The module cannot be compiled; nothing of the output counts.
    Failed(Failure),
}

/// Facts about a compiled module, kept with the artifact so that a warm start parses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// Kind of guest.
    pub kind: GuestKind,
    /// Names of the exported functions, for `path#func` and for messages; at most 256 of them.
    pub exports: Vec<String>,
    /// The guest wants a listening socket: a module that imports `sock_accept`, a component that exports
    /// `wasi:http/incoming-handler`.
    pub wants_listener: bool,
    /// What it takes to run it, for the choice of an engine.
    #[serde(default)]
    pub needs: Needs,
    /// Minimum linear memory in bytes, all memories together.
    pub min_memory: u64,
    /// Highest resident memory of the helper in bytes.
    pub peak_memory: u64,
    /// Time the compilation took, in milliseconds.
    pub millis: u64,
}

/// What an engine must have to run a guest, as read from the guest alone.
///
/// Names are those of [`crate::interface`] and [`crate::proposal`]; lists are sorted and have every
/// name once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Interfaces whose functions it imports (or, of `wasi-http`, exports).
    pub interfaces: Vec<String>,
    /// Imports that belong to no interface we know, written `module.name`; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Proposals of WebAssembly without which it is not valid.
    pub proposals: Vec<String>,
}
