//! What a pod takes beside its containers, and the amounts that pods and classes name.

use serde_json::Value;
use wasmlet_e2e::{Container, Namespace, Pod, PodSpec, SHORT, eventually};

use wasmlet_e2e::nodes::{Cgroups, OnNode, Process, pod_processes};

/// Pods that are looked at in these.
const CLASS: &str = "wasm";

/// Pods on a node of which the overhead is measured: few.
const PODS: usize = 8;

/// Bytes and thousandths of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) memory: u64,
    pub(crate) millicpu: u64,
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
pub(crate) fn promised(ns: &Namespace) -> Amount {
    let path = format!("/apis/node.k8s.io/v1/runtimeclasses/{CLASS}");
    let class = ns.cluster().get_raw(&path);
    let class = class.unwrap_or_else(|error| panic!("{error}"));
    Amount::of(&class["overhead"]["podFixed"])
}

/// A pod of one container on this node.
pub(crate) fn pod_on(node: &OnNode, name: &str, container: Container) -> PodSpec {
    PodSpec::new(name)
        .runtime_class(CLASS)
        .on_node(node.name())
        .container(container)
}

/// The case: the class's overhead reaches the pod and its cgroup, and is not less than what pods take.
pub(crate) fn is_as_promised(ns: &Namespace) {
    let node = OnNode::first(ns);
    let cgroups = Cgroups::of(ns, &node);
    let promised = promised(ns);
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
