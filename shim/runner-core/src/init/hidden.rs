//! Keeps the init's `/proc` entry from the other containers of the pod.
//!
//! Where a pod shares its pid namespace, a sidecar that runs as the same user could otherwise open
//! `/proc/INIT/exe` (the runner on the node), `/proc/INIT/fd/4` (the compiled module, in the node's
//! cache) and `/proc/INIT/mem`. A process that is not dumpable is shown only to those with
//! CAP_SYS_PTRACE over the user namespace it was started in (ptrace(2)), which is the node's.

use std::io;

/// Makes this process not dumpable. What it forks is not, either, until a change of user, after which
/// `fs.suid_dumpable` decides (proc(5)): then it has to be done again.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn hide() -> io::Result<()> {
    // SAFETY: with these arguments the call only sets a flag of this process.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
