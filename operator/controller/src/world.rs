//! What is decided over: a snapshot of the cluster, trimmed to what decides.
//!
//! Objects of the API are turned into these types at the edge ([`crate::watch`]); nothing in here does I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod, Taint};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::jiff::Timestamp;
use wasmlet_api::{WasmNode, WasmRuntime, names};

/// The cluster, as it is known. By name, all of them.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// All WasmRuntimes.
    pub runtimes: BTreeMap<String, Arc<WasmRuntime>>,
    /// All nodes.
    pub nodes: BTreeMap<String, Arc<NodeFacts>>,
    /// All WasmNodes.
    pub wasm_nodes: BTreeMap<String, Arc<WasmNode>>,
    /// Stage and probe pods in the operator's namespace.
    pub pods: BTreeMap<String, Arc<PodFacts>>,
    /// All RuntimeClasses, other people's, too.
    pub classes: BTreeMap<String, Arc<RuntimeClass>>,
    /// Pods with a RuntimeClass, by node; only of nodes that were asked for by [`crate::plan::Action::CheckUse`].
    pub usage: BTreeMap<String, Arc<Usage>>,
    /// Whether a probe pod wrote its line, by UID of the pod; only of pods that were asked for by
    /// [`crate::plan::Action::ReadProbe`].
    pub probes: BTreeMap<String, ProbeLog>,
}

/// What is known of a Node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its UID: another one is another node.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Its condition Ready.
    pub health: Health,
}

/// Whether a node's kubelet says that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Ready,
    /// It is not, or nothing was heard of it.
    NotReady,
}

impl NodeFacts {
    /// Of a Node; none if it has no name or UID, which the API server does not do.
    pub fn of(node: Node) -> Option<Self> {
        let ready = node.status.as_ref().is_some_and(|status| {
            status
                .conditions
                .iter()
                .flatten()
                .any(|found| found.type_ == "Ready" && found.status == "True")
        });
        Some(Self {
            name: node.metadata.name?,
            uid: node.metadata.uid?,
            labels: node.metadata.labels.unwrap_or_default(),
            taints: node.spec.and_then(|spec| spec.taints).unwrap_or_default(),
            health: if ready {
                Health::Ready
            } else {
                Health::NotReady
            },
        })
    }

    /// Value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// What is known of a stage or probe pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The node it is for: the label `wasmlet.dev/node`.
    pub node: String,
    /// [`names::PURPOSE_STAGE`] or [`names::PURPOSE_PROBE`].
    pub purpose: String,
    /// Label `wasmlet.dev/attempt`: which change it is for.
    pub attempt: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: Deleting,
    /// How it is.
    pub state: PodState,
}

/// Whether an object is being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleting {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// How a pod of one container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodState {
    /// Its container has not started. The texts are the kubelet's; empty before it says something.
    Waiting {
        /// For example `ImagePullBackOff`.
        reason: String,
        /// What the kubelet adds.
        message: String,
    },
    /// Its container runs.
    Running,
    /// Its container ended with exit code 0.
    Succeeded,
    /// It failed.
    Failed {
        /// For example `Error`, `DeadlineExceeded`, `OutOfpods`.
        reason: String,
        /// The container's termination message, or the kubelet's.
        message: String,
        /// The container's; none if it never ran.
        exit_code: Option<i32>,
    },
}

impl PodFacts {
    /// Of a Pod; none if it is not one of ours (a label is missing).
    pub fn of(pod: Pod) -> Option<Self> {
        let state = PodState::of(&pod);
        let metadata = pod.metadata;
        let labels = metadata.labels.unwrap_or_default();
        Some(Self {
            name: metadata.name?,
            uid: metadata.uid?,
            node: labels.get(names::NODE_LABEL)?.clone(),
            purpose: labels.get(names::PURPOSE_LABEL)?.clone(),
            attempt: labels
                .get(names::ATTEMPT_LABEL)
                .cloned()
                .unwrap_or_default(),
            created: metadata.creation_timestamp?.0,
            deleting: if metadata.deletion_timestamp.is_some() {
                Deleting::Yes
            } else {
                Deleting::No
            },
            state,
        })
    }
}

impl PodState {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let container = status
            .container_statuses
            .unwrap_or_default()
            .into_iter()
            .next();
        match status.phase.as_deref() {
            Some("Succeeded") => Self::Succeeded,
            Some("Failed") => Self::failed(
                container,
                status.reason.unwrap_or_default(),
                status.message.unwrap_or_default(),
            ),
            Some("Running") => Self::Running,
            _ => {
                let waiting = container
                    .and_then(|container| container.state)
                    .and_then(|state| state.waiting)
                    .unwrap_or_default();
                Self::Waiting {
                    reason: waiting.reason.unwrap_or_default(),
                    message: waiting.message.unwrap_or_default(),
                }
            }
        }
    }

    fn failed(container: Option<ContainerStatus>, reason: String, message: String) -> Self {
        let ended = container
            .and_then(|container| container.state)
            .and_then(|state| state.terminated);
        let Some(ended) = ended else {
            return Self::Failed {
                reason,
                message,
                exit_code: None,
            };
        };
        let or = |own: String, other: Option<String>| match other {
            Some(other) if own.is_empty() => other,
            _ => own,
        };
        Self::Failed {
            // The pod's own reason (DeadlineExceeded, Evicted) says more than the container's `Error`.
            reason: or(reason, ended.reason),
            message: or(message, ended.message).trim().to_owned(),
            exit_code: Some(ended.exit_code),
        }
    }
}

/// Pods of one node that have a RuntimeClass and have not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// UID of the node that was asked about.
    pub node_uid: String,
    /// When the API server was asked.
    pub checked: Timestamp,
    /// `namespace/name`, and the RuntimeClass.
    pub pods: Vec<(String, String)>,
}

/// What a probe pod wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeLog {
    /// Its last line says that it is well.
    Ok,
    /// Its last line says something else; this.
    Other(String),
}
