//! Form B: fetches the module of an OCI artifact out of containerd's content store.
//!
//! For a short-lived child process only: the gRPC client and its runtime keep memory that a shim
//! would carry for the life of its pod.
//!
//! containerd is believed which image a container was created from, and that who asked for the
//! container may use it. Every byte is checked against its digest here nevertheless, before it gets
//! a name. An image's name can be given to another image between the container's creation and its
//! start; then the module is that of the new image, because a container keeps no more than the name.

mod store;
mod unpack;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::tonic::{Code, Status, transport};
use wasmlet_cache::Blobs;
use wasmlet_protocol::FailureReason;

use crate::oci::OciError;
use crate::{Limits, ModuleError, ResolvedLayer};
use store::Store;

/// For everything together: local reads of at most a module's length.
const DEADLINE: Duration = Duration::from_secs(120);

/// An index may lead to an index, but not for ever.
const MAX_DEPTH: usize = 4;

/// Why the module cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The runtime of this program could not be made.
    #[error("cannot start an event loop: {0}")]
    Runtime(#[source] io::Error),
    /// containerd does not answer.
    #[error("cannot connect to containerd at {address}: {}", with_sources(source))]
    Connect {
        /// Its socket.
        address: PathBuf,
        /// Why.
        source: transport::Error,
    },
    /// It took too long.
    #[error("containerd at {address} did not deliver the image within {DEADLINE:?}")]
    Deadline {
        /// Its socket.
        address: PathBuf,
    },
    /// A namespace cannot be sent.
    #[error("{0:?} is not a containerd namespace")]
    Namespace(String),
    /// containerd refused.
    #[error("containerd cannot {action} {what}: {} ({:?})", status.message(), status.code())]
    Call {
        /// What was asked.
        action: &'static str,
        /// Of what.
        what: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The container was made without an image.
    #[error(
        "the container {0} was created without an image, so it has no module but what its root file system holds"
    )]
    NoImage(String),
    /// An answer lacks what it must have.
    #[error("containerd's answer about {0} is incomplete")]
    Incomplete(String),
    /// The image is an ordinary one.
    #[error("{image}: {source}")]
    NotAnArtifact {
        /// Its name.
        image: String,
        /// What it is.
        source: OciError,
    },
    /// The image's documents do not lead to a module.
    #[error("{image}: {source}")]
    Image {
        /// Its name.
        image: String,
        /// Why.
        source: OciError,
    },
    /// Indexes lead to indexes.
    #[error("{image}: more than {MAX_DEPTH} indexes lead from one to the next")]
    TooDeep {
        /// Its name.
        image: String,
    },
    /// A blob is missing.
    #[error(
        "{image}: {what} {digest} is not in containerd's content store: pull the image again (for this platform, and without discarding its layers)"
    )]
    Missing {
        /// The image's name.
        image: String,
        /// What it is.
        what: &'static str,
        /// Its digest.
        digest: String,
    },
    /// A blob has not the length or digest it should have.
    #[error("{image}: {what} {digest} is damaged in containerd's content store: {problem}")]
    Damaged {
        /// The image's name.
        image: String,
        /// What it is.
        what: &'static str,
        /// Its digest.
        digest: String,
        /// What is wrong.
        problem: String,
    },
    /// A compressed layer cannot be unpacked.
    #[error("{image}: the layer {digest} cannot be decompressed: {source}")]
    Decompress {
        /// The image's name.
        image: String,
        /// The layer.
        digest: String,
        /// Why.
        source: io::Error,
    },
    /// The layer is no module that can be run.
    #[error("{image}: the layer {digest} {source}")]
    Module {
        /// The image's name.
        image: String,
        /// The layer.
        digest: String,
        /// Why.
        source: ModuleError,
    },
    /// The module cannot be stored.
    #[error("{image}: cannot store the module: {source}")]
    Store {
        /// The image's name.
        image: String,
        /// Why.
        source: wasmlet_cache::Error,
    },
    /// The module cannot be written.
    #[error("{image}: cannot write the module into {path}: {source}")]
    Write {
        /// The image's name.
        image: String,
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ContentError {
    /// Whose turn it is.
    pub fn reason(&self) -> FailureReason {
        match self {
            ContentError::Call { status, .. } if status.code() == Code::NotFound => {
                FailureReason::NotFound
            }
            ContentError::NoImage(_)
            | ContentError::TooDeep { .. }
            | ContentError::Decompress { .. } => FailureReason::InvalidArgument,
            ContentError::NotAnArtifact { source, .. } | ContentError::Image { source, .. } => {
                source.reason()
            }
            ContentError::Missing { .. } => FailureReason::NotFound,
            ContentError::Module { source, .. } => source.reason(),
            ContentError::Store { source, .. } => source.reason(),
            ContentError::Write { .. } if self.is_no_space() => FailureReason::ResourceExhausted,
            ContentError::Runtime(_)
            | ContentError::Connect { .. }
            | ContentError::Deadline { .. }
            | ContentError::Namespace(_)
            | ContentError::Call { .. }
            | ContentError::Incomplete(_)
            | ContentError::Damaged { .. }
            | ContentError::Write { .. } => FailureReason::Internal,
        }
    }

    /// The disk is full, as opposed to anything about the image.
    fn is_no_space(&self) -> bool {
        match self {
            ContentError::Store { source, .. } => {
                matches!(source, wasmlet_cache::Error::NoSpace { .. })
            }
            ContentError::Write { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Puts the module of a container's image into `modules` (where it is already, nothing is fetched)
/// and says where it is.
///
/// `spare` is an empty file, open for writing, that takes the module when the disk under `modules`
/// is full: the caller's memory file, so that a full disk stops no start.
///
/// # Errors
/// [`ContentError::NotAnArtifact`] for an ordinary image; otherwise a sentence that names the
/// image and what is wrong with it, the node, or containerd.
pub fn resolve_image(
    address: &Path,
    namespace: &str,
    container_id: &str,
    modules: &Blobs,
    spare: Option<&File>,
    limits: &Limits,
) -> Result<ResolvedLayer, ContentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ContentError::Runtime)?;
    runtime.block_on(async {
        let work = async {
            let store = Store::connect(address, namespace).await?;
            store.resolve(container_id, modules, spare, limits).await
        };
        tokio::time::timeout(DEADLINE, work)
            .await
            .unwrap_or_else(|_| {
                Err(ContentError::Deadline {
                    address: address.to_owned(),
                })
            })
    })
}
