//! Everything that is decided: [`plan`] is a function of a snapshot of the cluster and the time.
//!
//! ```text
//!  accept ─▶ choose ─▶ advance   nodes that are being changed, one step each
//!                  └─▶ start     nodes that may begin: canaries, maxUnavailable, pauses, halts
//!                  └─▶ labels    what each node's labels shall be
//!                  └─▶ classes   RuntimeClasses
//!                  └─▶ status    what WasmRuntimes say, and their finalizers
//! ```
//!
//! It keeps no state: what must be remembered (which try failed, and why) is in the status of WasmNodes. An operator that starts anew, or
//! another replica, goes on where the last one was; the same world gives the same plan, and a world in order gives an empty one.
//!
//! A node's way, as read off its WasmNode:
//!
//! ```text
//!            no WasmNode ◀──────────────────────────── delete (nothing wanted, nothing there)
//!                │ start
//!   ┌──▶ change, not ordered ──stage fails──▶ failed, not touched ──┐
//!   │            │ staged, order                                    │ pause
//!   │        ordered ──agent: RolledBack, Broken, Refused, silent─▶ failed ──┐
//!   │            │ agent: Applied                                            │
//!   │         probing ──probe fails──▶ ordered back ──▶ failed ──────────────┤
//!   │            │ probed                                                    │
//!   │         verified                                                       │
//!   └────────────┴── another target, or the pause is over ◀──────────────────┘
//! ```

mod accept;
mod action;
mod advance;
mod budget;
mod choose;
mod classes;
mod labels;
mod retry;
mod runtimes;
mod site;
mod start;
mod status;
mod usage;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use wasmlet_api::node::Phase;
use wasmlet_api::reasons::Reason;

use self::accept::RuntimeView;
pub use self::action::{About, Action, Finalizer, Key, NodePart, Note, Sequence, Tone};
use self::site::{Site, open_change};
use crate::objects::pods::attempt_name;
use crate::world::{Deleting, World};

/// What the administrator of the operator chose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where stage and probe pods are made.
    pub namespace: String,
    /// First pause after a node was changed and put back.
    pub retry_base: SignedDuration,
}

/// What shall be done now.
#[derive(Debug, Default)]
pub struct Plan {
    /// At most one for each key; they do not depend on each other.
    pub sequences: Vec<Sequence>,
    /// When to plan again though nothing has changed.
    pub wake: Option<Timestamp>,
    /// For metrics.
    pub census: Census,
}

/// How the cluster stands, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Nodes with a WasmNode, by phase.
    pub phases: BTreeMap<Phase, i64>,
    /// Verified runtimes, by handler, version (as the agent says) and digest.
    pub digests: BTreeMap<(String, String, String), i64>,
    /// Nodes whose last change failed, by reason.
    pub failures: BTreeMap<Reason, i64>,
    /// Sum of what the agents of nodes that are there counted.
    pub restarts: i64,
    /// Likewise.
    pub rollbacks: i64,
    /// Likewise.
    pub repairs: i64,
}

/// What all parts of the planner look at.
struct Context<'a> {
    world: &'a World,
    settings: &'a Settings,
    now: Timestamp,
    runtimes: &'a [RuntimeView<'a>],
}

impl Context<'_> {
    fn time(&self) -> Time {
        Time(self.now)
    }

    fn runtime(&self, handler: &str) -> Option<&RuntimeView<'_>> {
        self.runtimes
            .iter()
            .filter(|runtime| runtime.handler() == handler)
            .max_by_key(|runtime| runtime.accepted())
    }
}

/// What has been decided so far.
struct Draft {
    now: Timestamp,
    sequences: BTreeMap<Key, Vec<Action>>,
    wake: Option<Timestamp>,
}

impl Draft {
    fn push(&mut self, key: Key, action: Action) {
        self.sequences.entry(key).or_default().push(action);
    }

    fn node(&mut self, site: &Site<'_>, action: Action) {
        self.push(Key::Node(site.name().to_owned()), action);
    }

    /// Asks for another plan at a time; one that has passed needs none.
    fn wake_at(&mut self, at: Timestamp) {
        if at > self.now {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
    }
}

/// Decides what to do now.
pub fn plan(world: &World, settings: &Settings, now: Timestamp) -> Plan {
    let runtimes = accept::views(world);
    let sites = site::sites(world, &runtimes);
    let context = Context {
        world,
        settings,
        now,
        runtimes: &runtimes,
    };
    let mut draft = Draft {
        now,
        sequences: BTreeMap::new(),
        wake: None,
    };

    strays(&context, &mut draft);
    for site in &sites {
        let wanted = labels::wanted(site, &site.standing(), &runtimes);
        if let Some(fix) = labels::fix(site, wanted) {
            draft.node(site, fix);
        }
        advance::advance(&context, site, &mut draft);
    }
    let outlook = start::start(&context, &sites, &mut draft);
    classes::keep(&context, &mut draft);
    runtimes::keep(&context, &sites, &outlook, &mut draft);
    pods(&context, &sites, &mut draft);

    Plan {
        sequences: draft
            .sequences
            .into_iter()
            .map(|(key, actions)| Sequence { key, actions })
            .collect(),
        wake: draft.wake,
        census: census(world),
    }
}

/// Whether a runtime's nodes stay as they are: it is not accepted, and nobody else has its handler.
fn frozen(handler: &str, runtimes: &[RuntimeView<'_>]) -> bool {
    let mut of_handler = runtimes
        .iter()
        .filter(|runtime| runtime.handler() == handler)
        .peekable();
    of_handler.peek().is_some()
        && of_handler.all(|runtime| !runtime.accepted() && runtime.deleting == Deleting::No)
}

/// WasmNodes of nodes that are gone, or that are others by now. The garbage collector would do it, later.
fn strays(context: &Context<'_>, draft: &mut Draft) {
    for (name, wasm_node) in &context.world.wasm_nodes {
        let of_node = context
            .world
            .nodes
            .get(name)
            .is_some_and(|node| node.uid == wasm_node.spec.node_uid);
        let deleting = wasm_node.metadata.deletion_timestamp.is_some();
        if let (false, false, Some(uid)) = (of_node, deleting, &wasm_node.metadata.uid) {
            draft.push(
                Key::Node(name.clone()),
                Action::DeleteWasmNode {
                    node: name.clone(),
                    uid: uid.clone(),
                },
            );
        }
    }
}

/// Deletes pods that nobody needs. Those of a try that failed stay until the next one, for people to look at.
fn pods(context: &Context<'_>, sites: &[Site<'_>], draft: &mut Draft) {
    let by_name: BTreeMap<&str, &Site<'_>> = sites.iter().map(|site| (site.name(), site)).collect();
    for pod in context.world.pods.values() {
        let needed = by_name
            .get(pod.node.as_str())
            .and_then(|site| site.change())
            .is_some_and(|change| {
                let goes_on = change.finished.is_none() || change.failure.is_some();
                goes_on && pod.attempt == attempt_name(change)
            });
        if !needed && pod.deleting == Deleting::No {
            draft.push(
                Key::Node(pod.node.clone()),
                Action::DeletePod {
                    name: pod.name.clone(),
                    uid: pod.uid.clone(),
                },
            );
        }
    }
}

fn census(world: &World) -> Census {
    let mut census = Census::default();
    for wasm_node in world.wasm_nodes.values() {
        let Some(status) = &wasm_node.status else {
            continue;
        };
        if let Some(phase) = status.phase {
            *census.phases.entry(phase).or_default() += 1;
        }
        if let Some(failure) = site::change(wasm_node).and_then(|change| change.failure.as_ref())
            && open_change(wasm_node).is_none()
        {
            *census.failures.entry(failure.reason).or_default() += 1;
        }
        let agent = status.agent.as_ref();
        for good in &status.verified {
            let version = agent
                .and_then(|agent| {
                    agent
                        .runtimes
                        .iter()
                        .find(|active| active.handler == good.handler)
                })
                .map(|active| active.version.clone())
                .unwrap_or_default();
            let key = (
                good.handler.clone(),
                version,
                good.digest.as_str().to_owned(),
            );
            *census.digests.entry(key).or_default() += 1;
        }
        if let Some(agent) = agent {
            census.restarts += agent.restarts;
            census.rollbacks += agent.rollbacks;
            census.repairs += agent.repairs;
        }
    }
    census
}
