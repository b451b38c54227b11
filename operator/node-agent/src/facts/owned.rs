//! What the agent wrote on the node, and what was there before.
//!
//! `/var/lib/wasmlet/agent/owned.json` lists the files of containerd that the agent has changed; the bytes from before are in
//! `originals/`, named by their digest. Only [`crate::apply`] writes them, after what they are about is on the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wasmlet_api::Digest;

/// The list's path.
pub const OWNED: &str = "/var/lib/wasmlet/agent/owned.json";
/// Folder of the bytes from before: `<64 hexadecimal digits>`.
pub const ORIGINALS: &str = "/var/lib/wasmlet/agent/originals";

/// Files of others that the agent has changed, or files it has made, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// By path.
    pub files: BTreeMap<PathBuf, OwnedFile>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFile {
    /// What was there before the agent, byte for byte; `None`: nothing.
    pub original: Option<Vec<u8>>,
    /// Digest of what the agent wrote last. A file with another one was changed by somebody else since.
    pub written: Digest,
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnedError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The list is not what an agent writes.
    #[error(
        "{OWNED} cannot be understood; if no agent of another version wrote it, the disk lost it: move it away, then the agent takes out its tables without the bytes from before"
    )]
    Parse(#[source] serde_json::Error),
    /// The bytes from before are not those that were there.
    #[error("{} does not have the digest that is its name: move {OWNED} away, then the agent takes out its tables without the bytes from before", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The list as it is on the disk.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    files: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// `None`: there was no file.
    original: Option<Digest>,
    written: Digest,
}

impl Owned {
    /// Reads it from below a root (`/` on a node); none is an empty one.
    pub fn read(root: &Path) -> Result<Self, OwnedError> {
        let Some(text) = read(&below(root, Path::new(OWNED)))? else {
            return Ok(Self::default());
        };
        let list: List = serde_json::from_slice(&text).map_err(OwnedError::Parse)?;
        let mut files = BTreeMap::new();
        for (path, entry) in list.files {
            let original = match entry.original {
                None => None,
                Some(digest) => {
                    let file = below(root, &Path::new(ORIGINALS).join(digest.hex()));
                    match read(&file)? {
                        Some(bytes) if Digest::of(&bytes) == digest => Some(bytes),
                        _ => return Err(OwnedError::Damaged { path: file }),
                    }
                }
            };
            let written = entry.written;
            files.insert(path, OwnedFile { original, written });
        }
        Ok(Self { files })
    }

    /// The list's text; the originals go into [`ORIGINALS`] first.
    pub fn to_json(&self) -> Vec<u8> {
        let files = self
            .files
            .iter()
            .map(|(path, file)| {
                let original = file.original.as_deref().map(Digest::of);
                let written = file.written.clone();
                (path.clone(), Entry { original, written })
            })
            .collect();
        let mut text = serde_json::to_vec_pretty(&List { files })
            .expect("a list has only paths that are UTF-8 and digests");
        text.push(b'\n');
        text
    }
}

/// A path of the host below a root.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, OwnedError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OwnedError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Owned {
        let file = |original: Option<&[u8]>| OwnedFile {
            original: original.map(<[u8]>::to_vec),
            written: Digest::of(b"written"),
        };
        Owned {
            files: BTreeMap::from([
                ("/etc/containerd/config.toml".into(), file(Some(b"before"))),
                ("/etc/containerd/conf.d/99-wasmlet.toml".into(), file(None)),
            ]),
        }
    }

    fn written_below(root: &Path, owned: &Owned) {
        let folder = below(root, Path::new(ORIGINALS));
        std::fs::create_dir_all(&folder).unwrap();
        for file in owned.files.values() {
            if let Some(bytes) = &file.original {
                std::fs::write(folder.join(Digest::of(bytes).hex()), bytes).unwrap();
            }
        }
        std::fs::write(below(root, Path::new(OWNED)), owned.to_json()).unwrap();
    }

    #[test]
    fn what_was_written_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        written_below(root.path(), &example());
        assert_eq!(Owned::read(root.path()).unwrap(), example());
    }

    #[test]
    fn a_node_without_a_list_owns_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Owned::read(root.path()).unwrap(), Owned::default());
    }

    #[test]
    fn bytes_that_changed_are_not_given_back() {
        let root = tempfile::tempdir().unwrap();
        written_below(root.path(), &example());
        let file = below(root.path(), Path::new(ORIGINALS)).join(Digest::of(b"before").hex());
        for damage in [Some("befor3"), None] {
            match damage {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let error = Owned::read(root.path()).unwrap_err();
            assert!(
                matches!(&error, OwnedError::Damaged { path } if path == &file),
                "{error}"
            );
        }
    }
}
