//! Pushing an image layout to a registry: blobs that it does not have, then the manifests.

use std::collections::BTreeMap;
use std::io::Read as _;

use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::http::{Answer, Ask, HttpError, ask_at};
use crate::registry::Registry;

/// The kinds of documents that a tag may stand for.
pub(crate) const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json";

/// Why an image is not in the registry.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The archive cannot be read.
    #[error("the image archive cannot be read")]
    Archive(#[source] std::io::Error),
    /// The archive is no image layout with one image.
    #[error("the image archive has no {what}")]
    Layout {
        /// What is missing.
        what: String,
    },
    /// A document of the archive is no JSON.
    #[error("{digest} in the image archive is not JSON")]
    Document {
        /// Which.
        digest: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The registry does not answer.
    #[error("registry {registry}: {source}")]
    Http {
        /// Which.
        registry: String,
        /// What went wrong.
        #[source]
        source: HttpError,
    },
    /// The registry refuses.
    #[error("registry {registry}: {method} {path}: {status}: {body}")]
    Refused {
        /// Which.
        registry: String,
        /// What was asked.
        method: Method,
        /// For what.
        path: String,
        /// What it answered.
        status: StatusCode,
        /// Its words.
        body: String,
    },
}

/// The files of an image layout.
struct Layout(BTreeMap<String, Vec<u8>>);

impl Layout {
    fn read(tar: &[u8]) -> Result<Self, PushError> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(tar)
            .entries()
            .map_err(PushError::Archive)?
        {
            let mut entry = entry.map_err(PushError::Archive)?;
            let path = entry
                .path()
                .map_err(PushError::Archive)?
                .display()
                .to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(PushError::Archive)?;
            files.insert(path, bytes);
        }
        Ok(Self(files))
    }

    /// The descriptor of the archive's only image.
    fn top(&self) -> Result<Value, PushError> {
        let missing = |what: &str| PushError::Layout {
            what: what.to_owned(),
        };
        let index = self
            .0
            .get("index.json")
            .ok_or_else(|| missing("index.json"))?;
        let index = parse("index.json", index)?;
        index["manifests"]
            .get(0)
            .cloned()
            .ok_or_else(|| missing("image"))
    }

    fn blob(&self, digest: &str) -> Result<&[u8], PushError> {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let found = self.0.get(&path).map(Vec::as_slice);
        found.ok_or_else(|| PushError::Layout {
            what: digest.to_owned(),
        })
    }
}

fn parse(digest: &str, bytes: &[u8]) -> Result<Value, PushError> {
    serde_json::from_slice(bytes).map_err(|source| PushError::Document {
        digest: digest.to_owned(),
        source,
    })
}

fn digest_of(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().unwrap_or_default()
}

impl Registry {
    /// Pushes the one image of an archive; gives its digest back.
    pub(crate) async fn push(
        &self,
        repository: &str,
        tag: &str,
        tar: &[u8],
    ) -> Result<String, PushError> {
        let layout = Layout::read(tar)?;
        let top = layout.top()?;
        let base = format!("/v2/{}", self.repository(repository));
        let document = parse(digest_of(&top), layout.blob(digest_of(&top))?)?;
        for below in document["manifests"].as_array().into_iter().flatten() {
            self.push_blobs(
                &base,
                &layout,
                &parse(digest_of(below), layout.blob(digest_of(below))?)?,
            )
            .await?;
            self.put_manifest(&base, &layout, below, digest_of(below))
                .await?;
        }
        self.push_blobs(&base, &layout, &document).await?;
        self.put_manifest(&base, &layout, &top, tag).await?;
        Ok(digest_of(&top).to_owned())
    }

    /// Whether the tag is there.
    pub(crate) async fn has(&self, repository: &str, tag: &str) -> Result<bool, PushError> {
        let path = format!("/v2/{}/manifests/{tag}", self.repository(repository));
        // A registry hides what the client does not say it understands.
        let ask = Ask::new(Method::HEAD, &path).accept(MANIFESTS);
        let answer = self.ask(ask).await?;
        Ok(answer.status.is_success())
    }

    /// Config and layers of a manifest; an index has neither.
    async fn push_blobs(
        &self,
        base: &str,
        layout: &Layout,
        manifest: &Value,
    ) -> Result<(), PushError> {
        let layers = manifest["layers"].as_array().into_iter().flatten();
        for descriptor in manifest.get("config").into_iter().chain(layers) {
            let digest = digest_of(descriptor);
            let path = format!("{base}/blobs/{digest}");
            if self
                .ask(Ask::new(Method::HEAD, &path))
                .await?
                .status
                .is_success()
            {
                continue;
            }
            let uploads = format!("{base}/blobs/uploads/");
            let begun = self.expect(Ask::new(Method::POST, &uploads)).await?;
            let place = upload_path(&begun, digest).ok_or_else(|| PushError::Layout {
                what: "place for an upload".to_owned(),
            })?;
            let bytes = layout.blob(digest)?.to_vec();
            self.expect(Ask::new(Method::PUT, &place).body("application/octet-stream", bytes))
                .await?;
        }
        Ok(())
    }

    async fn put_manifest(
        &self,
        base: &str,
        layout: &Layout,
        descriptor: &Value,
        reference: &str,
    ) -> Result<(), PushError> {
        let path = format!("{base}/manifests/{reference}");
        let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
        let bytes = layout.blob(digest_of(descriptor))?.to_vec();
        self.expect(Ask::new(Method::PUT, &path).body(media_type, bytes))
            .await?;
        Ok(())
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Answer, PushError> {
        ask_at(self.address(), ask)
            .await
            .map_err(|source| PushError::Http {
                registry: self.to_string(),
                source,
            })
    }

    pub(crate) async fn expect(&self, ask: Ask<'_>) -> Result<Answer, PushError> {
        let (method, path) = (ask.method.clone(), ask.path.to_owned());
        let answer = self.ask(ask).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(PushError::Refused {
            registry: self.to_string(),
            method,
            path,
            status: answer.status,
            body: answer.text(),
        })
    }
}

/// Path and query of an upload's last request. The registry may name itself or only the path, and may have a
/// query of its own.
pub(crate) fn upload_path(begun: &Answer, digest: &str) -> Option<String> {
    let location = begun.headers.get("location")?.to_str().ok()?;
    let path = match location.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => location,
    };
    let separator = if path.contains('?') { '&' } else { '?' };
    Some(format!("{path}{separator}digest={digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;
    use wasmlet_oci_image::{Archive, Image, Layer};

    fn begun(location: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("location", location.parse().expect("a header"));
        Answer {
            status: StatusCode::ACCEPTED,
            headers,
            body: Vec::new(),
        }
    }

    #[test]
    fn an_upload_goes_where_the_registry_says() {
        for (location, expected) in [
            ("/v2/a/blobs/uploads/1", "/v2/a/blobs/uploads/1?digest=d"),
            (
                "/v2/a/blobs/uploads/1?state=x",
                "/v2/a/blobs/uploads/1?state=x&digest=d",
            ),
            ("http://r:5000/v2/a/1?s=x", "/v2/a/1?s=x&digest=d"),
        ] {
            assert_eq!(
                upload_path(&begun(location), "d").as_deref(),
                Some(expected)
            );
        }
        assert_eq!(upload_path(&begun("http://nowhere"), "d"), None);
    }

    #[test]
    fn every_blob_of_an_archive_is_found() {
        let image = Image::new().layer(Layer::new().file("a", 0o644, "a"));
        let built = Archive::new()
            .image("r/a:1", image)
            .build()
            .expect("an archive");
        let layout = Layout::read(&built.tar).expect("a layout");
        let top = layout.top().expect("an image");
        assert_eq!(digest_of(&top), built.manifests[0].digest);
        let manifest = parse("m", layout.blob(digest_of(&top)).expect("there")).expect("JSON");
        layout
            .blob(digest_of(&manifest["config"]))
            .expect("the config");
        layout
            .blob(digest_of(&manifest["layers"][0]))
            .expect("the layer");
        assert!(layout.blob("sha256:0").is_err());
    }
}
