//! The engine under test, and where it differs from others: the rest of the tests is the same for all.

/// Its name.
pub(crate) const NAME: &str = "wasmtime";

/// The runner: name and path.
pub(crate) const RUNNER: (&str, &str) = (
    "wasmlet-run-wasmtime",
    env!("CARGO_BIN_EXE_wasmlet-run-wasmtime"),
);

/// The compile helper: name and path.
pub(crate) const COMPILER: (&str, &str) = (
    "wasmlet-aot-wasmtime",
    env!("CARGO_BIN_EXE_wasmlet-aot-wasmtime"),
);

/// Whether it runs components.
pub(crate) const COMPONENTS: bool = true;

/// Bytes of stack of a guest whose pod says nothing.
pub(crate) const STACK: u64 = 512 << 10;

/// Threads of a container whose guest waits.
pub(crate) const THREADS: &str = "1";

/// Folders that a guest sees before and after those of the container.
pub(crate) const MORE_PREOPENS: (&[&str], &[&str]) = (&[], &[]);

/// Hundreds of elements that a table has under a cap that leaves room for 40.
pub(crate) const TABLE_GROWS_TO: i32 = 40;

/// The check of `guests::juggles_with_descriptors` that fails: none.
pub(crate) const DESCRIPTOR_CHECK: i32 = 0;
