//! What breaks on a node, with twenty pods on it: they stay, or come back as Kubernetes promises, and nothing
//! is left of them in the end.

use std::collections::BTreeSet;

use wasmlet_e2e::{Container, Namespace, PodSpec, SHORT, eventually};

use crate::case::Case;
use wasmlet_e2e::fleet::Fleet;
use wasmlet_e2e::nodes::{Cgroups, Leftovers, OnNode, Process, pod_processes};

pub(crate) const CASES: &[Case] = &[
    Case::new("a_restart_of_containerd_touches_no_pod", containerd_restart)
        .breaks_nodes()
        .ci(),
    Case::new("a_restart_of_the_kubelet_touches_no_pod", kubelet_restart).breaks_nodes(),
    Case::new("a_killed_shims_pod_comes_back", killed_shim)
        .breaks_nodes()
        .ci(),
    Case::new("a_killed_guest_comes_back", killed_guest).breaks_nodes(),
    Case::new("a_reboot_brings_all_pods_back", reboot).breaks_nodes(),
    Case::new("a_power_cut_brings_all_pods_back", power_cut).breaks_nodes(),
];

fn containerd_restart(ns: &Namespace) {
    survive_restart_of(ns, "containerd");
}

fn kubelet_restart(ns: &Namespace) {
    survive_restart_of(ns, "kubelet");
}

#[track_caller]
fn survive_restart_of(ns: &Namespace, unit: &str) {
    let node = OnNode::first(ns);
    let leftovers = Leftovers::before(&node);
    let fleet = Fleet::start(ns, &node);
    let before = fleet.seen();
    let before_it = places(&node);
    let moment = node.clock();
    // As the upgrade of a package does it.
    node.sh(&format!(
        "systemctl daemon-reload && systemctl restart {unit}"
    ));
    node.until_ready_since(ns, &moment);
    // What comes after a pod that was started since is what the kubelet and containerd know of today.
    let hello = Container::new("hello", &ns.cluster().guest("hello"));
    let after = PodSpec::wasm("after").on_node(node.name());
    let (after, ended) = ns.run_pod(after.container(hello));
    assert_eq!(ended.code, 0, "{ended:?}");
    fleet.assert_untouched(&before, |_| true);
    let now = places(&node);
    let moved: Vec<_> = before_it
        .iter()
        .filter(|place| !now.contains(place))
        .collect();
    assert!(moved.is_empty(), "gone, or in other cgroups: {moved:?}");
    fleet.assert_alive();
    after.delete();
    fleet.delete();
    leftovers.until_none();
}

/// The processes of all pods, and the cgroup of each.
#[track_caller]
fn places(node: &OnNode) -> Vec<(u32, String)> {
    let all = pod_processes(node);
    all.into_iter()
        .map(|process| (process.pid, process.cgroup))
        .collect()
}

/// The processes of a pod's guest and sandbox, and the shim that is their parent.
#[track_caller]
fn processes_of(ns: &Namespace, node: &OnNode, fleet: &Fleet<'_>) -> (Vec<Process>, Process) {
    let cgroup = Cgroups::of(ns, node).pod(&fleet.victim());
    eventually("a pod of a guest and its sandbox", SHORT, || {
        let all = pod_processes(node);
        let own: Vec<_> = all
            .iter()
            .filter(|process| process.cgroup.contains(&cgroup) && !process.is_shim())
            .cloned()
            .collect();
        let parents: BTreeSet<_> = own.iter().map(|process| process.parent).collect();
        let shim = all
            .iter()
            .find(|process| process.is_shim() && parents.contains(&process.pid));
        match shim {
            Some(shim) if own.len() == 2 && parents.len() == 1 => Ok((own, shim.clone())),
            _ => Err(format!("{own:?}")),
        }
    })
}

fn killed_shim(ns: &Namespace) {
    let node = OnNode::first(ns);
    let leftovers = Leftovers::before(&node);
    let fleet = Fleet::start(ns, &node);
    let before = fleet.seen();
    let victim = fleet.victim().name().to_owned();
    let (own, shim) = processes_of(ns, &node, &fleet);
    node.sh(&format!("kill -9 {}", shim.pid));
    let after = fleet.until("the pod runs again", |name, seen| {
        name != victim || (seen.id != before[name].id && is_told_dead(seen))
    });
    assert_eq!(after[&victim].restarts, 1, "{:?}", after[&victim]);
    // No process of the shim's pod goes on beside the new ones.
    let alive: Vec<_> = pod_processes(&node)
        .into_iter()
        .filter(|now| {
            own.iter()
                .any(|old| (old.pid, &old.cgroup) == (now.pid, &now.cgroup))
        })
        .collect();
    assert!(alive.is_empty(), "without their shim: {alive:?}");
    fleet.assert_untouched(&before, |name| name != victim);
    fleet.assert_alive();
    fleet.delete();
    leftovers.until_none();
}

fn is_told_dead(seen: &wasmlet_e2e::fleet::Seen) -> bool {
    seen.last["exitCode"].as_i64().is_some_and(|code| code != 0)
}

fn killed_guest(ns: &Namespace) {
    let node = OnNode::first(ns);
    let leftovers = Leftovers::before(&node);
    let fleet = Fleet::start(ns, &node);
    let before = fleet.seen();
    let victim = fleet.victim().name().to_owned();
    let (own, shim) = processes_of(ns, &node, &fleet);
    let guest = own.iter().find(|process| process.is_guest());
    let guest = guest.unwrap_or_else(|| panic!("no guest: {own:?}"));
    node.sh(&format!("kill -9 {}", guest.pid));
    let after = fleet.until("the container runs again", |name, seen| {
        name != victim || (seen.id != before[name].id && is_told_dead(seen))
    });
    let seen = &after[&victim];
    assert_eq!((seen.restarts, &seen.last["exitCode"]), (1, &137.into()));
    // The sandbox has seen nothing of it.
    let (_, shim_now) = processes_of(ns, &node, &fleet);
    assert_eq!(shim_now.pid, shim.pid);
    fleet.assert_untouched(&before, |name| name != victim);
    fleet.assert_alive();
    fleet.delete();
    leftovers.until_none();
}

fn reboot(ns: &Namespace) {
    come_back_after(ns, |node| node.control().restart(node.name()));
}

fn power_cut(ns: &Namespace) {
    come_back_after(ns, |node| {
        node.control().kill(node.name());
        node.control().start(node.name());
    });
}

#[track_caller]
fn come_back_after(ns: &Namespace, what: impl Fn(&OnNode)) {
    let node = OnNode::first(ns);
    let leftovers = Leftovers::before(&node);
    let fleet = Fleet::start(ns, &node);
    let before = fleet.seen();
    let moment = node.clock();
    what(&node);
    node.until_ready_since(ns, &moment);
    fleet.until_all_restarted(&before);
    fleet.assert_alive();
    fleet.delete();
    leftovers.until_none();
}
