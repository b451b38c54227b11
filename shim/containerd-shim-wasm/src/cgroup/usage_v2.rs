//! `io.containerd.cgroups.v2.Metrics`: what the kubelet and `ctr task metrics` read on cgroup v2.
//!
//! Times are in microseconds, sizes in bytes; file formats are in the kernel's
//! `Documentation/admin-guide/cgroup-v2.rst`.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PidsStat,
};
use containerd_shim_protos::protobuf::Message;

use super::{CgroupError, Flat, devices, huge_page_sizes, number, read};

pub(super) fn encode(folder: &Path) -> Result<Vec<u8>, CgroupError> {
    // Every cgroup has this file; without it there is no cgroup any more.
    read(folder.join("cgroup.procs"))?;
    let metrics = Metrics {
        pids: Some(pids(folder)).into(),
        cpu: Some(cpu(folder)).into(),
        memory: Some(memory(folder)).into(),
        memory_events: Some(events(folder)).into(),
        io: Some(io(folder)).into(),
        hugetlb: hugetlb(folder),
        ..Default::default()
    };
    metrics.write_to_bytes().map_err(CgroupError::Encode)
}

fn pids(folder: &Path) -> PidsStat {
    let limit = number(folder.join("pids.max"));
    PidsStat {
        current: number(folder.join("pids.current")),
        // Without a limit containerd says 0.
        limit: if limit == u64::MAX { 0 } else { limit },
        ..Default::default()
    }
}

fn cpu(folder: &Path) -> CPUStat {
    let stat = Flat::read(folder.join("cpu.stat"));
    CPUStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
        ..Default::default()
    }
}

fn memory(folder: &Path) -> MemoryStat {
    let stat = Flat::read(folder.join("memory.stat"));
    let file = |name: &str| number(folder.join(name));
    MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        usage: file("memory.current"),
        usage_limit: file("memory.max"),
        max_usage: file("memory.peak"),
        swap_usage: file("memory.swap.current"),
        swap_limit: file("memory.swap.max"),
        swap_max_usage: file("memory.swap.peak"),
        ..Default::default()
    }
}

fn events(folder: &Path) -> MemoryEvents {
    let events = Flat::read(folder.join("memory.events"));
    MemoryEvents {
        low: events.get("low"),
        high: events.get("high"),
        max: events.get("max"),
        oom: events.get("oom"),
        oom_kill: events.get("oom_kill"),
        oom_group_kill: events.get("oom_group_kill"),
        ..Default::default()
    }
}

fn io(folder: &Path) -> IOStat {
    let entry = |(major, minor, words): (u64, u64, Vec<String>)| {
        let value = |key: &str| {
            let of = |word: &String| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
            words.iter().find_map(of).unwrap_or(0)
        };
        IOEntry {
            major,
            minor,
            rbytes: value("rbytes"),
            wbytes: value("wbytes"),
            rios: value("rios"),
            wios: value("wios"),
            ..Default::default()
        }
    };
    IOStat {
        usage: devices(folder.join("io.stat"))
            .into_iter()
            .map(entry)
            .collect(),
        ..Default::default()
    }
}

fn hugetlb(folder: &Path) -> Vec<HugeTlbStat> {
    let stat = |size: String| {
        let file = |name: &str| folder.join(format!("hugetlb.{size}.{name}"));
        HugeTlbStat {
            current: number(file("current")),
            max: number(file("max")),
            failcnt: Flat::read(file("events")).get("max"),
            pagesize: size,
            ..Default::default()
        }
    };
    huge_page_sizes(folder, "current")
        .into_iter()
        .map(stat)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_become_one_message() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("cgroup.procs", "7\n"),
            ("cpu.stat", "usage_usec 12\nuser_usec 8\nsystem_usec 4\n"),
            ("memory.stat", "anon 5\nfile 6\ninactive_file 3\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "oom 1\noom_kill 1\n"),
            ("pids.current", "2\n"),
            ("pids.max", "64\n"),
            (
                "io.stat",
                "8:16 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0\n",
            ),
            ("hugetlb.1GB.current", "0\n"),
            ("hugetlb.1GB.max", "max\n"),
            ("hugetlb.1GB.events", "max 3\n"),
        ] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let bytes = encode(dir.path()).expect("encodes");
        let metrics = Metrics::parse_from_bytes(&bytes).expect("decodes");
        assert_eq!(metrics.cpu.usage_usec, 12);
        assert_eq!(
            (metrics.memory.usage, metrics.memory.usage_limit),
            (4096, u64::MAX)
        );
        assert_eq!(metrics.memory.inactive_file, 3);
        assert_eq!(metrics.memory_events.oom_kill, 1);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (2, 64));
        let [device] = metrics.io.usage.as_slice() else {
            panic!("one device, not {}", metrics.io.usage.len())
        };
        assert_eq!((device.major, device.minor), (8, 16));
        assert_eq!((device.rbytes, device.wbytes, device.wios), (512, 1024, 2));
        let [huge] = metrics.hugetlb.as_slice() else {
            panic!("one size, not {}", metrics.hugetlb.len())
        };
        assert_eq!((huge.pagesize.as_str(), huge.failcnt), ("1GB", 3));
    }
}
