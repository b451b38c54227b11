//! The calls to containerd.

use std::fs::File;
use std::path::Path;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{
    GetContainerRequest, GetImageRequest, InfoRequest, ReadContentRequest,
};
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request};
use wasmlet_cache::{Blobs, Digest, Hasher};

use super::unpack::{Trouble, Unpacker};
use super::{ContentError, MAX_DEPTH};
use crate::module::{Promise, inspect};
use crate::oci::{
    self, Compression, Descriptor, Document, MAX_DOCUMENT_BYTES, OciError, Platform, WasmLayer,
};
use crate::{Limits, Location, ModuleError, ResolvedLayer};

/// containerd, in one namespace.
pub(super) struct Store {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
}

impl Store {
    pub(super) async fn connect(address: &Path, namespace: &str) -> Result<Store, ContentError> {
        let name = MetadataValue::try_from(namespace)
            .map_err(|_| ContentError::Namespace(namespace.to_owned()))?;
        let channel = containerd_client::connect(address)
            .await
            .map_err(|source| ContentError::Connect {
                address: address.to_owned(),
                source,
            })?;
        Ok(Store {
            channel,
            namespace: name,
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        request
    }

    pub(super) async fn resolve(
        &self,
        container_id: &str,
        modules: &Blobs,
        spare: Option<&File>,
        limits: &Limits,
    ) -> Result<ResolvedLayer, ContentError> {
        let (image, target) = self.image_of(container_id).await?;
        let layer = self.find_layer(&image, target, limits).await?;
        let stored = self.store_layer(&image, &layer, modules, limits).await;
        match (stored, spare) {
            (Err(error), Some(spare)) if error.is_no_space() => {
                tracing::warn!(%error, "keeping the module in memory");
                let path = Path::new("memory");
                spare
                    .set_len(0)
                    .map_err(|source| unwritten(&image, path, source))?;
                let (digest, size) = self.fetch(&image, &layer, spare, path, limits).await?;
                Ok(resolved(image, layer, digest, size, Location::Spare))
            }
            (Err(error), _) => Err(error),
            (Ok((digest, size)), _) => {
                let location = Location::Stored(modules.path(&digest));
                Ok(resolved(image, layer, digest, size, location))
            }
        }
    }

    /// The name of a container's image, and what it names.
    async fn image_of(&self, container_id: &str) -> Result<(String, Descriptor), ContentError> {
        let failed = |action, what: String| {
            move |status| ContentError::Call {
                action,
                what,
                status: Box::new(status),
            }
        };
        let request = self.request(GetContainerRequest {
            id: container_id.to_owned(),
        });
        let container = ContainersClient::new(self.channel.clone())
            .get(request)
            .await
            .map_err(failed("find the container", container_id.to_owned()))?
            .into_inner()
            .container
            .ok_or_else(|| ContentError::Incomplete(format!("the container {container_id}")))?;
        if container.image.is_empty() {
            return Err(ContentError::NoImage(container_id.to_owned()));
        }
        let request = self.request(GetImageRequest {
            name: container.image.clone(),
        });
        let target = ImagesClient::new(self.channel.clone())
            .get(request)
            .await
            .map_err(failed("find the image", container.image.clone()))?
            .into_inner()
            .image
            .and_then(|image| image.target)
            .ok_or_else(|| ContentError::Incomplete(format!("the image {}", container.image)))?;
        let size = u64::try_from(target.size).unwrap_or(0);
        let target = Descriptor {
            media_type: target.media_type,
            digest: target.digest,
            size,
            platform: None,
        };
        Ok((container.image, target))
    }

    /// Follows an image's documents to the layer that is the module.
    async fn find_layer(
        &self,
        image: &str,
        target: Descriptor,
        limits: &Limits,
    ) -> Result<WasmLayer, ContentError> {
        let wrong = |source| ContentError::Image {
            image: image.to_owned(),
            source,
        };
        let mut descriptor = target;
        for _ in 0..=MAX_DEPTH {
            let bytes = self.read_document(image, &descriptor).await?;
            match oci::parse(&bytes, &descriptor.media_type).map_err(wrong)? {
                Document::Manifest(manifest) => {
                    return oci::wasm_layer(&manifest, limits).map_err(|source| match source {
                        source @ OciError::NoWasmLayer { .. } => ContentError::NotAnArtifact {
                            image: image.to_owned(),
                            source,
                        },
                        source => wrong(source),
                    });
                }
                Document::Index(index) => {
                    let candidates = oci::candidates(&index, &Platform::host()).map_err(wrong)?;
                    descriptor = self.first_present(image, &candidates).await?.clone();
                }
            }
        }
        Err(ContentError::TooDeep {
            image: image.to_owned(),
        })
    }

    async fn first_present<'a>(
        &self,
        image: &str,
        candidates: &[&'a Descriptor],
    ) -> Result<&'a Descriptor, ContentError> {
        for candidate in candidates {
            if self.size(&candidate.digest).await?.is_some() {
                return Ok(candidate);
            }
        }
        let digest = candidates
            .first()
            .map(|first| first.digest.clone())
            .unwrap_or_default();
        Err(ContentError::Missing {
            image: image.to_owned(),
            what: "the manifest",
            digest,
        })
    }

    /// A blob's length, if it is there.
    async fn size(&self, digest: &str) -> Result<Option<u64>, ContentError> {
        let request = self.request(InfoRequest {
            digest: digest.to_owned(),
        });
        match ContentClient::new(self.channel.clone()).info(request).await {
            Ok(answer) => match answer.into_inner().info {
                Some(info) => Ok(Some(u64::try_from(info.size).unwrap_or(0))),
                None => Err(ContentError::Incomplete(format!("the blob {digest}"))),
            },
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(ContentError::Call {
                action: "find the blob",
                what: digest.to_owned(),
                status: Box::new(status),
            }),
        }
    }

    async fn read_document(
        &self,
        image: &str,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, ContentError> {
        let what = "the document";
        let wrong = |source| ContentError::Image {
            image: image.to_owned(),
            source,
        };
        let expected = descriptor.sha256().map_err(wrong)?;
        let length = self.size(&descriptor.digest).await?.ok_or_else(|| {
            let (image, digest) = (image.to_owned(), descriptor.digest.clone());
            ContentError::Missing {
                image,
                what,
                digest,
            }
        })?;
        if length > MAX_DOCUMENT_BYTES {
            return Err(wrong(OciError::TooLong { length }));
        }
        let mut bytes = Vec::new();
        self.read(image, what, &descriptor.digest, length, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .await?;
        let found = Digest::of(&bytes);
        if found != expected {
            return Err(damaged(
                image,
                what,
                &descriptor.digest,
                wrong_digest(&found),
            ));
        }
        Ok(bytes)
    }

    /// Gives a whole blob to `take`, piece by piece; fails unless it has exactly this length.
    async fn read(
        &self,
        image: &str,
        what: &'static str,
        digest: &str,
        length: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), ContentError>,
    ) -> Result<(), ContentError> {
        let failed = |status| ContentError::Call {
            action: "read the blob",
            what: digest.to_owned(),
            status: Box::new(status),
        };
        let request = self.request(ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: 0,
        });
        let mut stream = ContentClient::new(self.channel.clone())
            .read(request)
            .await
            .map_err(failed)?
            .into_inner();
        let mut count = 0;
        while let Some(piece) = stream.message().await.map_err(failed)? {
            if u64::try_from(piece.offset) != Ok(count) {
                let problem = format!("a piece of it came at {} instead of {count}", piece.offset);
                return Err(damaged(image, what, digest, problem));
            }
            count += piece.data.len() as u64;
            if count > length {
                break;
            }
            take(&piece.data)?;
        }
        if count != length {
            let problem = format!("it has not the {length} bytes it should have");
            return Err(damaged(image, what, digest, problem));
        }
        Ok(())
    }

    /// Puts the module into the store, unless it is there.
    async fn store_layer(
        &self,
        image: &str,
        layer: &WasmLayer,
        modules: &Blobs,
        limits: &Limits,
    ) -> Result<(Digest, u64), ContentError> {
        let failed = |source| ContentError::Store {
            image: image.to_owned(),
            source,
        };
        // Not taken from the store before containerd was asked: that it has the layer in this
        // namespace is what shows that whoever started the container may use it.
        let present = self.size(&layer.descriptor.digest).await?.is_some();
        if present
            && layer.compression == Compression::None
            && let Some(blob) = modules.open(&layer.digest).map_err(failed)?
        {
            return Ok((blob.digest, blob.length));
        }
        let staged = modules.stage().map_err(failed)?;
        let (digest, size) = self
            .fetch(image, layer, staged.file(), modules.dir(), limits)
            .await?;
        modules
            .publish(staged, &digest)
            .map_err(|unpublished| failed(unpublished.error))?;
        Ok((digest, size))
    }

    /// Writes the module into a file, decompressed and checked: its digest and length.
    async fn fetch(
        &self,
        image: &str,
        layer: &WasmLayer,
        file: &File,
        path: &Path,
        limits: &Limits,
    ) -> Result<(Digest, u64), ContentError> {
        let what = "the layer";
        let digest = &layer.descriptor.digest;
        let length = self.size(digest).await?.ok_or_else(|| {
            let (image, digest) = (image.to_owned(), digest.clone());
            ContentError::Missing {
                image,
                what,
                digest,
            }
        })?;
        let says = layer.descriptor.size;
        if length != says {
            let source = OciError::Length {
                digest: digest.clone(),
                length,
                says,
            };
            return Err(ContentError::Image {
                image: image.to_owned(),
                source,
            });
        }
        let mut unpacker = Unpacker::new(layer.compression, file, limits)
            .map_err(|source| unwritten(image, path, source))?;
        let mut packed = Hasher::new();
        let failed = |trouble| match trouble {
            Trouble::Write(source) => unwritten(image, path, source),
            Trouble::TooLarge { length, limit } => ContentError::Module {
                image: image.to_owned(),
                digest: digest.clone(),
                source: ModuleError::TooLarge { length, limit },
            },
            Trouble::Decompress(source) => {
                let (image, digest) = (image.to_owned(), digest.clone());
                ContentError::Decompress {
                    image,
                    digest,
                    source,
                }
            }
        };
        self.read(image, what, digest, length, |chunk| {
            packed.update(chunk);
            unpacker.push(chunk).map_err(failed)
        })
        .await?;
        let found = packed.finish();
        if found != layer.digest {
            return Err(damaged(image, what, digest, wrong_digest(&found)));
        }
        let (content, size) = unpacker.finish().map_err(failed)?;
        inspect(file, size, Promise::Binary, limits).map_err(|source| {
            let (image, digest) = (image.to_owned(), digest.clone());
            ContentError::Module {
                image,
                digest,
                source,
            }
        })?;
        Ok((content, size))
    }
}

fn resolved(
    image: String,
    layer: WasmLayer,
    digest: Digest,
    size: u64,
    location: Location,
) -> ResolvedLayer {
    ResolvedLayer {
        digest,
        media_type: layer.descriptor.media_type,
        size,
        location,
        image,
    }
}

fn damaged(image: &str, what: &'static str, digest: &str, problem: String) -> ContentError {
    ContentError::Damaged {
        image: image.to_owned(),
        what,
        digest: digest.to_owned(),
        problem,
    }
}

fn unwritten(image: &str, path: &Path, source: std::io::Error) -> ContentError {
    ContentError::Write {
        image: image.to_owned(),
        path: path.to_owned(),
        source,
    }
}

fn wrong_digest(found: &Digest) -> String {
    format!("its bytes have the digest sha256:{found}")
}
