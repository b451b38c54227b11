//! The ways to install wasmlet, and to remove it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Said};

/// The Helm release's name.
pub const RELEASE: &str = "wasmlet";
/// The namespace of everything that the chart installs.
pub const NAMESPACE: &str = "wasmlet";

/// How wasmlet is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// `helm install wasmlet charts/wasmlet`.
    Helm,
    /// `kubectl apply -f manifests/install.yaml`.
    Manifests,
    /// `kubectl apply -f manifests/daemonset-only.yaml`.
    DaemonSet,
}

/// helm with the cluster's configuration.
pub struct Helm<'a> {
    cluster: &'a Cluster,
}

impl<'a> Helm<'a> {
    /// Of a cluster.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Runs it to its end, whatever comes of it.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Said {
        let env = self.cluster.env();
        let done = Command::new(&env.helm)
            .arg("--kubeconfig")
            .arg(&env.kubeconfig)
            .args(["--namespace", NAMESPACE])
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let done = done.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; `hack/setup helm` builds it, WASMLET_E2E_HELM names it",
                env.helm.display()
            )
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            ok: done.status.success(),
            stdout: text(&done.stdout),
            stderr: text(&done.stderr),
        }
    }

    /// Its answer; a complaint ends the test.
    #[track_caller]
    pub fn answer(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(
            said.ok,
            "helm {}: {}{}",
            arguments.join(" "),
            said.stdout,
            said.stderr
        );
        said.stdout
    }

    /// `helm upgrade --install` of the repository's chart with the images of this run and further `--set` values.
    #[track_caller]
    pub fn install(&self, set: &[&str]) -> String {
        let chart = repository().join("charts/wasmlet");
        let values = values(self.cluster);
        let (chart, values) = (path(&chart), path(&values));
        let mut arguments = vec![
            "upgrade",
            "--install",
            "--create-namespace",
            RELEASE,
            &chart,
            "--values",
            &values,
        ];
        for value in set {
            arguments.extend(["--set", *value]);
        }
        self.answer(&arguments)
    }

    /// `helm uninstall`, which waits until every node is clean.
    #[track_caller]
    pub fn uninstall(&self) -> Said {
        self.run(&["uninstall", RELEASE, "--wait", "--timeout", "10m"])
    }
}

/// A manifest of the repository with the images of this run in place of the release's.
#[track_caller]
pub fn manifest(cluster: &Cluster, name: &str) -> String {
    let file = repository().join("manifests").join(name);
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let images = cluster.env().images.as_deref();
    let images = images
        .expect("WASMLET_E2E_IMAGES is not set")
        .join("images.json");
    let images: serde_json::Value = std::fs::read(&images)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
        .unwrap_or_else(|error| panic!("{}: {error}", images.display()));
    let of = |image: &str, key: &str| {
        let value = images["images"][image][key].as_str();
        value
            .unwrap_or_else(|| panic!("images.json has no {key} of {image}"))
            .to_owned()
    };
    let mut replaced = Vec::new();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    for line in &mut lines {
        for image in ["operator", "node"] {
            if let Some(found) = image_in(line, &format!("wasmlet/{image}")) {
                *line = line.replace(&found, &of(image, "reference"));
                replaced.push(image);
            }
        }
        // The bundle's digest, and no image's.
        if let Some(place) = line.find("digest: ").filter(|_| !line.contains('@')) {
            line.replace_range(place.., &format!("digest: {}", of("node", "bundle")));
            replaced.push("digest");
        }
    }
    assert!(
        replaced.contains(&"node") && replaced.contains(&"digest"),
        "{}: nothing of this run's images could be put in place: {replaced:?}",
        file.display()
    );
    lines.join("\n") + "\n"
}

/// The image's name in a line, registry, tag and digest included.
fn image_in(line: &str, repository: &str) -> Option<String> {
    let words = line.split([' ', '"', '\'']);
    let mut named = words.filter(|word| {
        word.split(['@', ':'])
            .any(|part| part == repository || part.ends_with(&format!("/{repository}")))
    });
    named.next().map(str::to_owned)
}

/// `kubectl apply` of a text.
#[track_caller]
pub fn apply(kubectl: &Kubectl<'_>, text: &str) -> String {
    let file =
        std::env::temp_dir().join(format!("wasmlet-e2e-{}.yaml", crate::cluster::random_hex()));
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let said = kubectl.run(&["apply", "--server-side", "--filename", &path(&file)]);
    // Whatever became of it.
    drop(std::fs::remove_file(&file));
    assert!(said.ok, "kubectl apply: {}", said.stderr);
    said.stdout
}

fn values(cluster: &Cluster) -> PathBuf {
    let images = cluster.env().images.as_deref();
    images
        .expect("WASMLET_E2E_IMAGES is not set")
        .join("values.yaml")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_whatever_its_registry() {
        for (line, found) in [
            (
                "  image: ghcr.example/wasmlet/node:0.1.0",
                Some("ghcr.example/wasmlet/node:0.1.0"),
            ),
            (
                "  image: \"wasmlet/node@sha256:00\"",
                Some("wasmlet/node@sha256:00"),
            ),
            (
                "  image: r:5000/a/wasmlet/node",
                Some("r:5000/a/wasmlet/node"),
            ),
            ("  image: r/wasmlet/node-debug:1", None),
            ("  name: node", None),
        ] {
            assert_eq!(image_in(line, "wasmlet/node").as_deref(), found, "{line}");
        }
    }
}
