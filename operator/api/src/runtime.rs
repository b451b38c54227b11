//! `WasmRuntime`: what an administrator wants on the nodes.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats the structs inside a function, where nothing can reach them"
)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::handlers::Engine;
use crate::reasons::Reason;
use crate::target::Options;

/// A WebAssembly runtime for the nodes of the cluster: which programs, on which nodes, and how carefully.
///
/// Whoever may create or change one decides what runs as root on every chosen node.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "wasmlet.dev",
    version = "v1alpha1",
    kind = "WasmRuntime",
    plural = "wasmruntimes",
    shortname = "wrt",
    category = "wasmlet",
    status = "WasmRuntimeStatus",
    derive = "PartialEq",
    doc = "A WebAssembly runtime for the nodes of the cluster: which programs, on which nodes, and how carefully.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name has more than 63 characters; it becomes the value of a label"),
    printcolumn(name = "Handler", type_ = "string", json_path = ".spec.handler"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.selected", description = "nodes that are chosen"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.nodes.ready", description = "nodes that run what the spec asks for"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.nodes.failed"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Progressing')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".spec.artifact.digest", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Degraded')].message", priority = "1")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WasmRuntimeSpec {
    /// The programs, and where nodes get them.
    pub artifact: Artifact,

    /// Name of the handler in containerd's configuration and of the RuntimeClass; with each engine's name after a dash
    /// (`wasm-wasmtime`) it is the handler and the RuntimeClass of that engine. It cannot be changed. Example: `wasm`.
    #[serde(default = "default_handler")]
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("handler cannot be changed: make another WasmRuntime, move the pods, delete this one"))]
    #[x_kube(validation = Rule::new("!(self in ['runc', 'crun', 'kata', 'runsc', 'nvidia'])").message("this is the name of another runtime's handler; take another, for example wasm"))]
    pub handler: String,

    /// Engines that get a handler and a RuntimeClass of their own. Example: `[wasmtime]`.
    #[serde(default = "default_engines")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub engines: Vec<Engine>,

    /// The RuntimeClasses that the operator keeps for this runtime.
    #[serde(default)]
    pub runtime_class: RuntimeClassOptions,

    /// Labels that a node must have to be chosen; empty: every Linux node. Example: `{pool: wasm}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that do not keep a node from being chosen, as in a pod. Example: `[{key: dedicated, operator: Exists}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// How nodes are changed.
    #[serde(default)]
    pub rollout: Rollout,

    /// Settings of the handlers, the same on every node.
    #[serde(default)]
    pub options: Options,

    /// What deleting this object does while pods use the runtime.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The programs, and where nodes get them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifact {
    /// The node image, which has the bundle in `/bundle`. With a digest it is the same image on every node; what nodes run is
    /// checked by `digest` in any case. Example: `registry.example/wasmlet/node:0.1.0`.
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[a-zA-Z0-9][-a-zA-Z0-9._/:@]*$")
    )]
    pub image: String,

    /// Digest of the bundle (not of the image): the SHA-256 of its `bundle.json`. A node runs exactly this, or nothing. The release
    /// notes and `hack/images` say it.
    pub digest: Digest,

    /// Names of pull secrets in the operator's namespace. Example: `[registry-login]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub pull_secrets: Vec<String>,

    /// Values of the node label `kubernetes.io/arch` for which the image has a bundle. Example: `[amd64]`.
    #[serde(default = "default_architectures")]
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub architectures: Vec<Architecture>,
}

/// A processor architecture, as in `kubernetes.io/arch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Architecture {
    /// As in the node label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The RuntimeClasses that the operator keeps for a runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeClassOptions {
    /// What a pod takes on its node beside its containers; the default is measured. Example: `{memory: 4Mi, cpu: 5m}`.
    #[serde(default = "default_overhead")]
    #[schemars(length(max = 8))]
    pub overhead: BTreeMap<String, Quantity>,
}

impl Default for RuntimeClassOptions {
    fn default() -> Self {
        Self {
            overhead: default_overhead(),
        }
    }
}

/// How nodes are changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// How many nodes may be in change or broken by one at a time: a number, or a share of the chosen nodes, rounded down but never
    /// to none. Example: `10%`.
    #[serde(default = "default_max_unavailable")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')").message("maxUnavailable must be a number from 1 or a share from 1% to 100%"))]
    pub max_unavailable: IntOrString,

    /// The nodes that are changed before all others.
    #[serde(default)]
    pub canary: Canary,

    /// Start no further node; those that are being changed go on.
    #[serde(default)]
    pub paused: bool,

    /// So many failed nodes halt the rollout. Example: `3`.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: i32,

    /// Seconds from the claim of a node until it counts as failed. Example: `600`.
    #[serde(default = "default_node_timeout")]
    #[schemars(range(min = 30, max = 86400))]
    pub node_timeout_seconds: i32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_unavailable: default_max_unavailable(),
            canary: Canary::default(),
            paused: false,
            failure_threshold: default_failure_threshold(),
            node_timeout_seconds: default_node_timeout(),
        }
    }
}

/// The nodes that are changed before all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Canary {
    /// How many; 0 for none. Those with the label `wasmlet.dev/canary=true` come first, then by name.
    #[serde(default = "default_canary_nodes")]
    #[schemars(range(min = 0, max = 1000))]
    pub nodes: i32,

    /// Seconds to wait after the last of them is ready. Example: `600`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub wait_seconds: i32,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            nodes: default_canary_nodes(),
            wait_seconds: 0,
        }
    }
}

/// What removing the runtime, from one node or from all, does while pods use it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Wait until they are gone; the condition InUse names them.
    #[default]
    Wait,
    /// Remove it at once. Pods that run go on, and cannot be stopped properly any more: their shim's program is gone.
    Force,
}

/// What has become of a WasmRuntime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmRuntimeStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, Ready, Progressing, Degraded, InUse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// How many nodes stand where.
    #[serde(default)]
    pub nodes: NodeCounts,

    /// Nodes that could not be changed, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failures: Vec<NodeFailure>,

    /// Pods that keep the runtime from being removed, as `namespace/name`, at most twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub used_by: Vec<String>,

    /// When the last canary node became ready at this generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_ready_since: Option<Time>,

    /// The value of the annotation `wasmlet.dev/retry` that was last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_retry: Option<String>,
}

/// How many nodes stand where. Each chosen node is in one of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that are chosen.
    #[serde(default)]
    pub selected: i32,
    /// Run what the spec asks for.
    #[serde(default)]
    pub ready: i32,
    /// Wait for their turn.
    #[serde(default)]
    pub pending: i32,
    /// Are being changed.
    #[serde(default)]
    pub updating: i32,
    /// Could not be changed.
    #[serde(default)]
    pub failed: i32,
    /// Cannot have it, for what they are.
    #[serde(default)]
    pub refused: i32,
    /// Not chosen any more, and not clean yet; not part of `selected`.
    #[serde(default)]
    pub removing: i32,
}

/// A node that could not be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFailure {
    /// Name of the node.
    pub node: String,
    /// What kind of failure.
    pub reason: Reason,
    /// What happened, and what to do.
    pub message: String,
    /// Which attempt it was, from 1.
    pub attempt: i64,
}

fn default_handler() -> String {
    crate::names::DEFAULT_HANDLER.to_owned()
}

fn default_engines() -> Vec<Engine> {
    Engine::ALL.to_vec()
}

fn default_architectures() -> Vec<Architecture> {
    vec![Architecture::Amd64]
}

/// Measured: a pod of eight takes 1.3 MB, one of a hundred 0.5 MB (tests/e2e, topic resources).
fn default_overhead() -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".to_owned(), Quantity("5m".to_owned())),
        ("memory".to_owned(), Quantity("4Mi".to_owned())),
    ])
}

fn default_max_unavailable() -> IntOrString {
    IntOrString::Int(1)
}

fn default_failure_threshold() -> i32 {
    1
}

fn default_node_timeout() -> i32 {
    600
}

fn default_canary_nodes() -> i32 {
    1
}
