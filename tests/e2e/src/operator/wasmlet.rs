//! WasmRuntimes, WasmNodes and the label on nodes: reading, patching, waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::Value;
use wasmlet_api::conditions::{self, Status};
use wasmlet_api::names::READY_LABEL;
use wasmlet_api::node::Phase;
use wasmlet_api::{WasmNode, WasmRuntime};

use crate::client::block_on;
use crate::cluster::Cluster;
use crate::wait::eventually;

/// For one change of all nodes: images are pulled, containerds restarted and probes run, on a busy machine.
pub const CHANGE: Duration = Duration::from_secs(300);

/// A part of an object that has permissions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What shall be.
    Spec,
    /// What is.
    Status,
}

/// What wasmlet has in the API.
#[derive(Clone, Copy)]
pub struct Wasmlet {
    cluster: &'static Cluster,
}

impl Wasmlet {
    /// Of a cluster.
    pub fn new(cluster: &'static Cluster) -> Self {
        Self { cluster }
    }

    /// The cluster.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    fn runtimes(&self) -> Api<WasmRuntime> {
        Api::all(self.cluster.client())
    }

    /// The only WasmRuntime, as it is now.
    pub fn try_runtime(&self) -> Result<WasmRuntime, String> {
        let list = block_on(self.runtimes().list(&ListParams::default()))
            .map_err(|error| error.to_string())?;
        let names: Vec<_> = list.items.iter().map(|item| item.name_any()).collect();
        match <[_; 1]>::try_from(list.items) {
            Ok([runtime]) => Ok(runtime),
            Err(_) => Err(format!("not one WasmRuntime, but {names:?}")),
        }
    }

    /// The only WasmRuntime, as it is now.
    #[track_caller]
    pub fn runtime(&self) -> WasmRuntime {
        match self.try_runtime() {
            Ok(runtime) => runtime,
            Err(error) => panic!("{error}"),
        }
    }

    /// Merges a patch into the only WasmRuntime.
    #[track_caller]
    pub fn patch(&self, patch: &Value) -> WasmRuntime {
        let name = self.runtime().name_any();
        let runtimes = self.runtimes();
        let merged = async {
            let options = PatchParams::default();
            runtimes.patch(&name, &options, &Patch::Merge(patch)).await
        };
        match block_on(merged) {
            Ok(runtime) => runtime,
            Err(error) => panic!("WasmRuntime {name}: {patch}: {error}"),
        }
    }

    /// Waits until `look` takes a value from the only WasmRuntime, whose status is about its present spec.
    #[track_caller]
    pub fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&WasmRuntime) -> Option<T>,
    ) -> T {
        eventually(what, within, || {
            let runtime = self.try_runtime()?;
            let observed = runtime
                .status
                .as_ref()
                .and_then(|status| status.observed_generation);
            if observed != runtime.metadata.generation {
                return Err(format!("its status is about {observed:?}"));
            }
            look(&runtime).ok_or_else(|| self.told())
        })
    }

    /// Waits until so many nodes, and all that are chosen, run what the spec asks for.
    #[track_caller]
    pub fn until_ready(&self, nodes: usize) {
        self.until(&format!("{nodes} nodes are ready"), CHANGE, |runtime| {
            let counts = runtime.status.as_ref()?.nodes;
            let all = usize::try_from(counts.ready) == Ok(nodes) && counts.selected == counts.ready;
            (all && has(runtime, conditions::READY, Status::True)).then_some(())
        });
    }

    /// Whether the API server would take a patch of a WasmNode or its status from whoever has this token; nothing is changed.
    pub fn would_take(
        &self,
        token: &str,
        node: &str,
        part: Part,
        patch: &Value,
    ) -> Result<(), String> {
        let api: Api<WasmNode> = Api::all(self.cluster.client_with_token(token));
        let options = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let patched = block_on(async {
            match part {
                Part::Spec => api.patch(node, &options, &Patch::Merge(patch)).await,
                Part::Status => api.patch_status(node, &options, &Patch::Merge(patch)).await,
            }
        });
        patched.map(drop).map_err(|error| error.to_string())
    }

    /// The same of a Node's label.
    pub fn would_label(&self, token: &str, node: &str, patch: &Value) -> Result<(), String> {
        let api: Api<NodeObject> = Api::all(self.cluster.client_with_token(token));
        let options = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let patched = block_on(async { api.patch(node, &options, &Patch::Merge(patch)).await });
        patched.map(drop).map_err(|error| error.to_string())
    }

    /// All WasmNodes by name.
    pub fn try_nodes(&self) -> Result<BTreeMap<String, WasmNode>, String> {
        let api: Api<WasmNode> = Api::all(self.cluster.client());
        let list = block_on(api.list(&ListParams::default())).map_err(|error| error.to_string())?;
        Ok(list
            .items
            .into_iter()
            .map(|node| (node.name_any(), node))
            .collect())
    }

    /// One WasmNode.
    #[track_caller]
    pub fn node(&self, name: &str) -> WasmNode {
        match self.try_nodes().map(|mut nodes| nodes.remove(name)) {
            Ok(Some(node)) => node,
            Ok(None) => panic!("there is no WasmNode {name}"),
            Err(error) => panic!("WasmNode {name}: {error}"),
        }
    }

    /// Waits until `look` takes a value from a WasmNode.
    #[track_caller]
    pub fn until_node<T>(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&WasmNode) -> Option<T>,
    ) -> T {
        eventually(&format!("{name}: {what}"), within, || {
            let nodes = self.try_nodes()?;
            let found = nodes.get(name).and_then(&mut look);
            found.ok_or_else(|| self.told())
        })
    }

    /// Waits until a WasmNode is in this phase.
    #[track_caller]
    pub fn until_phase(&self, name: &str, wanted: Phase) -> WasmNode {
        self.until_node(name, &format!("phase {}", wanted.name()), CHANGE, |node| {
            (node.status.as_ref()?.phase? == wanted).then(|| node.clone())
        })
    }

    /// The label of each node; none where it is absent.
    pub fn try_labels(&self) -> Result<BTreeMap<String, Option<String>>, String> {
        let api: Api<NodeObject> = Api::all(self.cluster.client());
        let list = block_on(api.list(&ListParams::default())).map_err(|error| error.to_string())?;
        let each = list
            .items
            .into_iter()
            .map(|node| (node.name_any(), node.labels().get(READY_LABEL).cloned()));
        Ok(each.collect())
    }

    /// The label of one node.
    #[track_caller]
    pub fn label(&self, node: &str) -> Option<String> {
        match self.try_labels() {
            Ok(mut labels) => labels.remove(node).flatten(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything in a few lines, for messages.
    pub fn told(&self) -> String {
        let mut lines = Vec::new();
        match self.try_runtime() {
            Ok(runtime) => lines.push(format!(
                "WasmRuntime {}, generation {:?}: {}",
                runtime.name_any(),
                runtime.metadata.generation,
                serde_json::to_string(&runtime.status).unwrap_or_default()
            )),
            Err(error) => lines.push(error),
        }
        match self.try_nodes() {
            Ok(nodes) => lines.extend(nodes.iter().map(|(name, node)| {
                let status = serde_json::to_string(&node.status).unwrap_or_default();
                format!("WasmNode {name}: ordered {}: {status}", node.spec.revision)
            })),
            Err(error) => lines.push(error),
        }
        match self.try_labels() {
            Ok(labels) => lines.push(format!("labels: {labels:?}")),
            Err(error) => lines.push(error),
        }
        lines.join("\n")
    }

    /// A condition of the only WasmRuntime, whatever its status.
    pub fn condition(runtime: &WasmRuntime, type_: &str) -> Option<Condition> {
        conditions::find(&runtime.status.as_ref()?.conditions, type_).cloned()
    }

    /// Whether a condition of it has this status.
    pub fn has(runtime: &WasmRuntime, type_: &str, status: Status) -> bool {
        has(runtime, type_, status)
    }
}

fn has(runtime: &WasmRuntime, type_: &str, status: Status) -> bool {
    let of = runtime.status.as_ref();
    of.is_some_and(|of| conditions::is(&of.conditions, type_, status))
}
