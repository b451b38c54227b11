//! The engine under test, and where it differs from others: the rest of the tests is the same for all.

/// Its name.
pub(crate) const NAME: &str = "wasmer";

/// The runner: name and path.
pub(crate) const RUNNER: (&str, &str) = (
    "wasmlet-run-wasmer",
    env!("CARGO_BIN_EXE_wasmlet-run-wasmer"),
);

/// The compile helper: name and path.
pub(crate) const COMPILER: (&str, &str) = (
    "wasmlet-aot-wasmer",
    env!("CARGO_BIN_EXE_wasmlet-aot-wasmer"),
);

/// Whether it runs components.
pub(crate) const COMPONENTS: bool = false;

/// Bytes of stack of a guest whose pod says nothing.
pub(crate) const STACK: u64 = 1 << 20;

/// Threads of a container whose guest waits: the second one wakes it.
pub(crate) const THREADS: &str = "2";

/// Folders that a guest sees before and after those of the container: Wasmer's virtual root, and what is
/// behind it.
pub(crate) const MORE_PREOPENS: (&[&str], &[&str]) = (&["/", "/"], &[]);

/// Hundreds of elements that a table has under a cap that leaves room for 40: a sixteenth of the cap.
pub(crate) const TABLE_GROWS_TO: i32 = 7;

/// The check of `guests::juggles_with_descriptors` that fails: the last one. Its descriptor 3 is WASIX's
/// root, which is there again after a close.
pub(crate) const DESCRIPTOR_CHECK: i32 = 27;
