//! What the cluster knows about the node, as far as pods of a RuntimeClass need it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The node's labels, and the RuntimeClasses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Name of the Node.
    pub node: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// By name.
    pub runtime_classes: BTreeMap<String, RuntimeClassFacts>,
}

/// A RuntimeClass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeClassFacts {
    /// Its handler.
    pub handler: String,
    /// `scheduling.nodeSelector`.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
}
