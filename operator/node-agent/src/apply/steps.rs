//! Names of the moments at which a test ends the agent, to see what the next one makes of it.
//!
//! Unit tests stop at the n-th moment. A program built with the feature `fail-points` ends as by `kill -9` at the moment that the environment
//! variable `WASMLET_CRASH_AT` names, once for each name on a node: a file `crashed-<name>` in the state folder remembers it. Other
//! programs have neither.

use std::path::Path;

/// The moments, in their order. `changed` and `tidied` come after each change, `restored` after each that is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The journal is on the disk.
    Begun,
    /// A file or link was changed.
    Changed,
    /// The journal says that containerd is being restarted.
    RestartMarked,
    /// containerd was restarted.
    Restarted,
    /// All was verified.
    Verified,
    /// The journal says so.
    Committed,
    /// The list of owned files was written.
    Owned,
    /// Something was removed that nothing names any more.
    Tidied,
    /// The change failed, and is being taken back.
    RollbackBegun,
    /// A file or link is as before.
    Restored,
    /// All files are as before; containerd is restarted if it was.
    RollbackRestarted,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Begun,
        Self::Changed,
        Self::RestartMarked,
        Self::Restarted,
        Self::Verified,
        Self::Committed,
        Self::Owned,
        Self::Tidied,
        Self::RollbackBegun,
        Self::Restored,
        Self::RollbackRestarted,
    ];

    /// As in `WASMLET_CRASH_AT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Changed => "changed",
            Self::RestartMarked => "restart-marked",
            Self::Restarted => "restarted",
            Self::Verified => "verified",
            Self::Committed => "committed",
            Self::Owned => "owned",
            Self::Tidied => "tidied",
            Self::RollbackBegun => "rollback-begun",
            Self::Restored => "restored",
            Self::RollbackRestarted => "rollback-restarted",
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How many moments are let pass; `None`: all.
    pub(crate) static LEFT: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// What a unit test stops with.
#[cfg(test)]
pub(crate) struct Killed(pub(crate) Step);

#[cfg(test)]
pub(crate) fn reached(step: Step, _: &Path) {
    match LEFT.get() {
        Some(0) => {
            LEFT.set(None);
            std::panic::panic_any(Killed(step));
        }
        Some(left) => LEFT.set(Some(left - 1)),
        None => {}
    }
}

#[cfg(all(not(test), feature = "fail-points"))]
pub(crate) fn reached(step: Step, state: &Path) {
    if std::env::var("WASMLET_CRASH_AT").is_ok_and(|name| name == step.name()) {
        let marker = state.join(format!("crashed-{}", step.name()));
        if !marker.exists() && std::fs::write(&marker, "").is_ok() {
            eprintln!(
                "wasmlet-node: ending at {:?}, as WASMLET_CRASH_AT says",
                step.name()
            );
            std::process::abort();
        }
    }
}

#[cfg(all(not(test), not(feature = "fail-points")))]
pub(crate) fn reached(_: Step, _: &Path) {}
