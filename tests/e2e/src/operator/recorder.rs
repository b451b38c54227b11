//! All that happened to nodes while a test did something: every version of their labels and WasmNodes, not a sample of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use wasmlet_api::WasmNode;
use wasmlet_api::names::READY_LABEL;
use wasmlet_api::node::Phase;

use crate::client::spawn;
use crate::cluster::Cluster;

/// Between two tries to have a watch, for example while the CRD is not there yet.
const AGAIN: Duration = Duration::from_millis(100);

/// One version of something about a node. The order of versions is the order in which the API server stored them, of all
/// kinds together: they are numbers of the one etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Resource version.
    pub version: u64,
    /// Name of the node.
    pub node: String,
    /// What is known of it since.
    pub what: What,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Its label `wasmlet.dev/ready`.
    Label(Option<String>),
    /// The phase of its WasmNode.
    Phase(Option<Phase>),
}

#[derive(Debug, Default)]
struct Notes {
    seen: Vec<Seen>,
    gaps: Vec<String>,
}

/// Writes down what happens, for as long as it lives.
pub struct Recorder {
    notes: Arc<Mutex<Notes>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Recorder {
    /// Begins with how things are now.
    pub fn start(cluster: &Cluster) -> Self {
        let notes = Arc::new(Mutex::default());
        let labels = follow(cluster.client(), Arc::clone(&notes), |node: &NodeObject| {
            What::Label(node.labels().get(READY_LABEL).cloned())
        });
        let phases = follow(cluster.client(), Arc::clone(&notes), |node: &WasmNode| {
            What::Phase(node.status.as_ref().and_then(|status| status.phase))
        });
        Self {
            notes,
            tasks: vec![spawn(labels), spawn(phases)],
        }
    }

    /// Everything so far, in order. A watch that broke makes it worthless, and fails the test.
    #[track_caller]
    pub fn seen(&self) -> Vec<Seen> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            notes.gaps.is_empty(),
            "what happened to nodes was not seen without gaps: {:?}",
            notes.gaps
        );
        let mut seen = notes.seen.clone();
        seen.sort_by_key(|seen| seen.version);
        seen
    }

    /// The nodes in the order in which they were claimed: their label became `false`.
    #[track_caller]
    pub fn claimed(&self) -> Vec<String> {
        claimed(&self.seen())
    }

    /// The largest set of nodes that were in change at the same moment.
    #[track_caller]
    pub fn most_at_once(&self) -> BTreeSet<String> {
        most_at_once(&self.seen())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Lists, then watches; a watch that ends in peace is taken up where it ended.
async fn follow<K>(client: Client, notes: Arc<Mutex<Notes>>, look: impl Fn(&K) -> What)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::all(client);
    let note = |object: &K, gone: bool| {
        let what = match look(object) {
            What::Label(_) if gone => What::Label(None),
            What::Phase(_) if gone => What::Phase(None),
            what => what,
        };
        let version = object.resource_version().and_then(|text| text.parse().ok());
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => notes.seen.push(Seen {
                version,
                node: object.name_any(),
                what,
            }),
            None => notes.gaps.push(format!(
                "{} has no version that is a number",
                object.name_any()
            )),
        }
    };
    let mut version = loop {
        // Until the CRD is there.
        if let Ok(list) = api.list(&ListParams::default()).await {
            list.items.iter().for_each(|object| note(object, false));
            break list.metadata.resource_version.unwrap_or_default();
        }
        tokio::time::sleep(AGAIN).await;
    };
    loop {
        let Ok(stream) = api.watch(&WatchParams::default(), &version).await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let mut stream = stream.boxed();
        loop {
            let object = match stream.try_next().await {
                Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    note(&object, false);
                    object
                }
                Ok(Some(WatchEvent::Deleted(object))) => {
                    note(&object, true);
                    object
                }
                Ok(Some(WatchEvent::Bookmark(mark))) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                Ok(Some(WatchEvent::Error(status))) => {
                    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                    notes.gaps.push(status.to_string());
                    return;
                }
                // From the last version on nothing is lost.
                Ok(None) | Err(_) => break,
            };
            version = object.resource_version().unwrap_or(version);
        }
    }
}

fn claimed(seen: &[Seen]) -> Vec<String> {
    let mut labels = BTreeMap::<&str, Option<&str>>::new();
    let mut order = Vec::new();
    for Seen { node, what, .. } in seen {
        let What::Label(label) = what else { continue };
        let before = labels.insert(node, label.as_deref()).flatten();
        if label.as_deref() == Some("false") && before != Some("false") {
            order.push(node.clone());
        }
    }
    order
}

fn most_at_once(seen: &[Seen]) -> BTreeSet<String> {
    let (mut labels, mut phases) = (BTreeSet::new(), BTreeSet::new());
    let mut most = BTreeSet::new();
    for Seen { node, what, .. } in seen {
        let (set, is_so) = match what {
            What::Label(label) => (&mut labels, label.as_deref() == Some("false")),
            What::Phase(phase) => (
                &mut phases,
                matches!(
                    phase,
                    Some(Phase::Staging | Phase::Applying | Phase::Probing)
                ),
            ),
        };
        if is_so {
            set.insert(node.clone());
        } else {
            set.remove(node);
        }
        // The label is the promise to users; a phase beyond it would be a change that nobody was told of.
        let now: BTreeSet<_> = labels.union(&phases).cloned().collect();
        if now.len() > most.len() {
            most = now;
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(version: u64, node: &str, value: Option<&str>) -> Seen {
        Seen {
            version,
            node: node.to_owned(),
            what: What::Label(value.map(str::to_owned)),
        }
    }

    #[test]
    fn nodes_that_are_changed_one_after_the_other_are_never_two() {
        let seen = [
            label(1, "a", None),
            label(2, "b", Some("false")),
            label(3, "b", Some("false")),
            label(4, "b", Some("true")),
            label(5, "a", Some("false")),
            label(6, "a", Some("true")),
        ];
        assert_eq!(claimed(&seen), ["b", "a"]);
        assert_eq!(most_at_once(&seen).len(), 1);
    }

    #[test]
    fn a_phase_counts_as_much_as_a_label() {
        let applying = Seen {
            version: 3,
            node: "a".to_owned(),
            what: What::Phase(Some(Phase::Applying)),
        };
        let seen = [
            label(2, "b", Some("false")),
            applying,
            label(4, "b", Some("true")),
        ];
        assert_eq!(most_at_once(&seen).len(), 2);
    }
}
