//! Messages and exit codes between the shim, the runners and the compile helpers.
//!
//! Nothing here does I/O. Three programs speak these types:
//!
//! ```text
//! containerd-shim-wasm-v1 ──CreateRequest──▶ wasmlet-run-<engine> create     (fd 3, JSON)
//!                         ◀──CreateReply────
//! containerd-shim-wasm-v1 ──module on fd 0─▶ wasmlet-aot-<engine> compile    (report on fd 1, artifact on fd 3)
//!                         ◀──CompileReport──
//! containerd-shim-wasm-v1 ──────argv───────▶ wasmlet-run-<engine> --describe (fd 1, JSON)
//!                         ◀──Description────
//! ```
//!
//! A program that does not know a field ignores it; a program that needs a field it did not get
//! fails with a message. [`PROTOCOL`] changes when that is not enough.
#![forbid(unsafe_code)]

mod compile;
mod create;
mod describe;
mod exit;
pub mod fd;
pub mod interface;
pub mod proposal;

pub use compile::{CompileReport, CompileRequest, Compiled, GuestKind, Needs};
pub use create::{
    ContainerRef, ControlReply, CreateReply, CreateRequest, Failure, FailureReason, GuestLimits,
    NnModel,
};
pub use describe::{Description, GuestOption, ProfileKey};
pub use exit::ExitCode;

/// Version of this protocol. A shim refuses a runner or helper that describes another one.
pub const PROTOCOL: u32 = 1;

/// Name prefix of runner programs: the rest of the file name is the engine's name.
pub const RUNNER_PREFIX: &str = "wasmlet-run-";

/// Name prefix of compile helpers: the rest of the file name is the engine's name.
pub const COMPILER_PREFIX: &str = "wasmlet-aot-";
