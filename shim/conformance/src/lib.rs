//! Root tests of the shim through real containerd, the CRI and raw ttrpc, without Kubernetes.
//!
//! This library is the harness; the tests are in `tests/suite/`, one file per topic, and the
//! programs that run inside the containers under test are in `tests/guests/`, one per behaviour.
//!
//! ```text
//! Node      a private containerd of one version: own root, state, sockets, config     node/
//!  ├ Ctx    one test on one node and one runtime; checks for leaks at its end         ctx, oracle
//!  │  └ Task   a container and its task through containerd's client API               task, spec, stdio
//!  ├ Cri    pods through the CRI of the same containerd                               cri
//!  └ Raw    one shim's own socket, task service v2 or v3                              raw
//! ```
//!
//! Every behavioural test is generic over [`Runtime`]: it runs on the shim under test with wasm
//! guests and on `io.containerd.runc.v2` with the same C programs compiled for Linux. What fails on
//! runc is a wrong test.
//!
//! Set-up that fails ends the test by a panic that says what and where; what a test judges comes
//! back as a value.

mod client;
mod cri;
mod ctx;
mod engine_tool;
mod events;
mod images;
mod netns;
mod node;
mod oracle;
pub mod proc;
mod raw;
mod runtime;
mod spec;
mod stdio;
mod task;
mod tmpfs;
mod version;
mod wait;

pub use client::{Status, status_name};
pub use cri::{Cri, Pod, PodContainer};
pub use ctx::Ctx;
pub use engine_tool::{EngineTool, Ran};
pub use events::{Event, EventLog};
pub use images::{Image, ImageForm};
pub use netns::NetNs;
pub use node::{NAMESPACE, Node, NodeOptions, bin_dir, sweep_stale};
pub use oracle::{Oracle, Residue};
pub use raw::{Raw, Refusal, Service, socket_path};
pub use runtime::Runtime;
pub use spec::SpecBuilder;
pub use stdio::{Fifos, Reader};
pub use task::{Exit, Task, TaskOptions};
pub use tmpfs::Tmpfs;
pub use version::{Version, VersionError};
pub use wait::{LONG, SHORT, eventually, wait_for};
pub use wasmlet_test_guests::{GuestError, Guests, Target};

/// `WASMLET_REQUIRE=1`: what would be skipped for lack of something fails instead.
pub fn skips_are_failures() -> bool {
    std::env::var_os("WASMLET_REQUIRE").is_some_and(|value| value == "1")
}
