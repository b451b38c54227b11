//! An image that is another one of the registry, with some files changed: one more layer, and nothing else is
//! pushed. For releases that differ in a few bytes from a node image of hundreds of megabytes.

use hyper::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wasmlet_api::Digest;

use crate::http::Ask;
use crate::push::{MANIFESTS, PushError, upload_path};
use crate::registry::Registry;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A file of the new layer: its path in the image, its mode and its content.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) content: Vec<u8>,
}

/// The layer's tar. No time stamps: the same files give the same image.
fn layer(files: &[Changed]) -> Result<Vec<u8>, std::io::Error> {
    let mut tar = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_size(file.content.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, &file.path, file.content.as_slice())?;
    }
    tar.into_inner()
}

impl Registry {
    /// Pushes `repository:to`, which is `repository:from` with changed files; gives its digest.
    pub(crate) async fn derive(
        &self,
        repository: &str,
        from: &str,
        to: &str,
        files: &[Changed],
    ) -> Result<String, PushError> {
        let base = format!("/v2/{}", self.repository(repository));
        let mut manifest = self.document(&base, "manifests", from).await?;
        if let Some(below) = manifest["manifests"][0]["digest"].as_str() {
            manifest = self.document(&base, "manifests", below).await?;
        }
        let config = manifest["config"]["digest"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let mut config = self.document(&base, "blobs", &config).await?;

        let tar = layer(files).map_err(PushError::Archive)?;
        let layer = Digest::of(&tar);
        let list = |value: &mut Value, what: &str, item: Value| match value.as_array_mut() {
            Some(items) => {
                items.push(item);
                Ok(())
            }
            None => Err(PushError::Layout {
                what: format!("list {what} in {repository}:{from}"),
            }),
        };
        list(
            &mut manifest["layers"],
            "layers",
            json!({ "mediaType": LAYER, "digest": layer, "size": tar.len() }),
        )?;
        list(
            &mut config["rootfs"]["diff_ids"],
            "rootfs.diff_ids",
            json!(layer),
        )?;
        // One entry for each layer, or none at all.
        if config["history"].is_array() {
            list(
                &mut config["history"],
                "history",
                json!({ "created_by": "a test's changed files" }),
            )?;
        }
        let config = config.to_string().into_bytes();
        manifest["config"]["digest"] = json!(Digest::of(&config));
        manifest["config"]["size"] = config.len().into();
        let manifest = manifest.to_string().into_bytes();
        for blob in [tar, config] {
            self.upload(&base, blob).await?;
        }
        let path = format!("{base}/manifests/{to}");
        let digest = Digest::of(&manifest).to_string();
        self.expect(Ask::new(Method::PUT, &path).body(MANIFEST, manifest))
            .await?;
        Ok(digest)
    }

    async fn document(&self, base: &str, kind: &str, name: &str) -> Result<Value, PushError> {
        let path = format!("{base}/{kind}/{name}");
        let answer = self.expect(Ask::get(&path).accept(MANIFESTS)).await?;
        serde_json::from_slice(&answer.body).map_err(|source| PushError::Document {
            digest: path,
            source,
        })
    }

    async fn upload(&self, base: &str, bytes: Vec<u8>) -> Result<(), PushError> {
        let uploads = format!("{base}/blobs/uploads/");
        let begun = self.expect(Ask::new(Method::POST, &uploads)).await?;
        let digest = Digest::of(&bytes);
        let place = upload_path(&begun, digest.as_str()).ok_or_else(|| PushError::Layout {
            what: "place for an upload".to_owned(),
        })?;
        self.expect(Ask::new(Method::PUT, &place).body("application/octet-stream", bytes))
            .await?;
        Ok(())
    }
}

/// The hexadecimal SHA-256 of some bytes.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_layer_has_the_files_with_their_modes_and_is_the_same_each_time() {
        let file = Changed {
            path: "bundle/bin/shim".to_owned(),
            mode: 0o755,
            content: b"#!/bin/sh\n".to_vec(),
        };
        let files = [file];
        let tar = layer(&files).expect("a tar");
        assert_eq!(tar, layer(&files).expect("a tar"));
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut entry = archive
            .entries()
            .expect("entries")
            .next()
            .expect("one")
            .expect("readable");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        assert_eq!(content, files[0].content);
        assert_eq!(entry.header().mode().expect("a mode"), 0o755);
    }
}
