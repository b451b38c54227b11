//! Against a scripted API server.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wasmlet_api::WasmNodeSpec;

use super::*;
use crate::cache::Seen;
use crate::plan::{About, Finalizer, Key, Note, Tone};
use crate::script::{Answer, Script, refusal};
use crate::simulation::build;

const NODE: &str = "/apis/wasmlet.dev/v1alpha1/wasmnodes/n0";
const RUNTIME: &str = "/apis/wasmlet.dev/v1alpha1/wasmruntimes/wasm";

struct Bench {
    script: Script,
    caches: Arc<Caches>,
    executor: Executor,
    metrics: Arc<Metrics>,
}

fn bench(script: Script) -> Bench {
    let caches = Arc::new(Caches::default());
    let metrics = Arc::new(Metrics::default());
    Bench {
        executor: Executor::new(
            script.client(),
            "wasmlet",
            "me",
            Arc::clone(&caches),
            Arc::clone(&metrics),
        ),
        script,
        caches,
        metrics,
    }
}

impl Bench {
    async fn perform(&self, actions: Vec<Action>) -> Result<(), ActError> {
        let key = Key::Node("n0".to_owned());
        self.executor.perform(&Sequence { key, actions }).await
    }
}

fn wasm_node(version: &str) -> Value {
    json!({
        "apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmNode",
        "metadata": { "name": "n0", "uid": "u", "resourceVersion": version },
        "spec": { "nodeUID": "node-uid" },
    })
}

fn order() -> Action {
    Action::Order {
        node: "n0".to_owned(),
        uid: "u".to_owned(),
        spec: Box::new(WasmNodeSpec {
            node_uid: "node-uid".to_owned(),
            revision: "r".to_owned(),
            attempt: 2,
            runtimes: Vec::new(),
        }),
    }
}

fn create() -> Action {
    Action::CreateWasmNode {
        node: "n0".to_owned(),
        node_uid: "node-uid".to_owned(),
    }
}

fn label() -> Action {
    Action::Label {
        node: "n0".to_owned(),
        uid: "node-uid".to_owned(),
        labels: BTreeMap::from([
            ("wasmlet.dev/ready".to_owned(), Some("true")),
            ("wasmlet.dev/ready-other".to_owned(), None),
        ]),
    }
}

#[tokio::test]
async fn an_order_is_applied_to_just_this_object_and_known_at_once() {
    let bench = bench(Script::default().then("PATCH", NODE, Answer::Json(200, wasm_node("7"))));
    bench.perform(vec![order()]).await.unwrap();
    let call = &bench.script.played()[0];
    assert_eq!(call.body["metadata"]["uid"], "u");
    assert_eq!(
        call.body["metadata"]["ownerReferences"][0]["uid"],
        "node-uid"
    );
    assert_eq!(call.body["spec"]["attempt"], 2);
    assert!(
        call.query.contains("fieldManager=wasmlet-operator"),
        "{}",
        call.query
    );
    assert!(bench.caches.wasm_nodes.get("n0").is_some());
}

#[tokio::test]
async fn a_sequence_ends_with_its_first_failure() {
    for (status, kind) in [
        (409, FailureKind::Conflict),
        (404, FailureKind::NotFound),
        (403, FailureKind::Forbidden),
        (422, FailureKind::Invalid),
        (500, FailureKind::Server),
        (429, FailureKind::Server),
    ] {
        let bench = bench(Script::default().then("PATCH", NODE, refusal(status, "scripted")));
        let error = bench.perform(vec![order(), label()]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        assert!(!error.is_everywhere());
        let text = crate::watch::chain(&error);
        assert!(text.starts_with("cannot apply wasmnodes n0: "), "{text}");
        bench.script.played();
        let metric = format!(
            r#"wasmlet_operator_api_call_failures_total{{verb="apply",resource="wasmnodes",reason="{}"}} 1"#,
            kind.name()
        );
        let text = bench.metrics.text().unwrap();
        assert!(text.contains(&metric), "{metric} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_fails_for_everybody() {
    let bench = bench(Script::default().then("PATCH", NODE, Answer::Silence));
    let error = bench.perform(vec![order()]).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Timeout);
    assert!(error.is_everywhere());
}

#[tokio::test]
async fn a_wasm_node_that_is_there_is_not_made_anew() {
    let path = "/apis/wasmlet.dev/v1alpha1/wasmnodes";
    let bench = bench(Script::default().then("POST", path, refusal(409, "exists")));
    let error = bench.perform(vec![create()]).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Conflict);
}

#[tokio::test]
async fn labels_are_merged_into_just_this_node() {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": {
        "name": "n0", "uid": "node-uid", "resourceVersion": "9", "labels": { "a": "b" } } });
    let script = Script::default().then("PATCH", "/api/v1/nodes/n0", Answer::Json(200, node));
    let bench = bench(script);
    bench.perform(vec![label()]).await.unwrap();
    assert_eq!(
        bench.script.played()[0].body,
        json!({ "metadata": { "uid": "node-uid", "labels": {
            "wasmlet.dev/ready": "true", "wasmlet.dev/ready-other": null } } })
    );
    assert_eq!(bench.caches.nodes.get("n0").unwrap().label("a"), Some("b"));
}

#[tokio::test]
async fn what_is_gone_already_is_deleted() {
    let bench = bench(Script::default().then("DELETE", NODE, refusal(404, "gone")));
    bench.caches.wasm_nodes.wrote(Seen {
        name: "n0".to_owned(),
        version: 3,
        value: serde_json::from_value(wasm_node("3")).ok(),
    });
    let delete = Action::DeleteWasmNode {
        node: "n0".to_owned(),
        uid: "u".to_owned(),
    };
    bench.perform(vec![delete]).await.unwrap();
    assert!(bench.caches.wasm_nodes.get("n0").is_none());
    let call = &bench.script.played()[0];
    assert_eq!(call.body["preconditions"]["uid"], "u");
}

#[tokio::test]
async fn other_peoples_finalizers_stay() {
    let mut found = serde_json::to_value(build::runtime("wasm", "one")).unwrap();
    found["metadata"]["finalizers"] = json!(["example/other", "wasmlet.dev/nodes"]);
    found["metadata"]["resourceVersion"] = json!("12");
    let metadata = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": found["metadata"] });
    let script = Script::default()
        .then("GET", RUNTIME, Answer::Json(200, metadata))
        .then("PATCH", RUNTIME, Answer::Json(200, found));
    let bench = bench(script);
    let action = Action::Finalizer {
        runtime: "wasm".to_owned(),
        uid: "uid-of-wasm".to_owned(),
        finalizer: Finalizer::Absent,
    };
    bench.perform(vec![action]).await.unwrap();
    assert_eq!(
        bench.script.played()[1].body,
        json!({ "metadata": { "resourceVersion": "12", "finalizers": ["example/other"] } })
    );
}

#[tokio::test]
async fn users_are_pods_with_a_class_that_have_not_ended_and_are_not_ours() {
    let pod = |namespace: &str, name: &str, class: Option<&str>, phase: &str, purpose: bool| {
        let labels = if purpose {
            json!({ "wasmlet.dev/purpose": "probe" })
        } else {
            json!({})
        };
        json!({
            "metadata": { "name": name, "namespace": namespace, "labels": labels },
            "spec": { "runtimeClassName": class, "containers": [] },
            "status": { "phase": phase },
        })
    };
    let list = json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [
        pod("shop", "web", Some("wasm"), "Running", false),
        pod("shop", "job", Some("wasm"), "Succeeded", false),
        pod("shop", "linux", None, "Running", false),
        pod("shop", "liar", Some("wasm"), "Running", true),
        pod("wasmlet", "probe", Some("wasmlet-probe-wasm"), "Running", true),
    ]});
    let bench = bench(Script::default().then("GET", "/api/v1/pods", Answer::Json(200, list)));
    bench.caches.nodes.wrote(Seen {
        name: "n0".to_owned(),
        version: 1,
        value: Some(build::node("n0")),
    });
    let action = Action::CheckUse {
        node: "n0".to_owned(),
        uid: "node-uid".to_owned(),
    };
    bench.perform(vec![action]).await.unwrap();
    let call = &bench.script.played()[0];
    assert!(
        call.query.contains("fieldSelector=spec.nodeName%3Dn0"),
        "{}",
        call.query
    );
    let users: Vec<_> = bench.caches.world().usage["n0"]
        .pods
        .iter()
        .map(|(pod, _)| pod.clone())
        .collect();
    assert_eq!(users, ["shop/web", "shop/liar"]);
}

#[tokio::test]
async fn an_event_that_cannot_be_written_keeps_nothing_from_going_on() {
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let script = Script::default()
        .then("POST", path, refusal(403, "scripted"))
        .then("PATCH", NODE, Answer::Json(200, wasm_node("7")));
    let bench = bench(script);
    let note = Action::Note(Box::new(Note {
        about: About::Node {
            name: "n0".to_owned(),
            uid: "node-uid".to_owned(),
        },
        tone: Tone::Warning,
        reason: wasmlet_api::reasons::Reason::ShimFailed,
        text: "ü".repeat(2000),
    }));
    bench.perform(vec![note, order()]).await.unwrap();
    let calls = bench.script.played();
    let length = calls[0].body["note"].as_str().unwrap().chars().count();
    assert_eq!(length, 1000);
}

#[tokio::test]
async fn a_probe_is_well_when_its_last_line_says_so() {
    use crate::world::{Deleting, PodFacts, PodState, ProbeLog};
    let path = "/api/v1/namespaces/wasmlet/pods/p/log";
    for (line, expected) in [
        ("wasmlet probe: ok 3 checks\n", ProbeLog::Ok),
        ("hello\n", ProbeLog::Other("hello".to_owned())),
        ("", ProbeLog::Other(String::new())),
    ] {
        let bench = bench(Script::default().then("GET", path, Answer::Text(line)));
        bench.caches.pods.wrote(Seen {
            name: "p".to_owned(),
            version: 1,
            value: Some(PodFacts {
                name: "p".to_owned(),
                uid: "u".to_owned(),
                node: "n0".to_owned(),
                purpose: "probe".to_owned(),
                attempt: String::new(),
                created: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
                deleting: Deleting::No,
                state: PodState::Succeeded,
            }),
        });
        let action = Action::ReadProbe {
            pod: "p".to_owned(),
            uid: "u".to_owned(),
        };
        bench.perform(vec![action]).await.unwrap();
        assert_eq!(bench.caches.world().probes["u"], expected);
    }
}
