//! A file system of this process alone for what the linker writes by name.
//!
//! WasmEdge's compiler writes an object file and links it into a shared object, both by path, and the
//! helper must leave nothing behind, however it ends. So it works in a tmpfs that is mounted nowhere: it
//! is reached through its descriptor, is charged to the compile cgroup, and is gone with the process.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// See fsconfig(2).
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC`.
const CLOEXEC: libc::c_uint = 1;

/// The file system.
#[derive(Debug)]
pub(super) struct Scratch(OwnedFd);

impl Scratch {
    /// # Errors
    /// When the kernel has no fsopen(2) (before 5.2), or this process is not root.
    pub(super) fn new() -> io::Result<Self> {
        let context = descriptor(|| {
            // SAFETY: the name is a string that lives through the call.
            unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOEXEC) }
        })?;
        // SAFETY: with this command the call takes no more than the descriptor.
        let created = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                FSCONFIG_CMD_CREATE,
                ptr::null::<libc::c_char>(),
                ptr::null::<libc::c_void>(),
                0,
            )
        };
        if created != 0 {
            return Err(io::Error::last_os_error());
        }
        descriptor(|| {
            // SAFETY: the call takes a descriptor and two sets of flags.
            unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) }
        })
        .map(Self)
    }

    /// Its root, for this process alone.
    pub(super) fn root(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Path of a file in it, for this process alone.
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.root())
    }

    /// The same for the library.
    pub(super) fn c_path(&self, name: &str) -> CString {
        CString::new(self.path(name)).expect("neither a number nor the names here have a NUL")
    }

    /// Opens a file in it for reading.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.path(name))
    }
}

fn descriptor(call: impl FnOnce() -> libc::c_long) -> io::Result<OwnedFd> {
    let result = call();
    match i32::try_from(result) {
        // SAFETY: the kernel has just made the descriptor, and nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
