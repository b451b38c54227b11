//! What one node shall have: the order of the operator to an agent, and the configuration file of an agent without one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::handlers::{Engine, Handler, handlers};

/// All runtimes of one node. None: the node shall be as it was before wasmlet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeTarget {
    /// Sorted by handler.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["handler"])
    )]
    pub runtimes: Vec<NodeRuntime>,
}

/// One runtime on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRuntime {
    /// Name of the handler, and first part of those of its engines.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub handler: String,
    /// Engines with a handler of their own.
    #[serde(default)]
    #[schemars(length(max = 3))]
    pub engines: Vec<Engine>,
    /// Digest of the bundle.
    pub digest: Digest,
    /// Settings of the handlers.
    #[serde(default)]
    pub options: Options,
}

/// Settings of a runtime's handlers; what is left out is the shim's default. They end up in `/etc/wasmlet/<handler>.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Bound on the node's cache of compiled modules, in bytes. Example: `2147483648`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 1048576))]
    pub cache_max_bytes: Option<u64>,
    /// Memory for all that compiles on a node at a time, in bytes. Example: `1073741824`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 16777216))]
    pub compile_memory_bytes: Option<u64>,
    /// Processors for compiling, and how many modules compile at a time. Example: `2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 1024))]
    pub compile_cpus: Option<u32>,
    /// Seconds for one module. Example: `120`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 1, max = 86400))]
    pub compile_timeout_seconds: Option<u64>,
}

impl NodeTarget {
    /// With the runtimes in their order.
    pub fn new(mut runtimes: Vec<NodeRuntime>) -> Self {
        runtimes.sort_by(|a, b| a.handler.cmp(&b.handler));
        for runtime in &mut runtimes {
            runtime.engines.sort_unstable();
            runtime.engines.dedup();
        }
        Self { runtimes }
    }

    /// Names this target: equal for equal targets, sixteen hexadecimal digits. The empty target has one, too.
    pub fn revision(&self) -> String {
        // The order of fields is that of the type, and nothing in it is a map.
        let text = serde_json::to_vec(self).expect("a target has only strings, numbers and lists");
        Digest::of(&text).hex()[..16].to_owned()
    }
}

impl NodeRuntime {
    /// Its handlers.
    pub fn handlers(&self) -> Vec<Handler> {
        handlers(&self.handler, &self.engines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(handler: &str, engines: &[Engine]) -> NodeRuntime {
        NodeRuntime {
            handler: handler.to_owned(),
            engines: engines.to_vec(),
            digest: Digest::of(b"bundle"),
            options: Options::default(),
        }
    }

    #[test]
    fn the_revision_depends_on_what_a_node_gets_and_on_no_order() {
        let one = NodeTarget::new(vec![
            runtime("b", &[Engine::Wasmer, Engine::Wasmtime]),
            runtime("a", &[]),
        ]);
        let same = NodeTarget::new(vec![
            runtime("a", &[]),
            runtime("b", &[Engine::Wasmtime, Engine::Wasmer]),
        ]);
        assert_eq!(one.revision(), same.revision());
        assert_eq!(one.revision().len(), 16);

        let mut other = one.clone();
        other.runtimes[0].options.compile_cpus = Some(1);
        assert_ne!(one.revision(), other.revision());
        assert_ne!(one.revision(), NodeTarget::default().revision());
    }

    #[test]
    fn a_key_that_is_not_known_is_an_error() {
        let text = format!(
            r#"{{"runtimes":[{{"handler":"wasm","digest":"{}","engine":"wasmtime"}}]}}"#,
            Digest::of(b"")
        );
        let error = serde_json::from_str::<NodeTarget>(&text).unwrap_err();
        assert!(error.to_string().contains("`engine`"), "{error}");
    }
}
