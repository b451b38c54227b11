//! News of out-of-memory kills.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Something that becomes readable when the kernel may have killed for memory.
#[derive(Debug)]
pub enum OomWatch {
    /// cgroup v1: an eventfd registered in `cgroup.event_control`.
    V1(AsyncFd<OwnedFd>),
    /// cgroup v2: `memory.events` is modified.
    V2(AsyncFd<OwnedFd>),
}

impl OomWatch {
    /// Waits for the next sign. Pending for ever when the watch is broken.
    pub async fn sign(&self) {
        let broken = match self {
            Self::V1(fd) => match fd.readable().await {
                Ok(mut guard) => {
                    let result = nix::unistd::read(fd.get_ref(), &mut [0; 8]);
                    guard.clear_ready();
                    result.is_err_and(|error| error != nix::errno::Errno::EAGAIN)
                }
                Err(_) => true,
            },
            Self::V2(fd) => match fd.readable().await {
                Ok(mut guard) => {
                    // What changed is not asked; the counter tells.
                    let result = nix::unistd::read(fd.get_ref(), &mut [0; 4096]);
                    guard.clear_ready();
                    result.is_err_and(|error| error != nix::errno::Errno::EAGAIN)
                }
                Err(_) => true,
            },
        };
        if broken {
            tracing::warn!("the watch for out-of-memory kills is broken");
            std::future::pending::<()>().await;
        }
    }
}

pub(super) fn watch_v1(memory: &Path) -> io::Result<OomWatch> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let control = fs::File::open(memory.join("memory.oom_control"))?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    fs::write(memory.join("cgroup.event_control"), line)?;
    Ok(OomWatch::V1(wasmlet_sys::watched(event.into())?))
}

pub(super) fn watch_v2(memory: &Path) -> io::Result<OomWatch> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(&memory.join("memory.events"), AddWatchFlags::IN_MODIFY)?;
    Ok(OomWatch::V2(wasmlet_sys::watched(inotify.into())?))
}
