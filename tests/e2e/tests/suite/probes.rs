//! What Kubernetes makes of probes' answers.

use k8s_openapi::api::core::v1::Pod as PodObject;
use serde_json::{Value, json};
use wasmlet_e2e::{Container, LONG, Namespace, Pod, PodSpec, eventually};

use crate::case::Case;
use crate::lifecycle::{PORT, http, sleeper};

pub(crate) const CASES: &[Case] = &[
    Case::new("who_fails_its_liveness_probe_is_restarted", liveness).ci(),
    Case::new("a_service_has_the_pods_that_are_ready", readiness).ci(),
    Case::new("nothing_else_is_asked_before_a_pod_has_started", startup),
];

/// A neighbour that answers HTTP for the guest, while there is a file `/tmp/open`, and logs each request: a guest
/// cannot be told to become well or ill.
#[track_caller]
fn neighbour(ns: &Namespace) -> Container {
    let script = format!(
        "mkdir -p /tmp/www/x && cd /tmp/www && touch ready started stopping; trap 'exit 0' TERM; while true; do \
           if [ -e /tmp/open ]; then \
             [ -n \"$server\" ] || {{ httpd -f -vv -p {PORT} -h /tmp/www 2>&1 & server=$!; }}; \
           elif [ -n \"$server\" ]; then kill $server; server=; fi; \
           sleep 0.2; \
         done"
    );
    Container::shell("neighbour", &ns.cluster().busybox(), &script)
}

#[track_caller]
fn open(pod: &Pod<'_>) {
    pod.exec("neighbour", &["touch", "/tmp/open"]);
}

/// A probe that has its answer within two seconds.
fn probe(failures: u32) -> Value {
    json!({ "httpGet": http("/ready"), "periodSeconds": 1, "failureThreshold": failures })
}

/// Whether the guest is started, and whether it is ready.
fn stands(pod: &PodObject) -> (bool, bool) {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let guest = statuses.and_then(|all| all.iter().find(|status| status.name == "guest"));
    guest.map_or((false, false), |guest| {
        (guest.started == Some(true), guest.ready)
    })
}

fn liveness(ns: &Namespace) {
    let guest = sleeper(ns).set("/livenessProbe", probe(1));
    let pod = ns.start(
        PodSpec::wasm("pod")
            .restart_policy("Always")
            .container(guest),
    );
    let last = pod.until("restarted", LONG, |object| {
        let status = object
            .status
            .as_ref()?
            .container_statuses
            .as_ref()?
            .first()?;
        let last = status.last_state.as_ref()?.terminated.as_ref()?;
        (status.restart_count > 0).then(|| last.clone())
    });
    assert_eq!(last.exit_code, 143, "{last:?}");
    let event = pod.until_event("Liveness probe failed");
    assert!(event.message.contains("connection refused"), "{event}");
    pod.until_event("failed liveness probe, will be restarted");
}

/// The addresses of a Service that are ready.
fn endpoints(ns: &Namespace, service: &str) -> Vec<String> {
    let selector = format!("kubernetes.io/service-name={service}");
    let text = ns.kubectl().answer(&[
        "get",
        "endpointslices",
        "--selector",
        &selector,
        "--output",
        "json",
    ]);
    let list: Value = serde_json::from_str(&text).unwrap_or_default();
    let slices = list["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready
        .filter_map(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned))
        .collect()
}

#[track_caller]
fn until_endpoints(ns: &Namespace, wanted: &[String]) {
    eventually(&format!("the service has {wanted:?}"), LONG, || {
        let now = endpoints(ns, "service");
        if now == wanted {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
}

fn readiness(ns: &Namespace) {
    ns.service("service", "pod", 80, PORT);
    let guest = sleeper(ns).set("/readinessProbe", probe(1));
    let pod = ns.start(
        PodSpec::wasm("pod")
            .container(guest)
            .container(neighbour(ns)),
    );
    pod.until_running("guest").until_running("neighbour");
    pod.until_event("Readiness probe failed");
    until_endpoints(ns, &[]);
    open(&pod);
    pod.until_ready();
    until_endpoints(ns, &[pod.ip()]);
    pod.exec("neighbour", &["rm", "/tmp/open"]);
    until_endpoints(ns, &[]);
    assert_eq!(pod.restarts("guest"), 0, "who is not ready is left alone");
}

fn startup(ns: &Namespace) {
    let guest = sleeper(ns)
        .set("/startupProbe", probe(120))
        .set("/livenessProbe", probe(1));
    let pod = ns.start(
        PodSpec::wasm("pod")
            .restart_policy("Always")
            .container(guest)
            .container(neighbour(ns)),
    );
    pod.until_running("neighbour");
    let failed = pod.until_event("Startup probe failed");
    assert_eq!(stands(&pod.get()), (false, false), "{failed}");
    open(&pod);
    pod.until("started", LONG, |object| {
        (stands(object) == (true, true)).then_some(())
    });
    assert_eq!(pod.restarts("guest"), 0, "the liveness probe has waited");

    let guest = sleeper(ns).set("/startupProbe", probe(2));
    let pod = ns.start(
        PodSpec::wasm("never")
            .restart_policy("Always")
            .container(guest),
    );
    pod.until("restarted", LONG, |object| {
        let status = object
            .status
            .as_ref()?
            .container_statuses
            .as_ref()?
            .first()?;
        (status.restart_count > 0).then_some(())
    });
    pod.until_event("failed startup probe, will be restarted");
}
