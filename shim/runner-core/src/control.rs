//! The verbs `start`, `delete`, `pause`, `resume` and `update`.

use libcgroups::common::{CgroupManager, ControllerOpt, FreezerState};
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::hooks::run_hooks;
use libcontainer::process::intel_rdt::cleanup_intel_rdt;
use oci_spec::runtime::LinuxResources;
use wasmlet_protocol::{ContainerRef, ControlReply};

use crate::failure::{Error, chain};
use crate::state::{Folders, Saved, remove_folders, stop_all};

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
    /// Changes the limits.
    Update(Box<LinuxResources>),
}

/// Does it.
pub(crate) fn run(verb: &Verb, container: &ContainerRef) -> ControlReply {
    let result = Folders::new(container).and_then(|folders| match verb {
        Verb::Start => start(&folders).map(nothing_to_warn_of),
        Verb::Delete => delete(&folders),
        Verb::Pause => freeze(&folders, FreezerState::Frozen, "pause").map(nothing_to_warn_of),
        Verb::Resume => freeze(&folders, FreezerState::Thawed, "resume").map(nothing_to_warn_of),
        Verb::Update(resources) => update(&folders, resources).map(nothing_to_warn_of),
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

fn start(folders: &Folders) -> Result<(), Error> {
    let mut container = load(folders)?;
    if !container.can_start() {
        return Err(Error::Status {
            status: container.status().to_string().to_lowercase(),
        });
    }
    container.start().map_err(|e| Error::Control {
        verb: "start",
        detail: chain(&e),
    })
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
    let warnings = poststop(&saved);
    remove_folders(folders)?;
    Ok(warnings)
}

/// Runs the poststop hooks, each whatever became of the one before, and gives a sentence for each
/// that failed.
///
/// The specification wants them after the container is gone, and wants the runtime to log a failure
/// and to go on as if the hook had succeeded.
fn poststop(saved: &Saved) -> Vec<String> {
    let (Some(state), Some(config)) = (&saved.state, &saved.config) else {
        return Vec::new();
    };
    let mut state = state.clone();
    state.status = ContainerStatus::Stopped;
    let hooks = config
        .hooks
        .as_ref()
        .and_then(|hooks| hooks.poststop().as_ref());
    hooks
        .into_iter()
        .flatten()
        // One at a time: libcontainer stops at the first of a list that fails.
        .filter_map(|hook| {
            let one = vec![hook.clone()];
            run_hooks(Some(&one), Some(&state), None, None, None)
                .err()
                .map(|error| {
                    format!(
                        "the poststop hook {}: {}",
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

fn update(folders: &Folders, resources: &LinuxResources) -> Result<(), Error> {
    cgroup(folders)?
        .apply(&ControllerOpt {
            resources,
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        })
        .map_err(|e| Error::Control {
            verb: "update",
            detail: chain(&e),
        })
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
