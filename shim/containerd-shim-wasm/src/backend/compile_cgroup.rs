//! The node's cgroup for compiling: one for all pods, bounded by the node's options.
//!
//! Charged to the pod, a compile would be killed by the pod's limit; charged to nobody, tenants could
//! starve the node with modules that are expensive to compile. Where systemd owns the cgroup tree the
//! helper runs in a transient scope of a slice that has the bounds, elsewhere it joins a cgroup of ours
//! by itself. Either way all that compiles at a time shares one bound; [`Slots`] says how many may.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::options::CompileBounds;
use crate::paths::RUN_DIR;

/// Name of the cgroup, and of the slice under systemd.
const NAME: &str = "wasmlet-compile";
/// Memory when the node's options say nothing, in bytes: the largest module measured took 430 MB.
const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;
/// Period of the CPU quota, in microseconds; the kernel's own default.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// Processes and threads in the cgroup: a helper has one thread per CPU and a few more.
const MAX_TASKS: u64 = 512;
/// How much longer than the shim systemd gives a helper: the shim's message says more.
const SCOPE_SLACK: Duration = Duration::from_secs(30);
/// systemd is the system's manager if and only if this folder exists (sd_booted(3)).
const SYSTEMD_BOOTED: &str = "/run/systemd/system";

/// The cgroup, ready to take a helper.
#[derive(Debug)]
pub enum CompileCgroup {
    /// Folders of ours; the helper writes itself into their `cgroup.procs`.
    Folders {
        /// One folder for each v1 controller, or the one of v2.
        folders: Vec<PathBuf>,
        /// Bound, in bytes.
        memory: u64,
    },
    /// A slice; `systemd-run` makes a scope in it for each helper.
    Slice {
        /// Bound, in bytes.
        memory: u64,
        /// Bound, in CPUs.
        cpus: u64,
    },
}

impl CompileCgroup {
    /// Makes the cgroup if it is not there, and sets its bounds.
    ///
    /// # Errors
    /// When the kernel refuses a folder or a bound.
    pub fn prepare(bounds: &CompileBounds) -> Result<Self> {
        let memory = bounds.compile_memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES);
        let cpus = cpus(bounds);
        if Path::new(SYSTEMD_BOOTED).is_dir() {
            return Ok(Self::Slice { memory, cpus });
        }
        let root = Path::new("/sys/fs/cgroup");
        let folders = if root.join("cgroup.controllers").exists() {
            let folder = root.join(NAME);
            // Usually on already; where not, the kernel says why.
            if let Err(error) = fs::write(root.join("cgroup.subtree_control"), "+memory +cpu +pids")
            {
                tracing::debug!(%error, "cannot enable controllers for compiling");
            }
            make(&folder)?;
            set(&folder, "memory.max", memory)?;
            set(
                &folder,
                "cpu.max",
                format!("{} {CPU_PERIOD_MICROS}", cpus * CPU_PERIOD_MICROS),
            )?;
            set(&folder, "pids.max", MAX_TASKS)?;
            vec![folder]
        } else {
            let folder = |controller: &str| root.join(controller).join(NAME);
            let (in_memory, in_cpu, in_pids) = (folder("memory"), folder("cpu"), folder("pids"));
            for folder in [&in_memory, &in_cpu, &in_pids] {
                make(folder)?;
            }
            set(&in_memory, "memory.limit_in_bytes", memory)?;
            set(&in_cpu, "cpu.cfs_period_us", CPU_PERIOD_MICROS)?;
            set(&in_cpu, "cpu.cfs_quota_us", cpus * CPU_PERIOD_MICROS)?;
            set(&in_pids, "pids.max", MAX_TASKS)?;
            vec![in_memory, in_cpu, in_pids]
        };
        Ok(Self::Folders { folders, memory })
    }

    /// Files that the helper writes its process id into.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        match self {
            Self::Folders { folders, .. } => {
                folders.iter().map(|f| f.join("cgroup.procs")).collect()
            }
            Self::Slice { .. } => Vec::new(),
        }
    }

    /// The command that sets the bounds, where that takes one. Until the next boot, and on the slice:
    /// bounds on each scope would add up to as many times as much as there are helpers.
    pub fn bound(&self) -> Option<Command> {
        let Self::Slice { memory, cpus } = self else {
            return None;
        };
        let mut command = Command::new("systemctl");
        command
            .args(["set-property", "--runtime"])
            .arg(format!("{NAME}.slice"))
            .arg(format!("MemoryMax={memory}"))
            .arg(format!("CPUQuota={}%", cpus * 100))
            .arg(format!("TasksMax={MAX_TASKS}"));
        Some(command)
    }

    /// The command that runs `program` inside, for at most about `limit`.
    pub fn command(&self, program: &Path, limit: Duration) -> Command {
        match self {
            Self::Folders { .. } => Command::new(program),
            Self::Slice { .. } => {
                // It becomes the program after it has made the scope, so descriptors, process id
                // and exit status are the program's.
                let mut command = Command::new("systemd-run");
                command
                    .args(["--scope", "--quiet", "--collect"])
                    .arg(format!("--slice={NAME}.slice"))
                    .arg(format!(
                        "--property=RuntimeMaxSec={}",
                        limit.saturating_add(SCOPE_SLACK).as_secs()
                    ))
                    .arg("--")
                    .arg(program);
                command
            }
        }
    }

    /// Bound on memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        match self {
            Self::Folders { memory, .. } | Self::Slice { memory, .. } => *memory,
        }
    }

    /// Whether a helper that ended with `status` was killed by the bound on memory. A SIGKILL from
    /// somebody else cannot be told apart; none of ours is sent without its own error.
    pub fn killed_for_memory(&self, status: u32) -> bool {
        const KILLED: u32 = 128 + 9;
        status == KILLED
    }

    /// Whether a helper that ended with `status` was ended by its own bound on processor time, which it
    /// only meets when it had more of it than its time allows.
    pub fn ended_for_time(&self, status: u32) -> bool {
        const OUT_OF_CPU_TIME: u32 = 128 + 24;
        status == OUT_OF_CPU_TIME
    }
}

/// CPUs of the cgroup.
fn cpus(bounds: &CompileBounds) -> u64 {
    bounds.compile_cpus.map_or_else(default_cpus, u64::from)
}

fn default_cpus() -> u64 {
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(all).unwrap_or(1).div_ceil(2)
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::system(format!(
        "make the cgroup {}",
        folder.display()
    )))
}

fn set(folder: &Path, file: &str, value: impl ToString) -> Result<()> {
    let path = folder.join(file);
    fs::write(&path, value.to_string()).map_err(Error::system(format!("set {}", path.display())))
}

/// The places for those who compile at a time; the others queue.
#[derive(Debug, Clone)]
pub struct Slots {
    folder: PathBuf,
    count: u64,
}

/// A place. Held as a file lock, so that it is free again whatever becomes of this process.
#[derive(Debug)]
pub struct Slot {
    _lock: Flock<File>,
}

impl Slots {
    /// The node's: as many modules compile at once as the cgroup has CPUs.
    pub fn of_node(bounds: &CompileBounds) -> Self {
        Self {
            folder: PathBuf::from(RUN_DIR),
            count: cpus(bounds).max(1),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes a place that is free, if there is one; never waits.
    ///
    /// # Errors
    /// When a lock file cannot be had.
    pub fn try_take(&self) -> Result<Option<Slot>> {
        for number in 0..self.count {
            let path = self.folder.join(format!("compile.{number}.lock"));
            let failed = |error: io::Error| Error::System {
                what: format!("lock {}", path.display()),
                source: error,
            };
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Some(Slot { _lock: lock })),
                Err((_, Errno::EWOULDBLOCK)) => {}
                Err((_, error)) => return Err(failed(error.into())),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::backend) fn slots(folder: &Path, count: u64) -> Slots {
        Slots {
            folder: folder.to_owned(),
            count,
        }
    }

    #[test]
    fn there_are_as_many_places_as_said_and_each_is_taken_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let slots = slots(folder.path(), 2);
        let take = || slots.try_take().expect("the files can be made");
        let (first, second) = (take(), take());
        assert!(first.is_some() && second.is_some());
        assert!(take().is_none(), "all are taken");
        drop(first);
        assert!(take().is_some(), "whichever is free");
        drop(second);
        assert!(take().is_some());
    }

    #[test]
    fn the_nodes_option_says_how_many_places_there_are() {
        let bounds = |cpus| CompileBounds {
            compile_cpus: cpus,
            ..CompileBounds::default()
        };
        assert_eq!(Slots::of_node(&bounds(Some(3))).count(), 3);
        assert_eq!(Slots::of_node(&bounds(None)).count(), default_cpus());
        assert_eq!(Slots::of_node(&bounds(Some(0))).count(), 1);
    }

    fn words(command: &Command) -> Vec<String> {
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn under_systemd_the_slice_has_the_bounds_and_the_scopes_have_none() {
        let cgroup = CompileCgroup::Slice {
            memory: 4096,
            cpus: 2,
        };
        let bound = cgroup.bound().expect("systemd has to be told");
        assert_eq!(
            words(&bound),
            [
                "systemctl",
                "set-property",
                "--runtime",
                "wasmlet-compile.slice",
                "MemoryMax=4096",
                "CPUQuota=200%",
                "TasksMax=512"
            ]
        );
        let helper = cgroup.command(Path::new("/opt/aot"), Duration::from_secs(60));
        let helper = words(&helper);
        assert!(helper.contains(&"--slice=wasmlet-compile.slice".to_owned()));
        assert!(helper.contains(&"--property=RuntimeMaxSec=90".to_owned()));
        assert!(!helper.iter().any(|word| word.contains("MemoryMax")));
        assert_eq!(helper.last().map(String::as_str), Some("/opt/aot"));
    }

    #[test]
    fn a_folder_of_ours_needs_no_command() {
        let cgroup = CompileCgroup::Folders {
            folders: vec!["/sys/fs/cgroup/x".into()],
            memory: 1,
        };
        assert!(cgroup.bound().is_none());
        assert_eq!(
            words(&cgroup.command(Path::new("/opt/aot"), Duration::ZERO)),
            ["/opt/aot"]
        );
    }
}
