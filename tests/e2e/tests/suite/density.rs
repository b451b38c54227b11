//! How many pods a node takes, beside pods of busybox under runc in the same run. Figures are printed; what is
//! judged is that all become ready, and that nothing is left.

use std::time::{Duration, Instant};

use serde_json::json;
use wasmlet_e2e::{Container, Namespace, PodSpec, eventually};

use crate::case::Case;
use wasmlet_e2e::nodes::{Cgroups, Leftovers, OnNode, pod_processes};

pub(crate) const CASES: &[Case] = &[
    Case::new("twenty_pods_are_ready_and_leave_nothing", twenty)
        .looks_into_nodes()
        .alone()
        .ci(),
    Case::new("a_hundred_pods_are_ready_and_leave_nothing", a_hundred)
        .looks_into_nodes()
        .alone(),
];

/// For so many pods to become ready, or to go, on a busy machine.
const ALL: Duration = Duration::from_secs(300);

// The shell waits in itself, so that it is one process, and ends when it is told to.
const LINUX: &str = "mkfifo /tmp/never; trap 'exit 0' TERM; read line <>/tmp/never";

fn twenty(ns: &Namespace) {
    side_by_side(ns, 20);
}

fn a_hundred(ns: &Namespace) {
    side_by_side(ns, 100);
}

#[track_caller]
fn side_by_side(ns: &Namespace, count: u32) {
    let node = OnNode::first(ns);
    let cluster = ns.cluster();
    let wasm = PodSpec::wasm("wasm").container(Container::new("guest", &cluster.guest("sleep")));
    let shell = Container::shell("guest", &cluster.busybox(), LINUX);
    let runc = PodSpec::new("runc").container(shell);
    // The first pod of an image pulls it, and compiles it, which is not what is measured.
    for pod in [&wasm, &runc] {
        let first = ns.start(pod.clone().on_node(node.name()));
        first.until_ready();
        first.delete();
    }
    println!(
        "    {count} pods on containerd {} ({}):",
        cluster.node(node.name()).containerd(),
        Cgroups::of(ns, &node).label()
    );
    for pod in [wasm, runc] {
        println!("    {}", measure(ns, &node, pod, count));
    }
}

/// Runs so many pods at a time, and removes them; a line of figures.
#[track_caller]
fn measure(ns: &Namespace, node: &OnNode, pod: PodSpec, count: u32) -> String {
    let name = pod.name().to_owned();
    let leftovers = Leftovers::before(node);
    let memory = node.memory_kb();
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": count,
            "selector": { "matchLabels": { "app": name } },
            "template": pod.on_node(node.name()).restart_policy("Always").into_template(),
        },
    });
    let begun = Instant::now();
    ns.create_object(deployment);
    eventually("all pods are ready", ALL, || {
        let now = ns.get(("apps/v1", "Deployment", &name));
        let ready = now["status"]["readyReplicas"] == count;
        ready.then_some(()).ok_or_else(|| now["status"].to_string())
    });
    let ready = begun.elapsed();

    let memory = node.memory_kb().saturating_sub(memory);
    let processes = pod_processes(node);
    let pss: u64 = processes.iter().map(|process| process.pss_kb).sum();
    let shims: u64 = processes
        .iter()
        .filter(|process| process.is_shim())
        .map(|process| process.pss_kb)
        .sum();

    let begun = Instant::now();
    let kubectl = ns.kubectl();
    kubectl.answer(&["delete", "deployment", &name, "--wait=false"]);
    let selector = format!("app={name}");
    eventually("all pods are gone", ALL, || {
        let said = kubectl.run(&["get", "pods", "--selector", &selector, "--no-headers"]);
        let is_none = said.ok && said.stdout.is_empty();
        is_none.then_some(()).ok_or(said.stdout + &said.stderr)
    });
    let gone = begun.elapsed();
    leftovers.until_none();

    let each = u64::from(count);
    format!(
        "{name}: ready in {:.1} s, gone in {:.1} s; a pod takes {} kB of the node's memory, its processes have {} kB \
         (PSS), of which the shim {} kB; {} processes",
        ready.as_secs_f32(),
        gone.as_secs_f32(),
        memory / each,
        pss / each,
        shims / each,
        processes.len()
    )
}
