//! Looking entries up and committing them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, warn};
use wasmlet_protocol::Compiled;

use crate::blobs::{Blobs, Shared};
use crate::counters::{Counter, CounterFile, Counters};
use crate::error::Error;
use crate::evict;
use crate::folder::Folder;
use crate::key::Key;
use crate::lock::{KeyLock, Lock, LockFile};
use crate::meta::{MAX_META_BYTES, Meta, MetaSyntax};
use crate::seal::{Seals, note_use};
use crate::staged::{Staged, Temporaries};
use crate::unfit::{Opened, Unfit, examine};

/// Room for an ordinary entry's text, so that it is read in one go.
const TYPICAL_META_BYTES: usize = 4096;

/// Where the store is and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Folder on a disk.
    pub dir: PathBuf,
    /// Folder on a tmpfs.
    pub run_dir: PathBuf,
    /// Bound on all files together; the least recently used ones go first.
    pub max_bytes: u64,
    /// Bound on one file.
    pub max_entry_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            dir: PathBuf::from("/var/lib/wasmlet/cache"),
            run_dir: PathBuf::from("/run/wasmlet"),
            max_bytes: 2 << 30,
            max_entry_bytes: 512 << 20,
        }
    }
}

/// A compiled module, checked.
#[derive(Debug)]
pub struct Entry {
    /// The artifact, open for reading at offset 0: the very inode that was checked. It stays usable
    /// when the entry is evicted.
    pub artifact: File,
    /// What is known of it.
    pub meta: Meta,
}

/// A staged file could not be put into the store; it can still be used.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unpublished {
    /// Why.
    #[source]
    pub error: Error,
    /// The file: see [`Staged::into_uncached`].
    pub staged: Staged,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Compiled modules.
    pub entries: u64,
    /// Modules taken out of OCI artifacts.
    pub modules: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// The store of a node. See the crate's documentation for how a start uses it.
#[derive(Debug)]
pub struct Cache {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metas: Folder,
    pub(crate) artifacts: Blobs,
    modules: Blobs,
}

impl Cache {
    /// Opens the store; makes its folders where they are missing.
    ///
    /// # Errors
    /// When a folder is a link, belongs to somebody else or can be written by others, when it is on
    /// a file system mounted noexec, or when a system call fails.
    pub fn open(options: Options) -> Result<Cache, Error> {
        Cache::open_with(options, Temporaries::Auto)
    }

    pub(crate) fn open_with(options: Options, temporaries: Temporaries) -> Result<Cache, Error> {
        let root = Folder::open(&options.dir)?;
        root.check_exec()?;
        let run = Arc::new(Folder::open(&options.run_dir)?);
        let metas = root.sub("meta")?;
        let artifacts = root.sub("artifacts")?;
        let modules = root.sub("modules")?;
        let shared = Arc::new(Shared {
            locks: Arc::new(root.sub("lock")?),
            seals: Seals::open(&run)?,
            counters: CounterFile::new(run),
            max_bytes: options.max_bytes,
            max_entry_bytes: options.max_entry_bytes,
            root,
            temporaries,
        });
        let blobs = |folder| Blobs {
            folder,
            shared: Arc::clone(&shared),
        };
        let (artifacts, modules) = (blobs(artifacts), blobs(modules));
        Ok(Cache {
            shared,
            metas,
            artifacts,
            modules,
        })
    }

    /// The folder on the disk.
    pub fn dir(&self) -> &Path {
        self.shared.root.path()
    }

    /// Bound on what the cache keeps, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.shared.max_bytes
    }

    /// Modules taken out of OCI artifacts.
    pub fn modules(&self) -> &Blobs {
        &self.modules
    }

    /// A start's first look: opens the entry of a key, and counts a hit or a miss.
    ///
    /// An entry that is not what it should be is dropped, counted and logged; it is a miss.
    ///
    /// # Errors
    /// When this process cannot open files.
    pub fn lookup(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let entry = self.get(key)?;
        let counter = if entry.is_some() {
            Counter::Hit
        } else {
            Counter::Miss
        };
        self.shared.counters.add(counter, 1);
        Ok(entry)
    }

    /// A look by who does not know yet which of a module's keys is wanted: a hit counts as one, and a miss
    /// is counted by the [`Cache::lookup`] that follows.
    ///
    /// # Errors
    /// When this process cannot open files.
    pub fn lookup_if_there(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let entry = self.get(key)?;
        if entry.is_some() {
            self.shared.counters.add(Counter::Hit, 1);
        }
        Ok(entry)
    }

    /// A look at what is known about a module, which is no start of one: counts nothing.
    ///
    /// # Errors
    /// When this process cannot open files.
    pub fn peek(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.get(key)
    }

    /// The second look, by who holds the key's lock: somebody may have compiled the module while
    /// this process waited. Counts neither a hit nor a miss, the first look did.
    ///
    /// # Errors
    /// When this process cannot open files.
    pub fn lookup_locked(&self, lock: &KeyLock) -> Result<Option<Entry>, Error> {
        self.get(lock.key())
    }

    /// Waits until nobody else compiles this key.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub fn lock(&self, key: &Key) -> Result<KeyLock, Error> {
        let lock = Lock::take(&self.shared.locks, &key.to_string(), LockFile::Remove)?;
        Ok(KeyLock::new(key, lock))
    }

    /// Takes the key's lock if nobody has it; never waits.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub fn try_lock(&self, key: &Key) -> Result<Option<KeyLock>, Error> {
        let lock = Lock::try_take(&self.shared.locks, &key.to_string(), LockFile::Remove)?;
        Ok(lock.map(|lock| KeyLock::new(key, lock)))
    }

    /// Waits until nobody else compiles this key, but not for ever.
    ///
    /// # Errors
    /// [`Error::LockTimeout`] at the deadline; when the lock file cannot be made or locked.
    pub fn lock_until(&self, key: &Key, deadline: Instant) -> Result<KeyLock, Error> {
        let name = key.to_string();
        let lock = Lock::take_until(&self.shared.locks, &name, LockFile::Remove, deadline)?;
        Ok(KeyLock::new(key, lock))
    }

    /// An empty file in the store's file system for the compile helper to write into.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when the disk is full; any other failure of the file system.
    pub fn stage(&self) -> Result<Staged, Error> {
        self.shared.stage()
    }

    /// An empty file in memory, for when the disk is full. It cannot be published, and its pages
    /// are charged to the cgroup of the process that writes them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stage_in_memory(&self) -> Result<Staged, Error> {
        Staged::in_memory()
    }

    /// Commits what the compile helper wrote, after it exited. Where there is an entry already
    /// (somebody was faster), that one is used.
    ///
    /// # Errors
    /// When the artifact is empty or too large, when the disk is full, or when a system call fails;
    /// the staged file comes back with the error and can be used uncached.
    pub fn publish(
        &self,
        lock: &KeyLock,
        mut staged: Staged,
        compiled: Compiled,
    ) -> Result<Entry, Unpublished> {
        match self.try_publish(lock.key(), &mut staged, compiled) {
            Ok(entry) => Ok(entry),
            Err(error) => Err(Unpublished { error, staged }),
        }
    }

    /// Counts a compilation and what it cost. Call it after each one, published or not.
    pub fn record_compile(&self, compiled: &Compiled) {
        self.shared.counters.update(|counters| {
            counters.compile += 1;
            counters.compile_millis = counters.compile_millis.saturating_add(compiled.millis);
            counters.compile_peak_bytes = counters
                .compile_peak_bytes
                .saturating_add(compiled.peak_memory);
            counters.compile_peak_max_bytes =
                counters.compile_peak_max_bytes.max(compiled.peak_memory);
        });
    }

    /// What happened on this node since its boot.
    ///
    /// # Errors
    /// When the counters' file cannot be read.
    pub fn counters(&self) -> Result<Counters, Error> {
        self.shared.counters.read()
    }

    /// What the store holds at this moment.
    ///
    /// # Errors
    /// When the folders cannot be listed.
    pub fn usage(&self) -> Result<Usage, Error> {
        evict::usage(&self.shared.root)
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        match self.find(key)? {
            Opened::Fit(entry) => Ok(Some(entry)),
            Opened::Absent => Ok(None),
            Opened::Unfit(unfit) => {
                debug!(%key, %unfit, "an entry does not count");
                if let Err(error) = self.remove_unfit(key) {
                    warn!(%key, %unfit, %error, "a corrupt entry stays in the cache");
                }
                Ok(None)
            }
        }
    }

    /// Opens and checks everything about an entry.
    fn find(&self, key: &Key) -> Result<Opened<Entry>, Error> {
        let (file, file_meta) = match examine(&self.metas, &key.to_string())? {
            Opened::Fit(fit) => fit,
            Opened::Absent => return Ok(Opened::Absent),
            Opened::Unfit(unfit) => return Ok(Opened::Unfit(unfit)),
        };
        let meta = match read_meta(&file, key) {
            Ok(meta) => meta,
            Err(unfit) => return Ok(Opened::Unfit(unfit)),
        };
        let artifact = match self.artifacts.find(&meta.artifact, Some(meta.length))? {
            Opened::Fit(blob) => blob.file,
            Opened::Absent => {
                // Eviction removes the text first, so an artifact without one was not evicted.
                let evicted = matches!(examine(&self.metas, &key.to_string())?, Opened::Absent);
                return Ok(if evicted {
                    Opened::Absent
                } else {
                    Opened::Unfit(Unfit::NoArtifact)
                });
            }
            Opened::Unfit(unfit) => {
                let unfit = Box::new(unfit);
                return Ok(Opened::Unfit(Unfit::Artifact {
                    digest: meta.artifact,
                    unfit,
                }));
            }
        };
        note_use(&file, &file_meta);
        Ok(Opened::Fit(Entry { artifact, meta }))
    }

    /// Removes an entry if it is still wrong once nobody else can repair it.
    fn remove_unfit(&self, key: &Key) -> Result<(), Error> {
        let _store = self.shared.lock_store()?;
        match self.find(key)? {
            Opened::Unfit(unfit) => self.remove(key, &unfit),
            Opened::Fit(_) | Opened::Absent => Ok(()),
        }
    }

    /// Removes a wrong entry, text first. The store's lock is held.
    fn remove(&self, key: &Key, unfit: &Unfit) -> Result<(), Error> {
        let name = key.to_string();
        self.metas.remove(&name)?;
        match unfit {
            Unfit::Artifact { digest, unfit } => self.artifacts.remove(digest, unfit),
            unfit => {
                warn!(path = %self.metas.child(&name).display(), reason = %unfit, "dropping a corrupt entry of the cache");
                self.shared.counters.add(Counter::Corrupt, 1);
                Ok(())
            }
        }
    }

    fn try_publish(
        &self,
        key: &Key,
        staged: &mut Staged,
        compiled: Compiled,
    ) -> Result<Entry, Error> {
        let (artifact, length) = self.artifacts.complete(staged)?;
        let text = Meta {
            key: *key,
            artifact,
            length,
            compiled,
        }
        .encode()?;
        let mut commit = self.shared.stage()?;
        commit.fill(&text)?;
        commit.finish()?;

        let _store = self.shared.lock_store()?;
        match self.find(key)? {
            Opened::Fit(entry) => return Ok(entry),
            Opened::Unfit(unfit) => self.remove(key, &unfit)?,
            Opened::Absent => {}
        }
        evict::make_room(&self.shared, length + text.len() as u64)?;
        self.artifacts.place(staged, &artifact, length)?;
        // Nobody else gives names while we hold the store's lock, so a taken name is no race.
        let committed = commit.link(&self.metas, &key.to_string())?;
        match self.find(key)? {
            Opened::Fit(entry) if committed => Ok(entry),
            _ => Err(Error::InTheWay {
                path: self.metas.child(&key.to_string()),
            }),
        }
    }
}

fn read_meta(mut file: &File, key: &Key) -> Result<Meta, Unfit> {
    let mut text = Vec::with_capacity(TYPICAL_META_BYTES);
    file.by_ref()
        .take(MAX_META_BYTES + 1)
        .read_to_end(&mut text)?;
    let meta = Meta::decode(&text)?;
    if meta.key != *key {
        return Err(MetaSyntax::OtherKey(meta.key).into());
    }
    Ok(meta)
}
