//! Checks the root file system before libcontainer touches it.
//!
//! libcontainer creates devices and links under `/dev` by path while it still sees the node's
//! files: with an image whose `/dev` is a link, that would be somewhere else on the node
//! (the mistake behind CVE-2026-41579 in another runtime).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use wasmlet_protocol::FailureReason;

/// What is wrong with a root file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootfsError {
    #[error("it cannot be opened as a folder: {0}")]
    Open(#[source] io::Error),
    #[error("/{name} is not a real folder in the image but {what}; build the image without it")]
    NotAFolder {
        name: &'static str,
        what: &'static str,
    },
    #[error("/{name} cannot be checked: {source}")]
    Check {
        name: &'static str,
        source: io::Error,
    },
}

impl RootfsError {
    /// Whose turn it is.
    pub(crate) fn reason(&self) -> FailureReason {
        match self {
            Self::NotAFolder { .. } => FailureReason::InvalidArgument,
            Self::Open(_) | Self::Check { .. } => FailureReason::Internal,
        }
    }
}

/// Opens the root file system and makes sure that `/dev`, `/proc` and `/sys`, where they exist,
/// are folders and not links or anything else.
///
/// # Errors
/// When one of them is something else.
pub(crate) fn check(rootfs: &Path) -> Result<OwnedFd, RootfsError> {
    let root = open(
        rootfs,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| RootfsError::Open(errno.into()))?;
    for name in ["dev", "proc", "sys"] {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match openat(&root, name, flags, Mode::empty()) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                return Err(RootfsError::NotAFolder {
                    name,
                    what: what_is(&root, name),
                });
            }
            Err(errno) => {
                return Err(RootfsError::Check {
                    name,
                    source: errno.into(),
                });
            }
        }
    }
    Ok(root)
}

fn what_is(root: &OwnedFd, name: &str) -> &'static str {
    let Ok(stat) = nix::sys::stat::fstatat(root, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
    else {
        return "something else";
    };
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFLNK => "a link",
        libc::S_IFREG => "a file",
        libc::S_IFIFO => "a pipe",
        _ => "something else",
    }
}

/// Creates the working folder in the image when it is not there, as runc does.
///
/// Nothing happens where a part of the path is a link or where the image cannot be written: the
/// init then says what is missing, with the path as the container sees it.
pub(crate) fn create_working_folder(root: &OwnedFd, cwd: &Path) {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut here) = root.try_clone() else {
        return;
    };
    for part in cwd.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        let Ok(name) = CString::new(name.as_bytes()) else {
            return;
        };
        match mkdirat(&here, name.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(_) => return,
        }
        match openat(here.as_fd(), name.as_c_str(), flags, Mode::empty()) {
            Ok(next) => here = next,
            Err(_) => return,
        }
    }
}

/// Names of the folders at the top of the file system this process is in, and of the links there.
///
/// # Errors
/// When the root folder cannot be read.
pub(crate) fn top_level() -> io::Result<Vec<std::ffi::OsString>> {
    let mut root = Dir::open("/", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in root.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_empty_root_file_system_is_good() {
        let root = tempfile::tempdir().expect("a folder");
        check(root.path()).expect("nothing is wrong");
    }

    #[test]
    fn a_link_a_file_and_a_pipe_are_refused() {
        for name in ["dev", "proc", "sys"] {
            let root = tempfile::tempdir().expect("a folder");
            symlink("/tmp", root.path().join(name)).expect("a link");
            let error = check(root.path()).expect_err("a link").to_string();
            assert!(
                error.contains(&format!("/{name} is not a real folder")),
                "{error}"
            );
            assert!(error.contains("a link"), "{error}");
        }
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("dev"), "x").expect("a file");
        let error = check(root.path()).expect_err("a file").to_string();
        assert!(error.contains("a file"), "{error}");

        let root = tempfile::tempdir().expect("a folder");
        nix::unistd::mkfifo(&root.path().join("sys"), Mode::from_bits_truncate(0o600))
            .expect("a pipe");
        let error = check(root.path()).expect_err("a pipe").to_string();
        assert!(error.contains("a pipe"), "{error}");
    }

    #[test]
    fn a_working_folder_is_made_but_no_link_is_followed() {
        let root = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        symlink(outside.path(), root.path().join("link")).expect("a link");
        let fd = check(root.path()).expect("nothing is wrong");
        create_working_folder(&fd, Path::new("/a/b/c"));
        assert!(root.path().join("a/b/c").is_dir());
        create_working_folder(&fd, Path::new("/link/d"));
        assert!(!outside.path().join("d").exists());
    }
}
