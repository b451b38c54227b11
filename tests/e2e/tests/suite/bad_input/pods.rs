//! A pod for each row of docs/troubleshooting.md.

use wasmlet_e2e::{Container, Guests, Namespace, PodSpec, Target};
use wasmlet_oci_image::{Image, Layer, Platform};

/// Something that goes wrong.
pub(super) struct Bad {
    /// Name of the pod.
    pub(super) name: &'static str,
    /// The row.
    pub(super) message: &'static str,
    /// What is tried.
    pub(super) what: Try,
}

/// How it is tried; the pod's container is `guest`.
#[derive(Clone, Copy)]
pub(super) enum Try {
    /// The pod is created, and tells what is wrong itself.
    Pod(fn(&Namespace) -> PodSpec),
    /// With a RuntimeClass whose handler no node has.
    NoHandler(fn(&Namespace) -> PodSpec),
    /// With a RuntimeClass that no node is good enough for.
    NoNode(fn(&Namespace) -> PodSpec),
    /// The API server does not take it.
    Refused(fn(&Namespace) -> PodSpec),
    /// The pod is well, and `kubectl exec` is not.
    Exec(fn(&Namespace) -> PodSpec),
}

const fn bad(name: &'static str, message: &'static str, what: Try) -> Bad {
    Bad {
        name,
        message,
        what,
    }
}

pub(super) const REFUSED: &[Bad] = &[
    bad(
        "no-handler",
        "no runtime for \"…\" is configured",
        Try::NoHandler(|ns| guest(ns, "hello")),
    ),
    bad(
        "no-node",
        "didn't match Pod's node affinity/selector",
        Try::NoNode(|ns| guest(ns, "hello")),
    ),
    bad(
        "no-class",
        "RuntimeClass \"…\" not found",
        Try::Refused(|ns| guest(ns, "hello").runtime_class("wasm-no-such-class")),
    ),
    bad(
        "unknown-key",
        "annotation \"wasmlet.dev/…\" is not known; the keys below wasmlet.dev/ are …",
        Try::Pod(|ns| guest(ns, "hello").annotation("wasmlet.dev/colour", "red")),
    ),
    bad(
        "bad-value",
        "annotation wasmlet.dev/…: \"…\" is not valid; use …",
        Try::Pod(|ns| guest(ns, "hello").annotation("wasmlet.dev/memory", "lots")),
    ),
    bad(
        "no-engine",
        "engine \"…\" is not installed on this node; installed: …",
        Try::Pod(|ns| guest(ns, "hello").annotation("wasmlet.dev/engine", "v8")),
    ),
    bad(
        "no-profile",
        "engine … has no profile \"…\"; it has: …",
        Try::Pod(|ns| {
            guest(ns, "hello")
                .annotation("wasmlet.dev/engine", "wasmedge")
                .annotation("wasmlet.dev/profile", "deterministic")
        }),
    ),
    bad(
        "no-setting",
        "engine … cannot honour the annotation wasmlet.dev/…: remove it or choose another engine",
        Try::Pod(|ns| {
            guest(ns, "hello")
                .annotation("wasmlet.dev/engine", "wasmer")
                .annotation("wasmlet.dev/nn-models", "m=/m.onnx")
        }),
    ),
    bad(
        "component-on-wasmer",
        "engine … cannot run …; set wasmlet.dev/engine to …, or leave it out",
        Try::Pod(|ns| {
            of_image(&ns.cluster().guest_for("hello", Target::Component))
                .annotation("wasmlet.dev/engine", "wasmer")
        }),
    ),
    bad(
        "unknown-import",
        "no engine on this node can run …",
        Try::Pod(|ns| guest(ns, "unknown_import")),
    ),
    bad(
        "no-module",
        "the entrypoint … is not a WebAssembly module: …",
        Try::Pod(|ns| of_bytes(ns, "text", "a.wasm", b"hello")),
    ),
    bad(
        "truncated",
        "the entrypoint … is a truncated WebAssembly module: …",
        Try::Pod(|ns| of_bytes(ns, "truncated", "a.wasm", b"\0asm\x01")),
    ),
    bad(
        "precompiled",
        "precompiled native code is refused, put the .wasm it was compiled from into the image",
        Try::Pod(|ns| of_bytes(ns, "precompiled", "a.cwasm", WASMTIMES_ARTIFACT)),
    ),
    bad(
        "no-start",
        "the module exports no _start, so it is not a command; name one of its functions as PATH#FUNCTION: …",
        Try::Pod(|ns| guest(ns, "no_start")),
    ),
    bad(
        "no-file",
        "there is no … in it, and it is no OCI artifact with a wasm layer",
        Try::Pod(|ns| {
            let image = ns.cluster().guest("hello");
            of(Container::new("guest", &image).command(["/missing.wasm"]))
        }),
    ),
    bad(
        "no-platform",
        "no match for platform in manifest",
        Try::Pod(|ns| {
            let image = image("a.wasm", &module("hello")).platform(Platform::new("linux", "s390x"));
            of_image(&ns.cluster().image("bad-platform", [image]).by_tag())
        }),
    ),
    bad(
        "exec",
        "runs WebAssembly: there is no second process to start in a WebAssembly guest; …",
        Try::Exec(|ns| guest(ns, "sleep")),
    ),
    bad(
        "exec-probe",
        "probe errored: … there is no second process to start in a WebAssembly guest; …",
        Try::Pod(|ns| {
            let probe = serde_json::json!({ "exec": { "command": ["true"] }, "periodSeconds": 1 });
            guest(ns, "sleep").set("/spec/containers/0/readinessProbe", probe)
        }),
    ),
];

pub(super) const ENDED: &[Bad] = &[
    bad(
        "trap",
        "wasmlet: …: trapped: …",
        Try::Pod(|ns| guest(ns, "trap")),
    ),
    bad(
        "stack",
        "wasmlet: …: stack overflow, limit … bytes: raise wasmlet.dev/max-stack",
        Try::Pod(|ns| guest(ns, "endless_recursion").annotation("wasmlet.dev/max-stack", "256Ki")),
    ),
    bad(
        "fuel",
        "wasmlet: …: out of fuel, limit …: raise wasmlet.dev/fuel",
        Try::Pod(|ns| guest(ns, "spin").annotation("wasmlet.dev/fuel", "1000000")),
    ),
    bad(
        "memory",
        "wasmlet: …: needs … bytes of linear memory to start, limit …: raise the container's …",
        Try::Pod(|ns| {
            let image = ns.cluster().guest("big_memory");
            of(Container::new("guest", &image).limits("64Mi", "250m"))
        }),
    ),
    bad(
        "timeout",
        "wasmlet: …: ran into its time limit of …: raise wasmlet.dev/timeout",
        Try::Pod(|ns| guest(ns, "sleep").annotation("wasmlet.dev/timeout", "500ms")),
    ),
];

/// The head of an ELF file with wasmtime's own system number in it.
const WASMTIMES_ARTIFACT: &[u8] = b"\x7fELF\x02\x01\x01\xc8\0\0\0\0\0\0\0\0";

fn of(container: Container) -> PodSpec {
    let container = container.set("/terminationMessagePolicy", "FallbackToLogsOnError");
    PodSpec::wasm("bad").container(container)
}

fn of_image(image: &str) -> PodSpec {
    of(Container::new("guest", image))
}

#[track_caller]
fn guest(ns: &Namespace, name: &str) -> PodSpec {
    of_image(&ns.cluster().guest(name))
}

#[track_caller]
fn module(name: &str) -> Vec<u8> {
    Guests::shared()
        .bytes(name, Target::Wasm)
        .unwrap_or_else(|error| panic!("guest {name}: {error}"))
}

fn image(path: &str, bytes: &[u8]) -> Image {
    Image::new()
        .entrypoint([format!("/{path}")])
        .layer(Layer::new().folder("etc", 0o755).file(path, 0o755, bytes))
}

#[track_caller]
fn of_bytes(ns: &Namespace, name: &str, path: &str, bytes: &[u8]) -> PodSpec {
    let reference = ns
        .cluster()
        .image(&format!("bad-{name}"), [image(path, bytes)]);
    of_image(&reference.by_tag())
}
