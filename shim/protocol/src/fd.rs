//! Numbers of the file descriptors that a runner or helper inherits.

/// Runner: one end of a socket pair. The shim writes one [`crate::CreateRequest`] as JSON and shuts
/// its writing side; the runner writes one [`crate::CreateReply`] as JSON and closes.
pub const CONTROL: i32 = 3;

/// Runner: the compiled artifact, open for reading. The shim verified this very inode, so the
/// runner never opens an artifact by path.
pub const ARTIFACT: i32 = 4;

/// Compile helper: an empty, unlinked file that receives the artifact.
pub const COMPILE_OUTPUT: i32 = 3;
