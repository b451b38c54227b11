//! Builds small OCI images as one tar file that `ctr images import` accepts.
//!
//! No registry and no daemon are needed: an image is put together in memory and written as an
//! [OCI image layout] inside a tar. The output depends on the input only (no time stamps, no host
//! names, no random ids), so the same image has the same digest on every machine.
//!
//! ```
//! use wasmlet_oci_image::{Archive, Compression, Image, Layer};
//!
//! let layer = Layer::new()
//!     .file("app.wasm", 0o644, b"\0asm\x01\0\0\0".to_vec())
//!     .compression(Compression::Zstd);
//! let image = Image::new().entrypoint(["/app.wasm", "--serve"]).layer(layer);
//! let built = Archive::new().image("docker.io/library/app:latest", image).build()?;
//! assert!(built.manifests[0].digest.starts_with("sha256:"));
//! # Ok::<(), wasmlet_oci_image::Error>(())
//! ```
//!
//! [`Layer`] takes ordinary files, whole folders, and also entries that no honest tool would write
//! (paths with `..`, device nodes, links to anywhere): hostile images are what the tests are for.
//! [`Artifact`] is the other image form: a manifest whose single layer is the module itself. Its
//! layer is no file system, so containerd (1.6 to 2.3) takes it in with
//! `ctr images import --no-unpack --all-platforms`, and no other way.
//! [`RawManifest`] puts any bytes where a manifest belongs.
//!
//! Everything is held in memory. That is meant: the images here are a few megabytes.
//!
//! [OCI image layout]: https://github.com/opencontainers/image-spec/blob/main/image-layout.md

#![forbid(unsafe_code)]

mod archive;
mod blob;
mod error;
mod image;
mod layer;
mod platform;

pub use archive::{Archive, Built, BuiltManifest};
pub use blob::{Blob, media_type};
pub use error::Error;
pub use image::{Artifact, Image, Item, RawManifest};
pub use layer::{Compression, Entry, EntryKind, Layer};
pub use platform::Platform;
