//! Where orders come from: the node's WasmNode, or a file.

use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::watch;
use wasmlet_api::handlers::Engine;
use wasmlet_api::target::Options;
use wasmlet_api::{Digest, NodeRuntime, NodeTarget, WasmNode};

use crate::apply::For;
use crate::errors::Chain;

/// What the node shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which order it is.
    pub order: For,
    /// What the node shall have.
    pub target: NodeTarget,
    /// Generation of the WasmNode.
    pub generation: Option<i64>,
}

/// Follows the WasmNode of this name for ever. None is published until there is one with an order; `there` has its UID while it exists.
pub async fn follow(
    client: Client,
    name: String,
    wanted: watch::Sender<Option<Wanted>>,
    there: watch::Sender<Option<String>>,
) {
    let api: Api<WasmNode> = Api::all(client);
    let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(api, one).default_backoff();
    let mut events = std::pin::pin!(events);
    loop {
        match events.try_next().await {
            Ok(Some(Event::Apply(node) | Event::InitApply(node))) => {
                there.send_replace(node.metadata.uid.clone());
                let found = order_of(&node);
                wanted.send_if_modified(|current| {
                    let differs = *current != found;
                    *current = found;
                    differs
                });
            }
            // A WasmNode that is gone orders nothing: what is on the node stays until somebody says what shall be.
            Ok(Some(Event::Delete(_))) => {
                there.send_replace(None);
            }
            Ok(Some(Event::Init | Event::InitDone)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot follow the node's WasmNode; trying again");
            }
        }
    }
}

fn order_of(node: &WasmNode) -> Option<Wanted> {
    (!node.spec.revision.is_empty()).then(|| Wanted {
        order: For {
            revision: node.spec.revision.clone(),
            attempt: node.spec.attempt,
        },
        target: node.spec.target(),
        generation: node.metadata.generation,
    })
}

/// The file of an agent without an operator: a NodeTarget whose digests may be left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    runtimes: Vec<FileRuntime>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileRuntime {
    handler: String,
    #[serde(default)]
    engines: Vec<Engine>,
    digest: Option<Digest>,
    #[serde(default)]
    options: Options,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It is not of this form.
    #[error("{} is not of the form that is described in docs/node-agent.md", .0.display())]
    Parse(PathBuf, #[source] Box<serde_saphyr::Error>),
    /// No digest, and no bundle of its own.
    #[error("{} has a runtime without a digest, and this image has no bundle in {}", file.display(), bundle.display())]
    NoBundle {
        /// The file.
        file: PathBuf,
        /// Where a bundle would be.
        bundle: PathBuf,
    },
}

/// Reads the file. `own` is the digest of the bundle in the agent's own image.
///
/// # Errors
/// [`ConfigError`]
pub fn read(path: &Path, own: Option<&Digest>, bundle: &Path) -> Result<Wanted, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::Read(path.to_owned(), error))?;
    let file: File = serde_saphyr::from_str(&text)
        .map_err(|error| ConfigError::Parse(path.to_owned(), Box::new(error)))?;
    let runtimes: Result<Vec<NodeRuntime>, ConfigError> =
        file.runtimes
            .into_iter()
            .map(|runtime| {
                let digest = runtime.digest.or_else(|| own.cloned()).ok_or_else(|| {
                    ConfigError::NoBundle {
                        file: path.to_owned(),
                        bundle: bundle.to_owned(),
                    }
                })?;
                Ok(NodeRuntime {
                    handler: runtime.handler,
                    engines: runtime.engines,
                    digest,
                    options: runtime.options,
                })
            })
            .collect();
    let target = NodeTarget::new(runtimes?);
    Ok(Wanted {
        order: For {
            revision: target.revision(),
            attempt: 1,
        },
        target,
        generation: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read_text(text: &str, own: Option<&Digest>) -> Result<Wanted, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        read(&path, own, Path::new("/bundle"))
    }

    #[test]
    fn a_runtime_without_a_digest_is_the_images_own() {
        let own = Digest::of(b"bundle");
        let text =
            "runtimes:\n- handler: wasm\n  engines: [wasmtime]\n  options: {compileCpus: 2}\n";
        let wanted = read_text(text, Some(&own)).unwrap();
        assert_eq!(wanted.target.runtimes[0].digest, own);
        assert_eq!(wanted.target.runtimes[0].options.compile_cpus, Some(2));
        assert_eq!(wanted.order.revision, wanted.target.revision());
        let error = read_text(text, None).unwrap_err();
        assert!(matches!(error, ConfigError::NoBundle { .. }), "{error}");
    }

    #[test]
    fn a_key_that_is_not_known_is_named() {
        let error =
            read_text("runtimes:\n- handler: wasm\n  engine: wasmtime\n", None).unwrap_err();
        let text = Chain(&error).to_string();
        assert!(text.contains("engine"), "{text}");
    }

    #[test]
    fn a_file_with_nothing_wants_nothing() {
        let wanted = read_text("runtimes: []\n", None).unwrap();
        assert_eq!(wanted.target, NodeTarget::default());
    }
}
