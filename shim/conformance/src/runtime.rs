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
    /// By the handler of Wasmer.
    Wasmer,
    /// As [`Self::Wasmer`] in the profile `hardened`.
    WasmerHardened,
    /// By the handler of WasmEdge.
    WasmEdge,
    /// As [`Self::WasmEdge`] in the profile `hardened`.
    WasmEdgeHardened,
}

impl Runtime {
    /// All of them, in the order of the tests' names.
    pub const ALL: [Self; 8] = [
        Self::Runc,
        Self::Wasm,
        Self::WasmLinux,
        Self::Hardened,
        Self::Wasmer,
        Self::WasmerHardened,
        Self::WasmEdge,
        Self::WasmEdgeHardened,
    ];

    /// Name in the tests' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Wasm => "wasm",
            Self::WasmLinux => "wasm-linux",
            Self::Hardened => "hardened",
            Self::Wasmer => "wasmer",
            Self::WasmerHardened => "wasmer-hardened",
            Self::WasmEdge => "wasmedge",
            Self::WasmEdgeHardened => "wasmedge-hardened",
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
            Self::Wasmer | Self::WasmerHardened => "wasm-wasmer",
            Self::WasmEdge | Self::WasmEdgeHardened => "wasm-wasmedge",
        }
    }

    /// The engine that the handler's settings name.
    pub const fn handler_engine(self) -> Option<&'static str> {
        match self {
            Self::Wasmer | Self::WasmerHardened => Some("wasmer"),
            Self::WasmEdge | Self::WasmEdgeHardened => Some("wasmedge"),
            Self::Runc | Self::Wasm | Self::WasmLinux | Self::Hardened => None,
        }
    }

    /// The engine that runs a guest that says nothing of engines.
    pub const fn engine(self) -> &'static str {
        match self.handler_engine() {
            Some(engine) => engine,
            None => "wasmtime",
        }
    }

    /// Whether its engine runs components, too.
    pub fn runs_components(self) -> bool {
        self.engine() == "wasmtime"
    }

    /// The profile of every container, as an annotation.
    pub const fn profile(self) -> Option<&'static str> {
        match self {
            Self::Hardened | Self::WasmerHardened | Self::WasmEdgeHardened => Some("hardened"),
            Self::Runc | Self::Wasm | Self::WasmLinux | Self::Wasmer | Self::WasmEdge => None,
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

    /// Whether it differs from another one by the engine or the profile alone: containerd does nothing
    /// else for it, so one release is enough.
    pub const fn is_engine_variant(self) -> bool {
        self.handler_engine().is_some() || self.profile().is_some()
    }
}
