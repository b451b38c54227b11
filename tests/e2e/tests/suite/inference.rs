//! `examples/inference/deployment.yaml`, as it is, and what its user does with it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use wasmlet_e2e::{
    Answer, Container, LONG, Namespace, Pod, PodSpec, SHORT, eventually, example_bytes,
};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "three_pods_on_all_nodes_answer_inside_and_outside",
        three_pods_answer,
    )
    .inference()
    .ci(),
    Case::new("a_user_sees_into_a_server", a_user_sees_into_a_server)
        .inference()
        .ci(),
    Case::new(
        "the_kubelet_measures_a_server",
        the_kubelet_measures_a_server,
    )
    .inference(),
    Case::new(
        "a_rollout_restart_fails_no_request",
        a_rollout_restart_fails_no_request,
    )
    .inference(),
    Case::new("ten_pods_come_and_go", ten_pods_come_and_go).inference(),
    Case::new(
        "attach_shows_what_comes_and_passes_input_on",
        attach_passes_both_ways,
    ),
    Case::new(
        "a_log_is_followed_and_outlives_a_restart",
        a_log_is_followed,
    ),
];

const APP: &str = "app.kubernetes.io/name=inference";

/// What the pod's specification lets it take to stop: three seconds of these are the example's own.
const GRACE: Duration = Duration::from_secs(30);

/// The example, rolled out.
#[track_caller]
fn deploy(ns: &Namespace, replicas: u32) {
    let image = ns
        .cluster()
        .inference()
        .expect("the case asks for the image");
    ns.create_example("inference/deployment.yaml", &image, |document| {
        if document["kind"] == "Deployment" {
            document["spec"]["replicas"] = replicas.into();
        }
    });
    ns.until_rolled_out("inference");
}

/// Asks the Service about the picture in its argument and prints the whole answer. busybox's wget posts no binary
/// files.
const ASK: &str = r#"file=/client/$1.png
{
    printf 'POST /v1/classify HTTP/1.1\r\nHost: inference\r\nConnection: close\r\n'
    printf 'Content-Length: %s\r\n\r\n' "$(wc -c <$file)"
    cat $file
} | timeout 20 nc inference 80
"#;

/// Asks for ever, a line for each answer.
const ASK_ON: &str = r#"n=0
while true; do
    answer=$(sh /client/ask.sh 7 2>&1)
    case $answer in
        "HTTP/1.1 200 "*'"label":"7"'*) n=$((n + 1)) && echo "answered $n" ;;
        *) echo "FAILED after $n: $answer" ;;
    esac
done
"#;

/// A Linux pod with the pictures and the scripts.
#[track_caller]
fn client<'a>(ns: &'a Namespace, script: &str) -> Pod<'a> {
    let files = [
        ("7.png", example_bytes("inference/pictures/7.png")),
        ("K.png", example_bytes("inference/pictures/K.png")),
        ("ask.sh", ASK.as_bytes().to_vec()),
    ];
    ns.config_map("client", &files);
    let shell = Container::shell("client", &ns.cluster().busybox(), script);
    let pod = PodSpec::new("client")
        .volume("client", json!({ "configMap": { "name": "client" } }))
        .container(shell.mount("client", "/client"));
    ns.start(pod)
}

/// The character that an answer is sure of.
#[track_caller]
fn label(answer: &str) -> String {
    let document: Value =
        serde_json::from_str(answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"));
    document["top"][0]["label"]
        .as_str()
        .unwrap_or_else(|| panic!("no label: {answer}"))
        .to_owned()
}

fn three_pods_answer(ns: &Namespace) {
    deploy(ns, 3);
    let nodes: BTreeSet<_> = ns.pods(APP).iter().map(Pod::node).collect();
    let wanted = ns.cluster().nodes().len().min(3);
    assert_eq!(nodes.len(), wanted, "the pods are on {nodes:?}");

    let client = client(ns, "sleep 3600");
    client.until_running("client");
    for picture in ["7", "K"] {
        let asked = client.exec("client", &["sh", "/client/ask.sh", picture]);
        let (head, body) = asked.stdout.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.starts_with("HTTP/1.1 200 "), "{asked:?}");
        assert_eq!(label(body), picture, "{asked:?}");
    }

    let port = ns.open_service("inference");
    let picture = example_bytes("inference/pictures/K.png");
    for node in ns.cluster().nodes() {
        let address = format!("{}:{port}", node.address);
        // kube-proxy hears of the port a moment later.
        let answer = eventually("the service answers from outside", SHORT, || {
            Answer::post(&address, "/v1/classify", &picture).map_err(|error| error.to_string())
        });
        assert_eq!(
            (answer.status.as_u16(), label(&answer.text()).as_str()),
            (200, "K")
        );
    }
}

fn a_user_sees_into_a_server(ns: &Namespace) {
    deploy(ns, 1);
    let pods = ns.pods(APP);
    let pod = pods.first().expect("a pod");
    let name = pod.name();

    let answer = pod
        .http_get(8080, "/v2/models/glyph")
        .expect("an answer through port-forward");
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    assert!(answer.text().contains("glyph"), "{}", answer.text());

    let kubectl = ns.kubectl();
    let log = kubectl.answer(&["logs", "deployment/inference"]);
    assert!(
        log.contains("glyph"),
        "the log of a server that is ready: {log:?}"
    );
    assert!(pod.logs("inference").starts_with(&log), "{log:?}");
    let followed = kubectl.start(&["logs", "--follow", name]);
    followed.until_line("glyph", SHORT);

    let forwarded = kubectl.start(&["port-forward", &format!("pod/{name}"), ":8080"]);
    // Forwarding from 127.0.0.1:40123 -> 8080
    let line = forwarded.until_line("Forwarding from 127.0.0.1:", SHORT);
    let port = line
        .split(['>', ' '])
        .find_map(|word| word.strip_prefix("127.0.0.1:"));
    let address = format!("127.0.0.1:{}", port.expect("a port"));
    let ready = Answer::get(&address, "/v2/health/ready").expect("an answer");
    assert_eq!(ready.status.as_u16(), 200);

    let description = kubectl.answer(&["describe", "pod", name]);
    for part in [
        "Scheduled",
        "Pulled",
        "Created",
        "Started",
        "Runtime Class Name:",
        "wasm",
    ] {
        assert!(description.contains(part), "no {part:?} in {description}");
    }
    let warnings: Vec<_> = pod
        .events()
        .into_iter()
        .filter(|event| event.kind == "Warning")
        .collect();
    // A probe may come before the model is loaded.
    let other: Vec<_> = warnings
        .iter()
        .filter(|event| event.reason != "Unhealthy")
        .collect();
    assert!(other.is_empty(), "{other:?}");
}

fn the_kubelet_measures_a_server(ns: &Namespace) {
    deploy(ns, 1);
    let pods = ns.pods(APP);
    let pod = pods.first().expect("a pod");
    let usage = eventually("the kubelet has measured the pod", LONG, || {
        let usage = pod.usage()?.ok_or("not in the summary")?;
        let container = usage
            .containers
            .get("inference")
            .ok_or("no container in the summary")?;
        // Pod and container are measured one after the other, every ten seconds.
        let complete = container.working_set_bytes > 0
            && container.cpu_nanoseconds > 0
            && container.working_set_bytes <= usage.pod.working_set_bytes;
        if complete {
            Ok(usage)
        } else {
            Err(format!("{usage:?}"))
        }
    });
    assert!(usage.pod.working_set_bytes < 64 << 20, "{usage:?}");
}

fn a_rollout_restart_fails_no_request(ns: &Namespace) {
    deploy(ns, 3);
    let client = client(ns, ASK_ON);
    let log = client.follow("client");
    log.until_line("answered 10", LONG);
    let before: BTreeSet<_> = ns
        .pods(APP)
        .iter()
        .map(|pod| pod.name().to_owned())
        .collect();
    ns.kubectl()
        .answer(&["rollout", "restart", "deployment/inference"]);
    ns.until_rolled_out("inference");
    let count = log.lines().len();
    // The last old pod may still be at its end.
    eventually("old pods are gone", LONG, || {
        let left: Vec<_> = before
            .iter()
            .filter(|name| ns.pod(name).try_get() != Ok(None))
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    log.until_line(&format!("answered {}", count + 10), LONG);
    let failed: Vec<_> = log
        .lines()
        .into_iter()
        .filter(|line| line.contains("FAILED"))
        .collect();
    assert!(
        failed.is_empty(),
        "of {} requests: {failed:?}",
        log.lines().len()
    );
    assert!(count > 20, "only {count} requests in the whole rollout");
}

fn ten_pods_come_and_go(ns: &Namespace) {
    deploy(ns, 1);
    ns.scale("inference", 10);
    ns.until_rolled_out("inference");
    assert_eq!(ns.pods(APP).len(), 10);
    ns.scale("inference", 1);
    eventually("nine pods are gone", LONG, || {
        let text = ns
            .kubectl()
            .answer(&["get", "pods", "--no-headers", "--selector", APP]);
        if text.lines().count() == 1 {
            Ok(())
        } else {
            Err(text)
        }
    });
    let pods = ns.pods(APP);
    let took = pods.first().expect("a pod").delete();
    assert!(took < GRACE, "a pod took {} s to stop", took.as_secs());
}

fn attach_passes_both_ways(ns: &Namespace) {
    let echo = Container::new("echo", &ns.cluster().guest("cat"));
    let pod = ns.start(PodSpec::wasm("echo").container(echo.set("/stdin", true)));
    pod.until_running("echo");
    let mut attached = pod.attach("echo");
    attached.write("a line for the guest\n");
    attached.until("a line for the guest", SHORT);

    let ticks = Container::new("ticks", &ns.cluster().guest("term"));
    let pod = ns.start(PodSpec::wasm("ticks").container(ticks));
    pod.until_running("ticks");
    pod.attach("ticks").until("tick ", SHORT);
}

fn a_log_is_followed(ns: &Namespace) {
    let ticks = Container::new("ticks", &ns.cluster().guest("term"));
    let pod = ns.start(PodSpec::wasm("ticks").container(ticks));
    pod.until_running("ticks");
    let log = pod.follow("ticks");
    log.until_line("tick 3", SHORT);
    pod.delete();
    let lines = log.until_end(SHORT);
    assert!(lines.iter().any(|line| line == "tick 0"), "{lines:?}");

    let hello = Container::new("hello", &ns.cluster().guest("hello"));
    let pod = ns.start(
        PodSpec::wasm("hello")
            .restart_policy("Always")
            .container(hello),
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
    // While it is being restarted once more there is no previous one for a moment.
    eventually("the previous log is shown", SHORT, || {
        let said = ns.kubectl().run(&["logs", "--previous", "hello"]);
        let complete = said.ok && said.stdout.contains("hello from the guest\n");
        if complete {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
}
