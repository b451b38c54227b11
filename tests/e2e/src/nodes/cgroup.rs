//! Control groups of pods, under either driver of the kubelet and both versions.

use std::collections::BTreeMap;

use crate::{Namespace, Pod};

use super::OnNode;

/// What version 1 says for "no limit" is a number near the largest one.
const UNLIMITED: u64 = 1 << 62;

/// Where the kubelet of a node puts pods.
pub struct Cgroups<'a> {
    node: &'a OnNode,
    systemd: bool,
    v2: bool,
    pids_of_a_pod: Option<u64>,
}

impl<'a> Cgroups<'a> {
    /// Asks the kubelet for its driver.
    #[track_caller]
    pub fn of(ns: &Namespace, node: &'a OnNode) -> Self {
        let path = format!("/api/v1/nodes/{}/proxy/configz", node.name());
        let answer = ns.cluster().get_raw(&path);
        let answer = answer.unwrap_or_else(|error| panic!("{error}"));
        let config = &answer["kubeletconfig"];
        let driver = config["cgroupDriver"]
            .as_str()
            .unwrap_or_else(|| panic!("{path} names no driver: {config}"));
        let version = node.sh("[ -e /sys/fs/cgroup/cgroup.controllers ] && echo 2 || echo 1");
        Self {
            node,
            systemd: driver == "systemd",
            v2: version.trim() == "2",
            // -1 is no limit.
            pids_of_a_pod: config["podPidsLimit"].as_u64(),
        }
    }

    /// The driver and the version, for figures that are printed.
    pub fn label(&self) -> String {
        let driver = if self.systemd { "systemd" } else { "cgroupfs" };
        let version = if self.v2 { 2 } else { 1 };
        format!("{driver}, cgroup v{version}")
    }

    /// How many processes the kubelet lets a pod have.
    pub fn pids_of_a_pod(&self) -> Option<u64> {
        self.pids_of_a_pod
    }

    /// The cgroup of a pod, from the top of every hierarchy.
    #[track_caller]
    pub fn pod(&self, pod: &Pod<'_>) -> String {
        let object = pod.get();
        let uid = object.metadata.uid.expect("a pod has a uid");
        let class = object.status.and_then(|status| status.qos_class);
        let class = class.expect("a pod has a class").to_lowercase();
        let class = (class != "guaranteed").then_some(class);
        if !self.systemd {
            let class = class.map_or_else(String::new, |class| format!("{class}/"));
            return format!("kubepods/{class}pod{uid}");
        }
        let uid = uid.replace('-', "_");
        match class {
            None => format!("kubepods.slice/kubepods-pod{uid}.slice"),
            Some(class) => {
                format!("kubepods.slice/kubepods-{class}.slice/kubepods-{class}-pod{uid}.slice")
            }
        }
    }

    /// The cgroup of a pod's container.
    #[track_caller]
    pub fn container(&self, pod: &Pod<'_>, name: &str) -> String {
        let id = container_id(pod, name);
        let own = if self.systemd {
            format!("cri-containerd-{id}.scope")
        } else {
            id
        };
        format!("{}/{own}", self.pod(pod))
    }

    /// What a cgroup says.
    #[track_caller]
    pub fn figures(&self, path: &str) -> Figures {
        let script = if self.v2 { V2 } else { V1 };
        Figures::parse(&self.node.sh(&format!("p='{path}'\n{script}")))
    }

    /// Microseconds of each tenth of a second that so many thousandths of a processor are. systemd knows whole
    /// hundredths, and the kubelet rounds up for it.
    pub fn quota(&self, millicpu: u64) -> u64 {
        let exact = millicpu * 100;
        if self.systemd {
            exact.next_multiple_of(1000)
        } else {
            exact
        }
    }

    /// The weight that `cpu.shares` of version 1, or `cpu.weight` of version 2, has for so many thousandths of a
    /// processor. For version 2 there are two conversions in use.
    pub fn weights(&self, millicpu: u64) -> Vec<u64> {
        let shares = (millicpu * 1024 / 1000).max(2);
        if !self.v2 {
            return vec![shares];
        }
        let straight = 1 + (shares - 2) * 9999 / 262_142;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the formula of runc 1.3.2 and later is one of logarithms; its result is below 10001"
        )]
        let curved = {
            let log = (shares as f64).log2();
            10f64
                .powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0)
                .ceil() as u64
        };
        vec![straight, curved]
    }
}

/// The id of a pod's container in containerd.
#[track_caller]
pub(super) fn container_id(pod: &Pod<'_>, name: &str) -> String {
    let object = pod.get();
    let statuses = object
        .status
        .and_then(|status| status.container_statuses)
        .unwrap_or_default();
    let of = statuses.into_iter().find(|status| status.name == name);
    let id = of.and_then(|status| status.container_id);
    let id = id.unwrap_or_else(|| panic!("container {name} of pod {} has no id", pod.name()));
    id.trim_start_matches("containerd://").to_owned()
}

/// Figures of a control group.
#[derive(Debug, Clone)]
pub struct Figures(BTreeMap<String, String>);

impl Figures {
    #[track_caller]
    fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .map(|line| line.split_once(' ').unwrap_or((line, "")));
        let owned = lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        Self(owned.collect())
    }

    /// A limit; none if there is none.
    #[track_caller]
    fn limit(&self, key: &str) -> Option<u64> {
        let text = self.text(key);
        if matches!(text, "max" | "-1") {
            return None;
        }
        Some(self.number(key)).filter(|number| *number < UNLIMITED)
    }

    #[track_caller]
    fn number(&self, key: &str) -> u64 {
        let text = self.text(key);
        text.parse()
            .unwrap_or_else(|_| panic!("{key} is {text:?}: {self:?}"))
    }

    #[track_caller]
    fn text(&self, key: &str) -> &str {
        self.0
            .get(key)
            .unwrap_or_else(|| panic!("no {key}: {self:?}"))
    }

    /// Bytes that may be had.
    #[track_caller]
    pub fn memory_limit(&self) -> Option<u64> {
        self.limit("memory-limit")
    }

    /// Microseconds of processor time in each tenth of a second.
    #[track_caller]
    pub fn quota(&self) -> Option<u64> {
        let quota = self.limit("quota")?;
        Some(quota * 100_000 / self.number("period"))
    }

    /// Its part of the processors beside others.
    #[track_caller]
    pub fn weight(&self) -> u64 {
        self.number("weight")
    }

    /// Processes and threads that may be had.
    #[track_caller]
    pub fn pids_limit(&self) -> Option<u64> {
        self.limit("pids-limit")
    }

    /// What the kubelet calls the working set: all that is charged, without files that nobody used of late.
    #[track_caller]
    pub fn working_set(&self) -> u64 {
        self.number("memory")
            .saturating_sub(self.number("inactive-file"))
    }

    /// Nanoseconds of processor time since it was made.
    #[track_caller]
    pub fn cpu(&self) -> u64 {
        self.number("cpu")
    }

    /// The node's clock when this was read, RFC 3339 in whole seconds.
    #[track_caller]
    pub fn time(&self) -> &str {
        self.text("time")
    }

    /// Processes in it, where each hierarchy of version 1 has the same ones.
    #[track_caller]
    pub fn processes(&self) -> Vec<u32> {
        let all = ["processes", "processes-cpu", "processes-pids"];
        let [memory, cpu, pids] = all.map(|key| self.text(key));
        assert!(
            memory == cpu && cpu == pids,
            "hierarchies with other processes each: {self:?}"
        );
        memory
            .split_whitespace()
            .map(|pid| pid.parse().expect("a process id"))
            .collect()
    }
}

const V1: &str = "
cd /sys/fs/cgroup
echo time $(date -u +%Y-%m-%dT%H:%M:%SZ)
echo cpu $(cat cpuacct/$p/cpuacct.usage)
echo memory $(cat memory/$p/memory.usage_in_bytes)
echo inactive-file $(sed -n 's/^total_inactive_file //p' memory/$p/memory.stat)
echo memory-limit $(cat memory/$p/memory.limit_in_bytes)
echo quota $(cat cpu/$p/cpu.cfs_quota_us)
echo period $(cat cpu/$p/cpu.cfs_period_us)
echo weight $(cat cpu/$p/cpu.shares)
echo pids-limit $(cat pids/$p/pids.max)
echo processes $(sort -n memory/$p/cgroup.procs)
echo processes-cpu $(sort -n cpu/$p/cgroup.procs)
echo processes-pids $(sort -n pids/$p/cgroup.procs)
";

const V2: &str = "
cd /sys/fs/cgroup/$p
echo time $(date -u +%Y-%m-%dT%H:%M:%SZ)
echo cpu $(sed -n 's/^usage_usec \\(.*\\)/\\1000/p' cpu.stat)
echo memory $(cat memory.current)
echo inactive-file $(sed -n 's/^inactive_file //p' memory.stat)
echo memory-limit $(cat memory.max)
echo quota $(cut -d' ' -f1 cpu.max)
echo period $(cut -d' ' -f2 cpu.max)
echo weight $(cat cpu.weight)
echo pids-limit $(cat pids.max)
procs=$(sort -n cgroup.procs)
echo processes $procs
echo processes-cpu $procs
echo processes-pids $procs
";
