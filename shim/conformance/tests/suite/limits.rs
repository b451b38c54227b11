//! Limits: what the cgroup says, what the guest feels, and what is told when the kernel kills.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use wasmlet_conformance::{
    Ctx, Exit, LONG, PodContainer, Runtime, SHORT, TaskOptions, Tmpfs, eventually, proc,
};
use wasmlet_protocol::ExitCode;

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all("limits_arrive_in_the_cgroup", limits_arrive_in_the_cgroup),
    Case::all(
        "update_changes_a_running_task",
        update_changes_a_running_task,
    ),
    Case::all("the_kernels_kill_is_told", the_kernels_kill_is_told),
    Case::all("the_cri_says_oom_killed", the_cri_says_oom_killed),
    Case::all(
        "usage_is_charged_to_the_container",
        usage_is_charged_to_the_container,
    ),
    Case::all("stats_tell_the_use", stats_tell_the_use),
    Case::wasm("memory_grow_fails_softly", memory_grow_fails_softly),
    Case::wasm(
        "an_annotation_caps_linear_memory",
        an_annotation_caps_linear_memory,
    ),
    Case::wasm(
        "a_module_too_big_from_its_start_says_so",
        a_module_too_big_from_its_start_says_so,
    ),
    Case::all("a_tiny_limit_never_hangs", a_tiny_limit_never_hangs),
    Case::all("the_oom_score_is_the_specs", the_oom_score_is_the_specs),
    Case::all("huge_page_limits_are_passed_on", huge_page_limits),
];

const MIB: u64 = 1 << 20;

/// A file of the container's cgroup v1 hierarchy `controller`.
fn cgroup_file(pid: u32, controller: &str, name: &str) -> PathBuf {
    let path = proc::cgroup(pid.cast_signed(), controller).expect("the init is in a cgroup");
    PathBuf::from("/sys/fs/cgroup")
        .join(controller)
        .join(path.trim_start_matches('/'))
        .join(name)
}

#[track_caller]
fn cgroup_value(pid: u32, controller: &str, name: &str) -> String {
    let path = cgroup_file(pid, controller, name);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

fn limits_arrive_in_the_cgroup(ctx: &Ctx) {
    if !proc::cgroup_v1() {
        return limits_arrive_in_the_cgroup_v2(ctx);
    }
    let task = ctx.running_with("t", "sleep", TaskOptions::default(), |spec| {
        spec.memory(48 * MIB)
            .resource(
                "cpu",
                json!({ "shares": 512, "quota": 50000, "period": 100000, "cpus": "0" }),
            )
            .resource("pids", json!({ "limit": 77 }))
    });
    let value = |controller, name| cgroup_value(task.pid, controller, name);
    assert_eq!(
        value("memory", "memory.limit_in_bytes"),
        (48 * MIB).to_string()
    );
    assert_eq!(value("cpu", "cpu.shares"), "512");
    assert_eq!(value("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(value("cpu", "cpu.cfs_period_us"), "100000");
    assert_eq!(value("cpuset", "cpuset.cpus"), "0");
    assert_eq!(value("pids", "pids.max"), "77");
    for controller in [
        "memory", "cpu", "cpuset", "pids", "devices", "freezer", "blkio",
    ] {
        let path = proc::cgroup(task.pid.cast_signed(), controller).expect("a cgroup");
        assert!(path.ends_with(&task.id), "{controller}: {path}");
    }
}

fn limits_arrive_in_the_cgroup_v2(ctx: &Ctx) {
    let task = ctx.running_with("t", "sleep", TaskOptions::default(), |spec| {
        spec.memory(48 * MIB)
            .resource(
                "cpu",
                json!({ "quota": 50000, "period": 100000, "cpus": "0" }),
            )
            .resource("pids", json!({ "limit": 77 }))
    });
    let value = |name| cgroup_value(task.pid, "", name);
    assert_eq!(value("memory.max"), (48 * MIB).to_string());
    assert_eq!(value("memory.swap.max"), "0");
    assert_eq!(value("cpu.max"), "50000 100000");
    assert_eq!(value("cpuset.cpus"), "0");
    assert_eq!(value("pids.max"), "77");
}

fn update_changes_a_running_task(ctx: &Ctx) {
    let task = ctx.running_with("t", "sleep", TaskOptions::default(), |spec| {
        spec.memory(64 * MIB)
    });
    let new = 96 * MIB;
    task.update(&json!({
        "memory": { "limit": new, "swap": new },
        "cpu": { "shares": 256 },
    }))
    .expect("updated");
    let value = |controller, name| cgroup_value(task.pid, controller, name);
    assert_eq!(value("memory", "memory.limit_in_bytes"), new.to_string());
    assert_eq!(value("cpu", "cpu.shares"), "256");
    task.update(&json!({ "memory": { "limit": 80 * MIB, "swap": 80 * MIB } }))
        .expect("updated");
    assert_eq!(
        value("memory", "memory.limit_in_bytes"),
        (80 * MIB).to_string()
    );
    assert_eq!(
        value("cpu", "cpu.shares"),
        "256",
        "what was not named stays"
    );
}

fn the_kernels_kill_is_told(ctx: &Ctx) {
    let task = ctx.task_with("t", "fill", TaskOptions::args(["/scratch/f"]), |spec| {
        spec.tmpfs("/scratch").memory(32 * MIB)
    });
    task.start().expect("started");
    let exit = task.wait();
    assert_eq!(exit.code, 137, "{exit:?}");
    task.delete().expect("deleted");
    if ctx.runtime() == Runtime::Runc {
        // Its shim tells of the kill beside the exit, behind it, or not at all.
        return;
    }
    task.assert_topics(&["create", "start", "oom", "exit", "delete"]);
}

fn the_cri_says_oom_killed(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let scratch = ctx.node().base().join("temp").join(ctx.id("scratch"));
    fs::create_dir_all(&scratch).expect("a folder can be made");
    let mounted = Tmpfs::on(scratch, "size=256m");
    let options = PodContainer {
        args: vec!["/scratch/f".to_owned()],
        memory: i64::try_from(32 * MIB).expect("fits"),
        mounts: vec![(
            mounted.path().display().to_string(),
            "/scratch".to_owned(),
            false,
        )],
        ..Default::default()
    };
    let id = pod.start("main", &ctx.image("fill"), &options);
    let status = pod.exited(&id, LONG);
    // runc's shim tells of the kill beside the exit, sometimes behind it.
    if ctx.runtime() != Runtime::Runc || status.reason != "Error" {
        assert_eq!(status.reason, "OOMKilled");
    }
    assert_eq!(status.exit_code, 137);
    pod.delete().expect("deleted");
}

fn usage_is_charged_to_the_container(ctx: &Ctx) {
    let task = ctx.task_with("t", "grow", TaskOptions::args(["16"]), |spec| {
        spec.memory(128 * MIB)
    });
    let file = if proc::cgroup_v1() {
        "memory.max_usage_in_bytes"
    } else {
        "memory.peak"
    };
    let controller = if proc::cgroup_v1() { "memory" } else { "" };
    // The cgroup stays until Delete; the init's entry in /proc does not.
    let path = cgroup_file(task.pid, controller, file);
    task.start().expect("started");
    let exit = task.wait();
    assert_eq!(exit.stdout, "ready\ntook 16 MiB\n");
    let text = fs::read_to_string(&path).expect("the cgroup stays until Delete");
    let highest: u64 = text.trim().parse().expect("a number");
    assert!(highest >= 16 * MIB, "only {highest} bytes were charged");
    assert!(
        highest < 64 * MIB,
        "{highest} bytes are more than the guest and its engine need"
    );
}

fn stats_tell_the_use(ctx: &Ctx) {
    use containerd_shim_protos::cgroups::metrics::Metrics;
    use containerd_shim_protos::protobuf::Message;
    let task = ctx.running_with("t", "spin", TaskOptions::default(), |spec| {
        spec.memory(64 * MIB)
            .resource("pids", json!({ "limit": 99 }))
    });
    eventually("stats with processor time", SHORT, || {
        let any = task.stats().map_err(|status| status.to_string())?;
        if !proc::cgroup_v1() {
            assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
            return Ok(());
        }
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = Metrics::parse_from_bytes(&any.value).map_err(|error| error.to_string())?;
        let limit = metrics.memory.usage.limit;
        assert_eq!(limit, 64 * MIB, "the limit is told");
        assert_eq!(metrics.pids.limit, 99);
        let (cpu, memory, pids) = (
            metrics.cpu.usage.total,
            metrics.memory.usage.usage,
            metrics.pids.current,
        );
        if cpu > 0 && memory > 0 && pids > 0 {
            Ok(())
        } else {
            Err(format!("{cpu} {memory} {pids}"))
        }
    });
}

#[track_caller]
fn assert_one_line(exit: &Exit, parts: &[&str]) {
    assert_eq!(
        exit.stderr.lines().count(),
        1,
        "one line: {:?}",
        exit.stderr
    );
    for part in parts {
        assert!(
            exit.stderr.contains(part),
            "no {part:?} in {:?}",
            exit.stderr
        );
    }
}

/// MiB in `refused after N MiB`.
#[track_caller]
fn refused_after(exit: &Exit) -> u64 {
    let line = exit
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("refused after "));
    let line = line.unwrap_or_else(|| panic!("the guest was not refused: {exit:?}"));
    line.split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .expect("a number")
}

fn memory_grow_fails_softly(ctx: &Ctx) {
    let exit = ctx.run_with("t", "grow", TaskOptions::default(), |spec| {
        spec.memory(64 * MIB)
    });
    assert_eq!(exit.code, 0, "refused, not killed: {exit:?}");
    let had = refused_after(&exit);
    assert!((40..64).contains(&had), "the guest got {had} MiB of 64");
}

fn an_annotation_caps_linear_memory(ctx: &Ctx) {
    let exit = ctx.run_with("t", "grow", TaskOptions::default(), |spec| {
        spec.memory(64 * MIB)
            .annotation("wasmlet.dev/memory", "8Mi")
    });
    assert_eq!(exit.code, 0, "{exit:?}");
    assert!(refused_after(&exit) < 8);
}

fn a_module_too_big_from_its_start_says_so(ctx: &Ctx) {
    let exit = ctx.run_with("t", "big_memory", TaskOptions::default(), |spec| {
        spec.memory(64 * MIB)
    });
    assert_eq!(
        exit.code.cast_signed(),
        ExitCode::MemoryLimit.code(),
        "{exit:?}"
    );
    assert_one_line(
        &exit,
        &["1073741824 bytes of linear memory", "memory limit"],
    );
}

fn a_tiny_limit_never_hangs(ctx: &Ctx) {
    for mib in [1, 2, 4] {
        let name = format!("t{mib}");
        let image = ctx.image("hello");
        let built = ctx.try_task(&name, &image, TaskOptions::default(), |spec| {
            spec.memory(mib * MIB)
        });
        let outcome = match built {
            Err(status) => format!("create: {status}"),
            Ok(task) => match task.start() {
                Err(status) => format!("start: {status}"),
                Ok(_) => format!("exit {}", task.wait_code(LONG).expect("it ends")),
            },
        };
        // Any of them is an answer; which one depends on the machine. A refusal has to speak of it.
        if ctx.runtime().is_wasm() && !outcome.starts_with("exit") {
            assert!(outcome.contains("memory"), "{mib} MiB: {outcome}");
        }
    }
}

/// Raising it only: lowering needs CAP_SYS_RESOURCE, which not every machine of the tests has.
fn the_oom_score_is_the_specs(ctx: &Ctx) {
    for score in [300, 987] {
        let task = ctx.running_with(
            &format!("t{score}"),
            "sleep",
            TaskOptions::default(),
            |spec| spec.set("/process/oomScoreAdj", json!(score)),
        );
        let path = format!("/proc/{}/oom_score_adj", task.pid);
        let text = fs::read_to_string(path).expect("the init runs");
        assert_eq!(text.trim(), score.to_string());
    }
}

fn huge_page_limits(ctx: &Ctx) {
    let image = ctx.image("sleep");
    let created = ctx.try_task("t", &image, TaskOptions::default(), |spec| {
        spec.resource(
            "hugepageLimits",
            json!([{ "pageSize": "2MB", "limit": 4 * MIB }]),
        )
    });
    if !proc::has_controller("hugetlb") {
        // As runc's: a limit that nothing can hold is not taken for one that is held.
        let refused = created.err().expect("there is no such controller");
        assert!(refused.message().contains("hugetlb"), "{refused}");
        return;
    }
    let task = created.expect("created");
    let (controller, file) = if proc::cgroup_v1() {
        ("hugetlb", "hugetlb.2MB.limit_in_bytes")
    } else {
        ("", "hugetlb.2MB.max")
    };
    assert_eq!(
        cgroup_value(task.pid, controller, file),
        (4 * MIB).to_string()
    );
}
