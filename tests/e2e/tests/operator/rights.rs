//! Who may do what: only an administrator installs runtimes, and an agent speaks for its own node only.

use serde_json::{Value, json};
use wasmlet_e2e::Said;
use wasmlet_e2e::operator::Part;

use crate::case::Case;
use crate::site::Site;
use crate::upgrade::Before;

pub(crate) const CASES: &[Case] = &[
    Case::installed(
        "a_user_who_administers_a_namespace_cannot_install_a_runtime",
        users,
    )
    .ci(),
    Case::installed(
        "an_agents_token_changes_nothing_but_what_is_said_of_its_own_node",
        agents,
    )
    .ci(),
    Case::installed(
        "a_runtime_whose_fields_would_be_configuration_is_refused",
        injection,
    )
    .ci(),
    Case::installed(
        "values_that_make_no_sense_are_refused_with_the_fields_name",
        nonsense,
    ),
];

/// A WasmRuntime that would be taken, with something else in one place.
fn runtime(site: &Site<'_>, pointer: &str, value: Value) -> Value {
    let released = site.released();
    let mut document = json!({
        "apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmRuntime", "metadata": { "name": "other" },
        "spec": {
            "handler": "other",
            "artifact": { "image": released.image, "digest": released.digest },
            // None: if it is taken in spite of all, it changes no node.
            "nodeSelector": { "wasmlet.dev/none": "true" },
        },
    });
    wasmlet_e2e::set_at(&mut document, pointer, value);
    document
}

#[track_caller]
fn apply(site: &Site<'_>, document: &Value, more: &[&str]) -> Said {
    let file = site.write("runtime.yaml", &document.to_string());
    let kubectl = site.kubectl();
    kubectl.run(&[&["create", "--filename", &file, "--dry-run=server"], more].concat())
}

fn users(site: &Site<'_>) {
    let document = runtime(site, "/spec/handler", "other".into());
    // Taken from an administrator, so it is the user that is refused below.
    let said = apply(site, &document, &[]);
    assert!(said.ok, "{}", said.stderr);
    let ns = site.ns.name();
    let kubectl = site.ns.kubectl();
    kubectl.answer(&[
        "create",
        "rolebinding",
        "alice",
        "--clusterrole=admin",
        "--user=alice",
    ]);
    let said = kubectl.run(&["auth", "can-i", "create", "pods", "--as=alice"]);
    assert_eq!(said.stdout.trim(), "yes", "alice administers {ns}");
    for (verb, resource) in [
        ("create", "wasmruntimes.wasmlet.dev"),
        ("patch", "wasmruntimes.wasmlet.dev"),
        ("delete", "wasmruntimes.wasmlet.dev"),
        ("create", "wasmnodes.wasmlet.dev"),
        ("patch", "wasmnodes.wasmlet.dev/status"),
        ("create", "runtimeclasses.node.k8s.io"),
    ] {
        let said = kubectl.run(&["auth", "can-i", verb, resource, "--as=alice"]);
        assert_eq!(said.stdout.trim(), "no", "{verb} {resource}: {said:?}");
    }
    let said = apply(site, &document, &["--as=alice"]);
    assert!(!said.ok && said.stderr.contains("forbidden"), "{said:?}");
}

/// kubectl with a token and nothing else.
#[track_caller]
fn with_token(site: &Site<'_>, token: &str, arguments: &[&str]) -> Said {
    let kubectl = site.kubectl();
    let config = kubectl.answer(&["config", "view", "--raw", "--output", "json"]);
    let mut config: Value = serde_json::from_str(&config).expect("a kubeconfig");
    config["users"][0]["user"] = json!({ "token": token });
    // What kubectl prints has the files' paths, made absolute, or their contents.
    let file = site.write("token.kubeconfig", &config.to_string());
    kubectl.run(&[&["--kubeconfig", &file], arguments].concat())
}

fn agents(site: &Site<'_>) {
    let names = site.names();
    let kubectl = site.kubectl();
    let pod = site
        .try_agent(names[0])
        .unwrap_or_else(|error| panic!("{error}"));
    let account = site.get("pod", &pod)["spec"]["serviceAccountName"].clone();
    let account = account.as_str().expect("a service account").to_owned();
    let bound = kubectl.answer(&[
        "create",
        "token",
        &account,
        "--bound-object-kind=Pod",
        &format!("--bound-object-name={pod}"),
        "--duration=10m",
    ]);
    let unbound = kubectl.answer(&["create", "token", &account, "--duration=10m"]);
    let (bound, unbound) = (bound.trim(), unbound.trim());
    // It is who it should be: its own word about its own node is taken.
    let agent = site
        .wasmlet
        .node(names[0])
        .status
        .and_then(|status| status.agent);
    let version = agent.map(|agent| agent.version);
    let own = json!({ "status": { "agent": { "version": version } } });
    let phase = json!({ "status": { "phase": "Failed" } });
    let spec = json!({ "spec": { "revision": "x" } });
    let label = json!({ "metadata": { "labels": { "wasmlet.dev/ready": "true" } } });
    let wasmlet = site.wasmlet;
    let taken = wasmlet.would_take(bound, names[0], Part::Status, &own);
    assert_eq!(taken, Ok(()), "its own word");
    let kubectl = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        let said = with_token(site, bound, &words);
        if said.ok { Ok(()) } else { Err(said.stderr) }
    };
    let refused = [
        (
            "another node's status",
            wasmlet.would_take(bound, names[1], Part::Status, &own),
        ),
        (
            "its own node's phase",
            wasmlet.would_take(bound, names[0], Part::Status, &phase),
        ),
        (
            "a token of no node",
            wasmlet.would_take(unbound, names[0], Part::Status, &own),
        ),
        (
            "what its node shall have",
            wasmlet.would_take(bound, names[0], Part::Spec, &spec),
        ),
        (
            "its node's label",
            wasmlet.would_label(bound, names[0], &label),
        ),
        (
            "another node's label",
            wasmlet.would_label(bound, names[1], &label),
        ),
        ("reading secrets", kubectl("get secrets --all-namespaces")),
        ("listing pods", kubectl("get pods --all-namespaces")),
        ("running pods", kubectl("run x --image=x --dry-run=server")),
        (
            "runtimes",
            kubectl("delete wasmruntime wasm --dry-run=server"),
        ),
    ];
    for (what, outcome) in refused {
        let said = outcome.expect_err(what).to_lowercase();
        assert!(said.contains("forbidden"), "{what}: {said}");
    }
}

fn injection(site: &Site<'_>) {
    let before = Before::of(site);
    let table = "x\"]\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.evil]\nruntime_type=\"io.containerd.runc.v2\"\n#";
    let cases = [
        ("/spec/handler", json!(table), "spec.handler"),
        ("/spec/handler", json!("a.b"), "spec.handler"),
        ("/spec/handler", json!("../../etc"), "spec.handler"),
        ("/spec/engines", json!([table]), "spec.engines"),
        (
            "/spec/artifact/digest",
            json!(format!("sha256:{}\n", "a".repeat(63))),
            "spec.artifact.digest",
        ),
        (
            "/spec/artifact/image",
            json!("r/a\n:x"),
            "spec.artifact.image",
        ),
        (
            "/spec/options/compileCpus",
            json!("1\n[evil]"),
            "spec.options.compileCpus",
        ),
        ("/spec/options/Evil", json!(1), "Evil"),
    ];
    for (pointer, value, field) in cases {
        let said = apply(
            site,
            &runtime(site, pointer, value.clone()),
            &["--validate=strict"],
        );
        assert!(
            !said.ok && said.stderr.contains(field),
            "{pointer} = {value}: {said:?}"
        );
    }
    before.assert_no_restart(site);
    before.assert_same_files(site, &site.names());
}

fn nonsense(site: &Site<'_>) {
    let cases = [
        ("/spec/rollout/maxUnavailable", json!(0), "maxUnavailable"),
        (
            "/spec/rollout/maxUnavailable",
            json!("101%"),
            "maxUnavailable",
        ),
        (
            "/spec/rollout/maxUnavailable",
            json!("some"),
            "maxUnavailable",
        ),
        ("/spec/rollout/canary/nodes", json!(-1), "canary.nodes"),
        (
            "/spec/rollout/failureThreshold",
            json!(0),
            "failureThreshold",
        ),
        (
            "/spec/rollout/nodeTimeoutSeconds",
            json!(1),
            "nodeTimeoutSeconds",
        ),
        ("/spec/artifact/digest", json!("latest"), "digest"),
        ("/spec/artifact/digest", Value::Null, "digest"),
        ("/spec/engines", json!(["v8"]), "engines"),
        ("/spec/deletionPolicy", json!("Maybe"), "deletionPolicy"),
        ("/metadata/name", json!("n".repeat(64)), "metadata.name"),
    ];
    for (pointer, value, field) in cases {
        let said = apply(site, &runtime(site, pointer, value.clone()), &[]);
        assert!(
            !said.ok && said.stderr.contains(field),
            "{pointer} = {value}: {said:?}"
        );
    }
    let said = site.kubectl().run(&[
        "patch",
        "wasmruntime",
        "wasm",
        "--type=merge",
        "--patch",
        r#"{"spec":{"handler":"other"}}"#,
        "--dry-run=server",
    ]);
    assert!(!said.ok && said.stderr.contains("handler"), "{said:?}");
}
