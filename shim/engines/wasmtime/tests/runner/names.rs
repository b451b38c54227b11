//! Name lookups use the image's text files and never its code.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::guests;
use crate::support::{Container, can_run, can_run_components};

/// Puts a name service into an image that tells when it is loaded. Without a C compiler the
/// library is missing, and with it half of the test.
fn add_evil(container: &Container) -> bool {
    let root = container.rootfs();
    for folder in [
        "etc",
        "lib/x86_64-linux-gnu",
        "lib/aarch64-linux-gnu",
        "usr/lib",
        "lib64",
    ] {
        fs::create_dir_all(root.join(folder)).expect("ours");
    }
    let databases = [
        "passwd",
        "group",
        "shadow",
        "hosts",
        "services",
        "networks",
        "initgroups",
    ];
    let lines: String = databases
        .iter()
        .map(|name| format!("{name}: evil\n"))
        .collect();
    fs::write(root.join("etc/nsswitch.conf"), lines).expect("ours");
    fs::write(root.join("etc/hosts"), "10.1.2.3 somewhere\n").expect("ours");
    let source = container.path("evil.c");
    fs::write(
        &source,
        "#include <fcntl.h>\n#include <unistd.h>\n\
         __attribute__((constructor)) static void loaded(void) {\n\
           close(open(\"/run/loaded\", O_CREAT | O_WRONLY, 0666)); write(2, \"loaded\", 6); _exit(99);\n}\n",
    )
    .expect("ours");
    let library = root.join("lib64/libnss_evil.so.2");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .args([&library, &source])
        .status()
        .is_ok_and(|status| status.success());
    if built {
        for folder in [
            "lib/x86_64-linux-gnu",
            "lib/aarch64-linux-gnu",
            "usr/lib",
            "lib",
        ] {
            fs::copy(&library, root.join(folder).join("libnss_evil.so.2")).expect("ours");
        }
    } else {
        eprintln!("no C compiler: only the configuration of the name service is hostile");
    }
    built
}

#[test]
fn a_user_of_the_image_is_not_looked_up_by_its_code() {
    if !can_run() {
        return;
    }
    // Without HOME libcontainer asks for the user's home folder, inside the image.
    let mut container = Container::new(guests::exits(0));
    add_evil(&container);
    container.spec["process"]["env"] = json!([]);
    container.spec["process"]["user"] = json!({"uid": 4242, "gid": 4242});
    let (code, container) = container.run();
    assert_eq!((code, container.read("stderr").as_str()), (0, ""));
}

#[test]
fn a_guest_looks_names_up_in_the_hosts_file_of_the_image() {
    if !can_run_components() {
        return;
    }
    let container = Container::new(guests::looks_up("somewhere", [10, 1, 2, 3]));
    add_evil(&container);
    let (code, container) = container.run();
    assert_eq!((code, container.read("stderr").as_str()), (0, ""));

    let container = Container::new(guests::looks_up("elsewhere", [10, 1, 2, 3]));
    add_evil(&container);
    assert!(Path::new("/etc/hosts").exists());
    let (code, container) = container.run();
    assert_eq!(
        (code, container.read("stderr").as_str()),
        (1, ""),
        "there is no such name"
    );
}

#[test]
fn a_component_ends_although_a_lookup_is_under_way() {
    if !can_run_components() {
        return;
    }
    // A name server that never answers.
    let Ok(_silent) = UdpSocket::bind("127.0.0.77:53") else {
        eprintln!("skipped: port 53 of 127.0.0.77 is in use");
        return;
    };
    let mut container = Container::new(guests::looks_up_and_leaves("nowhere.example"));
    // The network of this test.
    container.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .truncate(4);
    fs::create_dir(container.rootfs().join("etc")).expect("ours");
    fs::write(
        container.rootfs().join("etc/resolv.conf"),
        "nameserver 127.0.0.77\noptions timeout:30 attempts:5\n",
    )
    .expect("ours");
    let mut created = container.created();
    let started = Instant::now();
    created.start();
    assert_eq!(created.wait(), 0);
    // One attempt alone takes 30 s.
    assert!(started.elapsed() < Duration::from_secs(20));
    created.delete();
}
