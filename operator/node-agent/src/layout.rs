//! The distributions of Kubernetes that can have wasmlet, and where each has its containerd.
//!
//! Sources: containerd's `docs/man/containerd-config.toml.5.md`, k3s' and RKE2's "Advanced options" pages, k0s' "Runtime" page, the
//! snap of MicroK8s. What was seen on real nodes and what only on recorded ones is told in `docs/support.md`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who brings a node's containerd and writes its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// A containerd of the operating system's, as with kubeadm, kind, minikube and most clouds.
    Containerd,
    /// k3s, which renders its containerd's configuration at each start.
    K3s,
    /// RKE2, likewise.
    Rke2,
    /// k0s, which merges drop-ins and follows them.
    K0s,
    /// MicroK8s, a snap whose configuration is rendered from a template.
    Microk8s,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Containerd,
        Self::K3s,
        Self::Rke2,
        Self::K0s,
        Self::Microk8s,
    ];

    /// As on the command line and in the WasmNode.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::K0s => "k0s",
            Self::Microk8s => "microk8s",
        }
    }

    /// Its systemd units, of which one runs on a node.
    pub fn units(self) -> &'static [&'static str] {
        match self {
            Self::Containerd => &["containerd.service"],
            Self::K3s => &["k3s.service", "k3s-agent.service"],
            Self::Rke2 => &["rke2-server.service", "rke2-agent.service"],
            Self::K0s => &["k0scontroller.service", "k0sworker.service"],
            Self::Microk8s => &["snap.microk8s.daemon-containerd.service"],
        }
    }

    /// containerd's socket, if its configuration does not say otherwise.
    pub fn socket(self) -> &'static str {
        match self {
            Self::Containerd => "/run/containerd/containerd.sock",
            Self::K3s | Self::Rke2 => "/run/k3s/containerd/containerd.sock",
            Self::K0s => "/run/k0s/containerd.sock",
            Self::Microk8s => "/var/snap/microk8s/common/run/containerd.sock",
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no distribution's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "distribution {0:?} is not known: use containerd (also kubeadm, kind, minikube), k3s, rke2, k0s or microk8s"
)]
pub struct UnknownDistribution(pub String);

impl FromStr for Distribution {
    type Err = UnknownDistribution;

    fn from_str(text: &str) -> Result<Self, UnknownDistribution> {
        match text {
            // Their nodes have containerd at its usual place.
            "containerd" | "kubeadm" | "kind" | "minikube" => Ok(Self::Containerd),
            "k3s" => Ok(Self::K3s),
            "rke2" => Ok(Self::Rke2),
            "k0s" => Ok(Self::K0s),
            "microk8s" => Ok(Self::Microk8s),
            other => Err(UnknownDistribution(other.to_owned())),
        }
    }
}

/// Where things are on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Who brings containerd.
    pub distribution: Distribution,
    /// The unit whose restart makes containerd read its configuration.
    pub unit: String,
    /// containerd's socket.
    pub socket: PathBuf,
    /// The file that containerd is started with.
    pub loaded: PathBuf,
    /// How that file comes about.
    pub source: Source,
}

/// How the file that containerd is started with comes about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// It is nobody's but the administrator's.
    Own,
    /// The distribution renders it at each start, from a Go template that may be missing.
    GoTemplate {
        /// The template.
        path: PathBuf,
    },
    /// The distribution renders it at each start, from a TOML file with placeholders inside strings.
    TomlTemplate {
        /// The template.
        path: PathBuf,
    },
    /// The distribution merges this folder's files into it, and reloads when they change.
    Watched {
        /// The folder.
        folder: PathBuf,
    },
}
