//! How an image comes to a node, and the forms it may have.

use wasmlet_e2e::{Cluster, Container, Guests, ImageRef, Namespace, Node, PodSpec, Target};
use wasmlet_oci_image::{Artifact, Image, Layer, Platform, media_type};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("a_digest_names_an_image_as_a_tag_does", digest_and_tag).ci(),
    Case::new("the_pull_policy_is_kept", pull_policy),
    Case::new("an_index_gives_the_manifest_for_the_node", index).ci(),
    Case::new("an_image_that_is_not_there_is_told", missing_image),
    Case::new(
        "an_image_for_the_wasm_platform_runs_but_on_containerd_2_3",
        wasm_platform,
    ),
    Case::new("artifacts_of_every_layer_type_run", artifacts).ci(),
    Case::new(
        "artifacts_that_look_like_images_are_not_pulled",
        artifacts_that_look_like_images,
    ),
];

#[track_caller]
fn bytes(name: &str, target: Target) -> Vec<u8> {
    Guests::shared()
        .bytes(name, target)
        .unwrap_or_else(|error| panic!("guest {name}: {error}"))
}

#[track_caller]
fn assert_says_hello(ns: &Namespace, pod: PodSpec) {
    let (pod, ended) = ns.run_pod(pod);
    assert_eq!(ended.code, 0, "{}: {ended:?}", pod.name());
    assert!(
        pod.logs("hello").contains("hello from the guest\n"),
        "{}",
        pod.name()
    );
}

/// An image that no other test and no earlier run has brought to a node.
#[track_caller]
fn fresh(cluster: &Cluster, name: &str) -> ImageRef {
    let layer = Layer::new()
        .file("a.wasm", 0o644, bytes("hello", Target::Wasm))
        .file("run", 0o644, cluster.run_id());
    cluster.image(name, [Image::new().entrypoint(["/a.wasm"]).layer(layer)])
}

fn on(node: &Node, name: &str) -> PodSpec {
    PodSpec::wasm(name).on_node(&node.name)
}

fn digest_and_tag(ns: &Namespace) {
    let image = fresh(ns.cluster(), "digest");
    for node in ns.cluster().nodes() {
        for (kind, reference) in [("digest", image.by_digest()), ("tag", image.by_tag())] {
            let name = format!("{}-{kind}", node.name);
            assert_says_hello(
                ns,
                on(node, &name).container(Container::new("hello", &reference)),
            );
            let pod = ns.pod(&name).get();
            let id = pod
                .status
                .and_then(|status| Some(status.container_statuses?.first()?.image_id.clone()));
            let id = id.expect("a status");
            assert!(id.ends_with(&image.digest), "{id} is not {}", image.digest);
        }
    }
}

fn pull_policy(ns: &Namespace) {
    let image = fresh(ns.cluster(), "policy").by_tag();
    let node = &ns.cluster().nodes()[0];
    let pod = |name: &str, policy: &str| {
        let container = Container::new("hello", &image).set("/imagePullPolicy", policy);
        on(node, name).container(container)
    };
    let never = ns.start(pod("never", "Never"));
    never.until_waiting("hello", "ErrImageNeverPull");
    for (name, policy, event) in [
        ("first", "IfNotPresent", "Successfully pulled image"),
        ("second", "IfNotPresent", "already present on machine"),
        ("always", "Always", "Successfully pulled image"),
        ("here", "Never", "already present on machine"),
    ] {
        assert_says_hello(ns, pod(name, policy));
        let told = ns.pod(name).until_event("Pulled");
        assert!(told.message.contains(event), "{name}: {told}");
    }
}

fn index(ns: &Namespace) {
    let image = |platform: Platform, guest: &str| {
        let layer = Layer::new().file("a.wasm", 0o644, bytes(guest, Target::Wasm));
        Image::new()
            .platform(platform)
            .entrypoint(["/a.wasm"])
            .layer(layer)
    };
    let index = ns.cluster().image(
        "index",
        [
            image(Platform::new("linux", "s390x"), "exit_code"),
            image(Platform::host(), "hello"),
            image(Platform::wasm(), "exit_code"),
        ],
    );
    for node in ns.cluster().nodes() {
        let container = Container::new("hello", &index.by_tag());
        assert_says_hello(
            ns,
            on(node, &format!("{}-index", node.name)).container(container),
        );
    }
}

fn missing_image(ns: &Namespace) {
    let image = format!("{}:no-such-tag", fresh(ns.cluster(), "missing").name);
    let pod = ns.start(PodSpec::wasm("pod").container(Container::new("guest", &image)));
    let told = pod.until_event("Failed to pull image");
    assert!(told.message.contains("no-such-tag"), "{told}");
    pod.until_waiting("guest", "ImagePullBackOff");
}

/// Layer types in which tools publish modules.
fn layer_types() -> [(&'static str, &'static str, Target); 3] {
    [
        ("plain", media_type::WASM, Target::Wasm),
        ("component", media_type::WASM_COMPONENT, Target::Component),
        ("content", media_type::WASM_CONTENT, Target::Wasm),
    ]
}

/// With the config that the artifacts' own format has: containerd then unpacks nothing. 1.6 complains once of
/// `mismatched image rootfs and manifest layers`, has the image nevertheless, and the kubelet's next try starts it;
/// 1.7 and 2 say nothing. The config has no entrypoint, so the pod names one.
fn artifacts(ns: &Namespace) {
    let mut pods = Vec::new();
    for node in ns.cluster().nodes() {
        for (name, kind, target) in layer_types() {
            let artifact = Artifact::new(kind, bytes("hello", target));
            let image = ns.cluster().image(&format!("artifact-{name}"), [artifact]);
            let container = Container::new("hello", &image.by_tag()).command(["/app.wasm"]);
            pods.push(ns.start(on(node, &format!("{}-{name}", node.name)).container(container)));
        }
    }
    for pod in pods {
        let ended = pod.until_ended();
        assert_eq!(ended.code, 0, "{}: {ended:?}", pod.name());
        assert!(
            pod.logs("hello").contains("hello from the guest\n"),
            "{}",
            pod.name()
        );
    }
}

/// An image of files, the platform of which is WebAssembly: containerd 2.3 pulls it and unpacks nothing of it. A
/// build for the node's platform runs everywhere.
fn wasm_platform(ns: &Namespace) {
    // A layer that was unpacked for another image would be there.
    let layer = Layer::new()
        .file("a.wasm", 0o644, bytes("hello", Target::Wasm))
        .file("run", 0o644, ns.cluster().run_id());
    let image = Image::new()
        .platform(Platform::wasm())
        .entrypoint(["/a.wasm"])
        .layer(layer);
    let image = ns.cluster().image("platform", [image]).by_tag();
    for node in ns.cluster().nodes() {
        let pod = on(node, &node.name).container(Container::new("hello", &image));
        if node.containerd().starts_with("2.3.") {
            let told = ns.start(pod).until_event("parent snapshot");
            assert!(told.message.contains("does not exist"), "{told}");
        } else {
            assert_says_hello(ns, pod);
        }
    }
}

/// With an ordinary image's config every containerd (1.6 to 2.3) looks for files in the layer, or for what it did
/// not unpack. `ctr images import --no-unpack` takes such an artifact in, a pull by the kubelet does not.
fn artifacts_that_look_like_images(ns: &Namespace) {
    let mut pods = Vec::new();
    for node in ns.cluster().nodes() {
        let artifact = Artifact::new(media_type::WASM, bytes("hello", Target::Wasm))
            .config_type(media_type::CONFIG)
            .entrypoint(["/app.wasm"]);
        let image = ns.cluster().image("artifact-image-config", [artifact]);
        let container = Container::new("hello", &image.by_tag());
        pods.push(ns.start(on(node, &node.name).container(container)));
    }
    for pod in pods {
        let told = pod.until_event("ailed to");
        let known = [
            "no processor for media-type",
            "mismatched image rootfs",
            "parent snapshot",
        ];
        assert!(
            known.iter().any(|text| told.message.contains(text)),
            "{told}"
        );
    }
}
