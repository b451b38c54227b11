//! The ways to install wasmlet, and to remove it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Said};
use crate::operator::Bundle;

/// The Helm release's name.
pub const RELEASE: &str = "wasmlet";
/// The namespace of everything that the chart installs.
pub const NAMESPACE: &str = "wasmlet";

/// Stands for a registry in the repository's manifests.
const NO_REGISTRY: &str = "wasmlet.invalid";

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

/// A manifest of the repository with this run's images, put in place as docs/install.md says.
#[track_caller]
pub fn manifest(cluster: &Cluster, name: &str) -> String {
    let file = repository().join("manifests").join(name);
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let released = Bundle::released(cluster).unwrap_or_else(|error| panic!("{error}"));
    let no_digest = format!("sha256:{}", "0".repeat(64));
    for placeholder in [NO_REGISTRY, &no_digest] {
        let name = file.display();
        assert!(text.contains(placeholder), "{name} has no {placeholder}");
    }
    text.replace(NO_REGISTRY, &cluster.env().registry.to_string())
        .replace(&no_digest, &released.digest)
}

/// `kubectl apply` of a text.
#[track_caller]
pub fn apply(cluster: &Cluster, text: &str) -> String {
    let kubectl = Kubectl::anywhere(cluster.env());
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
