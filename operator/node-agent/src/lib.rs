//! Installs wasmlet on one node, checks it, and takes it back: the program `wasmlet-node`.
//!
//! How it is used, and who writes what, is told in `operator/README.md`.
//!
//! - [`cli`]: the commands.
//! - [`layout`]: what each distribution has where.
//! - [`facts`]: what the node is; read only.
//! - [`config`]: containerd's configuration, text to text.
//! - [`plan`]: facts and target → what has to happen; pure.
//! - [`doctor`]: why pods of a handler do not start; pure.
//! - [`agent`]: the loop around all that.
//! - [`apply`]: the only writer; journal, verification, roll-back.
//! - [`host`]: the node's systemd and containerd.
//! - [`store`]: bundles, from the build to the node's store and out of it again.
//! - [`folder`]: folders without following links.

#![forbid(unsafe_code)]

pub mod agent;
pub mod apply;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod errors;
pub mod facts;
pub mod folder;
pub mod host;
pub mod layout;
pub mod plan;
pub mod store;
