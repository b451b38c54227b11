//! The few fields of a bundle's `config.json` that the shim decides by.
//!
//! The whole document goes to the runner or to runc, which parse it with a complete model; the
//! shim lives as long as the pod and reads only what it needs, without keeping the rest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A `config.json` larger than this is refused. Kubernetes bounds all annotations of an object to
/// 256 KiB; the rest of a spec is some 20 KiB.
const MAX_BYTES: u64 = 8 << 20;

/// Name of the file in a bundle.
pub const CONFIG: &str = "config.json";

/// The view.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// `process`.
    pub process: Option<Process>,
    /// `root`.
    pub root: Option<Root>,
    /// `annotations`, sorted so that errors name the same one every time.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// `linux`.
    pub linux: Option<Linux>,
    /// `hooks`.
    pub hooks: Option<Hooks>,
}

/// `process`.
#[derive(Debug, Default, Deserialize)]
pub struct Process {
    /// Arguments, the program first.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working folder.
    #[serde(default)]
    pub cwd: PathBuf,
}

/// `root`.
#[derive(Debug, Deserialize)]
pub struct Root {
    /// The root file system, relative to the bundle or absolute.
    pub path: PathBuf,
}

/// `linux`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// Cgroup, as a path or as `slice:prefix:name`.
    #[serde(default)]
    pub cgroups_path: String,
    /// Limits.
    pub resources: Option<Resources>,
    /// Namespaces.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
}

/// `linux.resources`.
#[derive(Debug, Default, Deserialize)]
pub struct Resources {
    /// Memory.
    pub memory: Option<Memory>,
}

/// `linux.resources.memory`.
#[derive(Debug, Default, Deserialize)]
pub struct Memory {
    /// Limit in bytes; zero or less is none.
    pub limit: Option<i64>,
}

/// One of `linux.namespaces`.
#[derive(Debug, Deserialize)]
pub struct Namespace {
    /// `pid`, `network`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// An existing one to join.
    #[serde(default)]
    pub path: String,
}

/// `hooks`: the shim only asks whether there are any.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// After the guest was started.
    pub poststart: Vec<serde::de::IgnoredAny>,
    /// After the container is gone.
    pub poststop: Vec<serde::de::IgnoredAny>,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{} is larger than {MAX_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not an OCI runtime spec.
    #[error("{} is no OCI runtime configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads the view of a bundle.
///
/// # Errors
/// One variant per cause, naming the file.
pub fn load(bundle: &Path) -> Result<Spec, SpecError> {
    let path = bundle.join(CONFIG);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| SpecError::Read {
            path: path.clone(),
            source,
        })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(SpecError::TooLarge { path });
    }
    serde_json::from_slice(&bytes).map_err(|source| SpecError::Parse { path, source })
}

impl Spec {
    /// An annotation that is not empty.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A variable of the container's environment.
    pub fn env(&self, name: &str) -> Option<&str> {
        let env = &self.process.as_ref()?.env;
        env.iter()
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// The container's memory limit in bytes.
    pub fn memory_limit(&self) -> Option<u64> {
        let limit = self
            .linux
            .as_ref()?
            .resources
            .as_ref()?
            .memory
            .as_ref()?
            .limit?;
        u64::try_from(limit).ok().filter(|limit| *limit > 0)
    }

    /// The container has a pid namespace of its own, so its processes end with its init.
    pub fn has_own_pid_namespace(&self) -> bool {
        self.linux.as_ref().is_some_and(|linux| {
            linux
                .namespaces
                .iter()
                .any(|ns| ns.kind == "pid" && ns.path.is_empty())
        })
    }

    /// The cgroup path has the form that the systemd driver uses: `slice:prefix:name`.
    pub fn has_systemd_cgroup_path(&self) -> bool {
        self.linux.as_ref().is_some_and(|linux| {
            linux.cgroups_path.split(':').count() == 3 && !linux.cgroups_path.starts_with('/')
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(text: &str) -> Spec {
        serde_json::from_str(text).expect("a spec")
    }

    #[test]
    fn what_the_shim_decides_by_is_read() {
        let spec = spec(
            r#"{"ociVersion":"1.0.2","process":{"args":["/a.wasm","x"],"env":["PATH=/bin","HOME="],"cwd":"/"},
                "root":{"path":"rootfs"},
                "linux":{"cgroupsPath":"/default/x","resources":{"memory":{"limit":67108864}},
                         "namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/x"}]}}"#,
        );
        assert_eq!(spec.memory_limit(), Some(64 << 20));
        assert_eq!(spec.env("PATH"), Some("/bin"));
        assert_eq!(spec.env("PAT"), None);
        assert!(spec.has_own_pid_namespace());
        assert!(!spec.has_systemd_cgroup_path());
    }

    #[test]
    fn the_cgroup_driver_shows_in_the_path() {
        let of = |path: &str| spec(&format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#));
        assert!(of("kubepods-pod1.slice:cri-containerd:abc").has_systemd_cgroup_path());
        assert!(!of("/kubepods/pod1/abc").has_systemd_cgroup_path());
        assert!(!of("").has_systemd_cgroup_path());
    }

    #[test]
    fn an_unlimited_container_has_no_memory_limit() {
        let of = |limit: i64| {
            spec(&format!(
                r#"{{"linux":{{"resources":{{"memory":{{"limit":{limit}}}}}}}}}"#
            ))
        };
        assert_eq!(of(-1).memory_limit(), None);
        assert_eq!(of(0).memory_limit(), None);
    }

    #[test]
    fn an_empty_document_has_none_of_it() {
        let spec = spec("{}");
        assert!(spec.process.is_none() && spec.root.is_none() && !spec.has_own_pid_namespace());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let dir = tempfile::tempdir().expect("a folder");
            std::fs::write(dir.path().join(CONFIG), bytes).expect("written");
            let _ = load(dir.path());
        }
    }
}
