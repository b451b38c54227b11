//! The guest's stack.

use std::io;
use std::ops::Range;
use std::ptr;

/// Smallest and largest stack that can be asked for, in bytes.
const SMALLEST_BYTES: u64 = 64 << 10;
const LARGEST_BYTES: u64 = 1 << 30;

/// Room for the host functions that the guest calls at the deepest point of its own calls, in bytes: a
/// name lookup takes the most.
const HOST_BYTES: usize = 256 << 10;

/// Addresses below the stack that nothing may use. A function of a guest can have 50 000 local variables
/// of 16 bytes, and none of its pages need be touched in order.
const GUARD_BYTES: usize = 16 << 20;

/// Whether a stack of that size can be had.
pub(super) fn check(bytes: u64) -> Result<(), String> {
    if (SMALLEST_BYTES..=LARGEST_BYTES).contains(&bytes) {
        return Ok(());
    }
    Err(format!(
        "wasmlet.dev/max-stack is {bytes} bytes; wasmedge takes {SMALLEST_BYTES} (64Ki) to \
         {LARGEST_BYTES} (1Gi)"
    ))
}

/// A stack with its guard, mapped until the process ends.
#[derive(Debug)]
pub(super) struct Stack {
    /// Addresses that a thread may use.
    pub(super) usable: Range<usize>,
    /// Addresses below them.
    pub(super) guard: Range<usize>,
}

impl Stack {
    /// # Errors
    /// When there is no memory.
    pub(super) fn map(bytes: u64) -> io::Result<Self> {
        // SAFETY: sysconf has no preconditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let wanted = usize::try_from(bytes).map_err(io::Error::other)?;
        let usable = (wanted + HOST_BYTES).next_multiple_of(page);
        // SAFETY: fresh memory without a given address.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                GUARD_BYTES + usable,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let bottom = start as usize + GUARD_BYTES;
        // SAFETY: the upper part of what was mapped just above.
        let opened = unsafe {
            libc::mprotect(
                bottom as *mut libc::c_void,
                usable,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        if opened != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            usable: bottom..bottom + usable,
            guard: start as usize..bottom,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_as_large_as_asked_for_and_guarded() {
        let stack = Stack::map(1 << 20).expect("memory");
        assert!(stack.usable.len() >= (1 << 20) + HOST_BYTES);
        assert_eq!(stack.guard.end, stack.usable.start);
        assert_eq!(stack.guard.len(), GUARD_BYTES);
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused_with_the_range() {
        assert!(check(1 << 20).is_ok());
        for bytes in [0, 1 << 10, 2 << 30] {
            let error = check(bytes).expect_err("out of range");
            assert!(error.contains("64Ki") && error.contains("1Gi"), "{error}");
        }
    }
}
