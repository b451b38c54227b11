//! What a runner says of itself (`wasmlet-run-<engine> --describe`).

use serde::{Deserialize, Serialize};

use crate::GuestKind;

/// A runner's answer to `--describe`: one JSON document on stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// [`crate::PROTOCOL`] of the program.
    pub protocol: u32,
    /// Engine name, the same as in the file name: `wasmtime`.
    pub engine: String,
    /// Version of the engine library, for people: `48.0.8`.
    pub version: String,
    /// Identifies this very build of the runner. Part of the cache key.
    pub build_id: String,
    /// Kinds of guest it can run.
    pub runs: Vec<GuestKind>,
    /// Options it can honour. What is not listed is refused at Create, never ignored.
    pub options: Vec<GuestOption>,
    /// Profiles it has, each with what its artifacts are compatible with.
    pub profiles: Vec<ProfileKey>,
    /// Memory in bytes that the runner needs beside the guest's linear memory, measured. The cap on
    /// linear memory is the container's limit less this.
    pub memory_reserve: u64,
}

/// One profile of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileKey {
    /// Name as in the annotation `wasmlet.dev/profile`.
    pub name: String,
    /// Hash over everything that decides whether an artifact compiled with this profile loads:
    /// engine version, its settings, the CPU features of this node. Hexadecimal.
    pub compatibility: String,
}

/// An option of a wasm container, by its annotation key below `wasmlet.dev/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestOption {
    /// Instructions the guest may use.
    Fuel,
    /// Wall-clock limit of a run.
    Timeout,
    /// Size of the guest's stack.
    MaxStack,
    /// Cap on linear memory.
    Memory,
    /// Listening socket handed to the guest.
    Listen,
}
