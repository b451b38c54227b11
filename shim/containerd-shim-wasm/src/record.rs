//! What `delete` must know when the shim that knew it is dead.
//!
//! One small JSON file per container below [`crate::paths`], written before the container exists and
//! again when its init is known; gone with the container.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A container on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who set it up.
    pub backend: BackendRecord,
    /// Where the shim mounted its root file system; none when the bundle brought one.
    pub mount_point: Option<PathBuf>,
    /// Its init; none while it is being created.
    pub init: Option<Init>,
}

/// Who set a container up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum BackendRecord {
    /// A runner.
    Runner {
        /// The program.
        program: PathBuf,
    },
    /// runc.
    Runc {
        /// The program.
        program: PathBuf,
        /// The systemd cgroup driver was asked for.
        systemd_cgroup: bool,
    },
}

/// A process, told apart from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Process id.
    pub pid: i32,
    /// Clock ticks after boot at which it was started: field 22 of `/proc/PID/stat` (proc(5)).
    pub start_time: u64,
}

impl Init {
    /// Looks a living process up.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = start_time(&stat)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))?;
        Ok(Self { pid, start_time })
    }

    /// Whether it still lives.
    pub fn lives(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

/// Where a record is until it is complete.
fn half(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// The name in field 2 may hold spaces and parentheses, so count from the last one.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// A record cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Writing failed.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl Record {
    /// Writes the record; a reader sees the old one or the new one.
    ///
    /// # Errors
    /// When the disk is full or the folder is missing.
    pub fn save(&self, path: &Path) -> Result<(), RecordError> {
        let next = half(path);
        let attempt = || -> io::Result<()> {
            let bytes = serde_json::to_vec(self)?;
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&next)?;
            io::Write::write_all(&mut file, &bytes)?;
            std::fs::rename(&next, path)
        };
        attempt().map_err(|source| {
            // What is half written must not be taken for a record; it goes with the folder.
            let _ = std::fs::remove_file(&next);
            RecordError::Write {
                path: path.to_owned(),
                source,
            }
        })
    }

    /// Removes a record, and what a shim has left that was killed while it wrote one. None is fine.
    ///
    /// # Errors
    /// When there is one that cannot be removed.
    pub fn remove(path: &Path) -> io::Result<()> {
        for file in [&half(path), path] {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads a record; `None` when there is none.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn load(path: &Path) -> Result<Option<Self>, RecordError> {
        let read = || -> io::Result<Self> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
        match read() {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_went() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("c.json");
        assert_eq!(Record::load(&path).expect("fine"), None);
        let record = Record {
            backend: BackendRecord::Runner {
                program: "/opt/run".into(),
            },
            mount_point: Some("/b/rootfs".into()),
            init: Some(Init {
                pid: 5,
                start_time: 9,
            }),
        };
        record.save(&path).expect("saved");
        assert_eq!(Record::load(&path).expect("fine"), Some(record));
    }

    #[test]
    fn a_record_goes_with_the_half_of_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("c.json");
        Record::remove(&path).expect("none is fine");
        std::fs::write(&path, "{}").expect("written");
        std::fs::write(half(&path), "{").expect("written");
        Record::remove(&path).expect("removed");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = Init::of(i32::try_from(std::process::id()).expect("fits")).expect("alive");
        assert!(me.lives());
        assert!(
            !Init {
                start_time: me.start_time + 1,
                ..me
            }
            .lives()
        );
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(start_time(stat), Some(4242));
    }
}
