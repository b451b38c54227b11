//! The life of a process, as data.
//!
//! ```text
//!            start              pause
//!  Created ────────▶ Running ◀────────▶ Paused
//!     │                 │     resume       │
//!     └─────────────────┴──────────────────┘
//!                       │ exit
//!                       ▼
//!                    Stopped ──delete──▶ (gone)
//! ```
//!
//! A container's init has all of it, a further process of a container (an exec) is never paused on
//! its own. What may be asked in which state is [`super::queue`]'s; doing it is [`super::driver`]'s.

use crate::reaper::Exit;

/// Where a process stands. Each state holds only what exists then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Set up, not started. An exec has no process yet, a container's init waits.
    Created {
        /// Process id of the waiting init.
        pid: Option<i32>,
    },
    /// Started.
    Running {
        /// Process id.
        pid: i32,
    },
    /// Started and frozen.
    Paused {
        /// Process id.
        pid: i32,
    },
    /// Ended.
    Stopped {
        /// Process id it had; none when it ended before it had one.
        pid: Option<i32>,
        /// How it ended.
        exit: Exit,
    },
}

impl State {
    /// Name for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// The process id it has or had.
    pub const fn pid(&self) -> Option<i32> {
        match self {
            Self::Created { pid } | Self::Stopped { pid, .. } => *pid,
            Self::Running { pid } | Self::Paused { pid } => Some(*pid),
        }
    }

    /// How it ended, if it did.
    pub const fn exit(&self) -> Option<Exit> {
        match self {
            Self::Stopped { exit, .. } => Some(*exit),
            Self::Created { .. } | Self::Running { .. } | Self::Paused { .. } => None,
        }
    }

    /// After a start.
    #[must_use]
    pub const fn started(self, pid: i32) -> Self {
        match self {
            // It may have ended before the start returned.
            Self::Stopped { .. } => self,
            Self::Created { .. } | Self::Running { .. } | Self::Paused { .. } => {
                Self::Running { pid }
            }
        }
    }

    /// After a pause.
    #[must_use]
    pub const fn paused(self) -> Self {
        match self {
            Self::Running { pid } => Self::Paused { pid },
            Self::Created { .. } | Self::Paused { .. } | Self::Stopped { .. } => self,
        }
    }

    /// After a resume.
    #[must_use]
    pub const fn resumed(self) -> Self {
        match self {
            Self::Paused { pid } => Self::Running { pid },
            Self::Created { .. } | Self::Running { .. } | Self::Stopped { .. } => self,
        }
    }

    /// After the process ended; the first end counts.
    #[must_use]
    pub const fn ended(self, exit: Exit) -> Self {
        match self {
            Self::Stopped { .. } => self,
            Self::Created { .. } | Self::Running { .. } | Self::Paused { .. } => Self::Stopped {
                pid: self.pid(),
                exit,
            },
        }
    }
}
