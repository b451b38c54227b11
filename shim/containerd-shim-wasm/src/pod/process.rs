//! One process of a container: its init, or one that was added.

use std::os::fd::OwnedFd;

use tokio::sync::watch;

use super::state::State;
use crate::error::{Error, Result};
use crate::reaper::Exit;
use crate::stdio::{Held, Streams};

/// A process, as its driver holds it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) state: State,
    pub(crate) streams: Streams,
    pub(crate) held: Held,
    /// Reaches this process and never one that took its number; none while there is no process, or when
    /// it had ended before it could be opened.
    pidfd: Option<OwnedFd>,
    ended: watch::Sender<Option<Exit>>,
}

/// A process, as anybody may see it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where it stands.
    pub state: State,
    /// Its streams.
    pub streams: Streams,
    /// Tells when it has ended; keeps telling after it was deleted.
    pub ended: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// A process that is not there yet.
    pub(crate) fn planned(streams: Streams) -> Self {
        let (ended, _) = watch::channel(None);
        Self {
            state: State::Created { pid: None },
            streams,
            held: Held::default(),
            pidfd: None,
            ended,
        }
    }

    /// An init that was set up and waits.
    pub(crate) fn created(pid: i32, streams: Streams, held: Held) -> Result<Self> {
        Ok(Self {
            state: State::Created { pid: Some(pid) },
            held,
            pidfd: open(pid)?,
            ..Self::planned(streams)
        })
    }

    /// A planned process runs.
    pub(crate) fn runs(&mut self, pid: i32, held: Held) -> Result<()> {
        self.held = held;
        self.state = self.state.started(pid);
        self.pidfd = open(pid)?;
        Ok(())
    }

    /// Sends a signal; one that has ended takes none.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        let Some(pidfd) = &self.pidfd else {
            return Ok(());
        };
        match wasmlet_sys::pidfd_send_signal(pidfd, signal) {
            Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => Err(Error::system(
                format!("send signal {signal} to process {:?}", self.state.pid()),
            )(
                error
            )),
            _ => Ok(()),
        }
    }

    /// Whether it has ended, which may not have been told yet.
    pub(crate) fn has_ended(&self) -> Result<bool> {
        match &self.pidfd {
            None => Ok(true),
            Some(pidfd) => {
                wasmlet_sys::has_ended(pidfd).map_err(Error::system("look at a process"))
            }
        }
    }

    /// Records its end; the first one counts.
    pub(crate) fn end(&mut self, exit: Exit) {
        self.state = self.state.ended(exit);
        self.held.ended();
    }

    /// Tells everybody who waits. After the exit event was put into the outbox, so that nobody can
    /// delete the process before.
    pub(crate) fn announce_end(&self) {
        self.ended.send_replace(self.state.exit());
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state,
            streams: self.streams.clone(),
            ended: self.ended.subscribe(),
        }
    }
}

fn open(pid: i32) -> Result<Option<OwnedFd>> {
    match wasmlet_sys::pidfd_open(pid) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
        Err(error) => Err(Error::system(format!("reach process {pid}"))(error)),
    }
}
