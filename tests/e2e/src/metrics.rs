//! What the kubelet measures.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::pod::Pod;

/// Figures of a pod or container in the kubelet's summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Memory without what could be given back at once.
    pub working_set_bytes: u64,
    /// All memory charged.
    pub usage_bytes: u64,
    /// Processor time since its start.
    pub cpu_nanoseconds: u64,
}

/// Figures of a pod as a whole and of each container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUsage {
    /// The pod's own cgroup.
    pub pod: Usage,
    /// Its containers, by name.
    pub containers: BTreeMap<String, Usage>,
}

impl Usage {
    fn of(figures: &Value) -> Self {
        let number = |pointer: &str| {
            figures
                .pointer(pointer)
                .and_then(Value::as_u64)
                .unwrap_or(0)
        };
        Self {
            working_set_bytes: number("/memory/workingSetBytes"),
            usage_bytes: number("/memory/usageBytes"),
            cpu_nanoseconds: number("/cpu/usageCoreNanoSeconds"),
        }
    }
}

impl Cluster {
    /// The kubelet's summary of a node.
    pub fn summary(&self, node: &str) -> Result<Value, String> {
        self.get_raw(&format!("/api/v1/nodes/{node}/proxy/stats/summary"))
    }
}

impl Pod<'_> {
    /// The pod's figures and those of its containers, by name; none before the kubelet has measured it.
    pub fn usage(&self) -> Result<Option<PodUsage>, String> {
        let summary = self.namespace().cluster().summary(&self.node())?;
        let namespace = self.namespace().name();
        let pods = summary["pods"].as_array().into_iter().flatten();
        let mine = pods.into_iter().find(|pod| {
            pod["podRef"]["name"] == self.name() && pod["podRef"]["namespace"] == namespace
        });
        Ok(mine.map(|pod| {
            let containers = pod["containers"].as_array().into_iter().flatten();
            let each = containers.map(|of| {
                let name = of["name"].as_str().unwrap_or_default();
                (name.to_owned(), Usage::of(of))
            });
            PodUsage {
                pod: Usage::of(pod),
                containers: each.collect(),
            }
        }))
    }
}
