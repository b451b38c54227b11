//! The node's cgroup for compiling: one for all pods, bounded by the node's options.
//!
//! Charged to the pod, a compile would be killed by the pod's limit; charged to nobody, tenants could
//! starve the node with modules that are expensive to compile. Where systemd owns the cgroup tree the
//! helper runs in a transient scope with the same bounds, elsewhere it joins a cgroup of ours by itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    /// A scope that `systemd-run` makes.
    Scope {
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
        let cpus = bounds.compile_cpus.map_or_else(default_cpus, u64::from);
        if Path::new(SYSTEMD_BOOTED).is_dir() {
            return Ok(Self::Scope { memory, cpus });
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
            Self::Scope { .. } => Vec::new(),
        }
    }

    /// The command that runs `program` inside.
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Self::Folders { .. } => Command::new(program),
            Self::Scope { memory, cpus } => {
                // It becomes the program after it has made the scope, so descriptors, process id
                // and exit status are the program's.
                let mut command = Command::new("systemd-run");
                command
                    .args(["--scope", "--quiet", "--collect"])
                    .arg(format!("--slice={NAME}.slice"))
                    .arg(format!("--property=MemoryMax={memory}"))
                    .arg(format!("--property=CPUQuota={}%", cpus * 100))
                    .arg(format!("--property=TasksMax={MAX_TASKS}"))
                    .arg("--")
                    .arg(program);
                command
            }
        }
    }

    /// Bound on memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        match self {
            Self::Folders { memory, .. } | Self::Scope { memory, .. } => *memory,
        }
    }

    /// Whether a helper that ended with `status` was killed by the bound on memory. A SIGKILL from
    /// somebody else cannot be told apart; none of ours is sent without its own error.
    pub fn killed_for_memory(&self, status: u32) -> bool {
        const KILLED: u32 = 128 + 9;
        status == KILLED
    }
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

/// A place among those who compile at a time; the others queue. Held as a file lock, so that it is
/// free again whatever becomes of this process.
#[derive(Debug)]
pub struct Slot {
    _lock: nix::fcntl::Flock<File>,
}

impl Slot {
    /// Waits for the place. As many modules compile at once as the cgroup has CPUs by default; the
    /// choice of a queue is by process id, which is as good as random.
    ///
    /// # Errors
    /// When the lock file cannot be had.
    pub fn take() -> Result<Self> {
        let queue = u64::from(std::process::id()) % default_cpus();
        let path = Path::new(RUN_DIR).join(format!("compile.{queue}.lock"));
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
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
            .map(|lock| Self { _lock: lock })
            .map_err(|(_, error)| failed(error.into()))
    }
}
