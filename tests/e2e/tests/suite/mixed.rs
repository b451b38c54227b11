//! WebAssembly and Linux containers in one pod, and every engine.

use std::io::Read as _;
use std::net::TcpStream;

use serde_json::json;
use wasmlet_e2e::{Container, Ended, LONG, Namespace, PodSpec, SHORT, Target, eventually};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "a_sidecar_reaches_the_guest_on_localhost",
        sidecar_reaches_guest,
    )
    .ci(),
    Case::new(
        "a_guest_and_a_sidecar_share_a_folder",
        guest_and_sidecar_share_a_folder,
    ),
    Case::new(
        "init_containers_of_both_kinds_come_in_order",
        init_containers_of_both_kinds,
    )
    .ci(),
    Case::new(
        "a_native_sidecar_serves_the_guest_and_goes_after_it",
        native_sidecar,
    ),
    Case::new(
        "a_shared_process_namespace_shows_the_guest",
        shared_process_namespace,
    ),
    Case::new(
        "a_guest_on_the_hosts_network_serves_on_the_node",
        host_network,
    ),
    Case::new(
        "a_pod_names_its_engine_by_annotation_or_class",
        pod_names_its_engine,
    )
    .ci(),
    Case::new(
        "containers_of_a_pod_may_have_an_engine_each",
        engine_per_container,
    ),
    Case::new(
        "a_class_with_an_engine_runs_on_that_engine",
        class_means_engine,
    ),
];

/// The ways to an engine.
const ENGINES: [&str; 3] = ["wasmtime", "wasmedge", "wasmer"];

/// Where a guest on the host's network listens.
const HOST_PORT: u16 = 18473;

fn completed() -> Ended {
    Ended {
        code: 0,
        reason: "Completed".to_owned(),
        message: String::new(),
    }
}

fn sidecar_reaches_guest(ns: &Namespace) {
    let cluster = ns.cluster();
    let guest = Container::new("guest", &cluster.guest("serve"));
    let script = "until nc 127.0.0.1 8080 </dev/null; do sleep 0.2; done";
    let sidecar = Container::shell("sidecar", &cluster.busybox(), script);
    let pod = ns.start(PodSpec::wasm("pod").container(guest).container(sidecar));
    assert_eq!(pod.until_ended(), completed());
    assert_eq!(pod.until_container_ended("sidecar"), completed());
    assert_eq!(pod.logs("sidecar"), "served\n");
}

fn guest_and_sidecar_share_a_folder(ns: &Namespace) {
    let cluster = ns.cluster();
    let guest = Container::new("guest", &cluster.guest("files"))
        .args([
            "read",
            "/shared/from-linux",
            "write",
            "/shared/from-wasm",
            "hello",
            "list",
            "/shared",
        ])
        .mount("shared", "/shared");
    let first = Container::shell("first", &cluster.busybox(), "echo hi >/shared/from-linux")
        .mount("shared", "/shared");
    let script = "until [ -s /shared/from-wasm ]; do sleep 0.2; done; cat /shared/from-wasm";
    let sidecar =
        Container::shell("sidecar", &cluster.busybox(), script).mount("shared", "/shared");
    let pod = PodSpec::wasm("pod")
        .empty_dir("shared")
        .init(first)
        .container(guest)
        .container(sidecar);
    let (pod, ended) = ns.run_pod(pod);
    assert_eq!(ended, completed());
    let said = pod.logs("guest");
    assert!(said.contains("read /shared/from-linux: ok hi\n"), "{said}");
    assert!(said.contains("write /shared/from-wasm: ok\n"), "{said}");
    pod.until_container_ended("sidecar");
    assert_eq!(pod.logs("sidecar"), "hello");
}

fn init_containers_of_both_kinds(ns: &Namespace) {
    let cluster = ns.cluster();
    let linux = Container::shell("linux", &cluster.busybox(), "echo linux >/shared/steps")
        .mount("shared", "/shared");
    let wasm = Container::new("wasm", &cluster.guest("files"))
        .args(["read", "/shared/steps", "append", "/shared/steps", "wasm\n"])
        .mount("shared", "/shared");
    let main = Container::shell("main", &cluster.busybox(), "cat /shared/steps")
        .mount("shared", "/shared");
    let guest = Container::new("guest", &cluster.guest("files"))
        .args(["read", "/shared/steps"])
        .mount("shared", "/shared");
    let pod = PodSpec::wasm("pod")
        .empty_dir("shared")
        .init(linux)
        .init(wasm);
    let (pod, ended) = ns.run_pod(pod.container(main).container(guest));
    assert_eq!(ended, completed());
    assert_eq!(
        pod.logs("wasm"),
        "read /shared/steps: ok linux\nappend /shared/steps: ok\n"
    );
    assert_eq!(pod.logs("main"), "linux\nwasm\n");
    pod.until_container_ended("guest");
    // The program reads the first line.
    assert_eq!(pod.logs("guest"), "read /shared/steps: ok linux\n");
}

fn native_sidecar(ns: &Namespace) {
    let cluster = ns.cluster();
    let script = "trap 'echo told to stop; exit 0' TERM; \
                  while true; do echo pong | nc -l -p 9000 >/tmp/got; cat /tmp/got; done & \
                  while true; do sleep 0.2; done";
    let sidecar = Container::shell("sidecar", &cluster.busybox(), script)
        .set("/restartPolicy", "Always")
        // Looking must not take the guest's place at the port.
        .set(
            "/startupProbe",
            json!({
                "exec": { "command": ["sh", "-c", "netstat -ltn | grep -q :9000"] },
                "periodSeconds": 1,
                "failureThreshold": 30,
            }),
        );
    // Sockets are a component's to make.
    let guest =
        Container::new("guest", &cluster.guest_for("tcp", Target::Component)).args(["9000"]);
    let (pod, ended) = ns.run_pod(PodSpec::wasm("pod").init(sidecar).container(guest));
    assert_eq!(ended, completed());
    assert_eq!(pod.logs("guest"), "pong\n");
    let sidecar = pod.logs("sidecar");
    assert!(sidecar.contains("ping\n"), "{sidecar:?}");
    assert!(sidecar.ends_with("told to stop\n"), "{sidecar:?}");
}

fn shared_process_namespace(ns: &Namespace) {
    let cluster = ns.cluster();
    let guest = Container::new("guest", &cluster.guest("sleep"));
    let sidecar = Container::shell("sidecar", &cluster.busybox(), "sleep 3600");
    let pod = ns.start(
        PodSpec::wasm("pod")
            .set("/spec/shareProcessNamespace", true)
            .container(guest)
            .container(sidecar),
    );
    pod.until_ready();
    pod.follow("guest").until_line("ready", SHORT);
    let processes = pod.exec("sidecar", &["ps", "-o", "pid,comm"]);
    assert_eq!(processes.code, 0, "{processes:?}");
    // The pause program is 1; a signal to all leaves it and the sender out.
    pod.exec("sidecar", &["sh", "-c", "kill -TERM -1"]);
    let ended = pod.until_container_ended("guest");
    assert_eq!(ended.code, 143, "{ended:?}; {}", processes.stdout);
}

fn host_network(ns: &Namespace) {
    let cluster = ns.cluster();
    let node = &cluster.nodes()[0];
    let guest = Container::new("guest", &cluster.guest("serve")).set(
        "/ports/-",
        json!({ "containerPort": HOST_PORT, "hostPort": HOST_PORT }),
    );
    let pod = ns.start(
        PodSpec::wasm("pod")
            .annotation("wasmlet.dev/listen", &HOST_PORT.to_string())
            .set("/spec/hostNetwork", true)
            .on_node(&node.name)
            .container(guest),
    );
    pod.until_running("guest");
    assert_eq!(pod.ip(), node.address);
    let answer = eventually("the node's port answers", SHORT, || {
        let mut answer = String::new();
        TcpStream::connect((node.address.as_str(), HOST_PORT))
            .and_then(|mut stream| stream.read_to_string(&mut answer))
            .map(|_| answer)
            .map_err(|error| error.to_string())
    });
    assert_eq!(answer, "served\n");
    assert_eq!(pod.until_ended(), completed());
}

fn pod_names_its_engine(ns: &Namespace) {
    let image = ns.cluster().guest("hello");
    let mut pods = Vec::new();
    for engine in ENGINES {
        let hello = || Container::new("hello", &image);
        let annotated = PodSpec::wasm(&format!("annotated-{engine}"))
            .annotation("wasmlet.dev/engine", engine)
            .container(hello());
        pods.push(ns.start(annotated));
        let of_class = PodSpec::new(&format!("class-{engine}"))
            .runtime_class(&format!("wasm-{engine}"))
            .container(hello());
        pods.push(ns.start(of_class));
    }
    for pod in pods {
        assert_eq!(pod.until_ended(), completed(), "{}", pod.name());
        assert!(
            pod.logs("hello").contains("hello from the guest\n"),
            "{}",
            pod.name()
        );
    }
}

fn engine_per_container(ns: &Namespace) {
    let image = ns.cluster().guest("hello");
    let mut pod = PodSpec::wasm("pod");
    for engine in ENGINES {
        pod = pod
            .annotation(&format!("wasmlet.dev/engine.{engine}"), engine)
            .container(Container::new(engine, &image));
    }
    let (pod, _) = ns.run_pod(pod);
    for engine in ENGINES {
        assert_eq!(pod.until_container_ended(engine), completed(), "{engine}");
        assert!(
            pod.logs(engine).contains("hello from the guest\n"),
            "{engine}"
        );
    }
}

/// What an engine cannot run shows which one was asked.
fn class_means_engine(ns: &Namespace) {
    let component = ns.cluster().guest_for("hello", Target::Component);
    let threads = ns.cluster().guest("threads");
    let refused = [
        ("wasmtime", &threads),
        ("wasmedge", &component),
        ("wasmer", &component),
    ];
    let started = refused.map(|(engine, image)| {
        let guest = Container::new("guest", image);
        let pod = PodSpec::new(engine)
            .runtime_class(&format!("wasm-{engine}"))
            .container(guest);
        (engine, ns.start(pod))
    });
    for (engine, pod) in started {
        let ended = pod.until("refused", LONG, |object| {
            let status = object
                .status
                .as_ref()?
                .container_statuses
                .as_ref()?
                .first()?;
            let state = status.state.as_ref()?;
            let ended = state
                .terminated
                .as_ref()
                .and_then(|ended| ended.message.clone());
            ended.or_else(|| state.waiting.as_ref()?.message.clone())
        });
        assert!(
            ended.contains(&format!("engine {engine} cannot run /guest.wasm")),
            "{ended}"
        );
    }
}
