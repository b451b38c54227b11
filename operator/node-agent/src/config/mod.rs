//! containerd's configuration, text to text.
//!
//! What is ours in a file is one block between two marker lines, at the end:
//!
//! ```toml
//! # wasmlet-node: begin
//! # Written by wasmlet-node, which undoes changes here.
//! [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.wasm]
//! runtime_type = "io.containerd.wasm.v1"
//! …
//! # wasmlet-node: end
//! ```
//!
//! Everything else stays as it is, byte for byte: putting the block in and taking it out again are exact inverses. Where a file has the
//! handlers' table in a form that no block can add to (an inline table), or somebody's tool dropped the comments, the tables are set and
//! removed one by one. In each case the trees before and after are compared, and nothing but ours may differ.
//!
//! A handler is ours if its `runtime_path` is below `/opt/wasmlet/runtimes`; the markers say only where to cut.

mod block;
mod compare;
mod edit;
mod imports;
mod inspect;
mod structure;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use compare::difference;
pub use edit::{ConfigError, insert, insert_into_template, remove, remove_from_template};
pub use imports::{absolute, covers, matches, merge_order, rewritten};
pub use inspect::{Document, NotToml, by_hand, inspect};
pub use write::{Carried, PluginId, Wanted, drop_in, settings};

use wasmlet_api::names::NODE_RUNTIMES;

use crate::facts::HandlerConfig;

/// Whether a handler was written by an agent.
pub fn is_ours(handler: &HandlerConfig) -> bool {
    handler
        .runtime_path
        .strip_prefix(NODE_RUNTIMES)
        .is_some_and(|rest| rest.starts_with('/'))
}
