//! Keeps one node as it was ordered: carries orders out, once for each attempt, and repairs what others change.
//!
//! Everything that it does is seen in a [`Report`], which it publishes whenever something has changed; who sends it on is not its affair.

mod drift;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wasmlet_api::names::{NODE_RUNTIMES, NODE_STORE};
use wasmlet_api::node::AgentState;
use wasmlet_api::reasons::Reason;
use wasmlet_api::{Digest, NodeTarget};

pub use self::drift::Check;
use self::drift::Checks;
use super::difference::linked;
use super::report::{Drift, LastError, Report};
use crate::apply::machine::Machine;
use crate::apply::state::{Order, Outcome, State, StateError};
use crate::apply::{Applier, ApplyError, For, Node, Now, Probing, Restarted, below, files};
use crate::errors::Chain;
use crate::facts::{Bundle, Choices, HostFacts, gather};
use crate::folder::Folder;
use crate::plan::{Change, Plan, plan};
use crate::store::{check, collect};

/// Facts that were too old when a plan was carried out are gathered so often anew.
const LOOKS: u32 = 3;
/// An order whose agent was killed so often is given up: it may be the order that kills it.
const BEGINNINGS: u32 = 4;
/// Bundles younger than this are kept: they may have been staged for an order that is still to come.
const YOUNG: Duration = Duration::from_secs(3600);

/// Keeps one node.
pub struct Keeper<M> {
    machine: M,
    root: PathBuf,
    choices: Choices,
    applier: Applier,
    state: State,
    report: watch::Sender<Report>,
    checks: Checks,
    socket: Option<PathBuf>,
}

/// Why a node cannot be looked at or changed: reason and message.
type Why = (Reason, String);

impl<M: Machine> Keeper<M> {
    /// Takes the node over: what an earlier agent left is brought to an end, and the node is looked at.
    ///
    /// # Errors
    /// [`StateError`]
    pub async fn new(
        machine: M,
        root: &Path,
        choices: Choices,
        applier: Applier,
        report: watch::Sender<Report>,
    ) -> Result<Self, StateError> {
        let state = State::read(applier.state_folder())?;
        let mut keeper = Self {
            machine,
            root: root.to_owned(),
            choices,
            applier,
            state,
            report,
            checks: Checks::default(),
            socket: None,
        };
        keeper.recover().await;
        keeper.show();
        // So that the node's facts are reported before anything is ordered.
        match keeper.look().await {
            Ok(_) => {}
            Err((reason, message)) => keeper.refuse_at_start(reason, message),
        }
        Ok(keeper)
    }

    /// What is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn outcome(&self) -> Option<&Outcome> {
        self.state.last.as_ref()?.outcome.as_ref()
    }

    /// The agent's state folder.
    pub fn state_folder(&self) -> &Path {
        self.applier.state_folder()
    }

    /// containerd's socket, if the node could be looked at.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// What it works with.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    fn refuse_at_start(&self, reason: Reason, message: String) {
        tracing::warn!(
            reason = reason.name(),
            message,
            "the node cannot be looked at"
        );
        self.report.send_modify(|report| {
            if reason == Reason::UnsupportedNode {
                report.agent.state = AgentState::Refused;
            }
            report.last_error = Some(LastError::now(reason, message));
        });
    }

    /// Brings to an end what is in the journal.
    async fn recover(&mut self) {
        let recovered = match self.applier.recover(&self.machine).await {
            Ok(None) => return,
            Ok(Some(recovered)) => recovered,
            Err(error) => {
                self.end_order(Outcome::Broken(error.reason(), Chain(&error).to_string()));
                return;
            }
        };
        self.state.restarts += recovered.restarts;
        let was_this = self.state.last.as_ref().is_some_and(|order| {
            (order.revision.as_str(), order.attempt)
                == (recovered.revision.as_str(), recovered.attempt)
        });
        match recovered.now {
            Now::Finished => {
                self.remember_folders(&recovered.made_folders);
                // That it was applied is written down when it is found so, by the next try, which finds nothing to do.
                tracing::info!("the interrupted change had been verified, and is finished");
                if let Some(last) = self.state.last.as_mut().filter(|_| was_this) {
                    last.outcome = None;
                }
            }
            Now::TakenBack => {
                self.state.rollbacks += 1;
                tracing::warn!("the interrupted change was taken back");
                // If a failure is remembered it stays; if the agent was killed the order is begun again.
                if let Some(Order {
                    outcome: Some(Outcome::Broken(reason, message)),
                    ..
                }) = &self.state.last
                    && was_this
                {
                    let outcome = Outcome::RolledBack(*reason, message.clone());
                    self.end_order(outcome);
                    return;
                }
            }
            Now::Broken(error) => {
                let message = Chain(&error).to_string();
                tracing::error!(message, "the interrupted change could not be taken back");
                // What failed first says more than what fails at every try.
                if !matches!(self.outcome(), Some(Outcome::Broken(..))) {
                    self.end_order(Outcome::Broken(Reason::RollbackFailed, message));
                }
                return;
            }
        }
        self.remember();
    }

    /// Carries an order out, unless that was done.
    pub async fn order(&mut self, order: For, target: &NodeTarget) {
        let begun = match &self.state.last {
            Some(last) if (&last.revision, last.attempt) == (&order.revision, order.attempt) => {
                if last.outcome.is_some() {
                    self.show();
                    return;
                }
                last.begun
            }
            _ => 0,
        };
        self.state.last = Some(Order {
            revision: order.revision.clone(),
            attempt: order.attempt,
            begun: begun + 1,
            outcome: None,
        });
        if let Err(error) = self.state.write(self.applier.state_folder()) {
            // An order that cannot be remembered is not begun: nobody would know after a crash what was being done.
            let message = Chain(&error).to_string();
            self.end_order(Outcome::RolledBack(Reason::WriteFailed, message));
            return;
        }
        if begun + 1 >= BEGINNINGS {
            let message = format!(
                "the agent was ended {begun} times while it carried this order out; see its logs with kubectl logs --previous, and the node's journal for the out-of-memory killer"
            );
            self.end_order(Outcome::RolledBack(Reason::Interrupted, message));
            return;
        }
        tracing::info!(
            revision = order.revision,
            attempt = order.attempt,
            "carrying an order out"
        );
        self.show();
        let started = Instant::now();
        let outcome = self.carry_out(&order, target).await;
        self.state.last_change_millis =
            i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        match &outcome {
            Outcome::Applied => {
                tracing::info!(millis = self.state.last_change_millis, "applied");
                self.state.applied = Some(target.clone());
                if target.runtimes.is_empty() {
                    self.remove_made_folders();
                    self.remove_rest().await;
                }
                self.in_order(Drift::InSync);
            }
            Outcome::RolledBack(reason, message) | Outcome::Refused(reason, message) => {
                tracing::error!(
                    reason = reason.name(),
                    message,
                    "the order failed; the node is as before"
                );
            }
            Outcome::Broken(reason, message) => {
                tracing::error!(
                    reason = reason.name(),
                    message,
                    "the order failed, and so did putting the node back"
                );
            }
        }
        self.checks.forget();
        self.end_order(outcome);
        // The store, the containerd: what is reported is what is now.
        self.look().await.ok();
    }

    fn end_order(&mut self, outcome: Outcome) {
        if let Some(last) = &mut self.state.last {
            last.outcome = Some(outcome);
        } else if let Outcome::Broken(..) = outcome {
            self.state.last = Some(Order {
                revision: String::new(),
                attempt: 0,
                begun: 0,
                outcome: Some(outcome),
            });
        }
        self.remember();
        self.show();
    }

    /// On a full disk the node is still kept; only after a restart the agent knows less.
    fn remember(&self) {
        if let Err(error) = self.state.write(self.applier.state_folder()) {
            tracing::error!(error = %Chain(&error), "what was done cannot be remembered");
        }
    }

    async fn carry_out(&mut self, order: &For, target: &NodeTarget) -> Outcome {
        let mut looks = 0;
        loop {
            looks += 1;
            let (facts, plan) = match self.plan(target).await {
                Ok(found) => found,
                Err((reason @ Reason::UnsupportedNode, message)) => {
                    return Outcome::Refused(reason, message);
                }
                Err((reason, message)) => return Outcome::RolledBack(reason, message),
            };
            if let Err((reason, message)) = self.check_bundles(&plan).await {
                return Outcome::RolledBack(reason, message);
            }
            match self.apply(&facts, &plan, order, Probing::Handlers).await {
                Ok(_) => return Outcome::Applied,
                Err((ApplyError::Stale(path), Node::Untouched | Node::PutBack { .. }))
                    if looks < LOOKS =>
                {
                    tracing::info!(path = %path.display(), "changed at this moment; looking again");
                }
                Err((error, node)) => {
                    let (reason, message) = (error.reason(), Chain(&error).to_string());
                    return match node {
                        Node::Untouched | Node::PutBack { .. } => {
                            Outcome::RolledBack(reason, message)
                        }
                        Node::Broken => Outcome::Broken(reason, message),
                    };
                }
            }
        }
    }

    async fn plan(&mut self, target: &NodeTarget) -> Result<(HostFacts, Plan), Why> {
        let facts = self.look().await?;
        let plan = plan(&facts, target)
            .map_err(|refusal| (refusal.reason(), Chain(&refusal).to_string()))?;
        let written = plan
            .written_path
            .as_ref()
            .map(|path| path.display().to_string());
        self.report.send_modify(|report| {
            if let Some(containerd) = &mut report.agent.containerd {
                containerd.config_version = plan.config_version;
                containerd.written_path = written.unwrap_or_default();
            }
            report.agent.advice = plan.advice.iter().take(10).cloned().collect();
        });
        Ok((facts, plan))
    }

    /// Bundles that links will lead to, every byte of them.
    async fn check_bundles(&self, plan: &Plan) -> Result<(), Why> {
        for change in &plan.before_restart {
            let Change::Link(link) = change else { continue };
            let name = link.after.as_deref().and_then(Path::file_name);
            let Some(digest) = name.and_then(collect::bundle_name) else {
                continue;
            };
            let folder = below(&self.root, &Path::new(NODE_STORE).join(digest.hex()));
            let checked = tokio::task::spawn_blocking(move || {
                let opened = Folder::open(&folder).map_err(check::io("open", folder))?;
                check::check(&opened, &digest).map(drop)
            });
            match checked.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err((Reason::BundleMissing, Chain(&error).to_string())),
                Err(error) => return Err((Reason::BundleMissing, error.to_string())),
            }
        }
        Ok(())
    }

    async fn apply(
        &mut self,
        facts: &HostFacts,
        plan: &Plan,
        order: &For,
        probing: Probing,
    ) -> Result<Restarted, (ApplyError, Node)> {
        let applied = self
            .applier
            .apply(&self.machine, facts, plan, order, probing)
            .await;
        match applied {
            Ok((restarted, made)) => {
                self.state.restarts += i64::from(restarted == Restarted::Once);
                self.remember_folders(&made);
                Ok(restarted)
            }
            Err(failed) => {
                if let Node::PutBack { restarts } = failed.node {
                    self.state.restarts += restarts;
                    self.state.rollbacks += 1;
                }
                Err((failed.error, failed.node))
            }
        }
    }

    fn remember_folders(&mut self, made: &[PathBuf]) {
        for folder in made {
            if !self.state.made_folders.contains(folder) {
                self.state.made_folders.push(folder.clone());
            }
        }
    }

    /// Folders that were made for a drop-in go with it, unless somebody else uses them meanwhile.
    fn remove_made_folders(&mut self) {
        for folder in std::mem::take(&mut self.state.made_folders).iter().rev() {
            if let Err(error) = files::remove_empty(&below(&self.root, folder)) {
                tracing::warn!(error = %Chain(&error), "a folder stays");
            }
        }
    }

    /// Removes what nothing needs any more: old bundles, and with the last one of a node without runtimes also what they left. A node without
    /// bundles may have been given the shim by somebody else, whose cache and records these are.
    pub async fn tidy(&self) {
        let applied = self.state.applied.as_ref();
        let has_none = applied.is_some_and(|applied| applied.runtimes.is_empty());
        if has_none && self.holds_bundles() {
            self.remove_rest().await;
        } else {
            self.collect();
        }
    }

    fn holds_bundles(&self) -> bool {
        collect::holds_bundles(&below(&self.root, Path::new(NODE_STORE)))
    }

    /// After all runtimes were taken off the node: what they left. Before the order counts as carried out, so that an agent which is killed
    /// here does it again. Bundles that a shim still holds stay, and so does what it runs with.
    async fn remove_rest(&self) {
        self.collect();
        if self.holds_bundles() {
            tracing::info!(
                "pods still run with wasmlet's programs; those, the cache and the records stay until they are gone"
            );
            return;
        }
        self.machine.remove_traces().await;
    }

    /// Looks at the node, and reports what it is.
    async fn look(&mut self) -> Result<HostFacts, Why> {
        let facts = gather(&self.root, &self.machine, &self.choices)
            .await
            .map_err(|error| (error.reason(), Chain(&error).to_string()))?;
        self.socket = Some(facts.layout.socket.clone());
        let staged = facts
            .bundles
            .iter()
            .filter(|(_, bundle)| matches!(bundle, Bundle::Listed { .. }))
            .map(|(digest, _)| digest.clone())
            .collect();
        let versions = facts
            .bundles
            .iter()
            .filter_map(|(digest, bundle)| match bundle {
                Bundle::Listed { version, .. } => Some((digest.clone(), version.clone())),
                Bundle::Broken(_) => None,
            })
            .collect();
        self.report.send_modify(|report| {
            report.agent.staged = staged;
            report.versions = versions;
            report.agent.distribution = facts.layout.distribution.name().to_owned();
            let containerd = report.agent.containerd.get_or_insert_default();
            containerd.version = facts.containerd.to_string();
            containerd.config_path = facts.layout.loaded.display().to_string();
        });
        self.show();
        Ok(facts)
    }

    /// Removes bundles that nothing needs any more.
    fn collect(&self) {
        let Some(target) = &self.state.applied else {
            return;
        };
        let store = below(&self.root, Path::new(NODE_STORE));
        let mut keep: Vec<Digest> = target
            .runtimes
            .iter()
            .map(|runtime| runtime.digest.clone())
            .collect();
        // A link that was not taken away is reason enough.
        keep.extend(linked(&below(&self.root, Path::new(NODE_RUNTIMES))));
        let age = if target.runtimes.is_empty() {
            Duration::ZERO
        } else {
            YOUNG
        };
        match collect::collect(&store, &keep, age) {
            Ok(collected) => {
                for digest in &collected.removed {
                    tracing::info!(%digest, "removed a bundle that nothing uses");
                }
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "old bundles stay"),
        }
    }

    /// Publishes what is remembered.
    fn show(&self) {
        self.report.send_modify(|report| report.tell(&self.state));
    }
}
