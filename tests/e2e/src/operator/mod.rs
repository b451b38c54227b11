//! wasmlet's operator under test: installed and removed by the tests themselves.
//!
//! ```text
//! Bundle       a release for nodes: image and digest; variants of it, good ones and broken ones   bundle
//! Helm         helm as a user has it; and the repository's manifests with a run's own images       install
//! Wasmlet      WasmRuntimes, WasmNodes and labels: reading, patching, waiting                     wasmlet
//! Recorder     all that happened to nodes meanwhile, in order, for judging a rollout              recorder
//! ```

mod bundle;
mod install;
mod recorder;
mod wasmlet;

pub use bundle::{Bundle, BundleError, CRASHING_SHIM, Change, REFUSING_SHIM};
pub use install::{Helm, NAMESPACE, RELEASE, apply, manifest};
pub use recorder::{Recorder, Seen, What};
pub use wasmlet::{CHANGE, Part, Wasmlet};
