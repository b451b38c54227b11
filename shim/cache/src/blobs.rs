//! Files named by the digest of their content.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::cache::Unpublished;
use crate::counters::{Counter, CounterFile};
use crate::digest::Digest;
use crate::error::Error;
use crate::folder::Folder;
use crate::lock::{Lock, LockFile};
use crate::seal::Seals;
use crate::staged::{Staged, Temporaries};
use crate::unfit::{Opened, Unfit, examine};

/// Name of the lock under which names are given and removed. No key looks like this.
pub(crate) const STORE_LOCK: &str = "store";

/// How long to wait for that lock. Its holder lists folders and removes files, it hashes nothing
/// larger than one entry.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// What all parts of a store use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: Folder,
    pub(crate) locks: Arc<Folder>,
    pub(crate) seals: Seals,
    pub(crate) counters: CounterFile,
    pub(crate) max_bytes: u64,
    pub(crate) max_entry_bytes: u64,
    pub(crate) temporaries: Temporaries,
}

impl Shared {
    pub(crate) fn stage(&self) -> Result<Staged, Error> {
        Staged::new(&self.root, || self.root.sub("tmp"), self.temporaries)
    }

    /// The only writer of names for as long as the result lives.
    pub(crate) fn lock_store(&self) -> Result<Lock, Error> {
        let deadline = Instant::now() + STORE_PATIENCE;
        Lock::take_until(&self.locks, STORE_LOCK, LockFile::Keep, deadline)
    }
}

/// An open file whose content has the digest.
#[derive(Debug)]
pub struct Blob {
    /// Open for reading: the very inode that was checked.
    pub file: File,
    /// Digest of its content.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
}

/// A folder of files named by the digest of their content.
#[derive(Debug)]
pub struct Blobs {
    pub(crate) folder: Folder,
    pub(crate) shared: Arc<Shared>,
}

impl Blobs {
    /// Opens the file with this digest, if there is one whose content has it.
    ///
    /// A file that is not what its name says is removed, counted and logged; it counts as missing.
    ///
    /// # Errors
    /// When this process cannot open files.
    pub fn open(&self, digest: &Digest) -> Result<Option<Blob>, Error> {
        match self.find(digest, None)? {
            Opened::Fit(blob) => Ok(Some(blob)),
            Opened::Absent => Ok(None),
            Opened::Unfit(_) => {
                if let Err(error) = self.remove_unfit(digest) {
                    warn!(%error, "a wrong file stays in the cache");
                }
                Ok(None)
            }
        }
    }

    /// An empty file without a name to write a blob into.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when the disk is full; any other failure of the file system.
    pub fn stage(&self) -> Result<Staged, Error> {
        self.shared.stage()
    }

    /// The folder, for messages.
    pub fn dir(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Where the file with a digest is, for messages. Open it with [`Blobs::open`], not by path.
    pub fn path(&self, digest: &Digest) -> std::path::PathBuf {
        self.folder.child(&digest.to_string())
    }

    /// Gives a staged file its name, after checking that its content has the digest. Where there
    /// is such a file already, that one is used.
    ///
    /// # Errors
    /// [`Error::WrongDigest`], [`Error::Empty`], [`Error::TooLarge`], [`Error::NoSpace`] and other
    /// failures of the file system; the staged file comes back with the error.
    pub fn publish(&self, mut staged: Staged, digest: &Digest) -> Result<Blob, Unpublished> {
        match self.try_publish(&mut staged, digest) {
            Ok(blob) => Ok(blob),
            Err(error) => Err(Unpublished { error, staged }),
        }
    }

    fn try_publish(&self, staged: &mut Staged, digest: &Digest) -> Result<Blob, Error> {
        let (found, length) = self.complete(staged)?;
        if found != *digest {
            return Err(Error::WrongDigest {
                expected: *digest,
                found,
            });
        }
        let _store = self.shared.lock_store()?;
        crate::evict::make_room(&self.shared, length)?;
        self.place(staged, digest, length)
    }

    /// Checks a staged file's size, makes it complete, and computes its digest.
    pub(crate) fn complete(&self, staged: &Staged) -> Result<(Digest, u64), Error> {
        if staged.is_in_memory() {
            return Err(Error::InMemory);
        }
        let length = staged.length()?;
        let (limit, setting) = (self.shared.max_entry_bytes, "max_entry_bytes");
        if length == 0 {
            return Err(Error::Empty);
        }
        if length > limit {
            return Err(Error::TooLarge {
                length,
                limit,
                setting,
            });
        }
        staged.finish()?;
        let digest = Digest::of_file(staged.file())
            .map_err(|error| Error::call("read", staged.path(), error))?;
        Ok((digest, length))
    }

    /// Gives a complete file its name. The store's lock is held.
    pub(crate) fn place(
        &self,
        staged: &mut Staged,
        digest: &Digest,
        length: u64,
    ) -> Result<Blob, Error> {
        let name = digest.to_string();
        loop {
            let linked = staged.link(&self.folder, &name)?;
            if linked {
                self.folder.sync()?;
            }
            match self.find(digest, Some(length))? {
                Opened::Fit(blob) => return Ok(blob),
                // Ours, and already wrong: there is no point in trying again.
                Opened::Unfit(_) | Opened::Absent if linked => {
                    return Err(Error::InTheWay {
                        path: self.folder.child(&name),
                    });
                }
                Opened::Unfit(unfit) => self.remove(digest, &unfit)?,
                Opened::Absent => {}
            }
        }
    }

    /// Opens and checks the file with this digest; computes the digest where no seal holds.
    pub(crate) fn find(&self, digest: &Digest, length: Option<u64>) -> Result<Opened<Blob>, Error> {
        let (file, meta) = match examine(&self.folder, &digest.to_string())? {
            Opened::Fit(fit) => fit,
            Opened::Absent => return Ok(Opened::Absent),
            Opened::Unfit(unfit) => return Ok(Opened::Unfit(unfit)),
        };
        let found = meta.len();
        if let Some(expected) = length.filter(|&expected| expected != found) {
            return Ok(Opened::Unfit(Unfit::Length { found, expected }));
        }
        let blob = |file| {
            Opened::Fit(Blob {
                file,
                digest: *digest,
                length: found,
            })
        };
        if self.shared.seals.holds(digest, &meta) {
            return Ok(blob(file));
        }
        match Digest::of_file(&file) {
            Ok(content) if content == *digest => {}
            Ok(content) => return Ok(Opened::Unfit(Unfit::Content(content))),
            Err(error) => return Ok(Opened::Unfit(Unfit::Unreadable(error))),
        }
        match file.metadata() {
            Ok(after) if after.nlink() == 0 => return Ok(Opened::Absent), // evicted meanwhile
            Ok(after) if crate::seal::is_unchanged(&meta, &after) => {}
            Ok(_) => return Ok(Opened::Unfit(Unfit::Changing)),
            Err(error) => return Ok(Opened::Unfit(Unfit::Unreadable(error))),
        }
        self.shared.seals.set(digest, &meta);
        Ok(blob(file))
    }

    /// Removes the file with this digest if it is still wrong once nobody else can repair it.
    fn remove_unfit(&self, digest: &Digest) -> Result<(), Error> {
        let _store = self.shared.lock_store()?;
        match self.find(digest, None)? {
            Opened::Unfit(unfit) => self.remove(digest, &unfit),
            Opened::Fit(_) | Opened::Absent => Ok(()),
        }
    }

    /// Removes a wrong file. The store's lock is held.
    pub(crate) fn remove(&self, digest: &Digest, unfit: &Unfit) -> Result<(), Error> {
        let name = digest.to_string();
        warn!(path = %self.folder.child(&name).display(), reason = %unfit, "dropping a corrupt file of the cache");
        self.shared.counters.add(Counter::Corrupt, 1);
        self.shared.seals.remove(digest);
        self.folder.remove(&name)
    }
}
