//! Nodes on which it cannot work: each is told why, is left as it was, and works once the cause is gone.

use serde_json::{Value, json};
use wasmlet_api::conditions;
use wasmlet_e2e::operator::{CHANGE, Change};
use wasmlet_e2e::{LONG, eventually};

use crate::case::Case;
use crate::site::Site;
use crate::upgrade::{Before, variant};

pub(crate) const CASES: &[Case] = &[
    Case::clean(
        "a_read_only_configuration_folder_is_told_and_the_node_left_alone",
        read_only,
    ),
    Case::clean(
        "a_full_disk_below_the_store_is_told_and_the_node_left_alone",
        full_store,
    ),
    Case::clean(
        "a_full_disk_below_the_configuration_is_told_and_the_node_left_alone",
        full_config,
    ),
    Case::clean(
        "a_node_without_systemd_is_told_so_and_left_alone",
        no_systemd,
    ),
    Case::clean(
        "a_containerd_that_does_not_start_gets_its_old_configuration_back",
        does_not_start,
    ),
    Case::installed("of_two_agents_on_a_node_one_works", two_agents),
];

/// Installs while something is wrong with the first node, which is the canary; then puts it right, and asks for another try.
#[track_caller]
fn wrong(site: &Site<'_>, inject: &str, undo: &'static str, reasons: &[&str]) -> String {
    let (names, kubectl) = (site.names(), site.kubectl());
    let node = names[0];
    let before = site.containerds();
    let injected = site.inject(node, inject, undo);
    site.helm().install(&[]);
    let told = eventually("the node is told what is wrong", CHANGE, || {
        let nodes = site.wasmlet.try_nodes()?;
        let status = nodes.get(node).and_then(|found| found.status.clone());
        let agent = status.as_ref().and_then(|status| status.agent.clone());
        let by_agent = agent.and_then(|agent| agent.last_error);
        let change = status.and_then(|status| status.change);
        let failure = change.and_then(|change| change.failure).or(by_agent);
        let failure = failure.filter(|failure| reasons.contains(&failure.reason.name()));
        failure
            .map(|failure| failure.message)
            .ok_or_else(|| site.wasmlet.told())
    });
    assert!(!told.is_empty());
    // No pod of ours is sent there, and it works as before for everybody else's.
    assert_ne!(site.wasmlet.label(node).as_deref(), Some("true"));
    let busybox = site.cluster().busybox();
    let ordinary = wasmlet_e2e::PodSpec::new("ordinary")
        .on_node(node)
        .container(wasmlet_e2e::Container::shell(
            "sh",
            &busybox,
            "echo as before",
        ));
    let (pod, ended) = site.ns.run_pod(ordinary);
    assert_eq!(ended.code, 0, "{ended:?}");
    pod.delete();
    drop(injected);
    // The agent's own view of a mount is of when its pod started.
    site.replace_agent(node);
    kubectl.answer(&[
        "annotate",
        "wasmruntime",
        "wasm",
        "wasmlet.dev/retry=now",
        "--overwrite",
    ]);
    site.wasmlet.until_ready(names.len());
    for name in &names {
        site.assert_runs(name, "wasm");
    }
    let after = site.containerds();
    assert_eq!(before.len(), after.len());
    site.uninstall();
    told
}

fn read_only(site: &Site<'_>) {
    let told = wrong(
        site,
        "mount --bind /etc/containerd /etc/containerd && mount -o remount,bind,ro /etc/containerd",
        "umount /etc/containerd",
        &["WriteFailed"],
    );
    assert!(
        told.contains("/etc/containerd"),
        "the folder is named: {told}"
    );
}

fn full_store(site: &Site<'_>) {
    let told = wrong(
        site,
        "mkdir -p /opt/wasmlet && mount -t tmpfs -o size=1m,mode=755 tmpfs /opt/wasmlet",
        "umount /opt/wasmlet",
        &["StageFailed"],
    );
    assert!(told.contains("/opt/wasmlet"), "the folder is named: {told}");
}

fn full_config(site: &Site<'_>) {
    let told = wrong(
        site,
        "mkdir -p /run/e2e-full && mount -t tmpfs -o size=256k,mode=755 tmpfs /run/e2e-full
        cp -a /etc/containerd/. /run/e2e-full/
        dd if=/dev/zero of=/run/e2e-full/ballast bs=4k 2>/dev/null || true
        mount --bind /run/e2e-full /etc/containerd",
        "umount /etc/containerd; umount /run/e2e-full; rmdir /run/e2e-full",
        &["WriteFailed"],
    );
    assert!(
        told.contains("/etc/containerd"),
        "the folder is named: {told}"
    );
}

fn no_systemd(site: &Site<'_>) {
    // Nobody answers where systemd would.
    wrong(
        site,
        "mv /run/systemd/private /run/systemd/private.away",
        "mv /run/systemd/private.away /run/systemd/private",
        &["NoSystemd"],
    );
}

/// What is injected: containerd's unit fails as long as its configuration has our handlers, which `config dump` does not see. A plugin
/// that cannot be set up does the same.
fn does_not_start(site: &Site<'_>) {
    let node = site.names()[0];
    let told = wrong(
        site,
        r"mkdir -p /run/systemd/system/containerd.service.d
        cat >/run/systemd/system/containerd.service.d/e2e.conf <<'UNIT'
[Service]
ExecStartPre=/bin/sh -c '! grep -rqs containerd-shim-wasm-v1 /etc/containerd --include=*.toml'
UNIT
        systemctl daemon-reload",
        "rm -r /run/systemd/system/containerd.service.d && systemctl daemon-reload",
        &["RestartFailed"],
    );
    assert!(told.contains("containerd"), "{node}: {told}");
}

/// A second agent as a DaemonSet of another release would start it. Only one may have the node.
fn two_agents(site: &Site<'_>) {
    let (node, kubectl) = (site.names()[0], site.kubectl());
    let set = site.get("daemonset", "wasmlet-agent");
    let mut spec: Value = set["spec"]["template"]["spec"].clone();
    spec["nodeName"] = node.into();
    spec["containers"][0]["readinessProbe"] = Value::Null;
    spec["containers"][0]["livenessProbe"] = Value::Null;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "second-agent", "namespace": "wasmlet", "labels": { "app.kubernetes.io/part-of": "wasmlet" } },
        "spec": spec,
    });
    let before = Before::of(site);
    kubectl.answer(&[
        "apply",
        "--filename",
        &site.write("second.yaml", &pod.to_string()),
    ]);
    eventually("the second agent says that there is another", LONG, || {
        let said = kubectl.run(&["logs", "second-agent", "--tail=50"]);
        let last = kubectl.run(&["logs", "second-agent", "--previous", "--tail=50"]);
        let text = (said.stdout + &last.stdout).to_lowercase();
        (text.contains("another agent") || text.contains("anotheragent"))
            .then_some(())
            .ok_or(format!("{text}{}", said.stderr))
    });
    let next = variant(site, "of-two-agents", Change::Version("0.95.0"));
    site.wasmlet.patch(&next.as_patch());
    site.wasmlet.until_ready(site.nodes().len());
    before.assert_no_restart(site);
    kubectl.answer(&["delete", "pod", "second-agent", "--wait=true"]);
    site.wasmlet.patch(&site.released().as_patch());
    site.wasmlet.until_ready(site.nodes().len());
    let runtime = site.wasmlet.runtime();
    assert!(wasmlet_e2e::operator::Wasmlet::has(
        &runtime,
        conditions::READY,
        conditions::Status::True
    ));
}
