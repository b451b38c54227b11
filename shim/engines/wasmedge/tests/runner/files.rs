//! What a guest finds around it. WasmEdge tells folders without the slash in front; WASI's C library takes
//! them as it takes others.

use std::fs;

use serde_json::json;

use crate::guests;
use crate::support::{Container, can_run};

#[test]
fn arguments_environment_and_streams_are_the_containers() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::tells_arguments_and_environment());
    container.request.args = vec!["guest.wasm".to_owned(), "one two".to_owned()];
    let (code, container) = container.run();
    assert_eq!(code, 0, "{}", container.read("stderr"));
    let said = container.read("stdout");
    assert!(said.starts_with("guest.wasm\0one two\0"), "{said:?}");
    assert!(said.contains("GREETING=hello\0"), "{said:?}");

    let container = Container::new(guests::copies_stdin());
    fs::write(container.path("stdin"), "from outside").expect("written");
    let (code, container) = container.run();
    assert_eq!(
        (code, container.read("stdout").as_str()),
        (0, "from outside")
    );
}

#[test]
fn folders_are_the_mounts_and_the_images_own() {
    if !can_run() {
        return;
    }
    let container = Container::new(guests::tells_preopens());
    fs::create_dir_all(container.rootfs().join("app")).expect("a folder");
    let (code, container) = container.run();
    assert_eq!(code, 0);
    let said = container.read("stdout");
    let mut names: Vec<&str> = said.lines().collect();
    // The library sorts them by address.
    names.sort_unstable();
    assert_eq!(names, ["app", "dev/shm", "run"]);
}

#[test]
fn a_folder_that_cannot_be_written_down_fails_the_start() {
    if !can_run() {
        return;
    }
    let container = Container::new(guests::writes(1, "ran"));
    fs::create_dir_all(container.rootfs().join("a:etc")).expect("a folder");
    let (code, container) = container.run();
    assert_eq!((code, container.read("stdout").as_str()), (125, ""));
    let stderr = container.read("stderr");
    assert!(
        stderr.contains("a:etc") && stderr.contains("colon"),
        "{stderr}"
    );
}

#[test]
fn another_user_runs_a_guest() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::writes(1, "hello"));
    container.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let (code, container) = container.run();
    assert_eq!(
        (code, container.read("stdout").as_str()),
        (0, "hello"),
        "{}",
        container.read("stderr")
    );
}

#[test]
fn a_function_is_called_by_name_after_initialize() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (global $n (mut i32) (i32.const 1))
          (func (export "_initialize") (global.set $n (i32.const 9)))
          (func (export "run") (result i64) (call $exit (global.get $n)) (i64.const 5)))"#,
    );
    container.request.invoke = Some("run".to_owned());
    assert_eq!(container.run().0, 9);
}
