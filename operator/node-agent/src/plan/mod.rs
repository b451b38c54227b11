//! What has to happen to a node: a pure function of its facts and of what it shall have.
//!
//! ```text
//!  HostFacts ─┐
//!             ├─ plan ─▶ Plan { before_restart, preflight, restart, expect, after_restart }  or  Refusal
//!  NodeTarget ┘
//! ```

mod containerd;
mod decide;
mod expect;
mod node_files;
mod place;
mod refusal;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use decide::plan;

pub use expect::Unmet;
pub use refusal::Refusal;
pub use show::Shown;

use crate::facts::HandlerConfig;

/// Folder in which a [`Candidate`] is laid out.
pub const PREFLIGHT: &str = "/var/lib/wasmlet/agent/preflight";

/// All that has to happen. A node that is as wanted has a plan in which [`Plan::is_nothing`].
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In this order, before the restart: settings and links first, containerd's configuration last. When the runtime is removed
    /// it is only containerd's configuration.
    pub before_restart: Vec<Change>,
    /// What to show containerd before its configuration is touched; none if it is not.
    pub preflight: Option<Candidate>,
    /// Whether containerd is restarted.
    pub restart: Restart,
    /// What must be true of the candidate, and then of the running containerd.
    pub expect: Expectations,
    /// In this order, after all that was verified: links and settings that nothing names any more.
    pub after_restart: Vec<Change>,
    /// Why it is so, a line each, for people.
    pub reasons: Vec<String>,
    /// Things to know that keep nothing from working, with their remedy.
    pub advice: Vec<String>,
    /// The file of containerd's that has our handlers afterwards, for the WasmNode; none if it has none.
    pub written_path: Option<PathBuf>,
    /// Version of the file that containerd loads.
    pub config_version: i64,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of a file.
    File(FileChange),
    /// Of a link in `/opt/wasmlet/runtimes`.
    Link(LinkChange),
}

/// A file gets other bytes, by a rename of a synced one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The file. Missing folders above it are made, 0755.
    pub path: PathBuf,
    /// What the facts had; if it is not so any more, the facts are too old, and nothing may be done. `None`: no file.
    pub before: Option<Vec<u8>>,
    /// What it shall be. `None`: no file.
    pub after: Option<Vec<u8>>,
    /// Permissions of a new file; one that is there keeps its own, and its owner.
    pub mode: u32,
    /// What becomes of its entry in [`crate::facts::Owned`].
    pub ownership: Ownership,
}

impl FileChange {
    /// Whether the file gets other bytes; else only its entry in the list changes.
    pub fn writes(&self) -> bool {
        self.before != self.after
    }
}

/// What becomes of a file's entry in the list of owned files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// It gets one, with these bytes as its original (`None`: there was no file).
    Keep(Option<Vec<u8>>),
    /// It loses it: nothing of ours is in it any more.
    Drop,
}

/// A link gets another end, by a rename.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkChange {
    /// The link.
    pub path: PathBuf,
    /// What the facts had.
    pub before: Option<PathBuf>,
    /// Where it shall lead, as written in it. `None`: no link.
    pub after: Option<PathBuf>,
}

/// A configuration to try. Each file goes to [`PREFLIGHT`] followed by its path; the imports in them are already written for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// By their paths on the host.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The one to run `config dump` with, by its path on the host.
    pub root: PathBuf,
    /// containerd's program.
    pub binary: PathBuf,
}

/// Whether containerd is restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restart {
    /// It is not: the running one has it all.
    No,
    /// It is.
    Unit {
        /// Which unit.
        name: String,
    },
    /// The distribution notices by itself; wait until the handlers are there.
    Watched,
}

/// What must be true of the candidate, and then of the running containerd.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expectations {
    /// Handlers of others, which must stay as they are.
    pub others: BTreeMap<String, HandlerConfig>,
    /// The image of pods' sandboxes, which must stay as it is; `None`: it was not known.
    pub sandbox_image: Option<String>,
    /// The handler of pods without a RuntimeClass.
    pub default_handler: Option<String>,
    /// Our handlers.
    pub ours: BTreeMap<String, HandlerConfig>,
    /// Names that may not be handlers any more.
    pub gone: BTreeSet<String>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_nothing(&self) -> bool {
        self.before_restart.is_empty()
            && self.after_restart.is_empty()
            && self.restart == Restart::No
    }
}
