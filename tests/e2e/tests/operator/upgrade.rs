//! Upgrades, good and bad. A bad one costs one node a moment, and no pod anything.

use std::collections::BTreeMap;

use serde_json::json;
use wasmlet_api::conditions;
use wasmlet_api::node::Phase;
use wasmlet_e2e::operator::{
    Bundle, CHANGE, CRASHING_SHIM, Change, REFUSING_SHIM, Recorder, Wasmlet,
};
use wasmlet_e2e::{NodeFiles, UnitLife, eventually};

use crate::case::Case;
use crate::site::Site;
use wasmlet_e2e::fleet::Fleet;
use wasmlet_e2e::nodes::OnNode;

pub(crate) const CASES: &[Case] = &[
    Case::installed(
        "a_new_version_restarts_none_of_twenty_pods_and_no_containerd",
        good,
    )
    .ci(),
    Case::installed(
        "a_shim_that_crashes_halts_at_the_canary_and_a_fix_resumes",
        crashing_shim,
    )
    .ci(),
    Case::installed(
        "a_shim_that_starts_no_pod_is_found_by_the_probe",
        refusing_shim,
    ),
    Case::installed("a_bundle_of_another_digest_touches_no_node", other_digest),
    Case::installed("a_bundle_that_was_tampered_with_touches_no_node", tampered),
    Case::installed("an_image_that_cannot_be_pulled_touches_no_node", no_image),
    Case::installed(
        "a_containerd_that_refuses_the_new_configuration_keeps_the_old_one",
        refused_by_containerd,
    ),
    Case::installed("options_change_on_every_node_and_change_back", options),
];

/// What must not change on nodes that a halted rollout did not reach.
pub(crate) struct Before {
    containerds: Vec<UnitLife>,
    files: BTreeMap<&'static str, NodeFiles>,
}

impl Before {
    #[track_caller]
    pub(crate) fn of(site: &Site<'_>) -> Self {
        let files = site
            .names()
            .into_iter()
            .map(|name| (name, site.files(name)));
        Self {
            containerds: site.containerds(),
            files: files.collect(),
        }
    }

    /// The files that pods run on are the same, on these nodes.
    #[track_caller]
    pub(crate) fn assert_same_files(&self, site: &Site<'_>, nodes: &[&str]) {
        for name in nodes {
            let changed = self.files[name].differences(&site.files(name));
            // A bundle that is not used, the agent's own notes, and the shim's cache change nothing for pods.
            let changed: Vec<_> = changed
                .into_iter()
                .filter(|line| {
                    !line.starts_with("/opt/wasmlet/store/")
                        && !line.starts_with("/var/lib/wasmlet/")
                })
                .collect();
            assert!(changed.is_empty(), "{name}: {}", changed.join("\n"));
        }
    }

    /// No containerd was restarted.
    #[track_caller]
    pub(crate) fn assert_no_restart(&self, site: &Site<'_>) {
        assert_eq!(
            site.containerds(),
            self.containerds,
            "containerd was restarted"
        );
    }
}

#[track_caller]
pub(crate) fn variant(site: &Site<'_>, tag: &str, change: Change) -> Bundle {
    Bundle::variant(site.cluster(), tag, change).unwrap_or_else(|error| panic!("{tag}: {error}"))
}

/// Back to the release; no clean-up by hand comes before it.
#[track_caller]
fn resume(site: &Site<'_>) {
    site.wasmlet.patch(&site.released().as_patch());
    site.wasmlet.until_ready(site.nodes().len());
    for name in site.names() {
        assert_eq!(site.wasmlet.label(name).as_deref(), Some("true"), "{name}");
        site.assert_runs(name, "wasm");
    }
}

fn good(site: &Site<'_>) {
    let node = OnNode::first(site.ns);
    let fleet = Fleet::start(site.ns, &node);
    let (seen, before) = (fleet.seen(), Before::of(site));
    let next = variant(site, "next", Change::Version("0.99.0"));
    let recorder = Recorder::start(site.cluster());
    site.wasmlet.patch(&next.as_patch());
    site.wasmlet.until_ready(site.nodes().len());
    before.assert_no_restart(site);
    fleet.assert_untouched(&seen, |_| true);
    for name in site.names() {
        let agent = site
            .wasmlet
            .node(name)
            .status
            .and_then(|status| status.agent);
        let runtimes = agent.expect("the agent's words").runtimes;
        assert_eq!(runtimes[0].digest.as_str(), next.digest, "{name}");
        assert_eq!(runtimes[0].version, "0.99.0", "{name}");
        // New pods run on the new programs.
        site.assert_runs(name, "wasm-wasmer");
    }
    assert_eq!(recorder.most_at_once().len(), 1, "one node at a time");
    // Those of before still have their shim, and can be stopped with it.
    resume(site);
    before.assert_no_restart(site);
    fleet.assert_untouched(&seen, |_| true);
    fleet.assert_alive();
    fleet.delete();
}

/// An upgrade that fails at its canary node: it is put back, and nothing else is touched. `reasons` are those that may be told.
#[track_caller]
fn bad(site: &Site<'_>, patch: &serde_json::Value, reasons: &[&str]) -> String {
    let before = Before::of(site);
    let recorder = Recorder::start(site.cluster());
    site.wasmlet.patch(patch);
    let message = site.until_condition(conditions::DEGRADED, "True", "Halted");
    let runtime = site.wasmlet.runtime();
    let status = runtime.status.clone().expect("a status");
    assert_eq!(status.failures.len(), 1, "{status:?}");
    let failure = &status.failures[0];
    assert!(
        reasons.contains(&failure.reason.name()),
        "{failure:?}, not one of {reasons:?}"
    );
    assert!(!failure.message.is_empty(), "{failure:?}");
    let canary = failure.node.clone();
    assert_eq!(
        recorder.claimed(),
        std::slice::from_ref(&canary),
        "only the canary was claimed"
    );
    let node = site.wasmlet.node(&canary);
    assert_eq!(
        node.status.and_then(|status| status.phase),
        Some(Phase::Failed)
    );
    // It is as before, and takes pods as before.
    before.assert_same_files(site, &site.names());
    for name in site.names() {
        assert_eq!(
            site.wasmlet.label(name).as_deref(),
            Some("true"),
            "{name} takes pods"
        );
        site.assert_runs(name, "wasm");
    }
    let told = format!("{message} {}", failure.message);
    assert!(told.contains(&canary), "the node is named: {told}");
    // Told to those who read events, too.
    let events = site.kubectl().answer(&[
        "get",
        "events",
        "--namespace",
        "default",
        "--output",
        "json",
    ]);
    assert!(
        events.contains(failure.reason.name()),
        "no event with {:?}",
        failure.reason
    );
    let ready = Wasmlet::condition(&runtime, conditions::READY);
    assert_eq!(ready.map(|ready| ready.status).as_deref(), Some("False"));
    told
}

fn crashing_shim(site: &Site<'_>) {
    let broken = variant(site, "crashing", Change::Shim(CRASHING_SHIM));
    let before = Before::of(site);
    bad(site, &broken.as_patch(), &["ShimFailed", "ProbeFailed"]);
    before.assert_no_restart(site);
    // A better one, without a word about the failure.
    let next = variant(site, "fixed", Change::Version("0.99.1"));
    site.wasmlet.patch(&next.as_patch());
    site.wasmlet.until_ready(site.nodes().len());
    before.assert_no_restart(site);
    resume(site);
}

fn refusing_shim(site: &Site<'_>) {
    let broken = variant(site, "refusing", Change::Shim(REFUSING_SHIM));
    bad(site, &broken.as_patch(), &["ProbeFailed", "ShimFailed"]);
    resume(site);
}

fn other_digest(site: &Site<'_>) {
    let other = Bundle {
        image: site.released().image,
        digest: format!("sha256:{}", "0".repeat(64)),
    };
    let before = Before::of(site);
    let told = bad(site, &other.as_patch(), &["DigestMismatch"]);
    assert!(
        told.contains(&other.digest),
        "the digest that was asked for: {told}"
    );
    before.assert_no_restart(site);
    resume(site);
    before.assert_no_restart(site);
}

fn tampered(site: &Site<'_>) {
    let broken = variant(site, "tampered", Change::Tampered);
    let before = Before::of(site);
    let told = bad(site, &broken.as_patch(), &["StageFailed"]);
    assert!(
        told.contains("containerd-shim-wasm-v1"),
        "the file is named: {told}"
    );
    before.assert_no_restart(site);
    resume(site);
    before.assert_no_restart(site);
}

fn no_image(site: &Site<'_>) {
    // Another digest, so that the bundle is not on the nodes already.
    let mut absent = site.released().absent(site.cluster());
    absent.digest = format!("sha256:{}", "1".repeat(64));
    let before = Before::of(site);
    let told = bad(site, &absent.as_patch(), &["ImagePullFailed"]);
    assert!(
        told.contains("was-never-pushed"),
        "the image is named: {told}"
    );
    before.assert_no_restart(site);
    resume(site);
}

/// What is injected: each node's containerd does not print a configuration any more in which a handler of ours has been changed. A
/// version of containerd that knows an option no more does the same.
const BREAK: &str = r#"
mkdir -p /run/e2e
cp "$(readlink -f /usr/bin/containerd)" /run/e2e/containerd
cat >/run/e2e/refuses <<'SCRIPT'
#!/bin/sh
case "$*" in
    *config*dump*)
        if grep -rqs wasm-added /etc/containerd /var/lib/wasmlet/agent/preflight; then
            echo "containerd: this configuration is refused by a test" >&2
            exit 1
        fi
        ;;
esac
exec /run/e2e/containerd "$@"
SCRIPT
chmod 755 /run/e2e/refuses
mount --bind /run/e2e/refuses /usr/bin/containerd
"#;
const MEND: &str = "umount /usr/bin/containerd; rm -rf /run/e2e";

/// Another runtime's handlers are what containerd refuses: the first one's stay.
fn refused_by_containerd(site: &Site<'_>) {
    let names = site.names();
    let before = Before::of(site);
    let released = site.released();
    let second = json!({
        "apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmRuntime", "metadata": { "name": "added" },
        "spec": {
            "handler": "wasm-added",
            "engines": [],
            "artifact": { "image": released.image, "digest": released.digest },
        },
    });
    let kubectl = site.kubectl();
    let injected: Vec<_> = names
        .iter()
        .map(|name| site.inject(name, BREAK, MEND))
        .collect();
    let file = site.write("added.yaml", &second.to_string());
    kubectl.answer(&["apply", "--filename", &file]);
    let failure = eventually("the second runtime is halted", CHANGE, || {
        let status = site.get("wasmruntime", "added")["status"].clone();
        let conditions = status["conditions"].as_array();
        let is_halted = conditions
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "Degraded" && it["reason"] == "Halted");
        is_halted
            .then(|| status["failures"][0].clone())
            .ok_or(status.to_string())
    });
    assert_eq!(failure["reason"], "PreflightFailed", "{failure}");
    before.assert_no_restart(site);
    before.assert_same_files(site, &names);
    for name in &names {
        site.assert_runs(name, "wasm");
    }
    kubectl.answer(&["delete", "wasmruntime", "added", "--timeout=3m"]);
    drop(injected);
    before.assert_no_restart(site);
}

fn options(site: &Site<'_>) {
    let before = Before::of(site);
    let patch = |cpus: serde_json::Value| json!({ "spec": { "options": { "compileCpus": cpus } } });
    site.wasmlet.patch(&patch(1.into()));
    site.wasmlet.until_ready(site.nodes().len());
    for name in site.names() {
        let text = site.control.sh(name, "cat /etc/wasmlet/wasm.toml");
        assert!(
            text.contains("CompileCPUs = 1") || text.to_lowercase().contains("cpus = 1"),
            "{name}: {text}"
        );
        site.assert_runs(name, "wasm");
    }
    // They are in files of ours, which the shim reads at each start.
    before.assert_no_restart(site);
    site.wasmlet.patch(&patch(serde_json::Value::Null));
    site.wasmlet.until_ready(site.nodes().len());
    before.assert_same_files(site, &site.names());
}
