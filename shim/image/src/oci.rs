//! Form B: which bytes of an OCI artifact are the module. Pure functions over JSON.
//!
//! ```text
//! index ──candidates──▶ manifest ──wasm_layer──▶ the layer that is the module
//! ```
//! All of it is the image author's word. A document is refused where two readers could read it
//! differently: with both `manifests` and `layers`, or with a media type other than the one it was
//! announced with.

use serde::Deserialize;
use wasmlet_cache::Digest;
use wasmlet_protocol::FailureReason;

use crate::Limits;

/// Longest index or manifest; registries take no longer ones.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// Most entries of an index, most layers of a manifest. containerd unpacks far fewer.
const MAX_ENTRIES: usize = 1000;

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Media types of layers that are a module, uncompressed.
pub const WASM_LAYER_TYPES: [&str; 3] = [
    "application/wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
];

/// Names that tools give to what is no operating system and no processor.
const WASM_SYSTEMS: [&str; 3] = ["wasip1", "wasip2", "wasi"];
const WASM_ARCHITECTURES: [&str; 2] = ["wasm", "wasm32"];

/// Why an image gives no module.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A document is too long.
    #[error(
        "{length} bytes are more than the {MAX_DOCUMENT_BYTES} bytes an index or manifest may have"
    )]
    TooLong {
        /// Its length.
        length: u64,
    },
    /// A document is not what it should be.
    #[error("not an OCI index or manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// A document is neither or both.
    #[error("a document with {0} is neither an index nor a manifest")]
    Ambiguous(&'static str),
    /// A document is announced as one thing and says it is another.
    #[error("the document is announced as {announced:?} and says that it is {says:?}")]
    OtherType {
        /// Media type in the descriptor.
        announced: String,
        /// Media type inside.
        says: String,
    },
    /// Too many entries.
    #[error("{count} {what} are more than the {MAX_ENTRIES} that are looked at")]
    TooMany {
        /// How many.
        count: usize,
        /// Of what.
        what: &'static str,
    },
    /// The index has nothing for WebAssembly and nothing for this node.
    #[error("the index has no manifest for WebAssembly or {host}, only for: {found}")]
    NoPlatform {
        /// This node.
        host: String,
        /// What there is.
        found: String,
    },
    /// An ordinary image, or an artifact of another kind.
    #[error("the image is no WebAssembly artifact: its layers are {found}")]
    NoWasmLayer {
        /// Media types of its layers.
        found: String,
    },
    /// Several modules.
    #[error(
        "the image has {count} WebAssembly layers: exactly one is supported, link the modules into one"
    )]
    SeveralWasmLayers {
        /// How many.
        count: usize,
    },
    /// The digest is not one this program can check.
    #[error("the digest {0:?} is not supported: only sha256 with 64 hexadecimal digits is")]
    Digest(String),
    /// The layer is empty.
    #[error("the WebAssembly layer {0} has a size of zero bytes")]
    EmptyLayer(String),
    /// The manifest lies about the layer's length.
    #[error("the WebAssembly layer {digest} has {length} bytes, the manifest says {says}")]
    Length {
        /// The layer.
        digest: String,
        /// Its length.
        length: u64,
        /// What the manifest says.
        says: u64,
    },
    /// The layer is too long.
    #[error(
        "the WebAssembly layer has {length} bytes, more than the {limit} bytes that a module may have on this node"
    )]
    LayerTooLarge {
        /// Its length.
        length: u64,
        /// The bound.
        limit: u64,
    },
}

impl OciError {
    /// Whose turn it is.
    pub fn reason(&self) -> FailureReason {
        match self {
            OciError::LayerTooLarge { .. } => FailureReason::ResourceExhausted,
            OciError::SeveralWasmLayers { .. } | OciError::Digest(_) => FailureReason::Unsupported,
            OciError::TooLong { .. }
            | OciError::Json(_)
            | OciError::Ambiguous(_)
            | OciError::OtherType { .. }
            | OciError::TooMany { .. }
            | OciError::NoPlatform { .. }
            | OciError::NoWasmLayer { .. }
            | OciError::EmptyLayer(_)
            | OciError::Length { .. } => FailureReason::InvalidArgument,
        }
    }
}

/// An operating system and a processor, in the words of OCI.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`, `wasip1`, …
    #[serde(default)]
    pub os: String,
    /// `amd64`, `wasm`, …
    #[serde(default)]
    pub architecture: String,
}

impl Platform {
    /// This node.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is said to be.
    #[serde(default)]
    pub media_type: String,
    /// Its digest as text; see [`Descriptor::sha256`].
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
    /// Whom an index has it for.
    #[serde(default)]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// The digest, if it is one that can be checked.
    ///
    /// # Errors
    /// [`OciError::Digest`] for other algorithms and for what is no digest.
    pub fn sha256(&self) -> Result<Digest, OciError> {
        self.digest
            .strip_prefix("sha256:")
            .and_then(|hex| hex.parse().ok())
            .ok_or_else(|| OciError::Digest(shorten(&self.digest)))
    }
}

/// An image's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image's configuration.
    pub config: Option<Descriptor>,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a JSON document of an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Several manifests to choose from.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// Reads an index or a manifest; any bytes may be given. `announced` is the media type in the
/// descriptor that led here, empty where there was none.
///
/// # Errors
/// When the bytes are no such document, when they are not what they were announced as, or when a
/// bound is hit.
pub fn parse(bytes: &[u8], announced: &str) -> Result<Document, OciError> {
    let length = bytes.len() as u64;
    if length > MAX_DOCUMENT_BYTES {
        return Err(OciError::TooLong { length });
    }
    let raw: Raw = serde_json::from_slice(bytes)?;
    if let Some(says) = raw.media_type.as_deref().filter(|says| !says.is_empty())
        && !announced.is_empty()
        && says != announced
    {
        let (announced, says) = (shorten(announced), shorten(says));
        return Err(OciError::OtherType { announced, says });
    }
    let (document, expected, count, what) = match (raw.manifests, raw.layers) {
        (Some(_), Some(_)) => return Err(OciError::Ambiguous("both `manifests` and `layers`")),
        (None, None) => return Err(OciError::Ambiguous("neither `manifests` nor `layers`")),
        (Some(manifests), None) => {
            let count = manifests.len();
            (Document::Index(manifests), INDEX_TYPES, count, "manifests")
        }
        (None, Some(layers)) => {
            let count = layers.len();
            let manifest = Manifest {
                config: raw.config,
                layers,
            };
            (
                Document::Manifest(manifest),
                MANIFEST_TYPES,
                count,
                "layers",
            )
        }
    };
    if !announced.is_empty() && !expected.contains(&announced) {
        let says = format!("a document with `{what}`");
        return Err(OciError::OtherType {
            announced: shorten(announced),
            says,
        });
    }
    if count > MAX_ENTRIES {
        return Err(OciError::TooMany { count, what });
    }
    Ok(document)
}

/// The entries of an index that may be meant, best first: those for WebAssembly, then those for
/// this node, then those that say nothing. containerd fetches only the ones it was asked for, so
/// the caller takes the first that is there.
///
/// # Errors
/// [`OciError::NoPlatform`] when there is none.
pub fn candidates<'a>(
    index: &'a [Descriptor],
    host: &Platform,
) -> Result<Vec<&'a Descriptor>, OciError> {
    let rank = |entry: &Descriptor| match &entry.platform {
        None => Some(3),
        Some(platform) => {
            let system = WASM_SYSTEMS.contains(&platform.os.as_str());
            let architecture = WASM_ARCHITECTURES.contains(&platform.architecture.as_str());
            match (system, architecture) {
                (true, true) => Some(0),
                (true, false) | (false, true) => Some(1),
                (false, false) => (platform == host).then_some(2),
            }
        }
    };
    let mut ranked: Vec<_> = index
        .iter()
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .collect();
    // Stable: among equals the author's order counts.
    ranked.sort_by_key(|(rank, _)| *rank);
    if ranked.is_empty() {
        let found = index.iter().map(|entry| match &entry.platform {
            Some(platform) => platform.to_string(),
            None => "?".to_owned(),
        });
        return Err(OciError::NoPlatform {
            host: host.to_string(),
            found: list(found),
        });
    }
    Ok(ranked.into_iter().map(|(_, entry)| entry).collect())
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: the layer's digest is the module's.
    None,
    /// `+gzip`.
    Gzip,
    /// `+zstd`.
    Zstd,
}

/// The layer that is the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WasmLayer {
    /// The layer as the manifest has it.
    pub descriptor: Descriptor,
    /// Digest of the layer, compressed as it is.
    pub digest: Digest,
    /// How it is compressed.
    pub compression: Compression,
}

/// Finds the one layer of a manifest that is a module. Layers of other kinds are left to
/// containerd.
///
/// # Errors
/// When there is none, when there are several, or when it is empty or too long.
pub fn wasm_layer(manifest: &Manifest, limits: &Limits) -> Result<WasmLayer, OciError> {
    let mut layers = manifest
        .layers
        .iter()
        .filter_map(|layer| Some((wasm_compression(&layer.media_type)?, layer)));
    let Some((compression, layer)) = layers.next() else {
        let found = list(manifest.layers.iter().map(|layer| layer.media_type.clone()));
        return Err(OciError::NoWasmLayer { found });
    };
    let others = layers.count();
    if others > 0 {
        return Err(OciError::SeveralWasmLayers { count: others + 1 });
    }
    let digest = layer.sha256()?;
    if layer.size == 0 {
        return Err(OciError::EmptyLayer(shorten(&layer.digest)));
    }
    let (length, limit) = (layer.size, limits.max_module_bytes);
    if length > limit {
        return Err(OciError::LayerTooLarge { length, limit });
    }
    Ok(WasmLayer {
        descriptor: layer.clone(),
        digest,
        compression,
    })
}

/// How a layer with this media type is compressed, if it is a module.
fn wasm_compression(media_type: &str) -> Option<Compression> {
    let (base, compression) = if let Some(base) = media_type.strip_suffix("+gzip") {
        (base, Compression::Gzip)
    } else if let Some(base) = media_type.strip_suffix("+zstd") {
        (base, Compression::Zstd)
    } else {
        (media_type, Compression::None)
    };
    WASM_LAYER_TYPES.contains(&base).then_some(compression)
}

/// A text of the image's for a message: not too long, nothing that moves a cursor.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut short: String = text
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_default)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

/// A list for a message: the first few of it.
fn list(items: impl Iterator<Item = String>) -> String {
    const MOST: usize = 8;
    let items: Vec<String> = items.collect();
    let mut text = items
        .iter()
        .take(MOST)
        .map(|item| shorten(item))
        .collect::<Vec<_>>()
        .join(", ");
    if items.is_empty() {
        text.push_str("none");
    } else if items.len() > MOST {
        text.push_str(&format!(" and {} more", items.len() - MOST));
    }
    text
}
