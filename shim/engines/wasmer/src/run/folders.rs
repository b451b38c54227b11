//! The container's folders as a file system of WASIX.
//!
//! WASIX resolves the guest's paths itself, links included, and asks its file system for one path at a time
//! that has none. So nothing here follows a link: a path that has one after all was changed by somebody
//! else in between, and is refused. A folder's own root is held open from the beginning.
//!
//! Wasmer's own host file system is not used: it answers what is read-only with an I/O error, even to a
//! guest that only reads, copies where a rename was asked for, and reads and writes in threads.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use virtual_fs::{
    DirEntry, FileOpener, FileSystem, FileType, FsError, Metadata, OpenOptions, OpenOptionsConfig,
    ReadDir, VirtualFile,
};
use wasmlet_runner_core::{Access, Preopen};

use super::file::OpenFile;

type Result<T> = std::result::Result<T, FsError>;

/// All folders of a guest. What is above them is there, too, and shows nothing but the way to them.
#[derive(Debug)]
pub(super) struct Folders(Vec<Arc<Folder>>);

/// One folder.
#[derive(Debug)]
pub(super) struct Folder {
    /// Where the guest finds it, from the root.
    guest: PathBuf,
    root: OwnedFd,
    access: Access,
}

impl Folders {
    /// Opens the folders. One that the container's user cannot open is left out, as a Linux process
    /// could not open it either.
    pub(super) fn open(preopens: &[Preopen]) -> Self {
        let mut folders: Vec<Arc<Folder>> = Vec::new();
        for preopen in preopens {
            let guest = PathBuf::from(&preopen.guest);
            // The working folder has no path of its own, only a name.
            let guest = if guest.is_absolute() {
                guest
            } else {
                preopen.host.clone()
            };
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let Ok(root) = open(&preopen.host, flags, Mode::empty()) else {
                continue;
            };
            if folders.iter().all(|folder| folder.guest != guest) {
                folders.push(Arc::new(Folder {
                    guest,
                    root,
                    access: preopen.access,
                }));
            }
        }
        // The deepest first, so that a folder in another one is found before it.
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.guest.components().count()));
        Self(folders)
    }

    /// The folder that a path is in, and the rest of the path.
    fn find(&self, path: &Path) -> Result<Place> {
        let path = normal(path)?;
        self.0
            .iter()
            .find_map(|folder| {
                let rest = path.strip_prefix(&folder.guest).ok()?;
                Some(Place {
                    folder: Arc::clone(folder),
                    rest: rest.to_owned(),
                })
            })
            .ok_or_else(|| {
                if self.is_above(&path) {
                    FsError::PermissionDenied
                } else {
                    FsError::EntryNotFound
                }
            })
    }

    fn is_above(&self, path: &Path) -> bool {
        // The root is there without a folder, too.
        path == Path::new("/") || self.0.iter().any(|folder| folder.guest.starts_with(path))
    }

    /// Names in a folder that only leads to others.
    fn names_below(&self, path: &Path) -> BTreeSet<OsString> {
        self.0
            .iter()
            .filter_map(|folder| folder.guest.strip_prefix(path).ok()?.components().next())
            .map(|name| name.as_os_str().to_owned())
            .collect()
    }

    fn metadata_of(&self, path: &Path) -> Result<Metadata> {
        match self.find(path) {
            Ok(place) => place.metadata(),
            Err(FsError::PermissionDenied) => Ok(directory()),
            Err(error) => Err(error),
        }
    }
}

/// Absolute, without `.` and `..`.
fn normal(path: &Path) -> Result<PathBuf> {
    let mut whole = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => whole.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(FsError::InvalidInput),
        }
    }
    Ok(whole)
}

/// A path in a folder.
#[derive(Debug, Clone)]
pub(super) struct Place {
    folder: Arc<Folder>,
    rest: PathBuf,
}

impl Place {
    /// Fails where nothing may be changed.
    fn writable(self) -> Result<Self> {
        match self.folder.access {
            Access::ReadWrite => Ok(self),
            Access::ReadOnly => Err(FsError::PermissionDenied),
        }
    }

    fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let mode = if flags.contains(OFlag::O_CREAT) {
            Mode::from_bits_truncate(0o666)
        } else {
            Mode::empty()
        };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            );
        openat2(&self.folder.root, path, how)
    }

    /// The folder it is in, and its name there; the folder's own root has none.
    fn parent(&self) -> Result<(OwnedFd, &OsStr)> {
        let (Some(parent), Some(name)) = (self.rest.parent(), self.rest.file_name()) else {
            return Err(FsError::PermissionDenied);
        };
        let parent = self
            .open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(error)?;
        Ok((parent, name))
    }

    fn metadata(&self) -> Result<Metadata> {
        let stat = if self.rest.as_os_str().is_empty() {
            nix::sys::stat::fstat(&self.folder.root)
        } else {
            let (parent, name) = self.parent()?;
            fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        };
        stat.map(|stat| metadata(&stat)).map_err(error)
    }

    /// Removes a file.
    pub(super) fn unlink(&self) -> Result<()> {
        let place = self.clone().writable()?;
        let (parent, name) = place.parent()?;
        unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir).map_err(error)
    }
}

impl FileSystem for Folders {
    fn readlink(&self, path: &Path) -> Result<PathBuf> {
        let place = self.find(path)?;
        let (parent, name) = place.parent()?;
        readlinkat(&parent, name).map(PathBuf::from).map_err(error)
    }

    fn read_dir(&self, path: &Path) -> Result<ReadDir> {
        let path = normal(path)?;
        let place = match self.find(&path) {
            Ok(place) => place,
            Err(FsError::PermissionDenied) => {
                let entries = self.names_below(&path).into_iter().map(|name| DirEntry {
                    path: path.join(name),
                    metadata: Ok(directory()),
                });
                return Ok(ReadDir::new(entries.collect()));
            }
            Err(error) => return Err(error),
        };
        let fd = place
            .open(&place.rest, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .map_err(error)?;
        let mut dir = Dir::from_fd(fd).map_err(error)?;
        let mut names: Vec<OsString> = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(error)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort();
        let entries = names.into_iter().map(|name| {
            let stat = fstatat(dir.as_fd(), name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            DirEntry {
                path: path.join(&name),
                metadata: stat.map(|stat| metadata(&stat)).map_err(error),
            }
        });
        Ok(ReadDir::new(entries.collect()))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        let place = self.find(path)?.writable()?;
        let (parent, name) = place.parent()?;
        mkdirat(&parent, name, Mode::from_bits_truncate(0o777)).map_err(error)
    }

    fn create_symlink(&self, source: &Path, target: &Path) -> Result<()> {
        let place = self.find(target)?.writable()?;
        let (parent, name) = place.parent()?;
        symlinkat(source, &parent, name).map_err(error)
    }

    fn hard_link(&self, source: &Path, target: &Path) -> Result<()> {
        // A link would make what is read-only writable under another name.
        let from = self.find(source)?.writable()?;
        let to = self.find(target)?.writable()?;
        let ((old, old_name), (new, new_name)) = (from.parent()?, to.parent()?);
        linkat(&old, old_name, &new, new_name, AtFlags::empty()).map_err(error)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let place = self.find(path)?.writable()?;
        let (parent, name) = place.parent()?;
        unlinkat(&parent, name, UnlinkatFlags::RemoveDir).map_err(error)
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let from = self.find(from)?.writable()?;
            let to = self.find(to)?.writable()?;
            let ((old, old_name), (new, new_name)) = (from.parent()?, to.parent()?);
            renameat(&old, old_name, &new, new_name).map_err(error)
        })
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        self.metadata_of(path)
    }

    fn symlink_metadata(&self, path: &Path) -> Result<Metadata> {
        self.metadata_of(path)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.find(path)?.unlink()
    }

    fn new_open_options(&self) -> OpenOptions<'_> {
        OpenOptions::new(self)
    }
}

impl FileOpener for Folders {
    fn open(
        &self,
        path: &Path,
        how: &OpenOptionsConfig,
    ) -> Result<Box<dyn VirtualFile + Send + Sync + 'static>> {
        let mut place = self.find(path)?;
        if how.would_mutate() {
            place = place.writable()?;
        }
        let file = place.open(&place.rest, flags(how)).map_err(error)?;
        Ok(Box::new(OpenFile::new(File::from(file), place)))
    }
}

fn flags(how: &OpenOptionsConfig) -> OFlag {
    let mut flags = OFlag::O_NOCTTY;
    flags |= match (how.read, how.write || how.append) {
        (true, true) => OFlag::O_RDWR,
        (false, true) => OFlag::O_WRONLY,
        (_, false) => OFlag::O_RDONLY,
    };
    for (asked, flag) in [
        (how.append && !how.truncate, OFlag::O_APPEND),
        (how.truncate, OFlag::O_TRUNC),
        (how.create || how.create_new, OFlag::O_CREAT),
        (how.create_new, OFlag::O_EXCL),
    ] {
        if asked {
            flags |= flag;
        }
    }
    flags
}

fn directory() -> Metadata {
    Metadata {
        ft: FileType::new_dir(),
        accessed: 0,
        created: 0,
        modified: 0,
        len: 0,
    }
}

/// Times are nanoseconds since 1970; WASI has no others.
pub(super) fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    u64::try_from(total.max(0)).unwrap_or(u64::MAX)
}

fn metadata(stat: &FileStat) -> Metadata {
    let kind = stat.st_mode & libc::S_IFMT;
    Metadata {
        ft: FileType {
            dir: kind == libc::S_IFDIR,
            file: kind == libc::S_IFREG,
            symlink: kind == libc::S_IFLNK,
            char_device: kind == libc::S_IFCHR,
            block_device: kind == libc::S_IFBLK,
            socket: kind == libc::S_IFSOCK,
            fifo: kind == libc::S_IFIFO,
        },
        accessed: nanoseconds(stat.st_atime, stat.st_atime_nsec),
        // What WASI calls ctim is the change of the status.
        created: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        len: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

/// The library's own conversion makes "unknown" of most, and an open that is refused has to be "permission
/// denied" for WASIX to try again for reading alone.
fn error(errno: Errno) -> FsError {
    match errno {
        Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ELOOP | Errno::ETXTBSY => {
            FsError::PermissionDenied
        }
        Errno::ENOENT => FsError::EntryNotFound,
        Errno::EEXIST => FsError::AlreadyExists,
        Errno::ENOTDIR => FsError::BaseNotDirectory,
        Errno::EISDIR => FsError::NotAFile,
        Errno::ENOTEMPTY => FsError::DirectoryNotEmpty,
        // "write zero" is what WASIX makes ENOSPC of.
        Errno::ENOSPC | Errno::EDQUOT => FsError::WriteZero,
        Errno::EINVAL | Errno::ENAMETOOLONG => FsError::InvalidInput,
        // A rename or a link from one file system to another; WASIX has no word for it.
        Errno::EXDEV => FsError::Unsupported,
        Errno::EINTR => FsError::Interrupted,
        Errno::EAGAIN => FsError::WouldBlock,
        Errno::ENODEV | Errno::ENXIO => FsError::NoDevice,
        _ => FsError::IOError,
    }
}

/// As [`error`], for what comes from the standard library.
pub(super) fn io_error(cause: &io::Error) -> FsError {
    cause
        .raw_os_error()
        .map_or(FsError::IOError, |errno| error(Errno::from_raw(errno)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn preopen(host: &Path, guest: &str, access: Access) -> Preopen {
        Preopen {
            host: host.to_owned(),
            guest: guest.to_owned(),
            access,
        }
    }

    /// `/data` to write to, `/data/fixed` and `/a/b` to read from.
    fn folders() -> (tempfile::TempDir, Folders) {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["data/fixed", "deep"] {
            fs::create_dir_all(folder.path().join(name)).expect("ours");
        }
        fs::write(folder.path().join("data/fixed/file"), "text").expect("ours");
        fs::write(folder.path().join("data/file"), "text").expect("ours");
        fs::write(folder.path().join("outside"), "secret").expect("ours");
        symlink("../outside", folder.path().join("data/link")).expect("ours");
        let folders = Folders::open(&[
            preopen(&folder.path().join("data"), "/data", Access::ReadWrite),
            preopen(
                &folder.path().join("data/fixed"),
                "/data/fixed",
                Access::ReadOnly,
            ),
            preopen(&folder.path().join("deep"), "/a/b", Access::ReadOnly),
            preopen(&folder.path().join("none"), "/none", Access::ReadOnly),
        ]);
        (folder, folders)
    }

    fn opened(folders: &Folders, path: &str, how: fn(&mut OpenOptions<'_>)) -> Result<()> {
        let mut options = folders.new_open_options();
        how(&mut options);
        options.open(path).map(drop)
    }

    fn read(options: &mut OpenOptions<'_>) {
        options.read(true);
    }

    fn both(options: &mut OpenOptions<'_>) {
        options.read(true).write(true);
    }

    #[test]
    fn the_way_to_a_folder_is_all_there_is_above_it() {
        let (_guard, folders) = folders();
        let names = |path: &str| -> Vec<String> {
            let entries = folders.read_dir(Path::new(path)).expect("a folder");
            entries
                .map(|e| e.expect("an entry").path.display().to_string())
                .collect()
        };
        assert_eq!(names("/"), ["/a", "/data"]);
        assert_eq!(names("/a"), ["/a/b"]);
        assert_eq!(names("/data"), ["/data/file", "/data/fixed", "/data/link"]);
        assert!(folders.metadata(Path::new("/a")).expect("there").is_dir());
        for path in ["/etc", "/none", "/a/c"] {
            let missing = folders.metadata(Path::new(path));
            assert_eq!(missing, Err(FsError::EntryNotFound), "{path}");
        }
        for path in ["/new", "/a/new"] {
            folders.create_dir(Path::new(path)).expect_err(path);
        }
    }

    #[test]
    fn without_a_folder_there_is_the_root() {
        let folders = Folders::open(&[]);
        assert!(folders.metadata(Path::new("/")).expect("there").is_dir());
        assert!(folders.read_dir(Path::new("/")).expect("there").is_empty());
        assert_eq!(
            folders.metadata(Path::new("/x")),
            Err(FsError::EntryNotFound)
        );
    }

    #[test]
    fn what_is_read_only_stays_so() {
        let (guard, folders) = folders();
        let path = Path::new;
        let denied = Err(FsError::PermissionDenied);
        assert_eq!(opened(&folders, "/data/fixed/file", read), Ok(()));
        assert_eq!(opened(&folders, "/data/fixed/file", both), denied);
        let create = |options: &mut OpenOptions<'_>| {
            options.write(true).create(true);
        };
        assert_eq!(opened(&folders, "/data/fixed/new", create), denied);
        assert_eq!(folders.create_dir(path("/data/fixed/new")), denied);
        assert_eq!(folders.remove_file(path("/data/fixed/file")), denied);
        assert_eq!(
            folders.create_symlink(path("x"), path("/data/fixed/new")),
            denied
        );
        let (inside, outside) = (path("/data/fixed/file"), path("/data/moved"));
        assert_eq!(folders.hard_link(inside, outside), denied);
        assert_eq!(
            futures::executor::block_on(folders.rename(inside, outside)),
            denied
        );
        assert_eq!(
            futures::executor::block_on(folders.rename(path("/data/file"), inside)),
            denied
        );
        assert_eq!(
            fs::read_to_string(guard.path().join("data/fixed/file")).expect("there"),
            "text"
        );
    }

    #[test]
    fn no_link_is_followed() {
        let (_guard, folders) = folders();
        assert_eq!(
            opened(&folders, "/data/link", read),
            Err(FsError::PermissionDenied)
        );
        let link = Path::new("/data/link");
        assert_eq!(folders.readlink(link), Ok(PathBuf::from("../outside")));
        assert!(folders.metadata(link).expect("there").ft.symlink);
        assert_eq!(
            opened(&folders, "/data/../outside", read),
            Err(FsError::InvalidInput)
        );
    }

    #[test]
    fn files_and_folders_are_made_moved_and_removed() {
        let (guard, folders) = folders();
        let path = Path::new;
        folders.create_dir(path("/data/new")).expect("writable");
        let create = |options: &mut OpenOptions<'_>| {
            options.write(true).create_new(true);
        };
        assert_eq!(opened(&folders, "/data/new/file", create), Ok(()));
        assert_eq!(
            opened(&folders, "/data/new/file", create),
            Err(FsError::AlreadyExists)
        );
        let moved = folders.rename(path("/data/new/file"), path("/data/moved"));
        futures::executor::block_on(moved).expect("writable");
        assert!(guard.path().join("data/moved").exists());
        folders
            .hard_link(path("/data/moved"), path("/data/second"))
            .expect("writable");
        folders.remove_file(path("/data/moved")).expect("there");
        folders.remove_dir(path("/data/new")).expect("empty");
        assert_eq!(
            folders.remove_dir(path("/data")),
            Err(FsError::PermissionDenied),
            "a folder itself"
        );
        let truncate = |options: &mut OpenOptions<'_>| {
            options.write(true).truncate(true);
        };
        assert_eq!(opened(&folders, "/data/file", truncate), Ok(()));
        assert_eq!(folders.metadata(path("/data/file")).expect("there").len, 0);
    }
}
