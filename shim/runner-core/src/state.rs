//! Where a container's state is, and how all of it is removed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupManager, FreezerState, create_cgroup_manager,
};
use libcontainer::config::YoukiConfig;
use libcontainer::container::State;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use wasmlet_protocol::ContainerRef;

use crate::failure::{Error, chain};

/// How long killed processes may take to leave their cgroup.
///
/// containerd gives a clean-up 5 s in all.
const EXIT_DEADLINE: Duration = Duration::from_secs(3);

/// The folders of one container.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Container id.
    pub(crate) id: String,
    /// The runners' root folder.
    pub(crate) root: PathBuf,
    /// libcontainer's state and the notify socket.
    pub(crate) state: PathBuf,
    /// The bundle made for libcontainer. Its name starts with a dot, an id never does.
    pub(crate) bundle: PathBuf,
    /// See [`Lock`].
    pub(crate) lock: PathBuf,
}

impl Folders {
    /// # Errors
    /// When the id could lead out of the root folder or collide with a bundle.
    pub(crate) fn new(container: &ContainerRef) -> Result<Self, Error> {
        let id = &container.id;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
        if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.chars().all(plain) {
            return Err(Error::Id { id: id.clone() });
        }
        let bundle = container.state_root.join(format!(".bundle-{id}"));
        Ok(Self {
            id: id.clone(),
            root: container.state_root.clone(),
            state: container.state_root.join(id),
            lock: bundle.join("lock"),
            bundle,
        })
    }

    /// The file of the cap on linear memory: in the bundle, which is there before libcontainer makes the
    /// state's folder.
    pub(crate) fn memory_cap(&self) -> PathBuf {
        self.bundle.join("memory-cap")
    }

    /// Notes which cgroup the container gets, before libcontainer makes it.
    ///
    /// libcontainer has a note of its own, which it removes when a create fails, even where the cgroup is
    /// still there: it gives dying processes a tenth of a second to leave.
    ///
    /// # Errors
    /// When the specification has no such cgroup, or the note cannot be written.
    pub(crate) fn note_cgroup(&self, spec: &Spec, systemd: bool) -> io::Result<()> {
        let config = YoukiConfig::from_spec(spec, &self.id).map_err(io::Error::other)?;
        let note = CgroupNote {
            path: config.cgroup_path,
            systemd,
        };
        fs::write(self.cgroup_note(), serde_json::to_vec(&note)?)
    }

    /// See [`Self::note_cgroup`].
    pub(crate) fn cgroup_note(&self) -> PathBuf {
        self.bundle.join("cgroup.json")
    }

    /// What was written of the container, as far as it got.
    pub(crate) fn saved(&self) -> Saved {
        let note = fs::read(self.cgroup_note()).ok();
        Saved {
            state: State::load(&self.state).ok(),
            config: YoukiConfig::load(&self.state).ok(),
            cgroup: note.and_then(|json| serde_json::from_slice(&json).ok()),
        }
    }

    pub(crate) fn not_found(&self) -> Error {
        Error::NotFound {
            id: self.id.clone(),
            state_root: self.root.clone(),
        }
    }
}

/// State files of a container; each is missing when a create was cut short.
pub(crate) struct Saved {
    pub(crate) state: Option<State>,
    pub(crate) config: Option<YoukiConfig>,
    cgroup: Option<CgroupNote>,
}

/// Which cgroup a container gets.
#[derive(Debug, Serialize, Deserialize)]
struct CgroupNote {
    /// As in the specification, or libcontainer's own where it has none.
    path: PathBuf,
    systemd: bool,
}

impl Saved {
    /// The container's cgroup, when it is known which one that is.
    pub(crate) fn cgroup(&self, id: &str) -> Option<Result<AnyCgroupManager, Error>> {
        let note = self.cgroup.as_ref()?;
        Some(
            create_cgroup_manager(CgroupConfig {
                cgroup_path: note.path.clone(),
                systemd_cgroup: note.systemd,
                container_name: id.to_owned(),
            })
            .map_err(|e| Error::Control {
                verb: "find the cgroup of",
                detail: chain(&e),
            }),
        )
    }
}

/// Held by the runner that creates a container, and by the processes it is cloned into until the
/// guest runs. Whoever removes a container waits for it, so that no half-made process comes to life
/// in a cgroup that was just removed.
#[derive(Debug)]
pub(crate) struct Lock {
    /// flock(2): goes to the clones with the descriptor.
    _file: OwnedFd,
}

impl Lock {
    /// Takes the lock of a container to be.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else creates or removes it at this moment.
    pub(crate) fn take(folders: &Folders) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&folders.lock)?;
        flock(&file)?;
        // fcntl(2): stays with this process, and tells others its pid.
        fcntl(&file, FcntlArg::F_SETLK(&whole_file()))?;
        Ok(Self { _file: file.into() })
    }
}

fn flock(file: &File) -> io::Result<()> {
    flock_with(file, libc::LOCK_EX | libc::LOCK_NB)
}

fn flock_with(file: &File, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is that of a live file.
    let result = unsafe { libc::flock(file.as_raw_fd(), operation) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Waits until the guest runs, or until nobody is left to run it. As long as the startContainer hooks take,
/// which have timeouts of their own.
///
/// # Errors
/// When there is no lock to wait for.
pub(crate) fn guest_runs(folders: &Folders) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(&folders.lock)?;
    loop {
        match flock_with(&file, libc::LOCK_EX) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        // The constants are c_int on some targets and fit the field on all.
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The runner that is creating the container at this moment.
fn creator(file: &File) -> Option<Pid> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    let held = lock.l_type != libc::F_UNLCK as libc::c_short;
    (held && lock.l_pid > 0).then(|| Pid::from_raw(lock.l_pid))
}

/// Kills what is left of a container and removes its cgroup. Nothing left is fine.
///
/// # Errors
/// When something cannot be removed; the state stays then, so that it can be tried again.
pub(crate) fn stop_all(folders: &Folders, saved: &Saved) -> Result<(), Error> {
    let cgroup = saved.cgroup(&folders.id).transpose()?;
    let lock = OpenOptions::new().write(true).open(&folders.lock).ok();
    if let Some(pid) = lock.as_ref().and_then(creator) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let deadline = Instant::now() + EXIT_DEADLINE;
    loop {
        let pids = cgroup.as_ref().map(members).unwrap_or_default();
        let free = lock.as_ref().is_none_or(|file| flock(file).is_ok());
        if pids.is_empty() && free {
            break;
        }
        if Instant::now() > deadline {
            return Err(Error::StillRunning {
                pids: pids.iter().map(|p| p.as_raw()).collect(),
            });
        }
        for pid in &pids {
            // Gone already is as good.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        if let Some(cgroup) = &cgroup {
            // A frozen process does not even die on cgroup v1. Fails where there is no freezer.
            let _ = cgroup.freeze(FreezerState::Thawed);
        }
        wait_a_moment(&pids);
    }
    match cgroup {
        None => Ok(()),
        Some(cgroup) => cgroup.remove().map_err(|e| Error::Control {
            verb: "remove the cgroup of",
            detail: chain(&e),
        }),
    }
}

/// Processes in a cgroup; none when it was never made or is gone.
fn members(cgroup: &AnyCgroupManager) -> Vec<Pid> {
    cgroup
        .get_all_pids()
        .unwrap_or_default()
        .into_iter()
        // 0 stands for a process of another pid namespace; to kill(2) it is our own group.
        .filter(|pid| pid.as_raw() > 0)
        .map(|pid| Pid::from_raw(pid.as_raw()))
        .collect()
}

/// Removes a container's folders.
pub(crate) fn remove_folders(folders: &Folders) -> Result<(), Error> {
    for path in [&folders.state, &folders.bundle] {
        match fs::remove_dir_all(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::RemoveState {
                    path: path.clone(),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Waits for processes: for our own children by reaping them, for others a hundredth of a second.
fn wait_a_moment(pids: &[Pid]) {
    let mut ours = false;
    for pid in pids {
        ours |= waitpid(*pid, Some(WaitPidFlag::empty())).is_ok();
    }
    if !ours {
        std::thread::sleep(Duration::from_millis(10));
    }
}
