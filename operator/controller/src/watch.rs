//! Lists and watches, into caches. What of an object does not decide ends here: heartbeats of nodes wake nobody.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use wasmlet_api::{WasmNode, WasmRuntime, names};

use crate::cache::{Cache, News, Seen, Synced};
use crate::world::{NodeFacts, PodFacts, ProbeLog, Usage, World};

/// Objects in one answer of a list: 5,000 nodes in ten answers of a few megabytes.
const PAGE: u32 = 500;

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Caches {
    /// WasmRuntimes.
    pub runtimes: Cache<WasmRuntime>,
    /// Nodes.
    pub nodes: Cache<NodeFacts>,
    /// WasmNodes.
    pub wasm_nodes: Cache<WasmNode>,
    /// Stage and probe pods.
    pub pods: Cache<PodFacts>,
    /// RuntimeClasses.
    pub classes: Cache<RuntimeClass>,
    /// Answers to questions that the planner asked.
    // A std mutex: never held across an await.
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    usage: std::collections::BTreeMap<String, Arc<Usage>>,
    probes: std::collections::BTreeMap<String, ProbeLog>,
}

impl Caches {
    /// The world as it is known now.
    pub fn world(&self) -> World {
        let pods = self.pods.snapshot();
        let nodes = self.nodes.snapshot();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.usage.retain(|node, _| nodes.contains_key(node));
        answers
            .probes
            .retain(|uid, _| pods.values().any(|pod| pod.uid == *uid));
        World {
            runtimes: self.runtimes.snapshot(),
            wasm_nodes: self.wasm_nodes.snapshot(),
            classes: self.classes.snapshot(),
            usage: answers.usage.clone(),
            probes: answers.probes.clone(),
            nodes,
            pods,
        }
    }

    /// Takes in the pods of a node.
    pub fn uses(&self, node: &str, usage: Usage) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.usage.insert(node.to_owned(), Arc::new(usage));
    }

    /// Takes in what a probe pod wrote.
    pub fn probed(&self, pod_uid: &str, log: ProbeLog) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.probes.insert(pod_uid.to_owned(), log);
    }

    /// Whether all first lists are complete.
    pub fn synced(&self) -> Synced {
        let all = [
            self.runtimes.synced(),
            self.nodes.synced(),
            self.wasm_nodes.synced(),
            self.pods.synced(),
            self.classes.synced(),
        ];
        if all.contains(&Synced::No) {
            Synced::No
        } else {
            Synced::Yes
        }
    }
}

/// An object as caches take it; none without a name.
pub fn seen<K: Resource, T>(object: K, trim: impl FnOnce(K) -> Option<T>) -> Option<Seen<T>> {
    let meta = object.meta();
    let name = meta.name.clone()?;
    let version = meta
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default();
    Some(Seen {
        name,
        version,
        value: trim(object),
    })
}

/// Of a WasmRuntime or WasmNode all but what the API server notes for itself.
pub fn trimmed<K: Resource>(mut object: K) -> Option<K> {
    object.meta_mut().managed_fields = None;
    object.meta_mut().resource_version = None;
    Some(object)
}

/// Watches everything until the process ends. `poke` is notified of news.
pub async fn watch_all(client: Client, namespace: &str, caches: Arc<Caches>, poke: Arc<Notify>) {
    let config = || watcher::Config::default().page_size(PAGE);
    let ours = format!(
        "{}={},{}",
        names::MANAGED_BY_LABEL,
        names::MANAGED_BY,
        names::PURPOSE_LABEL
    );
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    tokio::join!(
        follow(
            guarded::<WasmRuntime>(&client),
            config(),
            &caches.runtimes,
            &poke,
            readable
        ),
        follow(
            guarded::<WasmNode>(&client),
            config(),
            &caches.wasm_nodes,
            &poke,
            readable
        ),
        follow(
            Api::<Node>::all(client.clone()),
            config(),
            &caches.nodes,
            &poke,
            NodeFacts::of
        ),
        follow(
            pods,
            config().labels(&ours),
            &caches.pods,
            &poke,
            PodFacts::of
        ),
        follow(
            Api::<RuntimeClass>::all(client.clone()),
            config(),
            &caches.classes,
            &poke,
            trimmed
        ),
    );
}

fn guarded<K>(client: &Client) -> Api<DeserializeGuard<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>,
{
    Api::all(client.clone())
}

/// One bad object must not keep the others from being seen.
fn readable<K: Resource<DynamicType = ()>>(guard: DeserializeGuard<K>) -> Option<K> {
    let name = guard.name_any();
    match guard.0 {
        Ok(object) => trimmed(object),
        Err(error) => {
            tracing::error!(kind = %K::kind(&()), name, error = %error.error, "an object cannot be read and is left out");
            None
        }
    }
}

async fn follow<K, T>(
    api: Api<K>,
    config: watcher::Config,
    cache: &Cache<T>,
    poke: &Notify,
    trim: fn(K) -> Option<T>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: PartialEq,
{
    let mut events = std::pin::pin!(watch(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(kind = short_name::<T>(), error = %chain(&error), "a watch was interrupted; it begins anew");
                continue;
            }
        };
        let event = match event {
            Event::Init => Some(Event::Init),
            Event::InitDone => Some(Event::InitDone),
            Event::InitApply(object) => seen(object, trim).map(Event::InitApply),
            Event::Apply(object) => seen(object, trim).map(Event::Apply),
            Event::Delete(object) => seen(object, trim).map(Event::Delete),
        };
        if event.is_some_and(|event| cache.show(event) == News::Yes) {
            poke.notify_one();
        }
    }
}

fn short_name<T>() -> &'static str {
    std::any::type_name::<T>()
        .rsplit("::")
        .next()
        .unwrap_or_default()
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
