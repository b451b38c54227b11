//! The operator: decides which nodes get wasmlet, in which order, and says how it went. See `README.md` beside `Cargo.toml` for the map
//! and for each permission that it needs.

#![forbid(unsafe_code)]

pub mod act;
pub mod cache;
pub mod cleanup;
pub mod cli;
pub mod lease;
pub mod metrics;
pub mod objects;
pub mod plan;
pub mod run;
#[cfg(test)]
mod script;
pub mod seed;
pub mod serve;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod watch;
pub mod world;
