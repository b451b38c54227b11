//! An engine that nobody would install, which shows what it takes to add one: the interpreter Wasmi.
//!
//! ```text
//! wasmlet-aot-toy  compile ── module ──▶ checked, copied: the artifact is the module itself
//! wasmlet-run-toy  run     ── artifact ──▶ translated, interpreted
//!                  settings    the one Config that both are built from, and what is said of it
//!                  preview1    the functions of WASI that guests get
//! ```
//!
//! docs/adding-an-engine.md walks through it. The shim knows nothing of it.
#![forbid(unsafe_code)]

pub mod compile;
pub mod preview1;
pub mod run;
pub mod settings;

/// The engine's name, as in the names of its programs.
pub const ENGINE: &str = "toy";
