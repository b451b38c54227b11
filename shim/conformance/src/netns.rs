//! Network namespaces with nothing but a loopback device, as small pods of the tests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

/// A network namespace, gone when dropped.
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Makes it and brings `lo` up.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        ip(&["netns", "add", name]);
        let made = Self {
            name: name.to_owned(),
        };
        ip(&["-n", name, "link", "set", "lo", "up"]);
        made
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Does something inside, in a thread of its own.
    #[track_caller]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("the namespace is there");
        let inside = || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().expect("no panic inside"))
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // The oracle finds it when it stays.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output();
    let done = done.expect("ip of iproute2 can be started");
    assert!(
        done.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&done.stderr)
    );
}
