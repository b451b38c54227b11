//! What the kernel tells of processes: who is whose parent, memory, time on a processor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use crate::error::{Error, file};

/// Who is whose parent, at one moment.
pub(crate) struct Table(BTreeMap<u32, (u32, String)>);

impl Table {
    pub(crate) fn read() -> Result<Self, Error> {
        let mut table = BTreeMap::new();
        for entry in fs::read_dir("/proc").map_err(file("/proc"))? {
            let entry = entry.map_err(file("/proc"))?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // One that has ended meanwhile is none of ours: ours are idle.
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
                continue;
            };
            let field = |name| {
                status
                    .lines()
                    .find_map(|line: &str| line.strip_prefix(name))
            };
            let parent = field("PPid:")
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            table.insert(
                pid,
                (parent, field("Name:").unwrap_or("").trim().to_owned()),
            );
        }
        Ok(Self(table))
    }

    pub(crate) fn name(&self, pid: u32) -> &str {
        self.0.get(&pid).map_or("", |(_, name)| name)
    }

    /// The shim of a container and everything below it.
    pub(crate) fn of_container(&self, id: &str, init: u32) -> Result<BTreeSet<u32>, Error> {
        let shim = self.0.get(&init).map_or(0, |(parent, _)| *parent);
        if shim <= 1 {
            return Err(Error::Orphan {
                id: id.into(),
                init,
            });
        }
        let mut found = BTreeSet::from([shim]);
        loop {
            let below: Vec<u32> = self
                .0
                .iter()
                .filter(|(pid, (parent, _))| found.contains(parent) && !found.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if below.is_empty() {
                return Ok(found);
            }
            found.extend(below);
        }
    }
}

/// Proportional set size: a page that several processes map is divided among them
/// (proc_pid_smaps(5)), so the sum over processes is what they really take.
pub(crate) fn pss_kb(pid: u32) -> Result<u32, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
    let text = fs::read_to_string(&path).map_err(file(&path))?;
    kilobytes(&text, "Pss:").ok_or(Error::Proc { path, line: "Pss" })
}

/// Time that a process has been on a processor, threads that have ended included.
///
/// From its clock, which counts nanoseconds: /proc/PID/stat counts hundredths of a second, more than an idle
/// process needs in an hour, and /proc/PID/task forgets threads that end, as those of a pool do when they idle.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, Error> {
    nix::time::clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))
        .and_then(ClockId::now)
        .map(Duration::from)
        .map_err(|errno| file(format!("/proc/{pid}"))(errno.into()))
}

/// What the kernel holds for available on the whole machine, in kB.
pub(crate) fn available_kb() -> Result<u64, Error> {
    let path = PathBuf::from("/proc/meminfo");
    let text = fs::read_to_string(&path).map_err(file(&path))?;
    kilobytes(&text, "MemAvailable:").ok_or(Error::Proc {
        path,
        line: "MemAvailable",
    })
}

/// Number of a line `NAME  123 kB`.
fn kilobytes<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_its_shim_and_all_below() {
        let table = Table(BTreeMap::from([
            (1, (0, "init".to_owned())),
            (10, (1, "shim".to_owned())),
            (11, (10, "guest".to_owned())),
            (12, (11, "child".to_owned())),
            (20, (1, "other".to_owned())),
        ]));
        assert_eq!(
            table.of_container("c", 11).unwrap(),
            BTreeSet::from([10, 11, 12])
        );
        assert!(matches!(
            table.of_container("c", 20),
            Err(Error::Orphan { init: 20, .. })
        ));
    }

    #[test]
    fn this_process_has_memory_and_has_been_on_a_processor() {
        assert!(pss_kb(std::process::id()).unwrap() > 0);
        let before = cpu_time(std::process::id()).unwrap();
        // A thread that has ended counts.
        let spin = || (0..1_000_000u64).fold(0, |sum, value| sum ^ std::hint::black_box(value));
        std::thread::spawn(spin).join().unwrap();
        assert!(cpu_time(std::process::id()).unwrap() > before);
        assert!(available_kb().unwrap() > 0);
    }

    #[test]
    fn kilobytes_are_those_of_the_named_line() {
        let text = "Pss_Dirty:  7 kB\nPss:  12 kB\n";
        assert_eq!(kilobytes(text, "Pss:"), Some(12u32));
        assert_eq!(kilobytes::<u32>(text, "Rss:"), None);
    }
}
