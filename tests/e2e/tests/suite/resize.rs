//! `kubectl patch --subresource resize`: more or less for a guest that runs.

use serde_json::{Value, json};
use wasmlet_e2e::{Container, LONG, Namespace, Pod, PodSpec, SHORT, eventually};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("a_running_guest_gets_more_memory", more_memory).ci(),
    Case::new("a_running_guest_gets_more_and_less_cpu", more_and_less_cpu),
];

/// Of a page of linear memory.
const PAGE: usize = 64 << 10;

const MIB: usize = 1 << 20;

/// A Linux pod on the same node that sees the node's cgroups.
#[track_caller]
fn observer<'a>(ns: &'a Namespace, node: &str) -> Pod<'a> {
    let shell = Container::shell("observer", &ns.cluster().busybox(), "sleep 3600")
        .mount_read_only("cgroup", "/cgroup");
    let pod = PodSpec::new("observer")
        .on_node(node)
        .volume(
            "cgroup",
            json!({ "hostPath": { "path": "/sys/fs/cgroup" } }),
        )
        .container(shell);
    let pod = ns.start(pod);
    pod.until_running("observer");
    pod
}

/// Files of the guest's cgroup with one of these names, of either version.
#[track_caller]
fn cgroup(observer: &Pod<'_>, pod: &Pod<'_>, names: &[&str]) -> String {
    let object = pod.get();
    let statuses = object.status.and_then(|status| status.container_statuses);
    let id = statuses.and_then(|all| all.first()?.container_id.clone());
    let id = id.expect("a running container has an id");
    let id = id.trim_start_matches("containerd://");
    let named = names.map_or(|name| format!("-name {name}"), " -o ");
    let script = format!("find /cgroup -path '*{id}*' \\( {named} \\) -exec cat {{}} +");
    let found = observer.exec("observer", &["sh", "-c", &script]);
    found.stdout.trim().to_owned()
}

trait Joined {
    fn map_or(&self, word: impl Fn(&str) -> String, between: &str) -> String;
}

impl Joined for [&str] {
    fn map_or(&self, word: impl Fn(&str) -> String, between: &str) -> String {
        let words: Vec<_> = self.iter().map(|name| word(name)).collect();
        words.join(between)
    }
}

#[track_caller]
fn resize(ns: &Namespace, pod: &Pod<'_>, resources: Value) {
    let patch = json!({ "spec": { "containers": [{ "name": "guest", "resources": resources }] } });
    ns.kubectl().answer(&[
        "patch",
        "pod",
        pod.name(),
        "--subresource",
        "resize",
        "--patch",
        &patch.to_string(),
    ]);
}

#[track_caller]
fn until_cgroup(observer: &Pod<'_>, pod: &Pod<'_>, names: &[&str], wanted: &[&str]) {
    eventually(&format!("{names:?} is {wanted:?}"), LONG, || {
        let now = cgroup(observer, pod, names);
        if wanted.contains(&now.as_str()) {
            Ok(())
        } else {
            Err(now)
        }
    });
}

/// What the kubelet says that the container has.
#[track_caller]
fn until_limit(pod: &Pod<'_>, resource: &str, wanted: &str) {
    pod.until(&format!("{resource} is {wanted}"), LONG, |object| {
        let status = object
            .status
            .as_ref()?
            .container_statuses
            .as_ref()?
            .first()?;
        let limits = status.resources.as_ref()?.limits.as_ref()?;
        (limits.get(resource)?.0 == wanted).then_some(())
    });
}

const MEMORY: &[&str] = &["memory.limit_in_bytes", "memory.max"];
const CPU: &[&str] = &["cpu.cfs_quota_us", "cpu.max"];

fn more_memory(ns: &Namespace) {
    let guest = Container::new("guest", &ns.cluster().guest("grow_forever")).limits("24Mi", "200m");
    let pod = ns.start(
        PodSpec::wasm("pod")
            .restart_policy("Always")
            .container(guest),
    );
    pod.until_running("guest");
    let observer = observer(ns, &pod.node());
    // The guest writes a letter for each try: y when it got a page, n when it did not.
    let got_all = || {
        let log = pod.logs("guest");
        let got = log.matches('y').count() * PAGE;
        if log.ends_with("nnn") {
            Ok(got)
        } else {
            Err(format!("{got} bytes so far"))
        }
    };
    let before = eventually("the guest has all that it gets", LONG, got_all);
    assert!(before < 24 * MIB, "{before}");
    until_cgroup(&observer, &pod, MEMORY, &["25165824"]);

    resize(
        ns,
        &pod,
        json!({ "requests": { "memory": "48Mi" }, "limits": { "memory": "48Mi" } }),
    );
    until_cgroup(&observer, &pod, MEMORY, &["50331648"]);
    until_limit(&pod, "memory", "48Mi");
    let after = eventually("the guest gets more", LONG, || {
        let got = got_all()?;
        if got > before {
            Ok(got)
        } else {
            Err(format!("{got} bytes"))
        }
    });
    assert!(
        after >= before + 20 * MIB && after < 48 * MIB,
        "{before}, then {after}"
    );
    assert_eq!(pod.restarts("guest"), 0, "the same process goes on");
    pod.until_event("ResizeCompleted");
}

fn more_and_less_cpu(ns: &Namespace) {
    let guest = Container::new("guest", &ns.cluster().guest("term")).limits("32Mi", "100m");
    let pod = ns.start(
        PodSpec::wasm("pod")
            .restart_policy("Always")
            .container(guest),
    );
    pod.until_running("guest");
    let observer = observer(ns, &pod.node());
    until_cgroup(&observer, &pod, CPU, &["10000", "10000 100000"]);
    for (cpu, quota) in [("250m", "25000"), ("50m", "5000")] {
        resize(
            ns,
            &pod,
            json!({ "requests": { "cpu": cpu }, "limits": { "cpu": cpu } }),
        );
        until_cgroup(&observer, &pod, CPU, &[quota, &format!("{quota} 100000")]);
        until_limit(&pod, "cpu", cpu);
    }
    assert_eq!(pod.restarts("guest"), 0, "the same process goes on");
    pod.follow("guest").until_line("tick", SHORT);
}
