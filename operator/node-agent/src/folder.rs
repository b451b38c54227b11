//! A folder held open, and what is below it reached without ever following a symbolic link.
//!
//! A path that is looked up anew for every call can be led elsewhere between two calls, and the programs here run as root on
//! folders that an image brought. So every step goes through a descriptor, with `O_NOFOLLOW` (openat(2)).
//! Not `openat2(2)` with `RESOLVE_BENEATH`: older seccomp profiles refuse it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, readlinkat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

/// A folder held open.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, socket or pipe.
    Other,
}

impl Kind {
    /// Of what stat(2) returned.
    pub fn of(stat: &FileStat) -> Self {
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Self::File,
            SFlag::S_IFDIR => Self::Folder,
            SFlag::S_IFLNK => Self::Link,
            _ => Self::Other,
        }
    }
}

const FOLDER: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

impl Folder {
    /// Opens a folder; its parents may be reached through links, itself may not be one.
    ///
    /// # Errors
    /// Of open(2); `ENOTDIR` or `ELOOP` for a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = nix::fcntl::open(path, FOLDER, Mode::empty())?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Makes a folder and its parents where they are missing, and opens it.
    ///
    /// # Errors
    /// Of mkdir(2) and open(2).
    pub fn make(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder below this one.
    ///
    /// # Errors
    /// Of openat(2); `InvalidInput` for a path that is not made of plain names.
    pub fn folder(&self, path: &Path) -> io::Result<Self> {
        let mut at = self.fd.try_clone()?;
        for name in names(path)? {
            at = openat(&at, &name, FOLDER, Mode::empty())?;
        }
        Ok(Self {
            fd: at,
            path: self.path.join(path),
        })
    }

    /// Makes one folder in this one, with mode 0755, and opens it; one that is there is taken as it is.
    ///
    /// # Errors
    /// Of mkdirat(2) and openat(2).
    pub fn subfolder(&self, name: &Path) -> io::Result<Self> {
        match mkdirat(&self.fd, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => self.folder(name),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a regular file below this folder for reading.
    ///
    /// # Errors
    /// Of openat(2); `InvalidInput` if it is something else.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        // O_NONBLOCK: a pipe under this name must not hold us up.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = File::from(openat(&parent.fd, &name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(file)
    }

    /// Creates a file in this folder for writing; there must be none of the name.
    ///
    /// # Errors
    /// Of openat(2).
    pub fn create(&self, name: &Path, mode: u32) -> io::Result<File> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(
            &self.fd,
            name,
            flags,
            Mode::from_bits_truncate(mode),
        )?);
        // The umask has no say.
        nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode))?;
        Ok(file)
    }

    /// What is under a path, not following a link in its last part either.
    ///
    /// # Errors
    /// Of fstatat(2).
    pub fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let (parent, name) = self.parent(path)?;
        Ok(fstatat(&parent.fd, &*name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// What a link says.
    ///
    /// # Errors
    /// Of readlinkat(2).
    pub fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let (parent, name) = self.parent(path)?;
        Ok(PathBuf::from(readlinkat(&parent.fd, &*name)?))
    }

    /// Makes a link in this folder.
    ///
    /// # Errors
    /// Of symlinkat(2).
    pub fn link(&self, name: &Path, target: &Path) -> io::Result<()> {
        Ok(symlinkat(target, &self.fd, name)?)
    }

    /// Renames within this folder, replacing what has the new name if that can be.
    ///
    /// # Errors
    /// Of renameat(2).
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Renames within this folder; `AlreadyExists` if something has the new name.
    ///
    /// # Errors
    /// Of renameat2(2).
    pub fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat2(
            &self.fd,
            from,
            &self.fd,
            to,
            RenameFlags::RENAME_NOREPLACE,
        )?)
    }

    /// The names in this folder, sorted.
    ///
    /// # Errors
    /// Of getdents(2).
    pub fn list(&self) -> io::Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut found = Vec::new();
        // A descriptor of its own: reading moves the position.
        let mut dir = Dir::openat(&self.fd, ".", FOLDER, Mode::empty())?;
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                found.push(std::ffi::OsStr::from_bytes(name).to_owned());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes one entry of this folder with all that is below it; following no link. Nothing there is no error.
    ///
    /// # Errors
    /// Of unlinkat(2) and what it takes to get there.
    pub fn remove_all(&self, name: &Path) -> io::Result<()> {
        let stat = match self.stat(name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if Kind::of(&stat) != Kind::Folder {
            return Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?);
        }
        let inner = self.folder(name)?;
        for child in inner.list()? {
            inner.remove_all(Path::new(&child))?;
        }
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir)?)
    }

    /// Writes this folder's entries to the disk.
    ///
    /// # Errors
    /// Of fsync(2).
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.fd)?)
    }

    /// Bytes that are free for files here.
    ///
    /// # Errors
    /// Of fstatvfs(3).
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::fstatvfs(&self.fd)?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }

    /// A descriptor of this folder for flock(2).
    ///
    /// # Errors
    /// Of fcntl(2).
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        // Opened anew: a duplicate shares the open file description, and so the lock.
        Ok(openat(self.fd.as_fd(), ".", FOLDER, Mode::empty())?)
    }

    fn parent(&self, path: &Path) -> io::Result<(Self, PathBuf)> {
        let mut parts = names(path)?;
        let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let parent: PathBuf = parts.into_iter().collect();
        Ok((self.folder(&parent)?, name))
    }
}

/// The parts of a relative path that has only plain names.
fn names(path: &Path) -> io::Result<Vec<PathBuf>> {
    path.components()
        .map(|part| match part {
            Component::Normal(name) => Ok(PathBuf::from(name)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is no plain relative path", path.display()),
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_never_followed_downwards() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::fs::write(dir.path().join("real/file"), "x").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("led")).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("real/alias")).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(folder.file(Path::new("real/file")).is_ok());
        assert!(folder.file(Path::new("led/file")).is_err());
        assert!(folder.file(Path::new("real/alias")).is_err());
        assert!(folder.file(Path::new("../x")).is_err());
        assert!(Folder::open(&dir.path().join("led")).is_err());
    }

    #[test]
    fn removing_a_folder_spares_what_its_links_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("gone/deep")).unwrap();
        std::fs::create_dir(dir.path().join("spared")).unwrap();
        std::fs::write(dir.path().join("spared/file"), "x").unwrap();
        std::os::unix::fs::symlink("../../spared", dir.path().join("gone/deep/link")).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        folder.remove_all(Path::new("gone")).unwrap();
        assert!(!dir.path().join("gone").exists());
        assert!(dir.path().join("spared/file").exists());
        folder.remove_all(Path::new("never-was")).unwrap();
    }

    #[test]
    fn a_pipe_is_no_file_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let error = folder.file(Path::new("pipe")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
