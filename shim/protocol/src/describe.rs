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
    /// Interfaces whose functions it gives to guests: names of [`crate::interface`].
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Options it can honour. What is not listed is refused at Create, never ignored.
    pub options: Vec<GuestOption>,
    /// Profiles it has, each with what its artifacts are compatible with.
    pub profiles: Vec<ProfileKey>,
    /// Memory in bytes that the runner needs beside the guest's linear memory, measured, whatever the
    /// size of that.
    pub memory_reserve: u64,
    /// Memory in bytes that it needs on top for each GiB of linear memory: page tables above all.
    ///
    /// The cap on linear memory is what makes the sum fit into the container's limit:
    /// `(limit - memory_reserve) * GiB / (GiB + memory_reserve_per_gib)`, which is
    /// [`Description::linear_memory`].
    #[serde(default)]
    pub memory_reserve_per_gib: u64,
}

impl Description {
    /// Most linear memory that a guest may have in a container with this memory limit, in bytes.
    /// 0 when the runner alone does not fit.
    pub const fn linear_memory(&self, limit: u64) -> u64 {
        const GIB: u128 = 1 << 30;
        let room = limit.saturating_sub(self.memory_reserve) as u128;
        // At most `room`, so it fits.
        (room * GIB / (GIB + self.memory_reserve_per_gib as u128)) as u64
    }
}

/// One profile of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileKey {
    /// Name as in the annotation `wasmlet.dev/profile`.
    pub name: String,
    /// Hash over everything that decides whether an artifact compiled with this profile loads:
    /// engine version, its settings, the CPU features of this node. Hexadecimal.
    pub compatibility: String,
    /// Proposals of WebAssembly that it takes: names of [`crate::proposal`]. A guest that needs another
    /// one is refused before it is compiled.
    #[serde(default)]
    pub proposals: Vec<String>,
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
    /// Models that the guest may load by name.
    NnModels,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(memory_reserve: u64, memory_reserve_per_gib: u64) -> Description {
        Description {
            protocol: crate::PROTOCOL,
            engine: String::new(),
            version: String::new(),
            build_id: String::new(),
            runs: Vec::new(),
            interfaces: Vec::new(),
            options: Vec::new(),
            profiles: Vec::new(),
            memory_reserve,
            memory_reserve_per_gib,
        }
    }

    #[test]
    fn linear_memory_and_its_reserve_fit_into_the_limit() {
        const MIB: u64 = 1 << 20;
        assert_eq!(description(4 * MIB, 0).linear_memory(64 * MIB), 60 * MIB);
        assert_eq!(description(4 * MIB, 0).linear_memory(MIB), 0);
        let both = description(4 * MIB, 3 * MIB);
        for limit in [64 * MIB, 1 << 30, 16 << 30, u64::MAX] {
            let memory = both.linear_memory(limit);
            let used = 4 * u128::from(MIB)
                + u128::from(memory)
                + u128::from(memory) * 3 * u128::from(MIB) / (1 << 30);
            assert!(used <= u128::from(limit), "{memory} under {limit}");
            assert!(memory > limit / 100 * 93, "{memory} under {limit}");
        }
    }

    #[test]
    fn a_runner_without_the_newer_fields_is_understood() {
        let old = r#"{"protocol":1,"engine":"e","version":"1","build_id":"b","runs":[],"options":[],
            "profiles":[],"memory_reserve":5}"#;
        let described: Description =
            serde_json::from_str(old).expect("all that is needed is there");
        assert_eq!(
            (described.memory_reserve, described.memory_reserve_per_gib),
            (5, 0)
        );
    }
}
