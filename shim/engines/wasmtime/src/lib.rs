//! Wasmtime as a wasmlet engine: a runner without a compiler, and the compile helper.
//!
//! ```text
//! wasmlet-aot-wasmtime  compile ── module or component ──▶ artifact
//! wasmlet-run-wasmtime  run     ── artifact ──▶ mapped, run
//!                       settings    the one Config that both are built from
//! ```
#[cfg(feature = "compiler")]
pub mod compile;
#[cfg(feature = "runner")]
pub mod run;
pub mod settings;
