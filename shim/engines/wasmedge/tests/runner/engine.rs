//! The engine under test, and where it differs from others: the rest of the tests is the same for all.

/// Its name.
pub(crate) const NAME: &str = "wasmedge";

/// The runner: name and path, of its launcher.
pub(crate) const RUNNER: (&str, &str) = (
    "wasmlet-run-wasmedge",
    env!("CARGO_BIN_EXE_wasmlet-run-wasmedge"),
);

/// The compile helper: name and path, of its launcher.
pub(crate) const COMPILER: (&str, &str) = (
    "wasmlet-aot-wasmedge",
    env!("CARGO_BIN_EXE_wasmlet-aot-wasmedge"),
);

/// Whether it runs components.
pub(crate) const COMPONENTS: bool = false;

/// Threads of a container whose guest waits: the first one waits for signals.
pub(crate) const THREADS: &str = "2";

/// The check of `guests::juggles_with_descriptors` that fails: the library lets nobody ask what kind of file a
/// connection is (fd_filestat_get).
pub(crate) const DESCRIPTOR_CHECK: i32 = 4;
