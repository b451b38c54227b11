//! Waits for the kernel before anybody else has to.

use std::fs;
use std::thread::{Builder, JoinHandle};

use super::Cgroup;

/// Enough to read one small file and write another.
const STACK_BYTES: usize = 32 * 1024;

/// Moves this process into the cgroup that it is in, on a thread of its own.
///
/// The first move of a process on a node that was quiet waits for an RCU grace period, 10 to 12 ms: the kernel turns
/// `cgroup_threadgroup_rwsem` over to its writers (kernel/cgroup/cgroup.c). For a moment afterwards nobody waits. The
/// init of the container that this shim was started for is moved some milliseconds from now, and finds the wait
/// begun. Nothing else is changed by it, so a failure is none. On two
/// processors with cgroup v1 it is an eighth of a container's life in `hack/bench start`.
///
/// Not for a shim that somebody else is about to move.
pub fn settle_ahead() -> Option<JoinHandle<()>> {
    let thread = Builder::new().stack_size(STACK_BYTES).spawn(|| {
        let own = i32::try_from(std::process::id()).ok();
        let cgroup = own.and_then(|pid| Cgroup::of(pid).ok());
        let Some(folder) = cgroup.as_ref().and_then(Cgroup::any_folder) else {
            return;
        };
        // 0 is who writes (cgroups(7)).
        if let Err(error) = fs::write(folder.join("cgroup.procs"), "0") {
            tracing::debug!(%error, "the wait for the first move was not begun early");
        }
    });
    thread
        .inspect_err(
            |error| tracing::debug!(%error, "no thread to begin the wait for the first move early"),
        )
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_stays_where_it_is() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        let before = Cgroup::of(own).expect("a cgroup");
        if let Some(thread) = settle_ahead() {
            thread.join().expect("it does not panic");
        }
        assert_eq!(Cgroup::of(own).expect("a cgroup"), before);
    }
}
