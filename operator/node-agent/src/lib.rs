//! What `wasmlet-node` does on one node, and how.
//!
//! How it is used, and who writes what, is told in `operator/README.md`.
//!
//! - [`cli`]: the commands.
//! - [`store`]: bundles, from the build to the node's store and out of it again.
//! - [`folder`]: folders without following links.

#![forbid(unsafe_code)]

pub mod cli;
pub mod errors;
pub mod folder;
pub mod store;
