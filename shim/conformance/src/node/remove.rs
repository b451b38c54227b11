//! Removing what a node leaves on the machine, also one whose tests were killed.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{SHORT, proc, wait_for};

/// Name prefix of the nodes' folders and cgroups.
const PREFIX: &str = "wlc-";

/// The cgroup of the node in folder `base`.
pub(crate) fn cgroup_of(base: &Path) -> String {
    format!(
        "/{}",
        base.file_name().unwrap_or_default().to_string_lossy()
    )
}

/// Removes the nodes of test processes that do not exist any more.
pub fn sweep_stale() {
    let Ok(entries) = fs::read_dir("/tmp") else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse().ok());
        let Some(owner) = owner else { continue };
        if !proc::is_running(owner) {
            for left in remove(&entry.path()) {
                eprintln!("left of {name}: {left}");
            }
        }
    }
}

/// Ends every process of the node, unmounts and removes. Says what could not be removed.
pub(crate) fn remove(base: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let dead = wait_for(SHORT, || {
        let pids = processes(base);
        for pid in &pids {
            // A process may end between the look and the signal.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if pids.is_empty() { Ok(()) } else { Err(pids) }
    });
    if let Err(pids) = dead {
        left.extend(
            pids.iter()
                .map(|pid| format!("process {pid}: {}", proc::cmdline(*pid))),
        );
    }
    let inside = format!("{}/", base.display());
    let mut points = proc::mount_points();
    points.retain(|point| point.starts_with(&inside));
    for point in points.iter().rev() {
        if let Err(error) = umount2(point.as_str(), MntFlags::MNT_DETACH) {
            left.push(format!("mount {point}: {error}"));
        }
    }
    for root in proc::cgroup_roots() {
        let top = root.join(cgroup_of(base).trim_start_matches('/'));
        if let Err(error) = remove_cgroups(&top) {
            left.push(format!("cgroup {}: {error}", top.display()));
        }
    }
    if let Err(error) = fs::remove_dir_all(base) {
        left.push(format!("folder {}: {error}", base.display()));
    }
    left
}

/// Processes that name the node's folder in their command line or live in its cgroups.
fn processes(base: &Path) -> Vec<i32> {
    let folder = format!("{}/", base.display());
    let group = format!("{}/", cgroup_of(base));
    let own = std::process::id().cast_signed();
    let mut pids = proc::all();
    pids.retain(|pid| {
        *pid != own
            && proc::is_running(*pid)
            && (proc::cmdline(*pid).contains(&folder)
                || fs::read_to_string(format!("/proc/{pid}/cgroup"))
                    .is_ok_and(|text| text.lines().any(|line| line.contains(&group))))
    });
    pids
}

/// Removes a cgroup and those below it, innermost first.
fn remove_cgroups(top: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(top) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroups(&entry.path())?;
        }
    }
    // The last process of a cgroup leaves it a moment after it was reaped.
    wait_for(SHORT, || match fs::remove_dir(top) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Every folder below the cgroup roots whose name is wanted.
pub(crate) fn cgroups_where(wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    fn walk(dir: &Path, wanted: &dyn Fn(&str) -> bool, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else {
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if wanted(&entry.file_name().to_string_lossy()) {
                    found.push(entry.path());
                }
                walk(&entry.path(), wanted, found);
            }
        }
    }
    let mut found = Vec::new();
    for root in proc::cgroup_roots() {
        walk(&root, &wanted, &mut found);
    }
    found
}
