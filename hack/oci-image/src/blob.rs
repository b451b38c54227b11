//! Content-addressed pieces: what everything in an image finally is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Platform;

/// The media types this crate writes.
pub mod media_type {
    /// An index: several manifests under one name.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A manifest: one config and its layers.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// The config of an ordinary image (and of artifacts that imitate one).
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// The config of a Wasm OCI artifact.
    pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
    /// A layer, not compressed.
    pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer, zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// A module as an artifact layer, as most tools write it.
    pub const WASM: &str = "application/wasm";
    /// A component as an artifact layer, as the component tools once wrote it.
    pub const WASM_COMPONENT: &str =
        "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
    /// A module as an artifact layer, as the first Wasm artifact tools wrote it.
    pub const WASM_CONTENT: &str = "application/vnd.wasm.content.layer.v1+wasm";
}

/// Bytes with the name they are found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What the bytes are.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    /// Takes bytes in and computes their digest.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        let digest = digest_of(&bytes);
        Self {
            media_type: media_type.into(),
            bytes,
            digest,
        }
    }

    /// `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.bytes.len(),
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// How a document refers to a blob.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha256_in_hexadecimal() {
        // The well-known digest of no bytes at all.
        assert_eq!(
            Blob::new("x/y", Vec::new()).digest(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
