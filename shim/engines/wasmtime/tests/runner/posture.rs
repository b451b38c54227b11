//! The process in which a guest runs, seen from outside.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::engine;
use crate::guests;
use crate::support::{Container, Created, can_run, eventually};

/// A field of `/proc/PID/status`.
pub(crate) fn status(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn running(change: impl FnOnce(&mut Container)) -> Created {
    let mut container = Container::new(guests::sleeps());
    change(&mut container);
    let created = container.created();
    created.start();
    eventually("the guest runs", || {
        created.container.read("stdout") == "ready"
    });
    created
}

fn stop(mut created: Created) {
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(created.wait(), 143);
    created.delete();
}

#[test]
fn a_guest_runs_locked_in() {
    if !can_run() {
        return;
    }
    let created = running(|_| {});
    let pid = created.pid;
    let field = |name| status(pid, name).unwrap_or_default();
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID: bits 0, 1, 3, 4
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), "000000000000001b", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("Threads"), engine::THREADS);
    assert_eq!(field("Name"), "wasmlet guest.w");
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert!(
        line.trim_end_matches('\0')
            .starts_with("wasmlet /guest.wasm"),
        "{line:?}"
    );
    assert!(!line.contains("run-wasm"), "{line:?}");
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    assert!(
        environment.iter().all(|byte| *byte == 0),
        "the runner's environment is wiped"
    );
    let parent = field("PPid");
    assert_eq!(
        parent,
        std::process::id().to_string(),
        "no process is left in between"
    );
    stop(created);
}

#[test]
fn only_listed_descriptors_are_open() {
    if !can_run() {
        return;
    }
    let created = running(|_| {});
    let mut open = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", created.pid)).expect("it runs") {
        let path = entry.expect("it runs").path();
        let number: i32 = path
            .file_name()
            .and_then(|n| n.to_str()?.parse().ok())
            .expect("a number");
        let target = fs::read_link(&path)
            .expect("it is open")
            .to_string_lossy()
            .into_owned();
        let known = number <= 2
            || target.contains("(deleted)") && number == 4
            || target.starts_with("anon_inode:")
            // the preopened folders
            || target == "/dev/shm"
            || target == "/run"
            // the random numbers of a static program
            || target == "/dev/urandom";
        assert!(known, "{number} is {target}");
        open.insert(number);
    }
    assert!(open.is_superset(&BTreeSet::from([0, 1, 2, 4])), "{open:?}");
    stop(created);
}

#[test]
fn no_kernel_file_system_is_mounted() {
    if !can_run() {
        return;
    }
    let created = running(|container| {
        container.spec["linux"]["devices"] =
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
    });
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", created.pid)).expect("it runs");
    for line in mounts.lines() {
        let kind = line
            .split_once(" - ")
            .and_then(|(_, r)| r.split(' ').next())
            .unwrap_or("");
        assert!(
            ![
                "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "devtmpfs"
            ]
            .contains(&kind),
            "{line}"
        );
    }
    stop(created);
}

#[test]
fn users_and_groups_are_those_of_the_spec() {
    if !can_run() {
        return;
    }
    let created = running(|container| {
        container.spec["process"]["user"] =
            json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 1002]});
    });
    let field = |name| status(created.pid, name).unwrap_or_default();
    assert_eq!(field("Uid").split_whitespace().next(), Some("1000"));
    assert_eq!(field("Gid").split_whitespace().next(), Some("1001"));
    assert_eq!(field("Groups"), "5 1002");
    // What an exec would have taken away; the bounding set is that of the posture test.
    assert_eq!(field("CapEff"), "0000000000000000");
    assert_eq!(field("CapPrm"), "0000000000000000");
    assert!(["000000000000001b", "000000000000041b"].contains(&field("CapBnd").as_str()));
    stop(created);

    let created = running(|container| {
        let few = json!(["CAP_CHOWN", "CAP_KILL"]);
        container.spec["process"]["user"] = json!({"uid": 1000, "gid": 1001});
        container.spec["process"]["capabilities"] = json!({"bounding": few, "effective": few,
            "permitted": few, "ambient": ["CAP_CHOWN"], "inheritable": few});
    });
    assert_eq!(
        status(created.pid, "CapEff").as_deref(),
        Some("0000000000000001")
    );
    stop(created);
    let created = running(|_| {});
    assert_eq!(
        status(created.pid, "Groups").as_deref(),
        Some(""),
        "none of the node's"
    );
    stop(created);
}

#[test]
fn a_seccomp_profile_and_sysctls_are_applied() {
    if !can_run() {
        return;
    }
    let created = running(|container| {
        container.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
        });
        container.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    });
    assert_eq!(
        status(created.pid, "Seccomp_filters").as_deref(),
        Some("2"),
        "the pod's and ours"
    );
    let value = std::process::Command::new("nsenter")
        .args(["--net", "-t", &created.pid.to_string()])
        .args(["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"])
        .output()
        .expect("util-linux is installed");
    assert_eq!(
        String::from_utf8_lossy(&value.stdout).trim(),
        "77",
        "{value:?}"
    );
    stop(created);
}

#[test]
fn capabilities_that_the_spec_does_not_grant_are_not_there() {
    if !can_run() {
        return;
    }
    let created = running(|container| {
        let few = json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]);
        container.spec["process"]["capabilities"] = json!({"bounding": few, "effective": few, "permitted": few, "ambient": [], "inheritable": []});
    });
    assert_eq!(
        status(created.pid, "CapEff").as_deref(),
        Some("0000000000000001")
    );
    assert_eq!(
        status(created.pid, "CapPrm").as_deref(),
        Some("0000000000000001")
    );
    stop(created);
}

/// Whether a root process that shares the pid namespace, but has no more than other containers, can open a file.
/// With all capabilities it must work, so that a refusal means something.
fn can_be_opened(path: &str) -> bool {
    let open = |arguments: &[&str]| {
        std::process::Command::new("setpriv")
            .args(arguments)
            .args(["dd", "count=0", "status=none", &format!("if={path}")])
            .output()
            .expect("util-linux is installed")
    };
    let output = open(&["--inh-caps=-all"]);
    assert!(output.status.success(), "{path}: {output:?}");
    let output = open(&[
        "--inh-caps=-all",
        "--bounding-set=-sys_ptrace,-sys_admin,-perfmon",
    ]);
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("Permission denied"), "{path}: {text}");
    }
    output.status.success()
}

#[test]
fn another_container_of_the_pod_cannot_look_into_a_guests_process() {
    if !can_run() {
        return;
    }
    for user in [0, 1000] {
        let created = running(|container| {
            container.spec["process"]["user"] = json!({"uid": user, "gid": user});
        });
        for file in ["exe", "fd/4", "mem", "maps"] {
            let path = format!("/proc/{}/{file}", created.pid);
            assert!(!can_be_opened(&path), "{path}, user {user}");
        }
        let init = created.pid;
        stop(created);
        assert!(
            !std::path::Path::new(&format!("/proc/{init}")).exists(),
            "the files were those of the guest"
        );
    }
    // And before the guest runs.
    let created = Container::new(guests::sleeps()).created();
    assert!(!can_be_opened(&format!("/proc/{}/fd/4", created.pid)));
    created.delete();
}

#[test]
fn a_seccomp_profile_that_forbids_landlock_fails_the_start() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::writes(1, "ran"));
    container.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["landlock_create_ruleset"], "action": "SCMP_ACT_ERRNO"}],
    });
    let mut created = container.created();
    let missing = created.warnings.iter().any(|w| w.contains("Landlock"));
    created.start();
    let code = created.wait();
    let container = created.delete();
    if missing {
        eprintln!("this kernel has no Landlock: nothing to be refused");
        assert_eq!((code, container.read("stdout").as_str()), (0, "ran"));
        return;
    }
    let stderr = container.read("stderr");
    assert_eq!((code, container.read("stdout").as_str()), (125, ""));
    assert!(stderr.contains("landlock_create_ruleset"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
