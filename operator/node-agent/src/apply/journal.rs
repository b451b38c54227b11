//! The journal: what an interrupted change has to be taken back to, on the disk before anything is touched.
//!
//! ```text
//!            begin                restarting             committed
//!  (none) ──────────▶ Writing ──────────────▶ Restarting ─────────▶ Committed ──▶ (none)
//!                        │                        │                     │
//!        killed here:    └── bytes back           └── bytes back,       └── finish forward
//!                                                     one restart
//! ```
//!
//! `journal/entry.json` is replaced by a rename at every arrow; the bytes of files are beside it, named by their digest. An entry is there,
//! or not: its folder is filled as `journal.new` and renamed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wasmlet_api::Digest;

use super::files::{self, FileError};

/// Name of the entry's file.
const ENTRY: &str = "entry.json";

/// How far the change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Files are being changed; containerd has not been restarted.
    Writing,
    /// containerd is being restarted, or has been, and is not verified.
    Restarting,
    /// All is verified; what is left is tidying.
    Committed,
}

/// A change that is going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// How far it is.
    pub stage: Stage,
    /// What was ordered.
    pub revision: String,
    /// Which attempt.
    pub attempt: i64,
    /// In the order in which they are made.
    pub before_restart: Vec<Recorded>,
    /// Likewise, after [`Stage::Committed`].
    pub after_restart: Vec<Recorded>,
    /// Folders that the change makes.
    pub made_folders: Vec<PathBuf>,
    /// The unit that is restarted; none: none is.
    pub unit: Option<String>,
    /// containerd's socket.
    pub socket: PathBuf,
    /// Handlers of the containerd that ran before; none: it was not known.
    pub handlers: Option<BTreeSet<String>>,
    /// The list of owned files when all is done.
    pub owned: Digest,
    /// Originals that the list names.
    pub originals: Vec<Digest>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recorded {
    /// Of a file; the bytes are beside the entry.
    File {
        /// Which.
        path: PathBuf,
        /// None: no file.
        before: Option<Digest>,
        /// None: no file.
        after: Option<Digest>,
        /// Permissions of a new file.
        mode: u32,
    },
    /// Of a link.
    Link {
        /// Which.
        path: PathBuf,
        /// None: no link.
        before: Option<PathBuf>,
        /// None: no link.
        after: Option<PathBuf>,
    },
}

impl Recorded {
    /// The file or link.
    pub fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } => path,
        }
    }
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Of the file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not what an agent writes.
    #[error("{} cannot be understood: an agent of another version wrote it, or the disk lost it; put containerd's configuration in order by hand, then remove that folder", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Bytes are not what their name says.
    #[error("{} does not have the digest that is its name: the disk lost it; put containerd's configuration in order by hand, then remove that folder", .0.display())]
    Damaged(PathBuf),
}

/// The folder of the journal.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// In the agent's state folder.
    pub fn new(state: &Path) -> Self {
        Self {
            folder: state.join("journal"),
        }
    }

    /// The change that is going on, if one is.
    ///
    /// # Errors
    /// [`JournalError`]
    pub fn read(&self) -> Result<Option<Entry>, JournalError> {
        let path = self.folder.join(ENTRY);
        let Some(text) = files::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| JournalError::Parse { path, source })
    }

    /// Writes a new entry with its bytes.
    ///
    /// # Errors
    /// [`JournalError`]; then there is no entry.
    pub fn begin<'a>(
        &self,
        entry: &Entry,
        blobs: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), JournalError> {
        let new = self.folder.with_extension("new");
        remove_folder(&new)?;
        // Of an entry whose end was interrupted.
        remove_folder(&self.folder)?;
        for bytes in blobs {
            let path = new.join(Digest::of(bytes).hex());
            files::write(&path, Some(bytes), 0o600)?;
        }
        files::write(&new.join(ENTRY), Some(&text(entry)), 0o600)?;
        std::fs::rename(&new, &self.folder).map_err(FileError::io("rename", &new))?;
        sync_parent(&self.folder)?;
        Ok(())
    }

    /// Says how far the change is.
    ///
    /// # Errors
    /// [`JournalError`]; then it is as far as before.
    pub fn advance(&self, entry: &mut Entry, stage: Stage) -> Result<(), JournalError> {
        let mut new = entry.clone();
        new.stage = stage;
        files::write(&self.folder.join(ENTRY), Some(&text(&new)), 0o600)?;
        *entry = new;
        Ok(())
    }

    /// Bytes of the entry.
    ///
    /// # Errors
    /// [`JournalError`]
    pub fn bytes(&self, digest: &Digest) -> Result<Vec<u8>, JournalError> {
        let path = self.folder.join(digest.hex());
        match files::read(&path)? {
            Some(bytes) if Digest::of(&bytes) == *digest => Ok(bytes),
            _ => Err(JournalError::Damaged(path)),
        }
    }

    /// The change is over.
    ///
    /// # Errors
    /// [`JournalError`]
    pub fn end(&self) -> Result<(), JournalError> {
        // The entry first: a folder without it is no change.
        files::write(&self.folder.join(ENTRY), None, 0)?;
        remove_folder(&self.folder)?;
        Ok(())
    }
}

fn text(entry: &Entry) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(entry)
        .expect("an entry has only paths that are UTF-8, numbers and digests");
    text.push(b'\n');
    text
}

fn remove_folder(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::io("remove", path)(source)),
    }
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    crate::folder::Folder::open(parent)
        .and_then(|folder| folder.sync())
        .map_err(FileError::io("write to the disk", parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            stage: Stage::Writing,
            revision: "r".into(),
            attempt: 1,
            before_restart: vec![Recorded::File {
                path: "/etc/x".into(),
                before: Some(Digest::of(b"before")),
                after: None,
                mode: 0o644,
            }],
            after_restart: vec![],
            made_folders: vec![],
            unit: Some("containerd.service".into()),
            socket: "/run/x".into(),
            handlers: None,
            owned: Digest::of(b"owned"),
            originals: vec![],
        }
    }

    #[test]
    fn an_entry_is_there_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        assert_eq!(journal.read().unwrap(), None);
        let mut entry = entry();
        journal.begin(&entry, [&b"before"[..]]).unwrap();
        assert_eq!(journal.read().unwrap().unwrap(), entry);
        assert_eq!(journal.bytes(&Digest::of(b"before")).unwrap(), b"before");
        journal.advance(&mut entry, Stage::Restarting).unwrap();
        assert_eq!(journal.read().unwrap().unwrap().stage, Stage::Restarting);
        journal.end().unwrap();
        assert_eq!(journal.read().unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_journal_is_an_error_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        journal.begin(&entry(), [&b"before"[..]]).unwrap();
        let blob = dir.path().join("journal").join(Digest::of(b"before").hex());
        std::fs::write(&blob, "befor3").unwrap();
        assert!(matches!(
            journal.bytes(&Digest::of(b"before")),
            Err(JournalError::Damaged(_))
        ));
        std::fs::write(dir.path().join("journal/entry.json"), "{").unwrap();
        assert!(matches!(journal.read(), Err(JournalError::Parse { .. })));
    }
}
