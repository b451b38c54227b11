//! Where the shim keeps what lives as long as the node is up.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Everything below is gone after a reboot, as the containers are.
pub const RUN_DIR: &str = "/run/wasmlet";

/// Folders of one containerd instance and namespace.
///
/// Several containerds can run on a node, and two of them may use the same namespace and
/// container id, so the folder's name is a hash over the daemon's address and the namespace. It is
/// short because Unix socket paths end at 107 bytes and container ids are 64 long.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Folders for the containerd behind `address` (its gRPC socket).
    pub fn new(address: &str, namespace: &str) -> Self {
        Self::below(Path::new(RUN_DIR), address, namespace)
    }

    fn below(run_dir: &Path, address: &str, namespace: &str) -> Self {
        let name = short_hash([address, namespace]);
        Self {
            root: run_dir.join(name),
        }
    }

    /// States of the runners' containers, one folder per container id.
    pub fn runner_root(&self) -> PathBuf {
        self.root.join("w")
    }

    /// `--root` of runc.
    pub fn runc_root(&self) -> PathBuf {
        self.root.join("runc")
    }

    /// Record of one container, for `delete` after the shim has died.
    pub fn record(&self, id: &str) -> PathBuf {
        self.root.join(format!("{id}.json"))
    }

    /// Socket that receives the terminal of a process. A hash, because both ids together are longer
    /// than a socket's path may be.
    pub fn console_socket(&self, id: &str, exec: Option<&str>) -> PathBuf {
        let name = short_hash([id, exec.unwrap_or_default()]);
        self.root.join(format!("{name}.tty"))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folders, readable by root alone.
    ///
    /// # Errors
    /// Whatever `mkdir(2)` says, with the path.
    pub fn create(&self) -> Result<(), PathError> {
        use std::os::unix::fs::DirBuilderExt;
        for dir in [self.root.clone(), self.runner_root()] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(|source| PathError::Create { path: dir, source })?;
        }
        Ok(())
    }
}

/// Twelve hexadecimal digits that stand for these texts.
fn short_hash(texts: [&str; 2]) -> String {
    let [first, second] = texts;
    let mut hash = Sha256::new();
    hash.update(first);
    hash.update([0]);
    hash.update(second);
    let digest = hash.finalize();
    let digits = digest.iter().take(6).map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// A folder of the shim cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// `mkdir(2)` failed.
    #[error("cannot make {}", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_daemons_with_one_namespace_do_not_share_a_folder() {
        let one = Paths::new("/run/containerd/containerd.sock", "k8s.io");
        let two = Paths::new("/run/k3s/containerd/containerd.sock", "k8s.io");
        assert_ne!(one.root(), two.root());
        assert_eq!(
            one.root(),
            Paths::new("/run/containerd/containerd.sock", "k8s.io").root()
        );
    }

    #[test]
    fn console_sockets_fit_a_unix_address_and_differ() {
        // containerd's longest id; CRI's are 64 long.
        let id = "f".repeat(76);
        let paths = Paths::new("/run/containerd/containerd.sock", "k8s.io");
        let (init, exec) = (
            paths.console_socket(&id, None),
            paths.console_socket(&id, Some(&id)),
        );
        assert!(exec.as_os_str().len() < 108, "{}", exec.display());
        assert_ne!(init, exec);
        assert_ne!(exec, paths.console_socket(&id, Some("e")));
    }
}
