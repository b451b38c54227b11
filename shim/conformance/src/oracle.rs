//! The leak oracle: nothing that carries a test's tag may be left when the test has cleaned up.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::{Node, proc, wait_for};

/// Live state of our shims.
const RUN_DIR: &str = "/run/wasmlet";

/// Where shims make their sockets.
const SOCKETS: &str = "/run/containerd/s";

/// What a test may not leave.
pub struct Oracle {
    /// What ids of the test contain: its tag, and the ids that the CRI made up for it.
    needles: Vec<String>,
    base: PathBuf,
    containerd_socket: PathBuf,
    /// Whose mounts count: a node may have a mount namespace of its own.
    containerd: i32,
}

/// What was left, one line each; empty is good.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Residue(Vec<String>);

impl Residue {
    /// Nothing was left.
    pub fn is_clean(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Residue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

impl Oracle {
    /// For what carries `tag` on `node`.
    pub(crate) fn new(node: &Node, tag: &str) -> Self {
        Self {
            // Ids go on with a hyphen, so that n1 is not taken for n12.
            needles: vec![format!("{tag}-")],
            base: node.base().to_owned(),
            containerd_socket: node.socket(),
            containerd: node.pid(),
        }
    }

    /// Makes another id belong to the test.
    pub(crate) fn also(&mut self, id: &str) {
        self.needles.push(id.to_owned());
    }

    fn is_ours(&self, text: &str) -> bool {
        self.needles.iter().any(|needle| text.contains(needle))
    }

    /// Looks until nothing is left or `within` is over. `shims` are the container or sandbox ids that
    /// shims were started for: their sockets are named by a hash, which shows no tag.
    pub fn check(&self, within: Duration, shims: &[(String, String)]) -> Residue {
        let clean = wait_for(within, || {
            let mut left = self.left();
            for (namespace, id) in shims {
                let socket = socket_of(&self.containerd_socket, namespace, id);
                if socket.exists() {
                    left.push(format!("socket {} of {id}", socket.display()));
                }
            }
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        Residue(clean.err().unwrap_or_default())
    }

    /// What is live of some containers now: processes, cgroups, what our shims keep of them. What
    /// containerd keeps until they are removed is not looked at.
    pub(crate) fn alive(node: &Node, ids: &[String]) -> Vec<String> {
        let mut alive = Vec::new();
        let oracle = Self {
            needles: ids.to_vec(),
            base: node.base().to_owned(),
            containerd_socket: node.socket(),
            containerd: node.pid(),
        };
        oracle.processes(&mut alive);
        for dir in crate::node::cgroups_where(|name| oracle.is_ours(name)) {
            alive.push(format!("cgroup {}", dir.display()));
        }
        names_below(Path::new(RUN_DIR), &|name| oracle.is_ours(name), &mut alive);
        alive
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        self.processes(&mut left);
        for point in proc::mount_points_of(self.containerd)
            .into_iter()
            .chain(proc::mount_points())
        {
            if self.is_ours(&point) {
                left.push(format!("mount {point}"));
            }
        }
        for dir in crate::node::cgroups_where(|name| self.is_ours(name)) {
            left.push(format!("cgroup {}", dir.display()));
        }
        let bundles = self.base.join("state/io.containerd.runtime.v2.task");
        let work = self.base.join("root/io.containerd.runtime.v2.task");
        let machine = [RUN_DIR, "/run/containerd/runc", "/run/netns"].map(Path::new);
        for dir in [bundles.as_path(), work.as_path()]
            .into_iter()
            .chain(machine)
        {
            names_below(dir, &|name| self.is_ours(name), &mut left);
        }
        left
    }

    /// Processes of the test's containers and shims, and zombies that wait for one of them.
    fn processes(&self, left: &mut Vec<String>) {
        let own = std::process::id().cast_signed();
        for pid in proc::all() {
            if pid == own {
                continue;
            }
            let cmdline = proc::cmdline(pid);
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let of_parent = || {
                proc::state(pid) == Some('Z')
                    && proc::parent(pid).is_some_and(|parent| self.is_ours(&proc::cmdline(parent)))
            };
            if self.is_ours(&cmdline) || self.is_ours(&cgroup) || of_parent() {
                let state = proc::state(pid).unwrap_or('?');
                left.push(format!("process {pid} ({state}): {cmdline}"));
            }
        }
    }
}

/// Files of our shims that carry `id` in their name.
pub(crate) fn records_of(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    names_below(Path::new(RUN_DIR), &|name| name.contains(id), &mut found);
    found
}

/// Files and folders below `dir` whose name is wanted, one line each.
fn names_below(dir: &Path, wanted: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if wanted(&name) {
            found.push(format!("file {}", entry.path().display()));
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names_below(&entry.path(), wanted, found);
        }
    }
}

/// The socket of a shim: containerd's libraries name it by a hash.
pub(crate) fn socket_of(containerd: &Path, namespace: &str, group: &str) -> PathBuf {
    let text = containerd.join(namespace).join(group).display().to_string();
    let hex: String = Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Path::new(SOCKETS).join(hex)
}

/// The process that serves container `id`, or the pod it is the sandbox of: not the `start` that it
/// came from, which containerd waits for.
pub(crate) fn shim_of(id: &str, containerd: &Path) -> Option<i32> {
    let socket = containerd.display().to_string();
    let is_shim = |pid: i32| {
        let line = proc::cmdline(pid);
        line.contains("containerd-shim")
            && line.contains(&format!("-id {id}"))
            && line.contains(&socket)
            && !line.contains(" delete")
    };
    proc::all().into_iter().find(|pid| {
        is_shim(*pid)
            && proc::is_running(*pid)
            && proc::parent(*pid).is_some_and(|parent| {
                // Forked and left alone: neither below `start` nor `start` below containerd.
                !is_shim(parent) && !proc::cmdline(parent).contains("/containerd ")
            })
    })
}
