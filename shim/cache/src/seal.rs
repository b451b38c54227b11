//! Remembers that an inode's digest was computed, so that a warm start need not do it again.
//!
//! A seal is the stat of the inode: any write, truncation, chmod, chown, link or exchange moves the
//! ctime or the inode number, and no program can set a ctime. Two things make that safe:
//! - a file that changed within the last moments is never sealed, because a second change within
//!   the same tick of the kernel's clock would leave the same ctime;
//! - a seal names the node's boot, so it says nothing after a power cut.

use std::fmt;
use std::fs::{FileTimes, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;
use tracing::debug;

use crate::digest::Digest;
use crate::error::Error;
use crate::folder::Folder;

/// Younger changes are not sealed. Ten ticks of the slowest kernel clock (100 Hz).
const SETTLED: Duration = Duration::from_millis(100);

/// The use of a file is noted at most this often.
pub(crate) const NOTE_USE_EVERY: Duration = Duration::from_secs(60);

/// Longest seal: six numbers of up to 20 digits and a boot id of 36 characters.
const MAX_SEAL_BYTES: u64 = 256;

/// Identity and state of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        Stamp {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// The last change is long enough ago for the next one to have another ctime. A clock that was
    /// set back makes this false, which costs time and nothing else.
    fn is_settled(&self, now: SystemTime) -> bool {
        let Ok(now) = now.duration_since(UNIX_EPOCH) else {
            return false;
        };
        [self.mtime, self.ctime]
            .into_iter()
            .all(|(seconds, nanos)| {
                let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos))
                else {
                    return true; // before 1970
                };
                now.checked_sub(Duration::new(seconds, nanos))
                    .is_some_and(|age| age >= SETTLED)
            })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp {
            dev,
            ino,
            size,
            mtime,
            ctime,
        } = self;
        write!(
            f,
            "{dev} {ino} {size} {}.{:09} {}.{:09}",
            mtime.0, mtime.1, ctime.0, ctime.1
        )
    }
}

/// The seals of a node: one small file per digest.
#[derive(Debug)]
pub(crate) struct Seals {
    folder: Folder,
    boot: String,
}

impl Seals {
    pub(crate) fn open(run: &Folder) -> Result<Seals, Error> {
        let folder = run.sub("verified")?;
        let path = "/proc/sys/kernel/random/boot_id";
        let boot =
            std::fs::read_to_string(path).map_err(|error| Error::call("read", path, error))?;
        Ok(Seals {
            folder,
            boot: boot.trim().to_owned(),
        })
    }

    fn text(&self, meta: &Metadata) -> String {
        format!("seal 1 {} {}\n", self.boot, Stamp::of(meta))
    }

    /// The very inode with this stat was found to have this digest, and nothing changed since.
    pub(crate) fn holds(&self, digest: &Digest, meta: &Metadata) -> bool {
        let Ok(seal) = self.folder.read(&digest.to_string()) else {
            return false;
        };
        let Ok(seal_meta) = seal.metadata() else {
            return false;
        };
        if !seal_meta.is_file() || seal_meta.len() > MAX_SEAL_BYTES {
            return false;
        }
        let mut found = String::with_capacity(2 * MAX_SEAL_BYTES as usize);
        if (&seal)
            .take(MAX_SEAL_BYTES)
            .read_to_string(&mut found)
            .is_err()
            || found != self.text(meta)
        {
            return false;
        }
        note_use(&seal, &seal_meta);
        true
    }

    /// Remembers that the inode with this stat has this digest. Failing costs the next start time
    /// and nothing else.
    pub(crate) fn set(&self, digest: &Digest, meta: &Metadata) {
        if !Stamp::of(meta).is_settled(SystemTime::now()) {
            return;
        }
        // Written in place: a torn seal is not the one that is looked for.
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let written = self
            .folder
            .open_file(&digest.to_string(), flags, 0o600)
            .map_err(std::io::Error::from)
            .and_then(|mut seal| seal.write_all(self.text(meta).as_bytes()));
        if let Err(error) = written {
            debug!(path = %self.folder.child(&digest.to_string()).display(), %error, "cannot write a seal");
        }
    }

    /// Forgets a digest.
    pub(crate) fn remove(&self, digest: &Digest) {
        if let Err(error) = self.folder.remove(&digest.to_string()) {
            debug!(%error, "cannot remove a seal");
        }
    }

    /// When the file with this digest was last used, as far as the seal knows.
    pub(crate) fn last_use(&self, digest: &Digest) -> Option<SystemTime> {
        self.folder
            .read(&digest.to_string())
            .ok()?
            .metadata()
            .ok()?
            .modified()
            .ok()
    }
}

/// Notes in a file's mtime that it was used just now, if that was not noted lately.
pub(crate) fn note_use(file: &std::fs::File, meta: &Metadata) {
    let now = SystemTime::now();
    let recent = meta.modified().is_ok_and(|noted| {
        now.duration_since(noted)
            .is_ok_and(|age| age < NOTE_USE_EVERY)
    });
    if recent {
        return;
    }
    if let Err(error) = file.set_times(FileTimes::new().set_modified(now)) {
        debug!(%error, "cannot note the use of a cache entry");
    }
}

/// Two looks at an inode found it in the same state.
pub(crate) fn is_unchanged(before: &Metadata, after: &Metadata) -> bool {
    Stamp::of(before) == Stamp::of(after)
}
