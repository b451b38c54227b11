//! `resolve-image`: reads a module out of containerd's content store, in a process of its own.
//!
//! The shim runs this for images that are OCI artifacts. A gRPC client costs more memory than all the
//! rest of the shim, and this way it is gone after a few milliseconds.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use serde::{Deserialize, Serialize};
use wasmlet_cache::Cache;
use wasmlet_image::{Limits, Location, ResolvedLayer, content};
use wasmlet_protocol::Failure;

use crate::backend::{program, runner::descriptor};
use crate::error::{Error, Result as ShimResult};
use crate::reaper::Reaper;

/// First word of the command line.
pub const WORD: &str = "resolve-image";

/// Descriptor of the file in memory that takes the module when the disk is full.
const SPARE: i32 = 3;

/// Why there is not even an answer.
#[derive(Debug, thiserror::Error)]
pub enum ResolveImageError {
    /// Not five arguments.
    #[error(
        "usage: containerd-shim-wasm-v1 {WORD} ADDRESS NAMESPACE CONTAINER CACHE MAX_BYTES (the shim runs this)"
    )]
    Usage,
    /// The cache.
    #[error("the cache of compiled modules cannot be used")]
    Cache(#[from] wasmlet_cache::Error),
    /// The answer.
    #[error("cannot write the answer")]
    Write(#[source] io::Error),
}

/// The answer, on standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
enum Reply {
    Layer(ResolvedLayer),
    NotAnArtifact { image: String },
    Failed(Failure),
}

pub(super) fn run(arguments: &[OsString]) -> Result<(), ResolveImageError> {
    let texts: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let Some([address, namespace, container, cache, max_bytes]) = texts.as_deref() else {
        return Err(ResolveImageError::Usage);
    };
    let max_bytes = max_bytes.parse().map_err(|_| ResolveImageError::Usage)?;
    let options = wasmlet_cache::Options {
        dir: PathBuf::from(cache),
        max_bytes,
        ..Default::default()
    };
    let cache = wasmlet_cache::Cache::open(options)?;
    // Opened by path, as descriptors by number are not to be had without unsafe code.
    let spare = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{SPARE}"));
    let resolved = content::resolve_image(
        Path::new(address),
        namespace,
        container,
        cache.modules(),
        spare.as_ref().ok(),
        &Limits::default(),
    );
    let reply = match resolved {
        Ok(layer) => Reply::Layer(layer),
        Err(content::ContentError::NotAnArtifact { image, .. }) => Reply::NotAnArtifact { image },
        Err(error) => Reply::Failed(Failure {
            reason: error.reason(),
            message: crate::chain(&error),
        }),
    };
    let json = serde_json::to_vec(&reply)
        .map_err(io::Error::from)
        .map_err(ResolveImageError::Write)?;
    io::stdout()
        .write_all(&json)
        .map_err(ResolveImageError::Write)
}

/// Runs the above in a child. `None` when the image is an ordinary one.
///
/// # Errors
/// What the child says, or that it said nothing.
pub async fn in_child(
    address: &str,
    namespace: &str,
    container: &str,
    cache: &Cache,
    reaper: &Reaper,
) -> ShimResult<Option<(ResolvedLayer, File)>> {
    let program = PathBuf::from("/proc/self/exe");
    let broken = |what: String| Error::Program {
        program: program.join(WORD),
        what,
    };
    let mut command = Command::new(&program);
    command
        .arg(WORD)
        .args([address, namespace, container])
        .arg(cache.dir())
        .arg(cache.max_bytes().to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let spare = cache.stage_in_memory()?;
    command
        .fd_mappings(vec![FdMapping {
            parent_fd: descriptor(spare.file())?,
            child_fd: SPARE,
        }])
        .map_err(|error| broken(error.to_string()))?;
    let output = program::output(&mut command, reaper)
        .await
        .map_err(|error| broken(error.to_string()))?;
    if output.status != 0 {
        return Err(broken(output.stderr_line()));
    }
    match serde_json::from_slice(&output.stdout).map_err(|error| broken(error.to_string()))? {
        Reply::Layer(layer) => {
            let gone = || broken(format!("its layer {} is not in the cache", layer.digest));
            let file = match &layer.location {
                Location::Stored(_) => cache.modules().open(&layer.digest)?.ok_or_else(gone)?.file,
                Location::Spare => spare.into_uncached()?,
            };
            Ok(Some((layer, file)))
        }
        Reply::NotAnArtifact { .. } => Ok(None),
        Reply::Failed(failure) => Err(Error::Failure {
            program: "reading the image".to_owned(),
            failure,
        }),
    }
}
