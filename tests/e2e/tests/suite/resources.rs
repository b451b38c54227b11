//! What a pod may take, what it takes, and what the kubelet knows of it.

use serde_json::{Value, json};
use wasmlet_e2e::{Container, LONG, Namespace, Pod, PodSpec, SHORT, eventually, wait_for};

use crate::case::Case;
use crate::nodes::{Cgroups, Figures, OnNode, Process, pod_processes};

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
    Case::new("a_pods_overhead_is_as_its_class_says", overhead)
        .looks_into_nodes()
        .alone()
        .ci(),
];

/// Pods that are looked at in these.
const CLASS: &str = "wasm";

/// Pods on a node of which the overhead is measured: few.
const PODS: usize = 8;

/// Bytes and thousandths of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Amount {
    memory: u64,
    millicpu: u64,
}

impl Amount {
    #[track_caller]
    fn of(amounts: &Value) -> Self {
        let text = |key: &str| {
            amounts[key]
                .as_str()
                .unwrap_or_else(|| panic!("no {key} in {amounts}"))
        };
        Self {
            memory: bytes(text("memory")),
            millicpu: millis(text("cpu")),
        }
    }
}

#[track_caller]
fn bytes(text: &str) -> u64 {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let factor = match &text[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => panic!("{text:?} is no amount that the tests know"),
    };
    digits.parse::<u64>().expect("a number") * factor
}

#[track_caller]
fn millis(text: &str) -> u64 {
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().expect("a number"),
        None => text.parse::<u64>().expect("a number") * 1000,
    }
}

/// What the RuntimeClass says that a pod takes beside its containers.
#[track_caller]
fn promised_overhead(ns: &Namespace) -> Amount {
    let path = format!("/apis/node.k8s.io/v1/runtimeclasses/{CLASS}");
    let class = ns.cluster().get_raw(&path);
    let class = class.unwrap_or_else(|error| panic!("{error}"));
    Amount::of(&class["overhead"]["podFixed"])
}

fn pod_on(node: &OnNode, name: &str, container: Container) -> PodSpec {
    PodSpec::new(name)
        .runtime_class(CLASS)
        .on_node(node.name())
        .container(container)
}

fn classes(ns: &Namespace) {
    let node = OnNode::first(ns);
    let cgroups = Cgroups::of(ns, &node);
    let extra = promised_overhead(ns);
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
    // Microseconds in a tenth of a second: 100 for each thousandth of a processor.
    let quota = |millicpu: u64| Some(millicpu * 100);
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

fn overhead(ns: &Namespace) {
    let node = OnNode::first(ns);
    let cgroups = Cgroups::of(ns, &node);
    let promised = promised_overhead(ns);
    let guest = Container::new("guest", &ns.cluster().guest("sleep")).limits("48Mi", "100m");
    let pod = ns.start(pod_on(&node, "idle", guest));
    pod.until_running("guest");
    let spec = pod.get().spec.and_then(|spec| spec.overhead);
    let spec = serde_json::to_value(spec.expect("the class has one")).expect("JSON");
    assert_eq!(Amount::of(&spec), promised);
    let whole = cgroups.figures(&cgroups.pod(&pod));
    assert_eq!(whole.memory_limit(), Some((48 << 20) + promised.memory));

    let first = Taken::by(&node, &cgroups, &pod);
    println!("    the first pod on a node ({}): {first}", cgroups.label());

    // The programs' text is in memory once: a pod's part of it is the smaller the more there are, and the class
    // tells what is to be counted for one pod more.
    let guest = Container::new("guest", &ns.cluster().guest("sleep"));
    let others: Vec<_> = (1..PODS)
        .map(|index| ns.start(pod_on(&node, &format!("idle-{index}"), guest.clone())))
        .collect();
    for other in &others {
        other.until_running("guest");
    }
    let last = Taken::by(&node, &cgroups, &pod);
    println!(
        "    one of {PODS} pods: {last}; promised {} kB",
        promised.memory / 1024
    );
    assert!(
        last.beside_kb() * 1024 <= promised.memory,
        "more than the class says: {last}"
    );
}

/// Memory of one pod's processes, in kilobytes.
struct Taken {
    shim: u64,
    shim_anonymous: u64,
    pause: u64,
    guest: u64,
}

impl Taken {
    #[track_caller]
    fn by(node: &OnNode, cgroups: &Cgroups<'_>, pod: &Pod<'_>) -> Self {
        let path = cgroups.pod(pod);
        // A runner that has made the container may be about to end.
        eventually("a pod of a guest and its sandbox", SHORT, || {
            let all = pod_processes(node);
            let of_pod = |process: &&Process| process.cgroup.contains(&path);
            let (guests, rest): (Vec<_>, Vec<_>) = all
                .iter()
                .filter(|process| !process.is_shim())
                .filter(of_pod)
                .partition(|process| process.is_guest());
            let ([guest], [pause]) = (&guests[..], &rest[..]) else {
                return Err(format!("guests {guests:?}, others {rest:?}"));
            };
            let shim = all.iter().find(|process| process.pid == pause.parent);
            let shim = shim
                .filter(|process| process.is_shim())
                .ok_or_else(|| format!("the sandbox {pause:?} is no child of a shim"))?;
            Ok(Self {
                shim: shim.pss_kb,
                shim_anonymous: shim.anonymous_kb,
                pause: pause.pss_kb,
                guest: guest.pss_kb,
            })
        })
    }

    /// What is not the container's.
    fn beside_kb(&self) -> u64 {
        self.shim + self.pause
    }
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} kB, of which shim {} kB ({} kB anonymous) and pause {} kB; the guest's own process {} kB",
            self.beside_kb(),
            self.shim,
            self.shim_anonymous,
            self.pause,
            self.guest
        )
    }
}
