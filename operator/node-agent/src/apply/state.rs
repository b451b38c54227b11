//! What the agent remembers over its own restarts: `state.json` in its state folder.
//!
//! Losing it loses counters and which order was carried out, nothing that is needed to put a node back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wasmlet_api::NodeTarget;
use wasmlet_api::reasons::Reason;

use super::files::{self, FileError};

/// What the agent remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// The last order, carried out or not.
    pub last: Option<Order>,
    /// What was applied last, and is to be kept so.
    pub applied: Option<NodeTarget>,
    /// Folders that were made outside of our own, the uppermost first.
    pub made_folders: Vec<PathBuf>,
    /// How often containerd was restarted.
    pub restarts: i64,
    /// How often the node was put back.
    pub rollbacks: i64,
    /// How often something was repaired that somebody else had changed.
    pub repairs: i64,
    /// How long the last change took.
    pub last_change_millis: i64,
}

/// One order, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Its revision.
    pub revision: String,
    /// Its attempt.
    pub attempt: i64,
    /// How often it was begun: more than once if the agent was killed.
    pub begun: u32,
    /// How it ended; none: it has not.
    pub outcome: Option<Outcome>,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The node is as ordered.
    Applied,
    /// The node is as before; why.
    RolledBack(Reason, String),
    /// The node is neither; why.
    Broken(Reason, String),
    /// Nothing was touched; why.
    Refused(Reason, String),
}

/// The state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Of the file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not what an agent writes.
    #[error("{} cannot be understood: remove it, the agent then carries the current order out anew", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl State {
    /// Reads it; none is an empty one.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn read(folder: &Path) -> Result<Self, StateError> {
        let path = folder.join("state.json");
        match files::read(&path)? {
            None => Ok(Self::default()),
            Some(text) => {
                serde_json::from_slice(&text).map_err(|source| StateError::Parse { path, source })
            }
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn write(&self, folder: &Path) -> Result<(), StateError> {
        let mut text = serde_json::to_vec_pretty(self)
            .expect("a state has only strings, numbers and paths that are UTF-8");
        text.push(b'\n');
        Ok(files::write(
            &folder.join("state.json"),
            Some(&text),
            0o600,
        )?)
    }
}
