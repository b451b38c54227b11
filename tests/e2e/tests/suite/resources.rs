//! What a pod may take, what it takes, and what the kubelet knows of it.

use serde_json::{Value, json};
use wasmlet_e2e::{Container, LONG, Namespace, Pod, eventually, wait_for};

use crate::case::{Case, skips_are_failures};
use crate::overhead::{self, pod_on};
use wasmlet_e2e::nodes::{Cgroups, Figures, OnNode, Process, pod_processes};

pub(crate) const CASES: &[Case] = &[
    Case::new("each_class_of_pods_is_in_its_cgroups", classes)
        .looks_into_nodes()
        .ci(),
    Case::new(
        "the_kubelet_measures_memory_as_the_cgroup_does",
        measured_memory,
    )
    .looks_into_nodes(),
    Case::new(
        "the_kubelet_measures_processor_time_as_the_cgroup_does",
        measured_processor_time,
    )
    .looks_into_nodes(),
    Case::new(
        "a_pods_overhead_is_as_its_class_says",
        overhead::is_as_promised,
    )
    .looks_into_nodes()
    .alone()
    .ci(),
];

fn classes(ns: &Namespace) {
    let node = OnNode::first(ns);
    let cgroups = Cgroups::of(ns, &node);
    let extra = overhead::promised(ns);
    let guest = Container::new("guest", &ns.cluster().guest("sleep"));
    let requests = json!({ "memory": "32Mi", "cpu": "50m" });
    let burstable = guest
        .clone()
        .set("/resources/requests", requests)
        .set("/resources/limits", json!({ "memory": "48Mi" }));
    let pods = [
        pod_on(&node, "guaranteed", guest.clone().limits("48Mi", "200m")),
        pod_on(&node, "burstable", burstable),
        pod_on(&node, "best-effort", guest),
    ]
    .map(|pod| ns.start(pod));

    let limited = Some(48 << 20);
    let quota = |millicpu: u64| Some(cgroups.quota(millicpu));
    let all = |limit: Option<u64>| limit.map(|bytes| bytes + extra.memory);
    // What the container and the pod are to have: memory, quota, and what their weights are made from.
    let expected = [
        (
            (limited, quota(200), 200),
            (
                all(limited),
                quota(200 + extra.millicpu),
                200 + extra.millicpu,
            ),
        ),
        (
            (limited, None, 50),
            (all(limited), None, 50 + extra.millicpu),
        ),
        ((None, None, 0), (None, None, 0)),
    ];
    for (pod, (of_container, of_pod)) in pods.iter().zip(expected) {
        pod.until_running("guest");
        let path = cgroups.container(pod, "guest");
        let figures = cgroups.figures(&path);
        assert_limits(&cgroups, &path, &figures, of_container);
        let guests = guests_of(&pod_processes(&node), &path);
        assert_eq!(guests, figures.processes(), "guests in {path}");

        let path = cgroups.pod(pod);
        let figures = cgroups.figures(&path);
        assert_limits(&cgroups, &path, &figures, of_pod);
        assert_eq!(figures.pids_limit(), cgroups.pids_of_a_pod(), "{path}");
    }
}

#[track_caller]
fn assert_limits(
    cgroups: &Cgroups<'_>,
    path: &str,
    figures: &Figures,
    (memory, quota, millicpu): (Option<u64>, Option<u64>, u64),
) {
    let seen = (figures.memory_limit(), figures.quota());
    assert_eq!(seen, (memory, quota), "{path}: {figures:?}");
    let weights = cgroups.weights(millicpu);
    assert!(
        weights.contains(&figures.weight()),
        "{path}: a weight of {weights:?} is right for {millicpu}m: {figures:?}"
    );
}

/// The processes of our runners in a cgroup.
fn guests_of(processes: &[Process], cgroup: &str) -> Vec<u32> {
    let in_it =
        |process: &&Process| process.cgroup.trim_start_matches('/') == cgroup && process.is_guest();
    let mut pids: Vec<_> = processes
        .iter()
        .filter(in_it)
        .map(|process| process.pid)
        .collect();
    pids.sort_unstable();
    pids
}

/// Whether two figures are the same within five of a hundred.
fn is_near(one: u64, other: u64) -> bool {
    one.abs_diff(other) * 20 <= one.max(other)
}

fn measured_memory(ns: &Namespace) {
    const HELD: u64 = 64;
    let node = OnNode::first(ns);
    let cgroups = Cgroups::of(ns, &node);
    let guest = Container::new("guest", &ns.cluster().guest("hold"))
        .args([HELD.to_string()])
        .limits("128Mi", "500m");
    let pod = ns.start(pod_on(&node, "holds", guest));
    pod.until_running("guest");
    pod.follow("guest").until_line("ready", LONG);
    let (of_pod, of_guest) = (cgroups.pod(&pod), cgroups.container(&pod, "guest"));

    // It takes no more and gives nothing back, so that any sample from now on is of the same amount; the
    // kubelet takes one every ten to twenty seconds.
    let (guest, whole) = eventually("both measure the same memory", LONG, || {
        let usage = pod.usage()?.ok_or("the kubelet has not measured the pod")?;
        let (guest, whole) = (cgroups.figures(&of_guest), cgroups.figures(&of_pod));
        let seen = usage.containers.get("guest").copied().unwrap_or_default();
        let pairs = [
            (seen.working_set_bytes, guest.working_set()),
            (usage.pod.working_set_bytes, whole.working_set()),
        ];
        if pairs.iter().all(|(one, other)| is_near(*one, *other)) {
            Ok(pairs.map(|(_, cgroup)| cgroup)).map(|[guest, whole]| (guest, whole))
        } else {
            Err(format!("guest and pod, by kubelet and cgroup: {pairs:?}"))
        }
    });
    assert!(
        guest >= HELD << 20,
        "a guest that holds {HELD} MiB: {guest}"
    );
    assert!(whole >= guest, "a pod of {whole} with a guest of {guest}");
    println!(
        "    a guest that holds {HELD} MiB: working set {} kB, of its pod {} kB ({})",
        guest / 1024,
        whole / 1024,
        cgroups.label()
    );
    assert_top_knows(&pod);
}

/// `kubectl top`, where something serves it.
#[track_caller]
fn assert_top_knows(pod: &Pod<'_>) {
    let ns = pod.namespace();
    if ns
        .cluster()
        .get_raw("/apis/metrics.k8s.io/v1beta1")
        .is_err()
    {
        assert!(!skips_are_failures(), "no metrics server for kubectl top");
        println!("    no metrics server: `kubectl top` is left out");
        return;
    }
    let kubectl = ns.kubectl();
    eventually("kubectl top knows the pod", LONG, || {
        let said = kubectl.run(&["top", "pod", pod.name(), "--containers"]);
        let knows = said.ok && said.stdout.contains("guest");
        knows.then_some(()).ok_or(said.stderr)
    });
}

/// What the kubelet says of a pod's processor time: when, of the guest, of the pod.
fn processor_time(pod: &Pod<'_>) -> Result<[(String, u64); 2], String> {
    let ns = pod.namespace();
    let summary = ns.cluster().summary(&pod.node())?;
    let mut pods = summary["pods"].as_array().into_iter().flatten();
    let mine = pods
        .find(|of| of["podRef"]["name"] == pod.name() && of["podRef"]["namespace"] == ns.name())
        .ok_or("the kubelet has not measured the pod")?;
    let sample = |of: &Value| {
        let time = of["cpu"]["time"].as_str()?.to_owned();
        Some((time, of["cpu"]["usageCoreNanoSeconds"].as_u64()?))
    };
    let samples = (sample(&mine["containers"][0]), sample(mine));
    match samples {
        (Some(guest), Some(whole)) => Ok([guest, whole]),
        _ => Err(format!("no processor time in {mine}")),
    }
}

fn measured_processor_time(ns: &Namespace) {
    let node = OnNode::first(ns);
    let cgroups = Cgroups::of(ns, &node);
    let guest = Container::new("guest", &ns.cluster().guest("spin")).limits("64Mi", "300m");
    let pod = ns.start(pod_on(&node, "spins", guest));
    pod.until_running("guest");
    pod.follow("guest").until_line("ready", LONG);
    let paths = [cgroups.container(&pod, "guest"), cgroups.pod(&pod)];

    // Processor time only grows. So a sample of the kubelet lies between what the cgroup says in a second
    // before it and in one after it, if both are from the same counter: a series is kept until a sample falls
    // into it so closely that five of a hundred mean something.
    let mut series: Vec<[Figures; 2]> = Vec::new();
    let found = wait_for(LONG, || {
        series.push(paths.each_ref().map(|path| cgroups.figures(path)));
        let samples = processor_time(&pod)?;
        let around = |index: usize| {
            let (time, _) = &samples[index];
            let cpu = |figures: &[Figures; 2]| figures[index].cpu();
            let before = series
                .iter()
                .rev()
                .find(|at| at[index].time() < time.as_str());
            let after = series.iter().find(|at| at[index].time() > time.as_str());
            match (before.map(cpu), after.map(cpu)) {
                (Some(before), Some(after)) if is_near(before, after) => Ok((before, after)),
                near => Err(format!("a sample of {time} between {near:?}")),
            }
        };
        Ok::<_, String>((samples.clone(), [around(0)?, around(1)?]))
    });
    let (samples, around) = found.unwrap_or_else(|last| panic!("no sample to compare: {last}"));
    for ((path, (time, seen)), (before, after)) in paths.iter().zip(&samples).zip(around) {
        let right = (*seen >= before || is_near(*seen, before))
            && (*seen <= after || is_near(*seen, after));
        assert!(
            right,
            "{path}: at {time} the kubelet saw {seen} ns, the cgroup {before} before and {after} after"
        );
    }
}
