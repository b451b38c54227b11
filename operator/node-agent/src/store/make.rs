//! Makes a bundle from what `hack/build` built. The same inputs give the same bytes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use wasmlet_api::Digest;

use super::manifest::{Entry, FILE_NAME, FileMode, Manifest, ManifestError, SCHEMA};

/// The folders that are taken over; the probe's comes from this program.
const TAKEN: [&str; 2] = ["bin", "lib"];

/// Why a bundle could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
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
    /// There is something already.
    #[error("{path} exists: name a folder that does not, or remove it", path = .0.display())]
    Exists(PathBuf),
    /// Neither file, folder nor link.
    #[error("{path} is neither file, folder nor link, and cannot be in a bundle", path = .0.display())]
    Special(PathBuf),
    /// Not UTF-8.
    #[error("{path} has a name that is not UTF-8", path = .0.display())]
    Name(PathBuf),
    /// What was found makes no bundle.
    #[error("{from} makes no bundle: run hack/build first, and name the folder with bin and lib", from = .from.display())]
    Manifest {
        /// Where it was.
        from: PathBuf,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MakeError {
    let path = path.to_owned();
    move |source| MakeError::Io { what, path, source }
}

/// Makes a bundle in the folder `to`, which must not exist, from `bin` and `lib` in the folder `from`.
///
/// # Errors
/// [`MakeError`]; then `to` is not there.
pub fn make(from: &Path, to: &Path, version: &str, platform: &str) -> Result<Manifest, MakeError> {
    if to.symlink_metadata().is_ok() {
        return Err(MakeError::Exists(to.to_owned()));
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = to.with_file_name(name);
    if new.symlink_metadata().is_ok() {
        fs::remove_dir_all(&new).map_err(io("remove", &new))?;
    }
    let made = fill(from, &new, version, platform).and_then(|manifest| {
        fs::rename(&new, to)
            .map_err(io("rename", &new))
            .map(|()| manifest)
    });
    if made.is_err()
        && let Err(error) = fs::remove_dir_all(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %new.display(), %error, "cannot remove what was begun");
    }
    made
}

fn fill(from: &Path, to: &Path, version: &str, platform: &str) -> Result<Manifest, MakeError> {
    fs::create_dir_all(to).map_err(io("create", to))?;
    let mut entries = Vec::new();
    for top in TAKEN {
        let folder = from.join(top);
        if folder.symlink_metadata().is_ok() {
            take(&folder, &to.join(top), top, &mut entries)?;
        }
    }
    let probe = to.join("probe");
    fs::create_dir(&probe).map_err(io("create", &probe))?;
    place(&probe.join("probe.wasm"), super::PROBE, FileMode::Data)?;
    entries.push(file_entry(
        "probe/probe.wasm".to_owned(),
        super::PROBE,
        FileMode::Data,
    ));
    entries.sort_by(|a, b| a.path().cmp(b.path()));
    let manifest = Manifest {
        schema: SCHEMA,
        version: version.to_owned(),
        platform: platform.to_owned(),
        entries,
    };
    manifest.check().map_err(|source| MakeError::Manifest {
        from: from.to_owned(),
        source,
    })?;
    place(&to.join(FILE_NAME), &manifest.to_bytes(), FileMode::Data)?;
    Ok(manifest)
}

fn take(from: &Path, to: &Path, below: &str, entries: &mut Vec<Entry>) -> Result<(), MakeError> {
    fs::create_dir(to).map_err(io("create", to))?;
    set_mode(to, 0o755).map_err(io("set the mode of", to))?;
    for found in fs::read_dir(from).map_err(io("list", from))? {
        let found = found.map_err(io("list", from))?;
        let path = found.path();
        let name = found
            .file_name()
            .into_string()
            .map_err(|_| MakeError::Name(path.clone()))?;
        let inside = format!("{below}/{name}");
        let target = to.join(&name);
        let metadata = path.symlink_metadata().map_err(io("look at", &path))?;
        if metadata.is_dir() {
            take(&path, &target, &inside, entries)?;
        } else if metadata.is_symlink() {
            let says = fs::read_link(&path).map_err(io("read the link", &path))?;
            let says = says
                .into_os_string()
                .into_string()
                .map_err(|_| MakeError::Name(path.clone()))?;
            std::os::unix::fs::symlink(&says, &target).map_err(io("create the link", &target))?;
            entries.push(Entry::Link {
                path: inside,
                target: says,
            });
        } else if metadata.is_file() {
            let mode = if metadata.permissions().mode() & 0o100 == 0 {
                FileMode::Data
            } else {
                FileMode::Program
            };
            let bytes = fs::read(&path).map_err(io("read", &path))?;
            place(&target, &bytes, mode)?;
            entries.push(file_entry(inside, &bytes, mode));
        } else {
            return Err(MakeError::Special(path));
        }
    }
    Ok(())
}

fn file_entry(path: String, bytes: &[u8], mode: FileMode) -> Entry {
    Entry::File {
        path,
        mode,
        size: bytes.len() as u64,
        sha256: Digest::of(bytes).hex().to_owned(),
    }
}

fn place(path: &Path, bytes: &[u8], mode: FileMode) -> Result<(), MakeError> {
    fs::write(path, bytes).map_err(io("write", path))?;
    set_mode(path, mode.bits()).map_err(io("set the mode of", path))
}

/// chmod(2).
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::dist;

    #[test]
    fn the_same_inputs_make_the_same_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("dist");
        dist(&from);
        let one = make(&from, &dir.path().join("one"), "1.0.0", "linux/amd64").unwrap();
        let two = make(&from, &dir.path().join("two"), "1.0.0", "linux/amd64").unwrap();
        assert_eq!(one.digest(), two.digest());
        let bytes = fs::read(dir.path().join("one").join(FILE_NAME)).unwrap();
        assert_eq!(Digest::of(&bytes), one.digest());
        let paths: Vec<_> = one.entries.iter().map(Entry::path).collect();
        assert_eq!(
            paths,
            [
                "bin/containerd-shim-wasm-v1",
                "lib/engine/libx.so.1",
                "lib/engine/libx.so.1.2",
                "probe/probe.wasm"
            ]
        );
        let other = make(&from, &dir.path().join("three"), "1.0.1", "linux/amd64").unwrap();
        assert_ne!(one.digest(), other.digest());
    }

    #[test]
    fn a_folder_that_is_there_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("dist");
        dist(&from);
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        let error = make(&from, &to, "1.0.0", "linux/amd64").unwrap_err();
        assert!(matches!(error, MakeError::Exists(_)));
    }

    #[test]
    fn what_makes_no_bundle_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let error = make(dir.path(), &dir.path().join("to"), "1", "linux/amd64").unwrap_err();
        assert!(matches!(error, MakeError::Manifest { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
