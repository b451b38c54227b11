//! The namespace of one test.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{
    Event as EventObject, Namespace as NamespaceObject, ServiceAccount,
};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::client::{api_of, block_on};
use crate::cluster::{Cluster, RUN_LABEL, random_hex};
use crate::kubectl::Kubectl;
use crate::pod::Pod;
use crate::spec::PodSpec;
use crate::status::{Ended, Event};
use crate::wait::{LONG, SHORT, eventually, wait_for};

/// For a namespace's pods to stop and everything in it to go: the longest grace of a test, and the
/// controllers' work.
const GONE: Duration = Duration::from_secs(90);

/// A name of a namespace may have 63 characters: `e2e-`, the test's, `-` and eight digits.
const NAME_LENGTH: usize = 63 - 4 - 9;

/// A namespace that lives as long as a test.
pub struct Namespace {
    cluster: &'static Cluster,
    name: String,
}

impl Namespace {
    /// Runs a test in a namespace of its own and removes that. When the test fails, the message ends with
    /// what is left of its pods; when it passes, everything must be gone in time.
    pub fn run(
        cluster: &'static Cluster,
        test: &str,
        labels: &[(&str, &str)],
        body: impl FnOnce(&Self),
    ) -> Result<(), String> {
        let namespace = Self::create(cluster, test, labels);
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&namespace)));
        let failure = outcome.err().map(|panic| {
            let dump = catch_unwind(AssertUnwindSafe(|| namespace.dump(test)));
            let dump = dump.unwrap_or_else(|_| "its remains cannot be told".to_owned());
            format!("{}\n{dump}", text_of(panic.as_ref()))
        });
        if cluster.env().keep {
            eprintln!("e2e: {test}: kept namespace {}", namespace.name);
            return failure.map_or(Ok(()), Err);
        }
        match (failure, namespace.remove()) {
            (None, Ok(())) => Ok(()),
            (Some(failure), Ok(())) => Err(failure),
            (None, Err(left)) => Err(format!("{left}\n{}", namespace.dump(test))),
            (Some(failure), Err(left)) => Err(format!("{failure}\nand then: {left}")),
        }
    }

    #[track_caller]
    fn create(cluster: &'static Cluster, test: &str, labels: &[(&str, &str)]) -> Self {
        let name = format!("e2e-{}-{}", slug(test), random_hex());
        let mut object = json!({
            "metadata": { "name": name, "labels": { RUN_LABEL: cluster.run_id() } },
        });
        for (key, value) in labels {
            object["metadata"]["labels"][*key] = (*value).into();
        }
        let object: NamespaceObject = serde_json::from_value(object).expect("a namespace");
        let namespaces: Api<NamespaceObject> = Api::all(cluster.client());
        if let Err(error) = block_on(namespaces.create(&PostParams::default(), &object)) {
            panic!("namespace {name} cannot be made: {error}");
        }
        let namespace = Self { cluster, name };
        // Pods are refused before it is there.
        let accounts: Api<ServiceAccount> = namespace.api();
        eventually("the namespace has its service account", SHORT, || {
            block_on(accounts.get("default")).map_err(|error| error.to_string())
        });
        namespace
    }

    /// The cluster.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Typed calls for a kind of object in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: k8s_openapi::Resource + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        <K as kube::Resource>::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    /// Creates whatever a manifest says.
    #[track_caller]
    pub fn create_object(&self, manifest: Value) -> Value {
        match self.try_create(manifest) {
            Ok(object) => object,
            Err(error) => panic!("{error}"),
        }
    }

    /// Creates whatever a manifest says, or tells why the API server does not take it.
    #[track_caller]
    pub fn try_create(&self, manifest: Value) -> Result<Value, String> {
        let api = api_of(&self.cluster.client(), &self.name, &manifest);
        let what = format!("{} {}", manifest["kind"], manifest["metadata"]["name"]);
        let object: DynamicObject =
            serde_json::from_value(manifest).map_err(|error| format!("{what}: {error}"))?;
        let created = block_on(api.create(&PostParams::default(), &object))
            .map_err(|error| format!("{what}: {error}"))?;
        serde_json::to_value(created).map_err(|error| format!("{what}: {error}"))
    }

    /// Merges a patch into an object, named as `("apps/v1", "Deployment", "inference")`.
    #[track_caller]
    pub fn patch(&self, (api_version, kind, name): (&str, &str, &str), patch: &Value) -> Value {
        let head = json!({ "apiVersion": api_version, "kind": kind });
        let api = api_of(&self.cluster.client(), &self.name, &head);
        let merged = block_on(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)));
        let merged = merged.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        serde_json::to_value(merged).expect("an object is JSON")
    }

    /// An object as it is now.
    #[track_caller]
    pub fn get(&self, (api_version, kind, name): (&str, &str, &str)) -> Value {
        let head = json!({ "apiVersion": api_version, "kind": kind });
        let api = api_of(&self.cluster.client(), &self.name, &head);
        let found = block_on(api.get(name));
        let found = found.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        serde_json::to_value(found).expect("an object is JSON")
    }

    /// Creates a pod.
    #[track_caller]
    pub fn start(&self, pod: PodSpec) -> Pod<'_> {
        let name = pod.name().to_owned();
        self.create_object(pod.into_value());
        Pod::new(self, name)
    }

    /// Creates a pod and waits until its first container has ended for good.
    #[track_caller]
    pub fn run_pod(&self, pod: PodSpec) -> (Pod<'_>, Ended) {
        let pod = self.start(pod);
        let ended = pod.until_ended();
        (pod, ended)
    }

    /// A pod that is there already, or will be.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        Pod::new(self, name.to_owned())
    }

    /// The pods with a label, `app=inference`, that are not about to go.
    #[track_caller]
    pub fn pods(&self, selector: &str) -> Vec<Pod<'_>> {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = self.api();
        let list = block_on(pods.list(&ListParams::default().labels(selector)));
        let list = list.unwrap_or_else(|error| panic!("pods {selector}: {error}"));
        let live = list
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        live.filter_map(|pod| Some(Pod::new(self, pod.metadata.name?)))
            .collect()
    }

    /// The events about an object, oldest first; about all of the namespace without a name.
    pub fn events(&self, about: Option<&str>) -> Result<Vec<Event>, String> {
        let events: Api<EventObject> = self.api();
        let parameters = match about {
            Some(name) => ListParams::default().fields(&format!("involvedObject.name={name}")),
            None => ListParams::default(),
        };
        let mut list = block_on(events.list(&parameters))
            .map_err(|error| error.to_string())?
            .items;
        list.sort_by_key(|event| {
            event
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0)
        });
        let told = list.into_iter().map(|event| Event {
            about: event.involved_object.name.unwrap_or_default(),
            kind: event.type_.unwrap_or_default(),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
            count: event.count.unwrap_or(1),
        });
        Ok(told.collect())
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(self.cluster.env(), &self.name)
    }

    /// Waits until a Deployment's newest pods are all ready and its older ones gone.
    #[track_caller]
    pub fn until_rolled_out(&self, deployment: &str) {
        eventually(
            &format!("deployment {deployment} is rolled out"),
            LONG,
            || {
                let now = self.get(("apps/v1", "Deployment", deployment));
                let wanted = now["spec"]["replicas"].as_i64();
                let status = &now["status"];
                let count = |key: &str| status[key].as_i64().or(Some(0));
                let seen = status["observedGeneration"] == now["metadata"]["generation"];
                let counts = [
                    "replicas",
                    "updatedReplicas",
                    "readyReplicas",
                    "availableReplicas",
                ];
                let done = seen && counts.iter().all(|key| count(key) == wanted);
                done.then_some(()).ok_or_else(|| status.to_string())
            },
        );
    }

    /// Deletes the namespace; an error if it is not gone in time.
    fn remove(&self) -> Result<(), String> {
        let namespaces: Api<NamespaceObject> = Api::all(self.cluster.client());
        let begun = Instant::now();
        block_on(namespaces.delete(&self.name, &DeleteParams::default()))
            .map_err(|error| format!("namespace {} cannot be deleted: {error}", self.name))?;
        wait_for(GONE, || match block_on(namespaces.get_opt(&self.name)) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("still Terminating".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .map_err(|last| {
            format!(
                "namespace {} after {} s: {last}",
                self.name,
                begun.elapsed().as_secs()
            )
        })
    }
}

/// Lower-case letters, digits and dashes of a test's name, in the length that is left for it.
fn slug(test: &str) -> String {
    let statement = test.rsplit("::").next().unwrap_or(test);
    let dashed = statement
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        .to_lowercase();
    let short = dashed.get(..NAME_LENGTH).unwrap_or(&dashed);
    short.trim_matches('-').to_owned()
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the test panicked")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tests_make_names_of_namespaces() {
        assert_eq!(
            slug("mixed::a_sidecar_shares_localhost"),
            "a-sidecar-shares-localhost"
        );
        let long = slug(&format!("topic::{}", "very_long_".repeat(12)));
        assert!(long.len() <= NAME_LENGTH && !long.ends_with('-'), "{long}");
    }
}
