//! The containerd shim for WebAssembly: one thin process per pod, no engine in it.
//!
//! The way of a request is the order of the modules:
//!
//! ```text
//! containerd ──ttrpc──▶ service ─▶ pod (queue, state, driver) ─▶ route ─▶ backend/{runner,runc}
//!                          ▲                     │
//!                        reply                 events ──▶ containerd
//! ```
//!
//! `service` is the only door in, `reply` and `events` are the only doors out. Everything that
//! decides is pure ([`pod::state`], [`pod::queue`], [`annotations`], [`route`]); everything that acts
//! is in `backend`, `stdio`, `cgroup` and `rootfs`.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod backend;
pub mod bootstrap;
pub mod bundle_lock;
pub mod cgroup;
pub mod cli;
pub mod engine;
pub mod error;
pub mod events;
pub mod log;
pub mod options;
pub mod paths;
pub mod pod;
pub mod reaper;
pub mod record;
pub mod reply;
pub mod rootfs;
pub mod route;
pub mod serve;
pub mod service;
pub mod spec;
pub mod stdio;

/// File name of this program: containerd makes it from the runtime's type.
pub const PROGRAM: &str = "containerd-shim-wasm-v1";

/// An error with everything that caused it, in one line: `outer: inner: innermost`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some libraries print their cause as part of themselves.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}
