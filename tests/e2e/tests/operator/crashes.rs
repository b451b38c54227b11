//! The agent dies at every step, and the node in the middle: the next agent makes the node whole.

use serde_json::json;
use wasmlet_api::node::Phase;
use wasmlet_e2e::operator::{CHANGE, Recorder, What};
use wasmlet_e2e::{DeathAt, NodeFiles, eventually};

use crate::case::Case;
use crate::site::Site;

pub(crate) const CASES: &[Case] = &[
    Case::installed(
        "an_agent_killed_before_any_of_its_steps_is_made_good_by_the_next",
        every_step,
    ),
    Case::installed(
        "a_node_whose_power_fails_in_its_change_is_made_good",
        power_cut,
    ),
];

/// More calls than any change makes.
const MANY: usize = 200;
/// A change makes fewer before what is left of a bundle is removed, file by file: of those calls every tenth is enough.
const EACH: usize = 25;

/// What a node has on its disk that pods depend on.
#[track_caller]
fn assert_whole(site: &Site<'_>, node: &str, whole: &NodeFiles) {
    let changed = whole.differences(&site.files(node));
    let changed: Vec<_> = changed
        .into_iter()
        .filter(|line| !line.starts_with("/var/lib/wasmlet/"))
        .collect();
    assert!(changed.is_empty(), "{node}: {}", changed.join("\n"));
    assert_eq!(site.wasmlet.label(node).as_deref(), Some("true"));
}

/// Takes the runtime off a node, and puts it on again, by the label that the WasmRuntime asks for.
struct Switch<'a, 'b> {
    site: &'a Site<'b>,
    node: &'static str,
}

impl Switch<'_, '_> {
    #[track_caller]
    fn off(&self) {
        self.site
            .kubectl()
            .answer(&["label", "node", self.node, "pool-"]);
    }

    #[track_caller]
    fn on(&self) {
        self.site
            .kubectl()
            .answer(&["label", "node", self.node, "pool=wasm", "--overwrite"]);
    }

    #[track_caller]
    fn until_off(&self) {
        eventually(&format!("{} is clean", self.node), CHANGE, || {
            let nodes = self.site.wasmlet.try_nodes()?;
            let gone = !nodes.contains_key(self.node);
            gone.then_some(()).ok_or_else(|| self.site.wasmlet.told())
        });
    }

    /// The node's files after a removal and an installation: without bundles of earlier cases.
    #[track_caller]
    fn off_and_on(&self) -> NodeFiles {
        self.off();
        self.until_off();
        self.on();
        self.until_on();
        self.site.files(self.node)
    }

    #[track_caller]
    fn until_on(&self) {
        self.site.wasmlet.until_phase(self.node, Phase::Ready);
        self.site.wasmlet.until_ready(self.site.nodes().len());
    }
}

fn every_step(site: &Site<'_>) {
    let node = site.names()[1];
    let kubectl = site.kubectl();
    for name in site.names() {
        kubectl.answer(&["label", "node", name, "pool=wasm"]);
    }
    site.wasmlet
        .patch(&json!({ "spec": { "nodeSelector": { "pool": "wasm" } } }));
    site.wasmlet.until_ready(site.nodes().len());
    let switch = Switch { site, node };
    let whole = switch.off_and_on();
    let mut deaths = [0, 0];
    for (direction, count) in deaths.iter_mut().enumerate() {
        let mut has_lived = false;
        for nth in (1..=EACH).chain((EACH + 10..=MANY).step_by(10)) {
            // A new pod: the kubelet makes one that died often wait for minutes.
            site.replace_agent(node);
            if direction == 1 {
                switch.off();
                switch.until_off();
            }
            let death = DeathAt::before_call(node, nth).unwrap_or_else(|error| panic!("{error}"));
            if direction == 0 {
                switch.off();
                switch.until_off();
            } else {
                switch.on();
                switch.until_on();
            }
            let has_died = death.has_died();
            drop(death);
            println!(
                "call {nth} of {}: {}",
                ["removing", "installing"][direction],
                if has_died { "died" } else { "lived" }
            );
            if direction == 0 {
                let left = site.left_beside_agent(node);
                assert!(left.is_empty(), "died before call {nth}: {left:#?}");
                switch.on();
                switch.until_on();
            }
            assert_whole(site, node, &whole);
            site.assert_runs(node, "wasm");
            has_lived = !has_died;
            if has_lived {
                break;
            }
            *count += 1;
        }
        assert!(has_lived, "a change does not make that many calls");
    }
    assert!(
        deaths.iter().all(|count| *count >= 3),
        "too few to have been at every step: {deaths:?}"
    );
    site.wasmlet
        .patch(&json!({ "spec": { "nodeSelector": null } }));
    kubectl.answer(&["label", "nodes", "--all", "pool-"]);
    site.wasmlet.until_ready(site.nodes().len());
}

fn power_cut(site: &Site<'_>) {
    let node = site.names()[2];
    let kubectl = site.kubectl();
    for name in site.names() {
        kubectl.answer(&["label", "node", name, "pool=wasm"]);
    }
    site.wasmlet
        .patch(&json!({ "spec": { "nodeSelector": { "pool": "wasm" } } }));
    site.wasmlet.until_ready(site.nodes().len());
    let switch = Switch { site, node };
    let whole = switch.off_and_on();
    switch.off();
    switch.until_off();
    let recorder = Recorder::start(site.cluster());
    switch.on();
    eventually("the agent is at it", CHANGE, || {
        let applying = recorder
            .seen()
            .into_iter()
            .any(|seen| seen.node == node && seen.what == What::Phase(Some(Phase::Applying)));
        applying.then_some(()).ok_or_else(|| site.wasmlet.told())
    });
    site.control.kill(node);
    site.control.start(node);
    switch.until_on();
    assert_whole(site, node, &whole);
    site.assert_runs(node, "wasm");
    site.wasmlet
        .patch(&json!({ "spec": { "nodeSelector": null } }));
    kubectl.answer(&["label", "nodes", "--all", "pool-"]);
    site.wasmlet.until_ready(site.nodes().len());
}
