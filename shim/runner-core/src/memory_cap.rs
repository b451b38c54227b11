//! The cap on a guest's linear memory.
//!
//! ```text
//! runner create ── makes <state>/memory-cap, maps it ──clone──▶ init: asks the mapping at every growth
//! runner update ── maps the same file, stores the new cap ──────────▲
//! ```
//!
//! The init can open nothing of the node any more, so a cap that moves has to be in memory that both
//! have. It is eight bytes in a file of the container's state folder, which only root can write to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stands for "no cap".
const NONE: u64 = u64::MAX;

/// Bytes that an element of a table takes: a reference to a function is a pointer, others take less.
pub const TABLE_ELEMENT_BYTES: u64 = 8;

/// Counts the bytes of all linear memories and tables of a guest, and refuses what goes beyond the cap.
///
/// Clones count together. All counting is atomic: a guest may have threads.
#[derive(Debug, Clone)]
pub struct MemoryCap(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    limit: Limit,
    used: AtomicU64,
    /// What the last refused growth would have made of it; 0 when there was none.
    refused: AtomicU64,
}

#[derive(Debug)]
enum Limit {
    /// In a file that others can write to, mapped until the process ends.
    Shared(&'static AtomicU64),
    /// In this process alone.
    Own(AtomicU64),
}

impl MemoryCap {
    /// A cap that nobody moves.
    pub fn fixed(limit: Option<u64>) -> Self {
        Self::new(Limit::Own(AtomicU64::new(limit.unwrap_or(NONE))))
    }

    /// Makes the file of a container and a cap on it.
    ///
    /// # Errors
    /// When the file cannot be made or mapped.
    pub(crate) fn create(path: &Path, limit: Option<u64>) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        // Written and not just made as long: on a full file system that is an error here, where a store to
        // a mapping of nothing would be a signal.
        file.write_all_at(&limit.unwrap_or(NONE).to_ne_bytes(), 0)?;
        Ok(Self::new(Limit::Shared(map(&file)?)))
    }

    /// Moves the cap of a running guest.
    ///
    /// # Errors
    /// When the container has no such file, or it cannot be mapped.
    pub(crate) fn moved(path: &Path, limit: Option<u64>) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // A shorter file would end this process with a signal at the first store.
        if file.metadata()?.len() != size_of::<AtomicU64>() as u64 {
            return Err(io::Error::other("the file is not the one that create made"));
        }
        map(&file)?.store(limit.unwrap_or(NONE), Ordering::SeqCst);
        Ok(())
    }

    fn new(limit: Limit) -> Self {
        Self(Arc::new(Counters {
            limit,
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// The cap in bytes as it is now.
    pub fn limit(&self) -> Option<u64> {
        let limit = match &self.0.limit {
            Limit::Shared(limit) => limit.load(Ordering::SeqCst),
            Limit::Own(limit) => limit.load(Ordering::SeqCst),
        };
        (limit != NONE).then_some(limit)
    }

    /// Counts that many bytes more; false when they would go beyond the cap, and then nothing is counted.
    pub fn grow(&self, bytes: u64) -> bool {
        let counted = self
            .0
            .used
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                let total = used.saturating_add(bytes);
                self.limit()
                    .is_none_or(|limit| total <= limit)
                    .then_some(total)
            });
        if let Err(used) = &counted {
            self.0
                .refused
                .store(used.saturating_add(bytes), Ordering::SeqCst);
        }
        counted.is_ok()
    }

    /// Takes back a growth that the system refused, or what a guest held that is gone.
    pub fn shrink(&self, bytes: u64) {
        let _ = self
            .0
            .used
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                Some(used.saturating_sub(bytes))
            });
    }

    /// What the last refused growth would have made of it, in bytes.
    pub fn refused(&self) -> Option<u64> {
        match self.0.refused.load(Ordering::SeqCst) {
            0 => None,
            bytes => Some(bytes),
        }
    }

    /// The end of a sentence about a trap: a guest that cannot get memory usually says so and then traps.
    pub fn hint(&self) -> Option<String> {
        self.hint_for(self.refused()?)
    }

    /// The same for one of many guests, which was refused when it would have made that many bytes of it.
    pub fn hint_for(&self, wanted: u64) -> Option<String> {
        let limit = self.limit()?;
        Some(format!(
            "; before, it was refused {wanted} bytes of linear memory and tables (limit {limit}): raise \
             the container's memory limit or wasmlet.dev/memory"
        ))
    }
}

fn map(file: &File) -> io::Result<&'static AtomicU64> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<AtomicU64>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, as long as the value (both callers made sure of the file's
    // length, and only root can cut it), any bytes are a valid value, every access to it is atomic,
    // and it is never unmapped.
    Ok(unsafe { &*address.cast::<AtomicU64>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_growths_count_together() {
        let cap = MemoryCap::fixed(Some(100));
        assert!(cap.grow(60));
        let second = cap.clone();
        assert!(!second.grow(41), "a second memory");
        assert_eq!(cap.refused(), Some(101));
        assert!(cap.grow(40));
        assert!(!cap.grow(1));
        assert!(!cap.grow(u64::MAX));
    }

    #[test]
    fn a_growth_that_the_system_refused_does_not_count() {
        let cap = MemoryCap::fixed(Some(100));
        assert!(cap.grow(90));
        cap.shrink(90);
        assert!(cap.grow(100));
        assert_eq!(cap.refused(), None);
    }

    #[test]
    fn without_a_cap_everything_goes() {
        let cap = MemoryCap::fixed(None);
        assert!(cap.grow(u64::MAX));
        assert_eq!((cap.limit(), cap.hint()), (None, None));
    }

    #[test]
    fn a_cap_moves_under_the_guest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memory-cap");
        let cap = MemoryCap::create(&path, Some(100)).expect("created");
        assert!(cap.grow(100) && !cap.grow(1));
        MemoryCap::moved(&path, Some(150)).expect("moved");
        assert_eq!(cap.limit(), Some(150));
        assert!(cap.grow(50) && !cap.grow(1));
        MemoryCap::moved(&path, Some(10)).expect("moved");
        assert!(!cap.grow(1), "less than is used: nothing more");
        MemoryCap::moved(&path, None).expect("lifted");
        assert!(cap.grow(1 << 40));
        std::fs::write(&path, "").expect("cut");
        MemoryCap::moved(&path, None).expect_err("not the file that create made");
        MemoryCap::moved(&folder.path().join("none"), None).expect_err("no such file");
    }
}
