//! Containers made by the runner, without a shim and without containerd.
//!
//! The same tests for every engine; `engine.rs` says what is different.
//!
//! As root; elsewhere every test says that it skipped. The programs under test are those that cargo
//! built for this test, or those in the folder that `WASMLET_TEST_BIN` names.

mod bad;
mod compile;
mod ends;
mod engine;
mod files;
mod guests;
mod hooks;
mod http;
mod inject;
mod interrupted;
mod limits;
mod names;
mod nn;
mod posture;
mod runs;
mod serving;
mod settings;
mod support;
mod terminal;
