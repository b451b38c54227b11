//! What a guest can reach, and what not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use crate::engine;
use crate::guests;
use crate::support::{Container, can_run};

/// `oflags` and rights of path_open.
const CREATE: u32 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 6;

/// These, and what the engine has besides.
fn preopens(names: &[&'static str]) -> Vec<&'static str> {
    let (before, after) = engine::MORE_PREOPENS;
    [before, names, after].concat()
}

#[test]
fn preopens_are_the_mounts_and_the_images_own_folders() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::tells_preopens());
    for folder in ["etc", "app", "proc", "sys", "data"] {
        fs::create_dir(container.rootfs().join(folder)).expect("ours");
    }
    fs::write(container.rootfs().join("a-file"), "").expect("ours");
    symlink("app", container.rootfs().join("link")).expect("ours");
    symlink("/proc", container.rootfs().join("trick")).expect("ours");
    symlink("/", container.rootfs().join("slash")).expect("ours");
    symlink("/dev", container.rootfs().join("devices")).expect("ours");
    let volume = tempfile::tempdir().expect("a folder");
    container.spec["mounts"].as_array_mut().expect("a list").push(json!({
        "destination": "/data/deep", "type": "bind", "source": volume.path(), "options": ["rbind"],
    }));
    container.spec["process"]["cwd"] = json!("/app/made/here");
    let (code, container) = container.run();
    assert_eq!(code, 0);
    let names = container.read("stdout");
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(
        names,
        preopens(&[
            "/app",
            "/data",
            "/data/deep",
            "/dev/shm",
            "/etc",
            "/link",
            "/run",
            "."
        ])
    );
    assert!(
        container.rootfs().join("app/made/here").is_dir(),
        "the working folder is made"
    );
}

#[test]
fn an_empty_image_works_even_when_it_is_read_only() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::tells_preopens());
    container.spec["root"]["readonly"] = json!(true);
    let (code, container) = container.run();
    assert_eq!(code, 0, "{}", container.read("stderr"));
    let names = container.read("stdout");
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names, preopens(&["/dev/shm", "/run"]));
}

#[track_caller]
fn opened(container: Container) -> bool {
    let (code, container) = container.run();
    assert_eq!(container.read("stderr"), "");
    assert!(code == 0 || (3..100).contains(&code), "{code}");
    code != 0
}

#[test]
fn files_of_the_image_can_be_read_and_written() {
    if !can_run() {
        return;
    }
    let container = Container::new(guests::opens("file", 0, READ));
    fs::create_dir(container.rootfs().join("app")).expect("ours");
    fs::write(container.rootfs().join("app/file"), "").expect("ours");
    assert!(opened(container));
    let container = Container::new(guests::opens("new", CREATE, READ | WRITE));
    fs::create_dir(container.rootfs().join("app")).expect("ours");
    assert!(opened(container));
}

#[test]
fn a_read_only_mount_cannot_be_written() {
    if !can_run() {
        return;
    }
    for option in ["ro", "rw"] {
        let volume = tempfile::tempdir().expect("a folder");
        fs::write(volume.path().join("file"), "").expect("ours");
        for (guest, works) in [
            (guests::opens("file", 0, READ), true),
            (guests::opens("file", 0, READ | WRITE), option == "rw"),
            (guests::opens("new", CREATE, READ | WRITE), option == "rw"),
        ] {
            let mut container = Container::new(guest);
            container.spec["mounts"] = json!([{
                "destination": "/data", "type": "bind", "source": volume.path(),
                "options": ["rbind", option],
            }]);
            assert_eq!(opened(container), works, "{option}");
        }
        assert_eq!(volume.path().join("new").exists(), option == "rw");
    }
}

#[test]
fn a_read_only_root_file_system_cannot_be_written() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::opens("new", CREATE, READ | WRITE));
    fs::create_dir(container.rootfs().join("app")).expect("ours");
    container.spec["root"]["readonly"] = json!(true);
    container.spec["mounts"] = json!([]);
    assert!(!opened(container));
}

#[test]
fn file_permissions_are_those_of_the_user() {
    if !can_run() {
        return;
    }
    for (uid, works) in [(0, true), (1000, false)] {
        let mut container = Container::new(guests::opens("secret", 0, READ));
        let app = container.rootfs().join("app");
        fs::create_dir(&app).expect("ours");
        fs::write(app.join("secret"), "").expect("ours");
        fs::set_permissions(app.join("secret"), fs::Permissions::from_mode(0o600)).expect("ours");
        container.spec["process"]["user"] = json!({"uid": uid, "gid": uid});
        assert_eq!(opened(container), works, "user {uid}");
    }
}

#[test]
fn nothing_of_the_kernel_and_of_the_node_can_be_opened() {
    if !can_run() {
        return;
    }
    for path in [
        "proc/self/mem",
        "../proc/self/mem",
        "../../proc/1/mem",
        "self/mem",
        "1/maps",
        "../dev/null",
        "null",
        "mem",
        "dev/zero",
        "../sys/kernel",
        "kernel",
        "fd/4",
        "../../etc/shadow",
        "to-proc/self/mem",
        "to-root/proc/self/mem",
        "up/dev/null",
    ] {
        let container = Container::new(guests::opens(path, 0, READ));
        let app = container.rootfs().join("app");
        fs::create_dir(&app).expect("ours");
        symlink("/proc", app.join("to-proc")).expect("ours");
        symlink("/", app.join("to-root")).expect("ours");
        symlink("..", app.join("up")).expect("ours");
        assert!(!opened(container), "{path}");
    }
}

#[test]
fn the_working_folder_may_be_one_that_the_user_cannot_enter() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::tells_preopens());
    let root = container.rootfs().join("root");
    fs::create_dir(&root).expect("ours");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).expect("ours");
    container.spec["process"]["cwd"] = json!("/root");
    container.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    container.spec["process"]["capabilities"] = json!({"bounding": [], "effective": [],
        "permitted": [], "inheritable": [], "ambient": []});
    let mut created = container.created();
    let cwd = fs::read_link(format!("/proc/{}/cwd", created.pid)).expect("it waits");
    assert_eq!(cwd, std::path::Path::new("/root"));
    created.start();
    assert_eq!(created.wait(), 0);
    let container = created.delete();
    // As under runc: it is there, and no file in it can be opened.
    let names = container.read("stdout");
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names, preopens(&["/dev/shm", "/root", "/run", "."]));
}

#[test]
fn a_mounted_file_that_no_folder_of_the_guest_has_is_told() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::exits(0));
    let file = container.path("config.json.here");
    fs::write(&file, "{}").expect("ours");
    for destination in ["/config.json", "/app/config.json", "/dev/termination-log"] {
        container.spec["mounts"]
            .as_array_mut()
            .expect("a list")
            .push(json!({
                "destination": destination, "type": "bind", "source": file, "options": ["bind"],
            }));
    }
    let mut created = container.created();
    let told: Vec<_> = created
        .warnings
        .iter()
        .filter(|w| w.contains("cannot reach the file"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("/config.json;") || told[0].contains("/config.json:"),
        "{told:?}"
    );
    created.start();
    assert_eq!(created.wait(), 0);
    created.delete();
}
