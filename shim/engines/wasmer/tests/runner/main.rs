//! Containers made by the runner, without a shim and without containerd.
//!
//! The same tests as for Wasmtime; `engine.rs` says what is different, `compile.rs` and `wasix.rs` test what
//! only Wasmer has or refuses.

#[path = "../../../wasmtime/tests/runner/bad.rs"]
mod bad;
mod compile;
#[path = "../../../wasmtime/tests/runner/ends.rs"]
mod ends;
mod engine;
#[path = "../../../wasmtime/tests/runner/files.rs"]
mod files;
#[path = "../../../wasmtime/tests/runner/guests.rs"]
mod guests;
#[path = "../../../wasmtime/tests/runner/inject.rs"]
mod inject;
#[path = "../../../wasmtime/tests/runner/interrupted.rs"]
mod interrupted;
#[path = "../../../wasmtime/tests/runner/limits.rs"]
mod limits;
#[path = "../../../wasmtime/tests/runner/names.rs"]
mod names;
#[path = "../../../wasmtime/tests/runner/posture.rs"]
mod posture;
#[path = "../../../wasmtime/tests/runner/runs.rs"]
mod runs;
#[path = "../../../wasmtime/tests/runner/serving.rs"]
mod serving;
#[path = "../../../wasmtime/tests/runner/settings.rs"]
mod settings;
#[path = "../../../wasmtime/tests/runner/support.rs"]
mod support;
#[path = "../../../wasmtime/tests/runner/terminal.rs"]
mod terminal;
mod wasix;
