//! Terminals: the runtime sends the master of a pty over a socket, the shim copies.
//!
//! Both directions go through one fixed buffer each. A reader that stands still stops the copy, then
//! the pty fills, then the process waits.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::{StdioError, Streams};

/// Buffer of one direction, in bytes: a pty gives at most 4 KiB at a time.
const BUFFER_BYTES: usize = 4096;
/// The runtime has this long to send the terminal.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a runtime sends the terminal; the socket's file goes with it.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens on `path`, for root alone.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn bind(path: PathBuf) -> Result<Self, StdioError> {
        let bind = || -> io::Result<UnixListener> {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bind().map_err(StdioError::Terminal)?;
        Ok(Self { listener, path })
    }

    /// Its path, for `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal and starts to copy between it and the streams.
    ///
    /// # Errors
    /// When no terminal comes, or a stream cannot be opened.
    pub async fn accept(self, streams: &Streams) -> Result<Terminal, StdioError> {
        let receive = async {
            let (stream, _) = self.listener.accept().await?;
            // Readiness can be reported in error, so a read that would wait is tried again.
            stream
                .async_io(Interest::READABLE, || {
                    wasmlet_sys::receive_descriptor(stream.as_fd())
                })
                .await
        };
        let master = tokio::time::timeout(ACCEPT_TIMEOUT, receive)
            .await
            .map_err(io::Error::from)
            .flatten()
            .map_err(StdioError::Terminal)?;
        Terminal::start(master, streams)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a console socket");
        }
    }
}

/// A terminal and its two copies.
#[derive(Debug)]
pub struct Terminal {
    master: Arc<AsyncFd<OwnedFd>>,
    input: Option<JoinHandle<()>>,
    output: Option<JoinHandle<()>>,
}

impl Terminal {
    fn start(master: OwnedFd, streams: &Streams) -> Result<Self, StdioError> {
        let master = nonblocking(File::from(master)).map_err(StdioError::Terminal)?;
        let master = Arc::new(master);
        let input = match streams.stdin.as_str() {
            "" => None,
            path => {
                let from = open_fifo("stdin", path)?;
                Some(tokio::spawn(copy(
                    from,
                    Arc::clone(&master),
                    Direction::Input,
                )))
            }
        };
        let output = match streams.stdout.as_str() {
            "" => tokio::spawn(discard(Arc::clone(&master))),
            path => {
                let to = open_fifo("stdout", path)?;
                tokio::spawn(copy(Arc::clone(&master), to, Direction::Output))
            }
        };
        Ok(Self {
            master,
            input,
            output: Some(output),
        })
    }

    /// Sets its size in characters.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        wasmlet_sys::resize_terminal(self.master.get_ref(), columns, rows)
    }

    /// Copies no further input.
    pub fn close_input(&mut self) {
        if let Some(input) = self.input.take() {
            input.abort();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.close_input();
        if let Some(output) = self.output.take() {
            output.abort();
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Input,
    Output,
}

fn nonblocking(file: File) -> io::Result<AsyncFd<OwnedFd>> {
    use nix::fcntl::{FcntlArg, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    wasmlet_sys::watched(file.into())
}

/// Both ends of the FIFO at once, so that neither a missing peer nor one that leaves ends the copy.
fn open_fifo(stream: &'static str, path: &str) -> Result<Arc<AsyncFd<OwnedFd>>, StdioError> {
    let path = Path::new(path.strip_prefix("fifo://").unwrap_or(path));
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .and_then(|fifo| wasmlet_sys::watched(fifo.into()))
        .map(Arc::new)
        .map_err(|source| StdioError::Open {
            stream,
            path: path.to_owned(),
            source,
        })
}

async fn copy(from: Arc<AsyncFd<OwnedFd>>, to: Arc<AsyncFd<OwnedFd>>, direction: Direction) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let mut chunk = match read(&from, &mut buffer).await {
            // EIO is how a master says that no process has the terminal open any more.
            Ok(0) | Err(_) => break,
            Ok(bytes) => buffer.get(..bytes).unwrap_or_default(),
        };
        while !chunk.is_empty() {
            match write(&to, chunk).await {
                Ok(bytes) => chunk = chunk.get(bytes..).unwrap_or_default(),
                Err(error) => return tracing::debug!(%error, "a terminal's peer is gone"),
            }
        }
    }
    if matches!(direction, Direction::Output) {
        // The last words may still be in the FIFO, which ends for its reader when it is empty.
        let mut pause = Duration::from_millis(1);
        while wasmlet_sys::bytes_readable(to.get_ref()).is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

async fn discard(from: Arc<AsyncFd<OwnedFd>>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while read(&from, &mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
}

async fn read(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut guard = fd.readable().await?;
        if let Ok(result) = guard.try_io(|inner| Ok(nix::unistd::read(inner.get_ref(), buffer)?)) {
            return result;
        }
    }
}

async fn write(fd: &AsyncFd<OwnedFd>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        let mut guard = fd.writable().await?;
        if let Ok(result) = guard.try_io(|inner| Ok(nix::unistd::write(inner.get_ref(), bytes)?)) {
            return result;
        }
    }
}
