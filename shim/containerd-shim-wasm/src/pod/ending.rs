//! The end of the shim: when containerd has asked for it and no container is left.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub struct Ending {
    socket: PathBuf,
    asked: AtomicBool,
    now: Notify,
}

/// Whether the pod has a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupancy {
    Empty,
    Occupied,
}

impl Ending {
    /// The end of the shim that serves on `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            asked: AtomicBool::new(false),
            now: Notify::new(),
        }
    }

    /// Waits for it.
    pub async fn wait(&self) {
        self.now.notified().await;
    }

    /// containerd asks after each container of a pod, or only once for the sandbox, which may go
    /// before the others: the request holds until the pod is empty.
    pub(super) fn ask(&self, pod: Occupancy) {
        self.asked.store(true, Ordering::Relaxed);
        self.check(pod);
    }

    /// Call when a container is gone.
    pub(super) fn check(&self, pod: Occupancy) {
        if !self.asked.load(Ordering::Relaxed) || pod == Occupancy::Occupied {
            return;
        }
        // Before the answer to whoever waits: one who creates a container of the same id next must
        // not find the socket of a shim that ends.
        match std::fs::remove_file(&self.socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.socket.display(), %error, "cannot remove the socket");
            }
            _ => self.now.notify_one(),
        }
    }
}
