//! Containers made by the runner, without a shim and without containerd.
//!
//! The tests of Wasmtime's runner as far as they are about what every runner does; the other modules test
//! what is WasmEdge's own or ends otherwise there. `engine.rs` says what is different.
//!
//! As root; elsewhere every test says that it skipped.

mod artifact;
#[path = "../../../wasmtime/tests/runner/bad.rs"]
mod bad;
mod compile;
mod ends;
mod engine;
mod files;
#[path = "../../../wasmtime/tests/runner/guests.rs"]
#[allow(dead_code, reason = "guests of tests that are Wasmtime's own")]
mod guests;
mod header;
#[path = "../../../wasmtime/tests/runner/hooks.rs"]
mod hooks;
#[path = "../../../wasmtime/tests/runner/inject.rs"]
mod inject;
#[path = "../../../wasmtime/tests/runner/interrupted.rs"]
mod interrupted;
mod limits;
#[path = "../../../wasmtime/tests/runner/posture.rs"]
mod posture;
#[path = "../../../wasmtime/tests/runner/serving.rs"]
mod serving;
#[path = "../../../wasmtime/tests/runner/support.rs"]
#[allow(dead_code, reason = "helpers of tests that are Wasmtime's own")]
mod support;
