//! Exit codes of a wasm container that are not the guest's own.

/// How a container ends when neither the guest's own exit code nor a signal (128 + number) tells.
///
/// A trap must not look like a `SIGKILL`, so every cause has a number of its own below 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The guest trapped (unreachable, out-of-bounds access, stack overflow, …).
    Trap = 121,
    /// The guest used up its fuel.
    OutOfFuel = 122,
    /// The guest needs more linear memory at its start than it may have.
    MemoryLimit = 123,
    /// The guest ran into its time limit; the number is that of `timeout(1)`.
    Deadline = 124,
    /// The container was created, but the guest could not be started; the number is that of
    /// `docker run` when the container cannot be started.
    StartFailed = 125,
}

impl ExitCode {
    /// The number the process exits with.
    pub const fn code(self) -> i32 {
        self as i32
    }
}
