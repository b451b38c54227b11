//! How an artifact is mapped.
//!
//! An artifact is a shared object, so that its code is pages of the file that every container shares. The
//! library loads it by path and no other way: it looks at the file, and has the C library map it with
//! dlopen(3). A container has no `/proc` to name the artifact's descriptor by, and its user has no right
//! to open the file again. So
//!
//! 1. the runner has the C library map the code while it still stands outside of the container; the init
//!    is a copy of the runner and has the mapping, too;
//! 2. in the init the library is given a name that stands for the artifact, and what it asks the C library
//!    for by that name is answered here (`interpose`): the descriptor, and the mapping there is.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use crate::library::{Configure, LibraryError, Module};

use super::interpose;

/// An artifact's code, mapped.
#[derive(Debug)]
pub(super) struct Code(NonNull<c_void>);

impl Code {
    /// Maps the code of the artifact behind a descriptor.
    pub(super) fn map(fd: i32) -> Result<Self, String> {
        let path = format!("/proc/self/fd/{fd}\0");
        // SAFETY: the path ends with a NUL. The file was written by our compile helper and verified by
        // the shim, which handed over the very inode it verified; it has no initializers.
        let handle =
            unsafe { libc::dlopen(path.as_ptr().cast(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(Self).ok_or_else(last_error)
    }

    /// Has the library parse the mapped artifact.
    pub(super) fn load(&self, fd: i32, configure: &Configure) -> Result<Module, LibraryError> {
        let loading = interpose::Loading { fd, handle: self.0 };
        interpose::while_loading(loading, |path| Module::of_artifact(configure, path))
    }
}

fn last_error() -> String {
    // SAFETY: the message is read before the next call of its family.
    let message = unsafe {
        let message = libc::dlerror();
        if message.is_null() {
            return "no reason given".to_owned();
        }
        CStr::from_ptr(message)
    };
    message.to_string_lossy().into_owned()
}
