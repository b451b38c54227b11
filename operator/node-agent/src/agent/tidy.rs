//! What is removed beside orders: leftovers of agents that were killed, and the agent's own where nothing is installed any more.

use std::path::Path;

use wasmlet_api::names::{NODE_ROOT, NODE_RUNTIMES, NODE_SETTINGS, NODE_STATE, NODE_STORE};

use super::keeper::Keeper;
use crate::apply::state::Outcome;
use crate::errors::Chain;
use crate::host::Host;
use crate::host::task;
use crate::store::collect::holds_bundles;

/// Transient units of an agent that was killed.
pub async fn leftovers(host: &Host) {
    let stopped = match host.systemd().await {
        Ok(systemd) => systemd
            .stop_leftovers()
            .await
            .map_err(|error| Chain(&error).to_string()),
        Err(error) => Err(Chain(&error).to_string()),
    };
    if let Err(error) = stopped {
        tracing::warn!(
            error,
            "what an earlier agent may have left in systemd stays"
        );
    }
}

/// Containers of probes that were interrupted, and their namespace.
pub async fn probes(keeper: &Keeper<Host>) {
    let Some(socket) = keeper.socket() else {
        return;
    };
    if let Err(error) = task::remove_leftovers(socket).await {
        tracing::warn!(error = %Chain(&error), "what an earlier probe may have left in containerd stays");
    }
    let scratch = keeper.state_folder().join("probe");
    if let Err(error) = std::fs::remove_dir_all(&scratch)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %scratch.display(), %error, "FIFOs of a probe stay");
    }
}

/// At the end of the agent, where nothing is installed: its memory, and folders that are empty now. The kubelet makes them anew for the next one.
pub async fn at_end(keeper: &Keeper<Host>) {
    let state = keeper.state();
    let nothing = state
        .applied
        .as_ref()
        .is_none_or(|applied| applied.runtimes.is_empty());
    // An order that failed is remembered, or the next agent would carry it out once more.
    let open = state
        .last
        .as_ref()
        .is_some_and(|last| last.outcome != Some(Outcome::Applied));
    if !nothing || open || holds_bundles(Path::new(NODE_STORE)) {
        return;
    }
    forget(keeper.machine()).await;
}

/// Removes the agent's memory and the folders that are empty without it.
pub async fn forget(host: &Host) {
    let state = Path::new(NODE_STATE);
    for name in ["state.json", "owned.json", "lock"] {
        remove_file(&state.join(name));
    }
    for name in ["originals", "preflight", "probe", "journal.new"] {
        let path = state.join(name);
        if let Err(error) = std::fs::remove_dir_all(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "stays");
        }
    }
    remove_file(&Path::new(NODE_STORE).join(crate::store::stage::LOCK));
    // By the host: for the agent's pod they are mounts. The innermost first; one that is not empty stays.
    let folders = [
        "--ignore-fail-on-non-empty",
        NODE_STORE,
        NODE_RUNTIMES,
        NODE_ROOT,
        NODE_SETTINGS,
        NODE_STATE,
        "/var/lib/wasmlet",
    ];
    host.tidy("/bin/rmdir", &folders).await;
}

fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "stays");
    }
}
