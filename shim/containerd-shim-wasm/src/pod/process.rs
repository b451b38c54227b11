//! One process of a container: its init, or one that was added.

use tokio::sync::watch;

use super::state::State;
use crate::reaper::Exit;
use crate::stdio::{Held, Streams};

/// A process, as its driver holds it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) state: State,
    pub(crate) streams: Streams,
    pub(crate) held: Held,
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
    /// A process that was set up; `pid` is that of an init, which waits.
    pub(crate) fn created(pid: Option<i32>, streams: Streams, held: Held) -> Self {
        let (ended, _) = watch::channel(None);
        Self {
            state: State::Created { pid },
            streams,
            held,
            ended,
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
