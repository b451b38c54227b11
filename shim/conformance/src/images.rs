//! The images under test: built here, imported by `ctr`, unpacked through containerd's services.

use std::collections::BTreeMap;
use std::fs;

use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{ApplyRequest, GetImageRequest, ReadContentRequest};
use containerd_client::types::Descriptor;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tonic::Code;
use wasmlet_oci_image::{Archive, Compression, Image as OciImage, Item, Layer};

use crate::client::{block_on, in_namespace};
use crate::{Guests, Node, Runtime, Status, Target};

/// The snapshotter of all tests.
pub(crate) const SNAPSHOTTER: &str = "overlayfs";

/// What the garbage collector must leave alone: nothing else refers to what the tests unpack.
pub(crate) fn gc_root() -> std::collections::HashMap<String, String> {
    [("containerd.io/gc.root".to_owned(), "conformance".to_owned())].into()
}

/// In which form a guest is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageForm {
    /// One gzip layer.
    Gzip,
    /// One zstd layer.
    Zstd,
    /// One plain tar layer.
    Plain,
}

/// An image: its name and how it is built, imported when a test needs it on a node.
#[derive(Debug, Clone)]
pub struct Image {
    /// Full name.
    pub name: String,
    items: Vec<Item>,
}

/// What containerd knows of an imported image, as a client reads it from the content store.
pub(crate) struct Resolved {
    /// Entrypoint and command.
    pub(crate) args: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    /// Working folder; empty if none is set.
    pub(crate) cwd: String,
    layers: Vec<Descriptor>,
    diff_ids: Vec<String>,
}

impl Image {
    /// An image of anything.
    pub fn new(name: &str, items: impl IntoIterator<Item = impl Into<Item>>) -> Self {
        Self {
            name: format!("conformance.wasmlet.test/{name}:1"),
            items: items.into_iter().map(Into::into).collect(),
        }
    }

    /// The image of guest `name` for `runtime`: one gzip layer, the guest its entrypoint.
    #[track_caller]
    pub fn of_guest(name: &str, runtime: Runtime) -> Self {
        Self::of_guest_as(name, runtime.target(), ImageForm::Gzip)
    }

    /// The image of guest `name` with the layer in the form given.
    #[track_caller]
    pub fn of_guest_as(name: &str, target: Target, form: ImageForm) -> Self {
        let bytes = guest(name, target);
        let (path, suffix) = match target {
            Target::Linux => ("guest", "linux"),
            Target::Wasm => ("guest.wasm", "wasm"),
            Target::Component => ("guest.wasm", "component"),
        };
        let compression = match form {
            ImageForm::Gzip => Compression::Gzip,
            ImageForm::Zstd => Compression::Zstd,
            ImageForm::Plain => Compression::None,
        };
        let layer = base_layer()
            .file(path, 0o755, bytes)
            .compression(compression);
        let image = OciImage::new()
            .entrypoint([format!("/{path}")])
            .layer(layer);
        let form = format!("{form:?}").to_lowercase();
        // Repository names are lower case without underscores at their ends.
        Self::new(
            &format!("{}-{suffix}-{form}", name.replace('_', "-")),
            [image],
        )
    }

    /// The image of a guest in WebAssembly text, which is the entrypoint `/guest.wasm`.
    #[track_caller]
    pub fn of_wat(name: &str, text: &str) -> Self {
        let bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let layer = base_layer().file("guest.wasm", 0o755, bytes);
        let image = OciImage::new().entrypoint(["/guest.wasm"]).layer(layer);
        Self::new(&format!("wat-{name}"), [image])
    }

    /// The pause image of pods.
    #[track_caller]
    pub(crate) fn pause() -> Self {
        let layer = Layer::new().file("pause", 0o755, guest("pause", Target::Linux));
        let image = OciImage::new().entrypoint(["/pause"]).layer(layer);
        Self {
            name: crate::node::PAUSE_IMAGE.to_owned(),
            items: vec![image.into()],
        }
    }

    /// Makes the image known to the node's containerd.
    #[track_caller]
    pub fn import(&self, node: &Node, namespace: &str) {
        let build = || {
            let archive = Archive::new().index(&self.name, self.items.iter().cloned());
            let built = archive
                .build()
                .unwrap_or_else(|error| panic!("{}: {error}", self.name));
            let file = self.name.replace(['/', ':'], "_");
            let path = node
                .base()
                .join("temp")
                .join(format!("{file}-{namespace}.tar"));
            fs::write(&path, built.tar).expect("an archive can be written");
            path
        };
        node.import(namespace, &self.name, build);
    }

    /// Reads manifest and config for the host's platform, or for WebAssembly if that is all there is.
    pub(crate) fn resolve(&self, node: &Node, namespace: &str) -> Result<Resolved, Status> {
        let request = GetImageRequest {
            name: self.name.clone(),
        };
        let image = block_on(node.client().images().get(in_namespace(request, namespace)))?;
        let target = image.into_inner().image.and_then(|image| image.target);
        let mut digest = target.map(|target| target.digest).unwrap_or_default();
        let mut document = read_json(node, namespace, &digest)?;
        if let Some(manifests) = document["manifests"].as_array() {
            let of = |architecture: &str| {
                manifests
                    .iter()
                    .find(|m| m["platform"]["architecture"] == architecture)
            };
            let chosen = of("amd64")
                .or_else(|| of("wasm"))
                .or_else(|| manifests.first());
            digest = text(chosen.map_or(&Value::Null, |manifest| &manifest["digest"]));
            document = read_json(node, namespace, &digest)?;
        }
        let config = read_json(node, namespace, &text(&document["config"]["digest"]))?;
        let layers = document["layers"].as_array().cloned().unwrap_or_default();
        let layers = layers
            .iter()
            .filter(|layer| text(&layer["mediaType"]).contains("tar"));
        Ok(Resolved {
            args: [
                strings(&config["config"]["Entrypoint"]),
                strings(&config["config"]["Cmd"]),
            ]
            .concat(),
            env: strings(&config["config"]["Env"]),
            cwd: text(&config["config"]["WorkingDir"]),
            layers: layers.map(descriptor).collect(),
            diff_ids: strings(&config["rootfs"]["diff_ids"]),
        })
    }
}

/// Bytes of a guest; a missing compiler fails the test with what to do.
#[track_caller]
pub(crate) fn guest(name: &str, target: Target) -> Vec<u8> {
    Guests::shared()
        .bytes(name, target)
        .unwrap_or_else(|error| panic!("guest {name}: {error}"))
}

/// The folders that any image has.
fn base_layer() -> Layer {
    Layer::new()
        .folder("etc", 0o755)
        .folder("tmp", 0o1777)
        .folder("data", 0o755)
        .file("etc/hostname", 0o644, "image\n")
}

/// Unpacks the layers; gives the name of the topmost snapshot, empty for an image without layers.
pub(crate) fn unpack(node: &Node, namespace: &str, image: &Resolved) -> Result<String, Status> {
    let mut parent = String::new();
    for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        let chain = chain_id(&parent, diff_id);
        if !exists(node, namespace, &chain)? {
            unpack_layer(node, namespace, layer, &parent, &chain)?;
        }
        parent = chain;
    }
    Ok(parent)
}

fn unpack_layer(
    node: &Node,
    namespace: &str,
    layer: &Descriptor,
    parent: &str,
    chain: &str,
) -> Result<(), Status> {
    let key = format!("extract {:?} {chain}", std::thread::current().id());
    let mut snapshots = node.client().snapshots();
    let prepare = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.clone(),
        parent: parent.to_owned(),
        labels: gc_root(),
    };
    let prepared = block_on(snapshots.prepare(in_namespace(prepare, namespace)))?;
    let apply = ApplyRequest {
        diff: Some(layer.clone()),
        mounts: prepared.into_inner().mounts,
        ..ApplyRequest::default()
    };
    block_on(node.client().diff().apply(in_namespace(apply, namespace)))?;
    let commit = CommitSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        name: chain.to_owned(),
        key: key.clone(),
        labels: gc_root(),
    };
    match block_on(snapshots.commit(in_namespace(commit, namespace))) {
        // Another test was faster.
        Err(status) if status.code() == Code::AlreadyExists => {
            crate::task::remove_snapshot(node, namespace, &key)
        }
        other => other.map(drop),
    }
}

fn exists(node: &Node, namespace: &str, key: &str) -> Result<bool, Status> {
    let request = StatSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
    };
    match block_on(
        node.client()
            .snapshots()
            .stat(in_namespace(request, namespace)),
    ) {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(status),
    }
}

/// Name of the snapshot with this layer on top of `parent`, as containerd computes it.
fn chain_id(parent: &str, diff_id: &str) -> String {
    if parent.is_empty() {
        return diff_id.to_owned();
    }
    let digest = Sha256::digest(format!("{parent} {diff_id}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn read_json(node: &Node, namespace: &str, digest: &str) -> Result<Value, Status> {
    let bytes = read_content(node, namespace, digest)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Status::data_loss(format!("{digest} is not JSON: {error}")))
}

fn read_content(node: &Node, namespace: &str, digest: &str) -> Result<Vec<u8>, Status> {
    let request = ReadContentRequest {
        digest: digest.to_owned(),
        ..ReadContentRequest::default()
    };
    block_on(async {
        let mut content = node.client().content();
        let mut stream = content
            .read(in_namespace(request, namespace))
            .await?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await? {
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|list| list.iter().map(text).collect())
        .unwrap_or_default()
}

fn descriptor(layer: &Value) -> Descriptor {
    Descriptor {
        media_type: text(&layer["mediaType"]),
        digest: text(&layer["digest"]),
        size: layer["size"].as_i64().unwrap_or_default(),
        annotations: BTreeMap::<String, String>::new().into_iter().collect(),
    }
}
