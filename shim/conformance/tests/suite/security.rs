//! What a guest, an image or a pod's author must not get.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use wasmlet_conformance::{Ctx, Guests, Image, LONG, Target, TaskOptions, bin_dir, proc, wait_for};
use wasmlet_oci_image::{Image as OciImage, Layer};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm("a_guest_finds_no_way_out", a_guest_finds_no_way_out),
    Case::wasm(
        "a_guest_finds_no_way_out_of_its_mounts",
        a_guest_finds_no_way_out_of_its_mounts,
    ),
    Case::wasm("the_posture_of_the_engine", the_posture_of_the_engine),
    Case::wasm(
        "the_init_is_the_runner_and_tells_nothing_of_the_node",
        the_init_is_the_runner,
    ),
    Case::wasm(
        "no_executable_memory_after_the_start",
        no_executable_memory_after_the_start,
    ),
    Case::wasm(
        "the_images_name_service_runs_nothing",
        the_images_name_service_runs_nothing,
    ),
    Case::ours(
        "the_images_environment_reaches_nobody",
        the_images_environment_reaches_nobody,
    ),
    Case::ours(
        "image_labels_and_manifest_annotations_have_no_effect",
        image_labels_have_no_effect,
    ),
    Case::ours("shims_have_private_sockets", shims_have_private_sockets),
    Case::wasm(
        "the_shim_has_no_other_descriptors",
        the_shim_has_no_other_descriptors,
    ),
    Case::ours(
        "an_unprivileged_user_stays_one",
        an_unprivileged_user_stays_one,
    ),
    Case::ours(
        "privileged_annotations_have_no_effect",
        privileged_annotations_have_no_effect,
    ),
];

fn a_guest_finds_no_way_out(ctx: &Ctx) {
    let exit = ctx.run("t", "steal", TaskOptions::default());
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "no way out\n"),
        "{exit:?}"
    );
    let exit = ctx.run_with("host", "steal", TaskOptions::default(), |spec| {
        spec.host_network()
    });
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "no way out\n"),
        "{exit:?}"
    );
}

fn a_guest_finds_no_way_out_of_its_mounts(ctx: &Ctx) {
    let host = ctx.node().base().join("temp").join(ctx.id("mount"));
    fs::create_dir_all(&host).expect("a folder can be made");
    let link = |name: &str, target: &str| {
        std::os::unix::fs::symlink(target, host.join(name)).expect("linked");
    };
    link("proc", "/proc");
    link("up", "../../../../../..");
    link("dev", "/dev");
    link("sys", "/sys");
    let source = host.display().to_string();
    let paths = [
        "/data/proc/self/mem",
        "/data/up/proc/self/mem",
        "/data/dev/kmsg",
        "/data/up/etc/shadow",
    ];
    let args: Vec<&str> = paths.iter().flat_map(|path| ["read", path]).collect();
    let exit = ctx.run_with("files", "files", TaskOptions::args(args), |spec| {
        spec.bind(&source, "/data", &["rw"])
    });
    for line in exit.stdout.lines() {
        assert!(!line.contains(": ok"), "{line}");
    }
    let exit = ctx.run_with("steal", "steal", TaskOptions::default(), |spec| {
        spec.bind(&source, "/data", &["rw"])
    });
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "no way out\n"),
        "{exit:?}"
    );
}

/// Capability numbers that may stay: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, NET_BIND_SERVICE.
const KEPT_CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 10;

fn the_posture_of_the_engine(ctx: &Ctx) {
    let task = ctx.running_with("t", "sleep", TaskOptions::default(), |spec| {
        spec.memory(64 << 20)
    });
    let pid = task.pid.cast_signed();
    let status = |key| proc::status(pid, key).expect("the init runs");
    assert_eq!(status("NoNewPrivs"), "1");
    assert_eq!(status("Seccomp"), "2");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let bits = u64::from_str_radix(&status(set), 16).expect("hexadecimal");
        assert_eq!(bits & !KEPT_CAPABILITIES, 0, "{set} is {bits:x}");
    }
    // Every thread, not only the first.
    for entry in fs::read_dir(format!("/proc/{pid}/task"))
        .expect("threads")
        .filter_map(Result::ok)
    {
        let text = fs::read_to_string(entry.path().join("status")).expect("a thread's status");
        assert!(text.contains("Seccomp:\t2"), "{text}");
    }
    for namespace in ["mnt", "pid", "ipc", "uts", "net"] {
        let of =
            |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a namespace");
        assert_ne!(
            of(&pid.to_string()),
            of("self"),
            "{namespace} is the host's"
        );
    }
    let cgroup = proc::cgroup(pid, if proc::cgroup_v1() { "memory" } else { "" });
    assert!(
        cgroup.as_ref().is_some_and(|path| path.ends_with(&task.id)),
        "{cgroup:?}"
    );

    // The image's top folders and the spec's mounts, but for those of the kernel.
    let preopens = ["/data", "/etc", "/tmp", "/run", "/dev/shm"];
    let fds = proc::fds(pid);
    for (number, target) in &fds {
        let allowed = match number {
            0..=2 => true,
            // The compiled artifact, and what an engine's event loop or timers are made of.
            _ => {
                target.contains("/artifacts/")
                    || target.contains("(deleted)")
                    || target.starts_with("anon_inode:[event")
                    || target == "anon_inode:[timerfd]"
                    || target.starts_with("socket:")
                    || preopens.contains(&target.as_str())
            }
        };
        assert!(allowed, "descriptor {number} is {target}; all: {fds:?}");
    }
    let sockets = fds
        .values()
        .filter(|target| target.starts_with("socket:"))
        .count();
    assert!(
        sockets <= 2,
        "an event loop has a pair, nothing else is a socket: {fds:?}"
    );
    let cmdline = proc::cmdline(pid);
    assert_eq!(cmdline, "wasmlet /guest.wasm", "no host path is told");
    assert!(proc::environ(pid).is_empty(), "{:?}", proc::environ(pid));
    let mounts = proc::mount_points_of(pid);
    for place in ["/proc", "/sys", "/dev/mqueue"] {
        assert!(
            !mounts.iter().any(|point| point == place),
            "{place} is mounted: {mounts:?}"
        );
    }
}

/// What the init's program is, as the kernel has it: WasmEdge's runner is started by a loader of its own.
fn runner(engine: &str) -> PathBuf {
    if engine != "wasmedge" {
        return bin_dir().join(format!("wasmlet-run-{engine}"));
    }
    let libraries = bin_dir().join("../lib/wasmedge");
    let loader = fs::read_dir(libraries)
        .expect("the libraries")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("ld-linux-"))
        });
    loader.expect("a loader beside the libraries")
}

fn the_init_is_the_runner(ctx: &Ctx) {
    use std::os::unix::fs::MetadataExt;
    let task = ctx.running("t", "sleep", TaskOptions::default());
    let pid = task.pid.cast_signed();
    let inode = |path: PathBuf| {
        let meta = fs::metadata(path).expect("a program");
        (meta.dev(), meta.ino())
    };
    assert_eq!(
        inode(format!("/proc/{pid}/exe").into()),
        inode(runner(ctx.runtime().engine())),
        "another program than the runner: {:?}",
        proc::exe(pid)
    );
    // 15 bytes are what the kernel keeps of a name.
    assert_eq!(
        proc::status(pid, "Name").as_deref(),
        Some("wasmlet guest.w")
    );
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).expect("the init runs");
    let text = String::from_utf8_lossy(&cmdline);
    assert_eq!(text.trim_end_matches('\0'), "wasmlet /guest.wasm");
}

/// Executable mappings by file and length.
fn executable(pid: i32) -> BTreeSet<(String, String)> {
    proc::maps(pid)
        .into_iter()
        .filter(|mapping| mapping.access.contains('x') && mapping.name != "[vsyscall]")
        .map(|mapping| (mapping.range, mapping.name))
        .collect()
}

fn no_executable_memory_after_the_start(ctx: &Ctx) {
    let task = ctx.task("t", "term", TaskOptions::default());
    let pid = task.pid.cast_signed();
    let created = executable(pid);
    assert!(!created.is_empty());
    task.start().expect("started");
    task.io.stdout.wait_for("tick 5", LONG);
    let running = executable(pid);
    let gained: Vec<_> = running.difference(&created).collect();
    assert!(
        gained.is_empty(),
        "executable memory since Create: {gained:?}"
    );
    let writable: Vec<_> = proc::maps(pid)
        .into_iter()
        .filter(|mapping| mapping.access.contains('x') && mapping.access.contains('w'))
        .collect();
    assert!(writable.is_empty(), "writable and executable: {writable:?}");
}

/// An NSS library whose constructor leaves a canary wherever it can.
#[track_caller]
fn evil_library(ctx: &Ctx) -> Vec<u8> {
    let dir = ctx.node().base().join("temp").join(ctx.id("evil"));
    fs::create_dir_all(&dir).expect("a folder can be made");
    let source = r#"
        #include <fcntl.h>
        #include <unistd.h>
        __attribute__((constructor)) static void leave(void) {
            static const char *const places[] = {"/canary", "/data/canary", "/tmp/canary", "/etc/canary"};
            for (unsigned i = 0; i < 4; i++) {
                int fd = open(places[i], O_CREAT | O_WRONLY, 0666);
                if (fd >= 0) close(fd);
            }
            if (write(2, "EVIL\n", 5) < 0) _exit(66);
        }
    "#;
    fs::write(dir.join("evil.c"), source).expect("written");
    let done = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o", "libnss_evil.so.2", "evil.c"])
        .current_dir(&dir)
        .status()
        .expect("gcc can be started");
    assert!(done.success(), "gcc: {done}");
    fs::read(dir.join("libnss_evil.so.2")).expect("there")
}

fn the_images_name_service_runs_nothing(ctx: &Ctx) {
    let evil = evil_library(ctx);
    let names = "hosts: evil files\npasswd: evil\ngroup: evil\nshadow: evil\nnetworks: evil\n\
                 protocols: evil\nservices: evil\ninitgroups: evil\n";
    let mut layer = Layer::new()
        .folder("data", 0o777)
        .folder("tmp", 0o1777)
        .file("etc/nsswitch.conf", 0o644, names)
        .file(
            "etc/hosts",
            0o644,
            "10.1.2.3 known.example\n127.0.0.1 localhost\n",
        )
        .file(
            "etc/passwd",
            0o644,
            "guest:x:1000:1000::/home/guest:/bin/sh\n",
        );
    for folder in [
        "lib",
        "lib64",
        "usr/lib",
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
    ] {
        layer = layer.file(&format!("{folder}/libnss_evil.so.2"), 0o755, evil.clone());
    }
    let guests: [(&str, &str, Target, &[&str], &str); 3] = [
        (
            "module",
            "hello",
            Target::Wasm,
            &[],
            "hello from the guest\n",
        ),
        (
            "component",
            "hello",
            Target::Component,
            &[],
            "hello from the guest\n",
        ),
        (
            "lookup",
            "lookup",
            Target::Component,
            &["known.example", "localhost", "10.9.8.7"],
            "known.example: 10.1.2.3\nlocalhost: 127.0.0.1\n10.9.8.7: 10.9.8.7\n",
        ),
    ];
    for (name, guest, target, args, output) in guests {
        if target == Target::Component && !ctx.runtime().runs_components() {
            continue;
        }
        let bytes = Guests::shared().bytes(guest, target).expect("compiled");
        let layer = layer.clone().file("a.wasm", 0o644, bytes);
        let image = OciImage::new().entrypoint(["/a.wasm"]).layer(layer);
        let image = Image::new(&format!("nsswitch-{name}"), [image]);
        let host = ctx.node().base().join("temp").join(ctx.id(name));
        fs::create_dir_all(&host).expect("a folder can be made");
        fs::set_permissions(&host, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("changed");
        // No HOME: libcontainer would ask the name service for it.
        let exit = ctx.run_image(
            name,
            &image,
            TaskOptions::args(args.iter().copied()),
            |spec| {
                spec.bind(&host.display().to_string(), "/data", &["rw"])
                    .set("/process/env", serde_json::json!(["PATH=/bin"]))
                    .user(1000, 1000)
            },
        );
        assert_eq!(exit.stdout, output, "{exit:?}");
        assert!(
            !exit.stderr.contains("EVIL"),
            "the image's library ran: {exit:?}"
        );
        assert!(
            !host.join("canary").exists(),
            "the image's library left its canary"
        );
    }
}

fn the_images_environment_reaches_nobody(ctx: &Ctx) {
    let target = ctx.runtime().target();
    let bytes = Guests::shared().bytes("sleep", target).expect("compiled");
    let path = if target == Target::Wasm {
        "a.wasm"
    } else {
        "a"
    };
    let variables = [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "RUST_LOG",
        "LISTEN_FDS",
        "OTEL_SERVICE_NAME",
        "GCONV_PATH",
    ];
    let mut image = OciImage::new()
        .entrypoint([format!("/{path}")])
        .layer(Layer::new().file(path, 0o755, bytes).folder("tmp", 0o777));
    for variable in variables {
        image = image.env(&format!("{variable}=/evil.so"));
    }
    let image = Image::new(&format!("environment-{}", ctx.runtime().name()), [image]);
    let task = ctx
        .try_task("t", &image, TaskOptions::default(), |spec| spec)
        .expect("created");
    let shim = ctx.shim_pid("t");
    task.start().expect("started");
    task.io.stdout.wait_for("ready", LONG);
    let mut privileged = vec![shim];
    if target == Target::Wasm {
        privileged.push(task.pid.cast_signed());
    }
    for pid in privileged {
        let environ = proc::environ(pid);
        for variable in variables {
            // containerd sets some of them itself, to other values.
            assert!(
                environ
                    .get(variable)
                    .is_none_or(|value| value != "/evil.so"),
                "{variable} is in {environ:?} of {pid}"
            );
        }
    }
}

fn image_labels_have_no_effect(ctx: &Ctx) {
    let target = ctx.runtime().target();
    let bytes = Guests::shared().bytes("hello", target).expect("compiled");
    let path = if target == Target::Wasm {
        "a.wasm"
    } else {
        "a"
    };
    let mut image = OciImage::new()
        .entrypoint([format!("/{path}")])
        .layer(Layer::new().file(path, 0o755, bytes));
    for (key, value) in [
        ("wasmlet.dev/engine", "none-such"),
        ("wasmlet.dev/memory", "1"),
        ("wasmlet.dev/nonsense", "1"),
        ("run.oci.handler", "wasmer"),
        ("containerd.io/restart.loguri", "binary:///bin/true"),
    ] {
        image = image.label(key, value).annotation(key, value);
    }
    let image = Image::new(&format!("labels-{}", ctx.runtime().name()), [image]);
    let exit = ctx.run_image("t", &image, TaskOptions::default(), |spec| spec);
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "hello from the guest\n"),
        "{exit:?}"
    );
}

fn shims_have_private_sockets(ctx: &Ctx) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let _task = ctx.running("t", "sleep", TaskOptions::default());
    let socket = ctx.shim_socket("t");
    let meta = fs::metadata(&socket).expect("the shim's socket");
    assert_eq!((meta.permissions().mode() & 0o777, meta.uid()), (0o600, 0));
    let run = ctx.node().run_dir();
    for folder in fs::read_dir(&run)
        .expect("/run/wasmlet")
        .filter_map(Result::ok)
    {
        if folder.file_type().is_ok_and(|kind| kind.is_dir()) {
            let mode = folder.metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", folder.path().display());
        }
    }
}

fn the_shim_has_no_other_descriptors(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    let shim = ctx.shim_pid("t");
    let environ = proc::environ(shim);
    for key in ["LD_PRELOAD", "RUST_LOG"] {
        assert!(!environ.contains_key(key));
    }
    let with_one = proc::fds(shim).len();
    task.kill(libc::SIGKILL).expect("killed");
    task.wait();
    let settled = wait_for(wasmlet_conformance::SHORT, || {
        let now = proc::fds(shim);
        if now.len() < with_one {
            Ok(())
        } else {
            Err(now)
        }
    });
    assert!(
        settled.is_ok(),
        "the guest's descriptors stay open in the shim: {settled:?}"
    );
    let maps = proc::maps(shim);
    for library in ["wasmtime", "LLVM", "libwasmedge"] {
        assert!(
            !maps.iter().any(|mapping| mapping.name.contains(library)),
            "{library} in the shim"
        );
    }
}

fn an_unprivileged_user_stays_one(ctx: &Ctx) {
    for uid in [1000, 65_534, 2_147_483_647] {
        let name = format!("u{uid}");
        let task = ctx.running_with(&name, "sleep", TaskOptions::default(), |spec| {
            spec.user(uid, uid)
        });
        let ids = proc::status(task.pid.cast_signed(), "Uid").expect("the init runs");
        let expected = uid.to_string();
        assert!(ids.split_whitespace().all(|id| id == expected), "{ids}");
        let groups = proc::status(task.pid.cast_signed(), "Gid").expect("the init runs");
        assert!(
            groups.split_whitespace().all(|id| id == expected),
            "{groups}"
        );
    }
}

fn privileged_annotations_have_no_effect(ctx: &Ctx) {
    let exit = ctx.run_with("t", "hello", TaskOptions::default(), |spec| {
        spec.annotation(
            "org.systemd.property.ExecStartPre",
            "'/bin/touch /tmp/never'",
        )
        .annotation("run.oci.hooks.stdout", "/tmp/never")
        .annotation("io.katacontainers.config.hypervisor.path", "/bin/sh")
    });
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "hello from the guest\n"),
        "{exit:?}"
    );
    assert!(!std::path::Path::new("/tmp/never").exists());
}
