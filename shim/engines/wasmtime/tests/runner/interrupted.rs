//! A runner that is killed while it creates a container.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::guests;
use crate::support::{Container, can_run, control, done, eventually};

/// Processes that run the runner for this container: by its folder, which all have open.
fn processes_of(folder: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc is there").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(open) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let ours = open
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| target.starts_with(folder));
        if ours && pid != std::process::id().cast_signed() {
            found.push(pid);
        }
    }
    found
}

#[test]
fn delete_removes_what_a_killed_runner_left() {
    if !can_run() {
        return;
    }
    // Through all steps of a creation, whatever this machine needs for each.
    for millis in 0..40u64 {
        let container = Container::new(guests::sleeps());
        let (mut runner, _control) = container.spawn();
        std::thread::sleep(Duration::from_micros(millis * 700));
        runner.kill().expect("it is our child");
        runner.wait().expect("it is our child");
        let reference = &container.request.container;
        assert_eq!(control(reference, &["delete"]), done(), "after {millis}");
        container.assert_nothing_left();
        eventually("its processes are gone", || {
            for pid in processes_of(container.folder.path()) {
                // Orphans become children of this process.
                if let Ok(WaitStatus::StillAlive) =
                    waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG))
                {
                    return false;
                }
            }
            processes_of(container.folder.path()).is_empty()
        });
        // And the name can be used again.
        let created = container.created();
        created.delete();
    }
}

#[test]
fn delete_ends_a_creation_under_way() {
    if !can_run() {
        return;
    }
    for millis in (0..30u64).step_by(3) {
        let container = Container::new(guests::sleeps());
        let (mut runner, _control) = container.spawn();
        std::thread::sleep(Duration::from_millis(millis));
        assert_eq!(control(&container.request.container, &["delete"]), done());
        runner.wait().expect("it is our child");
        // Once more, as the first may have come before there was anything.
        assert_eq!(control(&container.request.container, &["delete"]), done());
        container.assert_nothing_left();
    }
}

#[test]
fn a_full_disk_under_the_state_is_told_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::exits(0));
    let small = container.path("small");
    fs::create_dir(&small).expect("ours");
    let small = small.to_string_lossy().into_owned();
    let mounted = std::process::Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            "size=16k,nr_inodes=100",
            "none",
            &small,
        ])
        .status()
        .expect("mount is installed");
    assert!(mounted.success());
    container.request.container.state_root = Path::new(&small).join("state");
    fs::write(Path::new(&small).join("fill"), vec![0; 16384 - 4096]).expect("it fits");
    let result = container.create();
    let unmounted = std::process::Command::new("umount")
        .args(["-l", &small])
        .status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    let Err(refused) = result else {
        panic!("it was created")
    };
    let (failure, container) = *refused;
    assert!(
        failure.message.contains("No space left on device"),
        "{}",
        failure.message
    );
    assert!(container.cgroups().is_empty());
}
