//! Takes everything of ours off the node, without an agent or an operator.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use wasmlet_api::NodeTarget;

use super::keeper::Keeper;
use super::report::Report;
use super::tidy;
use crate::apply::state::{Outcome, StateError};
use crate::apply::{Applier, For, LockError};
use crate::config::is_ours;
use crate::errors::Chain;
use crate::facts::{Choices, Live as _, LiveError, Running, RunningError};
use crate::host::Host;
use crate::host::cri::{Cri, CriError};
use crate::host::node::OwnNode;

/// Between two looks at pods, or at the lock.
const LOOK: Duration = Duration::from_secs(1);

/// What becomes of pods that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// They end first.
    WaitFor,
    /// They go on without it.
    LeaveBehind,
}

/// Why it was not taken off.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// An agent runs.
    #[error("an agent still works on this node: remove its DaemonSet first")]
    Lock(#[source] LockError),
    /// What it remembers.
    #[error("what the agent left cannot be used")]
    State(#[from] StateError),
    /// The API.
    #[error("the node's labels cannot be removed")]
    Label(#[source] Box<kube::Error>),
    /// Pods.
    #[error("{} pods still use it, for example {}: remove them, or say --force", pods.len(), pods.iter().take(5).cloned().collect::<Vec<_>>().join(", "))]
    InUse {
        /// As `namespace/name`.
        pods: Vec<String>,
    },
    /// Pods cannot be counted.
    #[error("which pods use it cannot be known; with --force they are left behind")]
    Cri(#[from] CriError),
    /// Handlers cannot be known.
    #[error("which handlers are ours cannot be known; with --force pods are left behind")]
    Live(#[from] LiveError),
    /// Handlers cannot be known.
    #[error("which handlers are ours cannot be known; with --force pods are left behind")]
    Running(#[from] RunningError),
    /// The change failed.
    #[error("the node was not changed back ({reason}): {message}")]
    Failed {
        /// What kind.
        reason: &'static str,
        /// What happened.
        message: String,
    },
}

/// Takes everything of ours off the node.
///
/// # Errors
/// [`RemoveError`]; with `InUse` and `Lock` nothing was changed but the labels.
pub async fn run(
    node: Option<&str>,
    choices: Choices,
    users: Users,
    timeout: Duration,
) -> Result<(), RemoveError> {
    let until = Instant::now() + timeout;
    let host = match (node, Client::try_default().await) {
        (Some(name), Ok(client)) => {
            let node = OwnNode::new(client, name);
            // First, so that no new pods come.
            node.set_ready_labels(&BTreeMap::new())
                .await
                .map_err(|error| RemoveError::Label(Box::new(error)))?;
            Host::with_node(node)
        }
        (Some(_), Err(error)) => {
            tracing::warn!(error = %Chain(&error), "no Kubernetes API: the node's labels are left alone");
            Host::default()
        }
        (None, _) => Host::default(),
    };
    let applier = loop {
        match Applier::lock(Path::new("/")) {
            Ok(applier) => break applier,
            Err(LockError::Held(_)) if Instant::now() < until => sleep(LOOK).await,
            Err(error) => return Err(RemoveError::Lock(error)),
        }
    };
    tidy::leftovers(&host).await;
    let (reports, _report) = watch::channel(Report::default());
    let mut keeper = Keeper::new(host, Path::new("/"), choices, applier, reports).await?;
    if users == Users::WaitFor
        && let Some(socket) = keeper.socket()
    {
        wait_for_pods(keeper.machine(), socket, until).await?;
    }
    let target = NodeTarget::default();
    let attempt = keeper.state().last.as_ref().map_or(0, |last| last.attempt) + 1;
    let order = For {
        revision: target.revision(),
        attempt,
    };
    keeper.order(order, &target).await;
    let outcome = keeper
        .state()
        .last
        .as_ref()
        .and_then(|last| last.outcome.clone());
    match outcome {
        Some(Outcome::Applied) => {}
        Some(
            Outcome::RolledBack(reason, message)
            | Outcome::Broken(reason, message)
            | Outcome::Refused(reason, message),
        ) => {
            return Err(RemoveError::Failed {
                reason: reason.name(),
                message,
            });
        }
        None => {
            return Err(RemoveError::Failed {
                reason: "Interrupted",
                message: "the order did not end".to_owned(),
            });
        }
    }
    tidy::probes(&keeper).await;
    tidy::at_end(&keeper).await;
    Ok(())
}

async fn wait_for_pods(host: &Host, socket: &Path, until: Instant) -> Result<(), RemoveError> {
    let mut said = Vec::new();
    loop {
        let running = Running::parse(&host.cri(socket).await?)?;
        let pods: Vec<String> = Cri::new(socket)
            .sandboxes()
            .await?
            .into_iter()
            .filter(|sandbox| running.handlers.get(&sandbox.handler).is_some_and(is_ours))
            .map(|sandbox| sandbox.pod)
            .collect();
        if pods.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(RemoveError::InUse { pods });
        }
        if said != pods {
            tracing::info!(pods = pods.join(", "), "waiting for pods that use it");
            said = pods;
        }
        sleep(LOOK).await;
    }
}
