//! A look into a node: its control groups, its processes, and what pods leave on it.

mod cgroup;
mod leftovers;
mod process;

pub use cgroup::{Cgroups, Figures};
pub use leftovers::Leftovers;
pub use process::{Process, pod_processes};

use crate::{LONG, Namespace, NodeControl, eventually};

/// A node that a test may look into.
pub struct OnNode {
    control: NodeControl,
    name: String,
}

impl OnNode {
    /// The first one.
    #[track_caller]
    pub fn first(ns: &Namespace) -> Self {
        let cluster = ns.cluster();
        let control = cluster.control();
        let node = cluster.nodes().first().expect("no cluster without a node");
        Self {
            control: control.expect("the case asks for nodes to look into"),
            name: node.name.clone(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What breaks it.
    pub fn control(&self) -> &NodeControl {
        &self.control
    }

    /// What a script says on the node.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.control
            .exec(&self.name, &["sh", "-c", &in_place(script)])
    }

    /// What a script says on the node, if it ends well.
    pub fn try_sh(&self, script: &str) -> Result<String, String> {
        self.control
            .try_exec(&self.name, &["sh", "-c", &in_place(script)])
    }

    /// Waits until Kubernetes takes the node for ready, as its kubelet said after this moment of the node's clock.
    #[track_caller]
    pub fn until_ready_since(&self, ns: &Namespace, moment: &str) {
        let path = format!("/api/v1/nodes/{}", self.name);
        let lease = format!(
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}",
            self.name
        );
        eventually("the node is ready again", LONG, || {
            let renewed = ns.cluster().get_raw(&lease)?["spec"]["renewTime"].clone();
            // Both are RFC 3339 in UTC.
            if renewed.as_str().unwrap_or_default() <= moment {
                return Err(format!("its lease is of {renewed}, not after {moment}"));
            }
            let node = ns.cluster().get_raw(&path)?;
            let conditions = node["status"]["conditions"].as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            ready
                .then_some(())
                .ok_or_else(|| node["status"]["conditions"].to_string())
        });
    }

    /// Memory that is taken on the node, without what is kept of files, in kilobytes.
    #[track_caller]
    pub fn memory_kb(&self) -> u64 {
        let text = self.sh(MEMORY);
        let number = text.trim().parse();
        number.unwrap_or_else(|_| panic!("this is no amount of memory: {text:?}"))
    }

    /// The node's clock, RFC 3339.
    #[track_caller]
    pub fn clock(&self) -> String {
        let time = self.sh("date -u +%Y-%m-%dT%H:%M:%SZ");
        time.trim().to_owned()
    }
}

// Of the node's own cgroup, where it has one: the machine may do other things.
const MEMORY: &str = r#"
cd /sys/fs/cgroup
if [ -e memory/memory.usage_in_bytes ]; then
    awk 'NR == FNR { used = $1; next } $1 == "total_inactive_file" || $1 == "total_active_file" { used -= $2 }
        END { print int(used / 1024) }' memory/memory.usage_in_bytes memory/memory.stat
elif [ -e memory.current ]; then
    awk 'NR == FNR { used = $1; next } $1 == "inactive_file" || $1 == "active_file" { used -= $2 }
        END { print int(used / 1024) }' memory.current memory.stat
else
    awk '$1 == "MemTotal:" { total = $2 } $1 == "MemAvailable:" { free = $2 } END { print total - free }' /proc/meminfo
fi
"#;

/// The working folder of whoever asks may not be there on the node.
fn in_place(script: &str) -> String {
    format!("cd /\n{script}")
}
