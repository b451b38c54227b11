//! The planner against a cluster in memory.

mod drift;
mod property;
mod removal;
mod rollout;

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use wasmlet_api::conditions;
use wasmlet_api::node::{Phase, WasmNodeStatus};
use wasmlet_api::reasons::Reason;
use wasmlet_api::{WasmRuntime, names};

use super::{Action, Plan, Settings, plan};
use crate::simulation::{Cluster, Outcome, build};
use crate::world::PodState;

/// A cluster and the operator's settings.
struct Bench {
    cluster: Cluster,
    settings: Settings,
}

impl Bench {
    /// With nodes `n0`, `n1`, … and one runtime.
    fn new(nodes: usize, edit: impl FnOnce(&mut WasmRuntime)) -> Self {
        let mut cluster = Cluster::new();
        for index in 0..nodes {
            cluster.join(&format!("n{index}"));
        }
        let mut runtime = build::runtime("wasm", "one");
        edit(&mut runtime);
        let name = runtime.metadata.name.clone().expect("has a name");
        cluster.world.runtimes.insert(name, Arc::new(runtime));
        Self {
            cluster,
            settings: Settings {
                namespace: "wasmlet".to_owned(),
                retry_base: SignedDuration::from_mins(5),
            },
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.cluster.world, &self.settings, self.cluster.now)
    }

    /// Does everything that is planned, once; the actions.
    #[track_caller]
    fn round(&mut self) -> Vec<Action> {
        let mut done = Vec::new();
        for sequence in self.plan().sequences {
            for action in sequence.actions {
                self.cluster
                    .apply(&action)
                    .unwrap_or_else(|refusal| panic!("{action:?}: {refusal}"));
                done.push(action);
            }
        }
        done
    }

    /// Rounds until there is nothing to do but wait.
    #[track_caller]
    fn settle(&mut self) {
        for _ in 0..100 {
            if self.round().is_empty() {
                return;
            }
        }
        panic!("no end after 100 rounds; still {:?}", self.plan().sequences);
    }

    /// Kubelets and agents do their work, well, and the operator goes on, until nothing happens any more.
    #[track_caller]
    fn flow(&mut self) {
        for _ in 0..10_000 {
            self.settle();
            if !self.work(PodState::Succeeded, Outcome::Applies) {
                return;
            }
        }
        panic!("no end");
    }

    /// All pods end so, all agents with an order answer so; whether there were any.
    fn work(&mut self, pods: PodState, outcome: Outcome) -> bool {
        let running = self.cluster.running_pods();
        let orders = self.cluster.orders();
        for pod in &running {
            self.cluster.kubelet(pod, pods.clone());
        }
        for node in &orders {
            self.cluster.agent(node, outcome);
        }
        !running.is_empty() || !orders.is_empty()
    }

    fn edit(&mut self, edit: impl FnOnce(&mut wasmlet_api::WasmRuntimeSpec)) {
        self.cluster.edit_runtime("wasm", edit);
    }

    fn upgrade(&mut self, bundle: &str) {
        self.edit(|spec| spec.artifact.digest = wasmlet_api::Digest::of(bundle.as_bytes()));
    }

    #[track_caller]
    fn runtime(&self, name: &str) -> &WasmRuntime {
        self.cluster
            .world
            .runtimes
            .get(name)
            .unwrap_or_else(|| panic!("WasmRuntime {name} is gone"))
    }

    /// Reason of a condition of the runtime `wasm`.
    #[track_caller]
    fn reason(&self, type_: &str) -> String {
        let status = self.runtime("wasm").status.clone().unwrap_or_default();
        conditions::find(&status.conditions, type_)
            .unwrap_or_else(|| panic!("no condition {type_}"))
            .reason
            .clone()
    }

    fn phase(&self, node: &str) -> Option<Phase> {
        self.cluster
            .world
            .wasm_nodes
            .get(node)?
            .status
            .as_ref()?
            .phase
    }

    fn label(&self, node: &str) -> Option<&str> {
        self.cluster
            .world
            .nodes
            .get(node)?
            .label(names::READY_LABEL)
    }

    fn failure(&self, node: &str) -> Option<Reason> {
        let found = self.cluster.world.wasm_nodes.get(node)?;
        let change = found.status.as_ref()?.change.as_ref()?;
        change.failure.as_ref().map(|failure| failure.reason)
    }

    /// Nodes that are in a phase of a change.
    fn in_change(&self) -> Vec<&str> {
        self.cluster
            .world
            .wasm_nodes
            .iter()
            .filter(|(_, found)| {
                super::site::change(found).is_none_or(|change| change.finished.is_none())
            })
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn failed(code: i32, message: &str) -> PodState {
        PodState::Failed {
            reason: "Error".to_owned(),
            message: message.to_owned(),
            exit_code: Some(code),
        }
    }
}

fn status(bench: &Bench, node: &str) -> WasmNodeStatus {
    bench.cluster.world.wasm_nodes[node]
        .status
        .clone()
        .unwrap_or_default()
}
