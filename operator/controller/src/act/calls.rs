//! One action, one call.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wasmlet_api::names::{FINALIZER, OPERATOR_MANAGER, PROBE_LINE, PURPOSE_LABEL};
use wasmlet_api::{WasmNode, WasmNodeSpec, WasmRuntime};

use super::{ActError, Executor};
use crate::cache::Cache;
use crate::objects::owner;
use crate::plan::{About, Action, Finalizer, Note, Tone};
use crate::watch::{seen, trimmed};
use crate::world::{NodeFacts, PodFacts, ProbeLog, Usage};

/// Pods in one answer; a node has rarely more.
const PODS_PAGE: u32 = 500;
/// Of a probe's last line.
const LINE_BYTES: i64 = 1024;

/// Name of the object of an action.
pub(super) fn name(action: &Action) -> String {
    match action {
        Action::CreateWasmNode { node, .. }
        | Action::WriteNode { node, .. }
        | Action::Order { node, .. }
        | Action::DeleteWasmNode { node, .. }
        | Action::Label { node, .. }
        | Action::CheckUse { node, .. } => node.clone(),
        Action::CreatePod(pod) => pod.name_any(),
        Action::DeletePod { name, .. } | Action::DeleteClass { name, .. } => name.clone(),
        Action::ApplyClass(class) => class.name_any(),
        Action::Finalizer { runtime, .. } | Action::WriteRuntime { runtime, .. } => runtime.clone(),
        Action::ReadProbe { pod, .. } => pod.clone(),
        Action::Note(note) => match &note.about {
            About::Node { name, .. } | About::Runtime { name, .. } => name.clone(),
        },
    }
}

fn ours() -> PatchParams {
    PatchParams::apply(OPERATOR_MANAGER).force()
}

/// `{apiVersion, kind, metadata}` of an object, and whatever else is in `more`.
fn object<K: Resource<DynamicType = ()>>(metadata: Value, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
    });
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

impl Executor {
    pub(super) async fn call(&self, action: &Action) -> Result<(), ActError> {
        let (verb, resource) = action.call();
        self.send(action).await.map_err(|error| match error {
            Sent::Api(source) => ActError::Api {
                verb,
                resource,
                name: name(action),
                source: Box::new(source),
            },
            Sent::Gone => ActError::Gone {
                resource,
                name: name(action),
            },
        })
    }

    async fn send(&self, action: &Action) -> Result<(), Sent> {
        match action {
            Action::CreateWasmNode { node, node_uid } => {
                // Not applied: that would replace the order in one that is there already.
                let mut new = WasmNode::new(
                    node,
                    WasmNodeSpec {
                        node_uid: node_uid.clone(),
                        revision: String::new(),
                        attempt: 0,
                        runtimes: Vec::new(),
                    },
                );
                new.metadata.owner_references = Some(vec![owner::<Node>(node, node_uid)]);
                let params = PostParams {
                    field_manager: Some(OPERATOR_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                let made = self.wasm_nodes().create(&params, &new).await?;
                keep(&self.caches.wasm_nodes, made, trimmed);
            }
            Action::WriteNode { node, part } => {
                let status = json!({ "status": {
                    "phase": part.phase,
                    "change": part.change,
                    "verified": part.verified,
                    "conditions": part.conditions,
                }});
                let patch = Patch::Apply(object::<WasmNode>(json!({ "name": node }), status));
                let made = self
                    .wasm_nodes()
                    .patch_status(node, &ours(), &patch)
                    .await?;
                keep(&self.caches.wasm_nodes, made, trimmed);
            }
            Action::Order { node, uid, spec } => {
                // With the UID the API server makes no new one where it is gone.
                let metadata = json!({
                    "name": node,
                    "uid": uid,
                    "ownerReferences": [owner::<Node>(node, &spec.node_uid)],
                });
                let patch = Patch::Apply(object::<WasmNode>(metadata, json!({ "spec": spec })));
                let made = self.wasm_nodes().patch(node, &ours(), &patch).await?;
                keep(&self.caches.wasm_nodes, made, trimmed);
            }
            Action::DeleteWasmNode { node, uid } => {
                delete(
                    &self.wasm_nodes(),
                    node,
                    uid,
                    &self.caches.wasm_nodes,
                    trimmed,
                )
                .await?;
            }
            Action::Label { node, uid, labels } => {
                // A merge patch, not an apply: a label that somebody else owns has to go, too.
                let patch = Patch::Merge(json!({ "metadata": { "uid": uid, "labels": labels } }));
                let params = PatchParams {
                    field_manager: Some(OPERATOR_MANAGER.to_owned()),
                    ..PatchParams::default()
                };
                let nodes = Api::<Node>::all(self.client.clone());
                let made = nodes.patch(node, &params, &patch).await?;
                keep(&self.caches.nodes, made, NodeFacts::of);
            }
            Action::CreatePod(pod) => {
                let params = PostParams {
                    field_manager: Some(OPERATOR_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                let made = self.pods().create(&params, pod).await?;
                keep(&self.caches.pods, made, PodFacts::of);
            }
            Action::DeletePod { name, uid } => {
                delete(&self.pods(), name, uid, &self.caches.pods, PodFacts::of).await?;
            }
            Action::ApplyClass(class) => {
                let classes = Api::<RuntimeClass>::all(self.client.clone());
                let made = classes
                    .patch(&class.name_any(), &ours(), &Patch::Apply(class))
                    .await?;
                keep(&self.caches.classes, made, trimmed);
            }
            Action::DeleteClass { name, uid } => {
                let classes = Api::<RuntimeClass>::all(self.client.clone());
                delete(&classes, name, uid, &self.caches.classes, trimmed).await?;
            }
            Action::Finalizer {
                runtime, finalizer, ..
            } => self.finalizer(runtime, *finalizer).await?,
            Action::WriteRuntime { runtime, status } => {
                let metadata = json!({ "name": runtime });
                let patch =
                    Patch::Apply(object::<WasmRuntime>(metadata, json!({ "status": status })));
                let made = self
                    .runtimes()
                    .patch_status(runtime, &ours(), &patch)
                    .await?;
                keep(&self.caches.runtimes, made, trimmed);
            }
            Action::CheckUse { node, uid } => self.check_use(node, uid).await?,
            Action::ReadProbe { pod, uid } => {
                let params = LogParams {
                    tail_lines: Some(1),
                    limit_bytes: Some(LINE_BYTES),
                    ..LogParams::default()
                };
                let line = self.pods().logs(pod, &params).await?;
                let line = line.trim_end();
                let log = if line.starts_with(PROBE_LINE) {
                    ProbeLog::Ok
                } else {
                    ProbeLog::Other(line.to_owned())
                };
                self.caches.probed(uid, log);
            }
            Action::Note(note) => self.say(note).await?,
        }
        Ok(())
    }

    async fn finalizer(&self, runtime: &str, finalizer: Finalizer) -> Result<(), Sent> {
        // Other people's finalizers stay: the list is replaced, so it is read and written under the version that it had.
        let api = self.runtimes();
        let found = match api.get_metadata_opt(runtime).await? {
            Some(found) => found,
            None if finalizer == Finalizer::Absent => {
                self.caches.runtimes.deleted(runtime);
                return Ok(());
            }
            None => return Err(Sent::Gone),
        };
        let mut finalizers = found.metadata.finalizers.unwrap_or_default();
        finalizers.retain(|name| name != FINALIZER);
        if finalizer == Finalizer::Present {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = Patch::Merge(json!({ "metadata": {
            "resourceVersion": found.metadata.resource_version,
            "finalizers": finalizers,
        }}));
        let params = PatchParams {
            field_manager: Some(OPERATOR_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let made = api.patch(runtime, &params, &patch).await?;
        let ends = finalizer == Finalizer::Absent
            && finalizers.is_empty()
            && made.metadata.deletion_timestamp.is_some();
        if ends {
            self.caches.runtimes.deleted(runtime);
        } else {
            keep(&self.caches.runtimes, made, trimmed);
        }
        Ok(())
    }

    async fn check_use(&self, node: &str, uid: &str) -> Result<(), Sent> {
        let checked = Timestamp::now();
        let pods = Api::<Pod>::all(self.client.clone());
        let mut params = ListParams::default()
            .fields(&format!("spec.nodeName={node}"))
            .limit(PODS_PAGE);
        let mut users = Vec::new();
        loop {
            let page = pods.list(&params).await?;
            users.extend(
                page.items
                    .iter()
                    .filter_map(|pod| user(pod, &self.namespace)),
            );
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params.continue_token = Some(token),
                _ => break,
            }
        }
        self.caches.uses(
            node,
            Usage {
                node_uid: uid.to_owned(),
                checked,
                pods: users,
            },
        );
        Ok(())
    }

    async fn say(&self, note: &Note) -> Result<(), Sent> {
        let reference = match &note.about {
            About::Node { name, uid } => reference::<Node>(name, uid),
            About::Runtime { name, uid } => reference::<WasmRuntime>(name, uid),
        };
        let event = Event {
            type_: match note.tone {
                Tone::Normal => EventType::Normal,
                Tone::Warning => EventType::Warning,
            },
            reason: note.reason.name().to_owned(),
            // The API server's bound is 1 KiB.
            note: Some(note.text.chars().take(1000).collect()),
            action: "Rollout".to_owned(),
            secondary: None,
        };
        Ok(self.recorder.publish(&event, &reference).await?)
    }

    fn wasm_nodes(&self) -> Api<WasmNode> {
        Api::all(self.client.clone())
    }

    fn runtimes(&self) -> Api<WasmRuntime> {
        Api::all(self.client.clone())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Why a call did not succeed.
enum Sent {
    Api(kube::Error),
    Gone,
}

impl From<kube::Error> for Sent {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

fn keep<K: Resource, T: PartialEq>(cache: &Cache<T>, object: K, trim: fn(K) -> Option<T>) {
    if let Some(seen) = seen(object, trim) {
        cache.wrote(seen);
    }
}

/// Deletes one with this UID; that it is gone already is well.
async fn delete<K, T>(
    api: &Api<K>,
    name: &str,
    uid: &str,
    cache: &Cache<T>,
    trim: fn(K) -> Option<T>,
) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    T: PartialEq,
{
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(name, &params).await {
        // A pod that runs is deleted gracefully: it is there for a while, marked.
        Ok(answer) => match answer.left() {
            Some(object) if object.meta().deletion_timestamp.is_some() => {
                keep(cache, object, trim);
            }
            _ => cache.deleted(name),
        },
        Err(kube::Error::Api(status)) if status.code == 404 => cache.deleted(name),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// A pod that uses a RuntimeClass, and is none of ours.
fn user(pod: &Pod, own_namespace: &str) -> Option<(String, String)> {
    let class = pod.spec.as_ref()?.runtime_class_name.clone()?;
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    // A label alone would let tenants hide theirs.
    let ours = pod.labels().contains_key(PURPOSE_LABEL)
        && pod.namespace().as_deref() == Some(own_namespace);
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    (!ended && !ours).then_some((name, class))
}

fn reference<K: Resource<DynamicType = ()> + Serialize>(name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
