//! Which shim a test runs on.

use crate::Target;

/// A runtime under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// containerd's own shim for runc, with the guests compiled for Linux: it tests the tests.
    Runc,
    /// Our shim, with the guests compiled to WebAssembly.
    Wasm,
    /// Our shim with the guests compiled for Linux: what a sidecar sees.
    WasmLinux,
}

impl Runtime {
    /// All of them, in the order of the tests' names.
    pub const ALL: [Self; 3] = [Self::Runc, Self::Wasm, Self::WasmLinux];

    /// Name in the tests' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Wasm => "wasm",
            Self::WasmLinux => "wasm-linux",
        }
    }

    /// Runtime type that containerd is asked for.
    pub const fn containerd_type(self) -> &'static str {
        match self {
            Self::Runc => "io.containerd.runc.v2",
            Self::Wasm | Self::WasmLinux => "io.containerd.wasm.v1",
        }
    }

    /// Handler of the CRI configuration.
    pub const fn handler(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Wasm | Self::WasmLinux => "wasm",
        }
    }

    /// What guests are compiled for.
    pub const fn target(self) -> Target {
        match self {
            Self::Runc | Self::WasmLinux => Target::Linux,
            Self::Wasm => Target::Wasm,
        }
    }

    /// Whether it is our shim.
    pub const fn is_ours(self) -> bool {
        !matches!(self, Self::Runc)
    }
}
