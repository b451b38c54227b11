//! A node that was recorded: a folder with its files, and `recorded.json` with what systemd and containerd answered.
//!
//! For `wasmlet-node plan --root DIR`, and for the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::live::{CriAnswer, Dump, Live, LiveError, Unit};
use super::owned::below;

/// Name of the file in the folder.
const FILE: &str = "recorded.json";

/// The answers of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recorded {
    /// `uname -m`.
    pub machine: String,
    /// Its units; `None`: it has no systemd.
    pub units: Option<Vec<Unit>>,
    /// `containerd --version`.
    #[serde(default)]
    pub version: Option<String>,
    /// CRI's answer; none: containerd does not run.
    #[serde(default)]
    pub cri: Option<CriAnswer>,
    /// `config dump`: a file of the folder, by the path of the configuration.
    #[serde(default)]
    pub dumps: BTreeMap<PathBuf, PathBuf>,
    /// The folder itself; set by [`Recorded::read`].
    #[serde(skip)]
    pub root: PathBuf,
}

/// Why a recorded node cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// No file, or not readable.
    #[error("{} cannot be read: a recorded node is a folder with its files and {FILE}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not of this form.
    #[error("{} cannot be understood", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Recorded {
    /// Reads it.
    ///
    /// # Errors
    /// [`RecordedError`]
    pub fn read(root: &Path) -> Result<Self, RecordedError> {
        let path = root.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(source) => return Err(RecordedError::Read { path, source }),
        };
        let mut recorded: Self = serde_json::from_slice(&text)
            .map_err(|source| RecordedError::Parse { path, source })?;
        root.clone_into(&mut recorded.root);
        Ok(recorded)
    }
}

impl Live for Recorded {
    async fn units(&self, names: &[&str]) -> Result<Vec<Unit>, LiveError> {
        let units = self.units.as_ref().ok_or_else(|| {
            LiveError::NoSystemd("this node was recorded without systemd".to_owned())
        })?;
        Ok(units
            .iter()
            .filter(|unit| names.contains(&unit.name.as_str()))
            .cloned()
            .collect())
    }

    async fn cri(&self, socket: &Path) -> Result<CriAnswer, LiveError> {
        self.cri.clone().ok_or_else(|| LiveError::NoCri {
            socket: socket.display().to_string(),
            cause: "this node was recorded while containerd did not run".to_owned(),
        })
    }

    async fn version(&self, program: &Path) -> Result<String, LiveError> {
        let version = self.version.clone();
        version.ok_or_else(|| LiveError::NotRecorded(format!("{} --version", program.display())))
    }

    async fn dump(&self, program: &Path, config: &Path) -> Result<Dump, LiveError> {
        let command = format!(
            "{} --config {} config dump",
            program.display(),
            config.display()
        );
        let Some(file) = self.dumps.get(config) else {
            return Err(LiveError::NotRecorded(command));
        };
        match std::fs::read_to_string(below(&self.root, file)) {
            Ok(text) => Ok(Dump { text }),
            Err(error) => Err(LiveError::Command {
                command,
                cause: format!("{}: {error}", file.display()),
            }),
        }
    }

    async fn machine(&self) -> Result<String, LiveError> {
        Ok(self.machine.clone())
    }
}
