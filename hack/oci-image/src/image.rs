//! Images and artifacts: a config, layers and the manifest that ties them together.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use crate::blob::{Blob, Descriptor, media_type};
use crate::{Error, Layer, Platform};

/// An ordinary container image, for one platform.
#[derive(Debug, Clone, Default)]
pub struct Image {
    platform: Platform,
    config: Process,
    layers: Vec<Layer>,
    annotations: BTreeMap<String, String>,
}

/// The part of an image config that says how to start the container. Field names are the
/// image format's.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Process {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, BTreeMap<String, String>>,
}

fn strings<I, S>(items: I) -> Vec<String>
where
    I: IntoIterator<Item = S>,
    S: Into<String>,
{
    items.into_iter().map(Into::into).collect()
}

impl Image {
    /// An image for this machine's platform, without layers and without a command.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the platform.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Sets the entrypoint; an empty list is written as an empty list.
    #[must_use]
    pub fn entrypoint<I: IntoIterator<Item = S>, S: Into<String>>(mut self, arguments: I) -> Self {
        self.config.entrypoint = Some(strings(arguments));
        self
    }

    /// Sets the command; an empty list is written as an empty list.
    #[must_use]
    pub fn cmd<I: IntoIterator<Item = S>, S: Into<String>>(mut self, arguments: I) -> Self {
        self.config.cmd = Some(strings(arguments));
        self
    }

    /// Adds an environment variable, `NAME=value`.
    #[must_use]
    pub fn env(mut self, variable: &str) -> Self {
        self.config.env.push(variable.into());
        self
    }

    /// Sets the user, `uid[:gid]` or a name.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.config.user = user.into();
        self
    }

    /// Sets the working folder.
    #[must_use]
    pub fn working_dir(mut self, path: &str) -> Self {
        self.config.working_dir = path.into();
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.config.labels.insert(key.into(), value.into());
        self
    }

    /// Sets the signal that asks the container to stop.
    #[must_use]
    pub fn stop_signal(mut self, signal: &str) -> Self {
        self.config.stop_signal = signal.into();
        self
    }

    /// Documents a port, for example `8080/tcp`.
    #[must_use]
    pub fn exposed_port(mut self, port: &str) -> Self {
        self.config
            .exposed_ports
            .insert(port.into(), BTreeMap::new());
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Adds a layer on top of those already there.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    fn finish(&self) -> Result<Finished, Error> {
        let mut diff_ids = Vec::new();
        let mut blobs = Vec::new();
        for layer in &self.layers {
            let packed = layer.pack()?;
            diff_ids.push(packed.diff_id);
            blobs.push(packed.blob);
        }
        let mut config = json!({
            "created": EPOCH,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        merge(&mut config, &self.platform);
        let config = Blob::new(media_type::CONFIG, encode("config", &config)?);
        let finished = finish(
            config,
            blobs,
            &self.annotations,
            Some(self.platform.clone()),
        )?;
        Ok(Finished {
            diff_ids,
            ..finished
        })
    }
}

/// A Wasm OCI artifact: the manifest's layer is the module, not a file system.
#[derive(Debug, Clone)]
pub struct Artifact {
    config_type: String,
    platform: Platform,
    layers: Vec<Blob>,
    annotations: BTreeMap<String, String>,
    entrypoint: Option<Vec<String>>,
}

impl Artifact {
    /// An artifact of one layer with the media type given (see [`media_type`]) and the config of a
    /// Wasm OCI artifact.
    pub fn new(layer_type: &str, module: impl Into<Vec<u8>>) -> Self {
        Self {
            config_type: media_type::WASM_CONFIG.into(),
            platform: Platform::wasm(),
            layers: vec![Blob::new(layer_type, module.into())],
            annotations: BTreeMap::new(),
            entrypoint: None,
        }
    }

    /// Sets the config's media type. With [`media_type::CONFIG`] the config imitates an ordinary
    /// image's, which older containerd versions need to find the platform.
    #[must_use]
    pub fn config_type(mut self, media_type: &str) -> Self {
        self.config_type = media_type.into();
        self
    }

    /// Sets the platform, `wasip1/wasm` by default.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Sets an entrypoint; written only where the config is an ordinary image's.
    #[must_use]
    pub fn entrypoint<I: IntoIterator<Item = S>, S: Into<String>>(mut self, arguments: I) -> Self {
        self.entrypoint = Some(strings(arguments));
        self
    }

    /// Adds another layer of any media type.
    #[must_use]
    pub fn layer(mut self, blob: Blob) -> Self {
        self.layers.push(blob);
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    fn finish(&self) -> Result<Finished, Error> {
        let digests: Vec<&str> = self.layers.iter().map(Blob::digest).collect();
        let mut config = json!({ "created": EPOCH });
        if self.config_type == media_type::CONFIG {
            let process = Process {
                entrypoint: self.entrypoint.clone(),
                ..Process::default()
            };
            config["config"] = json!(process);
            config["rootfs"] = json!({ "type": "layers", "diff_ids": digests });
        } else {
            config["layerDigests"] = json!(digests);
        }
        merge(&mut config, &self.platform);
        let config = Blob::new(&self.config_type, encode("config", &config)?);
        finish(
            config,
            self.layers.clone(),
            &self.annotations,
            Some(self.platform.clone()),
        )
    }
}

/// Any bytes in a manifest's place, with the blobs it speaks of.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// The document itself; its media type is what the index will claim.
    pub manifest: Blob,
    /// Blobs to store beside it; may lack some that the document names.
    pub blobs: Vec<Blob>,
    /// What the index claims about the platform, if anything.
    pub platform: Option<Platform>,
}

/// What can stand under an image name.
#[derive(Debug, Clone)]
pub enum Item {
    /// An ordinary image.
    Image(Image),
    /// A Wasm OCI artifact.
    Artifact(Artifact),
    /// Anything else.
    Raw(RawManifest),
}

impl From<Image> for Item {
    fn from(image: Image) -> Self {
        Self::Image(image)
    }
}

impl From<Artifact> for Item {
    fn from(artifact: Artifact) -> Self {
        Self::Artifact(artifact)
    }
}

impl From<RawManifest> for Item {
    fn from(raw: RawManifest) -> Self {
        Self::Raw(raw)
    }
}

impl Item {
    pub(crate) fn finish(&self) -> Result<Finished, Error> {
        match self {
            Self::Image(image) => image.finish(),
            Self::Artifact(artifact) => artifact.finish(),
            Self::Raw(raw) => Ok(Finished {
                manifest: raw.manifest.clone(),
                blobs: raw.blobs.clone(),
                platform: raw.platform.clone(),
                diff_ids: Vec::new(),
            }),
        }
    }
}

/// A manifest with every blob it needs.
pub(crate) struct Finished {
    pub(crate) manifest: Blob,
    pub(crate) blobs: Vec<Blob>,
    pub(crate) platform: Option<Platform>,
    /// Digests of the layers' tars, for an image made of layers.
    pub(crate) diff_ids: Vec<String>,
}

/// A fixed time, so that the same image has the same digest tomorrow.
const EPOCH: &str = "1970-01-01T00:00:00Z";

fn merge(config: &mut serde_json::Value, platform: &Platform) {
    config["architecture"] = json!(platform.architecture);
    config["os"] = json!(platform.os);
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
}

fn finish(
    config: Blob,
    mut blobs: Vec<Blob>,
    annotations: &BTreeMap<String, String>,
    platform: Option<Platform>,
) -> Result<Finished, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'static str,
        config: Descriptor,
        layers: Vec<Descriptor>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST,
        config: config.descriptor(),
        layers: blobs.iter().map(Blob::descriptor).collect(),
        annotations,
    };
    let manifest = Blob::new(media_type::MANIFEST, encode("manifest", &manifest)?);
    blobs.push(config);
    Ok(Finished {
        manifest,
        blobs,
        platform,
        diff_ids: Vec::new(),
    })
}

pub(crate) fn encode(what: &'static str, document: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|source| Error::Encode { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[track_caller]
    fn documents(item: impl Into<Item>) -> (Value, Value) {
        let finished = item.into().finish().unwrap();
        let manifest: Value = serde_json::from_slice(&finished.manifest.bytes).unwrap();
        let digest = manifest["config"]["digest"].as_str().unwrap();
        let config = finished
            .blobs
            .iter()
            .find(|blob| blob.digest() == digest)
            .unwrap();
        assert_eq!(manifest["config"]["size"], config.bytes.len());
        (manifest, serde_json::from_slice(&config.bytes).unwrap())
    }

    #[test]
    fn an_image_config_says_what_the_builder_was_told() {
        let image = Image::new()
            .platform("linux/arm/v7".parse().unwrap())
            .entrypoint(["/app.wasm", "-v"])
            .cmd(["one"])
            .env("A=1")
            .user("1000:1000")
            .working_dir("/data")
            .label("key", "value")
            .stop_signal("SIGINT")
            .exposed_port("8080/tcp")
            .annotation("note", "text")
            .layer(Layer::new().file("app.wasm", 0o644, "x"));
        let (manifest, config) = documents(image);
        let process = &config["config"];
        assert_eq!(process["Entrypoint"], json!(["/app.wasm", "-v"]));
        assert_eq!(process["Cmd"], json!(["one"]));
        assert_eq!(process["Env"], json!(["A=1"]));
        assert_eq!(process["User"], "1000:1000");
        assert_eq!(process["WorkingDir"], "/data");
        assert_eq!(process["Labels"], json!({"key": "value"}));
        assert_eq!(process["StopSignal"], "SIGINT");
        assert_eq!(process["ExposedPorts"], json!({"8080/tcp": {}}));
        assert_eq!(config["architecture"], "arm");
        assert_eq!(config["variant"], "v7");
        assert_eq!(manifest["layers"][0]["mediaType"], media_type::LAYER_GZIP);
        assert_eq!(manifest["annotations"]["note"], "text");
        assert_ne!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
    }

    #[test]
    fn an_artifact_carries_the_module_as_its_layer() {
        let module = b"\0asm\x01\0\0\0";
        let (manifest, config) = documents(Artifact::new(media_type::WASM, *module));
        assert_eq!(manifest["config"]["mediaType"], media_type::WASM_CONFIG);
        assert_eq!(manifest["layers"][0]["mediaType"], media_type::WASM);
        assert_eq!(manifest["layers"][0]["size"], module.len());
        assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
        assert_eq!(config["architecture"], "wasm");
    }

    #[test]
    fn an_artifact_can_imitate_an_ordinary_config() {
        let artifact = Artifact::new(media_type::WASM_CONTENT, *b"x")
            .config_type(media_type::CONFIG)
            .entrypoint(["module.wasm"]);
        let (manifest, config) = documents(artifact);
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        assert_eq!(config["config"]["Entrypoint"], json!(["module.wasm"]));
        assert!(config.get("layerDigests").is_none());
    }
}
