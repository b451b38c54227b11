//! Installs wasmlet on one node, checks it, and takes it back.
//!
//! - [`layout`]: what each distribution has where.
//! - [`facts`]: what the node is; read only.
//! - [`config`]: containerd's configuration, text to text.
//! - [`plan`]: facts and target → what has to happen; pure.
#![forbid(unsafe_code)]

pub mod config;
pub mod facts;
pub mod layout;
pub mod plan;
