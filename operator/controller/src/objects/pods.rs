//! Stage and probe pods.
//!
//! Both are pinned to their node by `nodeName`: no scheduler is needed, and none may refuse a node that is cordoned.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, HostPathVolumeSource, LocalObjectReference, Pod, PodSecurityContext,
    PodSpec, ResourceRequirements, SeccompProfile, SecurityContext, Toleration, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::SignedDuration;
use wasmlet_api::names::{
    ATTEMPT_LABEL, MANAGED_BY, MANAGED_BY_LABEL, NODE_LABEL, NODE_ROOT, NODE_STORE, PROBE_MODULE,
    PURPOSE_LABEL, PURPOSE_PROBE, PURPOSE_STAGE, RUNTIME_LABEL, probe_class,
};
use wasmlet_api::node::Change;
use wasmlet_api::{Digest, WasmRuntime};

use super::owner;
use crate::world::NodeFacts;

/// A stage pod is ended by its kubelet after so long, the pull of its image included.
pub const STAGE_DEADLINE: SignedDuration = SignedDuration::from_secs(540);
/// A probe pod likewise. The image is on the node from staging; what takes long is a first compilation.
pub const PROBE_DEADLINE: SignedDuration = SignedDuration::from_secs(120);

/// Taints that the kubelet and the node controller set, which a DaemonSet's pods tolerate.
const TOLERATED: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
];

/// The name of a change in the label of its pods.
pub fn attempt_name(change: &Change) -> String {
    format!("{}-{}", change.revision, change.attempt)
}

/// Name of the stage pod of a digest in a change.
pub fn stage_name(node: &str, node_uid: &str, change: &Change, digest: &Digest) -> String {
    name(PURPOSE_STAGE, node, node_uid, change, digest.as_str())
}

/// Name of the probe pod of a handler in a change.
pub fn probe_name(node: &str, node_uid: &str, change: &Change, handler: &str) -> String {
    name(PURPOSE_PROBE, node, node_uid, change, handler)
}

/// The same for the same step, so that an operator that starts anew finds its predecessor's pod; with the beginning of the change, since
/// attempts are counted from 1 again for a node that lost its WasmNode.
fn name(purpose: &str, node: &str, node_uid: &str, change: &Change, what: &str) -> String {
    let since = change
        .since
        .as_ref()
        .map(|since| since.0.as_second())
        .unwrap_or_default();
    let full = format!(
        "{node_uid}/{}/{}/{since}/{what}",
        change.revision, change.attempt
    );
    let hash = &Digest::of(full.as_bytes()).hex()[..10].to_owned();
    // 63 is the bound of the pod's host name: "wasmlet-stage-" 14, "-" 1, hash 10.
    let readable: String = node
        .chars()
        .map(|c| if c == '.' { '-' } else { c })
        .take(38)
        .collect();
    format!("wasmlet-{purpose}-{readable}-{hash}")
}

/// A pod that puts the bundle of the runtime's image into the node's store.
pub fn stage(
    namespace: &str,
    name: &str,
    node: &NodeFacts,
    runtime: &WasmRuntime,
    change: &Change,
    digest: &Digest,
) -> Pod {
    let container = Container {
        name: PURPOSE_STAGE.to_owned(),
        args: Some(
            [
                "stage",
                "--expect",
                digest.as_str(),
                "--from",
                "/bundle",
                "--store",
                NODE_STORE,
            ]
            .map(str::to_owned)
            .to_vec(),
        ),
        volume_mounts: Some(vec![VolumeMount {
            name: "node-root".to_owned(),
            mount_path: NODE_ROOT.to_owned(),
            ..VolumeMount::default()
        }]),
        security_context: Some(SecurityContext {
            // The store belongs to root; nothing else of root's is needed.
            run_as_user: Some(0),
            run_as_group: Some(0),
            ..locked_down()
        }),
        resources: Some(resources("10m", "16Mi", "256Mi")),
        ..container(runtime)
    };
    // The parent of the store: a folder is renamed within it, and it may not be there yet.
    let volume = Volume {
        name: "node-root".to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: NODE_ROOT.to_owned(),
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        ..Volume::default()
    };
    let mut pod = pod(
        namespace,
        name,
        node,
        runtime,
        change,
        PURPOSE_STAGE,
        container,
    );
    if let Some(spec) = &mut pod.spec {
        spec.active_deadline_seconds = Some(STAGE_DEADLINE.as_secs());
        spec.volumes = Some(vec![volume]);
    }
    pod
}

/// A pod that runs the image's probe through the runtime's handler.
pub fn probe(
    namespace: &str,
    name: &str,
    node: &NodeFacts,
    runtime: &WasmRuntime,
    change: &Change,
) -> Pod {
    let container = Container {
        name: PURPOSE_PROBE.to_owned(),
        command: Some(vec![PROBE_MODULE.to_owned()]),
        security_context: Some(SecurityContext {
            run_as_user: Some(65532),
            run_as_group: Some(65532),
            run_as_non_root: Some(true),
            ..locked_down()
        }),
        resources: Some(resources("10m", "16Mi", "128Mi")),
        ..container(runtime)
    };
    let mut pod = pod(
        namespace,
        name,
        node,
        runtime,
        change,
        PURPOSE_PROBE,
        container,
    );
    if let Some(spec) = &mut pod.spec {
        spec.active_deadline_seconds = Some(PROBE_DEADLINE.as_secs());
        spec.runtime_class_name = Some(probe_class(&runtime.spec.handler));
    }
    pod
}

fn container(runtime: &WasmRuntime) -> Container {
    Container {
        image: Some(runtime.spec.artifact.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        // What a failed one says last is in its status, and from there in the WasmNode's.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn locked_down() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

fn resources(cpu: &str, memory: &str, memory_limit: &str) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_owned(), quantity(cpu)),
            ("memory".to_owned(), quantity(memory)),
        ])),
        limits: Some(BTreeMap::from([(
            "memory".to_owned(),
            quantity(memory_limit),
        )])),
        claims: None,
    }
}

fn pod(
    namespace: &str,
    name: &str,
    node: &NodeFacts,
    runtime: &WasmRuntime,
    change: &Change,
    purpose: &str,
    container: Container,
) -> Pod {
    let spec = &runtime.spec;
    let tolerations = TOLERATED
        .into_iter()
        .map(|key| Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        })
        .chain(spec.tolerations.iter().cloned())
        .collect();
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([
                label(MANAGED_BY_LABEL, MANAGED_BY),
                label(
                    RUNTIME_LABEL,
                    runtime.metadata.name.as_deref().unwrap_or_default(),
                ),
                label(NODE_LABEL, &node.name),
                label(PURPOSE_LABEL, purpose),
                label(ATTEMPT_LABEL, &attempt_name(change)),
            ])),
            // Of a node that goes away the pods go, too.
            owner_references: Some(vec![owner::<k8s_openapi::api::core::v1::Node>(
                &node.name, &node.uid,
            )]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(node.name.clone()),
            restart_policy: Some("Never".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(5),
            tolerations: Some(tolerations),
            image_pull_secrets: (!spec.artifact.pull_secrets.is_empty()).then(|| {
                spec.artifact
                    .pull_secrets
                    .iter()
                    .map(|name| LocalObjectReference { name: name.clone() })
                    .collect()
            }),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![container],
            ..PodSpec::default()
        }),
        status: None,
    }
}
