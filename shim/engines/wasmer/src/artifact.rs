//! From the file of an artifact to a module.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use bytes::Bytes;
use wasmer::{DeserializeError, Engine, Module};

/// Why an artifact does not load.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// It cannot be mapped.
    Map(io::Error),
    /// Wasmer does not take it.
    Module(DeserializeError),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Map(error) => write!(f, "it cannot be mapped: {error}"),
            Self::Module(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Map(error) => Some(error),
            Self::Module(error) => Some(error),
        }
    }
}

/// Loads an artifact. What describes the module stays in the mapped file; Wasmer copies the code, and makes
/// the copy executable here and now.
///
/// # Errors
/// When it cannot be mapped, or is of another Wasmer or for another processor.
///
/// # Safety
/// The file must have been written by our compile helper and never change again: the code in it is run.
pub(crate) unsafe fn load(engine: &Engine, file: &File) -> Result<Module, LoadError> {
    let bytes = Bytes::from_owner(Mapped::new(file).map_err(LoadError::Map)?);
    // SAFETY: the caller's promise.
    unsafe { Module::deserialize(engine, bytes) }.map_err(LoadError::Module)
}

/// A file in memory, never unmapped: the module lives as long as the process.
struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is only read, and belongs to nobody else.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice; an empty file is an error of mmap.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // The kernel maps nothing at address 0 by itself.
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is that long, is never unmapped, and the caller of `load` promised that the
        // file does not change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}
