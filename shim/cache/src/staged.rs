//! A file that is being written and has no name yet.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, FcntlArg, OFlag, RenameFlags, SealFlag, fcntl, openat, renameat2,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::linkat;
use tracing::{debug, warn};

use crate::error::Error;
use crate::folder::Folder;
use crate::unfit::FILE_MODE;

/// How files without a name are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temporaries {
    /// `O_TMPFILE` where the file system has it, else a named temporary file.
    Auto,
    /// Always a named temporary file, as on a file system without `O_TMPFILE`.
    #[cfg(test)]
    Named,
}

/// An empty file for the compile helper (or a download) to write into. It vanishes unless it is
/// published, whatever happens to this process; on a file system without `O_TMPFILE` the next
/// writer removes it.
#[derive(Debug)]
pub struct Staged {
    file: File,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// No name, in the file system of this folder.
    Anonymous { folder: PathBuf },
    /// A temporary name, flock'ed as long as somebody writes it.
    Named(TemporaryName),
    /// In memory.
    Memory,
}

/// Removes the temporary name when dropped, unless it was changed into a final one.
#[derive(Debug)]
struct TemporaryName {
    folder: Arc<Folder>,
    name: String,
    renamed: bool,
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if self.renamed {
            return;
        }
        if let Err(error) = self.folder.remove(&self.name) {
            warn!(%error, "a temporary file stays until the next writer removes it");
        }
    }
}

impl Staged {
    /// A new file in the file system of a folder.
    pub(crate) fn new(
        root: &Folder,
        temporary: impl FnOnce() -> Result<Folder, Error>,
        how: Temporaries,
    ) -> Result<Staged, Error> {
        let path = || root.path().to_owned();
        if how == Temporaries::Auto {
            let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
            match openat(root, ".", flags, Mode::from_bits_truncate(0o600)) {
                Ok(fd) => {
                    let place = Place::Anonymous { folder: path() };
                    return Ok(Staged {
                        file: fd.into(),
                        place,
                    });
                }
                // EISDIR: a kernel or file system that takes O_TMPFILE for O_DIRECTORY.
                Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => return Err(Error::call("make a file in", path(), errno)),
            }
        }
        Staged::named(Arc::new(temporary()?))
    }

    fn named(folder: Arc<Folder>) -> Result<Staged, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            let file = match folder.open_file(&name, flags, 0o600) {
                Ok(file) => file,
                Err(Errno::EEXIST) => continue, // left by a dead process that had our id
                Err(errno) => return Err(Error::call("make the file", folder.child(&name), errno)),
            };
            let name = TemporaryName {
                folder: Arc::clone(&folder),
                name,
                renamed: false,
            };
            // A cleaner may have been faster than our lock; then the file has no name any more.
            let path = || name.folder.child(&name.name);
            file.lock()
                .map_err(|error| Error::call("lock", path(), error))?;
            let meta = file
                .metadata()
                .map_err(|error| Error::call("look at", path(), error))?;
            if meta.nlink() == 1 {
                return Ok(Staged {
                    file,
                    place: Place::Named(name),
                });
            }
        }
    }

    /// A new file in memory, charged to the cgroup of whoever writes it.
    pub(crate) fn in_memory() -> Result<Staged, Error> {
        let failed = |errno: Errno| Error::call("make", "a file in memory", errno);
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create("wasmlet-artifact", flags).map_err(failed)?;
        Ok(Staged {
            file: fd.into(),
            place: Place::Memory,
        })
    }

    /// The file, open for reading and writing at offset 0.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A read-only descriptor of the file, without putting it into the cache. Nothing has a name
    /// afterwards: the file is gone when the last descriptor or mapping of it is.
    ///
    /// # Errors
    /// [`Error::Empty`] when nothing was written; when the file cannot be opened again.
    pub fn into_uncached(self) -> Result<File, Error> {
        let length = self.length()?;
        if length == 0 {
            return Err(Error::Empty);
        }
        if let Place::Memory = self.place {
            // Refused (EBUSY) while somebody has a writable mapping of it.
            let seals = SealFlag::F_SEAL_SHRINK
                | SealFlag::F_SEAL_GROW
                | SealFlag::F_SEAL_WRITE
                | SealFlag::F_SEAL_SEAL;
            fcntl(&self.file, FcntlArg::F_ADD_SEALS(seals))
                .map_err(|errno| Error::call("seal", self.path(), errno))?;
        } else {
            self.finish_mode()?;
        }
        File::open(self.proc_path()).map_err(|error| Error::call("open again", self.path(), error))
    }

    /// Where it is, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.place {
            Place::Anonymous { folder } => folder.clone(),
            Place::Named(name) => name.folder.child(&name.name),
            Place::Memory => PathBuf::from("a file in memory"),
        }
    }

    /// Bytes written so far.
    pub(crate) fn length(&self) -> Result<u64, Error> {
        let meta = self
            .file
            .metadata()
            .map_err(|error| Error::call("look at", self.path(), error))?;
        Ok(meta.len())
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.place, Place::Memory)
    }

    /// Writes a whole small file.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all_at(bytes, 0)
            .map_err(|error| Error::call("write", self.path(), error))
    }

    /// Makes the file complete: final mode, and on the disk.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        self.finish_mode()?;
        self.file
            .sync_all()
            .map_err(|error| Error::call("write out", self.path(), error))
    }

    fn finish_mode(&self) -> Result<(), Error> {
        fchmod(&self.file, Mode::from_bits_truncate(FILE_MODE))
            .map_err(|errno| Error::call("set the mode of", self.path(), errno))
    }

    /// Gives the file its name, unless the name is taken: then `Ok(false)`.
    pub(crate) fn link(&mut self, folder: &Folder, name: &str) -> Result<bool, Error> {
        let proc_path = self.proc_path();
        let linked = match &mut self.place {
            Place::Anonymous { .. } => {
                let flags = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(AT_FDCWD, proc_path.as_path(), folder, name, flags)
            }
            Place::Named(temporary) => renameat2(
                &*temporary.folder,
                temporary.name.as_str(),
                folder,
                name,
                RenameFlags::RENAME_NOREPLACE,
            )
            .inspect(|()| temporary.renamed = true),
            Place::Memory => return Err(Error::InMemory),
        };
        match linked {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(Error::call("give a name to", folder.child(name), errno)),
        }
    }

    fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Removes temporary files whose writer is dead.
pub(crate) fn clean_temporaries(folder: &Folder) -> Result<(), Error> {
    for name in folder.names()? {
        let file = match folder.read(&name) {
            Ok(file) => file,
            Err(Errno::ENOENT) => continue,
            Err(errno) => {
                debug!(path = %folder.child(&name).display(), %errno, "not a temporary file");
                continue;
            }
        };
        // The lock dies with the writer; a file that is not locked yet is noticed by its writer.
        if file.try_lock().is_ok() {
            folder.remove(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wasmlet_protocol::{Compiled, GuestKind};

    use super::*;
    use crate::{Cache, Digest, Key, Options};

    fn cache(temp: &tempfile::TempDir) -> Cache {
        let options = Options {
            dir: temp.path().join("cache"),
            run_dir: temp.path().join("run"),
            ..Options::default()
        };
        Cache::open_with(options, Temporaries::Named).expect("the store opens")
    }

    fn compiled() -> Compiled {
        Compiled {
            kind: GuestKind::Module,
            exports: Vec::new(),
            wants_listener: false,
            needs: wasmlet_protocol::Needs::default(),
            min_memory: 0,
            peak_memory: 0,
            millis: 0,
        }
    }

    fn names(temp: &tempfile::TempDir) -> Vec<String> {
        let folder = Folder::open(&temp.path().join("cache/tmp")).expect("a folder");
        folder.names().expect("it can be listed")
    }

    #[test]
    fn without_tmpfile_an_entry_is_renamed_into_place() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let cache = cache(&temp);
        let key = Key::new(&Digest::of(b"module"), "e", "c", "b", "p");
        let lock = cache.lock(&key).expect("free");
        for _ in 0..2 {
            let staged = cache.stage().expect("a file");
            assert_eq!(names(&temp).len(), 1);
            staged.fill(b"native code").expect("it can be written");
            let entry = cache
                .publish(&lock, staged, compiled())
                .expect("it can be published");
            assert_eq!(
                Digest::of_file(&entry.artifact).ok(),
                Some(Digest::of(b"native code"))
            );
            assert_eq!(names(&temp), Vec::<String>::new());
        }
        assert!(cache.lookup(&key).expect("works").is_some());
        assert_eq!(cache.counters().expect("readable").corrupt, 0);
    }

    #[test]
    fn a_temporary_file_goes_when_its_writer_is_dead_and_not_before() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let cache = cache(&temp);
        let writing = cache.stage().expect("a file");
        let unused = cache.stage().expect("a file");
        drop(unused);
        assert_eq!(names(&temp).len(), 1, "dropped without being published");
        std::fs::write(temp.path().join("cache/tmp/1-0"), b"left").expect("the name is free");
        let key = Key::new(&Digest::of(b"module"), "e", "c", "b", "p");
        let lock = cache.lock(&key).expect("free");
        let staged = cache.stage().expect("a file");
        staged.fill(b"code").expect("it can be written");
        cache
            .publish(&lock, staged, compiled())
            .expect("it can be published");
        assert_eq!(names(&temp).len(), 1, "the one that is still written");
        writing.fill(b"code").expect("it can be written");
        let file = writing.into_uncached().expect("it is complete");
        assert_eq!(Digest::of_file(&file).ok(), Some(Digest::of(b"code")));
        assert_eq!(names(&temp), Vec::<String>::new());
    }
}
