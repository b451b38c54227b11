//! The node's own Node object.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use wasmlet_api::names::{AGENT_MANAGER, READY_LABEL};

/// The node's own Node object.
#[derive(Clone)]
pub struct OwnNode {
    api: Api<Node>,
    name: String,
}

impl OwnNode {
    /// By its name.
    pub fn new(client: Client, name: &str) -> Self {
        Self {
            api: Api::all(client),
            name: name.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The object.
    ///
    /// # Errors
    /// Of the API.
    pub async fn get(&self) -> Result<Node, kube::Error> {
        self.api.get(&self.name).await
    }

    /// Whether the kubelet says that it is Ready.
    ///
    /// # Errors
    /// Of the API.
    pub async fn is_ready(&self) -> Result<bool, kube::Error> {
        let conditions = self
            .get()
            .await?
            .status
            .and_then(|status| status.conditions);
        Ok(conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    }

    /// Makes the labels with which RuntimeClasses choose nodes these; those of runtimes that are not in it go.
    ///
    /// # Errors
    /// Of the API.
    pub async fn set_ready_labels(
        &self,
        wanted: &BTreeMap<String, &'static str>,
    ) -> Result<(), kube::Error> {
        let found = self.get().await?.metadata.labels.unwrap_or_default();
        let mut labels = serde_json::Map::new();
        for name in found.keys().filter(|name| is_ready_label(name)) {
            if !wanted.contains_key(name) {
                labels.insert(name.clone(), serde_json::Value::Null);
            }
        }
        for (name, value) in wanted {
            if found.get(name).map(String::as_str) != Some(*value) {
                labels.insert(name.clone(), (*value).into());
            }
        }
        if labels.is_empty() {
            return Ok(());
        }
        // A merge, not server-side apply: a label that an administrator has set by hand (docs/install-by-hand.md) is to go, too.
        let patch = serde_json::json!({ "metadata": { "labels": labels } });
        let parameters = PatchParams {
            field_manager: Some(AGENT_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.api
            .patch(&self.name, &parameters, &Patch::Merge(patch))
            .await?;
        Ok(())
    }
}

fn is_ready_label(name: &str) -> bool {
    name.strip_prefix(READY_LABEL)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_of_ours_are_ready_labels() {
        for (name, ours) in [
            ("wasmlet.dev/ready", true),
            ("wasmlet.dev/ready-other", true),
            ("wasmlet.dev/readyness", false),
            ("wasmlet.dev/canary", false),
            ("kubernetes.io/os", false),
        ] {
            assert_eq!(is_ready_label(name), ours, "{name}");
        }
    }
}
