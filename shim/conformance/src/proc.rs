//! What `/proc` and the cgroup file systems say of a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// All process ids of the machine.
pub fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether the process exists and is not a zombie.
pub fn is_running(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The letter in `/proc/PID/stat`: `R`, `S`, `Z`, …
pub fn state(pid: i32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

/// Process id of the parent.
pub fn parent(pid: i32) -> Option<i32> {
    stat_field(pid, 1)?.parse().ok()
}

/// A field of `/proc/PID/stat` counted from the one behind the command's name.
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets: the last bracket ends it.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_whitespace().nth(index).map(str::to_owned)
}

/// Processor time used so far, user and system, in the kernel's ticks.
pub fn cpu_ticks(pid: i32) -> Option<String> {
    Some(format!("{}+{}", stat_field(pid, 11)?, stat_field(pid, 12)?))
}

/// Columns and rows of a terminal.
pub fn window_size(terminal: &fs::File) -> std::io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_col, size.ws_row))
}

/// Process ids of the children.
pub fn children(pid: i32) -> Vec<i32> {
    all()
        .into_iter()
        .filter(|child| parent(*child) == Some(pid))
        .collect()
}

/// Command line with spaces between the arguments; empty for a zombie.
pub fn cmdline(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim_end().to_owned()
}

/// Environment as the process was started with.
pub fn environ(pid: i32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let entry = String::from_utf8_lossy(entry).into_owned();
            entry
                .split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The executable's path, with ` (deleted)` where it is gone.
pub fn exe(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Value of a line of `/proc/PID/status`, such as `Seccomp` or `CapEff`.
pub fn status(pid: i32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == key).then(|| value.trim().to_owned())
    })
}

/// Resident memory in bytes.
pub fn rss(pid: i32) -> Option<u64> {
    let line = status(pid, "VmRSS")?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Open descriptors and what they point at.
pub fn fds(pid: i32) -> BTreeMap<i32, String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.display().to_string()))
        })
        .collect()
}

/// A line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// `55d0c0a00000-55d0c0a21000`.
    pub range: String,
    /// `r-xp`.
    pub access: String,
    /// File or pseudo name; may be empty.
    pub name: String,
}

/// Memory mappings of the process.
pub fn maps(pid: i32) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let range = words.next()?.to_owned();
            let access = words.next()?.to_owned();
            let name = words.nth(3).unwrap_or_default().to_owned();
            Some(Mapping {
                range,
                access,
                name,
            })
        })
        .collect()
}

/// Path of the process inside cgroup v1 hierarchy `controller`, or inside the v2 tree when
/// `controller` is empty.
pub fn cgroup(pid: i32, controller: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        names
            .split(',')
            .any(|name| name == controller)
            .then(|| path.to_owned())
    })
}

/// Root of every cgroup hierarchy mounted on this machine.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
        })
        .collect()
}

/// Whether the machine accounts memory by cgroup v1.
pub fn cgroup_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory").is_dir()
}

/// Whether containers can be limited by the controller.
pub fn has_controller(name: &str) -> bool {
    if cgroup_v1() {
        return Path::new("/sys/fs/cgroup").join(name).is_dir();
    }
    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .is_ok_and(|text| text.split_whitespace().any(|known| known == name))
}

/// Mount points of the machine, as in `/proc/self/mountinfo`.
pub fn mount_points() -> Vec<String> {
    mount_points_of(std::process::id().cast_signed())
}

/// Mount points that a process sees; none when it is gone.
pub fn mount_points_of(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .collect()
}
