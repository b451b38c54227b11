//! Exit codes that more than one program knows.

/// Exit code of `wasmlet-node stage`, which a stage pod ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageExit {
    /// The bundle is in the store, checked.
    Done = 0,
    /// For a reason that has no code of its own; the message says it.
    Failed = 1,
    /// The arguments are wrong.
    Usage = 2,
    /// The image has another bundle than the one that was asked for.
    DigestMismatch = 10,
    /// The image has no bundle, or a file of it is not what its `bundle.json` says.
    BadBundle = 11,
    /// The node's disk is full.
    NoSpace = 12,
    /// The store is read-only, or may not be written.
    NotWritable = 13,
    /// The bundle is for another architecture.
    WrongPlatform = 14,
}

impl StageExit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::DigestMismatch,
        Self::BadBundle,
        Self::NoSpace,
        Self::NotWritable,
        Self::WrongPlatform,
    ];

    /// For exit(3).
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Of a container's exit code.
    pub fn of(code: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|exit| i32::from(exit.code()) == code)
    }
}
