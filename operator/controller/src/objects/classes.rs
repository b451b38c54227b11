//! RuntimeClasses: one for each handler of a runtime, and one for its probe.

use std::collections::BTreeMap;

use k8s_openapi::api::node::v1::{Overhead, RuntimeClass, Scheduling};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wasmlet_api::WasmRuntime;
use wasmlet_api::handlers::handlers;
use wasmlet_api::names::{
    MANAGED_BY, MANAGED_BY_LABEL, READY_TRUE, RUNTIME_LABEL, probe_class, ready_label,
};

use super::owner;

/// The classes of a runtime: its handlers' in their order, then the probe's.
pub fn of(runtime: &WasmRuntime) -> Vec<RuntimeClass> {
    let spec = &runtime.spec;
    let mut node_selector = spec.node_selector.clone();
    node_selector.insert(ready_label(&spec.handler), READY_TRUE.to_owned());
    let mut classes: Vec<_> = handlers(&spec.handler, &spec.engines)
        .into_iter()
        .map(|handler| RuntimeClass {
            metadata: metadata(runtime, &handler.name),
            handler: handler.name,
            overhead: (!spec.runtime_class.overhead.is_empty()).then(|| Overhead {
                pod_fixed: Some(spec.runtime_class.overhead.clone()),
            }),
            scheduling: Some(Scheduling {
                node_selector: Some(node_selector.clone()),
                tolerations: None,
            }),
        })
        .collect();
    // Without a selector: the node that is probed is not labelled ready yet. It is always there, not only while something is
    // probed: two calls for a runtime instead of two for each change.
    classes.push(RuntimeClass {
        metadata: metadata(runtime, &probe_class(&spec.handler)),
        handler: spec.handler.clone(),
        overhead: None,
        scheduling: None,
    });
    classes
}

fn metadata(runtime: &WasmRuntime, name: &str) -> ObjectMeta {
    let own = &runtime.metadata;
    let runtime_name = own.name.clone().unwrap_or_default();
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(BTreeMap::from([
            (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
            (RUNTIME_LABEL.to_owned(), runtime_name.clone()),
        ])),
        owner_references: Some(vec![owner::<WasmRuntime>(
            &runtime_name,
            own.uid.as_deref().unwrap_or_default(),
        )]),
        ..ObjectMeta::default()
    }
}
