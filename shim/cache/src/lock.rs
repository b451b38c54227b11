//! Locks that die with their holder: `flock(2)` on files of their own.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use tracing::warn;

use crate::error::Error;
use crate::folder::Folder;
use crate::key::Key;

/// Between two looks at a lock: grows from the first to the second. flock(2) has no deadline, and
/// the end of a holder is no event on any descriptor.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// Who may remove a lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockFile {
    /// It stays for good.
    Keep,
    /// The holder removes it before it lets go.
    Remove,
}

/// A held lock.
#[derive(Debug)]
pub(crate) struct Lock {
    folder: Arc<Folder>,
    name: String,
    file: File,
    kind: LockFile,
}

impl Lock {
    /// Takes the lock if it is free.
    pub(crate) fn try_take(
        folder: &Arc<Folder>,
        name: &str,
        kind: LockFile,
    ) -> Result<Option<Lock>, Error> {
        loop {
            let file = open(folder, name)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(Error::call("lock", folder.child(name), error));
                }
            }
            if let Some(lock) = confirm(folder, name, file, kind)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Waits for the lock as long as it takes.
    pub(crate) fn take(folder: &Arc<Folder>, name: &str, kind: LockFile) -> Result<Lock, Error> {
        loop {
            let file = open(folder, name)?;
            file.lock()
                .map_err(|error| Error::call("lock", folder.child(name), error))?;
            if let Some(lock) = confirm(folder, name, file, kind)? {
                return Ok(lock);
            }
        }
    }

    /// Waits for the lock until a deadline.
    pub(crate) fn take_until(
        folder: &Arc<Folder>,
        name: &str,
        kind: LockFile,
        deadline: Instant,
    ) -> Result<Lock, Error> {
        let start = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            if let Some(lock) = Lock::try_take(folder, name, kind)? {
                return Ok(lock);
            }
            let now = Instant::now();
            if now >= deadline {
                let path = folder.child(name);
                return Err(Error::LockTimeout {
                    path,
                    waited: now - start,
                });
            }
            thread::sleep(wait.min(deadline - now));
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

fn open(folder: &Folder, name: &str) -> Result<File, Error> {
    let failed = |errno: Errno| match errno {
        Errno::EISDIR | Errno::ELOOP | Errno::ENXIO => Error::InTheWay {
            path: folder.child(name),
        },
        errno => Error::call("open the lock file", folder.child(name), errno),
    };
    folder
        .open_file(name, OFlag::O_RDWR | OFlag::O_CREAT, 0o600)
        .map_err(failed)
}

/// The lock counts only if its file still has the name: a holder removes the file before it lets
/// go, and whoever waited on the removed one holds a lock that nobody else can see.
fn confirm(
    folder: &Arc<Folder>,
    name: &str,
    file: File,
    kind: LockFile,
) -> Result<Option<Lock>, Error> {
    let held = file
        .metadata()
        .map_err(|error| Error::call("look at the lock file", folder.child(name), error))?;
    match folder.stat(name) {
        Ok(named) if (named.st_dev, named.st_ino) == (held.dev(), held.ino()) => Ok(Some(Lock {
            folder: Arc::clone(folder),
            name: name.to_owned(),
            file,
            kind,
        })),
        Ok(_) | Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::call(
            "look at the lock file",
            folder.child(name),
            errno,
        )),
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.kind == LockFile::Remove
            && let Err(error) = self.folder.remove(&self.name)
        {
            warn!(%error, "a lock file stays");
        }
        // Not left to close(2): a child that was just forked still has the descriptor until it
        // execs, and would hold the lock that long.
        if let Err(error) = self.file.unlock() {
            warn!(path = %self.folder.child(&self.name).display(), %error, "cannot unlock");
        }
    }
}

/// The right to compile one key, for one process at a time; given back on drop and on death.
#[derive(Debug)]
pub struct KeyLock {
    key: Key,
    _lock: Lock,
}

impl KeyLock {
    pub(crate) fn new(key: &Key, lock: Lock) -> KeyLock {
        KeyLock {
            key: *key,
            _lock: lock,
        }
    }

    /// Which key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Arc<Folder>) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::open(&temp.path().join("lock")).expect("a folder");
        (temp, Arc::new(folder))
    }

    #[test]
    fn a_held_lock_is_not_taken_twice_and_leaves_no_file() {
        let (_temp, folder) = folder();
        let lock = Lock::try_take(&folder, "a", LockFile::Remove)
            .expect("works")
            .expect("free");
        assert!(
            Lock::try_take(&folder, "a", LockFile::Remove)
                .expect("works")
                .is_none()
        );
        let other = Lock::try_take(&folder, "b", LockFile::Remove).expect("works");
        assert!(other.is_some(), "another name is another lock");
        let deadline = Instant::now() + Duration::from_millis(30);
        let error = Lock::take_until(&folder, "a", LockFile::Remove, deadline).expect_err("held");
        assert!(matches!(error, Error::LockTimeout { .. }), "{error}");
        drop((lock, other));
        assert_eq!(
            folder.names().expect("it can be listed"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn threads_that_fight_for_a_lock_hold_it_one_at_a_time() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let (_temp, folder) = folder();
        let (inside, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for number in 0..8 {
                let (folder, inside, taken) = (&folder, &inside, &taken);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let lock = if number % 2 == 0 {
                            Lock::take(folder, "a", LockFile::Remove).expect("works")
                        } else {
                            let deadline = Instant::now() + Duration::from_secs(60);
                            Lock::take_until(folder, "a", LockFile::Remove, deadline)
                                .expect("works")
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1600);
        assert_eq!(
            folder.names().expect("it can be listed"),
            Vec::<String>::new()
        );
    }
}
