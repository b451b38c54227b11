//! News of out-of-memory kills.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Something that becomes readable when the kernel may have killed for memory.
#[derive(Debug)]
pub struct OomWatch {
    fd: AsyncFd<OwnedFd>,
    /// Looks at the counter that are still to come after the last sign.
    looks: AtomicUsize,
    /// Waits between them.
    pauses: &'static [Duration],
}

/// cgroup v1 gives its sign before the kernel picks a victim, so that the counter may still be what it was.
const PAUSES_V1: &[Duration] = &[
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
];
/// cgroup v2 reports that the counter has changed.
const PAUSES_V2: &[Duration] = &[];

impl OomWatch {
    fn new(fd: OwnedFd, pauses: &'static [Duration]) -> io::Result<Self> {
        Ok(Self {
            fd: wasmlet_sys::watched(fd)?,
            looks: AtomicUsize::new(0),
            pauses,
        })
    }

    /// Waits until it is time to look at the counter. Pending for ever when the watch is broken.
    pub async fn sign(&self) {
        let done = self.pauses.len() - self.looks.load(Ordering::Relaxed);
        let pause = match self.pauses.get(done) {
            Some(pause) => *pause,
            None => return self.news().await,
        };
        tokio::select! {
            () = self.news() => {}
            () = tokio::time::sleep(pause) => {
                self.looks.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits for the kernel's sign.
    async fn news(&self) {
        let is_broken = match self.fd.readable().await {
            Ok(mut guard) => {
                // What it says is not asked; the counter tells. Large enough for inotify's messages.
                let result = nix::unistd::read(self.fd.get_ref(), &mut [0; 4096]);
                guard.clear_ready();
                result.is_err_and(|error| error != nix::errno::Errno::EAGAIN)
            }
            Err(_) => true,
        };
        if is_broken {
            tracing::warn!("the watch for out-of-memory kills is broken");
            std::future::pending::<()>().await;
        }
        self.looks.store(self.pauses.len(), Ordering::Relaxed);
    }
}

pub(super) fn watch_v1(memory: &Path) -> io::Result<OomWatch> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let control = fs::File::open(memory.join("memory.oom_control"))?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    fs::write(memory.join("cgroup.event_control"), line)?;
    OomWatch::new(event.into(), PAUSES_V1)
}

pub(super) fn watch_v2(memory: &Path) -> io::Result<OomWatch> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(&memory.join("memory.events"), AddWatchFlags::IN_MODIFY)?;
    OomWatch::new(inotify.into(), PAUSES_V2)
}
