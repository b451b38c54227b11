//! Folders that only their owner can write, held open so that nobody can exchange them.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::error::Error;

/// Permission bits of a folder that this crate makes.
const FOLDER_MODE: u32 = 0o700;

/// Opening a folder: never through a link in the last component.
const FOLDER_FLAGS: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Opening a file for reading: not through a link, and not waiting for a FIFO's writer.
const READ_FLAGS: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

/// An open folder that belongs to us and that nobody else can write.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Opens a folder by path; makes it and its parents where they are missing.
    pub(crate) fn open(path: &Path) -> Result<Folder, Error> {
        match DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().unwrap_or(Path::new("/"));
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(parent)
                    .map_err(|error| Error::call("make the folder", parent, error))?;
                match DirBuilder::new().mode(FOLDER_MODE).create(path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(Error::call("make the folder", path, error));
                    }
                    _ => {}
                }
            }
            Err(error) => return Err(Error::call("make the folder", path, error)),
        }
        Folder::check(path.to_owned(), open(path, FOLDER_FLAGS, Mode::empty()))
    }

    /// Opens a folder inside this one; makes it where it is missing.
    pub(crate) fn sub(&self, name: &str) -> Result<Folder, Error> {
        let path = self.path.join(name);
        let fd = match openat(&self.fd, name, FOLDER_FLAGS, Mode::empty()) {
            Err(Errno::ENOENT) => {
                match mkdirat(&self.fd, name, Mode::from_bits_truncate(FOLDER_MODE)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(Error::call("make the folder", path, errno)),
                }
                openat(&self.fd, name, FOLDER_FLAGS, Mode::empty())
            }
            other => other,
        };
        Folder::check(path, fd)
    }

    fn check(path: PathBuf, fd: nix::Result<OwnedFd>) -> Result<Folder, Error> {
        let fd = match fd {
            Ok(fd) => fd,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let what = match path.symlink_metadata() {
                    Ok(meta) if meta.is_symlink() => "a symbolic link",
                    _ => "a file",
                };
                return Err(Error::NotAFolder { path, what });
            }
            Err(errno) => return Err(Error::call("open the folder", path, errno)),
        };
        let file = File::from(fd);
        let meta = file
            .metadata()
            .map_err(|error| Error::call("look at", &path, error))?;
        let us = geteuid().as_raw();
        if meta.uid() != us {
            return Err(Error::FolderOwner {
                path,
                owner: meta.uid(),
                us,
            });
        }
        if meta.mode() & 0o022 != 0 {
            return Err(Error::FolderMode {
                path,
                mode: meta.mode() & 0o7777,
            });
        }
        Ok(Folder {
            path,
            fd: file.into(),
        })
    }

    /// Refuses a file system from which code cannot be mapped.
    pub(crate) fn check_exec(&self) -> Result<(), Error> {
        let facts = fstatvfs(&self.fd)
            .map_err(|errno| Error::call("look at the file system of", &self.path, errno))?;
        if facts.flags().contains(FsFlags::ST_NOEXEC) {
            return Err(Error::NoExec {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn child(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file for reading, without following a link and without blocking.
    pub(crate) fn read(&self, name: &str) -> nix::Result<File> {
        openat(&self.fd, name, READ_FLAGS, Mode::empty()).map(File::from)
    }

    /// Opens a file as asked, without following a link.
    pub(crate) fn open_file(&self, name: &str, flags: OFlag, mode: u32) -> nix::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat(&self.fd, name, flags, Mode::from_bits_truncate(mode)).map(File::from)
    }

    /// What a name is at this moment, not following a link.
    pub(crate) fn stat(&self, name: &str) -> nix::Result<FileStat> {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Removes whatever has this name: a file, a link, an empty folder. A missing one is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR) => match unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => Ok(()),
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => Err(Error::InTheWay {
                    path: self.child(name),
                }),
                Err(errno) => Err(Error::call("remove", self.child(name), errno)),
            },
            Err(errno) => Err(Error::call("remove", self.child(name), errno)),
        }
    }

    /// All names in the folder that are UTF-8 (this crate makes no others).
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |errno: Errno| Error::call("list", &self.path, errno);
        let mut dir = Dir::openat(&self.fd, ".", FOLDER_FLAGS, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    /// Waits until the folder's names are on the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        nix::unistd::fsync(&self.fd).map_err(|errno| Error::call("write out", &self.path, errno))
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What kind of file a mode says it is, for messages.
pub(crate) fn kind_of(mode: u32) -> &'static str {
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => "a file",
        SFlag::S_IFDIR => "a folder",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
        _ => "of an unknown kind",
    }
}
