//! `WasmNode`: what the operator wants of one node, and what its agent says.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats the structs inside a function, where nothing can reach them"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reasons::Reason;
use crate::target::{NodeRuntime, NodeTarget};

/// One node, as the operator wants it and as its agent found it. It has the name of its Node, is owned by it, and is made by the
/// operator; people only read it.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "wasmlet.dev",
    version = "v1alpha1",
    kind = "WasmNode",
    plural = "wasmnodes",
    shortname = "wn",
    category = "wasmlet",
    status = "WasmNodeStatus",
    derive = "PartialEq",
    doc = "One node, as the operator wants it and as its agent found it. Made by the operator, with the name of the Node; people only read it.",
    validation = Rule::new("!has(oldSelf.spec.nodeUID) || self.spec.nodeUID == oldSelf.spec.nodeUID").message("spec.nodeUID cannot be changed: another Node has another WasmNode"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.agent.state", description = "what the agent says"),
    printcolumn(name = "containerd", type_ = "string", json_path = ".status.agent.containerd.version"),
    printcolumn(name = "Error", type_ = "string", json_path = ".status.agent.lastError.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Config", type_ = "string", json_path = ".status.agent.containerd.writtenPath", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.agent.lastError.message", priority = "1")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WasmNodeSpec {
    /// UID of the Node this is for: a node that comes back under the same name with another one is another node.
    #[serde(rename = "nodeUID")]
    pub node_uid: String,

    /// Names the target (`NodeTarget::revision`); empty: nothing was ordered yet, and the agent only reports facts.
    #[serde(default)]
    pub revision: String,

    /// Which try of this revision it is, from 1. The agent acts once for each pair of revision and attempt.
    #[serde(default)]
    pub attempt: i64,

    /// What the node shall have.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["handler"])
    )]
    pub runtimes: Vec<NodeRuntime>,
}

impl WasmNodeSpec {
    /// What the node shall have.
    pub fn target(&self) -> NodeTarget {
        NodeTarget {
            runtimes: self.runtimes.clone(),
        }
    }
}

/// What has become of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmNodeStatus {
    /// Where the node stands, by the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// By the operator: Staged, Probed. By the agent: Applied, Drifted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The operator's memory of the change that is going on, or of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,

    /// By the operator: what was last applied and probed on this node, with the settings it had. A change that fails after it was
    /// applied is put back to this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub verified: Vec<NodeRuntime>,

    /// What the agent says; nobody else writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
}

/// Where a node stands on its way.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    /// Waits for its turn.
    Pending,
    /// A stage pod brings the bundle.
    Staging,
    /// Ordered; the agent works.
    Applying,
    /// Applied; a probe pod runs.
    Probing,
    /// As ordered, and probed.
    Ready,
    /// A step failed. What ran before runs again, or nothing was touched.
    Failed,
    /// The agent says that this node cannot have wasmlet.
    Refused,
    /// The runtime is being removed, or waits for pods that use it.
    Removing,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Staging,
        Self::Applying,
        Self::Probing,
        Self::Ready,
        Self::Failed,
        Self::Refused,
        Self::Removing,
    ];

    /// As in the API and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Staging => "Staging",
            Self::Applying => "Applying",
            Self::Probing => "Probing",
            Self::Ready => "Ready",
            Self::Failed => "Failed",
            Self::Refused => "Refused",
            Self::Removing => "Removing",
        }
    }
}

/// The operator's memory of one change of a node. It lives here so that an operator that starts anew goes on where the last one was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The target's revision.
    #[serde(default)]
    pub revision: String,
    /// Which try of it, from 1.
    #[serde(default)]
    pub attempt: i64,
    /// What the node shall have after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target: Vec<NodeRuntime>,
    /// The runtimes that it is for: those that the node does not have yet as they shall be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub causes: Vec<Cause>,
    /// How many tries for the same causes failed before this one, or, once it has failed, with it.
    #[serde(default)]
    pub failures: i64,
    /// When the node was claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When it ended, well or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A runtime that a change is for, as it was when the change began: another generation or value of the annotation is another cause,
/// for which failures are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Its handler.
    pub handler: String,
    /// Generation of the WasmRuntime; 0: there is none any more.
    #[serde(default)]
    pub generation: i64,
    /// Value of its annotation `wasmlet.dev/retry`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub retry: String,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What kind of failure.
    pub reason: Reason,
    /// What happened, where, and what to do.
    pub message: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// What an agent says about its node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The agent's version.
    #[serde(default)]
    pub version: String,
    /// What it is doing, or how it ended.
    #[serde(default)]
    pub state: AgentState,
    /// The revision that `state` is about.
    #[serde(default)]
    pub observed_revision: String,
    /// The attempt that `state` is about.
    #[serde(default)]
    pub observed_attempt: i64,
    /// What is on the node and verified, by handler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<ActiveRuntime>,
    /// Bundles in the node's store, checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<Digest>,
    /// The node's containerd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerd: Option<ContainerdStatus>,
    /// The layout of the node: `containerd`, `k3s`, `rke2`, `k0s`, `microk8s`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub distribution: String,
    /// How often the agent restarted containerd, since it was installed.
    #[serde(default)]
    pub restarts: i64,
    /// How often it put a node back, since it was installed.
    #[serde(default)]
    pub rollbacks: i64,
    /// How often it repaired what somebody else had changed, since it was installed.
    #[serde(default)]
    pub repairs: i64,
    /// Milliseconds that the last change took, from facts to verified.
    #[serde(default)]
    pub last_change_millis: i64,
    /// Why the last change failed, or the node is refused; gone after the next that succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
    /// Things to know that keep nothing from working, with their remedy; at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub advice: Vec<String>,
}

/// One runtime that is on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveRuntime {
    /// Its handler.
    pub handler: String,
    /// The bundle's digest.
    pub digest: Digest,
    /// The bundle's version.
    #[serde(default)]
    pub version: String,
}

/// A node's containerd, as it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerdStatus {
    /// For example `1.7.24`.
    #[serde(default)]
    pub version: String,
    /// Its configuration file.
    #[serde(default)]
    pub config_path: String,
    /// `version` in that file.
    #[serde(default)]
    pub config_version: i64,
    /// The file that the agent writes: a drop-in, a template, or the configuration file itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub written_path: String,
}

/// What an agent is doing, or how it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AgentState {
    /// It has looked at the node, and was asked nothing yet.
    #[default]
    Idle,
    /// It changes the node.
    Applying,
    /// The node is as ordered, verified. With an empty target: as it was before wasmlet.
    Applied,
    /// The change failed; the node is as before it, verified.
    RolledBack,
    /// The change failed, and so did putting the node back: somebody must look.
    Broken,
    /// The node is of a kind that cannot have wasmlet; nothing was touched.
    Refused,
}
