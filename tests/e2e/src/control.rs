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

    /// Adds a node with this containerd; gives its name. It is Ready when this returns.
    #[track_caller]
    pub fn add(&self, containerd: &str) -> String {
        let said = self.expect(&["node", "add", "--containerd", containerd]);
        let name = said.lines().find_map(|line| {
            let name = line
                .strip_prefix("hack/cluster: ")?
                .strip_suffix(" is Ready")?;
            Some(name.to_owned())
        });
        name.unwrap_or_else(|| panic!("hack/cluster node add names no node: {said}"))
    }

    /// Shuts a node down and forgets it; its Node object and its disk are gone.
    #[track_caller]
    pub fn remove(&self, node: &str) {
        self.node("remove", node);
    }

    /// Ends a program of the control plane at once: `kube-apiserver`.
    #[track_caller]
    pub fn stop_program(&self, program: &str) {
        self.expect(&["control", "stop", program]);
    }

    /// Starts it again; the API server answers when this returns.
    #[track_caller]
    pub fn start_program(&self, program: &str) {
        self.expect(&["control", "start", program]);
    }

    /// What a script says on the node; its failure is the test's.
    #[track_caller]
    pub fn sh(&self, node: &str, script: &str) -> String {
        match self.try_sh(node, script) {
            Ok(text) => text,
            Err(error) => panic!("{error}"),
        }
    }

    /// What a script says on the node, if it ends well.
    pub fn try_sh(&self, node: &str, script: &str) -> Result<String, String> {
        // The working folder of whoever asks may not be there on the node.
        self.try_exec(node, &["sh", "-euc", &format!("cd /\n{script}")])
    }

    #[track_caller]
    fn node(&self, verb: &str, node: &str) {
        self.expect(&["node", verb, node]);
    }

    #[track_caller]
    fn expect(&self, arguments: &[&str]) -> String {
        match self.run(arguments) {
            Ok(text) => text,
            Err(error) => panic!("{error}"),
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
