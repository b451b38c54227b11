//! Why a file of the store is not what it should be. Logged and counted, never an error.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::digest::Digest;
use crate::error::Error;
use crate::folder::{Folder, kind_of};
use crate::meta::MetaSyntax;

/// Mode of every committed file: nobody writes it again.
pub(crate) const FILE_MODE: u32 = 0o400;

/// Why a file does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it is {0}, not a file")]
    NotAFile(&'static str),
    #[error("it belongs to user {owner}, not to user {us}")]
    Owner { owner: u32, us: u32 },
    #[error("it has mode {0:04o} instead of {FILE_MODE:04o}")]
    Mode(u32),
    #[error("it has {0} names instead of one")]
    Links(u64),
    #[error("it has {found} bytes instead of {expected}")]
    Length { found: u64, expected: u64 },
    #[error("its content has the digest {0}")]
    Content(Digest),
    #[error("it changes while it is read")]
    Changing,
    #[error("its text is wrong: {0}")]
    Syntax(#[from] MetaSyntax),
    #[error("its artifact is missing")]
    NoArtifact,
    #[error("its artifact {digest}: {unfit}")]
    Artifact { digest: Digest, unfit: Box<Unfit> },
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// What opening a committed file came to.
#[derive(Debug)]
pub(crate) enum Opened<T> {
    /// It is what it should be.
    Fit(T),
    /// There is none, or it was removed in this moment.
    Absent,
    /// There is one that does not count.
    Unfit(Unfit),
}

/// Opens a committed file and checks all of it but its content.
///
/// # Errors
/// When this process cannot open any file at this moment, which says nothing about this one.
pub(crate) fn examine(folder: &Folder, name: &str) -> Result<Opened<(File, Metadata)>, Error> {
    let file = match folder.read(name) {
        Ok(file) => file,
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => {
            return Err(Error::call("open", folder.child(name), errno));
        }
        Err(errno) => return Ok(not_opened(errno)),
    };
    Ok(examine_open(file))
}

fn not_opened<T>(errno: Errno) -> Opened<T> {
    Opened::Unfit(match errno {
        Errno::ENOENT => return Opened::Absent,
        // O_NOFOLLOW of a link; a socket; a device without a driver.
        Errno::ELOOP => Unfit::NotAFile("a symbolic link"),
        Errno::ENXIO | Errno::ENODEV => Unfit::NotAFile("a socket or a device"),
        errno => Unfit::Unreadable(errno.into()),
    })
}

fn examine_open(file: File) -> Opened<(File, Metadata)> {
    let meta = match file.metadata() {
        Ok(meta) => meta,
        Err(error) => return Opened::Unfit(Unfit::Unreadable(error)),
    };
    let us = geteuid().as_raw();
    let unfit = if !meta.is_file() {
        Unfit::NotAFile(kind_of(meta.mode()))
    } else if meta.uid() != us {
        Unfit::Owner {
            owner: meta.uid(),
            us,
        }
    } else if meta.mode() & 0o7777 != FILE_MODE {
        Unfit::Mode(meta.mode() & 0o7777)
    } else if meta.nlink() == 0 {
        // Evicted between open and here.
        return Opened::Absent;
    } else if meta.nlink() != 1 {
        Unfit::Links(meta.nlink())
    } else {
        return Opened::Fit((file, meta));
    };
    Opened::Unfit(unfit)
}
