//! Removing the runtime: never under a pod that uses it, unless told so, and from every node that has it.

use serde_json::json;
use wasmlet_api::conditions;
use wasmlet_e2e::operator::CHANGE;
use wasmlet_e2e::{Container, LONG, Pod, PodSpec, eventually};

use crate::case::Case;
use crate::site::{QUIET, Site};

pub(crate) const CASES: &[Case] = &[
    Case::clean(
        "a_runtime_in_use_waits_and_names_the_pods_and_goes_when_they_are_gone",
        in_use,
    ),
    Case::clean("a_runtime_in_use_is_removed_at_once_when_told_to", forced),
    Case::clean(
        "a_node_that_is_off_is_waited_for_and_cleaned_when_it_is_back",
        node_off,
    ),
    Case::clean(
        "twenty_installations_and_removals_leave_nothing",
        again_and_again,
    ),
];

/// A pod that uses the runtime on a node until it is deleted.
#[track_caller]
fn user<'a>(site: &Site<'a>, node: &str) -> Pod<'a> {
    let image = site.cluster().guest("term");
    let pod = PodSpec::wasm("user")
        .on_node(node)
        .restart_policy("Always")
        .container(Container::new("guest", &image));
    let pod = site.ns.start(pod);
    pod.until_ready();
    pod
}

fn in_use(site: &Site<'_>) {
    site.install();
    let (names, kubectl) = (site.names(), site.kubectl());
    let pod = user(site, names[1]);
    let id = |pod: &Pod<'_>| {
        let status = pod
            .get()
            .status
            .and_then(|status| status.container_statuses);
        status.and_then(|statuses| statuses[0].container_id.clone())
    };
    let before = id(&pod);
    kubectl.answer(&["delete", "wasmruntime", "wasm", "--wait=false"]);
    let named = format!("{}/user", site.ns.name());
    eventually("the pod is named", CHANGE, || {
        let runtime = site.wasmlet.try_runtime()?;
        let condition = wasmlet_e2e::operator::Wasmlet::condition(&runtime, conditions::IN_USE);
        let used_by = runtime
            .status
            .map(|status| status.used_by)
            .unwrap_or_default();
        let is_said = condition.is_some_and(|it| it.status == "True") && used_by == [named.clone()];
        is_said.then_some(()).ok_or_else(|| site.wasmlet.told())
    });
    // As long as it lives it stays; that nothing happens cannot be waited for.
    std::thread::sleep(QUIET);
    assert_eq!((id(&pod), pod.restarts("guest")), (before, 0));
    let dump = site.control.sh(names[1], "containerd config dump");
    assert!(dump.contains("containerd-shim-wasm-v1"), "{dump}");
    // No further pod gets there.
    assert_ne!(site.wasmlet.label(names[1]).as_deref(), Some("true"));
    pod.delete();
    eventually("the runtime is gone", CHANGE, || {
        let said = kubectl.run(&["get", "wasmruntimes", "--output", "name"]);
        (said.ok && said.stdout.is_empty())
            .then_some(())
            .ok_or_else(|| site.wasmlet.told())
    });
    site.uninstall();
}

fn forced(site: &Site<'_>) {
    site.install();
    let kubectl = site.kubectl();
    let pod = user(site, site.names()[1]);
    site.wasmlet
        .patch(&json!({ "spec": { "deletionPolicy": "Force" } }));
    kubectl.answer(&["delete", "wasmruntime", "wasm", "--timeout=3m"]);
    // It was started before, and goes on.
    assert_eq!(pod.restarts("guest"), 0);
    pod.delete();
    // What it ran on is removed when it has ended.
    eventually("nothing is left", CHANGE, || {
        let names = site.names().into_iter();
        let left: Vec<_> = names
            .flat_map(|name| site.left_beside_agent(name))
            .collect();
        left.is_empty().then_some(()).ok_or(left.join("\n"))
    });
    site.uninstall();
}

fn node_off(site: &Site<'_>) {
    site.install();
    let (names, kubectl) = (site.names(), site.kubectl());
    let off = names[2];
    site.control.kill(off);
    kubectl.answer(&["delete", "wasmruntime", "wasm", "--wait=false"]);
    eventually("the others are clean", CHANGE, || {
        let nodes = site.wasmlet.try_nodes()?;
        (nodes.len() == 1 && nodes.contains_key(off))
            .then_some(())
            .ok_or_else(|| site.wasmlet.told())
    });
    let runtime = site.wasmlet.runtime();
    assert!(runtime.metadata.deletion_timestamp.is_some());
    site.control.start(off);
    eventually("the runtime is gone", CHANGE, || {
        let said = kubectl.run(&["get", "wasmruntimes", "--output", "name"]);
        (said.ok && said.stdout.is_empty())
            .then_some(())
            .ok_or_else(|| site.wasmlet.told())
    });
    site.uninstall();
}

/// One node, as fast as it goes: what is lost in one round adds up.
fn again_and_again(site: &Site<'_>) {
    const ROUNDS: usize = 20;
    let node = site.names()[0];
    site.install();
    let selector = |value: serde_json::Value| json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": value } } });
    for round in 1..=ROUNDS {
        site.wasmlet.patch(&selector("nowhere".into()));
        eventually(&format!("round {round}: clean"), CHANGE, || {
            let nodes = site.wasmlet.try_nodes()?;
            nodes
                .is_empty()
                .then_some(())
                .ok_or_else(|| site.wasmlet.told())
        });
        let left = site.left_beside_agent(node);
        assert!(left.is_empty(), "round {round}: {left:#?}");
        site.wasmlet.patch(&selector(node.into()));
        site.wasmlet.until_ready(1);
    }
    site.assert_runs(node, "wasm");
    eventually("the node has no failed units", LONG, || {
        let failed = site
            .control
            .try_sh(node, "systemctl --failed --no-legend --plain")?;
        failed.trim().is_empty().then_some(()).ok_or(failed)
    });
    site.uninstall();
}
