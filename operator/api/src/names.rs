//! Names that more than one program writes or reads.

/// API group of the custom resources, and prefix of labels and annotations.
pub const GROUP: &str = "wasmlet.dev";

/// [`ready_label`] of the usual handler.
pub const READY_LABEL: &str = "wasmlet.dev/ready";
/// Value of a [`ready_label`] on a node that takes the runtime's pods.
pub const READY_TRUE: &str = "true";
/// Value of a [`ready_label`] on a node that is being changed, or could not be.
pub const READY_FALSE: &str = "false";

/// Handler of the runtime that a default installation has.
pub const DEFAULT_HANDLER: &str = "wasm";

/// Node label of the runtime with this handler: `"true"` when pods of its RuntimeClasses may come, `"false"` while the node is
/// being changed, absent where the runtime is not installed. The RuntimeClasses select [`READY_TRUE`].
///
/// One label for each runtime: a node that is ready for one may still wait for another.
pub fn ready_label(handler: &str) -> String {
    if handler == DEFAULT_HANDLER {
        READY_LABEL.to_owned()
    } else {
        format!("{READY_LABEL}-{handler}")
    }
}

/// Node label with which an administrator names the nodes to change first.
pub const CANARY_LABEL: &str = "wasmlet.dev/canary";

/// Finalizer of a WasmRuntime: it is removed when no node has the runtime any more.
pub const FINALIZER: &str = "wasmlet.dev/nodes";

/// Annotation of a WasmRuntime: another value makes the operator try failed nodes again at once.
pub const RETRY_ANNOTATION: &str = "wasmlet.dev/retry";

/// Label on everything that the operator makes for a WasmRuntime; the value is its name.
pub const RUNTIME_LABEL: &str = "wasmlet.dev/runtime";
/// Label on stage and probe pods; the value is the node's name.
pub const NODE_LABEL: &str = "wasmlet.dev/node";
/// Label on stage and probe pods: [`PURPOSE_STAGE`] or [`PURPOSE_PROBE`].
pub const PURPOSE_LABEL: &str = "wasmlet.dev/purpose";
/// A pod that puts a bundle on its node.
pub const PURPOSE_STAGE: &str = "stage";
/// A pod that shows that a handler works.
pub const PURPOSE_PROBE: &str = "probe";
/// Label on stage and probe pods: the revision and attempt they are for, `REVISION-ATTEMPT`. Not an annotation: the shim gets those
/// with this prefix, and refuses a pod with one that it does not know.
pub const ATTEMPT_LABEL: &str = "wasmlet.dev/attempt";

/// Standard label; on everything we make.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`] on what the operator makes.
pub const MANAGED_BY: &str = "wasmlet-operator";

/// Field manager of the operator in server-side apply.
pub const OPERATOR_MANAGER: &str = "wasmlet-operator";
/// Field manager of the agents in server-side apply.
pub const AGENT_MANAGER: &str = "wasmlet-node";

/// RuntimeClass through which the probe pod of a handler runs: as the handler's own, without the node selector, because the
/// node is not labelled ready yet.
pub fn probe_class(handler: &str) -> String {
    format!("wasmlet-probe-{handler}")
}

/// Prefix of the last log line of a probe, and of its exit code 0.
pub const PROBE_LINE: &str = "wasmlet probe: ok";
/// The probe's module in the node image, and below a bundle's folder without the first part.
pub const PROBE_MODULE: &str = "/bundle/probe/probe.wasm";

/// Folder of everything that is installed on a node.
pub const NODE_ROOT: &str = "/opt/wasmlet";
/// Bundles, one folder each, named by the 64 hexadecimal digits of their digest.
pub const NODE_STORE: &str = "/opt/wasmlet/store";
/// One link for each handler to its bundle.
pub const NODE_RUNTIMES: &str = "/opt/wasmlet/runtimes";
/// Settings files of the handlers.
pub const NODE_SETTINGS: &str = "/etc/wasmlet";
/// The agent's journal, lock and last state.
pub const NODE_STATE: &str = "/var/lib/wasmlet/agent";
/// Name of the shim's program in a bundle's `bin`.
pub const SHIM: &str = "containerd-shim-wasm-v1";
/// Runtime type in containerd's configuration.
pub const RUNTIME_TYPE: &str = "io.containerd.wasm.v1";
/// Annotations that containerd passes to the shim; the last two are crun's.
pub const PASSED_ANNOTATIONS: [&str; 3] = [
    "wasmlet.dev/*",
    "run.oci.handler",
    "module.wasm.image/variant",
];
