//! What a container's image holds: a WebAssembly module, or something for runc.
//!
//! Two forms of image carry a module:
//! - **A**: an ordinary image whose entrypoint is a `.wasm` or `.wat` file, or a file that begins
//!   with the WebAssembly magic: [`rootfs`];
//! - **B**: an OCI artifact, whose only layer *is* the module: [`oci`] decides, `content` (feature
//!   `containerd`) fetches.
//!
//! # Who is trusted
//! - **Not trusted:** the image, every byte: its files, links, special files, manifests, media
//!   types and sizes. Paths are resolved by the kernel inside the image's root (`openat2` with
//!   `RESOLVE_IN_ROOT`), special files are never opened, every size has a bound, and a digest is
//!   computed before bytes get a name.
//! - **Trusted:** containerd, for which image a container was created from and for who may use it.
//!   Not for the bytes: a layer is checked against its digest again, because a key of the compile
//!   cache depends on it.
//! - **Precompiled native code is refused**, in whatever it is wrapped: an engine would map and run
//!   it without a look. Only the node's own compile helpers make artifacts.
//! - The compile helper parses the module; nothing here does, apart from its first bytes and the
//!   names of its custom sections.
#![forbid(unsafe_code)]

#[cfg(feature = "containerd")]
pub mod content;
mod module;
pub mod oci;
pub mod rootfs;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use module::{Form, ModuleError, Refused};
pub use wasmlet_cache::Digest;

/// Bounds on what an image may make this process read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest module in bytes, uncompressed.
    pub max_module_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_module_bytes: 256 << 20,
        }
    }
}

/// A module that was taken out of an OCI artifact.
///
/// What the short-lived child that reads containerd's content store reports to the shim, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedLayer {
    /// Digest of the module, uncompressed. Open it with [`wasmlet_cache::Blobs::open`].
    pub digest: Digest,
    /// Media type of the layer, as the manifest has it.
    pub media_type: String,
    /// Length of the module in bytes, uncompressed.
    pub size: u64,
    /// Where it is.
    pub location: Location,
    /// Name of the image, for messages.
    pub image: String,
}

/// Where a module is that was taken out of an OCI artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// In the cache's store of modules. The path is for messages: open it by its digest.
    Stored(PathBuf),
    /// In the spare file that the caller gave, because the disk is full.
    Spare,
}
