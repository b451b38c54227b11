//! The operator: decides which nodes get wasmlet, in which order, and says how it went. See `README.md` beside `Cargo.toml` for the map
//! and for each permission that it needs.

#![forbid(unsafe_code)]

pub mod objects;
pub mod plan;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod world;
