//! What the helper does to itself before it looks at the module.

use std::fs;
use std::path::PathBuf;

use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};

use super::CompileError;

/// Moves this process into the node's compile cgroup, so that every byte of it is charged there.
pub(super) fn join(cgroups: &[PathBuf]) -> Result<(), CompileError> {
    for path in cgroups {
        // 0 stands for the writing process, whatever pid namespace it is in.
        fs::write(path, "0").map_err(|source| CompileError::Cgroup {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Makes this process the first to go when the node runs out of memory, and keeps it from leaving
/// anything behind. Time and memory are bounded by the shim and the cgroup.
pub(super) fn apply() {
    // Raising the score is always allowed; a /proc that cannot be written is no reason to stop.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    // A core file would hold the module of a tenant.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// Highest resident memory so far, in bytes.
pub(super) fn peak_memory() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF)
        .ok()
        // in KiB (getrusage(2))
        .and_then(|usage| u64::try_from(usage.max_rss()).ok())
        .map_or(0, |kib| kib * 1024)
}
