//! What can go wrong while measuring. A figure is never made up: the run ends.

use std::io;
use std::path::PathBuf;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot build the async runtime")]
    Runtime(#[source] io::Error),
    #[error("{path}: no kubeconfig that can be used")]
    Kubeconfig {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the API server refuses to {verb} {what}")]
    Api {
        verb: &'static str,
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is no certificate or key in PEM that can be used: {what}")]
    Certificate { path: PathBuf, what: String },
    #[error("the simulated kubelets cannot listen on {address}")]
    Listen {
        address: std::net::IpAddr,
        #[source]
        source: io::Error,
    },
    #[error("{path} has no line {line:?}")]
    Proc { path: PathBuf, line: &'static str },
    #[error("the operator has ended: {status}; its log: {log}")]
    Ended {
        status: std::process::ExitStatus,
        log: PathBuf,
    },
    #[error("not within {seconds} s: {what}; seen last: {last}; the operator's log: {log}")]
    Late {
        what: String,
        seconds: u64,
        last: String,
        log: PathBuf,
    },
    #[error("the simulation has ended before the rollout: {0}")]
    Simulation(String),
    #[error("cannot fetch {url}")]
    Fetch {
        url: String,
        #[source]
        source: io::Error,
    },
}

pub(crate) fn api(
    verb: &'static str,
    what: impl Into<String>,
) -> impl FnOnce(kube::Error) -> Error {
    let what = what.into();
    move |source| Error::Api {
        verb,
        what,
        source: Box::new(source),
    }
}

pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { path, source }
}
