//! What a pod's specification gives to a guest: environment, files, identity, limits of what it may do.

use serde_json::json;
use wasmlet_e2e::{Container, Ended, Namespace, Pod, PodSpec};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("the_environment_comes_from_objects_and_fields", environment).ci(),
    Case::new(
        "arguments_command_and_working_folder_are_the_pods",
        arguments_and_folder,
    ),
    Case::new("config_maps_secrets_and_folders_are_mounted", mounts).ci(),
    Case::new(
        "a_config_map_that_changes_changes_for_the_guest",
        changed_config_map,
    ),
    Case::new("a_token_is_projected", token),
    Case::new("a_path_of_the_node_is_mounted", host_path),
    Case::new("a_volumes_group_lets_the_user_write", user_and_group).ci(),
    Case::new("a_read_only_root_stays_as_it_is", read_only_root),
    Case::new("a_restricted_namespace_takes_a_guest", restricted)
        .namespace_labels(&[("pod-security.kubernetes.io/enforce", "restricted")])
        .ci(),
];

#[track_caller]
fn assert_completed(pod: &Pod<'_>, ended: &Ended) {
    assert_eq!(
        (ended.code, ended.reason.as_str()),
        (0, "Completed"),
        "{}: {ended:?}",
        pod.name()
    );
}

/// Runs `tests/guests/programs/files.c` with these arguments; gives what it says, a line for each.
#[track_caller]
fn files(ns: &Namespace, pod: PodSpec, guest: Container, arguments: &[&str]) -> Vec<String> {
    let (pod, ended) = ns.run_pod(pod.container(guest.args(arguments)));
    assert_completed(&pod, &ended);
    pod.logs("guest").lines().map(str::to_owned).collect()
}

fn guest(ns: &Namespace) -> Container {
    Container::new("guest", &ns.cluster().guest("files"))
}

#[track_caller]
fn assert_has(lines: &[String], line: &str) {
    assert!(
        lines.iter().any(|known| known == line),
        "no {line:?} in {lines:?}"
    );
}

/// The guest was not let; which error it is told depends on the engine.
#[track_caller]
fn assert_refused(lines: &[String], what: &str) {
    let start = format!("{what}: ");
    let line = lines.iter().find_map(|line| line.strip_prefix(&start));
    let known = ["EROFS", "EPERM", "EACCES"];
    assert!(
        line.is_some_and(|error| known.contains(&error)),
        "{what} in {lines:?}"
    );
}

fn environment(ns: &Namespace) {
    ns.config_map_of_text("settings", &[("colour", "green"), ("SIZE", "large")]);
    ns.secret("secrets", &[("password", "a=b c\"d")]);
    let guest = Container::new("guest", &ns.cluster().guest("context"))
        .limits("64Mi", "250m")
        .env("PLAIN", "one $(COLOUR) two")
        .env_from(
            "COLOUR",
            json!({ "configMapKeyRef": { "name": "settings", "key": "colour" } }),
        )
        .env("AFTER", "one $(COLOUR) two")
        .env_from(
            "PASSWORD",
            json!({ "secretKeyRef": { "name": "secrets", "key": "password" } }),
        )
        .env_from(
            "POD",
            json!({ "fieldRef": { "fieldPath": "metadata.name" } }),
        )
        .env_from(
            "NODE",
            json!({ "fieldRef": { "fieldPath": "spec.nodeName" } }),
        )
        .env_from(
            "ADDRESS",
            json!({ "fieldRef": { "fieldPath": "status.podIP" } }),
        )
        .env_from(
            "LIMIT",
            json!({ "resourceFieldRef": { "resource": "limits.memory" } }),
        )
        .set(
            "/envFrom",
            json!([{ "configMapRef": { "name": "settings" }, "prefix": "S_" }]),
        );
    let (pod, ended) = ns.run_pod(PodSpec::wasm("pod").container(guest));
    assert_completed(&pod, &ended);
    let lines: Vec<_> = pod.logs("guest").lines().map(str::to_owned).collect();
    for line in [
        "env COLOUR=green",
        "env AFTER=one green two",
        "env PASSWORD=a=b c\"d",
        "env S_SIZE=large",
        "env S_colour=green",
        "env POD=pod",
        "env LIMIT=67108864",
        &format!("env NODE={}", pod.node()),
        &format!("env ADDRESS={}", pod.ip()),
        "env HOSTNAME=pod",
    ] {
        assert_has(&lines, line);
    }
}

fn arguments_and_folder(ns: &Namespace) {
    let image = ns.cluster().guest("context");
    ns.config_map_of_text("here", &[("here.txt", "found\n")]);
    let guest = Container::new("guest", &image)
        .command(["/guest.wasm", "first"])
        .args(["second $(NAME)", "", "drei"])
        .env("NAME", "value")
        .mount("here", "/work")
        .set("/workingDir", "/work");
    let pod = PodSpec::wasm("command")
        .volume("here", json!({ "configMap": { "name": "here" } }))
        .container(guest);
    let (pod, ended) = ns.run_pod(pod);
    assert_completed(&pod, &ended);
    let lines: Vec<_> = pod.logs("guest").lines().map(str::to_owned).collect();
    for line in [
        "arg first",
        "arg second value",
        "arg ",
        "arg drei",
        "here found",
    ] {
        assert_has(&lines, line);
    }
    let wrong = Container::new("guest", &image).command(["/not-there.wasm"]);
    let pod = ns.start(PodSpec::wasm("wrong").container(wrong));
    let ended = pod.until_ended();
    assert_eq!(ended.reason, "StartError", "{ended:?}");
    assert!(ended.message.contains("/not-there.wasm"), "{ended:?}");
}

fn mounts(ns: &Namespace) {
    ns.config_map_of_text(
        "config",
        &[("a.txt", "from a ConfigMap\n"), ("b.txt", "b\n")],
    );
    ns.secret("secret", &[("key", "from a Secret\n")]);
    let pod = PodSpec::wasm("pod")
        .volume("config", json!({ "configMap": { "name": "config" } }))
        .volume(
            "secret",
            json!({ "secret": { "secretName": "secret", "defaultMode": 0o400 } }),
        )
        .volume(
            "memory",
            json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
        )
        .empty_dir("empty");
    let guest = guest(ns)
        .mount("config", "/config")
        .mount("secret", "/secret")
        .mount("memory", "/memory")
        .mount("empty", "/empty")
        .set(
            "/volumeMounts/-",
            json!({ "name": "config", "mountPath": "/data/only-b.txt", "subPath": "b.txt" }),
        )
        .set(
            "/volumeMounts/-",
            json!({ "name": "empty", "mountPath": "/below", "subPath": "one/two" }),
        )
        .set(
            "/volumeMounts/-",
            json!({ "name": "empty", "mountPath": "/read-only", "readOnly": true }),
        );
    let lines = files(
        ns,
        pod,
        guest,
        &[
            "read",
            "/config/a.txt",
            "write",
            "/config/a.txt",
            "x",
            "read",
            "/secret/key",
            "write",
            "/memory/m",
            "in memory",
            "read",
            "/memory/m",
            "read",
            "/data/only-b.txt",
            "write",
            "/below/file",
            "below",
            "read",
            "/empty/one/two/file",
            "write",
            "/read-only/x",
            "x",
            "read",
            "/read-only/one/two/file",
        ],
    );
    for line in [
        "read /config/a.txt: ok from a ConfigMap",
        "read /secret/key: ok from a Secret",
        "read /memory/m: ok in memory",
        "read /data/only-b.txt: ok b",
        "write /below/file: ok",
        "read /empty/one/two/file: ok below",
        "read /read-only/one/two/file: ok below",
    ] {
        assert_has(&lines, line);
    }
    assert_refused(&lines, "write /config/a.txt");
    assert_refused(&lines, "write /read-only/x");
}

/// The kubelet replaces a link in the mounted folder; the guest that runs must see the new file.
fn changed_config_map(ns: &Namespace) {
    ns.config_map_of_text("config", &[("a.txt", "before\n")]);
    let image = ns.cluster().guest("files");
    let pod = |name: &str| {
        PodSpec::wasm(name)
            .restart_policy("Always")
            .volume("config", json!({ "configMap": { "name": "config" } }))
            .container(
                Container::new("guest", &image)
                    .mount("config", "/config")
                    .args(["read", "/config/a.txt", "list", "/config"]),
            )
    };
    let pod = ns.start(pod("pod"));
    pod.until("ended once", wasmlet_e2e::LONG, |object| {
        let status = object
            .status
            .as_ref()?
            .container_statuses
            .as_ref()?
            .first()?;
        (status.restart_count > 0).then_some(())
    });
    pod.until_previous_log("guest", "read /config/a.txt: ok before\n");
    ns.patch(
        ("v1", "ConfigMap", "config"),
        &json!({ "data": { "a.txt": "after\n" } }),
    );
    // An annotation makes the kubelet look at once, instead of within a minute.
    let touched = json!({ "metadata": { "annotations": { "example.org/touched": "yes" } } });
    ns.patch(("v1", "Pod", "pod"), &touched);
    wasmlet_e2e::eventually(
        "a restarted guest reads the new text",
        wasmlet_e2e::LONG,
        || {
            let log = pod.logs("guest");
            if log.contains("read /config/a.txt: ok after\n") {
                Ok(())
            } else {
                Err(log)
            }
        },
    );
}

fn token(ns: &Namespace) {
    let pod = PodSpec::wasm("pod").volume(
        "token",
        json!({ "projected": { "sources": [
            { "serviceAccountToken": { "path": "token", "expirationSeconds": 600 } },
            { "configMap": { "name": "kube-root-ca.crt" } },
            { "downwardAPI": { "items": [{
                "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" },
            }] } },
        ] } }),
    );
    let guest = guest(ns).mount_read_only("token", "/projected");
    let arguments = [
        "read",
        "/projected/token",
        "read",
        "/projected/ca.crt",
        "read",
        "/projected/namespace",
    ];
    let lines = files(ns, pod, guest, &arguments);
    assert!(
        lines[0].starts_with("read /projected/token: ok eyJ"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("-----BEGIN CERTIFICATE-----"),
        "{lines:?}"
    );
    assert_has(
        &lines,
        &format!("read /projected/namespace: ok {}", ns.name()),
    );
}

fn host_path(ns: &Namespace) {
    let pod = PodSpec::wasm("pod").volume(
        "etc",
        json!({ "hostPath": { "path": "/etc", "type": "Directory" } }),
    );
    let guest = guest(ns).mount_read_only("etc", "/node/etc");
    let lines = files(
        ns,
        pod,
        guest,
        &["stat", "/node/etc/passwd", "write", "/node/etc/x", "x"],
    );
    assert_has(&lines, "stat /node/etc/passwd: ok");
    assert_refused(&lines, "write /node/etc/x");
}

fn user_and_group(ns: &Namespace) {
    let look = Container::shell("look", &ns.cluster().busybox(), "sleep 3600").mount("v", "/v");
    let guest =
        guest(ns)
            .mount("v", "/v")
            .args(["write", "/v/file", "x", "write", "/data/file", "x"]);
    let pod = PodSpec::wasm("pod")
        .empty_dir("v")
        .set(
            "/spec/securityContext",
            json!({ "runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456 }),
        )
        .container(guest)
        .container(look);
    let pod = ns.start(pod);
    let ended = pod.until_container_ended("guest");
    assert_completed(&pod, &ended);
    let lines: Vec<_> = pod.logs("guest").lines().map(str::to_owned).collect();
    assert_has(&lines, "write /v/file: ok");
    // A folder of the image that belongs to root.
    assert_refused(&lines, "write /data/file");
    pod.until_running("look");
    let listed = pod.exec("look", &["stat", "-c", "%u %g", "/v/file"]);
    // The folder's group is inherited.
    assert_eq!(listed.stdout, "1234 3456\n", "{listed:?}");
}

fn read_only_root(ns: &Namespace) {
    let guest = guest(ns)
        .mount("tmp", "/tmp")
        .set("/securityContext/readOnlyRootFilesystem", true);
    let pod = PodSpec::wasm("pod").empty_dir("tmp");
    let lines = files(
        ns,
        pod,
        guest,
        &["write", "/data/x", "x", "write", "/tmp/x", "x"],
    );
    assert_refused(&lines, "write /data/x");
    assert_has(&lines, "write /tmp/x: ok");
}

fn restricted(ns: &Namespace) {
    let hello = Container::new("hello", &ns.cluster().guest("hello"));
    let careless = PodSpec::wasm("careless").container(hello.clone());
    let refusal = ns
        .try_create(careless.into_value())
        .expect_err("the namespace refuses");
    assert!(refusal.contains("violates PodSecurity"), "{refusal}");
    let hello = hello.set(
        "/securityContext",
        json!({
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        }),
    );
    let (pod, ended) = ns.run_pod(PodSpec::wasm("careful").container(hello));
    assert_completed(&pod, &ended);
    assert!(pod.logs("hello").contains("hello from the guest\n"));
}
