//! The one async runtime below the harness: cases are ordinary functions.

use std::sync::LazyLock;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("an async runtime can be started")
});

/// Runs a future to its end on the calling thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// Runs a future beside the test.
pub(crate) fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    RUNTIME.spawn(future)
}

/// The resource that a manifest is about.
pub(crate) fn resource_of(manifest: &Value) -> ApiResource {
    let text = |key: &str| {
        manifest[key]
            .as_str()
            .unwrap_or_else(|| panic!("a manifest without {key}: {manifest}"))
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The calls for a manifest's resource inside a namespace.
pub(crate) fn api_of(
    client: &kube::Client,
    namespace: &str,
    manifest: &Value,
) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource_of(manifest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resources_are_named_from_their_manifests() {
        for (api_version, kind, plural, group) in [
            ("v1", "Pod", "pods", ""),
            ("apps/v1", "Deployment", "deployments", "apps"),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "networkpolicies",
                "networking.k8s.io",
            ),
        ] {
            let resource = resource_of(&json!({ "apiVersion": api_version, "kind": kind }));
            assert_eq!(
                (resource.plural.as_str(), resource.group.as_str()),
                (plural, group)
            );
        }
    }
}
