//! `io.containerd.cgroups.v1.Metrics`: what the kubelet and `ctr task metrics` read on cgroup v1.
//!
//! Times are in nanoseconds, sizes in bytes; file formats are in the kernel's
//! `Documentation/admin-guide/cgroup-v1/`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, PidsStat, Throttle,
};
use containerd_shim_protos::protobuf::Message;

use super::{CgroupError, Flat, devices, huge_page_sizes, number};

/// Kernel ticks per second in `cpuacct.stat`: USER_HZ, 100 on every architecture that Linux exposes it on.
const NANOS_PER_TICK: u64 = 1_000_000_000 / 100;

pub(super) fn encode(folders: &HashMap<String, PathBuf>) -> Result<Vec<u8>, CgroupError> {
    let folder = |name: &str| folders.get(name).map(PathBuf::as_path);
    if let Some(gone) = folder("memory").filter(|folder| !folder.exists()) {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(CgroupError::Read {
            path: gone.to_owned(),
            source,
        });
    }
    let metrics = Metrics {
        pids: folder("pids").map(pids).into(),
        cpu: Some(cpu(folder("cpuacct"), folder("cpu"))).into(),
        memory: folder("memory").map(memory).into(),
        memory_oom_control: folder("memory").map(oom_control).into(),
        blkio: folder("blkio").map(blkio).into(),
        hugetlb: folder("hugetlb").map(hugetlb).unwrap_or_default(),
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

fn cpu(cpuacct: Option<&Path>, cpu: Option<&Path>) -> CPUStat {
    let usage = cpuacct.map(|folder| {
        let stat = Flat::read(folder.join("cpuacct.stat"));
        let per_cpu = fs::read_to_string(folder.join("cpuacct.usage_percpu")).unwrap_or_default();
        CPUUsage {
            total: number(folder.join("cpuacct.usage")),
            kernel: stat.get("system") * NANOS_PER_TICK,
            user: stat.get("user") * NANOS_PER_TICK,
            per_cpu: per_cpu
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect(),
            ..Default::default()
        }
    });
    let throttling = cpu.map(|folder| {
        let stat = Flat::read(folder.join("cpu.stat"));
        Throttle {
            periods: stat.get("nr_periods"),
            throttled_periods: stat.get("nr_throttled"),
            throttled_time: stat.get("throttled_time"),
            ..Default::default()
        }
    });
    CPUStat {
        usage: usage.into(),
        throttling: throttling.into(),
        ..Default::default()
    }
}

fn memory(folder: &Path) -> MemoryStat {
    let stat = Flat::read(folder.join("memory.stat"));
    MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: Some(entry(folder, "memory")).into(),
        swap: Some(entry(folder, "memory.memsw")).into(),
        kernel: Some(entry(folder, "memory.kmem")).into(),
        kernel_tcp: Some(entry(folder, "memory.kmem.tcp")).into(),
        ..Default::default()
    }
}

fn entry(folder: &Path, prefix: &str) -> MemoryEntry {
    let file = |name: &str| number(folder.join(format!("{prefix}.{name}")));
    MemoryEntry {
        limit: file("limit_in_bytes"),
        usage: file("usage_in_bytes"),
        max: file("max_usage_in_bytes"),
        failcnt: file("failcnt"),
        ..Default::default()
    }
}

fn oom_control(folder: &Path) -> MemoryOomControl {
    let control = Flat::read(folder.join("memory.oom_control"));
    MemoryOomControl {
        oom_kill_disable: control.get("oom_kill_disable"),
        under_oom: control.get("under_oom"),
        oom_kill: control.get("oom_kill"),
        ..Default::default()
    }
}

/// The throttling policy's account, which the kernel keeps whatever the I/O scheduler.
fn blkio(folder: &Path) -> BlkIOStat {
    let entries = |file: &str| {
        let entry = |(major, minor, words): (u64, u64, Vec<String>)| {
            let [op, value] = words.as_slice() else {
                return None;
            };
            Some(BlkIOEntry {
                op: op.clone(),
                major,
                minor,
                value: value.parse().ok()?,
                ..Default::default()
            })
        };
        devices(folder.join(file))
            .into_iter()
            .filter_map(entry)
            .collect()
    };
    BlkIOStat {
        io_service_bytes_recursive: entries("blkio.throttle.io_service_bytes_recursive"),
        io_serviced_recursive: entries("blkio.throttle.io_serviced_recursive"),
        ..Default::default()
    }
}

fn hugetlb(folder: &Path) -> Vec<HugetlbStat> {
    let stat = |size: String| {
        let file = |name: &str| number(folder.join(format!("hugetlb.{size}.{name}")));
        HugetlbStat {
            usage: file("usage_in_bytes"),
            max: file("max_usage_in_bytes"),
            failcnt: file("failcnt"),
            pagesize: size,
            ..Default::default()
        }
    };
    huge_page_sizes(folder, "usage_in_bytes")
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
            ("cpuacct.usage", "1234\n"),
            ("cpuacct.stat", "user 3\nsystem 2\n"),
            ("cpuacct.usage_percpu", "1000 234 \n"),
            (
                "cpu.stat",
                "nr_periods 7\nnr_throttled 1\nthrottled_time 99\n",
            ),
            ("memory.stat", "cache 5\nrss 6\ntotal_inactive_file 4\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.limit_in_bytes", "67108864\n"),
            ("pids.current", "1\n"),
            ("pids.max", "max\n"),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 512\n8:0 Write 1024\nTotal 1536\n",
            ),
            ("hugetlb.2MB.usage_in_bytes", "2097152\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "1\n"),
        ] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        let names = ["memory", "cpu", "cpuacct", "pids", "blkio", "hugetlb"];
        let folders = names.map(|name| (name.to_owned(), dir.path().to_owned()));
        let bytes = encode(&HashMap::from(folders)).expect("encodes");
        let metrics = Metrics::parse_from_bytes(&bytes).expect("decodes");
        assert_eq!(metrics.cpu.usage.total, 1234);
        assert_eq!(metrics.cpu.usage.kernel, 20_000_000);
        assert_eq!(metrics.cpu.usage.per_cpu, [1000, 234]);
        assert_eq!(metrics.cpu.throttling.throttled_time, 99);
        assert_eq!(metrics.memory.usage.limit, 64 << 20);
        assert_eq!(metrics.memory.total_inactive_file, 4);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (1, 0));
        let written = &metrics.blkio.io_service_bytes_recursive;
        let written: Vec<_> = written
            .iter()
            .map(|entry| (entry.op.as_str(), entry.major, entry.minor, entry.value))
            .collect();
        assert_eq!(written, [("Read", 8, 0, 512), ("Write", 8, 0, 1024)]);
        let huge: Vec<_> = metrics
            .hugetlb
            .iter()
            .map(|stat| (stat.pagesize.as_str(), stat.usage))
            .collect();
        assert_eq!(huge, [("2MB", 2 << 20)]);
    }

    #[test]
    fn a_cgroup_that_is_gone_is_an_error() {
        let folders = HashMap::from([("memory".to_owned(), PathBuf::from("/no/such/cgroup"))]);
        assert!(
            encode(&folders)
                .expect_err("gone")
                .to_string()
                .contains("/no/such/cgroup")
        );
    }
}
