//! Gives back what only the set-up needed.
//!
//! A container idles for days in a process that has made thirty mounts before: the pages of
//! libcontainer's deep stack frames and of its freed data are the container's for as long as it
//! lives, and there are hundreds of containers on a node.

/// How far below the stack pointer the set-up may have been: libcontainer's frames take less than
/// 128 KiB.
const DEEPEST_BYTES: usize = 512 * 1024;

/// Room below the stack pointer for the frames between this function and the system call.
const MARGIN_BYTES: usize = 16 * 1024;

/// Releases unused stack and heap.
#[inline(never)]
pub(super) fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
    let marker = 0u8;
    let here = &raw const marker as usize;
    // SAFETY: sysconf has no preconditions.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let end = here.saturating_sub(MARGIN_BYTES) / page * page;
    let start = end.saturating_sub(DEEPEST_BYTES);
    // SAFETY: stacks grow down, and this is the thread's own: below the stack pointer less a margin
    // there is nothing that anybody will read again, and when it is used again it begins with zeros.
    // The kernel keeps other mappings away from the main thread's stack by much more than this
    // range. Where it is not mapped yet the call changes nothing and reports an error, which is
    // of no interest.
    unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_in_use_stays() {
        let mut values = [0u64; 512];
        for (index, value) in values.iter_mut().enumerate() {
            *value = index as u64;
        }
        super::release();
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(index, value)| *value == index as u64)
        );
    }
}
