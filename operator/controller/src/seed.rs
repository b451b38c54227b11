//! WasmRuntimes from a ConfigMap, made once: Helm cannot make an object in the same step as its CRD.
//!
//! What was made is written down as a hash on the ConfigMap, so a WasmRuntime that an administrator deletes does not come back
//! because the operator starts anew, and one whose values the administrator changes with Helm is changed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use wasmlet_api::{Digest, WasmRuntime};

use crate::watch::chain;

/// On the ConfigMap: hash of the data that was applied last.
pub const APPLIED: &str = "wasmlet.dev/applied";
/// Field manager of what is made, so that the operator's own fields are told from it.
pub const MANAGER: &str = "wasmlet-chart";

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A key is no WasmRuntime.
    #[error("key {key} of ConfigMap {configmap} is no WasmRuntime")]
    Parse {
        /// The key.
        key: String,
        /// The ConfigMap.
        configmap: String,
        /// What is wrong.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A key has no name.
    #[error("key {key} of ConfigMap {configmap} is a WasmRuntime without metadata.name")]
    Name {
        /// The key.
        key: String,
        /// The ConfigMap.
        configmap: String,
    },
    /// The API server refused it.
    #[error("cannot {verb} {what}")]
    Api {
        /// Of the call.
        verb: &'static str,
        /// Of which object.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Makes them, tries again as long as the API server does not take them, and gives up on what is wrong in itself.
pub(crate) async fn seed(client: &Client, namespace: &str, configmap: Option<&str>) {
    let Some(configmap) = configmap else { return };
    let mut pause = Duration::from_secs(1);
    loop {
        match once(client, namespace, configmap).await {
            Ok(()) => return,
            Err(error @ (SeedError::Parse { .. } | SeedError::Name { .. })) => {
                tracing::error!(error = %chain(&error), "WasmRuntimes of the chart were not made");
                return;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "WasmRuntimes of the chart are not made yet; tried again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn once(client: &Client, namespace: &str, name: &str) -> Result<(), SeedError> {
    let api = |verb: &'static str, what: String| {
        move |source: kube::Error| SeedError::Api {
            verb,
            what,
            source: Box::new(source),
        }
    };
    let configmaps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let what = format!("ConfigMap {name}");
    let found = configmaps
        .get_opt(name)
        .await
        .map_err(api("get", what.clone()))?;
    let Some(found) = found else {
        tracing::info!(
            configmap = name,
            "there is no such ConfigMap; no WasmRuntime is made"
        );
        return Ok(());
    };
    let hash = hash(found.data.as_ref());
    if found.annotations().get(APPLIED) == Some(&hash) {
        return Ok(());
    }
    // All are read before one is made: half an installation is none.
    let wanted = parse(name, found.data.as_ref())?;
    let runtimes = Api::<WasmRuntime>::all(client.clone());
    for (runtime, object) in &wanted {
        runtimes
            .patch(
                runtime,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(object),
            )
            .await
            .map_err(api("apply", format!("WasmRuntime {runtime}")))?;
        tracing::info!(runtime, "WasmRuntime of the chart applied");
    }
    let note = json!({ "metadata": { "annotations": { APPLIED: hash } } });
    configmaps
        .patch(name, &PatchParams::default(), &Patch::Merge(&note))
        .await
        .map_err(api("patch", what))?;
    Ok(())
}

fn hash(data: Option<&BTreeMap<String, String>>) -> String {
    let mut bytes = Vec::new();
    for (key, value) in data.into_iter().flatten() {
        for part in [key, value] {
            bytes.extend_from_slice(&part.len().to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    Digest::of(&bytes).hex().to_owned()
}

/// As they are written, so that defaults stay the API server's; they are read as WasmRuntimes only to find what is wrong.
fn parse(
    configmap: &str,
    data: Option<&BTreeMap<String, String>>,
) -> Result<Vec<(String, serde_json::Value)>, SeedError> {
    data.into_iter()
        .flatten()
        .filter(|(key, _)| key.ends_with(".yaml"))
        .map(|(key, text)| {
            let wrong = |source| SeedError::Parse {
                key: key.clone(),
                configmap: configmap.to_owned(),
                source: Box::new(source),
            };
            let typed: WasmRuntime = serde_saphyr::from_str(text).map_err(wrong)?;
            let object: serde_json::Value = serde_saphyr::from_str(text).map_err(wrong)?;
            let name = typed.metadata.name.ok_or_else(|| SeedError::Name {
                key: key.clone(),
                configmap: configmap.to_owned(),
            })?;
            Ok((name, object))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("wasm.yaml".to_owned(), text.to_owned())])
    }

    #[test]
    fn a_runtime_is_applied_as_it_is_written() {
        let digest = Digest::of(b"x");
        let text = format!(
            "apiVersion: wasmlet.dev/v1alpha1\nkind: WasmRuntime\nmetadata: {{name: wasm}}\nspec:\n  artifact: {{image: example/node:1, digest: '{digest}'}}\n"
        );
        let parsed = parse("c", Some(&data(&text))).unwrap();
        assert_eq!(parsed[0].0, "wasm");
        assert_eq!(
            parsed[0].1["spec"].as_object().unwrap().len(),
            1,
            "no defaults of ours"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for text in [
            "{",
            "metadata: {name: x}",
            "spec: {artifact: {image: a, digest: short}}",
        ] {
            let error = parse("c", Some(&data(text))).unwrap_err();
            let text = chain(&error);
            assert!(text.contains("key wasm.yaml of ConfigMap c"), "{text}");
        }
    }

    #[test]
    fn the_hash_tells_keys_from_values() {
        let one = BTreeMap::from([("a".to_owned(), "bc".to_owned())]);
        let two = BTreeMap::from([("ab".to_owned(), "c".to_owned())]);
        assert_ne!(hash(Some(&one)), hash(Some(&two)));
        assert_eq!(hash(Some(&one)), hash(Some(&one.clone())));
    }
}
