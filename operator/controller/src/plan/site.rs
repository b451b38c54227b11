//! One node with its WasmNode, and what can be read off the two.

use std::collections::BTreeSet;

use wasmlet_api::node::{AgentState, AgentStatus, Change};
use wasmlet_api::{NodeRuntime, NodeTarget, WasmNode, WasmNodeSpec};

use super::accept::RuntimeView;
use super::choose::{Has, chooses};
use crate::world::{Health, NodeFacts, World};

/// A node, its WasmNode if it has one, and who chooses it.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) node: &'a NodeFacts,
    pub(super) wasm_node: Option<&'a WasmNode>,
    /// Positions in the list of runtimes.
    pub(super) chosen: Vec<usize>,
}

/// What an agent has said to the order that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet.
    None,
    /// This.
    Said(AgentState),
}

/// All that decides about a node's labels; also of a state that is about to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing<'a> {
    pub(super) spec: Option<&'a WasmNodeSpec>,
    pub(super) agent: Option<&'a AgentStatus>,
    pub(super) verified: &'a [NodeRuntime],
    /// The change that goes on; none: nothing does.
    pub(super) open: Option<&'a Change>,
}

/// The sites of a world; WasmNodes of other nodes (gone, or of another UID) are not part of one.
pub(super) fn sites<'a>(world: &'a World, runtimes: &[RuntimeView<'_>]) -> Vec<Site<'a>> {
    world
        .nodes
        .values()
        .map(|node| {
            let wasm_node = world
                .wasm_nodes
                .get(&node.name)
                .map(|found| &**found)
                .filter(|found| found.spec.node_uid == node.uid);
            let chosen = runtimes
                .iter()
                .enumerate()
                .filter(|(_, runtime)| {
                    let has = wasm_node.is_some_and(|found| mentions(found, runtime.handler()));
                    let has = if has { Has::Yes } else { Has::No };
                    runtime.live() && chooses(runtime.spec(), node, has)
                })
                .map(|(index, _)| index)
                .collect();
            Site {
                node,
                wasm_node,
                chosen,
            }
        })
        .collect()
}

/// The entry of a handler.
pub(super) fn entry<'a>(list: &'a [NodeRuntime], handler: &str) -> Option<&'a NodeRuntime> {
    list.iter().find(|runtime| runtime.handler == handler)
}

fn mentions(wasm_node: &WasmNode, handler: &str) -> bool {
    entry(verified(wasm_node), handler).is_some()
        || entry(&wasm_node.spec.runtimes, handler).is_some()
        || unsettled(wasm_node).is_some_and(|change| {
            entry(&change.target, handler).is_some()
                || change.causes.iter().any(|cause| cause.handler == handler)
        })
}

pub(super) fn verified(wasm_node: &WasmNode) -> &[NodeRuntime] {
    wasm_node
        .status
        .as_ref()
        .map_or(&[], |status| &status.verified)
}

pub(super) fn change(wasm_node: &WasmNode) -> Option<&Change> {
    wasm_node.status.as_ref()?.change.as_ref()
}

pub(super) fn agent(wasm_node: &WasmNode) -> Option<&AgentStatus> {
    wasm_node.status.as_ref()?.agent.as_ref()
}

/// The change that goes on.
pub(super) fn open_change(wasm_node: &WasmNode) -> Option<&Change> {
    change(wasm_node).filter(|change| change.finished.is_none())
}

/// A change that goes on, failed, or was given up: nobody knows but from it which runtimes the node may have a part of.
fn unsettled(wasm_node: &WasmNode) -> Option<&Change> {
    change(wasm_node).filter(|change| {
        change.finished.is_none()
            || change.failure.is_some()
            || change.target != verified(wasm_node)
    })
}

/// What the agent says to the order that stands.
pub(super) fn answer(spec: &WasmNodeSpec, agent: Option<&AgentStatus>) -> Answer {
    agent
        .filter(|agent| {
            agent.observed_revision == spec.revision && agent.observed_attempt == spec.attempt
        })
        .map_or(Answer::None, |agent| Answer::Said(agent.state))
}

/// Whether something was ever ordered.
pub(super) fn ordered_any(wasm_node: &WasmNode) -> bool {
    !wasm_node.spec.revision.is_empty()
}

impl<'a> Site<'a> {
    pub(super) fn name(&self) -> &'a str {
        &self.node.name
    }

    pub(super) fn healthy(&self) -> bool {
        self.node.health == Health::Ready
    }

    pub(super) fn verified(&self) -> &'a [NodeRuntime] {
        self.wasm_node.map_or(&[], verified)
    }

    pub(super) fn change(&self) -> Option<&'a Change> {
        self.wasm_node.and_then(change)
    }

    pub(super) fn open_change(&self) -> Option<&'a Change> {
        self.wasm_node.and_then(open_change)
    }

    /// Claimed: a change goes on, or the WasmNode is there and the change is not written yet.
    pub(super) fn claimed(&self) -> bool {
        self.wasm_node
            .is_some_and(|found| change(found).is_none_or(|change| change.finished.is_none()))
    }

    pub(super) fn standing(&self) -> Standing<'a> {
        Standing {
            spec: self.wasm_node.map(|found| &found.spec),
            agent: self.wasm_node.and_then(agent),
            verified: self.verified(),
            open: self.open_change(),
        }
    }

    /// Handlers of runtimes that a change of this node disturbs, or would.
    pub(super) fn involved<'b>(&self, runtimes: &'b [RuntimeView<'_>]) -> BTreeSet<&'b str>
    where
        'a: 'b,
    {
        let chosen = self.chosen.iter().map(|index| runtimes[*index].handler());
        let installed = self.wasm_node.into_iter().flat_map(|found| {
            let change = unsettled(found);
            let target = change.map_or(&[][..], |change| &change.target);
            let causes = change.map_or(&[][..], |change| &change.causes);
            verified(found)
                .iter()
                .chain(&found.spec.runtimes)
                .chain(target)
                .map(|runtime| runtime.handler.as_str())
                .chain(causes.iter().map(|cause| cause.handler.as_str()))
        });
        chosen.chain(installed).collect()
    }

    /// Whether the node has a runtime, or is about to get it, or may have a part of it.
    pub(super) fn mentions(&self, handler: &str) -> bool {
        self.wasm_node.is_some_and(|found| mentions(found, handler))
    }

    /// Whether a change left the node in a state that is not known to be good: it takes one of `maxUnavailable` until it is.
    pub(super) fn broken(&self) -> bool {
        let Some(found) = self.wasm_node.filter(|found| ordered_any(found)) else {
            return false;
        };
        if self.claimed() {
            return false;
        }
        let standing = self.standing();
        match answer(&found.spec, standing.agent) {
            Answer::None | Answer::Said(AgentState::Broken) => true,
            Answer::Said(AgentState::Refused | AgentState::RolledBack | AgentState::Applied) => {
                let expected = standing.verified.iter().any(|good| !standing.ready(good));
                // Applied and not verified: its probe failed, and it could not be put back.
                let unproven = answer(&found.spec, standing.agent)
                    == Answer::Said(AgentState::Applied)
                    && found.spec.target() != NodeTarget::new(standing.verified.to_vec());
                expected || unproven
            }
            // A repair that the agent began itself.
            Answer::Said(AgentState::Applying | AgentState::Idle) => false,
        }
    }
}

impl Standing<'_> {
    /// Whether a verified runtime works as it was verified, as far as the agent knows. Not asked while a change of it goes on.
    pub(super) fn ready(&self, good: &NodeRuntime) -> bool {
        let (Some(spec), Some(agent)) = (self.spec, self.agent) else {
            return false;
        };
        let on_node = agent
            .runtimes
            .iter()
            .any(|active| active.handler == good.handler && active.digest == good.digest);
        let as_ordered = entry(&spec.runtimes, &good.handler) == Some(good);
        let state = match answer(spec, Some(agent)) {
            // Before the first order, or between an order and its answer, only an unchanged runtime is known.
            Answer::None => as_ordered,
            Answer::Said(AgentState::Applied | AgentState::Applying) => as_ordered,
            Answer::Said(AgentState::RolledBack) => true,
            Answer::Said(AgentState::Broken | AgentState::Refused | AgentState::Idle) => false,
        };
        on_node && state
    }
}
