//! Limits, and changing them.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::engine;
use crate::guests;
use crate::support::{Container, can_run, done, eventually};

const PAGE: u64 = 65536;

#[test]
fn memory_grows_up_to_the_cap() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::grows());
    container.request.max_memory = Some(20 * PAGE + 100);
    let (code, container) = container.run();
    assert_eq!((code, container.read("stderr").as_str()), (20, ""));
}

#[test]
fn a_guest_that_gives_up_is_told_how_to_get_more() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::grows_or_traps());
    container.request.max_memory = Some(20 * PAGE);
    let (code, container) = container.run();
    let stderr = container.read("stderr");
    assert_eq!(code, 121, "{stderr}");
    assert!(stderr.contains("wasmlet.dev/memory"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_guest_that_needs_more_than_it_may_have_does_not_start() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::needs_pages(21));
    container.request.max_memory = Some(20 * PAGE);
    let (code, container) = container.run();
    let stderr = container.read("stderr");
    assert_eq!(code, 123, "{stderr}");
    assert!(
        stderr.contains(&format!("needs {} bytes", 21 * PAGE)),
        "{stderr}"
    );
    let mut container = Container::new(guests::needs_pages(20));
    container.request.max_memory = Some(20 * PAGE);
    assert_eq!(container.run().0, 0, "exactly as much is fine");
}

/// The file of a container's cgroup, on either version.
fn cgroup_file(container: &Container, v1: (&str, &str), v2: &str) -> PathBuf {
    let id = &container.request.container.id;
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        root.join("wasmlet-test").join(id).join(v2)
    } else {
        root.join(v1.0).join("wasmlet-test").join(id).join(v1.1)
    }
}

#[test]
fn limits_are_applied_and_can_be_changed() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::sleeps());
    container.spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    container.spec["linux"]["resources"]["pids"] = json!({"limit": 50});
    let mut created = container.created();
    let memory = cgroup_file(
        &created.container,
        ("memory", "memory.limit_in_bytes"),
        "memory.max",
    );
    let read = |path: &Path| {
        fs::read_to_string(path)
            .expect("it is there")
            .trim()
            .to_owned()
    };
    assert_eq!(read(&memory), (64 << 20).to_string());
    let procs = memory.with_file_name("cgroup.procs");
    assert_eq!(
        read(&procs),
        created.pid.to_string(),
        "the init and nothing else"
    );
    created.start();

    assert_eq!(
        created.control(&[
            "update",
            r#"{"memory": {"limit": 33554432}, "pids": {"limit": 9}}"#
        ]),
        done()
    );
    assert_eq!(read(&memory), (32 << 20).to_string());
    let pids = cgroup_file(&created.container, ("pids", "pids.max"), "pids.max");
    assert_eq!(read(&pids), "9");

    assert_eq!(created.control(&["pause"]), done());
    let frozen = cgroup_file(
        &created.container,
        ("freezer", "freezer.state"),
        "cgroup.freeze",
    );
    assert!(
        ["FROZEN", "1"].contains(&read(&frozen).as_str()),
        "{}",
        read(&frozen)
    );
    assert_eq!(created.control(&["resume"]), done());
    assert!(
        ["THAWED", "0"].contains(&read(&frozen).as_str()),
        "{}",
        read(&frozen)
    );

    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(created.wait(), 143);
    created.delete();
}

#[test]
fn a_running_or_paused_container_can_be_deleted() {
    if !can_run() {
        return;
    }
    for pause in [false, true] {
        let created = Container::new(guests::sleeps()).created();
        created.start();
        eventually("the guest runs", || {
            created.container.read("stdout") == "ready"
        });
        if pause {
            assert_eq!(created.control(&["pause"]), done());
        }
        let container = created.delete();
        assert_eq!(
            crate::support::control(&container.request.container, &["delete"]),
            done(),
            "once more"
        );
    }
}

#[test]
fn tables_grow_up_to_the_cap() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::grows_a_table());
    // One page is the guest's memory; 8 bytes for each element.
    container.request.max_memory = Some(PAGE + 4000 * 8);
    let (code, container) = container.run();
    assert_eq!(
        (code, container.read("stderr").as_str()),
        (engine::TABLE_GROWS_TO, "")
    );
}
