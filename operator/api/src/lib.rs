//! The custom resources of `wasmlet.dev/v1alpha1`, and what the operator and the node agents must agree about.
//!
//! - [`runtime`]: `WasmRuntime`, what an administrator wants on the nodes.
//! - [`node`]: `WasmNode`, what the operator wants of one node and what its agent says.
//! - [`target`]: the list of runtimes of one node, and its revision. Also the configuration file of an agent
//!   without an operator.
//! - [`reasons`]: the closed lists of reasons in conditions, events and metric labels.
//! - [`names`]: labels, annotations, field managers, paths.
//! - [`digest`](mod@digest): `sha256:…`.
//! - [`exit`]: exit codes of pods.
//!
//! How the objects are used is told in `operator/README.md`.

#![forbid(unsafe_code)]

pub mod conditions;
pub mod digest;
pub mod exit;
pub mod handlers;
pub mod names;
pub mod node;
pub mod reasons;
pub mod runtime;
pub mod target;

pub use digest::Digest;
pub use node::{WasmNode, WasmNodeSpec, WasmNodeStatus};
pub use runtime::{WasmRuntime, WasmRuntimeSpec, WasmRuntimeStatus};
pub use target::{NodeRuntime, NodeTarget};
