//! The finished product: an OCI image layout in one tar.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::blob::{Blob, Descriptor, digest_of, media_type};
use crate::image::encode;
use crate::layer::{Compression, Layer};
use crate::{Error, Item, Platform};

/// Images, each under its name, to be written as one tar.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    images: Vec<(String, Vec<Item>)>,
}

/// A finished archive.
#[derive(Debug, Clone)]
pub struct Built {
    /// The tar's bytes.
    pub tar: Vec<u8>,
    /// Every manifest inside, in the order the items were added.
    pub manifests: Vec<BuiltManifest>,
}

/// One manifest of a finished archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltManifest {
    /// The image name it was added under.
    pub name: String,
    /// The digest it is stored under.
    pub digest: String,
    /// The platform the index claims for it.
    pub platform: Option<Platform>,
    /// The name of the snapshot that holds all its layers once it is unpacked; none for what has no
    /// layers of files.
    pub chain_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

impl Archive {
    /// An archive without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image or artifact under a full name, for example `docker.io/library/app:latest`.
    #[must_use]
    pub fn image(self, name: &str, item: impl Into<Item>) -> Self {
        self.index(name, [item])
    }

    /// Adds several items under one name: an index, from which containerd picks by platform. With
    /// a single item no index of its own is written.
    #[must_use]
    pub fn index<I>(mut self, name: &str, items: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Item>,
    {
        self.images
            .push((name.into(), items.into_iter().map(Into::into).collect()));
        self
    }

    /// Puts the tar together.
    pub fn build(&self) -> Result<Built, Error> {
        // Keyed by digest: a blob that two images share is stored once.
        let mut blobs = BTreeMap::new();
        let mut top = Vec::new();
        let mut manifests = Vec::new();
        for (name, items) in &self.images {
            let mut below = Vec::new();
            for item in items {
                let finished = item.finish()?;
                let mut descriptor = finished.manifest.descriptor();
                descriptor.platform.clone_from(&finished.platform);
                below.push(descriptor);
                manifests.push(BuiltManifest {
                    name: name.clone(),
                    digest: finished.manifest.digest().into(),
                    platform: finished.platform,
                    chain_id: chain_id(&finished.diff_ids),
                });
                for blob in finished.blobs.into_iter().chain([finished.manifest]) {
                    blobs.insert(blob.digest().to_owned(), blob);
                }
            }
            let mut descriptor = match below.len() {
                0 => return Err(Error::Empty { name: name.clone() }),
                1 => below.remove(0),
                _ => {
                    let index = Blob::new(media_type::INDEX, index_document(below)?);
                    let descriptor = index.descriptor();
                    blobs.insert(index.digest().to_owned(), index);
                    descriptor
                }
            };
            name_it(&mut descriptor, name);
            top.push(descriptor);
        }
        Ok(Built {
            tar: layout(&blobs, index_document(top)?)?,
            manifests,
        })
    }

    /// Puts the tar together and writes it to a file, returning what is inside.
    pub fn write(&self, path: &Path) -> Result<Vec<BuiltManifest>, Error> {
        let built = self.build()?;
        fs::write(path, built.tar).map_err(|source| Error::Write {
            path: path.into(),
            source,
        })?;
        Ok(built.manifests)
    }
}

/// The identity of a stack of layers, as the image format defines it.
fn chain_id(diff_ids: &[String]) -> Option<String> {
    diff_ids
        .iter()
        .cloned()
        .reduce(|below, layer| digest_of(format!("{below} {layer}").as_bytes()))
}

/// Two annotations carry the name: the first is the image format's own (and means only the tag to
/// some tools), the second is the one containerd takes as it is.
fn name_it(descriptor: &mut Descriptor, name: &str) {
    for key in [
        "org.opencontainers.image.ref.name",
        "io.containerd.image.name",
    ] {
        descriptor.annotations.insert(key.into(), name.into());
    }
}

fn index_document(manifests: Vec<Descriptor>) -> Result<Vec<u8>, Error> {
    encode(
        "index",
        &Index {
            schema_version: 2,
            media_type: media_type::INDEX,
            manifests,
        },
    )
}

fn layout(blobs: &BTreeMap<String, Blob>, index: Vec<u8>) -> Result<Vec<u8>, Error> {
    let marker = encode("layout marker", &json!({ "imageLayoutVersion": "1.0.0" }))?;
    let mut tar = Layer::new()
        .compression(Compression::None)
        .file("oci-layout", 0o644, marker)
        .file("index.json", 0o644, index)
        .folder("blobs", 0o755)
        .folder("blobs/sha256", 0o755);
    for (digest, blob) in blobs {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        tar = tar.file(&path, 0o644, blob.bytes.clone());
    }
    Ok(tar.pack()?.blob.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Artifact, Image};
    use serde_json::Value;
    use std::io::Read;

    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(path, bytes);
        }
        files
    }

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[track_caller]
    fn follow<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
        assert_eq!(descriptor["size"], bytes.len());
        assert_eq!(crate::blob::digest_of(bytes), digest);
        bytes
    }

    #[test]
    fn one_image_is_named_in_the_top_index() {
        let image = Image::new().layer(Layer::new().file("a", 0o644, "a"));
        let built = Archive::new()
            .image("docker.io/library/a:latest", image)
            .build()
            .unwrap();
        let files = files(&built.tar);
        assert_eq!(json(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
        let top = json(&files["index.json"]);
        let descriptor = &top["manifests"][0];
        assert_eq!(descriptor["digest"], built.manifests[0].digest);
        assert_eq!(
            descriptor["annotations"]["io.containerd.image.name"],
            "docker.io/library/a:latest"
        );
        let manifest = json(follow(&files, descriptor));
        let config = json(follow(&files, &manifest["config"]));
        // One layer: the chain is the layer.
        assert_eq!(
            built.manifests[0].chain_id.as_deref(),
            config["rootfs"]["diff_ids"][0].as_str()
        );
        follow(&files, &manifest["layers"][0]);
    }

    #[test]
    fn several_platforms_stand_below_one_name() {
        let build = |platform: &str| {
            Image::new()
                .platform(platform.parse().unwrap())
                .layer(Layer::new().file("a", 0o644, "a"))
        };
        let built = Archive::new()
            .index(
                "example.org/a:1",
                [build("linux/amd64"), build("linux/arm64")],
            )
            .build()
            .unwrap();
        let files = files(&built.tar);
        let top = json(&files["index.json"]);
        assert_eq!(top["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(top["manifests"][0]["mediaType"], media_type::INDEX);
        let below = json(follow(&files, &top["manifests"][0]));
        let architectures: Vec<&str> = below["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|descriptor| descriptor["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(architectures, ["amd64", "arm64"]);
    }

    #[test]
    fn images_and_artifacts_mix_and_the_bytes_never_change() {
        let build = || {
            let items: [Item; 2] = [
                Image::new()
                    .layer(Layer::new().file("a", 0o644, "a"))
                    .into(),
                Artifact::new(media_type::WASM, *b"\0asm").into(),
            ];
            Archive::new()
                .index("example.org/a:1", items)
                .build()
                .unwrap()
        };
        assert_eq!(build().tar, build().tar);
        assert_eq!(build().manifests.len(), 2);
    }

    #[test]
    fn chain_ids_follow_the_layers() {
        // The image format's definition, worked by hand: ChainID(A,B) = Digest(A + " " + B).
        let (a, b) = (digest_of(b"a"), digest_of(b"b"));
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
        let both = digest_of(format!("{a} {b}").as_bytes());
        assert_eq!(chain_id(&[a, b]), Some(both));
    }

    #[test]
    fn a_name_without_items_is_refused() {
        let error = Archive::new()
            .index("empty", Vec::<Item>::new())
            .build()
            .unwrap_err();
        assert!(matches!(error, Error::Empty { .. }), "{error}");
    }
}
