//! Closing what the guest's process must not hold.
//!
//! libcontainer marks descriptors close-on-exec, and a wasm container never execs: sockets of its
//! channels and a descriptor on the node's `/` would stay open beside the guest.

use std::io;
use std::os::fd::RawFd;

/// Closes every descriptor from 3 up that is not in the list.
///
/// # Errors
/// When the kernel has no close_range(2) (before 5.9).
pub(crate) fn close_all_except(keep: &[RawFd]) -> io::Result<()> {
    for (first, last) in gaps(keep) {
        // SAFETY: the caller gives up everything that is not in its list. What still believes to
        // own one of the descriptors is never used or dropped: the process only runs the guest and
        // then leaves through `_exit`.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn gaps(keep: &[RawFd]) -> Vec<(u32, u32)> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd >= 3)
        .collect();
    keep.sort_unstable();
    let mut gaps = Vec::new();
    let mut next = 3;
    for fd in keep {
        if fd > next {
            gaps.push((next, fd - 1));
        }
        next = next.max(fd + 1);
    }
    gaps.push((next, u32::MAX));
    gaps
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn the_gaps_leave_out_what_is_kept() {
        assert_eq!(gaps(&[]), [(3, u32::MAX)]);
        assert_eq!(gaps(&[0, 1, 2, 4]), [(3, 3), (5, u32::MAX)]);
        assert_eq!(gaps(&[9, 4, 4, -1]), [(3, 3), (5, 8), (10, u32::MAX)]);
        assert_eq!(gaps(&[3]), [(4, u32::MAX)]);
    }
}
