//! The manifests of `examples/`, used as they are.

use std::path::Path;

use serde_json::Value;

use crate::manifest::{parse_yaml, set_at};
use crate::namespace::Namespace;

impl Namespace {
    /// Creates what a file below `examples/` says, with the image that this run pushed in its workloads'
    /// first containers, and with what `change` does to each document.
    #[track_caller]
    pub fn create_example(
        &self,
        file: &str,
        image: &str,
        change: impl Fn(&mut Value),
    ) -> Vec<Value> {
        let documents = example(file).into_iter().map(|mut document| {
            change(&mut document);
            let containers = match document["kind"].as_str() {
                Some("Pod") => "/spec/containers/0/image",
                Some("Deployment" | "DaemonSet" | "StatefulSet" | "Job") => {
                    "/spec/template/spec/containers/0/image"
                }
                _ => return document,
            };
            set_at(&mut document, containers, image.into());
            document
        });
        documents
            .map(|document| self.create_object(document))
            .collect()
    }
}

/// The documents of a file below `examples/`.
#[track_caller]
fn example(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => parse_yaml(&text),
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The bytes of a file below `examples/`, for example of a picture.
#[track_caller]
pub fn example_bytes(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inference_deployment_is_read() {
        let documents = example("inference/deployment.yaml");
        let kinds: Vec<_> = documents
            .iter()
            .map(|document| document["kind"].clone())
            .collect();
        assert_eq!(kinds, ["Deployment", "Service"]);
    }
}
