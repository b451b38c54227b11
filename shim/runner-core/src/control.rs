//! The verbs `start`, `delete`, `pause`, `resume` and `update`.

use libcgroups::common::{CgroupManager, ControllerOpt, FreezerState};
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::hooks::run_hooks;
use libcontainer::notify_socket::NotifySocket;
use libcontainer::process::intel_rdt::cleanup_intel_rdt;
use oci_spec::runtime::{Hook, Hooks, LinuxResources};
use wasmlet_protocol::{ContainerRef, ControlReply, GuestLimits};

use crate::failure::{Error, chain};
use crate::memory_cap::MemoryCap;
use crate::state::{Folders, Saved, guest_runs, remove_folders, stop_all};

/// A verb for a container that exists.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verb {
    /// Tells the init to run the guest, then runs the poststart hooks.
    Start,
    /// Kills what is left, runs the poststop hooks, removes cgroup and state.
    Delete,
    /// Freezes the cgroup.
    Pause,
    /// Thaws the cgroup.
    Resume,
    /// Changes the limits: those of the cgroup, and where they are given those of the guest.
    Update(Box<LinuxResources>, Option<GuestLimits>),
}

/// Does it.
pub(crate) fn run(verb: &Verb, container: &ContainerRef) -> ControlReply {
    let result = Folders::new(container).and_then(|folders| match verb {
        Verb::Start => start(&folders),
        Verb::Delete => delete(&folders),
        Verb::Pause => freeze(&folders, FreezerState::Frozen, "pause").map(nothing_to_warn_of),
        Verb::Resume => freeze(&folders, FreezerState::Thawed, "resume").map(nothing_to_warn_of),
        Verb::Update(resources, limits) => {
            update(&folders, resources, *limits).map(nothing_to_warn_of)
        }
    });
    match result {
        Ok(warnings) => ControlReply::Done { warnings },
        Err(error) => ControlReply::Failed(error.into()),
    }
}

fn nothing_to_warn_of((): ()) -> Vec<String> {
    Vec::new()
}

fn load(folders: &Folders) -> Result<Container, Error> {
    if !folders.state.exists() {
        return Err(folders.not_found());
    }
    Container::load(folders.state.clone()).map_err(|e| Error::Control {
        verb: "load the state of",
        detail: chain(&e),
    })
}

/// Not libcontainer's own start: that runs the poststart hooks before the startContainer hooks are done,
/// and ends at the first that fails. Tells of those that failed.
fn start(folders: &Folders) -> Result<Vec<String>, Error> {
    let container = load(folders)?;
    if !container.can_start() {
        return Err(Error::Status {
            status: container.status().to_string().to_lowercase(),
        });
    }
    let failed = |error: &dyn std::error::Error| Error::Control {
        verb: "start",
        detail: chain(error),
    };
    NotifySocket::new(folders.state.join("notify.sock"))
        .notify_container_start()
        .map_err(|e| failed(&e))?;
    guest_runs(folders).map_err(|e| failed(&e))?;
    let saved = folders.saved();
    Ok(run_each(
        "poststart",
        &saved,
        ContainerStatus::Running,
        |hooks| hooks.poststart().as_deref(),
    ))
}

/// Not libcontainer's own delete: that gives up on a container whose creation was cut short. Tells of
/// the poststop hooks that failed.
fn delete(folders: &Folders) -> Result<Vec<String>, Error> {
    let saved = folders.saved();
    stop_all(folders, &saved)?;
    if let Some(state) = &saved.state {
        cleanup_intel_rdt(
            state.intel_rdt_dir.as_deref(),
            state.intel_rdt_monitoring_dir.as_deref(),
            state.clean_up_intel_rdt_subdirectory,
            &folders.id,
        )
        .map_err(|e| Error::Control {
            verb: "remove the cache partition of",
            detail: chain(&e),
        })?;
    }
    let warnings = run_each("poststop", &saved, ContainerStatus::Stopped, |hooks| {
        hooks.poststop().as_deref()
    });
    remove_folders(folders)?;
    Ok(warnings)
}

/// Runs each of a container's hooks, whatever became of the one before, and gives a sentence for each
/// that failed.
///
/// The specification wants the runtime to log the failure of a hook that comes after the fact, and to
/// go on as if it had succeeded.
fn run_each(
    kind: &str,
    saved: &Saved,
    status: ContainerStatus,
    of: fn(&Hooks) -> Option<&[Hook]>,
) -> Vec<String> {
    let (Some(state), Some(config)) = (&saved.state, &saved.config) else {
        return Vec::new();
    };
    let mut state = state.clone();
    state.status = status;
    let hooks = config.hooks.as_ref().and_then(of).unwrap_or_default();
    hooks
        .iter()
        // One at a time: libcontainer stops at the first of a list that fails.
        .filter_map(|hook| {
            let one = vec![hook.clone()];
            run_hooks(Some(&one), Some(&state), None, None, None)
                .err()
                .map(|error| {
                    format!(
                        "the {kind} hook {}: {}",
                        hook.path().display(),
                        chain(&error)
                    )
                })
        })
        .collect()
}

fn freeze(folders: &Folders, state: FreezerState, verb: &'static str) -> Result<(), Error> {
    cgroup(folders)?.freeze(state).map_err(|e| Error::Control {
        verb,
        detail: chain(&e),
    })
}

/// The cgroup first: a limit that the kernel refuses leaves the guest's as it was.
fn update(
    folders: &Folders,
    resources: &LinuxResources,
    limits: Option<GuestLimits>,
) -> Result<(), Error> {
    let failed = |detail| Error::Control {
        verb: "update",
        detail,
    };
    cgroup(folders)?
        .apply(&ControllerOpt {
            resources,
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        })
        .map_err(|e| failed(chain(&e)))?;
    if let Some(limits) = limits {
        MemoryCap::moved(&folders.memory_cap(), limits.max_memory)
            .map_err(|e| failed(format!("the cap on linear memory: {e}")))?;
    }
    Ok(())
}

fn cgroup(folders: &Folders) -> Result<libcgroups::common::AnyCgroupManager, Error> {
    if !folders.state.exists() {
        return Err(folders.not_found());
    }
    folders
        .saved()
        .cgroup(&folders.id)
        .ok_or_else(|| folders.not_found())?
}
