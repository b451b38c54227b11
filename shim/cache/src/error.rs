//! What can go wrong with the store itself. A bad entry is no error: it is a miss.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use wasmlet_protocol::FailureReason;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder of the store is something else.
    #[error(
        "{path} is {what}, not a folder of the compile cache: remove it, or name another folder"
    )]
    NotAFolder {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A folder of the store belongs to another user, who could put native code into it.
    #[error(
        "{path} belongs to user {owner}, not to user {us} that this process runs as: change its owner, or remove it"
    )]
    FolderOwner {
        /// Where.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Others may write into a folder of the store.
    #[error(
        "{path} has mode {mode:04o}, so other users can put native code into it: run `chmod go-w {path}` after checking what is in it"
    )]
    FolderMode {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file system of the store does not let anybody map code from it.
    #[error(
        "{path} is on a file system mounted noexec, from which no engine can map code: mount it without noexec, or name another folder"
    )]
    NoExec {
        /// Where.
        path: PathBuf,
    },
    /// The file system is full, or a quota is used up.
    #[error("no space left for the compile cache while trying to {action} {path}: {source}")]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// `ENOSPC` or `EDQUOT`.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else held a lock until the deadline.
    #[error(
        "{path} is still locked by another process after {waited:?}: `fuser {path}` tells by which"
    )]
    LockTimeout {
        /// The lock file.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// Nothing was written.
    #[error("the compile helper left an empty artifact")]
    Empty,
    /// A file is larger than the store takes.
    #[error(
        "{length} bytes are more than the {limit} bytes that the compile cache takes: raise {setting}"
    )]
    TooLarge {
        /// Its length.
        length: u64,
        /// The bound.
        limit: u64,
        /// Which setting is the bound.
        setting: &'static str,
    },
    /// Bytes do not have the digest they were announced with.
    #[error("the bytes have the digest sha256:{found}, not sha256:{expected}")]
    WrongDigest {
        /// Announced.
        expected: crate::Digest,
        /// Computed.
        found: crate::Digest,
    },
    /// A file staged in memory cannot be published.
    #[error("a file staged in memory cannot be put into the compile cache")]
    InMemory,
    /// An entry's text cannot be written.
    #[error("the facts about the module cannot be put into the compile cache: {0}")]
    Meta(#[from] crate::MetaSyntax),
    /// Something that cannot be removed is in an entry's place.
    #[error(
        "{path} is in the way of an entry of the compile cache and cannot be replaced: remove it"
    )]
    InTheWay {
        /// Where.
        path: PathBuf,
    },
}

impl Error {
    /// Whose turn it is.
    pub fn reason(&self) -> FailureReason {
        match self {
            Error::NoSpace { .. } | Error::LockTimeout { .. } | Error::TooLarge { .. } => {
                FailureReason::ResourceExhausted
            }
            Error::WrongDigest { .. } => FailureReason::InvalidArgument,
            Error::NotAFolder { .. }
            | Error::FolderOwner { .. }
            | Error::FolderMode { .. }
            | Error::NoExec { .. }
            | Error::Io { .. }
            | Error::Empty
            | Error::InMemory
            | Error::Meta(_)
            | Error::InTheWay { .. } => FailureReason::Internal,
        }
    }

    /// Makes an error of a failed call; a full disk has a variant of its own.
    pub(crate) fn call(
        action: &'static str,
        path: impl AsRef<Path>,
        error: impl Into<io::Error>,
    ) -> Error {
        let source = error.into();
        let path = path.as_ref().to_owned();
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Error::NoSpace {
                action,
                path,
                source,
            },
            _ => Error::Io {
                action,
                path,
                source,
            },
        }
    }
}
