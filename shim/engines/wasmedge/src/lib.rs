//! WasmEdge as a wasmlet engine: a runner without a compiler, and the compile helper.
//!
//! ```text
//! wasmlet-aot-wasmedge  compile ── module ──▶ artifact: a shared object
//! wasmlet-run-wasmedge  run     ── artifact ──▶ mapped, run
//!                       settings    what both configure the library with
//!                       library     the library's C API, with owners and errors
//!                       ffi         the library's C API
//! ```
//!
//! The programs by these names are launchers of the real ones, see `launcher.rs`.
#[cfg(feature = "compiler")]
pub mod compile;
#[cfg(any(feature = "runner", feature = "compiler"))]
#[cfg_attr(
    not(all(feature = "runner", feature = "compiler")),
    allow(dead_code, unused_imports, reason = "each program uses a part of it")
)]
mod ffi;
#[cfg(any(feature = "runner", feature = "compiler"))]
#[cfg_attr(
    not(all(feature = "runner", feature = "compiler")),
    allow(dead_code, unused_imports, reason = "each program uses a part of it")
)]
mod library;
#[cfg(feature = "runner")]
pub mod run;
pub mod settings;
