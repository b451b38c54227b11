//! The shim's log goes where containerd reads it: the FIFO `log` in the bundle.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::OFlag;
use tracing_subscriber::fmt::MakeWriter;

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// What an operator should know.
    Normal,
    /// `-debug`, or a log level of debug from containerd.
    Debug,
}

/// Sends the log to the FIFO `log` in `bundle`; without one (old or hand-made callers) nowhere.
///
/// The FIFO is opened for reading too, so that it outlives a restart of containerd, and without
/// blocking: a reader that stands still loses lines, it never holds the shim up.
pub fn to_bundle(bundle: &Path, verbosity: Verbosity) {
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(bundle.join("log"));
    if let Ok(fifo) = fifo {
        install(FifoWriter(Arc::new(fifo)), verbosity);
    }
}

/// Sends the log to stderr, for commands that people or containerd run and wait for.
pub fn to_stderr(verbosity: Verbosity) {
    install(io::stderr, verbosity);
}

fn install<W>(writer: W, verbosity: Verbosity)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = match verbosity {
        Verbosity::Normal => tracing::Level::INFO,
        Verbosity::Debug => tracing::Level::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .finish();
    // A second subscriber in one process can only be a test's; the first one stays.
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("a log is set up already");
    }
}

#[derive(Clone)]
struct FifoWriter(Arc<File>);

impl Write for FifoWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match (&*self.0).write(line) {
            // Full: nobody reads at the moment. The line is dropped, the shim goes on.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(line.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for FifoWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
