//! The three ways to install, on three nodes with three containerds: nothing is done by hand on any of them.

use kube::ResourceExt as _;
use serde_json::json;
use wasmlet_api::node::{AgentState, Phase};
use wasmlet_e2e::operator::{CHANGE, apply, manifest};
use wasmlet_e2e::{Kubectl, LONG, eventually};

use crate::case::Case;
use crate::site::{QUIET, Site};

pub(crate) const CASES: &[Case] = &[
    Case::clean(
        "helm_installs_it_and_the_inference_deployment_runs_and_uninstall_leaves_nothing",
        by_helm,
    )
    .inference()
    .ci(),
    Case::clean(
        "kubectl_apply_installs_it_and_deleting_the_runtime_cleans_all_nodes",
        by_manifests,
    ),
    Case::clean(
        "the_daemonset_alone_installs_it_and_puts_nodes_back",
        by_daemonset,
    ),
    Case::clean("a_second_installation_changes_nothing", twice),
];

const CLASSES: [&str; 4] = ["wasm", "wasm-wasmtime", "wasm-wasmedge", "wasm-wasmer"];

/// Each node runs pods of each class, and says truly what it is.
#[track_caller]
fn assert_all_run(site: &Site<'_>) {
    for node in site.nodes() {
        for class in CLASSES {
            site.assert_runs(&node.name, class);
        }
    }
}

#[track_caller]
fn assert_told(site: &Site<'_>) {
    let nodes = site
        .wasmlet
        .try_nodes()
        .unwrap_or_else(|error| panic!("{error}"));
    for node in site.nodes() {
        let told = &nodes[&node.name];
        let uid = site.get("node", &node.name)["metadata"]["uid"].clone();
        let owner = told
            .owner_references()
            .first()
            .map(|owner| json!(owner.uid));
        assert_eq!(
            owner.as_ref(),
            Some(&uid),
            "{} is owned by its Node",
            node.name
        );
        let status = told.status.as_ref().expect("a status");
        assert_eq!(
            status.phase,
            Some(Phase::Ready),
            "{}: {status:?}",
            node.name
        );
        let agent = status.agent.as_ref().expect("the agent's words");
        assert_eq!(agent.state, AgentState::Applied, "{}: {agent:?}", node.name);
        let containerd = agent.containerd.as_ref().expect("its containerd");
        // A distribution's package may add to it.
        let is_so = containerd.version.starts_with(node.containerd());
        assert!(is_so, "{}: {}", node.name, containerd.version);
        assert_eq!(
            agent.restarts, 1,
            "{}: one restart for new handlers",
            node.name
        );
        let released = site.released().digest;
        let has: Vec<_> = agent.runtimes.iter().map(|it| it.digest.as_str()).collect();
        assert_eq!(has, [released.as_str()], "{}", node.name);
    }
}

fn by_helm(site: &Site<'_>) {
    let before = site.containerds();
    site.install();
    let after = site.containerds();
    for (name, (old, new)) in site.names().iter().zip(before.iter().zip(&after)) {
        assert_ne!(
            old, new,
            "{name}: containerd reads its handlers when it starts"
        );
    }
    assert_told(site);
    assert_all_run(site);

    let ns = site.ns;
    let image = ns.cluster().inference().expect("the case asks for it");
    ns.create_example("inference/deployment.yaml", &image, |document| {
        if document["kind"] == "Deployment" {
            document["spec"]["replicas"] = 3.into();
        }
    });
    ns.until_rolled_out("inference");
    let pods = ns.pods("app.kubernetes.io/name=inference");
    let mut on: Vec<_> = pods.iter().map(|pod| pod.node()).collect();
    on.sort();
    assert_eq!(on, site.names(), "one pod on each node");
    for pod in &pods {
        let answer = eventually("the server answers", LONG, || {
            pod.http_get(8080, "/v2/health/ready")
        });
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    }
    // What the chart's own notes tell the user to do next.
    let helm = site.helm();
    let said = helm.run(&["test", "wasmlet", "--timeout", "2m"]);
    assert!(said.ok, "helm test: {}{}", said.stdout, said.stderr);

    ns.kubectl()
        .answer(&["delete", "deployment,service", "--all", "--wait=true"]);
    eventually("the deployment's pods are gone", LONG, || {
        let left = ns.pods("app.kubernetes.io/name=inference").len();
        (left == 0).then_some(()).ok_or(format!("{left} are left"))
    });
    site.uninstall();
}

fn by_manifests(site: &Site<'_>) {
    let text = manifest(site.cluster(), "install.yaml");
    apply(site.cluster(), &text);
    site.wasmlet.until_ready(site.nodes().len());
    assert_told(site);
    assert_all_run(site);
    // As docs/uninstall.md says it.
    let kubectl = site.kubectl();
    kubectl.answer(&["delete", "wasmruntimes", "--all", "--timeout=5m"]);
    let documents = site.write("install.yaml", &text);
    Kubectl::anywhere(site.cluster().env()).answer(&[
        "delete",
        "--filename",
        &documents,
        "--timeout=3m",
    ]);
    site.until_no_agents();
}

fn by_daemonset(site: &Site<'_>) {
    let text = manifest(site.cluster(), "daemonset-only.yaml");
    apply(site.cluster(), &text);
    until_labels(site, Some("true"));
    assert_all_run(site);
    // Nobody needs the operator's resources.
    let said = site.kubectl().run(&["get", "wasmnodes"]);
    assert!(!said.ok || said.stdout.is_empty(), "{said:?}");
    // An empty target puts nodes back.
    let set = site.get("daemonset", "wasmlet-agent");
    let volumes = set["spec"]["template"]["spec"]["volumes"].as_array();
    let name = volumes
        .into_iter()
        .flatten()
        .find_map(|volume| volume["configMap"]["name"].as_str());
    let name = name.expect("the agents' configuration");
    let config = site.get("configmap", name);
    let data = config["data"].as_object();
    let key = data.and_then(|data| data.keys().next().cloned());
    let key = key.expect("one file in it");
    let patch = json!({ "data": { key: "runtimes: []\n" } }).to_string();
    let kubectl = site.kubectl();
    kubectl.answer(&[
        "patch",
        "configmap",
        name,
        "--type=merge",
        "--patch",
        &patch,
    ]);
    kubectl.answer(&["rollout", "restart", "daemonset/wasmlet-agent"]);
    kubectl.answer(&[
        "rollout",
        "status",
        "daemonset/wasmlet-agent",
        "--timeout=4m",
    ]);
    until_labels(site, None);
    let documents = site.write("daemonset-only.yaml", &text);
    Kubectl::anywhere(site.cluster().env()).answer(&[
        "delete",
        "--filename",
        &documents,
        "--timeout=3m",
    ]);
    site.until_no_agents();
}

#[track_caller]
fn until_labels(site: &Site<'_>, wanted: Option<&str>) {
    eventually(
        &format!("the labels of all nodes are {wanted:?}"),
        CHANGE,
        || {
            let labels = site.wasmlet.try_labels()?;
            let all = labels.values().all(|label| label.as_deref() == wanted);
            all.then_some(()).ok_or(format!("{labels:?}"))
        },
    );
}

/// `helm upgrade` with the same values, and agents that start anew, are no reason to touch a node.
fn twice(site: &Site<'_>) {
    site.install();
    let before = site.containerds();
    let files: Vec<_> = site.names().iter().map(|name| site.files(name)).collect();
    site.helm().install(&[]);
    for name in site.names() {
        site.replace_agent(name);
    }
    std::thread::sleep(QUIET);
    site.wasmlet.until_ready(site.nodes().len());
    assert_eq!(site.containerds(), before);
    for (name, old) in site.names().iter().zip(files) {
        let changed = old.differences(&site.files(name));
        // The agent's own notes may say when it started.
        let changed: Vec<_> = changed
            .into_iter()
            .filter(|line| !line.starts_with("/var/lib/wasmlet/"))
            .collect();
        assert!(changed.is_empty(), "{name}: {changed:?}");
    }
    site.uninstall();
}
