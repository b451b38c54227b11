//! Pods through the CRI: one shim per pod, wasm beside Linux containers.

use wasmlet_conformance::{Ctx, Image, LONG, PodContainer, Runtime, SHORT, eventually, proc};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all("a_pod_runs_logs_and_goes", a_pod_runs_logs_and_goes),
    Case::all(
        "a_pod_has_one_shim_and_one_process_each",
        a_pod_has_one_shim_and_one_process_each,
    ),
    Case::all(
        "an_init_container_a_guest_and_a_sidecar",
        an_init_container_a_guest_and_a_sidecar,
    ),
    Case::all(
        "a_container_can_be_stopped_with_grace",
        a_container_can_be_stopped_with_grace,
    ),
    Case::all(
        "a_stopped_pod_takes_its_containers_along",
        a_stopped_pod_takes_its_containers_along,
    ),
    Case::all(
        "stats_of_a_container_are_not_zero",
        stats_of_a_container_are_not_zero,
    ),
    Case::all("the_pause_may_die_first", the_pause_may_die_first).except(
        |runtime, version| runtime == Runtime::Runc && version.config_schema() == 3,
        "containerd 2.x never tells runc's shim to shut down when the sandbox died first",
    ),
    Case::all(
        "a_failed_container_can_be_created_again",
        a_failed_container_can_be_created_again,
    ),
    Case::all(
        "a_pod_whose_shim_is_killed_leaves_nothing_alive",
        a_pod_whose_shim_is_killed,
    )
    .except(
        |runtime, version| runtime == Runtime::Runc && version.config_schema() == 3,
        "containerd 2.x cleans up after runc's shim for the sandbox only",
    ),
    Case::wasm(
        "a_sidecar_that_sees_the_guest_cannot_touch_it",
        a_sidecar_that_sees_the_guest,
    ),
    Case::wasm(
        "a_misspelt_annotation_stops_the_guest_and_not_the_sidecar",
        a_misspelt_annotation,
    ),
];

fn args(args: &[&str]) -> PodContainer {
    PodContainer {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        ..Default::default()
    }
}

fn a_pod_runs_logs_and_goes(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let id = pod.start("main", &ctx.image("hello"), &PodContainer::default());
    let status = pod.exited(&id, LONG);
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    pod.wait_log("main", "stdout F hello from the guest");
    pod.wait_log("main", "stderr F hello on stderr");
    pod.remove(&id).expect("removed");
    pod.delete().expect("deleted");
}

fn a_pod_has_one_shim_and_one_process_each(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let image = ctx.image("sleep");
    let ids: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| {
            let id = pod.start(name, &image, &PodContainer::default());
            pod.wait_log(name, "ready");
            id
        })
        .collect();
    let shim = pod.shim_pid();
    // The sandbox and three containers; nothing else may hang below the shim.
    let mut expected: Vec<i32> = ids.iter().map(|id| pod.init_pid(id)).collect();
    expected.push(pod.init_pid(&pod.id));
    expected.sort_unstable();
    let mut children = proc::children(shim);
    children.sort_unstable();
    assert_eq!(children, expected, "children of shim {shim}");
    for init in &expected {
        assert!(proc::children(*init).is_empty(), "init {init} has children");
    }
}

fn an_init_container_a_guest_and_a_sidecar(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let init = pod.start("init", &linux("exit_code"), &args(&["0"]));
    assert_eq!(pod.exited(&init, LONG).exit_code, 0);
    let main = pod.start("main", &ctx.image("sleep"), &PodContainer::default());
    pod.wait_log("main", "ready");
    let sidecar = pod.start("sidecar", &linux("linux_sidecar"), &args(&["serve"]));
    pod.wait_log("sidecar", "ready");
    let (code, stdout, _) = pod
        .exec(&sidecar, &["/guest", "facts"])
        .expect("exec works in a Linux container");
    assert_eq!(code, 0);
    assert!(stdout.contains("uid 0 gid 0"), "{stdout}");
    assert_eq!(
        pod.exec(&sidecar, &["/guest", "exit", "3"])
            .expect("exec works")
            .0,
        3
    );
    if ctx.runtime().is_wasm() {
        let refused = pod
            .exec(&main, &["/bin/sh"])
            .expect_err("there is nothing to execute");
        assert!(refused.message().contains("exec"), "{refused}");
    }
    pod.stop(&sidecar, 5).expect("stopped");
    assert_eq!(pod.exited(&sidecar, SHORT).exit_code, 0);
    assert!(proc::is_running(pod.init_pid(&main)), "the guest goes on");
}

fn a_container_can_be_stopped_with_grace(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let id = pod.start("main", &ctx.image("sleep"), &PodContainer::default());
    pod.wait_log("main", "ready");
    let begun = std::time::Instant::now();
    pod.stop(&id, if ctx.runtime().is_wasm() { 20 } else { 1 })
        .expect("stopped");
    let status = pod.exited(&id, SHORT);
    if ctx.runtime().is_wasm() {
        assert_eq!(status.exit_code, 143);
        assert!(
            begun.elapsed() < SHORT,
            "SIGTERM took {:?}",
            begun.elapsed()
        );
    } else {
        // A Linux init without a handler ignores SIGTERM, as everywhere.
        assert_eq!(status.exit_code, 137);
    }
}

fn a_stopped_pod_takes_its_containers_along(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let id = pod.start("main", &ctx.image("term"), &PodContainer::default());
    pod.wait_log("main", "tick");
    let (init, sandbox) = (pod.init_pid(&id), pod.init_pid(&pod.id));
    pod.delete().expect("deleted");
    eventually("both inits are gone", SHORT, || {
        let left: Vec<_> = [init, sandbox]
            .into_iter()
            .filter(|pid| proc::is_running(*pid))
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

fn stats_of_a_container_are_not_zero(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let id = pod.start("main", &ctx.image("spin"), &PodContainer::default());
    pod.wait_log("main", "ready");
    eventually("the CRI has figures", SHORT, || {
        let stats = pod.stats(&id).map_err(|status| status.to_string())?;
        let value = |value: Option<k8s_cri::v1::UInt64Value>| value.map_or(0, |v| v.value);
        let cpu = stats
            .cpu
            .map_or(0, |cpu| value(cpu.usage_core_nano_seconds));
        let memory = stats
            .memory
            .map_or(0, |memory| value(memory.working_set_bytes));
        if cpu > 0 && memory > 0 {
            Ok(())
        } else {
            Err(format!("{stats:?}"))
        }
    });
}

fn the_pause_may_die_first(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let id = pod.start("main", &ctx.image("sleep"), &PodContainer::default());
    pod.wait_log("main", "ready");
    let (shim, sandbox, init) = (pod.shim_pid(), pod.init_pid(&pod.id), pod.init_pid(&id));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(sandbox),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("the sandbox's init runs");
    // As the kubelet does: containerd 2.x loses the shim when it is told before it has noticed.
    eventually("the CRI knows that the sandbox is dead", SHORT, || {
        let ready = pod.is_ready().map_err(|status| status.to_string())?;
        if ready {
            Err("it is ready".to_owned())
        } else {
            Ok(())
        }
    });
    assert!(proc::is_running(shim), "the shim stays for the container");
    assert!(proc::is_running(init), "the container goes on");
    pod.delete().expect("deleted");
    eventually("the shim is gone", SHORT, || {
        if proc::is_running(shim) {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    });
}

fn a_failed_container_can_be_created_again(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    for attempt in ["a", "b"] {
        let id = pod.start(attempt, &ctx.image("exit_code"), &args(&["4"]));
        let status = pod.exited(&id, LONG);
        assert_eq!((status.exit_code, status.reason.as_str()), (4, "Error"));
        pod.remove(&id).expect("removed");
    }
}

fn linux(guest: &str) -> Image {
    Image::of_guest(guest, Runtime::WasmLinux)
}

/// What CRI says of a container whose shim died: killed, or unknown where nobody saw it end.
const KILLED_OR_UNKNOWN: [i32; 2] = [137, 255];

fn a_pod_whose_shim_is_killed(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let main = pod.start("main", &ctx.image("sleep"), &PodContainer::default());
    let sidecar = pod.start("sidecar", &linux("linux_sidecar"), &args(&["serve"]));
    pod.wait_log("main", "ready");
    pod.wait_log("sidecar", "ready");
    let ids = [pod.id.clone(), main.clone(), sidecar.clone()];
    let inits: Vec<_> = ids.iter().map(|id| pod.init_pid(id)).collect();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pod.shim_pid()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("the shim runs");
    eventually("nothing of the pod is alive", LONG, || {
        let mut alive = pod.alive(&ids);
        let running = inits.iter().filter(|pid| proc::is_running(**pid));
        alive.extend(running.map(|pid| format!("init {pid}")));
        // runc's shim leaves it; whoever starts another one of that name removes it.
        if ctx.runtime() == Runtime::Runc {
            let _ = std::fs::remove_file(pod.shim_socket());
        }
        if pod.shim_socket().exists() {
            alive.push(pod.shim_socket().display().to_string());
        }
        if alive.is_empty() {
            Ok(())
        } else {
            Err(alive.join(", "))
        }
    });
    for id in [&main, &sidecar] {
        let code = pod.exited(id, LONG).exit_code;
        assert!(KILLED_OR_UNKNOWN.contains(&code), "exit code {code}");
    }
    assert!(!pod.is_ready().expect("known"), "the sandbox is dead");
    pod.delete().expect("deleted");
    let next = cri.pod("p2", &[]);
    next.start("main", &ctx.image("sleep"), &PodContainer::default());
    next.wait_log("main", "ready");
    next.delete().expect("deleted");
}

fn a_sidecar_that_sees_the_guest(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod_with_shared_pids("p");
    let main = pod.start("main", &ctx.image("sleep"), &PodContainer::default());
    pod.wait_log("main", "ready");
    let pry = pod.start("pry", &linux("pry"), &args(&["wasmlet "]));
    assert_eq!(pod.exited(&pry, LONG).exit_code, 0);
    pod.wait_log("pry", "done");
    let log = pod.log("pry");
    let lines: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once(" F ").map(|(_, line)| line))
        .collect();
    assert_eq!(
        lines,
        [
            "uid 0",
            "found wasmlet /guest.wasm",
            "exe to write: EACCES",
            "exe to read: EACCES",
            "fd/4 to write: EACCES",
            "fd/4 to read: EACCES",
            "mem to write: EACCES",
            "mem to read: EACCES",
            "maps to read: EACCES",
            "environ to read: EACCES",
            "root: EACCES",
            "cwd: EACCES",
            "ptrace: EPERM",
            "process_vm_readv: EPERM",
            "done",
        ]
    );
    assert!(proc::is_running(pod.init_pid(&main)), "the guest goes on");
}

fn a_misspelt_annotation(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[("wasmlet.dev/memmory", "32Mi")]);
    let refused = pod
        .create("main", &ctx.image("sleep"), &PodContainer::default())
        .and_then(|id| pod.start_container(&id))
        .expect_err("refused");
    let sentence = "annotation \"wasmlet.dev/memmory\" is not known; the keys below wasmlet.dev/ are \
                    engine, fuel, listen, max-stack, memory, nn-models, profile, timeout";
    assert!(refused.message().contains(sentence), "{refused}");
    let sidecar = pod.start("sidecar", &linux("linux_sidecar"), &args(&["serve"]));
    pod.wait_log("sidecar", "ready");
    assert!(proc::is_running(pod.init_pid(&sidecar)));
}
