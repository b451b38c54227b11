//! What the executor can be asked to do. Each action is one call of the API server, and may be done twice.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmlet_api::node::{Change, Phase};
use wasmlet_api::reasons::Reason;
use wasmlet_api::{NodeRuntime, WasmNodeSpec, WasmRuntimeStatus};

/// What an action or a sequence is about; failures are backed off by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A node, its WasmNode and its pods.
    Node(String),
    /// A WasmRuntime's finalizer.
    Runtime(String),
    /// A WasmRuntime's status.
    Status(String),
    /// A RuntimeClass.
    Class(String),
}

/// Actions that depend on each other: each only if the one before succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// What they are about; at most one sequence of a plan has it.
    pub key: Key,
    /// In this order.
    pub actions: Vec<Action>,
}

/// One call of the API server.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Makes the WasmNode of a node, with nothing ordered.
    CreateWasmNode {
        /// Name of the node.
        node: String,
        /// UID of the node, which will own it.
        node_uid: String,
    },
    /// Replaces the operator's part of a WasmNode's status.
    WriteNode {
        /// Name of the node.
        node: String,
        /// All that the operator says.
        part: Box<NodePart>,
    },
    /// Replaces a WasmNode's spec.
    Order {
        /// Name of the node.
        node: String,
        /// UID of the WasmNode.
        uid: String,
        /// The new spec.
        spec: Box<WasmNodeSpec>,
    },
    /// Deletes a WasmNode.
    DeleteWasmNode {
        /// Name of the node.
        node: String,
        /// UID of the WasmNode.
        uid: String,
    },
    /// Sets ready labels on a node.
    Label {
        /// Name of the node.
        node: String,
        /// UID of the node.
        uid: String,
        /// By key; none: the label shall be absent.
        labels: BTreeMap<String, Option<&'static str>>,
    },
    /// Makes a stage or probe pod.
    CreatePod(Box<Pod>),
    /// Deletes one.
    DeletePod {
        /// Name of the pod.
        name: String,
        /// UID of the pod.
        uid: String,
    },
    /// Makes a RuntimeClass, or brings it up to date.
    ApplyClass(Box<RuntimeClass>),
    /// Deletes one of ours.
    DeleteClass {
        /// Name of the class.
        name: String,
        /// UID of the class.
        uid: String,
    },
    /// Adds or takes away the finalizer of a WasmRuntime.
    Finalizer {
        /// Name of the WasmRuntime.
        runtime: String,
        /// UID of the WasmRuntime.
        uid: String,
        /// What it shall be.
        finalizer: Finalizer,
    },
    /// Replaces a WasmRuntime's status.
    WriteRuntime {
        /// Name of the WasmRuntime.
        runtime: String,
        /// The new status.
        status: Box<WasmRuntimeStatus>,
    },
    /// Lists the pods of a node that have a RuntimeClass; the result becomes part of the world.
    CheckUse {
        /// Name of the node.
        node: String,
        /// UID of the node.
        uid: String,
    },
    /// Reads what a probe pod wrote; the result becomes part of the world.
    ReadProbe {
        /// Name of the pod.
        pod: String,
        /// UID of the pod.
        uid: String,
    },
    /// Says something to people.
    Note(Box<Note>),
}

/// Whether a WasmRuntime has our finalizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizer {
    /// It has.
    Present,
    /// It has not.
    Absent,
}

/// What the operator says in a WasmNode's status.
#[derive(Debug, Clone, PartialEq)]
pub struct NodePart {
    /// Where the node stands.
    pub phase: Phase,
    /// The change that goes on, or the last one.
    pub change: Change,
    /// What was last applied and probed.
    pub verified: Vec<NodeRuntime>,
    /// Staged and Probed.
    pub conditions: Vec<Condition>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub about: About,
    /// Whether somebody should look.
    pub tone: Tone,
    /// From the closed list.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A Node.
    Node {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// A WasmRuntime.
    Runtime {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

/// Of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Action {
    /// Verb and resource, for metrics and logs.
    pub fn call(&self) -> (&'static str, &'static str) {
        match self {
            Self::CreateWasmNode { .. } => ("apply", "wasmnodes"),
            Self::WriteNode { .. } => ("apply", "wasmnodes/status"),
            Self::Order { .. } => ("apply", "wasmnodes"),
            Self::DeleteWasmNode { .. } => ("delete", "wasmnodes"),
            Self::Label { .. } => ("patch", "nodes"),
            Self::CreatePod(_) => ("create", "pods"),
            Self::DeletePod { .. } => ("delete", "pods"),
            Self::ApplyClass(_) => ("apply", "runtimeclasses"),
            Self::DeleteClass { .. } => ("delete", "runtimeclasses"),
            Self::Finalizer { .. } => ("patch", "wasmruntimes"),
            Self::WriteRuntime { .. } => ("apply", "wasmruntimes/status"),
            Self::CheckUse { .. } => ("list", "pods"),
            Self::ReadProbe { .. } => ("get", "pods/log"),
            Self::Note(_) => ("create", "events"),
        }
    }
}
