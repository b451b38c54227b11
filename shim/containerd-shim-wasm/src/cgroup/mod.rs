//! A container's cgroup, read: usage, processes, out-of-memory kills.
//!
//! Limits are written by libcontainer (in the runner) and by runc. The shim remembers where the
//! container's cgroup is from `/proc/PID/cgroup` while its init lives, and reads from there.

mod ahead;
mod oom;
mod usage_v1;
mod usage_v2;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::{self, well_known_types::any::Any};

use crate::events::pack;
pub use ahead::settle_ahead;
pub use oom::OomWatch;

/// Where the cgroup file systems are mounted on every distribution that containerd supports.
const ROOT: &str = "/sys/fs/cgroup";

/// The folders of one container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// cgroup v1: a folder for each controller, by the controller's name.
    V1(HashMap<String, PathBuf>),
    /// cgroup v2: one folder.
    V2(PathBuf),
}

/// Why a cgroup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The process is in no cgroup with the files needed.
    #[error("process {0} is in no cgroup with a list of processes")]
    NoCgroup(i32),
    /// The usage cannot be encoded.
    #[error("cannot encode the usage")]
    Encode(#[source] protobuf::Error),
    /// The kernel takes no watch.
    #[error("cannot watch {} for out-of-memory kills", path.display())]
    Watch {
        /// The folder.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

fn read(path: PathBuf) -> Result<String, CgroupError> {
    fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
}

impl Cgroup {
    /// The cgroup of a living process.
    ///
    /// # Errors
    /// When `/proc/PID/cgroup` cannot be read or names no usable cgroup.
    pub fn of(pid: i32) -> Result<Self, CgroupError> {
        let text = read(PathBuf::from(format!("/proc/{pid}/cgroup")))?;
        Self::parse(&text, Path::new(ROOT)).ok_or(CgroupError::NoCgroup(pid))
    }

    /// Lines are `id:controllers:path`; cgroup v2 has id 0 and no controllers (cgroups(7)). On a
    /// hybrid node the v2 tree holds no controller that matters, so v1 wins where there is one.
    fn parse(text: &str, root: &Path) -> Option<Self> {
        let (mut v1, mut v2) = (HashMap::new(), None);
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let path = path.trim_start_matches('/');
            if controllers.is_empty() {
                v2 = Some(root.join(path));
            } else if !controllers.starts_with("name=") {
                // Controllers that share a hierarchy share its mount, named after all of them.
                for name in controllers.split(',') {
                    v1.insert(name.to_owned(), root.join(controllers).join(path));
                }
            }
        }
        if v1.is_empty() {
            v2.map(Self::V2)
        } else {
            Some(Self::V1(v1))
        }
    }

    /// The folder with a controller's files.
    fn controller(&self, name: &str) -> Option<&Path> {
        match self {
            Self::V1(folders) => folders.get(name).map(PathBuf::as_path),
            Self::V2(folder) => Some(folder),
        }
    }

    /// A folder that lists the cgroup's processes.
    fn any_folder(&self) -> Option<&Path> {
        let any = ["pids", "memory", "cpu", "devices"];
        any.iter().find_map(|name| self.controller(name))
    }

    /// A scope, which is systemd's to remove (systemd.scope(5)).
    pub fn is_scope(&self) -> bool {
        let folder = match self {
            Self::V1(folders) => folders.values().next(),
            Self::V2(folder) => Some(folder),
        };
        folder.is_some_and(|folder| folder.extension().is_some_and(|kind| kind == "scope"))
    }

    /// Processes of the container, in the shim's pid namespace.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let Some(folder) = self.any_folder() else {
            return Ok(Vec::new());
        };
        let text = read(folder.join("cgroup.procs"))?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect())
    }

    /// How many processes the kernel has killed here for memory.
    ///
    /// # Errors
    /// When the counter cannot be read, as after the cgroup was removed.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let Some(memory) = self.controller("memory") else {
            return Ok(0);
        };
        let file = match self {
            Self::V1(_) => "memory.oom_control",
            Self::V2(_) => "memory.events",
        };
        // Kernels before 4.13 have no such counter; nothing is known then.
        Ok(Flat::parse(&read(memory.join(file))?).get("oom_kill"))
    }

    /// Usage of the container: a message of cgroup v1 or v2, as the node is.
    ///
    /// # Errors
    /// When the container's cgroup is gone, or the message cannot be encoded.
    pub fn usage(&self) -> Result<Any, CgroupError> {
        let (name, bytes) = match self {
            Self::V1(folders) => (
                "io.containerd.cgroups.v1.Metrics",
                usage_v1::encode(folders)?,
            ),
            Self::V2(folder) => (
                "io.containerd.cgroups.v2.Metrics",
                usage_v2::encode(folder)?,
            ),
        };
        Ok(pack(name, bytes))
    }

    /// Watches for out-of-memory kills.
    ///
    /// # Errors
    /// When the kernel takes no watch.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        let Some(memory) = self.controller("memory") else {
            return Ok(None);
        };
        let watch = match self {
            Self::V1(_) => oom::watch_v1(memory),
            Self::V2(_) => oom::watch_v2(memory),
        };
        watch.map(Some).map_err(|source| CgroupError::Watch {
            path: memory.to_owned(),
            source,
        })
    }
}

/// A file of `key value` lines.
#[derive(Debug, Default)]
struct Flat(HashMap<String, u64>);

impl Flat {
    fn parse(text: &str) -> Self {
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// A file that a kernel or a controller does not have counts as all zero, as in containerd's own.
    fn read(path: PathBuf) -> Self {
        fs::read_to_string(path)
            .map(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }
}

/// A file with one number; `max` is no limit.
fn number(path: PathBuf) -> u64 {
    match fs::read_to_string(path).unwrap_or_default().trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// Lines that begin with a device's `major:minor`, and the words behind it.
fn devices(path: PathBuf) -> Vec<(u64, u64, Vec<String>)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let device = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        Some((
            major.parse().ok()?,
            minor.parse().ok()?,
            words.map(str::to_owned).collect(),
        ))
    };
    text.lines().filter_map(device).collect()
}

/// Sizes of huge pages as file names have them (`2MB`): those with a file `hugetlb.<size>.<usage>`.
fn huge_page_sizes(folder: &Path, usage: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let size = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        let size = name
            .to_str()?
            .strip_prefix("hugetlb.")?
            .strip_suffix(usage)?;
        let size = size.strip_suffix('.')?;
        // `hugetlb.2MB.rsvd.current` is another account.
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<String> = entries.filter_map(size).collect();
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v1_node_has_a_folder_for_each_controller() {
        let text = "12:pids:/k/c\n5:cpu,cpuacct:/k/c\n4:memory:/k/c\n1:name=systemd:/x\n0::/\n";
        let cgroup = Cgroup::parse(text, Path::new(ROOT)).expect("a cgroup");
        let folder = |name| cgroup.controller(name).map(Path::to_owned);
        assert_eq!(folder("memory"), Some("/sys/fs/cgroup/memory/k/c".into()));
        assert_eq!(
            folder("cpuacct"),
            Some("/sys/fs/cgroup/cpu,cpuacct/k/c".into())
        );
        assert_eq!(folder("blkio"), None);
    }

    #[test]
    fn a_v2_node_has_one_folder() {
        let cgroup = Cgroup::parse("0::/kubepods/pod1/c\n", Path::new(ROOT)).expect("a cgroup");
        assert_eq!(cgroup, Cgroup::V2("/sys/fs/cgroup/kubepods/pod1/c".into()));
        assert_eq!(Cgroup::parse("", Path::new(ROOT)), None);
    }

    #[test]
    fn kills_are_counted_in_both_forms() {
        let dir = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
        write(
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        );
        write("memory.events", "low 0\nmax 9\noom 3\noom_kill 1\n");
        let v1 = Cgroup::V1(HashMap::from([(
            "memory".to_owned(),
            dir.path().to_owned(),
        )]));
        assert_eq!(v1.oom_kills().expect("read"), 2);
        assert_eq!(
            Cgroup::V2(dir.path().to_owned()).oom_kills().expect("read"),
            1
        );
    }

    #[test]
    fn the_test_itself_is_in_a_cgroup() {
        let me = i32::try_from(std::process::id()).expect("fits");
        let cgroup = Cgroup::of(me).expect("every process is in one");
        assert!(
            cgroup
                .processes()
                .expect("readable")
                .contains(&std::process::id())
        );
    }
}
