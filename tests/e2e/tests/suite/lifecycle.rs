//! Hooks, signals and debug containers.

use std::time::Duration;

use serde_json::{Value, json};
use wasmlet_e2e::{Container, Ended, LONG, Namespace, Pod, PodSpec, SHORT, eventually};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("hooks_are_called_over_http", http_hooks).ci(),
    Case::new("a_stop_waits_for_the_hook", sleeping_hook),
    Case::new("an_exec_hook_says_that_there_is_none", exec_hooks),
    Case::new("a_guest_stops_when_told", stops_when_told).ci(),
    Case::new(
        "who_does_not_stop_in_time_is_killed",
        killed_after_its_grace,
    ),
    Case::new(
        "a_debug_container_sees_a_guest_from_outside",
        debug_container,
    ),
];

/// Where the pods' Linux neighbour listens.
pub(crate) const PORT: u16 = 9000;

/// A sleeping guest.
#[track_caller]
pub(crate) fn sleeper(ns: &Namespace) -> Container {
    Container::new("guest", &ns.cluster().guest("sleep"))
}

pub(crate) fn http(path: &str) -> Value {
    json!({ "path": path, "port": PORT })
}

fn http_hooks(ns: &Namespace) {
    let hook = |path| json!({ "httpGet": http(path) });
    let guest = sleeper(ns).set(
        "/lifecycle",
        json!({ "postStart": hook("/started"), "preStop": hook("/stopping") }),
    );
    // Hooks are called once: their server comes before the guest and goes after it.
    let script = format!(
        "mkdir /tmp/www && cd /tmp/www && touch started stopping && exec httpd -f -vv -p {PORT}"
    );
    let server = Container::shell("neighbour", &ns.cluster().busybox(), &script)
        .set("/restartPolicy", "Always")
        .set(
            "/startupProbe",
            json!({ "tcpSocket": { "port": PORT }, "periodSeconds": 1 }),
        );
    let pod = ns.start(PodSpec::wasm("pod").init(server).container(guest));
    let log = pod.follow("neighbour");
    pod.until_running("guest");
    log.until_line("/started", SHORT);
    let begun = log.lines().len();
    pod.delete();
    let lines = log.lines().split_off(begun);
    assert!(
        lines.iter().any(|line| line.contains("/stopping")),
        "{lines:?}"
    );
    let failed: Vec<_> = pod
        .events()
        .into_iter()
        .filter(|event| event.reason.contains("Hook"))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn sleeping_hook(ns: &Namespace) {
    const PAUSE: Duration = Duration::from_secs(3);
    let hook = json!({ "preStop": { "sleep": { "seconds": PAUSE.as_secs() } } });
    let guest = Container::new("guest", &ns.cluster().guest("term")).set("/lifecycle", hook);
    let pod = ns.start(
        PodSpec::wasm("pod")
            .set("/spec/terminationGracePeriodSeconds", 30)
            .container(guest),
    );
    pod.until_running("guest");
    let took = pod.delete();
    assert!(
        took >= PAUSE,
        "the hook was not waited for: {} ms",
        took.as_millis()
    );
}

fn exec_hooks(ns: &Namespace) {
    let exec = json!({ "exec": { "command": ["true"] } });
    let with = |name: &str, hook: &str| {
        let guest = sleeper(ns).set(&format!("/lifecycle/{hook}"), exec.clone());
        ns.start(
            PodSpec::wasm(name)
                .restart_policy("Always")
                .container(guest),
        )
    };
    let (start, stop) = (with("start", "postStart"), with("stop", "preStop"));
    let event = start.until_event("FailedPostStartHook");
    assert!(event.message.contains("PostStartHook failed"), "{event}");
    // The words are in the state, while the kubelet waits to try again.
    let message = eventually("the state tells why", LONG, || {
        let state = start.state("guest").to_string();
        if state.contains("there is no second process to start") {
            Ok(state)
        } else {
            Err(state)
        }
    });
    assert!(message.contains("httpGet"), "{message}");

    stop.until_running("guest");
    stop.delete();
    eventually("the hook's failure is an event", SHORT, || {
        let events = ns.events(Some("stop"))?;
        let told = events
            .iter()
            .any(|event| event.reason == "FailedPreStopHook");
        told.then_some(()).ok_or_else(|| format!("{events:?}"))
    });
}

/// What a deleted pod's guest ended with. A finalizer keeps the object until that was read.
#[track_caller]
fn end_of_deleted(ns: &Namespace, pod: PodSpec, act: impl FnOnce(&Pod<'_>)) -> Ended {
    let pod = pod.set("/metadata/finalizers", json!(["wasmlet.dev/e2e"]));
    let pod = ns.start(pod);
    let name = pod.name().to_owned();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pod.until_running("guest");
        act(&pod);
        ns.kubectl()
            .answer(&["delete", "pod", &name, "--wait=false"]);
        pod.until_container_ended("guest")
    }));
    // Whatever came of it: the namespace could not be removed with it.
    ns.patch(
        ("v1", "Pod", &name),
        &json!({ "metadata": { "finalizers": null } }),
    );
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn stops_when_told(ns: &Namespace) {
    // Long enough that a guest which waited for its end would make the test late.
    let pod = PodSpec::wasm("pod")
        .set("/spec/terminationGracePeriodSeconds", 600)
        .container(Container::new("guest", &ns.cluster().guest("term")));
    let ended = end_of_deleted(ns, pod, |pod| {
        pod.follow("guest").until_line("tick 2", SHORT);
    });
    assert_eq!(
        (ended.code, ended.reason.as_str()),
        (143, "Error"),
        "{ended:?}"
    );
}

/// A module with a client gets four seconds for it, and this pod has but one.
fn killed_after_its_grace(ns: &Namespace) {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "accepted\n")
        (func (export "_start")
          (loop $again (br_if $again (call $accept (i32.const 0) (i32.const 0) (i32.const 0))))
          (i32.store (i32.const 0) (i32.const 16))
          (i32.store (i32.const 4) (i32.const 9))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (loop $for_ever (br $for_ever))))"#;
    let image = ns.cluster().wat("holds-its-client", text);
    let pod = PodSpec::wasm("pod")
        .set("/spec/terminationGracePeriodSeconds", 1)
        .container(Container::new("guest", &image).limits("64Mi", "250m"))
        .container(Container::shell(
            "client",
            &ns.cluster().busybox(),
            // The fifo's writer keeps the connection open.
            "mkfifo /tmp/f; sleep 3600 >/tmp/f & until nc 127.0.0.1 8080 </tmp/f; do sleep 0.2; done",
        ));
    let ended = end_of_deleted(ns, pod, |pod| {
        pod.follow("guest").until_line("accepted", LONG);
    });
    assert_eq!(
        (ended.code, ended.reason.as_str()),
        (137, "Error"),
        "{ended:?}"
    );
}

fn debug_container(ns: &Namespace) {
    let pod = ns.start(PodSpec::wasm("pod").container(sleeper(ns)));
    pod.until_running("guest");
    let image = format!("--image={}", ns.cluster().busybox());
    let debug = |name: &str, more: &[&str]| {
        let container = format!("--container={name}");
        // Newer kubectls give a debugger CAP_SYS_PTRACE by default, and with that it may look.
        let profile = "--profile=baseline";
        let head = [
            "debug",
            "pod",
            &image,
            &container,
            profile,
            "--attach=false",
        ];
        let script = ["--", "sh", "-c", "ps -o pid,comm,args; sleep 3600"];
        ns.kubectl().answer(&[&head, more, &script].concat());
        pod.until_running(name);
        pod.follow(name).until_line("sleep 3600", SHORT);
        pod.logs(name)
    };
    let beside = debug("beside", &[]);
    assert!(
        !beside.contains("guest.wasm"),
        "its processes are its own: {beside}"
    );
    let inside = debug("inside", &["--target=guest"]);
    let is_first = |line: &str| line.split_whitespace().next() == Some("1");
    let first = inside
        .lines()
        .find(|line| is_first(line))
        .unwrap_or_default();
    assert!(
        first.contains("guest.wasm"),
        "the target's first process is the guest: {inside}"
    );
    let asked = pod.exec("inside", &["cat", "/proc/1/environ"]);
    assert_ne!(
        asked.code, 0,
        "a guest's memory is nobody's to read: {asked:?}"
    );
    assert_eq!(pod.restarts("guest"), 0);
    let address = pod.exec("beside", &["ip", "-o", "-4", "addr", "show", "eth0"]);
    assert!(
        address.stdout.contains(&pod.ip()),
        "the network is the pod's: {address:?}"
    );
}
