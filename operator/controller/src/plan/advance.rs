//! One step of a change that goes on.

mod end;
mod probe;
mod stage;

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use wasmlet_api::conditions::{self, Status};
use wasmlet_api::names::{PURPOSE_PROBE, PURPOSE_STAGE};
use wasmlet_api::node::{AgentState, Change, Phase};
use wasmlet_api::reasons::Reason;
use wasmlet_api::{NodeRuntime, NodeTarget, WasmNode, WasmNodeSpec};

use super::accept::RuntimeView;
use super::action::{About, Action, NodePart, Note, Tone};
use super::site::{Answer, Site, agent, answer, entry, verified};
use super::{Context, Draft, frozen};
use crate::world::{Deleting, Health, PodFacts, PodState};

/// Beyond a pod's own deadline, for a kubelet that does not keep it.
const POD_GRACE: SignedDuration = SignedDuration::from_secs(60);
/// For a node that no runtime with a timeout is left for.
const DEFAULT_TIMEOUT: SignedDuration = SignedDuration::from_secs(600);

/// Why a step failed.
struct Fault {
    reason: Reason,
    message: String,
}

/// How a step stands.
enum Step {
    /// It is done.
    Done,
    /// Something is waited for; until then.
    Waits(Option<Timestamp>),
    /// This has to be done for it.
    Needs(Action),
    Failed(Fault),
}

/// Plans the next step of a node that is being changed; nothing for others.
pub(super) fn advance(context: &Context<'_>, site: &Site<'_>, draft: &mut Draft) {
    let (Some(wasm_node), Some(change)) = (site.wasm_node, site.open_change()) else {
        return;
    };
    Going {
        context,
        site,
        wasm_node,
        change,
    }
    .advance(draft);
}

/// A change that goes on, with all that is known of its node.
struct Going<'a> {
    context: &'a Context<'a>,
    site: &'a Site<'a>,
    wasm_node: &'a WasmNode,
    change: &'a Change,
}

impl Going<'_> {
    fn advance(&self, draft: &mut Draft) {
        if self.change.failure.is_some() {
            return self.put_back(draft);
        }
        if self.ordered(&self.change.revision) {
            return self.applied(draft);
        }
        if self.superseded() {
            return self.abandon(draft);
        }
        match self.stage() {
            Step::Done => self.order(draft),
            Step::Waits(until) => self.wait(draft, until, |own| {
                format!(
                    "the stage pod did not end within {} s",
                    own.timeout().as_secs()
                )
            }),
            Step::Needs(action) => draft.node(self.site, action),
            Step::Failed(fault) => self.fail(fault, draft),
        }
    }

    fn ordered(&self, revision: &str) -> bool {
        self.wasm_node.spec.revision == revision
            && self.wasm_node.spec.attempt == self.change.attempt
    }

    fn verified(&self) -> &[NodeRuntime] {
        verified(self.wasm_node)
    }

    /// Runtimes that the change brings or changes.
    fn changed(&self) -> Vec<&NodeRuntime> {
        self.change
            .target
            .iter()
            .filter(|runtime| entry(self.verified(), &runtime.handler) != Some(runtime))
            .collect()
    }

    fn runtime(&self, handler: &str) -> Option<&RuntimeView<'_>> {
        self.context.runtime(handler)
    }

    /// Whether somebody wants something else of the runtimes that are changed. Nothing was ordered yet, so nothing has to be undone.
    fn superseded(&self) -> bool {
        let handlers: BTreeSet<&str> = self
            .change
            .target
            .iter()
            .chain(self.verified())
            .map(|runtime| runtime.handler.as_str())
            .collect();
        handlers.into_iter().any(|handler| {
            let after = entry(&self.change.target, handler);
            let chosen = self
                .site
                .chosen
                .iter()
                .map(|index| &self.context.runtimes[*index])
                .find(|runtime| runtime.handler() == handler)
                .map(|runtime| &runtime.want);
            after != entry(self.verified(), handler)
                && after != chosen
                && !frozen(handler, self.context.runtimes)
        })
    }

    fn abandon(&self, draft: &mut Draft) {
        let mut part = self.part();
        part.phase = Phase::Pending;
        part.change.finished = Some(self.context.time());
        self.write(part, draft);
    }

    fn order(&self, draft: &mut Draft) {
        let mut part = self.part();
        if part.phase != Phase::Removing {
            part.phase = Phase::Applying;
        }
        self.set(
            &mut part,
            conditions::STAGED,
            Status::True,
            Reason::Staged,
            "the bundles are in the node's store",
        );
        self.write(part, draft);
        self.order_target(&NodeTarget::new(self.change.target.clone()), draft);
    }

    fn order_target(&self, target: &NodeTarget, draft: &mut Draft) {
        let Some(uid) = self.wasm_node.metadata.uid.clone() else {
            return;
        };
        draft.node(
            self.site,
            Action::Order {
                node: self.site.node.name.clone(),
                uid,
                spec: Box::new(WasmNodeSpec {
                    node_uid: self.site.node.uid.clone(),
                    revision: target.revision(),
                    attempt: self.change.attempt,
                    runtimes: target.runtimes.clone(),
                }),
            },
        );
    }

    // Apply

    fn applied(&self, draft: &mut Draft) {
        match answer(&self.wasm_node.spec, agent(self.wasm_node)) {
            Answer::Said(AgentState::Applied) => self.probe(draft),
            Answer::Said(AgentState::RolledBack | AgentState::Broken | AgentState::Refused) => {
                self.fail(self.agent_fault(), draft);
            }
            Answer::None | Answer::Said(AgentState::Idle | AgentState::Applying) => {
                self.wait(draft, None, Self::agent_silent);
            }
        }
    }

    fn agent_fault(&self) -> Fault {
        let agent = agent(self.wasm_node);
        let said = agent.and_then(|agent| agent.last_error.as_ref());
        match (said, agent.map(|agent| agent.state)) {
            (Some(error), _) => Fault {
                reason: error.reason,
                message: error.message.clone(),
            },
            (None, Some(AgentState::Refused)) => Fault {
                reason: Reason::UnsupportedNode,
                message: "the agent refuses this node and does not say why; see the log of its pod".to_owned(),
            },
            (None, _) => Fault {
                reason: Reason::RollbackFailed,
                message: "the agent could not make the change and does not say why; see the log of its pod".to_owned(),
            },
        }
    }

    fn agent_silent(&self) -> String {
        let seconds = self.timeout().as_secs();
        match answer(&self.wasm_node.spec, agent(self.wasm_node)) {
            Answer::Said(_) => format!(
                "the agent has been at it for {seconds} s; see the log of its pod on node {}",
                self.site.name()
            ),
            Answer::None => self.agent_missing(seconds),
        }
    }

    fn agent_missing(&self, seconds: i64) -> String {
        format!(
            "the agent has not answered within {seconds} s; look for its pod: kubectl -n {} get pods -o wide --field-selector spec.nodeName={}",
            self.context.settings.namespace,
            self.site.name()
        )
    }

    /// Waits until a time, or until the node's own time is up, which fails the change.
    fn wait(&self, draft: &mut Draft, until: Option<Timestamp>, words: impl Fn(&Self) -> String) {
        let deadline = self.since() + self.timeout();
        if self.context.now < deadline {
            draft.wake_at(until.map_or(deadline, |until| until.min(deadline)));
            return;
        }
        let ordered = self.ordered(&self.change.revision);
        let silent = answer(&self.wasm_node.spec, agent(self.wasm_node)) == Answer::None;
        let fault = if self.site.node.health == Health::NotReady {
            Fault {
                reason: Reason::NodeNotReady,
                message: format!(
                    "the node is not Ready, and was not changed within {} s; kubectl describe node {} says why",
                    self.timeout().as_secs(),
                    self.site.name()
                ),
            }
        } else {
            Fault {
                reason: if ordered && silent {
                    Reason::AgentMissing
                } else {
                    Reason::TimedOut
                },
                message: words(self),
            }
        };
        self.fail(fault, draft);
    }

    // Small things

    fn since(&self) -> Timestamp {
        // A change without it was written by hand: it is as old as it is now.
        self.change
            .since
            .as_ref()
            .map_or(self.context.now, |since| since.0)
    }

    /// The longest of the runtimes that the change is for.
    fn timeout(&self) -> SignedDuration {
        self.change
            .causes
            .iter()
            .filter_map(|cause| self.runtime(&cause.handler))
            .map(|runtime| {
                SignedDuration::from_secs(i64::from(runtime.spec().rollout.node_timeout_seconds))
            })
            .max()
            .unwrap_or(DEFAULT_TIMEOUT)
    }

    /// A pod of this change; one that is being deleted is not there any more.
    fn pod(&self, name: &str) -> Option<&PodFacts> {
        self.context
            .world
            .pods
            .get(name)
            .map(|pod| &**pod)
            .filter(|pod| pod.deleting == Deleting::No)
            .filter(|pod| pod.purpose == PURPOSE_STAGE || pod.purpose == PURPOSE_PROBE)
    }

    fn pod_stuck(&self, pod: &PodFacts, reason: Reason) -> Fault {
        let words = match &pod.state {
            PodState::Waiting { reason, message } if !reason.is_empty() => {
                format!("{reason}: {message}")
            }
            _ => "its kubelet has not ended it at its deadline".to_owned(),
        };
        Fault {
            reason,
            message: format!(
                "pod {} does not come to an end: {words}; kubectl -n {} describe pod {} says more",
                pod.name, self.context.settings.namespace, pod.name
            ),
        }
    }

    fn part(&self) -> NodePart {
        let status = self.wasm_node.status.clone().unwrap_or_default();
        NodePart {
            phase: status.phase.unwrap_or(Phase::Staging),
            change: self.change.clone(),
            verified: status.verified,
            conditions: status
                .conditions
                .into_iter()
                .filter(|found| {
                    found.type_ == conditions::STAGED || found.type_ == conditions::PROBED
                })
                .collect(),
        }
    }

    fn set(&self, part: &mut NodePart, type_: &str, status: Status, reason: Reason, message: &str) {
        let new = conditions::condition(
            &part.conditions,
            type_,
            status,
            reason.name(),
            message,
            self.wasm_node.metadata.generation,
            &self.context.time(),
        );
        part.conditions.retain(|found| found.type_ != type_);
        part.conditions.push(new);
    }

    fn write(&self, part: NodePart, draft: &mut Draft) {
        draft.node(
            self.site,
            Action::WriteNode {
                node: self.site.node.name.clone(),
                part: Box::new(part),
            },
        );
    }

    fn note(&self, tone: Tone, reason: Reason, text: String, draft: &mut Draft) {
        draft.node(
            self.site,
            Action::Note(Box::new(Note {
                about: About::Node {
                    name: self.site.node.name.clone(),
                    uid: self.site.node.uid.clone(),
                },
                tone,
                reason,
                text,
            })),
        );
    }
}

fn pod_words(reason: &str, message: &str, exit_code: Option<i32>) -> String {
    let mut words = reason.to_owned();
    if let Some(code) = exit_code {
        words = format!("{words} (exit code {code})");
    }
    if !message.is_empty() {
        words = format!("{words}: {message}");
    }
    words
}
