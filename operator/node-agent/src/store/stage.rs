//! Brings a bundle to the node's store.
//!
//! Under the store's lock: compare the digest, copy every file with its hash on the way, fsync, read everything back from the new
//! folder, rename. A second one that waits for the lock finds the first one's result. What an interrupted one left is removed by the next.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use wasmlet_api::Digest;
use wasmlet_api::exit::StageExit;

use super::check::{self, CheckError};
use super::manifest::{Entry, FILE_NAME, FileMode, Manifest, host_platform};
use crate::folder::Folder;

/// Name of the lock in the store.
pub const LOCK: &str = ".lock";
/// Beside the bytes of the files, what a file system needs for them.
const SPARE_BYTES: u64 = 16 << 20;

/// Why a bundle is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// What was brought is not what was asked for, or cannot be read.
    #[error(
        "the bundle cannot be taken: spec.artifact.digest must be the digest of the bundle in spec.artifact.image"
    )]
    Source(#[source] CheckError),
    /// For other machines.
    #[error(
        "the bundle is for {found}, and this node is {host}: use an image with a bundle for it, and leave the node's architecture out of spec.artifact.architectures until then"
    )]
    Platform {
        /// The bundle's.
        found: String,
        /// The node's.
        host: String,
    },
    /// Not enough room.
    #[error("{store} has {free} bytes free and the bundle takes {needed}: make room on that file system", store = .store.display())]
    NoSpace {
        /// The store.
        store: PathBuf,
        /// As fstatvfs(3) says.
        free: u64,
        /// Files and what has to stay free.
        needed: u64,
    },
    /// Of the file system with the store.
    #[error("cannot {what} {path}{hint}", path = .path.display(), hint = hint(.source))]
    Write {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was written is not what was read.
    #[error(
        "what was copied to the store is not what was read: the disk or the memory of this node is not to be trusted"
    )]
    Copy(#[source] CheckError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room on that file system"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            ": the folder must be writable for root; a node with a read-only /opt cannot have wasmlet"
        }
        _ => "",
    }
}

impl StageError {
    /// The exit code of `wasmlet-node stage`.
    pub fn exit(&self) -> StageExit {
        match self {
            Self::Source(CheckError::Digest { .. }) => StageExit::DigestMismatch,
            Self::Source(_) => StageExit::BadBundle,
            Self::Platform { .. } => StageExit::WrongPlatform,
            Self::NoSpace { .. } => StageExit::NoSpace,
            Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StageExit::NoSpace,
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                    StageExit::NotWritable
                }
                _ => StageExit::Failed,
            },
            Self::Copy(_) => StageExit::Failed,
        }
    }
}

fn write(what: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> StageError {
    move |source| StageError::Write { what, path, source }
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Staged {
    /// It was copied.
    Copied,
    /// It was there, and was checked.
    Present,
    /// There was a folder of its name that was not the bundle; it was replaced.
    Repaired,
}

/// Opens the store, making it where it is missing, and waits for its lock.
///
/// # Errors
/// Of the file system.
pub fn open_store(path: &Path) -> Result<(Folder, Flock<File>), StageError> {
    let store = Folder::make(path).map_err(write("create", path.to_owned()))?;
    let lock = path.join(LOCK);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .map_err(write("open", lock.clone()))?;
    // Waits as long as another copies: that ends, or its process does, and the lock with it.
    let lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| write("lock", lock)(errno.into()))?;
    Ok((store, lock))
}

/// The digest of the bundle in a folder, without checking its files.
///
/// # Errors
/// [`CheckError`]
pub fn digest(from: &Path) -> Result<Digest, CheckError> {
    let source = Folder::open(from).map_err(check::io("open", from.to_owned()))?;
    let (_, bytes) = check::read_manifest(&source, None)?;
    Ok(Digest::of(&bytes))
}

/// Puts the bundle in the folder `from` into the store, if it is the one that is expected.
///
/// # Errors
/// [`StageError`]; then the store is as it was.
pub fn stage(from: &Path, store: &Path, expected: &Digest) -> Result<Staged, StageError> {
    let source = Folder::open(from)
        .map_err(check::io("open", from.to_owned()))
        .map_err(StageError::Source)?;
    let (manifest, bytes) =
        check::read_manifest(&source, Some(expected)).map_err(StageError::Source)?;
    let host = host_platform();
    if manifest.platform != host {
        return Err(StageError::Platform {
            found: manifest.platform,
            host,
        });
    }
    let (store, _lock) = open_store(store)?;
    remove_leftovers(&store)?;

    let name = PathBuf::from(expected.hex());
    let replaces = match store.folder(&name) {
        Ok(present) => match check::check(&present, expected) {
            Ok(_) => return Ok(Staged::Present),
            Err(error) => {
                tracing::warn!(%error, "a bundle in the store is damaged; it is replaced");
                true
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::warn!(%error, "there is something else in a bundle's place; it is replaced");
            true
        }
    };

    let needed = manifest.total_bytes().saturating_add(SPARE_BYTES);
    let free = store
        .free_bytes()
        .map_err(write("ask for the free space of", store.path().to_owned()))?;
    if free < needed {
        return Err(StageError::NoSpace {
            store: store.path().to_owned(),
            free,
            needed,
        });
    }
    let new = PathBuf::from(format!(".{}.new", expected.hex()));
    let done = copy(&source, &store, &new, &manifest, &bytes)
        .and_then(|()| publish(&store, &new, &name, replaces));
    if done.is_err()
        && let Err(error) = store.remove_all(&new)
    {
        tracing::warn!(%error, "cannot remove what was copied; the next stage does");
    }
    done.map(|()| {
        if replaces {
            Staged::Repaired
        } else {
            Staged::Copied
        }
    })
}

/// Names that begin with a dot are unfinished, or finished with; the lock is held, so they are nobody's.
pub(crate) fn remove_leftovers(store: &Folder) -> Result<(), StageError> {
    let names = store
        .list()
        .map_err(write("list", store.path().to_owned()))?;
    for name in names {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".") && bytes != LOCK.as_bytes() {
            store
                .remove_all(Path::new(&name))
                .map_err(write("remove", store.path().join(&name)))?;
        }
    }
    Ok(())
}

fn copy(
    source: &Folder,
    store: &Folder,
    new: &Path,
    manifest: &Manifest,
    bytes: &[u8],
) -> Result<(), StageError> {
    let to = store
        .subfolder(new)
        .map_err(write("create", store.path().join(new)))?;
    for entry in &manifest.entries {
        let inside = Path::new(entry.path());
        let path = to.path().join(inside);
        let (parent, name) = make_parents(&to, inside)?;
        match entry {
            Entry::Link { target, .. } => parent
                .link(&name, Path::new(target))
                .map_err(write("create the link", path))?,
            Entry::File {
                mode, size, sha256, ..
            } => {
                let from = source
                    .file(inside)
                    .map_err(check::io("open", source.path().join(inside)))
                    .map_err(StageError::Source)?;
                let mut file = parent
                    .create(&name, mode.bits())
                    .map_err(write("create", path.clone()))?;
                let (length, found) =
                    check::hash(from, &mut file).map_err(write("copy to", path.clone()))?;
                file.sync_all().map_err(write("write to the disk", path))?;
                let differs = |what, expected: String, found: String| {
                    Err(StageError::Source(CheckError::Differs {
                        path: source.path().join(inside),
                        what,
                        expected,
                        found,
                    }))
                };
                if length != *size {
                    return differs("its size", size.to_string(), length.to_string());
                }
                if found != *sha256 {
                    return differs("its SHA-256", sha256.clone(), found);
                }
            }
        }
    }
    let path = to.path().join(FILE_NAME);
    let mut file = to
        .create(Path::new(FILE_NAME), FileMode::Data.bits())
        .map_err(write("create", path.clone()))?;
    io::Write::write_all(&mut file, bytes)
        .and_then(|()| file.sync_all())
        .map_err(write("write", path))?;
    sync_folders(&to, Path::new(""), manifest)?;
    // Read back: what is renamed into place is right, whatever happened on the way.
    check::check_entries(&to, manifest, &[FILE_NAME]).map_err(StageError::Copy)
}

fn make_parents(to: &Folder, inside: &Path) -> Result<(Folder, PathBuf), StageError> {
    let mut at = to
        .folder(Path::new(""))
        .map_err(write("open", to.path().to_owned()))?;
    let mut parts: Vec<PathBuf> = inside.iter().map(PathBuf::from).collect();
    let name = parts.pop().unwrap_or_default();
    for part in parts {
        at = at
            .subfolder(&part)
            .map_err(write("create", at.path().join(&part)))?;
    }
    Ok((at, name))
}

fn sync_folders(to: &Folder, inside: &Path, manifest: &Manifest) -> Result<(), StageError> {
    let mut folders: Vec<PathBuf> = manifest
        .entries
        .iter()
        .flat_map(|entry| Path::new(entry.path()).ancestors().skip(1))
        .map(Path::to_owned)
        .collect();
    folders.push(inside.to_owned());
    folders.sort();
    folders.dedup();
    for folder in folders {
        to.folder(&folder)
            .and_then(|found| found.sync())
            .map_err(write("write to the disk", to.path().join(&folder)))?;
    }
    Ok(())
}

fn publish(store: &Folder, new: &Path, name: &Path, replaces: bool) -> Result<(), StageError> {
    if replaces {
        // Not in one step: what is moved away is of no use to anybody.
        let old = PathBuf::from(format!(".{}.damaged", name.display()));
        store
            .rename(name, &old)
            .map_err(write("move away", store.path().join(name)))?;
    }
    store
        .rename_new(new, name)
        .and_then(|()| store.sync())
        .map_err(write("rename to", store.path().join(name)))?;
    if replaces {
        remove_leftovers(store)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::make::{make, set_mode};
    use crate::store::testing::dist;
    use std::fs;

    struct Fixture {
        dir: tempfile::TempDir,
        digest: Digest,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            dist(&dir.path().join("dist"));
            let made = make(
                &dir.path().join("dist"),
                &dir.path().join("bundle"),
                "1.0.0",
                &host_platform(),
            );
            let digest = made.unwrap().digest();
            Self { dir, digest }
        }

        fn bundle(&self) -> PathBuf {
            self.dir.path().join("bundle")
        }

        fn store(&self) -> PathBuf {
            self.dir.path().join("opt/store")
        }

        fn staged(&self) -> PathBuf {
            self.store().join(self.digest.hex())
        }

        fn stage(&self) -> Result<Staged, StageError> {
            stage(&self.bundle(), &self.store(), &self.digest)
        }

        /// Nothing but finished bundles and the lock.
        #[track_caller]
        fn assert_store_is_clean(&self) {
            if !self.store().exists() {
                return;
            }
            for entry in fs::read_dir(self.store()).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(name == LOCK || !name.starts_with('.'), "left: {name}");
            }
        }
    }

    #[test]
    fn a_bundle_is_copied_once_and_checked_after() {
        let fixture = Fixture::new();
        assert_eq!(fixture.stage().unwrap(), Staged::Copied);
        let folder = Folder::open(&fixture.staged()).unwrap();
        check::check(&folder, &fixture.digest).unwrap();
        assert_eq!(fixture.stage().unwrap(), Staged::Present);
        fixture.assert_store_is_clean();
    }

    #[test]
    fn another_digest_is_refused_before_anything_is_written() {
        let mut fixture = Fixture::new();
        fixture.digest = Digest::of(b"another");
        let error = fixture.stage().unwrap_err();
        assert_eq!(error.exit(), StageExit::DigestMismatch);
        assert!(!fixture.store().exists());
    }

    #[test]
    fn a_file_that_was_changed_is_noticed_and_nothing_is_left() {
        let fixture = Fixture::new();
        let library = fixture.bundle().join("lib/engine/libx.so.1.2");
        let mut bytes = fs::read(&library).unwrap();
        bytes[1000] ^= 1;
        fs::write(&library, bytes).unwrap();
        let error = fixture.stage().unwrap_err();
        assert_eq!(error.exit(), StageExit::BadBundle);
        assert!(!fixture.staged().exists());
        fixture.assert_store_is_clean();
    }

    #[test]
    fn a_link_in_a_files_place_is_not_followed() {
        let fixture = Fixture::new();
        let library = fixture.bundle().join("lib/engine/libx.so.1.2");
        let elsewhere = fixture.dir.path().join("elsewhere");
        fs::rename(&library, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &library).unwrap();
        assert_eq!(fixture.stage().unwrap_err().exit(), StageExit::BadBundle);
        fixture.assert_store_is_clean();
    }

    #[test]
    fn a_damaged_bundle_in_the_store_is_replaced() {
        let fixture = Fixture::new();
        fixture.stage().unwrap();
        let added = fixture.staged().join("bin/added");
        fs::write(&added, "x").unwrap();
        assert_eq!(fixture.stage().unwrap(), Staged::Repaired);
        assert!(!added.exists());
        let shim = fixture.staged().join("bin").join(wasmlet_api::names::SHIM);
        set_mode(&shim, 0o4755).unwrap();
        assert_eq!(fixture.stage().unwrap(), Staged::Repaired);
        assert_eq!(fixture.stage().unwrap(), Staged::Present);
        fixture.assert_store_is_clean();
    }

    #[test]
    fn a_bundle_for_other_machines_is_refused() {
        let mut fixture = Fixture::new();
        let bundle = fixture.dir.path().join("other");
        let made = make(
            &fixture.dir.path().join("dist"),
            &bundle,
            "1",
            "linux/s390x",
        );
        fixture.digest = made.unwrap().digest();
        let error = stage(&bundle, &fixture.store(), &fixture.digest).unwrap_err();
        assert_eq!(error.exit(), StageExit::WrongPlatform);
    }

    #[test]
    fn what_an_interrupted_one_left_is_removed() {
        let fixture = Fixture::new();
        let left = fixture
            .store()
            .join(format!(".{}.new", fixture.digest.hex()));
        fs::create_dir_all(left.join("bin")).unwrap();
        fs::write(left.join("bin/half"), "x").unwrap();
        assert_eq!(fixture.stage().unwrap(), Staged::Copied);
        fixture.assert_store_is_clean();
        assert!(!fixture.staged().join("bin/half").exists());
    }

    #[test]
    fn two_at_a_time_do_not_disturb_each_other() {
        let fixture = Fixture::new();
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| fixture.stage().unwrap()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let copied = outcomes.iter().filter(|o| **o == Staged::Copied).count();
        assert_eq!(copied, 1, "{outcomes:?}");
        fixture.assert_store_is_clean();
    }
}
