//! A cluster in memory: the API server's side of each [`Action`], kubelets, and agents that do as they are told. For the tests of the
//! planner, and, its agents and kubelets, for benchmarks with simulated nodes on a real API server (feature `simulation`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use wasmlet_api::conditions::{self, Status};
use wasmlet_api::names::{FINALIZER, PURPOSE_PROBE};
use wasmlet_api::node::{ActiveRuntime, AgentState, AgentStatus, Failure};
use wasmlet_api::reasons::Reason;
use wasmlet_api::{WasmNode, WasmNodeSpec, WasmNodeStatus};

use crate::plan::{Action, Finalizer};
use crate::world::{Deleting, NodeFacts, PodFacts, PodState, ProbeLog, Usage, World};

pub mod build;

/// How a simulated agent answers an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It makes the change.
    Applies,
    /// It fails, and puts the node back.
    RollsBack,
    /// It fails, and cannot put the node back.
    Breaks,
    /// It says that the node cannot have wasmlet.
    Refuses,
}

/// What an agent says after it worked on an order: its status and its conditions. Pure, so that a benchmark writes it with a client
/// of its own.
pub fn answer(
    spec: &WasmNodeSpec,
    before: Option<&AgentStatus>,
    outcome: Outcome,
    now: Timestamp,
) -> (AgentStatus, Condition) {
    let mut agent = before.cloned().unwrap_or_default();
    agent.version = "0.0.0-simulated".to_owned();
    agent.observed_revision = spec.revision.clone();
    agent.observed_attempt = spec.attempt;
    agent.last_change_millis = 1;
    let failure = |reason: Reason| Failure {
        reason,
        message: format!("simulated: {}", reason.name()),
        time: Some(Time(now)),
    };
    let (state, error, applied, reason) = match outcome {
        Outcome::Applies => {
            agent.restarts += 1;
            agent.runtimes = spec
                .runtimes
                .iter()
                .map(|runtime| ActiveRuntime {
                    handler: runtime.handler.clone(),
                    digest: runtime.digest.clone(),
                    version: "0.0.0-simulated".to_owned(),
                })
                .collect();
            (AgentState::Applied, None, Status::True, Reason::Applied)
        }
        Outcome::RollsBack => {
            agent.rollbacks += 1;
            (
                AgentState::RolledBack,
                Some(failure(Reason::ShimFailed)),
                Status::False,
                Reason::ShimFailed,
            )
        }
        Outcome::Breaks => {
            agent.runtimes.clear();
            (
                AgentState::Broken,
                Some(failure(Reason::RollbackFailed)),
                Status::False,
                Reason::RollbackFailed,
            )
        }
        Outcome::Refuses => {
            agent.runtimes.clear();
            (
                AgentState::Refused,
                Some(failure(Reason::UnsupportedNode)),
                Status::False,
                Reason::UnsupportedNode,
            )
        }
    };
    agent.state = state;
    agent.last_error = error;
    let condition = conditions::condition(
        &[],
        conditions::APPLIED,
        applied,
        reason.name(),
        "simulated",
        None,
        &Time(now),
    );
    (agent, condition)
}

/// Whether an agent has an order that it has not answered.
pub fn has_order(wasm_node: &WasmNode) -> bool {
    let agent = wasm_node
        .status
        .as_ref()
        .and_then(|status| status.agent.as_ref());
    let seen = agent.is_some_and(|agent| {
        agent.observed_revision == wasm_node.spec.revision
            && agent.observed_attempt == wasm_node.spec.attempt
    });
    !wasm_node.spec.revision.is_empty() && !seen
}

/// Why the simulated API server refuses an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 404.
    #[error("there is no {0}")]
    NotFound(String),
    /// 409: another UID, or a thing that is there already.
    #[error("{0} is another one by now")]
    Conflict(String),
    /// 403: what admission says to a RuntimeClass that is not there.
    #[error("RuntimeClass {0} is not there")]
    NoClass(String),
}

/// A cluster in memory.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// What its API server has.
    pub world: World,
    /// What its clock says.
    pub now: Timestamp,
    /// Pods of tenants: node, `namespace/name`, RuntimeClass.
    pub tenants: Vec<(String, String, String)>,
    /// Handlers and digests of which a probe succeeded, by node UID.
    pub probed: BTreeMap<String, BTreeSet<(String, String)>>,
    /// Calls so far, by verb and resource.
    pub calls: BTreeMap<(&'static str, &'static str), u64>,
    /// Calls so far, by node: those that are about it.
    pub calls_of_nodes: BTreeMap<String, u64>,
    counter: u64,
}

impl Cluster {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            now: "2026-01-01T00:00:00Z".parse().unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Time goes on.
    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn uid(&mut self) -> String {
        self.counter += 1;
        format!("uid-{}", self.counter)
    }

    /// Does what the API server would do.
    ///
    /// # Errors
    /// As the API server would refuse it.
    pub fn apply(&mut self, action: &Action) -> Result<(), Refusal> {
        *self.calls.entry(action.call()).or_default() += 1;
        if let Some(node) = node_of(action, &self.world) {
            *self.calls_of_nodes.entry(node).or_default() += 1;
        }
        match action {
            Action::CreateWasmNode { node, node_uid } => self.create_wasm_node(node, node_uid),
            Action::WriteNode { node, part } => self.status(node, |status| {
                status.phase = Some(part.phase);
                status.change = Some(part.change.clone());
                status.verified = part.verified.clone();
                status.conditions.retain(|condition| {
                    condition.type_ != conditions::STAGED && condition.type_ != conditions::PROBED
                });
                status.conditions.extend(part.conditions.iter().cloned());
            }),
            Action::Order { node, uid, spec } => {
                let found = self.wasm_node(node)?;
                if found.metadata.uid.as_deref() != Some(uid) {
                    return Err(Refusal::Conflict(node.clone()));
                }
                if found.spec != **spec {
                    found.spec = (**spec).clone();
                    found.metadata.generation =
                        Some(found.metadata.generation.unwrap_or_default() + 1);
                }
                Ok(())
            }
            Action::DeleteWasmNode { node, .. } => self
                .world
                .wasm_nodes
                .remove(node)
                .map(|_| ())
                .ok_or_else(|| Refusal::NotFound(node.clone())),
            Action::Label { node, uid, labels } => {
                let found = self
                    .world
                    .nodes
                    .get_mut(node)
                    .filter(|found| found.uid == *uid)
                    .ok_or_else(|| Refusal::Conflict(node.clone()))?;
                let found = Arc::make_mut(found);
                for (key, value) in labels {
                    match value {
                        Some(value) => found.labels.insert(key.clone(), (*value).to_owned()),
                        None => found.labels.remove(key),
                    };
                }
                Ok(())
            }
            Action::CreatePod(pod) => self.create_pod(pod),
            Action::DeletePod { name, .. } => {
                self.world.pods.remove(name);
                Ok(())
            }
            Action::ApplyClass(class) => {
                let mut class = (**class).clone();
                let name = class.metadata.name.clone().unwrap_or_default();
                class.metadata.uid = Some(self.uid());
                self.world.classes.insert(name, Arc::new(class));
                Ok(())
            }
            Action::DeleteClass { name, .. } => {
                self.world.classes.remove(name);
                Ok(())
            }
            Action::Finalizer {
                runtime, finalizer, ..
            } => self.finalizer(runtime, *finalizer),
            Action::WriteRuntime { runtime, status } => {
                let found = self
                    .world
                    .runtimes
                    .get_mut(runtime)
                    .ok_or_else(|| Refusal::NotFound(runtime.clone()))?;
                Arc::make_mut(found).status = Some((**status).clone());
                Ok(())
            }
            Action::CheckUse { node, uid } => {
                let pods = self
                    .tenants
                    .iter()
                    .filter(|(on, ..)| on == node)
                    .map(|(_, pod, class)| (pod.clone(), class.clone()))
                    .collect();
                self.world.usage.insert(
                    node.clone(),
                    Arc::new(Usage {
                        node_uid: uid.clone(),
                        checked: self.now,
                        pods,
                    }),
                );
                Ok(())
            }
            Action::ReadProbe { uid, .. } => {
                self.world.probes.insert(uid.clone(), ProbeLog::Ok);
                Ok(())
            }
            Action::Note(_) => Ok(()),
        }
    }

    fn create_wasm_node(&mut self, node: &str, node_uid: &str) -> Result<(), Refusal> {
        if self.world.wasm_nodes.contains_key(node) {
            return Ok(());
        }
        let mut found = WasmNode::new(
            node,
            WasmNodeSpec {
                node_uid: node_uid.to_owned(),
                revision: String::new(),
                attempt: 0,
                runtimes: Vec::new(),
            },
        );
        found.metadata.uid = Some(self.uid());
        found.metadata.generation = Some(1);
        self.world
            .wasm_nodes
            .insert(node.to_owned(), Arc::new(found));
        Ok(())
    }

    fn wasm_node(&mut self, node: &str) -> Result<&mut WasmNode, Refusal> {
        self.world
            .wasm_nodes
            .get_mut(node)
            .map(Arc::make_mut)
            .ok_or_else(|| Refusal::NotFound(node.to_owned()))
    }

    fn status(
        &mut self,
        node: &str,
        change: impl FnOnce(&mut WasmNodeStatus),
    ) -> Result<(), Refusal> {
        change(self.wasm_node(node)?.status.get_or_insert_default());
        Ok(())
    }

    fn create_pod(&mut self, pod: &Pod) -> Result<(), Refusal> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        if self.world.pods.contains_key(&name) {
            return Err(Refusal::Conflict(name));
        }
        let class = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.runtime_class_name.clone());
        if let Some(class) = class
            && !self.world.classes.contains_key(&class)
        {
            return Err(Refusal::NoClass(class));
        }
        let mut pod = pod.clone();
        pod.metadata = ObjectMeta {
            uid: Some(self.uid()),
            creation_timestamp: Some(Time(self.now)),
            ..pod.metadata
        };
        let facts = PodFacts::of(pod).ok_or(Refusal::NotFound(name.clone()))?;
        self.world.pods.insert(name, Arc::new(facts));
        Ok(())
    }

    fn finalizer(&mut self, runtime: &str, finalizer: Finalizer) -> Result<(), Refusal> {
        let found = self
            .world
            .runtimes
            .get_mut(runtime)
            .map(Arc::make_mut)
            .ok_or_else(|| Refusal::NotFound(runtime.to_owned()))?;
        let finalizers = found.metadata.finalizers.get_or_insert_default();
        finalizers.retain(|name| name != FINALIZER);
        match finalizer {
            Finalizer::Present => finalizers.push(FINALIZER.to_owned()),
            Finalizer::Absent if found.metadata.deletion_timestamp.is_some() => {
                self.world.runtimes.remove(runtime);
            }
            Finalizer::Absent => {}
        }
        Ok(())
    }

    /// A node joins.
    pub fn join(&mut self, name: &str) {
        let mut node = build::node(name);
        node.uid = self.uid();
        self.world.nodes.insert(name.to_owned(), Arc::new(node));
    }

    /// A node is changed by somebody.
    pub fn edit_node(&mut self, name: &str, edit: impl FnOnce(&mut NodeFacts)) {
        if let Some(node) = self.world.nodes.get_mut(name) {
            edit(Arc::make_mut(node));
        }
    }

    /// A node vanishes; what belongs to it is collected.
    pub fn vanish(&mut self, name: &str) {
        self.world.nodes.remove(name);
        self.world.wasm_nodes.remove(name);
        self.world.pods.retain(|_, pod| pod.node != name);
        self.tenants.retain(|(on, ..)| on != name);
    }

    /// A WasmRuntime is made or changed: its generation grows.
    pub fn edit_runtime(
        &mut self,
        name: &str,
        edit: impl FnOnce(&mut wasmlet_api::WasmRuntimeSpec),
    ) {
        if let Some(found) = self.world.runtimes.get_mut(name) {
            let found = Arc::make_mut(found);
            edit(&mut found.spec);
            *found.metadata.generation.get_or_insert_default() += 1;
        }
    }

    /// Somebody deletes a WasmRuntime.
    pub fn delete_runtime(&mut self, name: &str) {
        let now = Time(self.now);
        let Some(found) = self.world.runtimes.get_mut(name) else {
            return;
        };
        let found = Arc::make_mut(found);
        found.metadata.deletion_timestamp.get_or_insert(now);
        if found.metadata.finalizers.iter().flatten().next().is_none() {
            self.world.runtimes.remove(name);
        }
    }

    /// Nodes whose agent has an order that it has not answered.
    pub fn orders(&self) -> Vec<String> {
        self.world
            .wasm_nodes
            .iter()
            .filter(|(_, found)| has_order(found))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The agent of a node answers.
    pub fn agent(&mut self, node: &str, outcome: Outcome) {
        let now = self.now;
        let Ok(found) = self.wasm_node(node) else {
            return;
        };
        let spec = found.spec.clone();
        let status = found.status.get_or_insert_default();
        let (agent, condition) = answer(&spec, status.agent.as_ref(), outcome, now);
        status.agent = Some(agent);
        status
            .conditions
            .retain(|found| found.type_ != condition.type_);
        status.conditions.push(condition);
    }

    /// Pods that have not ended.
    pub fn running_pods(&self) -> Vec<String> {
        self.world
            .pods
            .values()
            .filter(|pod| pod.deleting == Deleting::No)
            .filter(|pod| !matches!(pod.state, PodState::Succeeded | PodState::Failed { .. }))
            .map(|pod| pod.name.clone())
            .collect()
    }

    /// The kubelet says something about a pod.
    pub fn kubelet(&mut self, pod: &str, state: PodState) {
        let Some(found) = self.world.pods.get_mut(pod) else {
            return;
        };
        let found = Arc::make_mut(found);
        if state == PodState::Succeeded && found.purpose == PURPOSE_PROBE {
            let node = found.node.clone();
            let active = self
                .world
                .wasm_nodes
                .get(&node)
                .and_then(|found| found.status.as_ref()?.agent.as_ref())
                .map(|agent| agent.runtimes.clone())
                .unwrap_or_default();
            if let Some(node) = self.world.nodes.get(&node) {
                self.probed.entry(node.uid.clone()).or_default().extend(
                    active
                        .into_iter()
                        .map(|active| (active.handler, active.digest.as_str().to_owned())),
                );
            }
        }
        found.state = state;
    }
}

/// The node that an action is about.
pub fn node_of(action: &Action, world: &World) -> Option<String> {
    match action {
        Action::CreateWasmNode { node, .. }
        | Action::WriteNode { node, .. }
        | Action::Order { node, .. }
        | Action::DeleteWasmNode { node, .. }
        | Action::Label { node, .. }
        | Action::CheckUse { node, .. } => Some(node.clone()),
        Action::CreatePod(pod) => pod.spec.as_ref()?.node_name.clone(),
        Action::DeletePod { name, .. } | Action::ReadProbe { pod: name, .. } => {
            Some(world.pods.get(name)?.node.clone())
        }
        Action::Note(note) => match &note.about {
            crate::plan::About::Node { name, .. } => Some(name.clone()),
            crate::plan::About::Runtime { .. } => None,
        },
        Action::ApplyClass(_)
        | Action::DeleteClass { .. }
        | Action::Finalizer { .. }
        | Action::WriteRuntime { .. } => None,
    }
}
