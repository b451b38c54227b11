//! What a node is, before anything is decided: read, never written.
//!
//! ```text
//!  files below a root ─┐
//!                      ├─ gather ─▶ HostFacts ─▶ plan, doctor (both pure)
//!  Live: systemd, CRI ─┘
//! ```
//!
//! [`Live`] is what the file system does not tell; a node's is in `host`, that of a recorded node is `recorded`.

mod bundle;
pub mod effective;
mod gather;
mod live;
mod os;
mod owned;
mod recognise;
mod recorded;
mod running;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use wasmlet_api::Digest;

pub use effective::{Effective, EffectiveError, HandlerConfig};
pub use gather::{Choices, DROP_IN, FactsError, gather};
pub use live::{Active, CriAnswer, Dump, Live, LiveError, Unit};
pub use os::OsRelease;
pub use owned::{ORIGINALS, OWNED, Owned, OwnedError, OwnedFile};
pub use recorded::{Recorded, RecordedError};
pub use running::{Running, RunningError};
pub use version::Version;

use crate::layout::Layout;

/// All that is known about a node.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The operating system.
    pub os: OsRelease,
    /// The processor's architecture as OCI names it: `amd64`, `arm64`, …
    pub architecture: String,
    /// Where things are.
    pub layout: Layout,
    /// The unit that `layout` names.
    pub unit: Unit,
    /// containerd's version; of the running one if it runs.
    pub containerd: Version,
    /// containerd's own program on the node.
    pub binary: PathBuf,
    /// Files that decide what containerd does, and what is written to: the one it loads, all that it imports, the template.
    /// One that is looked for and missing is there with `None`.
    pub files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// `*.toml` beside the file that containerd loads, or in a folder `*.d` there, which it does not read.
    pub bystanders: BTreeMap<PathBuf, Vec<u8>>,
    /// Those of `files` that are symbolic links, and where they lead.
    pub symlinks: BTreeMap<PathBuf, PathBuf>,
    /// What `containerd config dump` makes of the files as they are. `None`: it could not be had, for the reason.
    pub effective: Result<Effective, String>,
    /// What the running containerd has loaded.
    pub running: Result<Running, String>,
    /// Settings files of handlers: all `*.toml` in `/etc/wasmlet`, by path.
    pub settings: BTreeMap<PathBuf, Vec<u8>>,
    /// Links in `/opt/wasmlet/runtimes`, by handler: where each leads, as written in it.
    pub links: BTreeMap<String, PathBuf>,
    /// Bundles in the store.
    pub bundles: BTreeMap<Digest, Bundle>,
    /// What the agent wrote before, and what was there then.
    pub owned: Owned,
    /// Other container runtimes of CRI that run on the node: `crio.service`, …
    pub other_runtimes: BTreeSet<String>,
}

/// A bundle in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bundle {
    /// Its `bundle.json` is what its name says.
    Listed {
        /// The version of the programs.
        version: String,
        /// Platform, for example `linux/amd64`.
        platform: String,
        /// What the shim's program is.
        shim: Shim,
    },
    /// It cannot be used, for the reason.
    Broken(String),
}

/// The shim's program in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shim {
    /// A program for this architecture (as OCI names it), executable by root.
    Program {
        /// `amd64`, `arm64`, …
        architecture: String,
    },
    /// It is not there.
    Missing,
    /// There is a file without permission to execute it; its mode.
    NotExecutable(u32),
    /// There is something else.
    NoProgram(String),
}
