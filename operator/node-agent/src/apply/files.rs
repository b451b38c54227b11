//! Files and links of the host, changed so that a power cut leaves the old or the new, never half of one: written beside, fsync, rename,
//! fsync of the folder.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::FileStat;
use nix::unistd::{Gid, Uid, fchown};

use crate::folder::{Folder, Kind};

/// End of the name of a file that is being written. No pattern in `imports` matches it.
const UNFINISHED: &str = ".wasmlet-new";

/// Why a file of the host was not changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Of the file system.
    #[error("cannot {what} {}{}", path.display(), hint(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A rename would replace the link, not the file.
    #[error("{} is a {kind:?}, and only a regular file is changed: name the file itself where the link is used, or replace the link by a copy of the file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What is there.
        kind: Kind,
    },
    /// It has no folder.
    #[error("{} has no folder", .0.display())]
    NoFolder(PathBuf),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room on that file system"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ": the node's file system is read-only there; mount it writable, or use a node image with wasmlet inside"
        }
        io::ErrorKind::PermissionDenied => {
            ": it must belong to root, and the agent's pod must mount its folder writable"
        }
        _ => "",
    }
}

impl FileError {
    /// For map_err.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// What a file is, with its bytes. `None`: there is none.
///
/// # Errors
/// [`FileError`]
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(FileError::io("read", path)(source)),
    }
}

/// Where a link leads, as written in it. `None`: there is nothing.
///
/// # Errors
/// [`FileError`]
pub fn read_link(path: &Path) -> Result<Option<PathBuf>, FileError> {
    match std::fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(FileError::io("read the link", path)(source)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Makes a file have these bytes, or not be there. One that is there keeps its mode and owner; a new one gets `mode` and is root's.
/// Folders above it are made.
///
/// # Errors
/// [`FileError`]; then the file is as it was.
pub fn write(path: &Path, bytes: Option<&[u8]>, mode: u32) -> Result<(), FileError> {
    let Some(bytes) = bytes else {
        return remove(path);
    };
    let (folder, name) = open_parent(path)?;
    let old = stat(&folder, &name, path)?;
    let new = PathBuf::from(format!(".{}{UNFINISHED}", name.display()));
    folder
        .remove_all(&new)
        .map_err(FileError::io("remove what was left beside", path))?;
    let written = fill(&folder, &new, bytes, mode, old.as_ref())
        .map_err(FileError::io("write beside", path))
        .and_then(|()| {
            folder
                .rename(&new, &name)
                .and_then(|()| folder.sync())
                .map_err(FileError::io("replace", path))
        });
    if written.is_err()
        && let Err(error) = folder.remove_all(&new)
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove what was written beside it");
    }
    written
}

fn fill(
    folder: &Folder,
    new: &Path,
    bytes: &[u8],
    mode: u32,
    old: Option<&FileStat>,
) -> io::Result<()> {
    let mode = old.map_or(mode, |old| old.st_mode & 0o7777);
    let mut file = folder.create(new, mode)?;
    if let Some(old) = old
        && (old.st_uid, old.st_gid) != (Uid::effective().as_raw(), Gid::effective().as_raw())
    {
        // Needs CAP_CHOWN, which the agent does not have: a containerd configuration that is not root's is an accident.
        fchown(
            &file,
            Some(Uid::from_raw(old.st_uid)),
            Some(Gid::from_raw(old.st_gid)),
        )?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove(path: &Path) -> Result<(), FileError> {
    if path.parent().is_some_and(|parent| !parent.exists()) {
        return Ok(());
    }
    let (folder, name) = open_parent(path)?;
    stat(&folder, &name, path)?;
    folder
        .remove_all(&name)
        .and_then(|()| folder.sync())
        .map_err(FileError::io("remove", path))
}

/// What is there; only regular files are replaced or removed.
fn stat(folder: &Folder, name: &Path, path: &Path) -> Result<Option<FileStat>, FileError> {
    match folder.stat(name) {
        Ok(stat) if Kind::of(&stat) == Kind::File => Ok(Some(stat)),
        Ok(stat) => Err(FileError::NotRegular {
            path: path.to_owned(),
            kind: Kind::of(&stat),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::io("look at", path)(source)),
    }
}

/// Makes a link lead elsewhere, or not be there.
///
/// # Errors
/// [`FileError`]; then the link is as it was.
pub fn link(path: &Path, target: Option<&Path>) -> Result<(), FileError> {
    if target.is_none() && path.parent().is_some_and(|parent| !parent.exists()) {
        return Ok(());
    }
    let (folder, name) = open_parent(path)?;
    match folder.stat(&name) {
        Ok(stat) if Kind::of(&stat) != Kind::Link => {
            return Err(FileError::NotRegular {
                path: path.to_owned(),
                kind: Kind::of(&stat),
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(FileError::io("look at", path)(source)),
    }
    let Some(target) = target else {
        return folder
            .remove_all(&name)
            .and_then(|()| folder.sync())
            .map_err(FileError::io("remove", path));
    };
    let new = PathBuf::from(format!(".{}{UNFINISHED}", name.display()));
    folder
        .remove_all(&new)
        .and_then(|()| folder.link(&new, target))
        .and_then(|()| folder.rename(&new, &name))
        .and_then(|()| folder.sync())
        .map_err(FileError::io("replace the link", path))
}

/// Removes a folder if it is empty; whether it is gone.
///
/// # Errors
/// [`FileError`]
pub fn remove_empty(path: &Path) -> Result<bool, FileError> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        // A mount of the agent's pod.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(source) => Err(FileError::io("remove", path)(source)),
    }
}

/// The folders above a path that are missing, the uppermost first.
pub fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

fn open_parent(path: &Path) -> Result<(Folder, PathBuf), FileError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(FileError::NoFolder(path.to_owned()));
    };
    for missing in missing_folders(path) {
        std::fs::create_dir(&missing)
            .and_then(|()| {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::set_permissions(&missing, std::fs::Permissions::from_mode(0o755))
            })
            .map_err(FileError::io("create", &missing))?;
        if let Some(above) = missing.parent() {
            Folder::open(above)
                .and_then(|folder| folder.sync())
                .map_err(FileError::io("write to the disk", above))?;
        }
    }
    // A folder may be a link of the administrator's; which one it is is decided here, once.
    let real = parent
        .canonicalize()
        .map_err(FileError::io("find", parent))?;
    let folder = Folder::open(&real).map_err(FileError::io("open", parent))?;
    Ok((folder, PathBuf::from(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_keeps_its_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        write(&path, Some(b"new"), 0o644).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        write(&path, None, 0).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        write(&path, None, 0).unwrap();
    }

    #[test]
    fn folders_are_made_and_known_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c.toml");
        assert_eq!(
            missing_folders(&path),
            [dir.path().join("a"), dir.path().join("a/b")]
        );
        write(&path, Some(b"x"), 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!remove_empty(&dir.path().join("a/b")).unwrap());
        write(&path, None, 0).unwrap();
        assert!(remove_empty(&dir.path().join("a/b")).unwrap());
    }

    #[test]
    fn a_link_in_a_files_place_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        let error = write(&path, Some(b"new"), 0o644).unwrap_err();
        assert!(matches!(error, FileError::NotRegular { .. }), "{error}");
        assert!(write(&path, None, 0o644).is_err());
        assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("elsewhere"));
    }

    #[test]
    fn a_link_is_swapped_and_a_file_in_its_place_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runtimes/wasm");
        link(&path, Some(Path::new("../store/1"))).unwrap();
        link(&path, Some(Path::new("../store/2"))).unwrap();
        assert_eq!(read_link(&path).unwrap().unwrap(), Path::new("../store/2"));
        link(&path, None).unwrap();
        assert_eq!(read_link(&path).unwrap(), None);
        std::fs::write(&path, "file").unwrap();
        assert!(link(&path, Some(Path::new("x"))).is_err());
    }
}
