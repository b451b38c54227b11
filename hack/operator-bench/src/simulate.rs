//! Nodes that are not there: their Node objects, kubelets that let every pod of the operator's end well, and agents that do as ordered.

use std::sync::Arc;

use futures::{TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use wasmlet_api::WasmNode;
use wasmlet_api::conditions::{self, Status};
use wasmlet_api::names::{AGENT_MANAGER, MANAGED_BY, MANAGED_BY_LABEL};
use wasmlet_api::node::{ActiveRuntime, AgentState, AgentStatus, ContainerdStatus};

use crate::count::Own;
use crate::error::{Error, api};

/// Calls at a time.
const AT_ONCE: usize = 32;

/// The operator's namespace.
pub(crate) const NAMESPACE: &str = "wasmlet";

/// Where the simulated kubelets answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kubelets {
    pub(crate) address: std::net::IpAddr,
    pub(crate) port: u16,
}

/// Makes the namespace and the nodes.
pub(crate) async fn create(client: &Client, count: usize, kubelets: Kubelets) -> Result<(), Error> {
    let post = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = |value: Value| serde_json::from_value(value).expect("a constant object");
    namespaces
        .create(&post, &object(json!({ "metadata": { "name": NAMESPACE } })))
        .await
        .map_err(api("create", format!("namespace {NAMESPACE}")))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let account = serde_json::from_value(json!({ "metadata": { "name": "default" } }));
    accounts
        .create(&post, &account.expect("a constant object"))
        .await
        .map_err(api("create", "service account default"))?;
    let nodes: Api<Node> = Api::all(client.clone());
    let names = (1..=count).map(|number| format!("simulated-{number:05}"));
    stream::iter(names.map(Ok))
        .try_for_each_concurrent(AT_ONCE, |name| {
            let nodes = nodes.clone();
            async move {
                let node = serde_json::from_value(node(&name)).expect("a node");
                nodes
                    .create(&PostParams::default(), &node)
                    .await
                    .map_err(api("create", format!("node {name}")))?;
                nodes
                    .patch_status(
                        &name,
                        &PatchParams::default(),
                        &Patch::Merge(&node_status(kubelets)),
                    )
                    .await
                    .map_err(api("patch", format!("status of node {name}")))?;
                Ok(())
            }
        })
        .await
}

fn node(name: &str) -> Value {
    json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "simulated", "topology.kubernetes.io/zone": "a",
            },
        },
    })
}

fn node_status(kubelets: Kubelets) -> Value {
    let now = Timestamp::now().to_string();
    // As long as a real one's: it is what the operator must not keep.
    let images: Vec<_> = (0..40)
        .map(|number| json!({ "names": [format!("registry.example/some/image-{number}@sha256:{number:064}")], "sizeBytes": 1 }))
        .collect();
    json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": kubelets.address }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": kubelets.port } },
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "simulated", "containerRuntimeVersion": "containerd://2.3.7",
            "kernelVersion": "6.1", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3", "machineID": "simulated",
            "operatingSystem": "linux", "osImage": "simulated", "systemUUID": "simulated",
        },
        "images": images,
    } })
}

/// Lets every pod of the operator's end well. Returns only if it cannot go on.
pub(crate) async fn kubelets(client: Client, own: Arc<Own>) -> String {
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let selector = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let events = watcher(pods.clone(), selector)
        .default_backoff()
        .applied_objects();
    let ended = events
        .try_for_each_concurrent(AT_ONCE, |pod| {
            let (pods, own) = (pods.clone(), Arc::clone(&own));
            async move {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                if !matches!(phase, None | Some("Pending")) {
                    return Ok(());
                }
                own.add("PATCH pods/status");
                let patched = pods
                    .patch_status(
                        &pod.name_any(),
                        &PatchParams::default(),
                        &Patch::Merge(&succeeded(&pod)),
                    )
                    .await;
                match patched {
                    // It was deleted meanwhile.
                    Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                    Ok(_) => Ok(()),
                    Err(error) => Err(watcher::Error::WatchFailed(error)),
                }
            }
        })
        .await;
    format!("kubelets: {ended:?}")
}

fn succeeded(pod: &Pod) -> Value {
    let containers = pod
        .spec
        .as_ref()
        .map(|spec| &spec.containers[..])
        .unwrap_or_default();
    let now = Timestamp::now().to_string();
    let statuses: Vec<_> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "simulated", "ready": false, "restartCount": 0,
                "containerID": "containerd://simulated",
                "state": { "terminated": {
                    "exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now,
                    "containerID": "containerd://simulated",
                } },
            })
        })
        .collect();
    json!({ "status": { "phase": "Succeeded", "startTime": now, "containerStatuses": statuses } })
}

/// Answers every order. Returns only if it cannot go on.
pub(crate) async fn agents(client: Client, own: Arc<Own>) -> String {
    let api: Api<WasmNode> = Api::all(client);
    let events = watcher(api.clone(), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let ended = events
        .try_for_each_concurrent(AT_ONCE, |node| {
            let (api, own) = (api.clone(), Arc::clone(&own));
            async move {
                let Some(status) = answer(&node) else {
                    return Ok(());
                };
                own.add("APPLY wasmnodes/status");
                let patched = api
                    .patch_status(
                        &node.name_any(),
                        &PatchParams::apply(AGENT_MANAGER).force(),
                        &Patch::Apply(&status),
                    )
                    .await;
                match patched {
                    Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                    Ok(_) => Ok(()),
                    Err(error) => Err(watcher::Error::WatchFailed(error)),
                }
            }
        })
        .await;
    format!("agents: {ended:?}")
}

/// What an agent writes when it sees its WasmNode; nothing if it has said it already.
fn answer(node: &WasmNode) -> Option<Value> {
    let said = node
        .status
        .as_ref()
        .and_then(|status| status.agent.as_ref());
    let spec = &node.spec;
    let is_ordered = !spec.revision.is_empty();
    let is_answered = said.is_some_and(|agent| {
        (&agent.observed_revision, agent.observed_attempt) == (&spec.revision, spec.attempt)
    });
    if is_answered || (said.is_some() && !is_ordered) {
        return None;
    }
    let mut agent = AgentStatus {
        version: "simulated".to_owned(),
        distribution: "containerd".to_owned(),
        containerd: Some(ContainerdStatus {
            version: "2.3.7".to_owned(),
            config_path: "/etc/containerd/config.toml".to_owned(),
            config_version: 4,
            written_path: "/etc/containerd/conf.d/wasmlet.toml".to_owned(),
        }),
        ..AgentStatus::default()
    };
    let mut list = Vec::new();
    if is_ordered {
        agent.state = AgentState::Applied;
        agent.observed_revision = spec.revision.clone();
        agent.observed_attempt = spec.attempt;
        agent.restarts = 1;
        agent.staged = spec
            .runtimes
            .iter()
            .map(|runtime| runtime.digest.clone())
            .collect();
        agent.runtimes = spec
            .runtimes
            .iter()
            .map(|runtime| ActiveRuntime {
                handler: runtime.handler.clone(),
                digest: runtime.digest.clone(),
                version: "simulated".to_owned(),
            })
            .collect();
        list.push(conditions::condition(
            &[],
            conditions::APPLIED,
            Status::True,
            "Applied",
            "simulated",
            node.metadata.generation,
            &Time(Timestamp::now()),
        ));
    }
    Some(json!({
        "apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmNode", "metadata": { "name": node.name_any() },
        "status": { "agent": agent, "conditions": list },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wasm_node(spec: Value, status: Value) -> WasmNode {
        serde_json::from_value(json!({
            "apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmNode", "metadata": { "name": "a" },
            "spec": spec, "status": status,
        }))
        .expect("a WasmNode")
    }

    #[test]
    fn an_agent_answers_each_order_once() {
        let idle = json!({ "nodeUID": "u" });
        let first = answer(&wasm_node(idle.clone(), json!({}))).expect("its facts");
        assert!(answer(&wasm_node(idle, first["status"].clone())).is_none());
        let order = json!({ "nodeUID": "u", "revision": "r", "attempt": 1 });
        let second = answer(&wasm_node(order.clone(), first["status"].clone())).expect("an answer");
        assert_eq!(second["status"]["agent"]["state"], "Applied");
        assert!(answer(&wasm_node(order, second["status"].clone())).is_none());
    }
}
