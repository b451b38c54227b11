//! An ONNX picture classifier behind HTTP, as it runs inside a WebAssembly container.
//!
//! The way of a request: [`server`] accepts a connection, [`http`] reads a request within its
//! limits, [`api`] finds the answer with [`picture`] (bytes to numbers) and [`model`] (numbers to
//! numbers), [`server`] writes the answer, a log line and [`metrics`]. One request at a time: a
//! WASI preview 1 module has one thread.
//!
//! Everything here also builds for the host, where the tests run. Only `main.rs` knows that a
//! container hands it a listening socket.

pub mod api;
pub mod config;
pub mod connection;
pub mod http;
pub mod labels;
pub mod metrics;
pub mod model;
pub mod picture;
pub mod server;
