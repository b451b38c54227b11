//! Somebody else changes what wasmlet wrote: noticed, repaired, and their own changes stay.

use serde_json::Value;
use wasmlet_api::conditions::{self, Status};
use wasmlet_api::node::Phase;
use wasmlet_e2e::operator::{CHANGE, Wasmlet};
use wasmlet_e2e::{LONG, NodeFiles, UnitLife, eventually};

use crate::case::Case;
use crate::site::Site;

pub(crate) const CASES: &[Case] = &[
    Case::installed(
        "a_configuration_that_somebody_rewrote_gets_the_handlers_back",
        rewritten,
    ),
    Case::installed(
        "a_lost_settings_file_comes_back_without_a_restart",
        lost_settings,
    ),
    Case::installed("a_lost_link_comes_back_without_a_restart", lost_link),
    Case::installed(
        "a_node_that_cannot_be_repaired_takes_no_pods_until_it_can",
        not_repaired,
    ),
    Case::installed("a_lost_label_comes_back", lost_label),
    Case::installed("a_lost_runtime_class_comes_back", lost_class),
];

const MARK: &str = "# by somebody else: keep me";

/// What a provisioning tool does: its own file in place of ours, in one rename, and nothing else in the folder.
const REWRITE: &str = r#"
file=/etc/containerd/config.toml
{
    echo '# by somebody else: keep me'
    sed '/^# wasmlet-node: begin/,/^# wasmlet-node: end/d' $file
} >$file.provisioned
chmod --reference=$file $file.provisioned
mv $file.provisioned $file
grep -rl 'containerd-shim-wasm-v1' /etc/containerd --include='*.toml' | xargs -r rm -f
! grep -rq 'containerd-shim-wasm-v1' /etc/containerd
"#;

#[track_caller]
fn repairs(site: &Site<'_>, node: &str) -> i64 {
    let agent = site
        .wasmlet
        .node(node)
        .status
        .and_then(|status| status.agent);
    agent.map_or(0, |agent| agent.repairs)
}

#[track_caller]
fn until_repaired(site: &Site<'_>, node: &str, more_than: i64) {
    site.wasmlet
        .until_node(node, "it is repaired", CHANGE, |found| {
            let status = found.status.as_ref()?;
            let drifted = status.conditions.iter().find(|it| it.type_ == "Drifted");
            let is_over = drifted.is_some_and(|it| it.status == "False");
            (status.agent.as_ref()?.repairs > more_than && is_over).then_some(())
        });
}

fn rewritten(site: &Site<'_>) {
    // The oldest containerd and the newest, which differ in where the handlers are.
    for node in [site.names()[0], site.names()[2]] {
        let (before, files) = (repairs(site, node), site.files(node));
        let life = site.control.containerd(node);
        site.control.sh(node, REWRITE);
        until_repaired(site, node, before);
        let text = site.control.sh(node, "cat /etc/containerd/config.toml");
        assert!(
            text.contains(MARK),
            "{node}: what they wrote is gone: {text}"
        );
        let dump = site.control.sh(node, "containerd config dump");
        assert!(dump.contains("containerd-shim-wasm-v1"), "{node}: {dump}");
        site.assert_runs(node, "wasm");
        let now = site.control.containerd(node);
        // The running containerd had the handlers all the time; whether a restart is due is the agent's to decide, but one is enough.
        let restarts = site
            .wasmlet
            .node(node)
            .status
            .and_then(|status| status.agent);
        assert!(
            now == life || restarts.is_some_and(|agent| agent.restarts >= 2),
            "{node}: {now:?}"
        );
        // They think better of it.
        site.control.sh(
            node,
            "sed -i '/^# by somebody else: keep me$/d' /etc/containerd/config.toml",
        );
        let changed = files.differences(&site.files(node));
        let changed: Vec<_> = changed
            .iter()
            .filter(|line| line.starts_with("/etc/"))
            .collect();
        assert!(
            changed.is_empty(),
            "{node}: the repaired file is another: {changed:?}"
        );
    }
}

/// Something is gone, and comes back as it was.
#[track_caller]
fn lost(site: &Site<'_>, remove: &str) {
    let node = site.names()[1];
    let (life, files, before) = (
        site.control.containerd(node),
        site.files(node),
        repairs(site, node),
    );
    site.control.sh(node, remove);
    until_repaired(site, node, before);
    assert_as_before(site, node, &life, &files);
    site.assert_runs(node, "wasm-wasmtime");
}

fn lost_settings(site: &Site<'_>) {
    lost(site, "rm /etc/wasmlet/wasm-wasmtime.toml");
}

fn lost_link(site: &Site<'_>) {
    lost(site, "rm /opt/wasmlet/runtimes/wasm");
}

/// Somebody's typing error: containerd goes on as it was started, and would not start again.
fn not_repaired(site: &Site<'_>) {
    const MISTAKE: &str = "this is [not TOML";
    let node = site.names()[1];
    let (life, files) = (site.control.containerd(node), site.files(node));
    site.control.sh(
        node,
        &format!("echo '{MISTAKE}' >>/etc/containerd/config.toml"),
    );
    // Before the operator has ordered the same again, and after that failed, it says why.
    site.wasmlet
        .until("the failure is told", CHANGE, |runtime| {
            let degraded = Wasmlet::condition(runtime, conditions::DEGRADED)?;
            let names = [node, "/etc/containerd/config.toml"];
            let told = names.iter().all(|name| degraded.message.contains(name));
            (degraded.status == "True" && told).then_some(())
        });
    until_label(site, node, "false");
    let others = [site.names()[0], site.names()[2]];
    for other in others {
        assert_eq!(site.wasmlet.label(other).as_deref(), Some("true"));
    }

    site.control.sh(
        node,
        "sed -i '/^this is .not TOML$/d' /etc/containerd/config.toml",
    );
    until_label(site, node, "true");
    site.wasmlet.until_ready(site.names().len());
    let found = site.wasmlet.until_phase(node, Phase::Ready);
    let status = found.status.unwrap_or_default();
    for (type_, wanted) in [
        (conditions::APPLIED, Status::True),
        (conditions::DRIFTED, Status::False),
    ] {
        assert!(
            conditions::is(&status.conditions, type_, wanted),
            "{type_} is not {}: {:?}",
            wanted.name(),
            status.conditions
        );
    }
    assert_as_before(site, node, &life, &files);
    site.assert_runs(node, "wasm");
}

/// containerd was not restarted, and has the files that it had.
#[track_caller]
fn assert_as_before(site: &Site<'_>, node: &str, life: &UnitLife, files: &NodeFiles) {
    let changed = files.differences(&site.files(node));
    let changed: Vec<_> = changed
        .iter()
        .filter(|line| !line.starts_with("/var/lib/wasmlet/"))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    let now = site.control.containerd(node);
    assert_eq!(now, *life, "containerd was restarted");
}

#[track_caller]
fn until_label(site: &Site<'_>, node: &str, wanted: &str) {
    eventually(&format!("the label of {node} is {wanted}"), CHANGE, || {
        let label = site.wasmlet.label(node);
        (label.as_deref() == Some(wanted))
            .then_some(())
            .ok_or_else(|| site.wasmlet.told())
    });
}

fn lost_label(site: &Site<'_>) {
    let node = site.names()[1];
    site.kubectl()
        .answer(&["label", "node", node, "wasmlet.dev/ready-"]);
    until_label(site, node, "true");
}

fn lost_class(site: &Site<'_>) {
    let before = site.get("runtimeclass", "wasm-wasmer");
    site.kubectl()
        .answer(&["delete", "runtimeclass", "wasm-wasmer"]);
    eventually("the RuntimeClass is back", LONG, || {
        let said = site
            .kubectl()
            .run(&["get", "runtimeclass", "wasm-wasmer", "--output", "json"]);
        let now: Value = serde_json::from_str(&said.stdout).map_err(|_| said.stderr)?;
        let same = ["handler", "scheduling", "overhead"]
            .iter()
            .all(|key| now[key] == before[key]);
        same.then_some(()).ok_or(now.to_string())
    });
}
