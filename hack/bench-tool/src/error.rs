//! What can go wrong while measuring. A figure is never made up for a failed round: the run ends.

use std::io;
use std::path::PathBuf;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot reach containerd at {path}")]
    Connect {
        path: PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("containerd refused {call} for {id}")]
    Call {
        call: &'static str,
        id: String,
        #[source]
        source: Box<tonic::Status>,
    },
    #[error("{id} did not get to {what} within {seconds} s")]
    Late {
        id: String,
        what: &'static str,
        seconds: u64,
    },
    #[error("{id} wrote {got:?}, expected {expected:?}; on stderr: {stderr:?}")]
    Output {
        id: String,
        got: String,
        expected: &'static str,
        stderr: String,
    },
    #[error("{id} ended with exit code {code}, expected 0; on stderr: {stderr:?}")]
    Exit {
        id: String,
        code: u32,
        stderr: String,
    },
    #[error(
        "the attack {attack} ended with exit code {code}, which is not how it ends; on stderr: {stderr:?}"
    )]
    Attack {
        attack: &'static str,
        code: u32,
        stderr: String,
    },
    #[error("cannot build the image")]
    Image(#[from] wasmlet_oci_image::Error),
    #[error("the image {name} has no layers to unpack")]
    NoLayers { name: String },
    #[error("importing {name} failed: {output}")]
    Import { name: String, output: String },
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has no line {line:?}")]
    Proc { path: PathBuf, line: &'static str },
    #[error("the init {init} of {id} is a child of process 1, so its shim cannot be told")]
    Orphan { id: String, init: u32 },
    #[error("a request was not answered as it should be")]
    Answer {
        #[source]
        source: io::Error,
    },
    #[error("{server} does not serve the component ({status}); run it by hand to see why")]
    NotServing {
        server: &'static str,
        status: std::process::ExitStatus,
    },
    #[error(
        "modules were compiled {count} times during {what}, expected {expected} (counted in {path}); where other \
         shims use the same file, end them and run it again"
    )]
    Compiles {
        what: String,
        count: u64,
        expected: u64,
        path: PathBuf,
    },
    #[error("{program} does not compile and run the module ({status}); on stderr: {stderr:?}")]
    Cli {
        program: PathBuf,
        status: std::process::ExitStatus,
        stderr: String,
    },
    #[error("cannot build the async runtime")]
    Runtime(#[source] io::Error),
}

pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { path, source }
}
