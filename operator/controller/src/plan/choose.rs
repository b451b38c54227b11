//! Which nodes a runtime chooses.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use wasmlet_api::runtime::WasmRuntimeSpec;

use crate::world::NodeFacts;

/// Whether a node has the runtime already: what an untolerated taint means depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    Yes,
    No,
}

/// Whether a runtime chooses a node, by labels, architecture and taints.
///
/// Taints mean what they mean for pods: `NoSchedule` keeps the runtime from a node that has it not, and does not take it away from one
/// that has it (an autoscaler taints nodes that it is about to remove); `NoExecute` does. Those of Kubernetes itself
/// (`node.kubernetes.io/…`: not ready, cordoned, under pressure) pass, and are tolerated as a DaemonSet does.
pub(super) fn chooses(spec: &WasmRuntimeSpec, node: &NodeFacts, has: Has) -> bool {
    let labels = spec
        .node_selector
        .iter()
        .all(|(key, value)| node.label(key) == Some(value));
    let architecture = node.label("kubernetes.io/arch").is_some_and(|arch| {
        spec.artifact
            .architectures
            .iter()
            .any(|known| known.name() == arch)
    });
    labels
        && architecture
        && node.label("kubernetes.io/os") == Some("linux")
        && node
            .taints
            .iter()
            .filter(|taint| repels(taint, has))
            .all(|taint| {
                spec.tolerations
                    .iter()
                    .any(|toleration| tolerates(toleration, taint))
            })
}

fn repels(taint: &Taint, has: Has) -> bool {
    let of_kubernetes = taint.key.starts_with("node.kubernetes.io/");
    !of_kubernetes
        && match taint.effect.as_str() {
            "NoExecute" => true,
            "NoSchedule" => has == Has::No,
            _ => false,
        }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_or_any = |asked: &Option<String>, found: &str| {
        asked
            .as_deref()
            .is_none_or(|asked| asked.is_empty() || asked == found)
    };
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    is_or_any(&toleration.effect, &taint.effect)
        && if key.is_empty() {
            exists
        } else {
            key == taint.key
                && (exists
                    || toleration.value.as_deref().unwrap_or_default()
                        == taint.value.as_deref().unwrap_or_default())
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::build;

    fn taint(key: &str, effect: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            value: Some("wasm".to_owned()),
            effect: effect.to_owned(),
            time_added: None,
        }
    }

    #[test]
    fn labels_architecture_and_system_choose_a_node() {
        let runtime = build::runtime("wasm", "one");
        let mut spec = runtime.spec;
        let node = build::node("a");
        assert!(chooses(&spec, &node, Has::No));
        for (key, value) in [
            ("kubernetes.io/arch", "riscv64"),
            ("kubernetes.io/os", "windows"),
        ] {
            let mut other = node.clone();
            other.labels.insert(key.to_owned(), value.to_owned());
            assert!(!chooses(&spec, &other, Has::No), "{key}={value}");
        }
        spec.node_selector
            .insert("pool".to_owned(), "wasm".to_owned());
        assert!(!chooses(&spec, &node, Has::No));
        let mut other = node;
        other.labels.insert("pool".to_owned(), "wasm".to_owned());
        assert!(chooses(&spec, &other, Has::No));
    }

    #[test]
    fn taints_mean_what_they_mean_for_pods() {
        let spec = build::runtime("wasm", "one").spec;
        for (key, effect, without, with) in [
            ("dedicated", "NoSchedule", false, true),
            ("dedicated", "NoExecute", false, false),
            ("dedicated", "PreferNoSchedule", true, true),
            ("node.kubernetes.io/unreachable", "NoExecute", true, true),
            ("node.kubernetes.io/unschedulable", "NoSchedule", true, true),
        ] {
            let mut node = build::node("a");
            node.taints.push(taint(key, effect));
            assert_eq!(
                chooses(&spec, &node, Has::No),
                without,
                "{key}:{effect} on a node without"
            );
            assert_eq!(
                chooses(&spec, &node, Has::Yes),
                with,
                "{key}:{effect} on a node with"
            );
        }
    }

    #[test]
    fn a_toleration_matches_by_key_value_and_effect() {
        let taint = taint("dedicated", "NoSchedule");
        let toleration = |key: Option<&str>,
                          operator: Option<&str>,
                          value: Option<&str>,
                          effect: Option<&str>| {
            Toleration {
                key: key.map(str::to_owned),
                operator: operator.map(str::to_owned),
                value: value.map(str::to_owned),
                effect: effect.map(str::to_owned),
                toleration_seconds: None,
            }
        };
        for (toleration, expected) in [
            (toleration(None, Some("Exists"), None, None), true),
            (toleration(None, None, None, None), false),
            (
                toleration(Some("dedicated"), Some("Exists"), None, None),
                true,
            ),
            (
                toleration(Some("dedicated"), None, Some("wasm"), None),
                true,
            ),
            (
                toleration(Some("dedicated"), Some("Equal"), Some("gpu"), None),
                false,
            ),
            (toleration(Some("other"), Some("Exists"), None, None), false),
            (
                toleration(Some("dedicated"), Some("Exists"), None, Some("NoExecute")),
                false,
            ),
            (
                toleration(Some("dedicated"), Some("Exists"), None, Some("NoSchedule")),
                true,
            ),
        ] {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
