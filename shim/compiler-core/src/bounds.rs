//! What the helper does to itself before it looks at the module.

use std::fs;
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::resource::{Resource, UsageWho, getrusage, rlim_t, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::getppid;
use wasmlet_protocol::CompileRequest;

use crate::CompileError;

/// Largest artifact: what the cache takes as one entry.
const ARTIFACT_LIMIT_BYTES: rlim_t = 512 << 20;

/// Between the signal that says that the processor time is used up and the one that ends the process.
const CPU_SLACK_SECONDS: rlim_t = 5;

/// Ties the life of this process to that of the shim that asked.
///
/// A shim that is killed cannot end its helper, and what nobody waits for would go on using the place
/// of others in the node's compile cgroup.
pub(super) fn follow_parent(request: &CompileRequest) -> Result<(), CompileError> {
    let Some(parent) = request.parent else {
        return Ok(());
    };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| CompileError::Parent {
        parent,
        source: errno.into(),
    })?;
    // Only now: of a parent that ended before nobody will be told.
    if u32::try_from(getppid().as_raw()) == Ok(parent) {
        Ok(())
    } else {
        Err(CompileError::Orphan { parent })
    }
}

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
/// anything behind and from going on for ever. Memory is bounded by the cgroup, and time by the shim
/// first of all.
///
/// # Errors
/// When the kernel refuses a bound.
pub(super) fn apply(request: &CompileRequest) -> Result<(), CompileError> {
    // Raising the score is always allowed; a /proc that cannot be written is no reason to stop.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    // A core file would hold the module of a tenant.
    limit(Resource::RLIMIT_CORE, "core file", 0, 0)?;
    // SAFETY: ignoring a signal installs no handler. A write beyond the limit is an error then, which
    // has a message, where the signal would end the process without one.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.map_err(|errno| {
        CompileError::Limit {
            what: "file size",
            source: errno.into(),
        }
    })?;
    limit(
        Resource::RLIMIT_FSIZE,
        "file size",
        ARTIFACT_LIMIT_BYTES,
        ARTIFACT_LIMIT_BYTES,
    )?;
    if let Some(seconds) = request.time_limit_seconds {
        // All threads together.
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        let seconds = seconds.max(1).saturating_mul(threads);
        limit(
            Resource::RLIMIT_CPU,
            "processor time",
            seconds,
            seconds.saturating_add(CPU_SLACK_SECONDS),
        )?;
    }
    Ok(())
}

fn limit(
    resource: Resource,
    what: &'static str,
    soft: rlim_t,
    hard: rlim_t,
) -> Result<(), CompileError> {
    setrlimit(resource, soft, hard).map_err(|errno| CompileError::Limit {
        what,
        source: errno.into(),
    })
}

/// Highest resident memory so far, in bytes.
pub(super) fn peak_memory() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF)
        .ok()
        // in KiB (getrusage(2))
        .and_then(|usage| u64::try_from(usage.max_rss()).ok())
        .map_or(0, |kib| kib * 1024)
}
