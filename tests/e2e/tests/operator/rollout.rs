//! The pace of a rollout, watched: every version of every label, not a sample.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};
use wasmlet_api::conditions;
use wasmlet_e2e::operator::{CHANGE, Change, Recorder};
use wasmlet_e2e::{LONG, eventually};

use crate::case::Case;
use crate::site::{QUIET, Site};
use crate::upgrade::variant;

pub(crate) const CASES: &[Case] = &[
    Case::installed(
        "the_labelled_canary_comes_first_and_nodes_follow_one_at_a_time",
        one_by_one,
    ),
    Case::installed(
        "after_the_canary_two_nodes_change_at_a_time_when_asked",
        two_at_a_time,
    ),
    Case::installed(
        "a_paused_rollout_starts_no_node_and_goes_on_when_told",
        paused,
    ),
    Case::installed("the_canary_is_waited_for_as_long_as_asked", canary_wait),
];

const DEFAULT: &str = r#"{"maxUnavailable":1,"canary":{"nodes":1,"waitSeconds":0},"paused":false}"#;

fn rollout(value: &Value) -> Value {
    json!({ "spec": { "rollout": value } })
}

/// Gives the release back, at the chart's pace.
#[track_caller]
fn back(site: &Site<'_>) {
    let default: Value = serde_json::from_str(DEFAULT).expect("JSON");
    site.wasmlet.patch(&rollout(&default));
    site.wasmlet.patch(&site.released().as_patch());
    site.wasmlet.until_ready(site.nodes().len());
}

fn one_by_one(site: &Site<'_>) {
    let names = site.names();
    // Not the first by name, which would be it anyhow.
    let canary = names[names.len() - 1];
    let kubectl = site.kubectl();
    kubectl.answer(&["label", "node", canary, "wasmlet.dev/canary=true"]);
    let recorder = Recorder::start(site.cluster());
    let next = variant(site, "paced", Change::Version("0.98.0"));
    site.wasmlet.patch(&next.as_patch());
    site.wasmlet.until_ready(names.len());
    let claimed = recorder.claimed();
    assert_eq!(claimed[0], canary, "{claimed:?}");
    assert_eq!(claimed.len(), names.len(), "each once: {claimed:?}");
    assert_eq!(recorder.most_at_once().len(), 1, "{:?}", recorder.seen());
    kubectl.answer(&["label", "node", canary, "wasmlet.dev/canary-"]);
    back(site);
}

fn two_at_a_time(site: &Site<'_>) {
    site.wasmlet.patch(&rollout(
        &json!({ "maxUnavailable": 2, "canary": { "nodes": 1 } }),
    ));
    let recorder = Recorder::start(site.cluster());
    let next = variant(site, "paced-two", Change::Version("0.98.1"));
    site.wasmlet.patch(&next.as_patch());
    site.wasmlet.until_ready(site.nodes().len());
    let claimed = recorder.claimed();
    let most = recorder.most_at_once();
    let rest: BTreeSet<_> = claimed[1..].iter().cloned().collect();
    assert_eq!(most, rest, "the two after the canary {}", claimed[0]);
    back(site);
}

fn paused(site: &Site<'_>) {
    site.wasmlet.patch(&rollout(&json!({ "paused": true })));
    let recorder = Recorder::start(site.cluster());
    let next = variant(site, "paced-paused", Change::Version("0.98.2"));
    site.wasmlet.patch(&next.as_patch());
    site.until_condition(conditions::PROGRESSING, "False", "Paused");
    // That nothing comes cannot be waited for; it is looked for once more at the end, in all that was recorded.
    std::thread::sleep(QUIET);
    assert_eq!(recorder.claimed(), Vec::<String>::new());
    site.wasmlet.patch(&rollout(&json!({ "paused": false })));
    site.wasmlet.until_ready(site.nodes().len());
    assert_eq!(recorder.claimed().len(), site.nodes().len());
    back(site);
}

fn canary_wait(site: &Site<'_>) {
    const WAIT: u64 = 20;
    site.wasmlet.patch(&rollout(
        &json!({ "canary": { "nodes": 1, "waitSeconds": WAIT } }),
    ));
    let recorder = Recorder::start(site.cluster());
    let next = variant(site, "paced-wait", Change::Version("0.98.3"));
    site.wasmlet.patch(&next.as_patch());
    site.until_condition(conditions::PROGRESSING, "True", "CanaryWait");
    let begun = Instant::now();
    assert_eq!(recorder.claimed().len(), 1);
    eventually("the second node is claimed", CHANGE.max(LONG), || {
        let claimed = recorder.claimed();
        (claimed.len() > 1)
            .then_some(())
            .ok_or(format!("{claimed:?}"))
    });
    // The condition is written after the canary became ready, so a little of the time has passed.
    let waited = begun.elapsed().as_secs();
    assert!(waited + 5 >= WAIT, "only {waited} s");
    site.wasmlet.until_ready(site.nodes().len());
    back(site);
}
