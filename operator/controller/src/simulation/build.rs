//! Objects for tests, as small as they can be.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use wasmlet_api::runtime::{Architecture, Artifact, DeletionPolicy, Rollout, RuntimeClassOptions};
use wasmlet_api::target::Options;
use wasmlet_api::{Digest, WasmRuntime, WasmRuntimeSpec};

use crate::world::{Health, NodeFacts};

/// A WasmRuntime named as its handler, with the digest of the text `bundle`, the default rollout, and one engine.
pub fn runtime(handler: &str, bundle: &str) -> WasmRuntime {
    let mut runtime = WasmRuntime::new(
        handler,
        WasmRuntimeSpec {
            artifact: Artifact {
                image: "registry.example/wasmlet/node:1".to_owned(),
                digest: Digest::of(bundle.as_bytes()),
                pull_secrets: Vec::new(),
                architectures: vec![Architecture::Amd64],
            },
            handler: handler.to_owned(),
            engines: vec![wasmlet_api::handlers::Engine::Wasmtime],
            runtime_class: RuntimeClassOptions::default(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            rollout: Rollout::default(),
            options: Options::default(),
            deletion_policy: DeletionPolicy::default(),
        },
    );
    runtime.metadata.uid = Some(format!("uid-of-{handler}"));
    runtime.metadata.generation = Some(1);
    runtime.metadata.creation_timestamp = "2025-01-01T00:00:00Z".parse().ok().map(Time);
    runtime
}

/// A node that every runtime chooses.
pub fn node(name: &str) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        labels: BTreeMap::from([
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
            ("kubernetes.io/hostname".to_owned(), name.to_owned()),
        ]),
        taints: Vec::new(),
        health: Health::Ready,
    }
}
