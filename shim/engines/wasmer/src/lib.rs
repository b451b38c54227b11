//! Wasmer as a wasmlet engine: a runner without a compiler, and the compile helper.
//!
//! ```text
//! wasmlet-aot-wasmer  compile  ── module ──▶ artifact
//! wasmlet-run-wasmer  run      ── artifact ──▶ loaded, run
//!                     settings   what decides about compiled code, for both
//!                     artifact   from the file to a module, for both
//!                     host       what WASIX asks its host for, for both: the helper looks up imports in it
//! ```
mod artifact;
#[cfg(feature = "compiler")]
pub mod compile;
mod host;
#[cfg(feature = "runner")]
pub mod run;
pub mod settings;
