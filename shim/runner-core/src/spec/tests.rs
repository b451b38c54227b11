use std::io;

use serde_json::json;

use super::host::{SourceKind, Submounts};
use super::*;

/// A node where `/host/proc` is a procfs, `/host` has it below, and all else are folders, or files by
/// their name.
struct Fake;

impl HostView for Fake {
    fn source(&self, path: &Path, submounts: Submounts) -> io::Result<SourceKind> {
        let proc = || "proc".to_owned();
        match path.to_str() {
            Some("/host/proc") => Ok(SourceKind::Kernel {
                file_system: proc(),
            }),
            Some("/host") if submounts == Submounts::Included => Ok(SourceKind::Below {
                path: "/host/proc".into(),
                file_system: proc(),
            }),
            Some("/gone") => Err(io::ErrorKind::NotFound.into()),
            Some("/dev/kvm") => Ok(SourceKind::Device),
            Some("/dev/null") => Ok(SourceKind::Nothing),
            Some(path) if path.ends_with(".file") => Ok(SourceKind::File),
            _ => Ok(SourceKind::Folder),
        }
    }

    fn has_cgroup_v1(&self) -> bool {
        true
    }
}

fn minimal() -> serde_json::Value {
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/hello.wasm"],
            "cwd": "/work",
            "env": ["PATH=/bin", "A=1", "A=2", "novalue", "=x"],
            "oomScoreAdj": -998,
            "rlimits": [
                {"type": "RLIMIT_AS", "soft": 1, "hard": 1},
                {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}
            ],
        },
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}],
            "cgroupsPath": "/pod/x",
            "maskedPaths": ["/proc/kcore", "/secret"],
            "readonlyPaths": ["/proc/sys", "/sys"],
            "devices": [{"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"]},
        ],
    })
}

fn make(value: serde_json::Value) -> Result<WasmSpec, SpecError> {
    let spec = serde_json::from_value(value).expect("the test's spec parses");
    let args = vec!["hello.wasm".to_owned(), "x".to_owned()];
    rewrite(
        spec,
        &Wanted {
            kind: GuestKind::Module,
            id: "one",
            rootfs: Path::new("/bundle/rootfs"),
            args: &args,
        },
        &Fake,
    )
}

#[test]
fn kernel_file_systems_are_left_out() {
    let made = make(minimal()).expect("a good spec");
    let kept: Vec<&str> = made
        .mounts
        .iter()
        .map(|p| p.to_str().expect("plain"))
        .collect();
    assert_eq!(kept, ["/dev", "/data"]);
    let linux = made.spec.linux().as_ref().expect("kept");
    assert_eq!(
        linux.masked_paths().as_deref(),
        Some(&["/secret".to_owned()][..])
    );
    assert_eq!(*linux.readonly_paths(), None);
    assert_eq!(*linux.devices(), None);
}

#[test]
fn a_file_that_the_guest_cannot_reach_is_told() {
    let mounted = |list: &[(&str, &str)]| {
        let mut value = minimal();
        let mounts = value["mounts"].as_array_mut().expect("a list");
        mounts.extend(list.iter().map(|(source, destination)| {
            json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]})
        }));
        make(value).expect("a good spec")
    };
    let told = |list: &[(&str, &str)]| {
        let warnings = mounted(list).warnings;
        let about = |part: &str| warnings.iter().filter(|w| w.contains(part)).count();
        about("cannot reach the file mounted at")
    };
    assert_eq!(told(&[("/a.file", "/config.json")]), 1);
    assert_eq!(told(&[("/a.file", "/dev/log")]), 1);
    assert_eq!(told(&[("/a.file", "/one"), ("/b.file", "/two")]), 2);
    for fine in [
        &[("/a.file", "/app/config.json")][..],
        &[("/a.file", "/etc/ssl/ca.crt")],
        &[("/a.file", "/dev/data/file"), ("/data", "/dev/data")],
        &[("/data", "/data")],
        &[("/dev/null", "/hidden")],
        &[
            ("/a.file", "/dev/termination-log"),
            ("/b.file", "/etc/hosts"),
        ],
        &[
            ("/a.file", "/etc/hostname"),
            ("/b.file", "/etc/resolv.conf"),
        ],
    ] {
        assert_eq!(told(fine), 0, "{fine:?}");
    }
    assert!(
        mounted(&[("/a.file", "/config.json")])
            .mounts
            .contains(&PathBuf::from("/config.json")),
        "it is mounted all the same"
    );
}

#[test]
fn the_process_is_that_of_a_guest() {
    let made = make(minimal()).expect("a good spec");
    let process = made.spec.process().as_ref().expect("kept");
    assert_eq!(process.no_new_privileges(), Some(true));
    assert_eq!(process.oom_score_adj(), None);
    assert_eq!(made.oom_score_adj, Some(-998));
    assert_eq!(process.cwd(), Path::new("/work"));
    assert_eq!(made.cwd, Path::new("/work"));
    assert_eq!(process.args().as_deref().map(<[String]>::len), Some(2));
    let limits: Vec<_> = process
        .rlimits()
        .iter()
        .flatten()
        .map(|l| l.typ())
        .collect();
    assert_eq!(limits, [PosixRlimitType::RlimitNofile]);
    assert_eq!(made.warnings.len(), 1, "{:?}", made.warnings);
    let root = made.spec.root().as_ref().expect("kept");
    assert_eq!(
        (root.path().as_path(), root.readonly()),
        (Path::new("/bundle/rootfs"), Some(true))
    );
}

#[test]
fn groups_are_numbered_as_on_the_node() {
    let mut value = minimal();
    value["process"]["user"]["additionalGids"] = json!([5, 10]);
    value["process"]["apparmorProfile"] = json!("some");
    let made = make(value.clone()).expect("a good spec");
    assert_eq!(made.groups, [5, 10]);
    assert_eq!(made.apparmor.as_deref(), Some("some"));
    let process = made.spec.process().as_ref().expect("kept");
    assert_eq!(
        *process.user().additional_gids(),
        None,
        "libcontainer would need a /proc"
    );
    assert_eq!(*process.apparmor_profile(), None, "there is no exec");

    value["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"type": "user"}));
    value["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 11}]);
    assert_eq!(
        make(value.clone()).expect("a good spec").groups,
        [1005, 1010]
    );
    value["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let error = make(value).expect_err("10 is outside").to_string();
    assert!(error.contains("the group 10"), "{error}");
}

#[test]
fn the_last_value_of_a_name_counts_and_home_is_always_set() {
    let made = make(minimal()).expect("a good spec");
    let env: Vec<String> = made.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(env, ["PATH=/bin", "A=2", "HOME=/root"]);

    let mut value = minimal();
    value["process"]["user"]["uid"] = json!(1000);
    value["process"]["env"] = json!(["HOME="]);
    let made = make(value).expect("a good spec");
    assert_eq!(made.env, [("HOME".to_owned(), "/".to_owned())]);
}

#[test]
fn a_terminal_needs_its_devpts() {
    let mut value = minimal();
    value["process"]["terminal"] = json!(true);
    let made = make(value).expect("a good spec");
    assert!(made.mounts.contains(&PathBuf::from("/dev/pts")));
}

#[test]
fn a_missing_dev_is_added_first() {
    let mut value = minimal();
    value["mounts"] = json!([{"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}]);
    let made = make(value).expect("a good spec");
    let mounts = made.spec.mounts().as_ref().expect("kept");
    assert_eq!(mounts[0].destination(), Path::new("/dev"));
    assert_eq!(
        made.mounts,
        [PathBuf::from("/dev/shm")],
        "the guest did not ask for /dev"
    );
}

#[test]
fn a_root_file_system_is_writable_unless_said_otherwise() {
    let mut value = minimal();
    value["root"] = json!({"path": "rootfs"});
    let made = make(value).expect("a good spec");
    assert_eq!(
        made.spec.root().as_ref().and_then(|root| root.readonly()),
        Some(false)
    );
}

#[test]
fn missing_sections_are_named() {
    for section in ["root", "process", "linux"] {
        let mut value = minimal();
        value.as_object_mut().expect("an object").remove(section);
        assert_eq!(
            make(value).expect_err("incomplete"),
            SpecError::Missing(section)
        );
    }
}

#[test]
fn a_mount_namespace_of_its_own_is_needed() {
    for namespaces in [
        json!([{"type": "pid"}]),
        json!([{"type": "mount", "path": "/proc/1/ns/mnt"}]),
    ] {
        let mut value = minimal();
        value["linux"]["namespaces"] = namespaces;
        assert_eq!(make(value).expect_err("unsafe"), SpecError::MountNamespace);
    }
}

#[test]
fn a_cgroup_of_its_own_is_needed() {
    for path in ["", "/"] {
        let mut value = minimal();
        value["linux"]["cgroupsPath"] = json!(path);
        let error = make(value).expect_err("unsafe");
        assert!(error.to_string().contains("linux.cgroupsPath"), "{error}");
    }
    let mut value = minimal();
    value["linux"]
        .as_object_mut()
        .expect("an object")
        .remove("cgroupsPath");
    let made = make(value).expect("a good spec");
    let path = made
        .spec
        .linux()
        .as_ref()
        .expect("kept")
        .cgroups_path()
        .clone();
    assert_eq!(path, Some(PathBuf::from("/wasmlet/one")));
}

#[test]
fn views_into_the_node_are_refused() {
    let bind = |source: &str, options: &[&str]| json!({"destination": "/x", "type": "bind", "source": source, "options": options});
    for (mount, said) in [
        (bind("/host/proc", &["bind"]), "is on a proc"),
        (
            bind("/host", &["rbind", "ro"]),
            "has a proc below it, at /host/proc",
        ),
        (bind("/dev/kvm", &["bind"]), "is a device"),
        (bind("/gone", &["bind"]), "its source /gone"),
        (
            json!({"destination": "/x", "type": "cgroup", "source": "/srv", "options": ["bind"]}),
            "cannot be of type cgroup",
        ),
        (
            json!({"destination": "/x", "type": "debugfs", "source": "x"}),
            "type debugfs",
        ),
        (
            json!({"destination": "/dev", "type": "bind", "source": "/a"}),
            "/dev is a tmpfs",
        ),
        (
            json!({"destination": "/", "type": "tmpfs", "source": "x"}),
            "over the root",
        ),
        (
            json!({"destination": "//", "type": "tmpfs", "source": "x"}),
            "over the root",
        ),
        (
            json!({"destination": "/a/../..", "type": "tmpfs", "source": "x"}),
            "\"..\"",
        ),
        (
            json!({"destination": "a", "type": "tmpfs", "source": "x"}),
            "not an absolute",
        ),
        (
            json!({"destination": "/a", "type": "bind"}),
            "needs a source",
        ),
    ] {
        let mut value = minimal();
        value["mounts"] = json!([mount]);
        let error = make(value).expect_err("refused").to_string();
        assert!(error.contains(said), "{error} does not say {said:?}");
    }
    let mut value = minimal();
    value["mounts"] = json!([bind("/host", &["bind"])]);
    make(value).expect("without its submounts it is an ordinary folder");
}

#[test]
fn start_hooks_are_taken_over_and_an_empty_section_goes() {
    let mut value = minimal();
    value["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]});
    let made = make(value).expect("a good spec");
    assert_eq!(made.start_container.len(), 1);
    assert_eq!(*made.spec.hooks(), None);

    let mut value = minimal();
    value["hooks"] = json!({"poststop": [{"path": "/bin/true"}], "startContainer": []});
    let made = make(value).expect("a good spec");
    assert!(
        made.spec
            .hooks()
            .as_ref()
            .is_some_and(|h| h.poststop().is_some())
    );
}

mod hostile {
    //! Whatever a config.json says: no panic, and no way out of what a wasm container may have.

    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            Just("/".to_owned()),
            Just("//".to_owned()),
            Just("/proc".to_owned()),
            Just("/proc/../proc".to_owned()),
            Just("/host".to_owned()),
            Just("/host/proc".to_owned()),
            Just("/dev".to_owned()),
            Just("../x".to_owned()),
            Just("bind".to_owned()),
            Just("rbind".to_owned()),
            Just("proc".to_owned()),
            Just("tmpfs".to_owned()),
            Just("debugfs".to_owned()),
            Just("mount".to_owned()),
            Just("user".to_owned()),
            Just("HOME".to_owned()),
            Just("=".to_owned()),
            "\\PC{0,12}",
        ]
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u32>().prop_map(Into::into),
            text().prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((text(), inner), 0..4)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    fn mount() -> impl Strategy<Value = serde_json::Value> {
        (text(), text(), text(), prop::collection::vec(text(), 0..3)).prop_map(
            |(destination, source, kind, options)| {
                json!({"destination": destination, "source": source, "type": kind, "options": options})
            },
        )
    }

    /// Where a value is replaced or taken away.
    const PLACES: [&str; 22] = [
        "/ociVersion",
        "/root",
        "/root/path",
        "/process",
        "/process/user",
        "/process/user/additionalGids",
        "/process/args",
        "/process/cwd",
        "/process/env",
        "/process/terminal",
        "/process/capabilities",
        "/process/rlimits",
        "/linux",
        "/linux/namespaces",
        "/linux/cgroupsPath",
        "/linux/maskedPaths",
        "/linux/gidMappings",
        "/linux/resources",
        "/linux/seccomp",
        "/mounts",
        "/hooks",
        "/annotations",
    ];

    fn change(value: &mut serde_json::Value, place: &str, to: Option<serde_json::Value>) {
        let (parent, key) = place.rsplit_once('/').expect("a pointer");
        if let Some(serde_json::Value::Object(parent)) = value.pointer_mut(parent) {
            match to {
                Some(to) => parent.insert(key.to_owned(), to),
                None => parent.remove(key),
            };
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn specs_are_refused_or_tamed(
            changes in prop::collection::vec((0..PLACES.len(), prop::option::of(json())), 0..4),
            mounts in prop::collection::vec(mount(), 0..4),
        ) {
            let mut value = minimal();
            value["mounts"].as_array_mut().expect("a list").extend(mounts);
            for (place, to) in changes {
                change(&mut value, PLACES[place], to);
            }
            let Ok(spec) = serde_json::from_value::<Spec>(value) else { return Ok(()) };
            let wanted = Wanted {
                id: "one",
                rootfs: Path::new("/bundle/rootfs"),
                args: &[],
                kind: GuestKind::Module,
            };
            let Ok(made) = rewrite(spec, &wanted, &Fake) else { return Ok(()) };

            let process = made.spec.process().as_ref().expect("kept");
            prop_assert_eq!(process.no_new_privileges(), Some(true));
            prop_assert_eq!(process.cwd(), &made.cwd);
            prop_assert!(process.args().as_ref().is_some_and(|args| !args.is_empty()));
            prop_assert!(made.env.iter().any(|(name, value)| name == "HOME" && !value.is_empty()));
            prop_assert!(made.cwd.is_absolute());
            let root = made.spec.root().as_ref().expect("kept");
            prop_assert_eq!(root.path(), Path::new("/bundle/rootfs"));
            let linux = made.spec.linux().as_ref().expect("kept");
            let cgroup = linux.cgroups_path().as_ref().expect("always set");
            prop_assert!(cgroup != Path::new("") && cgroup != Path::new("/"));
            let own = |ns: &oci_spec::runtime::LinuxNamespace| {
                ns.typ() == LinuxNamespaceType::Mount && ns.path().is_none()
            };
            prop_assert!(linux.namespaces().iter().flatten().any(own));
            for mount in made.spec.mounts().iter().flatten() {
                let at = mount.destination();
                prop_assert!(at.is_absolute() && at != Path::new("/"), "{:?}", mount);
                prop_assert!(!at.starts_with("/proc") && !at.starts_with("/sys"), "{:?}", mount);
                let kind = mount.typ().as_deref().unwrap_or("none");
                prop_assert!(
                    !host::is_kernel_type(kind) || kind == "devpts",
                    "{:?}", mount
                );
                prop_assert!(mount.source().as_deref() != Some(Path::new("/host/proc")) || !is_bind(mount));
            }
        }
    }

    fn is_bind(mount: &Mount) -> bool {
        let by_option = |option: &String| option == "bind" || option == "rbind";
        mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(by_option)
    }
}

#[test]
fn a_cpu_limit_is_a_number_of_processors() {
    let limit = |cpu: serde_json::Value| {
        let mut value = minimal();
        value["linux"]["resources"] = serde_json::json!({ "cpu": cpu });
        super::processors(&make(value).expect("a wasm container").spec)
    };
    for (cpu, processors) in [
        (
            serde_json::json!({"quota": 50_000, "period": 100_000}),
            Some(0.5),
        ),
        (serde_json::json!({"quota": 250_000}), Some(2.5)),
        (serde_json::json!({"quota": -1, "period": 100_000}), None),
        (serde_json::json!({"shares": 512}), None),
    ] {
        assert_eq!(limit(cpu), processors);
    }
    assert_eq!(
        super::processors(&make(minimal()).expect("no limit").spec),
        None
    );
}
