//! Names of the interfaces between guests and engines.
//!
//! A guest's [`crate::Needs`] and a runner's [`crate::Description`] use the same names. They are text and
//! no enum, so that a runner with an interface that this shim has never heard of still describes itself.

/// `wasi_snapshot_preview1`, the WASI of modules.
pub const WASI_PREVIEW1: &str = "wasi-preview1";
/// `wasi_unstable`, the one before it.
pub const WASI_UNSTABLE: &str = "wasi-unstable";
/// `sock_accept` and the functions on the connections it gives, with the listening socket as descriptor 0.
pub const LISTEN: &str = "listen";
/// WASI 0.2, the WASI of components, without HTTP.
pub const WASI_02: &str = "wasi-0.2";
/// `wasi:http`, served or called.
pub const WASI_HTTP: &str = "wasi-http";
/// `wasi_ephemeral_nn` of modules and `wasi:nn` of components.
pub const WASI_NN: &str = "wasi-nn";
/// `wasix_32v1` and `wasix_64v1`.
pub const WASIX: &str = "wasix";
/// WasmEdge's socket functions in `wasi_snapshot_preview1` (`sock_open`, `sock_connect`, …).
pub const WASMEDGE_SOCKETS: &str = "wasmedge-sockets";
/// `wasi.thread-spawn`.
pub const WASI_THREADS: &str = "wasi-threads";
