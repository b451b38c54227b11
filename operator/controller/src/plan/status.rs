//! What a WasmRuntime's status says.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use wasmlet_api::WasmRuntimeStatus;
use wasmlet_api::conditions::{self, Status};
use wasmlet_api::reasons::Reason;
use wasmlet_api::runtime::{NodeCounts, NodeFailure};

use super::Context;
use super::accept::{RuntimeView, Verdict};
use super::budget::{Gate, done, failing, refused};
use super::site::{Site, entry, ordered_any};
use super::start::{Halt, Outlook};
use super::{classes, usage};
use crate::world::Deleting;

/// At most so many failures, and the rest is in the nodes' own objects.
const FAILURES: usize = 10;
/// At most so many pods.
const USERS: usize = 20;

/// Where a chosen node stands, for one runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    Pending,
    Updating,
    Failed,
    Refused,
}

/// The status of the runtime at `index`; equal to `old` if there is nothing new to say.
pub(super) fn of(
    context: &Context<'_>,
    sites: &[Site<'_>],
    outlook: &Outlook<'_>,
    index: usize,
    old: &WasmRuntimeStatus,
) -> WasmRuntimeStatus {
    let runtime = &context.runtimes[index];
    let owns = runtime.accepted() || super::frozen(runtime.handler(), context.runtimes);
    let mut nodes = NodeCounts::default();
    let mut failures = Vec::new();
    let mut unsupported = None;
    let mut waiting = 0;
    let mut users = BTreeSet::new();
    for site in sites.iter().filter(|_| owns) {
        if site.chosen.contains(&index) {
            nodes.selected += 1;
            match place(site, runtime) {
                Place::Ready => nodes.ready += 1,
                Place::Pending => {
                    nodes.pending += 1;
                    waiting += i32::from(!site.healthy());
                }
                Place::Updating => nodes.updating += 1,
                Place::Failed => {
                    nodes.failed += 1;
                    failures.push(failure(site, Reason::Drifted));
                }
                Place::Refused => {
                    nodes.refused += 1;
                    unsupported.get_or_insert_with(|| failure(site, Reason::UnsupportedNode));
                }
            }
        } else if site.mentions(runtime.handler()) {
            nodes.removing += 1;
            users.extend(usage::users(context, site, &of_runtime(site, runtime)));
            if site.change().is_some_and(|change| change.failure.is_some()) {
                failures.push(failure(site, Reason::TimedOut));
            }
        }
    }
    failures.sort_by(|a, b| a.node.cmp(&b.node));
    let failed = failures.len();
    failures.truncate(FAILURES);

    let facts = Facts {
        context,
        runtime,
        old: &old.conditions,
        nodes,
        waiting,
        halted: outlook.halted[index],
        gate: outlook.canaries[index].gate,
        first_failure: failures.first(),
        failed,
        unsupported: unsupported.as_ref(),
        users: &users,
    };
    WasmRuntimeStatus {
        observed_generation: runtime.object.metadata.generation,
        conditions: facts.conditions(),
        nodes,
        failures,
        used_by: users.iter().take(USERS).cloned().collect(),
        canary_ready_since: outlook.canaries[index].ready_since.map(Time),
        observed_retry: Some(runtime.cause.retry.clone()).filter(|retry| !retry.is_empty()),
    }
}

/// All handlers that the node may have of the runtime.
fn of_runtime(site: &Site<'_>, runtime: &RuntimeView<'_>) -> BTreeSet<String> {
    entry(site.verified(), runtime.handler())
        .into_iter()
        .flat_map(wasmlet_api::NodeRuntime::handlers)
        .map(|handler| handler.name)
        .chain(runtime.handlers.iter().cloned())
        .collect()
}

fn place(site: &Site<'_>, runtime: &RuntimeView<'_>) -> Place {
    let handler = runtime.handler();
    let touched = site
        .open_change()
        .is_some_and(|change| change.causes.iter().any(|cause| cause.handler == handler));
    // It runs what it shall, and the last order, which failed, was for something else: that order is going to be replaced.
    let ordered_else = site.wasm_node.is_some_and(|found| {
        ordered_any(found) && entry(&found.spec.runtimes, handler) != Some(&runtime.want)
    });
    if done(site, runtime) && !ordered_else {
        Place::Ready
    } else if touched || (site.claimed() && site.change().is_none()) {
        Place::Updating
    } else if done(site, runtime) {
        Place::Pending
    } else if refused(site) {
        Place::Refused
    } else if failing(site, runtime)
        || site.broken()
        || entry(site.verified(), handler) == Some(&runtime.want)
    {
        // The last: it was good, and its agent says that it is not any more.
        Place::Failed
    } else {
        Place::Pending
    }
}

fn failure(site: &Site<'_>, otherwise: Reason) -> NodeFailure {
    let change = site.change();
    let said = site
        .standing()
        .agent
        .and_then(|agent| agent.last_error.as_ref());
    let failure = change
        .and_then(|change| change.failure.as_ref())
        .or(said)
        .map(|failure| (failure.reason, failure.message.clone()))
        .or_else(|| drift(site))
        .unwrap_or_else(|| {
            let message = format!(
                "the agent does not report the runtime as working any more; kubectl get wasmnode {} -o yaml",
                site.name()
            );
            (otherwise, message)
        });
    NodeFailure {
        node: site.name().to_owned(),
        reason: failure.0,
        message: failure.1,
        attempt: change.map(|change| change.attempt).unwrap_or_default(),
    }
}

/// What the agent could not repair.
fn drift(site: &Site<'_>) -> Option<(Reason, String)> {
    let status = site.wasm_node?.status.as_ref()?;
    let drifted = conditions::find(&status.conditions, conditions::DRIFTED)
        .filter(|found| found.status == Status::True.name())?;
    Some((Reason::of(&drifted.reason)?, drifted.message.clone()))
}

/// What the conditions are made from.
struct Facts<'a> {
    context: &'a Context<'a>,
    runtime: &'a RuntimeView<'a>,
    old: &'a [Condition],
    nodes: NodeCounts,
    /// Pending nodes that are not Ready.
    waiting: i32,
    halted: Halt,
    gate: Gate,
    first_failure: Option<&'a NodeFailure>,
    failed: usize,
    unsupported: Option<&'a NodeFailure>,
    users: &'a BTreeSet<String>,
}

/// Status, reason, message.
type Said = (Status, Reason, String);

impl Facts<'_> {
    fn conditions(&self) -> Vec<Condition> {
        [
            (conditions::ACCEPTED, self.accepted()),
            (conditions::READY, self.ready()),
            (conditions::PROGRESSING, self.progressing()),
            (conditions::DEGRADED, self.degraded()),
            (conditions::IN_USE, self.in_use()),
        ]
        .into_iter()
        .map(|(type_, (status, reason, message))| {
            conditions::condition(
                self.old,
                type_,
                status,
                reason.name(),
                message,
                self.runtime.object.metadata.generation,
                &self.context.time(),
            )
        })
        .collect()
    }

    fn accepted(&self) -> Said {
        match &self.runtime.verdict {
            Verdict::Accepted => (
                Status::True,
                Reason::Accepted,
                "no other WasmRuntime has its handlers".to_owned(),
            ),
            Verdict::Conflict { with, handler } => (
                Status::False,
                Reason::HandlerConflict,
                format!(
                    "handler {handler} belongs to WasmRuntime {with}, which is older; give this one another spec.handler, or delete one of them"
                ),
            ),
        }
    }

    /// Those that can have it.
    fn able(&self) -> i32 {
        self.nodes.selected - self.nodes.refused
    }

    fn ready(&self) -> Said {
        let NodeCounts {
            selected, ready, ..
        } = self.nodes;
        if !self.runtime.accepted() {
            (
                Status::False,
                Reason::HandlerConflict,
                "see the condition Accepted".to_owned(),
            )
        } else if self.runtime.deleting == Deleting::Yes {
            (
                Status::False,
                Reason::Removing,
                "it is being removed".to_owned(),
            )
        } else if selected == 0 {
            (
                Status::False,
                Reason::NoNodes,
                "no node has the labels of spec.nodeSelector, an architecture of spec.artifact.architectures and only taints of spec.tolerations".to_owned(),
            )
        } else if ready == self.able() && ready > 0 {
            (
                Status::True,
                Reason::AllNodesReady,
                format!(
                    "{ready} of {selected} nodes run what the spec asks for{}",
                    self.refusals()
                ),
            )
        } else {
            let reason = if self.nodes.failed > 0 {
                Reason::NodesFailed
            } else if self.able() == 0 {
                Reason::UnsupportedNode
            } else {
                Reason::RollingOut
            };
            (
                Status::False,
                reason,
                format!(
                    "{ready} of {selected} nodes run what the spec asks for{}",
                    self.refusals()
                ),
            )
        }
    }

    fn refusals(&self) -> String {
        match self.nodes.refused {
            0 => String::new(),
            refused => format!("; {refused} cannot have it"),
        }
    }

    fn progressing(&self) -> Said {
        let NodeCounts {
            selected,
            ready,
            pending,
            updating,
            failed,
            removing,
            ..
        } = self.nodes;
        let counts =
            format!("{ready} of {selected} nodes ready, {updating} in change, {failed} failed");
        if !self.runtime.accepted() {
            (
                Status::False,
                Reason::HandlerConflict,
                "nothing is changed while it is not accepted".to_owned(),
            )
        } else if self.runtime.deleting == Deleting::Yes {
            (
                Status::True,
                Reason::Removing,
                format!("{removing} nodes are to be cleaned"),
            )
        } else if self.halted == Halt::Yes && pending + failed > 0 {
            (
                Status::False,
                Reason::Halted,
                format!(
                    "{counts}; no further node is started. When the cause is gone, failed nodes are tried again by themselves, and at once when the spec or the annotation wasmlet.dev/retry changes"
                ),
            )
        } else if self.runtime.spec().rollout.paused && pending + failed > 0 {
            (
                Status::False,
                Reason::Paused,
                format!("{counts}; spec.rollout.paused is true"),
            )
        } else if selected == 0 && removing == 0 {
            (
                Status::False,
                Reason::NoNodes,
                "no node is chosen".to_owned(),
            )
        } else if let (Gate::OpensAt(at), true) = (self.gate, pending > 0 && updating == 0) {
            (
                Status::True,
                Reason::CanaryWait,
                format!("{counts}; the others follow from {at:.0}"),
            )
        } else if pending + updating + failed + removing > 0 {
            let waiting = match self.waiting {
                0 => String::new(),
                waiting => format!("; {waiting} wait until their node is Ready"),
            };
            (
                Status::True,
                Reason::RollingOut,
                format!("{counts}{waiting}"),
            )
        } else {
            (Status::False, Reason::AllNodesReady, counts)
        }
    }

    fn degraded(&self) -> Said {
        let conflicts = classes::conflicts(self.context, self.runtime);
        if let Some(failure) = self.first_failure {
            (
                Status::True,
                if self.halted == Halt::Yes {
                    Reason::Halted
                } else {
                    Reason::NodesFailed
                },
                format!(
                    "{} failed; node {}, attempt {}: {}: {}",
                    self.failed,
                    failure.node,
                    failure.attempt,
                    failure.reason.name(),
                    failure.message
                ),
            )
        } else if !conflicts.is_empty() {
            (
                Status::True,
                Reason::RuntimeClassConflict,
                format!(
                    "RuntimeClass {} is somebody else's and stays as it is; delete it, and the operator makes its own",
                    conflicts.join(", ")
                ),
            )
        } else if let Some(failure) = self.unsupported {
            (
                Status::True,
                Reason::UnsupportedNode,
                format!(
                    "{} nodes cannot have it; {}: {}; leave them out by spec.nodeSelector",
                    self.nodes.refused, failure.node, failure.message
                ),
            )
        } else {
            (
                Status::False,
                Reason::AsExpected,
                "nothing is wrong".to_owned(),
            )
        }
    }

    fn in_use(&self) -> Said {
        if self.users.is_empty() {
            return (
                Status::False,
                Reason::NotInUse,
                "no pod keeps it from being removed".to_owned(),
            );
        }
        let named: Vec<_> = self.users.iter().take(USERS).map(String::as_str).collect();
        let more = match self.users.len().saturating_sub(USERS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (
            Status::True,
            Reason::InUse,
            format!(
                "pods use it on nodes that it is to be removed from: {}{more}; it goes when they are gone",
                named.join(", ")
            ),
        )
    }
}
