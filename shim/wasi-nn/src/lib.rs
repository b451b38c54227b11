//! wasi-nn for guests of Wasmtime: inference by the host, on models from the pod's own mounts.
//!
//! ```text
//! module    ── wasi_ephemeral_nn (witx) ─▶ modules    ─┐
//!                                                      ├─▶ Host ─▶ tract
//! component ── wasi:nn (WIT) ────────────▶ components ─┘    │
//!                                                           └─ models (by name), budget (what it may take)
//! ```
//!
//! The backend implements the traits of `wasmtime-wasi-nn`, so another one can take its place. The
//! functions that guests call are our own: those of that crate end the process when a module passes a
//! pointer outside its memory, give one error code for everything, and never stop giving out handles.
//!
//! Everything runs on the guest's thread, in its process and so in its pod's limits.
#![forbid(unsafe_code)]

mod budget;
pub mod components;
mod error;
mod host;
pub mod models;
pub mod modules;
#[cfg(feature = "tract")]
mod tract;

pub use budget::{Budget, Memory, Unlimited};
pub use error::{Code, Error};
pub use host::{Host, Onnx};
#[cfg(feature = "tract")]
pub use tract::Tract;

/// Most graphs that a guest may have at a time.
pub const MAX_GRAPHS: usize = 16;

/// Most execution contexts that a guest may have at a time.
pub const MAX_CONTEXTS: usize = 64;

/// Most tensors and errors together that a component may have at a time.
pub const MAX_RESOURCES: usize = 1024;

/// Largest tensor in bytes: 16 million numbers of 32 bits, a hundred times the picture of an ImageNet model.
pub const MAX_TENSOR_BYTES: u64 = 64 << 20;

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 16;

/// Largest model file in bytes: half of what protobuf, and so ONNX in one file, can hold.
pub const MAX_MODEL_BYTES: u64 = 1 << 30;

/// Longest name of a model or a tensor in bytes.
pub const MAX_NAME_BYTES: usize = 256;
