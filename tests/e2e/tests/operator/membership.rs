//! Nodes come, go, and change their labels.

use serde_json::json;
use wasmlet_api::conditions;
use wasmlet_e2e::operator::{CHANGE, Change, Recorder};
use wasmlet_e2e::{LONG, eventually};

use crate::case::Case;
use crate::site::Site;
use crate::upgrade::variant;

pub(crate) const CASES: &[Case] = &[
    Case::installed(
        "a_new_node_gets_it_and_a_removed_one_is_forgotten",
        added_and_removed,
    ),
    Case::installed(
        "a_node_that_is_not_chosen_any_more_is_as_before_and_may_come_back",
        relabelled,
    ),
    Case::installed(
        "a_node_that_vanishes_in_the_middle_of_its_change_holds_up_nobody",
        vanished,
    ),
    Case::installed(
        "a_node_with_a_taint_that_is_not_tolerated_is_cleaned_all_the_same",
        tainted,
    ),
];

#[track_caller]
fn until_forgotten(site: &Site<'_>, node: &str) {
    eventually(&format!("the WasmNode {node} is gone"), LONG, || {
        let nodes = site.wasmlet.try_nodes()?;
        (!nodes.contains_key(node))
            .then_some(())
            .ok_or(format!("{:?}", nodes.keys()))
    });
}

fn added_and_removed(site: &Site<'_>) {
    let count = site.nodes().len();
    let lives = site.containerds();
    let added = site.control.add("1.7.24");
    site.wasmlet.until_ready(count + 1);
    site.assert_runs(&added, "wasm");
    assert_eq!(
        site.containerds(),
        lives,
        "the others have nothing to do with it"
    );
    site.control.remove(&added);
    until_forgotten(site, &added);
    site.wasmlet.until_ready(count);
}

fn vanished(site: &Site<'_>) {
    let count = site.nodes().len();
    let added = site.control.add("2.1.9");
    site.wasmlet.until_ready(count + 1);
    let kubectl = site.kubectl();
    kubectl.answer(&["label", "node", &added, "wasmlet.dev/canary=true"]);
    let recorder = Recorder::start(site.cluster());
    let next = variant(site, "while-vanishing", Change::Version("0.96.0"));
    site.wasmlet.patch(&next.as_patch());
    eventually("the node is claimed", CHANGE, || {
        let claimed = recorder.claimed();
        claimed
            .contains(&added)
            .then_some(())
            .ok_or(format!("{claimed:?}"))
    });
    site.control.kill(&added);
    site.control.remove(&added);
    until_forgotten(site, &added);
    site.wasmlet.until_ready(count);
    site.wasmlet.patch(&site.released().as_patch());
    site.wasmlet.until_ready(count);
}

fn select(site: &Site<'_>, selector: serde_json::Value) {
    site.wasmlet
        .patch(&json!({ "spec": { "nodeSelector": selector } }));
}

#[track_caller]
fn until_without(site: &Site<'_>, node: &str) {
    until_forgotten(site, node);
    assert_eq!(site.wasmlet.label(node), None, "{node}");
    let left = site.left_beside_agent(node);
    assert!(left.is_empty(), "{left:#?}");
}

fn relabelled(site: &Site<'_>) {
    let (names, kubectl) = (site.names(), site.kubectl());
    for name in &names {
        kubectl.answer(&["label", "node", name, "pool=wasm"]);
    }
    select(site, json!({ "pool": "wasm" }));
    site.wasmlet.until_ready(names.len());
    let lives = site.containerds();
    kubectl.answer(&["label", "node", names[1], "pool-"]);
    site.wasmlet.until_ready(names.len() - 1);
    until_without(site, names[1]);
    let now = site.containerds();
    assert_eq!(
        (&now[0], &now[2]),
        (&lives[0], &lives[2]),
        "the others have nothing to do with it"
    );
    kubectl.answer(&["label", "node", names[1], "pool=wasm"]);
    site.wasmlet.until_ready(names.len());
    site.assert_runs(names[1], "wasm");
    // A selector that chooses none is said, and is no failure.
    select(site, json!({ "pool": "none" }));
    site.until_condition(conditions::READY, "False", "NoNodes");
    for name in &names {
        until_without(site, name);
    }
    select(site, serde_json::Value::Null);
    for name in &names {
        kubectl.answer(&["label", "node", name, "pool-"]);
    }
    site.wasmlet.until_ready(names.len());
}

fn tainted(site: &Site<'_>) {
    let (names, kubectl) = (site.names(), site.kubectl());
    let node = names[1];
    kubectl.answer(&["taint", "node", node, "dedicated=other:NoExecute"]);
    // Not tolerated by the runtime, so not chosen any more; the agent tolerates everything, and so the node can be cleaned.
    site.wasmlet.until_ready(names.len() - 1);
    until_without(site, node);
    kubectl.answer(&["taint", "node", node, "dedicated-"]);
    site.wasmlet.until_ready(names.len());
}
