//! Removes bundles that nothing uses any more.
//!
//! A shim holds a shared flock on its bundle's folder for as long as it lives, and containerd calls a dead shim's program once more, to clean
//! up after it, by `runtime_path`: the link, not the bundle. So a bundle goes when no runtime's link leads to it and an exclusive lock can be had.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use wasmlet_api::Digest;

use super::stage::{self, StageError};

/// Why old bundles could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[source] StageError),
    /// Of the file system.
    #[error("cannot {what} {path}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Gone.
    pub removed: Vec<Digest>,
    /// Not kept, and used by a shim.
    pub in_use: Vec<Digest>,
}

/// Removes the bundles that are not in `keep`, are at least this old, and that no shim holds.
///
/// # Errors
/// [`CollectError`]; what was removed until then stays removed.
pub fn collect(
    store: &Path,
    keep: &[Digest],
    min_age: Duration,
) -> Result<Collected, CollectError> {
    let mut collected = Collected::default();
    if !store.exists() {
        return Ok(collected);
    }
    let (folder, _lock) = stage::open_store(store).map_err(CollectError::Store)?;
    stage::remove_leftovers(&folder).map_err(CollectError::Store)?;
    let io = |what, path: PathBuf| move |source| CollectError::Io { what, path, source };
    for name in folder.list().map_err(io("list", store.to_owned()))? {
        let Some(digest) = bundle_name(&name) else {
            continue;
        };
        if keep.contains(&digest) {
            continue;
        }
        let path = store.join(&name);
        let inner = folder
            .folder(Path::new(&name))
            .map_err(io("open", path.clone()))?;
        if age(&path) < min_age {
            continue;
        }
        let descriptor = inner.descriptor().map_err(io("open", path.clone()))?;
        match Flock::lock(
            std::fs::File::from(descriptor),
            FlockArg::LockExclusiveNonblock,
        ) {
            Ok(_held) => {
                // Out of the way first: a shim that is being started finds all of it or nothing.
                let gone = PathBuf::from(format!(".{}.old", digest.hex()));
                folder
                    .rename(Path::new(&name), &gone)
                    .and_then(|()| folder.remove_all(&gone))
                    .and_then(|()| folder.sync())
                    .map_err(io("remove", path))?;
                collected.removed.push(digest);
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => collected.in_use.push(digest),
            Err((_, errno)) => return Err(io("lock", path)(errno.into())),
        }
    }
    Ok(collected)
}

/// Since it was renamed into its place. A clock that was set back makes it young.
fn age(path: &Path) -> Duration {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(metadata) = path.symlink_metadata() else {
        return Duration::ZERO;
    };
    let changed = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(changed)
}

/// The digest of which a name in the store is.
pub fn bundle_name(name: &std::ffi::OsStr) -> Option<Digest> {
    format!("sha256:{}", name.to_str()?).parse().ok()
}

/// Whether a store has bundles.
pub fn holds_bundles(store: &Path) -> bool {
    std::fs::read_dir(store).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| bundle_name(&entry.file_name()).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    fn bundle(store: &Path, text: &str) -> Digest {
        let digest = Digest::of(text.as_bytes());
        std::fs::create_dir_all(store.join(digest.hex()).join("bin")).unwrap();
        std::fs::write(store.join(digest.hex()).join("bin/shim"), text).unwrap();
        digest
    }

    #[test]
    fn what_is_kept_or_held_stays_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path();
        let (kept, held, old) = (bundle(store, "1"), bundle(store, "2"), bundle(store, "3"));
        std::fs::create_dir(store.join("not-a-bundle")).unwrap();
        let folder = Folder::open(&store.join(held.hex())).unwrap();
        let descriptor = std::fs::File::from(folder.descriptor().unwrap());
        let shim = Flock::lock(descriptor, FlockArg::LockSharedNonblock).unwrap();

        let young = collect(store, &[], Duration::from_secs(60)).unwrap();
        assert_eq!(young, Collected::default());
        let first = collect(store, std::slice::from_ref(&kept), Duration::ZERO).unwrap();
        assert_eq!(first.removed, std::slice::from_ref(&old));
        assert_eq!(first.in_use, std::slice::from_ref(&held));
        drop(shim);
        let second = collect(store, std::slice::from_ref(&kept), Duration::ZERO).unwrap();
        assert_eq!(second.removed, [held]);
        assert!(store.join(kept.hex()).join("bin/shim").exists());
        assert!(store.join("not-a-bundle").exists());
    }

    #[test]
    fn a_store_that_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        assert_eq!(
            collect(&store, &[], Duration::ZERO).unwrap(),
            Collected::default()
        );
        assert!(!store.exists());
    }
}
