//! Releases for nodes: the one that `hack/images` made, and variants of it that are pushed beside it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wasmlet_api::Digest;

use crate::client::block_on;
use crate::cluster::{Cluster, random_hex};
use crate::derive::{Changed, sha256_hex};
use crate::push::PushError;

/// The repository of the node image, as `hack/images` names it.
const REPOSITORY: &str = "wasmlet/node";

/// The shim in a bundle.
const SHIM: &str = "bin/containerd-shim-wasm-v1";
/// Where a variant keeps the shim that it stands in front of.
const REAL_SHIM: &str = "bin/real-shim";

/// A shim that ends at once, whatever it is asked. C: what is no program is refused before anybody runs it.
pub const CRASHING_SHIM: &str = r#"
#include <stdio.h>
int main(void) { fputs("this shim always crashes\n", stderr); return 1; }
"#;

/// A shim that says what it is, and then starts no pod.
pub const REFUSING_SHIM: &str = r#"
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i] + strspn(argv[i], "-");
        if (word != argv[i] && (!strcmp(word, "v") || !strcmp(word, "version") || !strcmp(word, "info"))) {
            char self[PATH_MAX] = {0}, real[PATH_MAX + 16];
            if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return 2;
            snprintf(real, sizeof real, "%s/real-shim", dirname(self));
            execv(real, argv);
            perror(real);
            return 2;
        }
    }
    fputs("this shim starts nothing\n", stderr);
    return 1;
}
"#;

/// Why there is no bundle to install.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Nobody has made images.
    #[error(
        "WASMLET_E2E_IMAGES is not set: `hack/test operator` makes the images, or hack/images --push does"
    )]
    NoImages,
    /// A file of theirs cannot be read.
    #[error("{path} cannot be read; run hack/images --push HOST:PORT again")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what `hack/images` writes.
    #[error("{path} has no {what}; run hack/images --push HOST:PORT again")]
    Form {
        /// Which.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A file to change is not in the bundle.
    #[error("bundle.json lists no file {0:?}")]
    NoFile(String),
    /// The other shim cannot be compiled.
    #[error("cc cannot compile a shim for the test: {0}")]
    Compile(String),
    /// The variant cannot be pushed.
    #[error("variant {tag} of the node image")]
    Push {
        /// Its tag.
        tag: String,
        /// Why.
        #[source]
        source: Box<PushError>,
    },
}

/// A release for nodes, as a WasmRuntime names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// `spec.artifact.image`.
    pub image: String,
    /// `spec.artifact.digest`.
    pub digest: String,
}

/// What a variant has in place of the release's.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Another version, and the same programs.
    Version(&'static str),
    /// A program of this C source in place of the shim; the shim itself stays beside it.
    Shim(&'static str),
    /// Another version, whose shim has a byte more than `bundle.json` says.
    Tampered,
}

impl Bundle {
    /// The release that `hack/images --push` put into the cluster's registry.
    pub fn released(cluster: &Cluster) -> Result<Self, BundleError> {
        let path = folder(cluster)?.join("images.json");
        let images = json_file(&path)?;
        let node = &images["images"]["node"];
        let text = |key: &'static str| {
            let value = node[key].as_str().map(str::to_owned);
            let path = path.clone();
            value.ok_or(BundleError::Form { path, what: key })
        };
        Ok(Self {
            image: text("reference")?,
            digest: text("bundle")?,
        })
    }

    /// A release that differs from it.
    pub fn variant(cluster: &Cluster, tag: &str, change: Change) -> Result<Self, BundleError> {
        let folder = folder(cluster)?;
        let images = folder.join("images.json");
        let released = json_file(&images)?["images"]["node"]["tag"]
            .as_str()
            .map(str::to_owned)
            .ok_or(BundleError::Form {
                path: images,
                what: "images.node.tag",
            })?;
        let bundle = folder.join("tree/node/bundle");
        let path = bundle.join("bundle.json");
        let mut list = json_file(&path)?;
        let mut files = Vec::new();
        match change {
            Change::Version(version) => list["version"] = version.into(),
            Change::Shim(source) => {
                let program = compile(tag, source)?;
                let real = read(&bundle.join(SHIM))?;
                let entry = file_entry(&mut list, SHIM)?;
                let mut kept = entry.clone();
                kept["path"] = REAL_SHIM.into();
                entry["size"] = program.len().into();
                entry["sha256"] = sha256_hex(&program).into();
                insert(&mut list, kept);
                files.push(changed(SHIM, 0o755, program));
                files.push(changed(REAL_SHIM, 0o755, real));
            }
            Change::Tampered => {
                // Of the release itself nodes have the right programs already.
                list["version"] = "0.99.2".into();
                let mut real = read(&bundle.join(SHIM))?;
                real.push(0);
                files.push(changed(SHIM, 0o755, real));
            }
        }
        let mut text = serde_json::to_vec_pretty(&list).expect("JSON can be written");
        text.push(b'\n');
        let digest = Digest::of(&text).to_string();
        files.push(changed("bundle.json", 0o644, text));
        let registry = &cluster.env().registry;
        let image = registry.image(REPOSITORY);
        let pushed = block_on(registry.derive(REPOSITORY, &released, tag, &files));
        let pushed = pushed.map_err(|source| BundleError::Push {
            tag: tag.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Self {
            image: format!("{image}@{pushed}"),
            digest,
        })
    }

    /// An image that nobody has pushed.
    #[must_use]
    pub fn absent(&self, cluster: &Cluster) -> Self {
        let image = cluster.env().registry.image(REPOSITORY);
        Self {
            image: format!("{image}:was-never-pushed"),
            digest: self.digest.clone(),
        }
    }

    /// As a patch of a WasmRuntime.
    pub fn as_patch(&self) -> Value {
        json!({ "spec": { "artifact": { "image": self.image, "digest": self.digest } } })
    }
}

fn folder(cluster: &Cluster) -> Result<&Path, BundleError> {
    cluster.env().images.as_deref().ok_or(BundleError::NoImages)
}

fn read(path: &Path) -> Result<Vec<u8>, BundleError> {
    std::fs::read(path).map_err(|source| BundleError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A static program: it runs on every node.
fn compile(tag: &str, source: &str) -> Result<Vec<u8>, BundleError> {
    let failed = |error: std::io::Error| BundleError::Compile(error.to_string());
    let output = std::env::temp_dir().join(format!("wasmlet-e2e-{tag}-{}", random_hex()));
    let mut compiler = Command::new("cc")
        .args(["-static", "-Os", "-s", "-x", "c", "-", "-o"])
        .arg(&output)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = compiler.stdin.take() {
        input.write_all(source.as_bytes()).map_err(failed)?;
    }
    let done = compiler.wait_with_output().map_err(failed)?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        return Err(BundleError::Compile(said));
    }
    let program = read(&output)?;
    std::fs::remove_file(&output).map_err(failed)?;
    Ok(program)
}

fn json_file(path: &Path) -> Result<Value, BundleError> {
    serde_json::from_slice(&read(path)?).map_err(|_| BundleError::Form {
        path: path.to_owned(),
        what: "JSON in it",
    })
}

fn changed(path: &str, mode: u32, content: Vec<u8>) -> Changed {
    Changed {
        path: format!("bundle/{path}"),
        mode,
        content,
    }
}

fn file_entry<'a>(list: &'a mut Value, path: &str) -> Result<&'a mut Value, BundleError> {
    let entries = list["entries"].as_array_mut();
    let found = entries
        .into_iter()
        .flatten()
        .find(|entry| entry["path"] == path);
    found.ok_or_else(|| BundleError::NoFile(path.to_owned()))
}

/// The list is sorted by path.
fn insert(list: &mut Value, entry: Value) {
    if let Some(entries) = list["entries"].as_array_mut() {
        entries.push(entry);
        entries.sort_by(|a, b| a["path"].as_str().cmp(&b["path"].as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_added_in_its_order() {
        let mut list = json!({ "entries": [{ "path": "a" }, { "path": "c" }] });
        insert(&mut list, json!({ "path": "b" }));
        assert_eq!(
            list["entries"],
            json!([{ "path": "a" }, { "path": "b" }, { "path": "c" }])
        );
        assert!(file_entry(&mut list, "b").is_ok());
        assert!(file_entry(&mut list, "d").is_err());
    }
}
