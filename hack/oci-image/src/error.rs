//! What can go wrong while an image is put together.

use std::io;
use std::path::PathBuf;

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder meant for the image cannot be read.
    #[error("cannot read {path} for the image")]
    Read {
        /// The path on this machine.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder holds something that is neither a file, a folder nor a symbolic link.
    #[error(
        "{path} is a {kind}, only files, folders and symbolic links are taken from a folder: \
         add it as an entry of its own"
    )]
    SpecialFile {
        /// The path on this machine.
        path: PathBuf,
        /// What it is, for example `socket`.
        kind: &'static str,
    },
    /// A path on this machine is not UTF-8, so it cannot be named in the image.
    #[error("{path:?} is not UTF-8 and cannot become a path in the image")]
    NotUtf8 {
        /// The path on this machine.
        path: PathBuf,
    },
    /// A layer's bytes could not be packed or compressed.
    #[error("cannot pack a layer at entry {entry:?}")]
    Pack {
        /// The path in the image, empty when the layer is being closed.
        entry: String,
        /// What the packer said.
        #[source]
        source: io::Error,
    },
    /// A manifest or config could not be written as JSON.
    #[error("cannot encode the image's {what} as JSON")]
    Encode {
        /// Which document.
        what: &'static str,
        /// What the encoder said.
        #[source]
        source: serde_json::Error,
    },
    /// An image name has no items.
    #[error("image {name:?} has no manifest: add at least one image or artifact under that name")]
    Empty {
        /// The name given.
        name: String,
    },
    /// A platform is not of the form `os/architecture[/variant]`.
    #[error("{text:?} is not a platform: write os/architecture[/variant], for example linux/amd64")]
    Platform {
        /// The text given.
        text: String,
    },
    /// The finished image cannot be written.
    #[error("cannot write the image to {path}")]
    Write {
        /// The path on this machine.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
