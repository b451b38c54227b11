//! Hooks of every kind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use wasmlet_protocol::{ControlReply, FailureReason};

use crate::guests;
use crate::support::{Container, can_run, done};

/// A hook that notes its name and what it was told.
fn notes(folder: &Path, name: &str) -> Value {
    let script = format!(
        "read -r state; echo {name} >> {folder}/hooks; echo \"$state\" > {folder}/state-{name}",
        folder = folder.display()
    );
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
}

#[test]
fn hooks_run_in_their_order_and_are_told_the_state() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::exits(0));
    let folder = container.folder.path().to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("ours");
    container.spec["hooks"] = json!({
        "prestart": notes(&folder, "prestart"),
        "createRuntime": notes(&folder, "createRuntime"),
        "createContainer": notes(&folder, "createContainer"),
        "poststart": notes(&folder, "poststart"),
        "poststop": notes(&folder, "poststop"),
    });
    let mut created = container.created();
    assert_eq!(
        created.container.read("hooks"),
        "prestart\ncreateRuntime\ncreateContainer\n"
    );
    assert_eq!(created.control(&["start"]), done());
    assert_eq!(created.wait(), 0);
    assert!(
        created
            .container
            .read("hooks")
            .ends_with("createContainer\npoststart\n")
    );
    let pid = created.pid;
    let container = created.delete();
    assert!(container.read("hooks").ends_with("poststart\npoststop\n"));

    let state: Value =
        serde_json::from_str(&container.read("state-createRuntime")).expect("the state is JSON");
    assert_eq!(state["id"], json!(container.request.container.id));
    assert_eq!(state["pid"], json!(pid));
    let bundle = state["bundle"].as_str().expect("a path");
    assert!(bundle.starts_with(&*folder.to_string_lossy()), "{bundle}");
    let state: Value =
        serde_json::from_str(&container.read("state-poststop")).expect("the state is JSON");
    assert_eq!(state["status"], json!("stopped"));
}

/// A hook inside the container needs a program inside the container.
fn with_shell(container: &Container) {
    for folder in ["bin", "lib", "lib64", "usr"] {
        fs::create_dir_all(container.rootfs().join(folder)).expect("ours");
    }
    let busybox = Path::new("/bin/busybox");
    let target = container.rootfs().join("bin/sh");
    if busybox.exists() {
        fs::copy(busybox, target).expect("ours");
    }
}

#[test]
fn start_hooks_run_in_the_container() {
    if !can_run() {
        return;
    }
    if !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: needs a static /bin/busybox");
        return;
    }
    let mut container = Container::new(guests::exits(0));
    with_shell(&container);
    container.spec["hooks"] = json!({"startContainer": [
        {"path": "/bin/sh", "args": ["sh", "-c", "read -r state; echo \"$state\" > /note"]},
    ]});
    let (code, container) = container.run();
    assert_eq!(code, 0, "{}", container.read("stderr"));
    let note = fs::read_to_string(container.rootfs().join("note")).expect("the hook ran");
    let state: Value = serde_json::from_str(&note).expect("the state is JSON");
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("created"), &json!(1))
    );
}

#[test]
fn a_start_hook_that_fails_fails_the_start() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::writes(1, "ran"));
    container.spec["hooks"] = json!({"startContainer": [{"path": "/not/there"}]});
    let (code, container) = container.run();
    assert_eq!((code, container.read("stdout").as_str()), (125, ""));
    let stderr = container.read("stderr");
    assert!(stderr.contains("startContainer hook"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn hooks_that_fail_fail_the_creation() {
    if !can_run() {
        return;
    }
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut container = Container::new(guests::exits(0));
        container.spec["hooks"] =
            json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
        let (failure, _) = container.fail();
        assert_eq!(failure.reason, FailureReason::Internal);
        assert!(failure.message.contains("hook"), "{}", failure.message);
        assert!(failure.message.contains('3'), "{}", failure.message);
    }
}

#[test]
fn a_poststop_hook_that_fails_is_told_and_stops_nothing() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::exits(0));
    let folder = container.folder.path().to_owned();
    container.spec["hooks"] = json!({"poststop": [
        {"path": "/bin/false"},
        notes(&folder, "second")[0],
        {"path": "/not/there"},
        notes(&folder, "last")[0],
    ]});
    let mut created = container.created();
    created.start();
    assert_eq!(created.wait(), 0);
    let ControlReply::Done { warnings } = created.control(&["delete"]) else {
        panic!("a hook stopped the deletion");
    };
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("poststop hook /bin/false") && warnings[0].contains('1'),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("/not/there"), "{warnings:?}");
    assert_eq!(created.container.read("hooks"), "second\nlast\n");
    created.container.assert_nothing_left();
    created.delete();
}
