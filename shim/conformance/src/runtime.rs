//! What the tests run on.

use crate::Target;

/// Who runs a guest, and what the guest is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// containerd's own shim for runc, with the guests compiled for Linux: it tests the tests.
    Runc,
    /// Our shim, with the guests compiled to WebAssembly and the engine left to `auto`.
    Wasm,
    /// Our shim with the guests compiled for Linux: what a sidecar sees.
    WasmLinux,
    /// As [`Self::Wasm`] in the profile `hardened`.
    Hardened,
}

impl Runtime {
    /// All of them, in the order of the tests' names.
    pub const ALL: [Self; 4] = [Self::Runc, Self::Wasm, Self::WasmLinux, Self::Hardened];

    /// Name in the tests' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Wasm => "wasm",
            Self::WasmLinux => "wasm-linux",
            Self::Hardened => "hardened",
        }
    }

    /// Runtime type that containerd is asked for.
    pub const fn containerd_type(self) -> &'static str {
        if self.is_ours() {
            "io.containerd.wasm.v1"
        } else {
            "io.containerd.runc.v2"
        }
    }

    /// Handler of the CRI configuration.
    pub const fn handler(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Wasm | Self::WasmLinux | Self::Hardened => "wasm",
        }
    }

    /// The profile of every container, as an annotation.
    pub const fn profile(self) -> Option<&'static str> {
        match self {
            Self::Hardened => Some("hardened"),
            Self::Runc | Self::Wasm | Self::WasmLinux => None,
        }
    }

    /// What guests are compiled for.
    pub const fn target(self) -> Target {
        if self.is_wasm() {
            Target::Wasm
        } else {
            Target::Linux
        }
    }

    /// Whether its guests are WebAssembly.
    pub const fn is_wasm(self) -> bool {
        !matches!(self, Self::Runc | Self::WasmLinux)
    }

    /// Whether it is our shim.
    pub const fn is_ours(self) -> bool {
        !matches!(self, Self::Runc)
    }

    /// Whether it differs from another one by the profile alone: containerd does nothing else for it, so one
    /// release is enough.
    pub const fn is_variant(self) -> bool {
        self.profile().is_some()
    }
}
