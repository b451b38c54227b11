//! OCI runtime specs as containerd's own clients write them.

use serde_json::{Value, json};

/// What containerd's client grants by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A `config.json` in the making.
#[derive(Debug, Clone)]
pub struct SpecBuilder {
    spec: Value,
}

impl SpecBuilder {
    /// containerd's default spec for Linux, with an own network namespace.
    pub fn new<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        let spec = json!({
            "ociVersion": "1.0.2-dev",
            "root": { "path": "rootfs" },
            "process": {
                "args": args,
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "user": { "uid": 0, "gid": 0 },
                "noNewPrivileges": true,
                "capabilities": {
                    "bounding": CAPABILITIES,
                    "effective": CAPABILITIES,
                    "permitted": CAPABILITIES,
                },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            },
            "mounts": [
                mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
                mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", "devpts",
                    &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
                mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            ],
            "linux": {
                "maskedPaths": [
                    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                    "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
                ],
                "readonlyPaths": [
                    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
                ],
                "resources": { "devices": devices() },
                "namespaces": [
                    { "type": "pid" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "mount" }, { "type": "network" },
                ],
            },
        });
        Self { spec }
    }

    /// Adds a variable, `NAME=value`.
    #[must_use]
    pub fn env(self, variable: &str) -> Self {
        self.push("/process/env", json!(variable))
    }

    /// Sets the working folder.
    #[must_use]
    pub fn cwd(self, path: &str) -> Self {
        self.set("/process/cwd", json!(path))
    }

    /// Asks for a terminal.
    #[must_use]
    pub fn terminal(self) -> Self {
        self.set("/process/terminal", json!(true))
    }

    /// Sets user and group.
    #[must_use]
    pub fn user(self, uid: u32, gid: u32) -> Self {
        self.set("/process/user", json!({ "uid": uid, "gid": gid }))
    }

    /// Binds a folder or file of the host.
    #[must_use]
    pub fn bind(self, source: &str, destination: &str, options: &[&str]) -> Self {
        let mut all = vec!["rbind"];
        all.extend(options);
        self.push("/mounts", mount(destination, "bind", source, &all))
    }

    /// Mounts a tmpfs.
    #[must_use]
    pub fn tmpfs(self, destination: &str) -> Self {
        self.push(
            "/mounts",
            mount(destination, "tmpfs", "tmpfs", &["nosuid", "nodev"]),
        )
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.spec["annotations"][key] = json!(value);
        self
    }

    /// Limits memory, and swap to the same.
    #[must_use]
    pub fn memory(self, bytes: u64) -> Self {
        self.resource("memory", json!({ "limit": bytes, "swap": bytes }))
    }

    /// Sets a part of `linux.resources`.
    #[must_use]
    pub fn resource(self, name: &str, value: Value) -> Self {
        self.set(&format!("/linux/resources/{name}"), value)
    }

    /// Sets the cgroup.
    #[must_use]
    pub fn cgroup(self, path: &str) -> Self {
        self.set("/linux/cgroupsPath", json!(path))
    }

    /// Enters the network namespace of a file.
    #[must_use]
    pub fn network(mut self, path: &str) -> Self {
        let list = self.spec["linux"]["namespaces"].as_array_mut();
        for namespace in list.into_iter().flatten() {
            if namespace["type"] == "network" {
                namespace["path"] = json!(path);
            }
        }
        self
    }

    /// Shares the host's network.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        if let Some(list) = self.spec["linux"]["namespaces"].as_array_mut() {
            list.retain(|namespace| namespace["type"] != "network");
        }
        self
    }

    /// Sets anything by its JSON pointer; the parent must exist.
    #[must_use]
    #[track_caller]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer
            .rsplit_once('/')
            .expect("a pointer starts with a slash");
        let parent = self.spec.pointer_mut(parent).expect("the parent is there");
        parent[key] = value;
        self
    }

    /// Removes anything by its JSON pointer; the parent must exist.
    #[must_use]
    #[track_caller]
    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer
            .rsplit_once('/')
            .expect("a pointer starts with a slash");
        let parent = self.spec.pointer_mut(parent).expect("the parent is there");
        parent
            .as_object_mut()
            .expect("the parent is an object")
            .remove(key);
        self
    }

    /// Appends to a list by its JSON pointer.
    #[must_use]
    #[track_caller]
    pub fn push(mut self, pointer: &str, value: Value) -> Self {
        let list = self.spec.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.expect("the list is there").push(value);
        self
    }

    /// The document so far.
    pub fn value(&self) -> &Value {
        &self.spec
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// containerd's default device rules: nothing but the usual harmless ones.
fn devices() -> Value {
    let allow = |major: i64, minor: i64| json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    json!([
        { "allow": false, "access": "rwm" },
        allow(1, 3), allow(1, 5), allow(1, 7), allow(1, 8), allow(1, 9), allow(5, 0), allow(5, 1),
        { "allow": true, "type": "c", "major": 136, "access": "rwm" },
        allow(5, 2),
    ])
}
