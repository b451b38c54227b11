//! What can be asked of a container: the shim's interface, free of ttrpc.

use std::path::PathBuf;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::types::mount::Mount;

use super::queue::Verb;
use crate::options::Options;
use crate::reaper::Exit;
use crate::stdio::Streams;

/// A container to create.
#[derive(Debug)]
pub struct CreateRequest {
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// What to mount as its root file system.
    pub rootfs: Vec<Mount>,
    /// Its init's streams.
    pub streams: Streams,
    /// The node's options.
    pub options: Options,
}

/// Something for a container, or for one of its processes (`exec`; none is the init).
#[derive(Debug)]
pub enum Operation {
    /// Start a process.
    Start {
        /// Which.
        exec: Option<String>,
    },
    /// Forget a process; with the init, the container.
    Delete {
        /// Which.
        exec: Option<String>,
    },
    /// Freeze the container.
    Pause,
    /// Thaw the container.
    Resume,
    /// Send a signal.
    Kill {
        /// To which.
        exec: Option<String>,
        /// Number.
        signal: u32,
        /// To every process of the container.
        reach: Reach,
    },
    /// Change limits.
    Update {
        /// JSON of OCI's `LinuxResources`.
        resources: Vec<u8>,
    },
    /// Add a process.
    Exec {
        /// Its id.
        exec: String,
        /// JSON of OCI's `process`.
        spec: Vec<u8>,
        /// Its streams.
        streams: Streams,
    },
    /// Write the container to disk.
    Checkpoint {
        /// Where.
        path: PathBuf,
        /// Flags of `runc checkpoint`.
        flags: Vec<String>,
    },
    /// Set a terminal's size.
    ResizePty {
        /// Whose.
        exec: Option<String>,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Close standard input.
    CloseStdin {
        /// Whose.
        exec: Option<String>,
    },
    /// Report usage.
    Stats,
    /// Report processes.
    Pids,
}

/// How far a signal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// One process.
    Process,
    /// All of the container.
    Container,
}

impl Operation {
    /// The verb that the queue decides about, and the process it is for.
    pub fn verb(&self) -> (Verb, Option<&str>) {
        match self {
            Self::Start { exec } => (Verb::Start, exec.as_deref()),
            Self::Delete { exec } => (Verb::Delete, exec.as_deref()),
            Self::Pause => (Verb::Pause, None),
            Self::Resume => (Verb::Resume, None),
            Self::Kill { exec, .. } => (Verb::Kill, exec.as_deref()),
            Self::Update { .. } => (Verb::Update, None),
            Self::Exec { .. } => (Verb::Exec, None),
            Self::Checkpoint { .. } => (Verb::Checkpoint, None),
            Self::ResizePty { exec, .. } => (Verb::ResizePty, exec.as_deref()),
            Self::CloseStdin { exec } => (Verb::CloseIo, exec.as_deref()),
            Self::Stats => (Verb::Stats, None),
            Self::Pids => (Verb::Pids, None),
        }
    }
}

/// What comes of it.
#[derive(Debug)]
pub enum Answer {
    /// Done, and nothing to say.
    Done,
    /// A process id.
    Pid(u32),
    /// A process that was deleted.
    Deleted {
        /// Its process id; 0 when it never had one.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// Usage.
    Usage(Any),
    /// Processes: their ids, and the id of those that were added.
    Processes(Vec<(u32, Option<String>)>),
}
