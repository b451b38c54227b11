//! Requests and specs that cannot work: each fails with its reason, and nothing is left.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use wasmlet_protocol::{ControlReply, FailureReason};

use crate::engine;
use crate::guests;
use crate::support::{Container, can_run, control, done};

fn container() -> Container {
    Container::new(guests::exits(0))
}

#[track_caller]
fn fails(container: Container, reason: FailureReason, part: &str) {
    let (failure, container) = container.fail();
    assert_eq!(failure.reason, reason, "{}", failure.message);
    assert!(
        failure.message.contains(part),
        "{part:?} is not in {:?}",
        failure.message
    );
    assert!(!failure.message.contains('\n'), "{:?}", failure.message);
    assert_eq!(container.read("stderr"), "", "stderr is the container's");
}

#[test]
fn missing_sections_are_named() {
    if !can_run() {
        return;
    }
    for section in ["root", "process", "linux"] {
        let mut container = container();
        container
            .spec
            .as_object_mut()
            .expect("an object")
            .remove(section);
        fails(container, FailureReason::InvalidArgument, section);
    }
    let mut empty = container();
    empty.spec = json!({});
    fails(empty, FailureReason::InvalidArgument, "ociVersion");
    let mut list = container();
    list.spec = json!([1, 2]);
    fails(list, FailureReason::InvalidArgument, "config.json");
}

#[test]
fn folders_of_the_kernel_must_not_be_links() {
    if !can_run() {
        return;
    }
    for name in ["dev", "proc", "sys"] {
        let canary = tempfile::tempdir().expect("a folder");
        let container = container();
        symlink(canary.path(), container.rootfs().join(name)).expect("a link");
        fails(
            container,
            FailureReason::InvalidArgument,
            &format!("/{name} is not a real folder"),
        );
        assert_eq!(fs::read_dir(canary.path()).expect("it is there").count(), 0);
    }
}

#[test]
fn ways_to_the_node_are_refused() {
    if !can_run() {
        return;
    }
    for (source, option, part) in [
        ("/proc", "rbind", "is on a proc"),
        ("/", "rbind", "below it"),
        ("/dev/zero", "bind", "is a device"),
        ("/dev", "rbind", "device tree"),
        ("/not/there", "bind", "/not/there"),
    ] {
        let mut container = container();
        container.spec["mounts"]
            .as_array_mut()
            .expect("a list")
            .push(json!({
                "destination": "/x", "type": "bind", "source": source, "options": [option],
            }));
        fails(container, FailureReason::InvalidArgument, part);
    }
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    if !can_run() {
        return;
    }
    let mut profile = container();
    profile.request.profile = "fast".to_owned();
    fails(
        profile,
        FailureReason::InvalidArgument,
        "no profile \"fast\"",
    );

    let mut protocol = container();
    protocol.request.protocol = 99;
    fails(protocol, FailureReason::Internal, "protocol 99");

    let mut id = container();
    id.request.container.id = "../x".to_owned();
    fails(id, FailureReason::InvalidArgument, "../x");

    let mut rootfs = container();
    rootfs.request.rootfs = "/not/there".into();
    fails(rootfs, FailureReason::Internal, "/not/there");

    if !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        let mut profile = container();
        profile.spec["process"]["apparmorProfile"] = json!("some-profile");
        fails(
            profile,
            FailureReason::InvalidArgument,
            "AppArmor is not enabled",
        );
    }

    let mut users = container();
    users.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"type": "user"}));
    users.spec["linux"]["uidMappings"] =
        json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    users.spec["linux"]["gidMappings"] = users.spec["linux"]["uidMappings"].clone();
    fails(users, FailureReason::Unsupported, "systemd cgroup driver");

    let mut cwd = container();
    cwd.spec["process"]["cwd"] = json!("relative");
    fails(cwd, FailureReason::InvalidArgument, "relative");
}

#[test]
fn an_entry_point_that_is_not_there_fails_the_creation() {
    if !can_run() {
        return;
    }
    fails(
        Container::new(guests::library()),
        FailureReason::InvalidArgument,
        "exports no _start, so it is not a command; name one of its functions as PATH#FUNCTION: \
         _initialize, work, takes",
    );
    for (name, part) in [
        ("nothing", "exports no function nothing"),
        ("takes", "takes 1 parameters"),
        ("number", "is not a function"),
    ] {
        let mut container = Container::new(guests::library());
        container.request.invoke = Some(name.to_owned());
        fails(container, FailureReason::InvalidArgument, part);
    }
    if !engine::COMPONENTS {
        return;
    }
    fails(
        Container::new(guests::library_component()),
        FailureReason::InvalidArgument,
        "wasi:cli/run",
    );
    for (name, part) in [
        (
            "nothing",
            "exports no function nothing; it exports my:own/api, ok, takes",
        ),
        ("takes", "takes 1 parameters"),
        ("my:own/api", "is not a function"),
    ] {
        let mut container = Container::new(guests::library_component());
        container.request.invoke = Some(name.to_owned());
        fails(container, FailureReason::InvalidArgument, part);
    }
}

#[test]
fn what_libcontainer_cannot_do_is_told_with_its_cause() {
    if !can_run() {
        return;
    }
    let mut netns = container();
    netns.spec["linux"]["namespaces"][4] = json!({"type": "network", "path": "/not/there/net"});
    fails(netns, FailureReason::Internal, "/not/there/net");

    let mut cgroup = container();
    cgroup.spec["linux"]["resources"]["memory"] = json!({"limit": 1, "swap": 1});
    let (failure, _) = cgroup.fail();
    assert!(!failure.message.is_empty());
}

#[test]
fn a_working_folder_that_cannot_be_entered_is_named() {
    if !can_run() {
        return;
    }
    let mut container = container();
    fs::write(container.rootfs().join("file"), "").expect("a file");
    container.spec["process"]["cwd"] = json!("/file/x");
    fails(
        container,
        FailureReason::InvalidArgument,
        "the working folder /file/x cannot be entered: a part of it is a file",
    );
    let mut read_only = self::container();
    read_only.spec["process"]["cwd"] = json!("/dev/shm/missing");
    fails(
        read_only,
        FailureReason::InvalidArgument,
        "the working folder /dev/shm/missing cannot be entered: there is no such folder",
    );
}

#[test]
fn a_second_container_of_that_name_is_refused_and_the_first_lives() {
    if !can_run() {
        return;
    }
    let first = container().created();
    let mut second = container();
    second.request.container = first.container.request.container.clone();
    let Err(refused) = second.create() else {
        panic!("it was created")
    };
    let failure = refused.0;
    assert_eq!(failure.reason, FailureReason::InvalidArgument);
    assert!(
        failure.message.contains("exists already"),
        "{}",
        failure.message
    );
    let mut first = first;
    first.start();
    assert_eq!(first.wait(), 0);
    first.delete();
}

#[test]
fn verbs_for_a_container_that_is_not_there() {
    if !can_run() {
        return;
    }
    let container = container();
    let reference = &container.request.container;
    assert_eq!(
        control(reference, &["delete"]),
        done(),
        "delete can be repeated"
    );
    for words in [&["start"][..], &["pause"], &["resume"], &["update", "{}"]] {
        match control(reference, words) {
            ControlReply::Failed(failure) => {
                assert_eq!(failure.reason, FailureReason::NotFound, "{words:?}");
            }
            ControlReply::Done { .. } => panic!("{words:?} is done"),
        }
    }
}
