//! Breaking nodes, where `hack/cluster` made them.

use std::path::Path;
use std::process::{Command, Output};

/// The nodes of a `hack/cluster` cluster, which a test may stop, kill and look into.
#[derive(Debug, Clone)]
pub struct NodeControl {
    cluster: String,
}

impl NodeControl {
    pub(crate) fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
        }
    }

    /// What a command on the node prints; its failure is the test's.
    #[track_caller]
    pub fn exec(&self, node: &str, command: &[&str]) -> String {
        match self.try_exec(node, command) {
            Ok(text) => text,
            Err(error) => panic!("{error}"),
        }
    }

    /// What a command on the node prints.
    pub fn try_exec(&self, node: &str, command: &[&str]) -> Result<String, String> {
        self.run(&[&["exec", node], command].concat())
    }

    /// Reboots the node in an orderly way.
    #[track_caller]
    pub fn restart(&self, node: &str) {
        self.node("restart", node);
    }

    /// Cuts the node's power.
    #[track_caller]
    pub fn kill(&self, node: &str) {
        self.node("kill", node);
    }

    /// Starts a node that was killed.
    #[track_caller]
    pub fn start(&self, node: &str) {
        self.node("start", node);
    }

    #[track_caller]
    fn node(&self, verb: &str, node: &str) {
        if let Err(error) = self.run(&["node", verb, node]) {
            panic!("{error}");
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hack/cluster");
        let shown = || {
            format!(
                "hack/cluster --name {} {}",
                self.cluster,
                arguments.join(" ")
            )
        };
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(tool)
            .args(["--name", &self.cluster])
            .args(arguments)
            .output()
            .map_err(|error| format!("{}: {error}", shown()))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        Err(format!(
            "{}: {status}: {}",
            shown(),
            String::from_utf8_lossy(&stderr).trim()
        ))
    }
}
